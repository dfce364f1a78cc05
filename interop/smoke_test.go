package interop

import (
	"context"
	"testing"
	"time"

	"parley/interop/lab"
)

// newWorld builds a world for a test, which logs what the servers logged if it fails.
func newWorld(ctx context.Context, t *testing.T, parts Parts) *World {
	t.Helper()
	parts.Dir = t.ArtifactDir()
	w, err := NewWorld(ctx, parts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.Logs())
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func driver(t *testing.T, name string) *Driver {
	t.Helper()
	d, err := DriverByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSmoke is the part of the interoperability runs that is always tested: each client
// once on Parley, once with each peer, three people in one room, and a client in a
// terminal. What worked in the last full run (docs/interop.json) must work. It needs
// root, for network namespaces, and fails without.
func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true, Prosody: true, Ejabberd: true})
	baseline, err := Load(BaselineFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Session{
		{World: w, SeatA: Seat{driver(t, "matrixjs"), w.Parley}, SeatB: Seat{driver(t, "slixmpp"), w.Parley}},
		{World: w, SeatA: Seat{driver(t, "xmppjs"), w.Parley}, SeatB: Seat{driver(t, "nio"), w.Parley}},
		{World: w, SeatA: Seat{driver(t, "stanza"), w.Parley}, SeatB: Seat{driver(t, "nio"), w.Parley}},
		{World: w, SeatA: Seat{driver(t, "slixmpp"), w.Prosody}, SeatB: Seat{driver(t, "matrixjs"), w.Parley}},
		{World: w, SeatA: Seat{driver(t, "nio"), w.Parley}, SeatB: Seat{driver(t, "xmppjs"), w.Ejabberd}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, Features, baseline) })
	}
	t.Run("garden", func(t *testing.T) { testGarden(ctx, t, w) })
	t.Run("terminal", func(t *testing.T) { testTerminal(ctx, t, w, w.Parley) })
}

// TestPeers runs the XMPP clients between Prosody and ejabberd, without Parley: a feature
// that fails here is a mistake in a driver or in the lab.
func TestPeers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Prosody: true, Ejabberd: true})
	slixmpp, xmppjs := driver(t, "slixmpp"), driver(t, "xmppjs")
	for _, s := range []*Session{
		{World: w, SeatA: Seat{slixmpp, w.Prosody}, SeatB: Seat{xmppjs, w.Ejabberd}},
		{World: w, SeatA: Seat{xmppjs, w.Ejabberd}, SeatB: Seat{slixmpp, w.Prosody}},
		{World: w, SeatA: Seat{slixmpp, w.Prosody}, SeatB: Seat{xmppjs, w.Prosody}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, Features, new(Report)) })
	}
	t.Run("terminal", func(t *testing.T) { testTerminal(ctx, t, w, w.Prosody) })
}

// TestDialback has servers prove each other by dialback, the peers' certificates being
// nobody's: first the peers without Parley, so that the lab's variant is known to work, then
// Parley with each of them.
func TestDialback(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true, Prosody: true, Ejabberd: true, Auth: lab.Dialback})
	slixmpp, xmppjs := driver(t, "slixmpp"), driver(t, "xmppjs")
	features := Select(func(name string) bool { return name == "talk: text" || name == "room: text" })
	for _, s := range []*Session{
		{World: w, SeatA: Seat{slixmpp, w.Prosody}, SeatB: Seat{xmppjs, w.Ejabberd}},
		{World: w, SeatA: Seat{xmppjs, w.Parley}, SeatB: Seat{slixmpp, w.Prosody}},
		{World: w, SeatA: Seat{slixmpp, w.Ejabberd}, SeatB: Seat{xmppjs, w.Parley}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, features, new(Report)) })
	}
}

// runSession runs features. One that does not work is an error, unless the baseline has
// it as not working either.
func runSession(ctx context.Context, t *testing.T, s *Session, features []*Feature, baseline *Report) {
	known := make(map[string]Result)
	for _, c := range baseline.Cells {
		known[c.key()] = c.Result
	}
	err := s.Run(ctx, features, func(c Cell) {
		was, isKnown := known[c.key()]
		if worse := rank[c.Result] < rank[was]; worse || c.Result == No && !isKnown {
			t.Errorf("%s: %s: %s", c.Feature, c.Result, c.Note)
		} else {
			t.Logf("%s: %s %s", c.Feature, c.Result, c.Note)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// testGarden has three people in one room: alice with a Matrix client and bob with an
// XMPP client on Parley, carol on somebody else's server. What each of them does, both
// others see.
func testGarden(ctx context.Context, t *testing.T, w *World) {
	seats := []Seat{
		{driver(t, "matrixjs"), w.Parley}, {driver(t, "xmppjs"), w.Parley}, {driver(t, "slixmpp"), w.Prosody},
	}
	clients := make([]*Client, len(seats))
	for i, name := range []string{"alice", "bob", "carol"} {
		address, err := w.NewAccount(ctx, seats[i].Site, name)
		if err != nil {
			t.Fatal(err)
		}
		if clients[i], err = w.Login(ctx, seats[i].Driver, seats[i].Site, address); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	pair := func(i, j int) *Session {
		return &Session{World: w, SeatA: seats[i], SeatB: seats[j], A: clients[i], B: clients[j]}
	}
	founding := pair(0, 1)
	room, err := founding.newRoom(ctx, "garden", Args{"public": true})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(clients); i++ {
		if err := pair(0, i).join(ctx, clients[i], room, room); err != nil {
			t.Fatal(err)
		}
	}
	for i := range clients {
		for j := range clients {
			if i == j {
				continue
			}
			s := pair(i, j)
			s.room = room
			for _, f := range inRoom(messages) {
				if outcome := s.try(ctx, f); outcome.Result == No {
					t.Errorf("%s, %s: %s", s, f.Name, outcome.Note)
				}
			}
		}
	}
}
