package mirror_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/mirror"
	"parley/matrix/wire"
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
			Native:  &core.Native{Network: core.XMPP, Type: "message", Data: []byte(native)},
			Aliases: []core.Alias{{Network: core.XMPP, Kind: "origin-id", Scope: scope, Key: id, Digest: "7c2b9a9f7c2b9a9f"}},
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

// What is remembered of a room is forgotten with a turn that is undone, and a
// mirror that remembers nothing goes on where another has stopped.
func TestMemory(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := worldOn(t, db, "12")
		alice, bob := hubtest.Account(t, w.h, "alice"), hubtest.Account(t, w.h, "bob")
		c := w.open(hub.Opening{Creator: alice})
		undone := errors.New("undone")
		message := hub.Draft{Conv: c.ID, Sender: alice, Content: core.Message{Body: core.TextBody("hello")}}
		invitation := hub.Draft{Conv: c.ID, Sender: alice, Content: core.Membership{Target: bob, Standing: core.Invited}}
		failing := message
		failing.With = func(hub.Tx, *core.Event) error { return undone }
		for i := range 30 {
			switch i % 5 {
			case 1:
				if _, err := w.h.SubmitAll(t.Context(), []hub.Draft{message, invitation, failing}); !errors.Is(err, undone) {
					t.Fatal(err)
				}
			case 3: // a server that has just begun
				w = worldOn(t, db, "12")
			default:
				if _, err := w.h.SubmitAll(t.Context(), []hub.Draft{message, message}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := w.h.Submit(t.Context(), invitation); err != nil {
			t.Fatal(err)
		}
		w.read(func(v hub.View) error {
			log, err := v.Page(hub.Query{Conv: c.ID})
			if err != nil {
				return err
			}
			var before mirror.Event
			for i, e := range log {
				found, err := w.m.ByCore(v, e.ID)
				if err != nil || len(found) != 1 {
					return fmt.Errorf("%d PDUs of %s, %w", len(found), e.ID, err)
				}
				pdu := found[0]
				if e.Position != core.Position(i+1) || pdu.Depth != int64(i+1) {
					t.Errorf("event %d has the position %d and the depth %d", i+1, e.Position, pdu.Depth)
				}
				if i > 0 && !slices.Equal(pdu.PrevEvents, []string{before.EventID}) {
					t.Errorf("event %d follows %v and not %s", i+1, pdu.PrevEvents, before.EventID)
				}
				before = pdu
			}
			return nil
		})
	})
}

// Signed signs for each of our servers that vouches for an event.
func TestSigned(t *testing.T) {
	w := newWorld(t, "12")
	_, other, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	_, first, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t, storetest.SQLite(t), store.Options{})
	m, err := mirror.New(t.Context(), db, mirror.Config{
		Domains: []string{hubtest.Domain, "two.example"}, Keys: map[string]*wire.SigningKey{hubtest.Domain: first, "two.example": other},
	})
	if err != nil {
		t.Fatal(err)
	}
	alice := hubtest.Account(t, w.h, "alice")
	c := w.open(hub.Opening{Creator: alice})
	version, err := wire.VersionOf("12")
	if err != nil {
		t.Fatal(err)
	}
	guest := "@bob:two.example"
	for name, p := range map[string]wire.Proto{
		"message":    {Type: "m.room.message", Content: []byte(`{"body":"hello"}`)},
		"invitation": {Type: wire.TypeMember, StateKey: &guest, Content: []byte(`{"membership":"invite"}`)},
	} {
		p.RoomID, p.Sender, p.Depth = c.Native[core.Matrix], "@alice:"+hubtest.Domain, 1
		pdu, err := wire.Build(version, p)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := m.Signed(pdu)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := wire.Parse(version, raw)
		if err != nil || signed.EventID != pdu.EventID || !signed.CheckHash() {
			t.Fatalf("%s: signed %+v, %v", name, signed, err)
		}
		if err := signed.Verify(hubtest.Domain, first.ID(), first.Public()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := signed.Verify("two.example", other.ID(), other.Public()); (err == nil) != (name == "invitation") {
			t.Errorf("%s: signature of the guest's server: %v", name, err)
		}
	}
}
