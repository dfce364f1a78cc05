package mirror_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/store"
	"parley/store/hubstore"
	"parley/store/storetest"
)

// BenchmarkTurn is the whole way of a message that a client says to another,
// between the translations: repetition, verdict, PDU, event, aliases, the count
// of the sender's stream, commit, news. It says what processor time a message
// costs besides how many there are in a second.
func BenchmarkTurn(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkTurn(b, callers) })
	}
}

func benchmarkTurn(b *testing.B, callers int) {
	db := storetest.Open(b, storetest.SQLite(b), store.Options{})
	w := worldOn(b, db, "12")
	const pairs = 250
	type pair struct{ a, b core.Address }
	all := make([]pair, pairs)
	for i := range all {
		all[i] = pair{core.LocalAddress(fmt.Sprintf("romeo%d", i), hubtest.Domain), core.LocalAddress(fmt.Sprintf("juliet%d", i), hubtest.Domain)}
	}
	err := w.h.Write(b.Context(), func(tx hub.Tx) error {
		for _, p := range all {
			for _, a := range []core.Address{p.a, p.b} {
				if err := tx.PutAccount(hub.Account{Address: a, Strangers: core.Deliver}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	say := func(i int) {
		p := all[i%pairs]
		if i/pairs%2 == 1 {
			p.a, p.b = p.b, p.a
		}
		id := fmt.Sprintf("%x-message-of-benchmark", i)
		native := fmt.Sprintf(`<message xmlns='jabber:client' from='%s' to='%s' type='chat' id='%s'><body>hello, how are you today?</body><origin-id xmlns='urn:xmpp:sid:0' id='%[3]s'/></message>`, p.a, p.b, id)
		scope := p.a.String() + " " + p.b.String()
		_, err := w.h.SubmitDirect(b.Context(), p.b, hub.Draft{
			Sender: p.a, Content: core.Message{Body: core.TextBody("hello, how are you today?")},
			Native: &core.Native{Network: core.XMPP, Type: "message", Data: []byte(native)},
			Aliases: []core.Alias{{Network: core.XMPP, Kind: "origin-id", Scope: scope, Key: id, Digest: "7c2b9a9f7c2b9a9f"},
				{Network: core.XMPP, Kind: "id", Scope: scope, Key: id, Digest: "7c2b9a9f7c2b9a9f"}},
			With: func(tx hub.Tx, e *core.Event) error {
				_, err := hubstore.Tx(tx).Exec(`UPDATE settings SET value = $1 WHERE key = $2`, []byte(id), "home")
				return err
			},
		})
		if err != nil {
			b.Error(err)
		}
	}
	for i := range 2 * pairs { // open and joined from both sides
		say(i)
	}
	var next atomic.Int64
	next.Store(2 * pairs)
	b.ReportAllocs()
	began := processorTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(2*pairs+b.N); i = next.Add(1) {
				say(int(i))
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((processorTime()-began).Nanoseconds())/1000/float64(b.N), "cpu-µs/event")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
