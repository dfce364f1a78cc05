package c2s_test

import (
	"fmt"
	"runtime"
	"testing"

	"parley/xmpp/xmpptest"
)

// BenchmarkIdle measures what sessions hold that are available and silent: the
// client's own share is in it. Run it with -benchtime=200x.
func BenchmarkIdle(b *testing.B) {
	s := xmpptest.New(b)
	s.Connect("alice", "first").Sync()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	routines := runtime.NumGoroutine()
	for i := range b.N {
		if i%20 == 0 {
			s.Account(fmt.Sprintf("idle%d", i/20))
		}
		c := s.Connect(fmt.Sprintf("idle%d", i/20), fmt.Sprintf("r%d", i%20))
		c.SendRaw("<presence/>")
		c.Sync()
	}
	for range 6 { // stacks shrink by half in each
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "heap-B/session")
	b.ReportMetric(float64(after.StackInuse-before.StackInuse)/float64(b.N), "stack-B/session")
	b.ReportMetric(float64(runtime.NumGoroutine()-routines)/float64(b.N), "goroutines/session")
}
