package main

import (
	"context"
	"runtime"
	"slices"
	"testing"
)

// Memory is given back in the quiet after a burst, a few times, and not again
// until the next.
func TestBurst(t *testing.T) {
	var b burst
	var got []bool
	total := uint64(0)
	const much, little = 10 << 20, 1 << 10
	for _, n := range []uint64{little, little, much, much, little, little, little, little, little, little, much, little} {
		total += n
		got = append(got, b.over(total, 1<<20))
	}
	want := []bool{false, false, false, false, true, true, true, true, false, false, false, false}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if all, held := memory(); all == 0 || held == 0 || held > all {
		t.Errorf("the runtime says that %d bytes of %d are held", held, all)
	}
	b = burst{left: 1}
	if !b.over(2<<20, 64<<20) {
		t.Error("what is little beside the heap is not taken for quiet")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tidy(ctx) // ends
}

// A small heap has room for garbage, a large one no more than Go gives it.
func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: gcMost, 1 << 20: gcMost, 40 << 20: 300, 64 << 20: 200, 100 << 20: 125, 128 << 20: 100, 1 << 40: 100} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d MiB in use: %d percent, not %d", live>>20, got, want)
		}
	}
	runtime.GC()
	if n := live(); n == 0 {
		t.Error("the runtime does not say what is in use")
	}
}

// There is room for garbage while load goes on and nothing grows, and only then.
func TestRoom(t *testing.T) {
	const mib = 1 << 20
	r := room{least: 40 * mib}
	total := uint64(0)
	look := func(allocated, live uint64) int {
		total += allocated * mib
		return r.percent(total, live*mib)
	}
	for i := range gcLooks - 1 {
		if got := look(100, 40); got != 100 {
			t.Errorf("look %d: %d percent", i, got)
		}
	}
	if got := look(100, 40); got != 300 {
		t.Errorf("under load: %d percent", got)
	}
	if got := look(1, 40); got != 100 {
		t.Errorf("without load: %d percent", got)
	}
	for live := uint64(42); live < 100; live += 4 {
		if got := look(100, live); got != 100 {
			t.Errorf("while %d MiB are in use, and more and more: %d percent", live, got)
		}
	}
	for range gcLooks {
		look(100, 64)
	}
	if got := look(100, 64); got != 200 {
		t.Errorf("when nothing grows any more: %d percent", got)
	}
}
