package main

import (
	"context"
	"os"
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

// How much may be allocated between two collections: as much as is in use, as
// Go has it, but not less than gcRoom, since a small heap would be collected
// several times a second under load, and not more than gcMost percent of it.
const (
	gcRoom = 128 << 20
	gcMost = 400
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
	_, set := os.LookupEnv("GOGC") // the operator knows better
	percent := 100
	for {
		if p := gcPercent(live()); !set && p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
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

// gcPercent is the value for GOGC where so many bytes are in use, in steps of
// a quarter so that it seldom changes.
func gcPercent(live uint64) int {
	const step = 25
	return min(max(int(100*gcRoom/max(live, 1))/step*step, 100), gcMost)
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

// live is how many bytes were in use at the end of the last collection.
func live() uint64 { return readStats("/gc/heap/live:bytes")[0] }

// memory is how many bytes this process has allocated so far, and how many of
// them it holds.
func memory() (allocated, heap uint64) {
	v := readStats("/gc/heap/allocs:bytes", "/memory/classes/heap/objects:bytes")
	return v[0], v[1]
}

// readStats asks the runtime for numbers; those that it does not have are zero.
func readStats(names ...string) []uint64 {
	samples := make([]stats.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	stats.Read(samples)
	values := make([]uint64, len(names))
	for i, s := range samples {
		if s.Value.Kind() == stats.KindUint64 {
			values[i] = s.Value.Uint64()
		}
	}
	return values
}
