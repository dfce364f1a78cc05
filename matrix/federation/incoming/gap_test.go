package incoming_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/incoming"
	"parley/matrix/rooms/roomstest"
)

// pair is a room in which are alice of a.test and bob of b.test.
func pair(t testing.TB, parts ...federationtest.Part) (w *lossy, alice, bob *roomstest.User, room string) {
	t.Helper()
	w = newWorld(t, parts, "a.test", "b.test")
	alice, bob = w.Server("a.test").User("alice"), w.Server("b.test").User("bob")
	room = alice.Create(object{"preset": "public_chat", "name": "Garden"})
	join(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	return w, alice, bob, room
}

// say says many things, and waits until the other servers have taken, or lost,
// them.
func say(t testing.TB, u *roomstest.User, room string, n int, what string) (texts []string, last string) {
	t.Helper()
	for i := range n {
		text := fmt.Sprintf("%s %d", what, i)
		last = u.Say(room, text)
		texts = append(texts, text)
	}
	return texts, last
}

// TestLost: transactions that were lost are healed by the next that arrives, and
// clients are told in order.
//
// spec: MX 1.19 SS §8.2
func TestLost(t *testing.T) {
	w, alice, bob, room := pair(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	since := bob.Sync("", "").Text("next_batch")
	w.lose("b.test", true)
	texts, _ := say(t, alice, room, 45, "lost")
	alice.SetState(room, "m.room.topic", "", object{"topic": "lost too"})
	w.lostEvents("b.test", 46)
	if got := said(b, room); len(got) != 0 {
		t.Fatalf("%q", got)
	}
	w.lose("b.test", false)
	hears(t, bob, room, alice.Say(room, "found"))
	texts = append(texts, "found")
	same(t, "b.test", said(b, room), texts)
	w.cores(room, "a.test", "b.test")
	same(t, "the ends", ends(b, room), ends(a, room))
	var told []string
	for { // a client that was there all the time
		got := bob.Sync(since, "timeout=0&filter="+`{"room":{"timeline":{"limit":100}}}`)
		list := got.List("rooms", "join", room, "timeline", "events")
		for _, e := range list {
			if e.Text("type") == "m.room.message" {
				told = append(told, e.Text("content", "body"))
			}
		}
		if since = got.Text("next_batch"); len(list) == 0 {
			break
		}
	}
	same(t, "bob's client", told, texts)
	if n := count(b, "incoming_waiting"); n != 0 {
		t.Errorf("%d events wait still", n)
	}
	if n := count(b, "shared_missing WHERE conv = $1 AND follower IN (SELECT event_id FROM mirror_pdus WHERE type = 'm.room.message')", string(b.Conv(room))); n != 0 {
		t.Errorf("%d events are missing", n)
	}
}

// TestState: where nobody tells what lies between, the state before what came is
// asked for, and what was between is history that is missing.
//
// spec: MX 1.19 SS §9.3
func TestState(t *testing.T) {
	for name, hidden := range map[string][]string{"one by one": {"/get_missing_events/"}, "all at once": {"/get_missing_events/", "/event/"}} {
		t.Run(name, func(t *testing.T) {
			w, alice, bob, room := pair(t)
			a, b := w.Server("a.test"), w.Server("b.test")
			for _, part := range hidden {
				w.hook(part, notFound)
			}
			w.lose("b.test", true)
			for i := range 3 {
				alice.SetState(room, "m.room.topic", "", object{"topic": fmt.Sprint("topic ", i)})
				alice.Say(room, "lost")
			}
			pieces := 0
			if len(hidden) > 1 { // more than one asks for one by one
				pieces = 200
			}
			for i := range pieces {
				alice.SetState(room, "org.example.piece", fmt.Sprint(i), object{"n": i})
			}
			w.lostEvents("b.test", pieces+6)
			w.lose("b.test", false)
			hears(t, bob, room, alice.Say(room, "found"))
			w.cores(room, "a.test", "b.test")
			same(t, "b.test", said(b, room), []string{"found"})
			if n := count(b, "shared_missing WHERE conv = $1", string(b.Conv(room))); n == 0 {
				t.Error("nothing is missing")
			}
			// Nothing says that what came follows what was known before.
			hears(t, alice, room, bob.Say(room, "one branch"))
			same(t, "the ends", ends(b, room), ends(a, room))
		})
	}
}

// TestPartition: two servers that do not hear of each other both talk. Each has
// somebody put out whom the other lets do as she likes. When they meet again,
// both show the same.
func TestPartition(t *testing.T) {
	w, alice, bob, room := pair(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	carol, dave := b.User("carol"), a.User("dave")
	join(carol, room, "a.test")
	join(dave, room, "a.test")
	w.Same(room, "a.test", "b.test")
	alice.SetState(room, "m.room.power_levels", "", object{"users": object{bob.ID: 50}, "state_default": 50})
	w.Same(room, "a.test", "b.test")

	w.Cut("a.test", true)
	w.Cut("b.test", true)
	alice.Do("POST", roomstest.Room(room, "/ban"), object{"user_id": carol.ID})
	alice.SetState(room, "m.room.name", "", object{"name": "of alice"})
	say(t, alice, room, 5, "alice")
	carol.Do("POST", roomstest.Room(room, "/leave"), object{})
	carol.Do("POST", roomstest.Room(room, "/join"), object{})
	bob.SetState(room, "m.room.name", "", object{"name": "of bob"})
	bob.SetState(room, "m.room.topic", "", object{"topic": "of bob"})
	bob.Do("POST", roomstest.Room(room, "/kick"), object{"user_id": dave.ID})
	say(t, bob, room, 5, "bob")
	evading := carol.Say(room, "carol, who does not know that she is banned")

	w.Cut("a.test", false)
	w.Cut("b.test", false)
	hears(t, bob, room, alice.Say(room, "hello again"))
	hears(t, alice, room, bob.Say(room, "so it is"))
	hears(t, bob, room, alice.Say(room, "one more"))
	w.cores(room, "a.test", "b.test")
	for _, s := range []*federationtest.Server{a, b} {
		if got := s.Standing(room, carol.ID); got != "ban" {
			t.Errorf("at %s carol is %s", s.Domain, got)
		}
		if got := s.Standing(room, dave.ID); got != "leave" {
			t.Errorf("at %s dave is %s", s.Domain, got)
		}
	}
	// What she said meanwhile is not shown where the ban was known.
	if got := verdict(a, evading); got != "soft-failed" {
		t.Errorf("at a.test it is %q", got)
	}
	same(t, "the ends", ends(b, room), ends(a, room))
}

// TestSoftFailed: an event that was not shown when it came is told to clients
// once the room's branches agree on it.
//
// spec: MX 1.19 SS §5.1.4
func TestSoftFailed(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test", "c.test")
	a, b, c := w.Server("a.test"), w.Server("b.test"), w.Server("c.test")
	alice, bob, carol := a.User("alice"), b.User("bob"), c.User("carol")
	room := alice.Create(object{"preset": "public_chat", "room_version": "11"})
	join(bob, room, "a.test")
	join(carol, room, "a.test")
	w.Same(room, "a.test", "b.test", "c.test")
	set := func(u *roomstest.User, bobs, carols int) string {
		return u.SetState(room, "m.room.power_levels", "", object{"users": object{alice.ID: 100, carol.ID: carols, bob.ID: bobs}, "state_default": 50})
	}
	set(alice, 50, 75)
	w.Same(room, "a.test", "b.test", "c.test")

	for _, d := range []string{"a.test", "b.test", "c.test"} {
		w.mute(d, true)
	}
	topic := bob.SetState(room, "m.room.topic", "", object{"topic": "of bob"})
	set(carol, 0, 75)         // bob is to have no say,
	last := set(alice, 50, 0) // but neither was carol to have any
	w.mute("b.test", false)
	federationtest.Eventually(t, "c.test takes the topic", func() bool { return verdict(c, topic) != "" })
	if got := verdict(c, topic); got != "soft-failed" {
		t.Fatalf("at c.test the topic is %s", got)
	}
	shown := func() string {
		return carol.Try("GET", roomstest.Room(room, "/state/m.room.topic"), nil).Text("topic")
	}
	w.mute("a.test", false)
	w.mute("c.test", false)
	federationtest.Eventually(t, "all have alice's levels", func() bool {
		return b.State(room)["m.room.power_levels|"] == last && c.State(room)["m.room.power_levels|"] == last
	})
	if got := shown(); got != "" {
		t.Errorf("carol is shown the topic %q", got)
	}
	since := carol.Sync("", "").Text("next_batch")
	hears(t, carol, room, bob.Say(room, "do you see it?"))
	if got := shown(); got != "of bob" {
		t.Errorf("carol is shown the topic %q", got)
	}
	told := carol.Sync(since, "timeout=0")
	found := false
	for _, part := range []string{"state", "timeline"} {
		for _, e := range told.List("rooms", "join", room, part, "events") {
			found = found || e.Text("event_id") == topic
		}
	}
	if !found {
		t.Errorf("carol's client is not told: %s", told.Raw)
	}
	w.cores(room, "a.test", "b.test", "c.test")
}

// TestKilled: a server that ends in the middle of filling a gap goes on with it
// when it is back, and nothing is lost or there twice.
func TestKilled(t *testing.T) {
	w, alice, bob, room := pair(t)
	b := w.Server("b.test")
	w.lose("b.test", true)
	texts, _ := say(t, alice, room, 70, "lost")
	w.lostEvents("b.test", 70)
	w.lose("b.test", false)
	var asked atomic.Int64
	held := make(chan struct{}, 1)
	w.hook("/get_missing_events/", func(r *http.Request, next federationtest.Next) (*http.Response, error) {
		if asked.Add(1) == 2 { // one answer came, the next never does
			held <- struct{}{}
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}
		return next(r)
	})
	last := alice.Say(room, "found")
	<-held
	b.Restart()
	bob = b.On(bob)
	hears(t, bob, room, last)
	same(t, "b.test", said(b, room), append(texts, "found"))
	w.cores(room, "a.test", "b.test")
	if n := count(b, "incoming_waiting"); n != 0 {
		t.Errorf("%d events wait still", n)
	}
}

// deaf is a room of alice of a.test in which is carol of c.test, whose server cannot get the keys
// of b.test when bob enters. retry is how long it waits before it tries again.
func deaf(t *testing.T, retry time.Duration) (w *lossy, users []*roomstest.User, room string, silence *federationtest.Silence) {
	t.Helper()
	w = newWorld(t, nil, "a.test", "b.test", "c.test")
	a, b, c := w.Server("a.test"), w.Server("b.test"), w.Server("c.test")
	silence = &federationtest.Silence{Of: "b.test"}
	c.Restart(func() {
		w.TuneIncoming = func(cfg *incoming.Config) {
			around(silence)(cfg)
			cfg.FirstRetry, cfg.MaxRetry = retry, retry
		}
	})
	users = []*roomstest.User{a.User("alice"), b.User("bob"), c.User("carol")}
	room = users[0].Create(object{"preset": "public_chat"})
	join(users[2], room, "a.test")
	w.Same(room, "a.test", "c.test")
	silence.On.Store(true)
	join(users[1], room, "a.test")
	federationtest.Eventually(t, "the join waits", func() bool { return count(c, "incoming_waiting") == 1 })
	return w, users, room, silence
}

// TestStartedAgain: a server does not answer for a while, as one does not that is being started
// again. What follows on what it said waits for it, and is not taken without.
func TestStartedAgain(t *testing.T) {
	w, users, room, silence := deaf(t, 2*time.Second)
	alice, bob, carol := users[0], users[1], users[2]
	one := alice.Say(room, "one")
	federationtest.Eventually(t, "what followed waits", func() bool { return count(w.Server("c.test"), "incoming_waiting WHERE tries > 0") == 2 })
	silence.On.Store(false)
	hears(t, carol, room, one)
	hears(t, carol, room, bob.Say(room, "two"))
	hears(t, bob, room, carol.Say(room, "three"))
	w.cores(room, "a.test", "b.test", "c.test")
}

// TestLongGone: a server does not answer for so long that others go on without what it said. It
// is brought in by who speaks next where it was missing.
func TestLongGone(t *testing.T) {
	w, users, room, silence := deaf(t, 50*time.Millisecond)
	alice, bob, carol := users[0], users[1], users[2]
	hears(t, carol, room, alice.Say(room, "one"))
	silence.On.Store(false)
	c := w.Server("c.test")
	federationtest.Eventually(t, "nothing waits", func() bool { return count(c, "incoming_waiting") == 0 })
	hears(t, bob, room, carol.Say(room, "two"))
	hears(t, carol, room, bob.Say(room, "three"))
	w.cores(room, "a.test", "b.test", "c.test")
}

// TestWayEnds: where another server tells more than lies between, because it has not heard what
// came last here, the way ends at what is known. The room's beginning is no part of it.
func TestWayEnds(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test")
	alice, bob := w.Server("a.test").User("alice"), w.Server("b.test").User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	alice.Say(room, "past")
	join(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	w.lose("a.test", true)
	bob.Say(room, "unheard")
	w.lostEvents("a.test", 1)
	w.lose("b.test", true)
	alice.Say(room, "lost")
	w.lostEvents("b.test", 1)
	w.lose("b.test", false)
	hears(t, bob, room, alice.Say(room, "found"))
	w.lose("a.test", false)
	same(t, "b.test", said(w.Server("b.test"), room), []string{"unheard", "lost", "found"})
}

// TestThird: what a server does not tell is asked of others in the room.
func TestThird(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test", "c.test")
	a, b, c := w.Server("a.test"), w.Server("b.test"), w.Server("c.test")
	alice, bob, carol := a.User("alice"), b.User("bob"), c.User("carol")
	room := alice.Create(object{"preset": "public_chat"})
	join(bob, room, "a.test")
	join(carol, room, "a.test")
	w.Same(room, "a.test", "b.test", "c.test")
	hears(t, bob, room, carol.Say(room, "here I am"))
	w.lose("b.test", true)
	texts, last := say(t, alice, room, 5, "lost")
	w.lostEvents("b.test", 5)
	hears(t, carol, room, last)
	w.lose("b.test", false)
	w.hook("/_matrix/federation/v1/", func(r *http.Request, next federationtest.Next) (*http.Response, error) {
		if r.URL.Host == "a.test" && !strings.HasPrefix(r.URL.Path, send) {
			return notFound(r, next)
		}
		if strings.Contains(r.URL.Path, "/get_missing_events/") { // it can tell what it has heard itself
			federationtest.Eventually(t, "c.test hears it too", func() bool { return slices.Contains(said(c, room), "found") })
		}
		return next(r)
	})
	hears(t, bob, room, alice.Say(room, "found"))
	same(t, "b.test", said(b, room), append(append([]string{"here I am"}, texts...), "found"))
	w.cores(room, "a.test", "b.test", "c.test")
}
