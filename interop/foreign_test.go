package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// maxTries is how often a history is looked at, a second apart: longer than Parley waits before it
// tries a server again that was away for a short while.
const maxTries = 90

// person is somebody who can come back with another client.
type person struct {
	address Address
	seat    Seat
	client  *Client
}

func (p *person) login(ctx context.Context, t *testing.T, w *World) *Client {
	t.Helper()
	if p.client != nil {
		p.client.Close()
	}
	var err error
	if p.client, err = w.Login(ctx, p.seat.Driver, p.seat.Site, p.address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	return p.client
}

func testCutOff(ctx context.Context, t *testing.T, w *World, peer *Site, end func() error) {
	people := map[string]*person{
		"alice": {seat: Seat{driver(t, "nio"), w.Parley}},
		"dora":  {seat: Seat{driver(t, "xmppjs"), w.Parley}},
		"bob":   {seat: Seat{driver(t, "slixmpp"), peer}},
	}
	for name, p := range people {
		var err error
		if p.address, err = w.NewAccount(ctx, p.seat.Site, name); err != nil {
			t.Fatal(err)
		}
		p.login(ctx, t, w)
	}
	alice, dora, bob := people["alice"], people["dora"], people["bob"]
	room := RoomAddress{Local: "garden-" + token(), Domain: peer.Domain(), Service: peer.Service}
	do := func(p *person, op string, args Args) Answer {
		t.Helper()
		a, err := p.client.Do(ctx, op, args)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	join := func(p *person) {
		t.Helper()
		a := do(p, "join", Args{"room": room.Spell(p.seat.Driver.Network)})
		p.client.enter(room, a.Room)
	}
	var said []string
	say := func(p *person, what string) {
		t.Helper()
		body := fmt.Sprintf("%d %s %s", len(said), what, token())
		said = append(said, body)
		do(p, "send", Args{"room": room, "body": body})
	}
	// all waits until a person's history has everything that was said, once and in this order.
	all := func(p *person) {
		t.Helper()
		var found []string
		tries := 0
		for ctx.Err() == nil {
			a, err := p.client.Do(ctx, "history", Args{"room": room, "limit": 50})
			found = nil
			for _, e := range a.Events {
				if e.Event == "message" && slices.Contains(said, e.Body) {
					found = append(found, e.Body)
				}
			}
			if err == nil && len(found) >= len(said) {
				break
			}
			if tries++; tries > maxTries {
				t.Errorf("in vain: %v; %d events, the last error is %v", p.client, len(a.Events), err)
				break
			}
			time.Sleep(time.Second)
		}
		if !slices.Equal(found, said) {
			t.Errorf("%s finds\n  %s\nof\n  %s", p.client, strings.Join(found, "\n  "), strings.Join(said, "\n  "))
		}
	}

	made := do(bob, "create_room", Args{"room": room, "name": "The garden", "public": true})
	bob.client.enter(room, made.Room)
	join(alice)
	join(dora)
	say(bob, "before")
	all(alice)
	say(alice, "before")
	all(dora)
	say(dora, "before")
	all(bob)

	if err := end(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		say(alice, "while the room is away")
	}
	if err := peer.Start(ctx); err != nil {
		t.Fatal(err)
	}
	bob.login(ctx, t, w)
	join(bob)
	all(bob)
	say(bob, "after it came back")
	all(alice)
	all(dora)

	w.Parley.Kill()
	for range 2 {
		say(bob, "while Parley is away")
	}
	if err := w.Parley.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{alice, dora} {
		p.login(ctx, t, w)
		join(p)
		all(p)
	}
	say(alice, "last")
	all(bob)
	all(dora)
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
	dora := &person{seat: Seat{driver(t, "nio"), w.Parley}}
	bob := &person{seat: Seat{driver(t, "slixmpp"), peer}}
	for name, p := range map[string]*person{"dora": dora, "bob": bob} {
		var err error
		if p.address, err = w.NewAccount(ctx, p.seat.Site, name); err != nil {
			t.Fatal(err)
		}
		p.login(ctx, t, w)
	}
	owner := &person{seat: Seat{driver(t, "xmppjs"), w.Parley}, address: dora.address}
	owner.login(ctx, t, w)
	room := RoomAddress{Local: "garden-" + token(), Domain: peer.Domain(), Service: peer.Service}
	if _, err := owner.client.Do(ctx, "create_room", Args{"room": room, "name": "The garden", "public": true}); err != nil {
		t.Fatal(err)
	}
	a, err := dora.client.Do(ctx, "join", Args{"room": room.Spell(Matrix)})
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
