package sending_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"parley/hub/hubtest"
	"parley/matrix/federation"
	"parley/matrix/federation/sending"
)

// takes is a network of servers that take everything at once; it counts events.
type takes struct{ n atomic.Int64 }

func (n *takes) Do(_ context.Context, call federation.Call) ([]byte, error) {
	n.n.Add(int64(bytes.Count(call.Body, []byte(`"prev_events"`))))
	return []byte(`{"pdus":{}}`), nil
}

// BenchmarkSend is what an event costs that goes to so many servers, from the
// turn that admits it until all have it.
func BenchmarkSend(b *testing.B) {
	for _, n := range []int{1, 30, 1000} {
		b.Run(fmt.Sprintf("servers=%d", n), func(b *testing.B) {
			taken := &takes{}
			w := newWorld(b, sqlite(b), func(c *sending.Config) { c.Client, c.AckEvery = taken, time.Second })
			w.start()
			alice := hubtest.Account(b, w.h, "alice")
			var dests []string
			for i := range n {
				dests = append(dests, fmt.Sprintf("s%d.test", i))
			}
			room := w.room(alice, dests...)
			const batch = 100
			texts, want := many(batch), int64(0)
			for b.Loop() {
				w.sayAll(room, alice, texts...)
				for want += int64(batch * n); taken.n.Load() < want; {
					time.Sleep(time.Millisecond)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/event")
			b.ReportMetric(float64(b.N*batch*n)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}
