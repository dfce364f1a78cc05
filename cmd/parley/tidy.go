package main

import (
	"context"
	"runtime/debug"
	stats "runtime/metrics"
	"time"
)

// When memory is given back: little has been allocated since the last look,
// and much before. What is little grows with the heap: thousands of sessions
// always have something to do.
const (
	tidyEvery  = 2 * time.Second
	tidyQuiet  = 1 << 20 // bytes
	tidyPart   = 16      // of the heap
	tidyBurst  = 16 << 20
	tidyRounds = 4 // a stack shrinks by half in each collection
)

// tidy gives memory back to the system when a burst of work is over, such as
// the logins after a restart. Otherwise the garbage of the last burst and the
// stacks that it took would stay for as long as nothing else happens, which
// for sessions that are silent is most of what they seem to take.
func tidy(ctx context.Context) {
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	var b burst
	b.last, _ = memory()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if b.over(memory()) {
			debug.FreeOSMemory()
		}
	}
}

// burst follows how many bytes have been allocated.
type burst struct {
	last  uint64 // at the last look
	since uint64 // since memory was last given back
	left  int    // rounds of giving back that are due
}

// over reports whether to give memory back now.
func (b *burst) over(allocated, heap uint64) bool {
	grown := allocated - b.last
	b.last, b.since = allocated, b.since+grown
	if b.since >= tidyBurst {
		b.since, b.left = 0, tidyRounds
	}
	if grown > max(tidyQuiet, heap/tidyPart) || b.left == 0 {
		return false
	}
	b.left--
	return true
}

// memory is how many bytes this process has allocated so far, and how many of
// them it holds.
func memory() (allocated, heap uint64) {
	s := []stats.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	stats.Read(s)
	for _, v := range s {
		if v.Value.Kind() != stats.KindUint64 {
			return 0, 0
		}
	}
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}
