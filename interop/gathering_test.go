package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// maxTries is how often a history is looked at, a second apart: longer than Parley waits before it
// tries a server again that was away for a short while.
const maxTries = 90

// person is somebody who can come back with another client.
type person struct {
	address Address
	seat    Seat
	client  *Client
}

// gathering is a room with people of several servers, and what was said in it.
type gathering struct {
	t    *testing.T
	w    *World
	room RoomAddress
	said []utterance
}

type utterance struct {
	by   *person
	body string
}

// order says in which order everybody must find what was said.
type order bool

const (
	oneOrder order = true  // as it was said
	ownOrder order = false // each one's words as she said them
)

// invite makes a person, who logs in.
func (g *gathering) invite(ctx context.Context, name string, seat Seat) *person {
	g.t.Helper()
	address, err := g.w.NewAccount(ctx, seat.Site, name)
	if err != nil {
		g.t.Fatal(err)
	}
	p := &person{address: address, seat: seat}
	g.login(ctx, p)
	return p
}

// login has a person come with a new client.
func (g *gathering) login(ctx context.Context, p *person) {
	g.t.Helper()
	if p.client != nil {
		p.client.Close()
	}
	var err error
	if p.client, err = g.w.Login(ctx, p.seat.Driver, p.seat.Site, p.address); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(p.client.Close)
}

// found has a person make the room.
func (g *gathering) found(ctx context.Context, p *person) {
	g.t.Helper()
	args := Args{"name": "The garden", "public": true, "room": g.room}
	if p.seat.Driver.Network == Matrix {
		delete(args, "room")
		args["alias"] = g.room.Local
	}
	g.enter(ctx, p, "create_room", args)
}

func (g *gathering) join(ctx context.Context, p *person) {
	g.t.Helper()
	g.enter(ctx, p, "join", Args{"room": g.room.Spell(p.seat.Driver.Network, p.address.Domain)})
}

func (g *gathering) enter(ctx context.Context, p *person, op string, args Args) {
	g.t.Helper()
	a, err := p.client.Do(ctx, op, args)
	if err != nil {
		g.t.Fatal(err)
	}
	p.client.enter(g.room, a.Room)
}

func (g *gathering) say(ctx context.Context, p *person, what string) {
	g.t.Helper()
	body := fmt.Sprintf("%d %s %s", len(g.said), what, token())
	g.said = append(g.said, utterance{p, body})
	if _, err := p.client.Do(ctx, "send", Args{"room": g.room, "body": body}); err != nil {
		g.t.Fatal(err)
	}
}

// all waits until a person's history has everything that was said, once and in order.
func (g *gathering) all(ctx context.Context, p *person, in order) {
	g.t.Helper()
	var found []utterance
	var err error
	for tries := 0; ctx.Err() == nil && tries <= maxTries; tries++ {
		var a Answer
		if a, err = p.client.Do(ctx, "history", Args{"room": g.room, "limit": 100}); err == nil {
			if found = g.heard(a.Events); len(found) >= len(g.said) {
				break
			}
		}
		time.Sleep(time.Second)
	}
	want := g.said
	if in == ownOrder {
		want, found = byPerson(want), byPerson(found)
	}
	if !slices.Equal(found, want) {
		g.t.Errorf("%s finds\n  %s\nof\n  %s\nthe last error is %v", p.client, bodies(found), bodies(want), err)
	}
}

// heard are the events that are something said.
func (g *gathering) heard(events []Event) (found []utterance) {
	for _, e := range events {
		i := slices.IndexFunc(g.said, func(u utterance) bool { return e.Event == "message" && u.body == e.Body })
		if i >= 0 {
			found = append(found, g.said[i])
		}
	}
	return found
}

// byPerson puts together what each one said, in her order.
func byPerson(all []utterance) []utterance {
	return slices.SortedStableFunc(slices.Values(all), func(a, b utterance) int {
		return strings.Compare(a.by.address.String(), b.by.address.String())
	})
}

func bodies(all []utterance) string {
	var list []string
	for _, u := range all {
		list = append(list, u.body)
	}
	return strings.Join(list, "\n  ")
}
