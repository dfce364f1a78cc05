package main

import (
	"context"
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
		got = append(got, b.over(total))
	}
	want := []bool{false, false, false, false, true, true, true, true, false, false, false, false}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if allocated() == 0 {
		t.Error("the runtime does not say what was allocated")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tidy(ctx) // ends
}
