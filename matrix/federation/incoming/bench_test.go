package incoming_test

import (
	"encoding/json"
	"fmt"
	"testing"
)

// BenchmarkReceive takes transactions of 50 messages, each after the one before:
// parsed, hashed, verified, judged, shown and on disk.
func BenchmarkReceive(b *testing.B) {
	e := newEvil(b)
	const batch = 50
	prev, auth := ends(e.a, e.room), e.auth()
	var txns [][]json.RawMessage
	for i := range 100 {
		var raws []json.RawMessage
		for k := range batch {
			p := e.proto(fmt.Sprint("number ", i*batch+k))
			p.PrevEvents, p.AuthEvents, p.Depth = prev, auth, int64(100+i*batch+k)
			id, raw := e.sign(p)
			raws, prev = append(raws, raw), []string{id}
		}
		txns = append(txns, raws)
	}
	n := 0
	for b.Loop() {
		for id, err := range e.send(txns[n%len(txns)]...) {
			if err != nil {
				b.Fatalf("%s: %v", id, err)
			}
		}
		n++
	}
	if n > len(txns) {
		b.Fatalf("%d transactions, and there are %d: use -benchtime 100x", n, len(txns))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n*batch), "µs/event")
}
