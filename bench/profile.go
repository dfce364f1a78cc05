package bench

import (
	"context"
	"strconv"
	"strings"
	"time"

	"parley/bench/meter"
)

// cpuProfile takes a CPU profile of a running Parley, in pprof's format.
func (s *Site) cpuProfile(ctx context.Context, d time.Duration) ([]byte, error) {
	return s.profile(ctx, meter.CPUProfile(d))
}

// heapProfile takes a profile of what a running Parley holds in its heap, after a collection.
func (s *Site) heapProfile(ctx context.Context) ([]byte, error) { return s.profile(ctx, "heap?gc=1") }

// profile fetches what a running Parley answers under /debug/pprof/.
func (s *Site) profile(ctx context.Context, what string) ([]byte, error) {
	return meter.Profile(ctx, s.Host(), what)
}

// heapStats are the numbers of Go's runtime about its memory, by their names in
// runtime.MemStats, as they stand at the end of a heap profile in text. "Stack", which is
// written as two numbers, is the first of them: what is in use.
func (s *Site) heapStats(ctx context.Context) (map[string]int64, error) {
	text, err := s.profile(ctx, "heap?gc=1&debug=1")
	if err != nil {
		return nil, err
	}
	stats := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
		first, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		if n, err := strconv.ParseInt(first, 10, 64); ok && err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}
