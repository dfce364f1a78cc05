package interop

import (
	"context"
	"testing"
	"time"
)

// TestForeignRoomsCutOff has two of Parley's people, one at a Matrix client and one at an XMPP
// client, in a room of another server, which is killed while they speak, and then Parley itself is
// killed while the other side speaks. What was acknowledged is in the end in everybody's history
// once, and each one's words in their order.
func TestForeignRoomsCutOff(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true, Prosody: true, Ejabberd: true})
	t.Run("prosody", func(t *testing.T) {
		testCutOff(ctx, t, w, w.Prosody, func() error { w.Prosody.Kill(); return nil })
	})
	// ejabberd forgets, when it is killed, accounts and rooms that are minutes old: it is stopped.
	t.Run("ejabberd", func(t *testing.T) {
		testCutOff(ctx, t, w, w.Ejabberd, func() error { return w.Ejabberd.Stop(ctx) })
	})
}

func testCutOff(ctx context.Context, t *testing.T, w *World, peer *Site, end func() error) {
	room := RoomAddress{Local: "garden-" + token(), Domain: peer.Domain(), Service: peer.Service}
	g := &gathering{t: t, w: w, room: room}
	alice := g.invite(ctx, "alice", Seat{driver(t, "nio"), w.Parley})
	dora := g.invite(ctx, "dora", Seat{driver(t, "xmppjs"), w.Parley})
	bob := g.invite(ctx, "bob", Seat{driver(t, "slixmpp"), peer})
	g.found(ctx, bob)
	g.join(ctx, alice)
	g.join(ctx, dora)
	g.say(ctx, bob, "before")
	g.all(ctx, alice, oneOrder)
	g.say(ctx, alice, "before")
	g.all(ctx, dora, oneOrder)
	g.say(ctx, dora, "before")
	g.all(ctx, bob, oneOrder)

	if err := end(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		g.say(ctx, alice, "while the room is away")
	}
	if err := peer.Start(ctx); err != nil {
		t.Fatal(err)
	}
	g.login(ctx, bob)
	g.join(ctx, bob)
	g.all(ctx, bob, oneOrder)
	g.say(ctx, bob, "after it came back")
	g.all(ctx, alice, oneOrder)
	g.all(ctx, dora, oneOrder)

	w.Parley.Kill()
	for range 2 {
		g.say(ctx, bob, "while Parley is away")
	}
	if err := w.Parley.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{alice, dora} {
		g.login(ctx, p)
		g.join(ctx, p)
		g.all(ctx, p, oneOrder)
	}
	g.say(ctx, alice, "last")
	g.all(ctx, bob, oneOrder)
	g.all(ctx, dora, oneOrder)
}

// TestForeignRoomsModerated has somebody on Parley own a room of another server, which she makes
// with an XMPP client and keeps in order with a Matrix client.
func TestForeignRoomsModerated(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true, Prosody: true, Ejabberd: true})
	for _, peer := range []*Site{w.Prosody, w.Ejabberd} {
		t.Run(peer.Name, func(t *testing.T) { testModerated(ctx, t, w, peer) })
	}
}

func testModerated(ctx context.Context, t *testing.T, w *World, peer *Site) {
	g := &gathering{t: t, w: w}
	dora := g.invite(ctx, "dora", Seat{driver(t, "nio"), w.Parley})
	bob := g.invite(ctx, "bob", Seat{driver(t, "slixmpp"), peer})
	owner := &person{seat: Seat{driver(t, "xmppjs"), w.Parley}, address: dora.address}
	g.login(ctx, owner)
	room := RoomAddress{Local: "garden-" + token(), Domain: peer.Domain(), Service: peer.Service}
	if _, err := owner.client.Do(ctx, "create_room", Args{"room": room, "name": "The garden", "public": true}); err != nil {
		t.Fatal(err)
	}
	a, err := dora.client.Do(ctx, "join", Args{"room": room.Spell(Matrix, ParleyDomain)})
	if err != nil {
		t.Fatal(err)
	}
	dora.client.enter(room, a.Room)
	s := &Session{
		World: w, SeatA: dora.seat, SeatB: bob.seat, A: dora.client, B: bob.client, room: room, abroad: true,
	}
	if err := s.join(ctx, bob.client, room, room); err != nil {
		t.Fatal(err)
	}
	if outcome, err := topic(ctx, s); err != nil || outcome.Result != Works {
		t.Errorf("the topic: %v %v", outcome, err)
	}
	// The room shows bob's address to nobody but its moderators: to Matrix he is its occupant.
	occupant := Address{Local: room.Local + "/" + bob.address.Local, Domain: room.Service}
	do := func(op, change string) {
		t.Helper()
		watch := bob.client.Watch()
		args := Args{"room": room, "user": occupant}
		if change != "" {
			args["reason"] = "Mind the roses"
		}
		if _, err := dora.client.Do(ctx, op, args); err != nil {
			t.Fatal(err)
		}
		if change == "" {
			return
		}
		if err := memberChange(ctx, watch, room, bob.client, change); err != nil {
			t.Error(err)
		}
	}
	do("kick", "kick")
	if err := s.join(ctx, bob.client, room, room); err != nil {
		t.Fatalf("coming back after a kick: %v", err)
	}
	do("ban", "ban")
	do("unban", "")
	if err := s.join(ctx, bob.client, room, room); err != nil {
		t.Fatalf("coming back after a ban: %v", err)
	}
	if outcome := s.try(ctx, &Feature{Name: "text", run: func(ctx context.Context, s *Session) (Outcome, error) {
		return text(ctx, s, place{s, true})
	}}); outcome.Result != Works {
		t.Errorf("text after all: %v", outcome)
	}
	testAside(ctx, t, room, dora.client, bob.client, occupant)
}

// testAside has an occupant of a foreign room say something to one of Parley's people alone, who reads
// it in a direct and answers there.
func testAside(ctx context.Context, t *testing.T, room RoomAddress, dora, bob *Client, occupant Address) {
	t.Helper()
	question, answer := "Between us: "+token(), "Not a word: "+token()
	watch := dora.Watch()
	nick := Address{Local: room.Local, Domain: room.Service + "/" + dora.Address.Local}
	if _, err := bob.Do(ctx, "send", Args{"to": nick, "body": question}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "what was said aside", func(e *Event) bool {
		return e.Event == "message" && e.Body == question && e.From == occupant.String() && e.Room == ""
	}); err != nil {
		t.Fatal(err)
	}
	watch = bob.Watch()
	if _, err := dora.Do(ctx, "send", Args{"to": occupant, "body": answer}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "the answer", func(e *Event) bool {
		return e.Event == "message" && e.Body == answer
	}); err != nil {
		t.Fatal(err)
	}
}
