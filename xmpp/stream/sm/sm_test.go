package sm_test

import (
	"errors"
	"slices"
	"testing"

	"parley/xmpp/stream/sm"
	"pgregory.net/rapid"
)

// The count told to the peer must never pass a stanza that is not durable, whatever the order in which they become so, and must
// reach the last one.
func TestInboundCountsOnlyWhatIsDurable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := sm.Counter(rapid.Uint32().Draw(t, "start"))
		n := rapid.IntRange(0, 30).Draw(t, "stanzas")
		in := sm.NewInbound(start)
		var numbers []sm.Counter
		for range n {
			numbers = append(numbers, in.Receive())
		}
		done := map[sm.Counter]bool{}
		for i, c := range rapid.Permutation(numbers).Draw(t, "order") {
			before := in.H()
			moved := in.Done(c)
			done[c] = true
			if moved != (in.H() != before) {
				t.Fatalf("moved %v, H %d to %d", moved, before, in.H())
			}
			for j := uint32(1); j <= in.H().Since(start); j++ {
				if !done[start+sm.Counter(j)] {
					t.Fatalf("H %d passes %d", in.H(), j)
				}
			}
			if done[in.H()+1] {
				t.Fatal("H stops before a durable stanza")
			}
			if in.Done(c) || in.Done(start) || in.Done(start+sm.Counter(n)+1) {
				t.Fatalf("a number that is not outstanding moved H, after %d", i)
			}
		}
		if in.H() != start+sm.Counter(n) || in.Pending() != 0 {
			t.Fatalf("H %d, pending %d", in.H(), in.Pending())
		}
	})
}

// Outbound is compared with a model that numbers stanzas without wrapping.
func TestOutboundAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SampledFrom([]uint64{0, 5, 1<<32 - 3}).Draw(t, "start")
		const limit = 8
		o := sm.NewOutbound[uint64](sm.Counter(start), limit)
		sent, acked := start, start
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				c, err := o.Push(sent + 1)
				if full := sent-acked == limit; full != errors.Is(err, sm.ErrFull) {
					t.Fatalf("full %v: %v", full, err)
				} else if !full {
					if sent++; c != sm.Counter(sent) {
						t.Fatalf("number %d, want %d", c, sm.Counter(sent))
					}
				}
			},
			"ack": func(t *rapid.T) {
				h := acked + rapid.Uint64Range(0, sent-acked).Draw(t, "h")
				got, err := o.Ack(sm.Counter(h))
				if err != nil || !slices.Equal(got, seq(acked, h)) {
					t.Fatalf("%v, %v", got, err)
				}
				acked = h
			},
			"resume": func(t *rapid.T) {
				h := acked + rapid.Uint64Range(0, sent-acked).Draw(t, "h")
				done, again, err := o.Resume(sm.Counter(h))
				if err != nil || !slices.Equal(done, seq(acked, h)) || !slices.Equal(again, seq(h, sent)) {
					t.Fatalf("%v, %v, %v", done, again, err)
				}
				acked = h
			},
			"wrong": func(t *rapid.T) {
				h := sent + 1 + rapid.Uint64Range(0, 1<<31).Draw(t, "beyond")
				_, err := o.Ack(sm.Counter(h))
				if e, ok := errors.AsType[*sm.HandledTooManyError](err); !ok || e.SendCount != sm.Counter(sent) {
					t.Fatalf("h %d beyond %d: %v", h, sent, err)
				}
			},
			"": func(t *rapid.T) {
				if o.Len() != int(sent-acked) || o.Sent() != sm.Counter(sent) || !slices.Equal(o.Unacked(), seq(acked, sent)) {
					t.Fatalf("%d unacknowledged of %d..%d", o.Len(), acked, sent)
				}
			},
		})
	})
}

// seq is from+1 to to.
func seq(from, to uint64) []uint64 {
	var out []uint64
	for i := from + 1; i <= to; i++ {
		out = append(out, i)
	}
	return out
}
