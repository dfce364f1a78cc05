package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"parley/interop/lab"
)

// maxProfile bounds a profile, in bytes.
const maxProfile = 64 << 20

// cpuProfile takes a CPU profile of a running Parley, in pprof's format.
func (s *Site) cpuProfile(ctx context.Context, d time.Duration) ([]byte, error) {
	return s.profile(ctx, fmt.Sprintf("profile?seconds=%d", max(int(d.Seconds()), 1)))
}

// heapProfile takes a profile of what a running Parley holds in its heap, after a collection.
func (s *Site) heapProfile(ctx context.Context) ([]byte, error) { return s.profile(ctx, "heap?gc=1") }

// profile fetches what a running Parley answers under /debug/pprof/.
func (s *Site) profile(ctx context.Context, what string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return s.Host().Dial(ctx, network, addr)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+lab.MetricsAddr+"/debug/pprof/"+what, nil)
	if err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProfile))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, data)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	return data, nil
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
