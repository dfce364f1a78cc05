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
// Go has it. Under load that goes on while what is in use stays the same, it is
// gcRoom at least, since a small heap would be collected several times a second,
// but not more than gcMost percent of it. While what is in use grows, as by
// logins, there is no room: the garbage between what stays would leave gaps that
// nothing gives back.
const (
	gcRoom  = 128 << 20
	gcMost  = 400
	gcBusy  = 16 << 20 // bytes allocated between two looks
	gcLooks = 5        // for which nothing has grown
	gcGrown = 32       // what counts as growth: that part of what was in use
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
	percent, r := 100, room{least: live(), last: b.last}
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		allocated, heap := memory()
		if p := r.percent(allocated, live()); !set && p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
		if b.over(allocated, heap) {
			debug.FreeOSMemory()
		}
	}
}

// room follows whether there is load, and whether what is in use grows.
type room struct {
	last   uint64 // bytes allocated at the last look
	least  uint64 // bytes in use at the last growth, or fewer since
	steady int    // looks since the last growth
}

// percent is the value for GOGC.
func (r *room) percent(allocated, live uint64) int {
	busy := allocated-r.last >= gcBusy
	r.last = allocated
	r.steady++
	switch {
	case live > r.least+r.least/gcGrown:
		r.least, r.steady = live, 0
	case live < r.least:
		r.least = live
	}
	if !busy || r.steady < gcLooks {
		return 100
	}
	return gcPercent(live)
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
