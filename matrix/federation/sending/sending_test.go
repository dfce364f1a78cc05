package sending_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation"
	"parley/matrix/federation/sending"
	"parley/store"
	"parley/store/storetest"
)

// Every server of a room gets every event of ours, in order, in transactions
// that are not too large; and when all have them, nothing is kept.
//
// spec: MX 1.19 SS §4
func TestEveryServerGetsEverything(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.start()
		alice := hubtest.Account(t, w.h, "alice")
		dests := []string{"a.test", "b.test:8448", "[2001:db8::1]:443"}
		room := w.room(alice, dests...)
		want := w.sayAll(room, alice, many(120)...)
		want = append(want, w.say(room, alice, "the last"))
		ids := map[string]bool{}
		for _, d := range dests {
			eventually(t, d+" has all", func() bool { return len(w.net.has(d)) >= len(want) })
			same(t, d, w.net.has(d), want)
			for _, x := range w.net.txns(d) {
				if ids[x.id] || x.origin != domain {
					t.Errorf("a transaction ID twice, or another origin: %v", x)
				}
				ids[x.id] = true
			}
		}
		eventually(t, "nothing is owed", func() bool { return w.count("sending_events") == 0 })
		if err := w.h.Read(t.Context(), func(v hub.View) error {
			got, err := w.s.Servers(v, room)
			same(t, "servers", got, []string{"[2001:db8::1]:443", "a.test", "b.test:8448"})
			return err
		}); err != nil {
			t.Error(err)
		}
	})
}

// What was sent and not answered when the server died goes out again, under
// another transaction ID; what was answered and written down does not.
func TestKilledInTheMiddle(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.start()
		alice := hubtest.Account(t, w.h, "alice")
		room := w.room(alice, "a.test", "b.test")
		first := w.sayAll(room, alice, many(10)...)
		eventually(t, "a has the first", func() bool { return len(w.net.has("a.test")) == 10 })
		eventually(t, "b has the first", func() bool { return len(w.net.has("b.test")) == 10 })
		eventually(t, "that is written down", func() bool { return w.count("sending_events") == 0 })

		reached := make(chan txn, 10)
		w.net.set("b.test", func(ctx context.Context, x txn) ([]byte, error) {
			reached <- x
			<-ctx.Done() // it has it, and we do not learn of it
			return nil, ctx.Err()
		})
		second := w.say(room, alice, "second")
		lost := <-reached
		eventually(t, "a has the second", func() bool { return len(w.net.has("a.test")) == 11 })
		third := w.say(room, alice, "third") // behind the one without an answer
		eventually(t, "a has the third", func() bool { return len(w.net.has("a.test")) == 12 })
		w.oweEDU("b.test", "m.direct_to_device", `{"n":1}`)

		// Another life: the first sender is as good as dead, it never gets an
		// answer.
		w.net.set("b.test", nil)
		dead := w.s
		w.s = w.sender()
		w.start()
		eventually(t, "b has the rest", func() bool { return len(w.net.has("b.test")) >= 12 })
		same(t, "b", w.net.has("b.test"), append(slices.Clone(first), second, third))
		same(t, "a", w.net.has("a.test")[:12], append(slices.Clone(first), second, third))
		all := w.net.txns("b.test")
		last := all[len(all)-1]
		if last.id == lost.id || lost.pdus[0] != second {
			t.Errorf("lost %v, then %v", lost, last)
		}
		eventually(t, "b has the EDU", func() bool {
			return slices.ContainsFunc(w.net.txns("b.test"), func(x txn) bool { return len(x.edus) == 1 })
		})
		eventually(t, "nothing is owed", func() bool { return w.count("sending_events")+w.count("sending_edus") == 0 })
		dead.Stop()
	})
}

// A server that is down is let alone until it calls; then the transaction that
// failed goes out as it was, and what came since after it.
//
// spec: MX 1.19 SS §4
func TestDownAndBack(t *testing.T) {
	w := newWorld(t, sqlite(t), func(c *sending.Config) { c.FirstRetry = time.Minute })
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "a.test", "b.test")
	tried := make(chan txn, 10)
	w.net.set("b.test", func(_ context.Context, x txn) ([]byte, error) {
		tried <- x
		return nil, &federation.Error{Status: http.StatusInternalServerError, Server: "b.test"}
	})
	want := []string{w.say(room, alice, "one")}
	failed := <-tried
	want = append(want, w.say(room, alice, "two"), w.say(room, alice, "three"))
	eventually(t, "a has all", func() bool { return len(w.net.has("a.test")) == 3 })
	eventually(t, "that is written down", func() bool { return w.count("sending_silent") == 1 })
	if n := w.net.called("b.test"); n != 1 {
		t.Errorf("%d calls of a server that is to be let alone", n)
	}
	if n := w.count("sending_events"); n != 3 {
		t.Errorf("%d events are owed", n)
	}
	w.net.set("b.test", nil)
	eventually(t, "b has all", func() bool {
		w.s.Heard("b.test")
		return len(w.net.has("b.test")) == 3
	})
	same(t, "b", w.net.has("b.test"), want)
	if again := w.net.txns("b.test")[0]; again.id != failed.id || !slices.Equal(again.pdus, failed.pdus) {
		t.Errorf("first %v, then %v", failed, again)
	}
	eventually(t, "nothing is owed", func() bool { return w.count("sending_events")+w.count("sending_silent") == 0 })
}

// One that always fails is tried again by itself.
func TestTriedAgain(t *testing.T) {
	w := newWorld(t, sqlite(t), func(c *sending.Config) { c.FirstRetry = time.Millisecond })
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "b.test")
	var n int
	w.net.set("b.test", func(context.Context, txn) ([]byte, error) {
		switch n++; n {
		case 1:
			return nil, &federation.BackoffError{Server: "b.test", Until: time.Now().Add(time.Millisecond)}
		case 2:
			return nil, &federation.Error{Status: http.StatusTooManyRequests, RetryAfter: time.Millisecond, Server: "b.test"}
		case 3:
			return nil, &federation.Error{Status: http.StatusForbidden, Server: "b.test"}
		case 4:
			return nil, errDown
		}
		return []byte(`{}`), nil
	})
	want := w.say(room, alice, "at last")
	eventually(t, "b has it", func() bool { return len(w.net.has("b.test")) == 1 })
	same(t, "b", w.net.has("b.test"), []string{want})
}

// A server that was away gets the newest of each room and not all that was
// said; but all of a conversation of two.
func TestCatchUp(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %v", restarted), func(t *testing.T) {
			w := newWorld(t, sqlite(t))
			w.start()
			alice := hubtest.Account(t, w.h, "alice")
			bob := core.Address{Network: core.Matrix, Name: "bob", Domain: "b.test"}
			busy, calm := w.room(alice, "a.test", "b.test"), w.room(alice, "b.test")
			talk, err := w.h.DirectWith(t.Context(), alice, bob)
			if err != nil {
				t.Fatal(err)
			}
			w.peers(talk, []string{"b.test"}, nil)
			w.owed[talk] = true
			w.net.set("b.test", down)
			w.say(busy, alice, "while it is away")
			eventually(t, "it is away", func() bool { return w.count("sending_silent") == 1 })
			said := w.sayAll(busy, alice, many(500)...)
			quiet := w.sayAll(calm, alice, many(3)...)
			private := w.sayAll(talk, alice, many(70)...)
			eventually(t, "a has all", func() bool { return len(w.net.has("a.test")) == 501 })
			if restarted {
				w.s.Stop()
				w.s = w.sender()
				w.start()
			}
			w.net.set("b.test", nil)
			eventually(t, "b has what it needs", func() bool {
				w.s.Heard("b.test")
				has := w.net.has("b.test")
				return slices.Contains(has, said[499]) && slices.Contains(has, quiet[2]) && slices.Contains(has, private[69])
			})
			of := func(ids []string) (got []string) {
				for _, id := range w.net.has("b.test") {
					if slices.Contains(ids, id) {
						got = append(got, id)
					}
				}
				return got
			}
			same(t, "the busy room", of(said), said[490:])
			same(t, "the calm room", of(quiet), quiet)
			same(t, "the talk", of(private), private)
			eventually(t, "nothing is owed", func() bool { return w.count("sending_events")+w.count("sending_silent") == 0 })
			// From then on it gets everything.
			next := w.sayAll(busy, alice, many(60)...)
			eventually(t, "b has the next", func() bool { return len(of(next)) == 60 })
			same(t, "the next", of(next), next)
			for _, id := range private {
				eventually(t, "alice knows that bob's server has it", func() bool {
					r := w.reports(id)
					return len(r) == 1 && r[0].Stage == core.StageThere && r[0].To == bob
				})
			}
		})
	}
}

// A busy server that answers slowly misses nothing: only one that was away does.
func TestSlowIsNotAway(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "b.test")
	gate := make(chan bool)
	w.net.set("b.test", func(context.Context, txn) ([]byte, error) { <-gate; return []byte(`{}`), nil })
	want := w.sayAll(room, alice, many(300)...)
	want = append(want, w.sayAll(room, alice, many(600)...)...)
	close(gate)
	eventually(t, "b has all", func() bool { return len(w.net.has("b.test")) >= len(want) })
	same(t, "b", w.net.has("b.test"), want)
}

// A server gets what was said while it was in the room, its own parting
// included, and nothing of the time in between.
func TestPartedServers(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "a.test", "b.test")
	w.net.set("b.test", down) // so that it has to be read from the store
	one := w.say(room, alice, "one")
	eventually(t, "it is away", func() bool { return w.count("sending_silent") == 1 })
	// In one turn: the event with which it parts still goes to it.
	var kick string
	err := w.h.Write(t.Context(), func(tx hub.Tx) error {
		events, err := w.m.State(tx, room)
		if err != nil {
			return err
		}
		kick = events[1].EventID // stands for it
		feed := tx.NextFeed()
		if err := w.s.Peers(tx, room, nil, []string{"b.test"}, feed); err != nil {
			return err
		}
		return w.s.Owe(tx, room, kick, feed)
	})
	if err != nil {
		t.Fatal(err)
	}
	two := w.say(room, alice, "two")
	w.peers(room, []string{"b.test", "a.test", domain}, nil)
	three := w.say(room, alice, "three")
	w.s.Stop()
	w.net.set("b.test", nil)
	w.s = w.sender()
	w.start()
	eventually(t, "b has what it may have", func() bool {
		w.s.Heard("b.test")
		return slices.Contains(w.net.has("b.test"), three)
	})
	same(t, "b", w.net.has("b.test"), []string{one, kick, three})
	eventually(t, "a has all", func() bool { return slices.Contains(w.net.has("a.test"), three) })
	// What was under way when the first sender ended may have come twice.
	same(t, "a", slices.Compact(w.net.has("a.test")), []string{one, kick, two, three})
	eventually(t, "nothing is owed", func() bool { return w.count("sending_events") == 0 })
	w.peers(room, nil, []string{"a.test", "b.test"})
	w.say(room, alice, "to nobody")
	eventually(t, "no rows are left", func() bool {
		return w.count("sending_events")+w.count("sending_peers")+w.count("sending_acks") == 0
	})
}

// A server of which it is learnt late that it is in a room gets what is still
// owed to others there.
func TestFoundLate(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "a.test")
	w.net.set("a.test", down)
	want := w.sayAll(room, alice, many(3)...)
	if err := w.h.Write(t.Context(), func(tx hub.Tx) error { return w.s.Peers(tx, room, []string{"b.test"}, nil, 0) }); err != nil {
		t.Fatal(err)
	}
	want = append(want, w.say(room, alice, "to both"))
	eventually(t, "b has all", func() bool { return len(w.net.has("b.test")) >= 4 })
	same(t, "b", w.net.has("b.test"), want)
}

// What a turn did that is undone is owed to nobody.
func TestUndone(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "a.test")
	err := w.h.Write(t.Context(), func(tx hub.Tx) error {
		if err := w.s.Peers(tx, room, []string{"b.test"}, []string{"a.test"}, tx.NextFeed()); err != nil {
			return err
		}
		return hub.Refuse(hub.Bad, "undone")
	})
	if hub.CodeOf(err) != hub.Bad {
		t.Fatal(err)
	}
	want := w.say(room, alice, "to a")
	eventually(t, "a has it", func() bool { return len(w.net.has("a.test")) == 1 })
	same(t, "a", w.net.has("a.test"), []string{want})
	if n := w.net.called("b.test"); n != 0 {
		t.Errorf("%d calls of a server that is in no room", n)
	}
}

// Events for single servers go to them alone.
func TestSingleServers(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "a.test")
	id := w.say(room, alice, "this one")
	owe := func(dests ...string) error {
		return w.h.Write(t.Context(), func(tx hub.Tx) error { return w.s.OweTo(tx, id, dests...) })
	}
	w.net.set("c.test", down)
	if err := owe("b.test", "c.test", domain); err != nil {
		t.Fatal(err)
	}
	if err := owe("no server name"); err == nil {
		t.Error("owed to nobody that there can be")
	}
	eventually(t, "b has it", func() bool { return len(w.net.has("b.test")) == 1 })
	eventually(t, "b's is gone", func() bool { return w.count("sending_singles") == 1 })
	w.s.Stop()
	w.net.set("c.test", nil)
	w.s = w.sender()
	w.start()
	eventually(t, "c has it", func() bool { w.s.Heard("c.test"); return len(w.net.has("c.test")) == 1 })
	same(t, "c", w.net.has("c.test"), []string{id})
	eventually(t, "nothing is owed", func() bool { return w.count("sending_singles") == 0 })
	same(t, "b", w.net.has("b.test"), []string{id})
	if n := w.net.called(domain); n != 0 {
		t.Errorf("%d calls of ourselves", n)
	}
}

// Ephemeral data that is owed arrives in order, once, also over a restart.
func TestDurableEDUs(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	w.net.set("b.test", down)
	for i := range 250 {
		w.oweEDU("b.test", "m.direct_to_device", fmt.Sprintf(`{"n":%d}`, i))
	}
	for _, bad := range []string{``, `[]`, `{`, `{"a":"` + strings.Repeat("x", sending.MaxEDU) + `"}`} {
		if err := w.tryOweEDU("b.test", "m.x", bad); hub.CodeOf(err) == "" {
			t.Errorf("%.20s: %v", bad, err)
		}
	}
	eventually(t, "it was tried", func() bool { return w.count("sending_silent") == 1 })
	w.s.Stop()
	w.net.set("b.test", nil)
	w.s = w.sender()
	w.start()
	edus := func() (got []string) {
		for _, x := range w.net.txns("b.test") {
			for _, e := range x.edus {
				got = append(got, string(e.Content))
			}
		}
		return got
	}
	eventually(t, "b has all", func() bool { w.s.Heard("b.test"); return len(edus()) >= 250 })
	w.oweEDU("b.test", "m.direct_to_device", `{"n":250}`)
	w.oweEDU("b.test", "m.direct_to_device", `{"n":251}`)
	eventually(t, "b has those that came since", func() bool { return len(edus()) >= 252 })
	eventually(t, "nothing is owed", func() bool { return w.count("sending_edus") == 0 })
	for i, got := range edus() {
		if want := fmt.Sprintf(`{"n":%d}`, i); got != want {
			t.Fatalf("the EDU %d is %s", i, got)
		}
	}
}

// What is said is replaced by what is said later, bounded, and given up where a
// server stays away.
func TestSay(t *testing.T) {
	w := newWorld(t, sqlite(t), func(c *sending.Config) { c.FirstRetry = time.Millisecond })
	w.start()
	gate := make(chan bool)
	w.net.set("b.test", func(context.Context, txn) ([]byte, error) { <-gate; return []byte(`{}`), nil })
	say := func(dest, key string, n int) {
		w.s.Say(domain, dest, key, sending.EDU{Type: "m.x", Content: fmt.Appendf(nil, `{"n":%d}`, n)})
	}
	say("b.test", "first", 0)
	eventually(t, "it is under way", func() bool { return w.net.called("b.test") == 1 })
	for i := range 1000 {
		say("b.test", fmt.Sprint(i), i)
		say("b.test", "same", i)
	}
	close(gate)
	var got []string
	eventually(t, "the last has arrived", func() bool {
		got = nil
		for _, x := range w.net.txns("b.test")[min(1, len(w.net.txns("b.test"))):] {
			for _, e := range x.edus {
				got = append(got, string(e.Content))
			}
		}
		return len(got) > 0
	})
	if len(got) != 100 || got[99] != `{"n":999}` || !slices.Contains(got, `{"n":998}`) {
		t.Errorf("%d arrived: %v", len(got), got)
	}
	w.net.set("c.test", down)
	say("c.test", "a", 1)
	eventually(t, "c is given up", func() bool { return w.net.called("c.test") >= 5 })
	if n := w.count("sending_silent"); n != 0 {
		t.Errorf("%d rows for a server to which nothing is owed", n)
	}
	say("c.test", "not JSON", 1)
	w.s.Say(domain, "c.test", "bad", sending.EDU{Type: "m.x", Content: []byte(`{`)})
	w.s.Say("elsewhere.test", "c.test", "bad", sending.EDU{Type: "m.x", Content: []byte(`{}`)})
}

// Servers are sent to at the same time, but to no more than so many.
func TestWorkersAreBounded(t *testing.T) {
	w := newWorld(t, sqlite(t), func(c *sending.Config) { c.Workers = 3 })
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	gate := make(chan bool)
	var dests []string
	for i := range 12 {
		d := fmt.Sprintf("s%d.test", i)
		dests = append(dests, d)
		w.net.set(d, func(context.Context, txn) ([]byte, error) { <-gate; return []byte(`{}`), nil })
	}
	room := w.room(alice, dests...)
	w.say(room, alice, "hello")
	eventually(t, "three are under way", func() bool {
		w.net.mu.Lock()
		defer w.net.mu.Unlock()
		return w.net.now == 3
	})
	close(gate)
	for _, d := range dests {
		eventually(t, d+" has it", func() bool { return len(w.net.has(d)) == 1 })
	}
	if w.net.most != 3 {
		t.Errorf("%d at once", w.net.most)
	}
}
