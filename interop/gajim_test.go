package interop

import (
	"context"
	"testing"
	"time"
)

// gajim is Gajim, a desktop client, on a display that nobody looks at. It is not among
// [Drivers]: only what it can be told and says over D-Bus can be driven.
var gajim = &Driver{
	Name: "gajim", Network: XMPP, Title: "Gajim",
	command: []string{"/usr/bin/python3", "gajim_driver.py"},
}

// TestGajim has a person at Gajim talk with one at a Matrix client, who asked her first, and
// in the room that she entered with her Matrix client: Gajim enters it by itself.
func TestGajim(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	s := &Session{World: w, SeatA: Seat{driver(t, "nio"), w.Parley}, SeatB: Seat{driver(t, "matrixjs"), w.Parley}}
	if err := s.login(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { s.A.Close(); s.B.Close() }()
	desktop, err := w.Login(ctx, gajim, w.Parley, s.B.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer desktop.Close()
	t.Run("talk", func(t *testing.T) { testGajimTalk(ctx, t, s, desktop) })
	t.Run("room", func(t *testing.T) { testGajimRoom(ctx, t, s, desktop) })
}

// testGajimTalk has Gajim accept who asks, and the two talk.
func testGajimTalk(ctx context.Context, t *testing.T, s *Session, desktop *Client) {
	watch := s.A.Watch()
	if _, err := s.A.Do(ctx, "add_contact", Args{"user": desktop.Address}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "that she accepted", func(e *Event) bool {
		return e.Event == "contact" && e.User == desktop.Address.String() && e.State == "both"
	}); err != nil {
		t.Fatal(err)
	}
	sayTo(ctx, t, s.A, desktop, Args{"to": desktop.Address})
	sayTo(ctx, t, desktop, s.A, Args{"to": s.A.Address})
}

// testGajimRoom has the two in a room, with what each says read at the other's.
func testGajimRoom(ctx context.Context, t *testing.T, s *Session, desktop *Client) {
	if _, err := joinRoom(ctx, s); err != nil {
		t.Fatal(err)
	}
	desktop.enter(s.room, s.room.Spell(XMPP, ParleyDomain))
	sayTo(ctx, t, desktop, s.A, Args{"room": s.room})
	sayTo(ctx, t, s.A, desktop, Args{"room": s.room})
}

// sayTo has one client say something in a place and another show it.
func sayTo(ctx context.Context, t *testing.T, from, to *Client, where Args) {
	t.Helper()
	said, watch := "Good day "+token(), to.Watch()
	where["body"] = said
	if _, err := from.Do(ctx, "send", where); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "what "+from.Driver.Name+" said", func(e *Event) bool {
		return e.Event == "message" && e.Body == said && (e.Room != "" || e.From == from.Address.String())
	}); err != nil {
		t.Fatal(err)
	}
}
