package interop

import (
	"context"
	"slices"
	"testing"
	"time"
)

// overBOSH is the same web client speaking over BOSH instead of WebSocket.
func overBOSH(d *Driver) *Driver {
	bosh := *d
	bosh.Name += "-bosh"
	bosh.command = append(slices.Clone(d.command), "bosh")
	return &bosh
}

// TestBOSH has web clients do over BOSH what is said and shown most: with each other, and
// with a Matrix client.
func TestBOSH(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	common := []string{
		"contacts: ask and approve", "presence to contacts", "talk: text", "talk: image", "talk: edit", "talk: typing",
		"talk: history", "room: join by address", "room: text", "room: history",
	}
	features := Select(func(name string) bool { return slices.Contains(common, name) })
	stanza, converse := overBOSH(driver(t, "stanza")), overBOSH(Converse)
	for _, s := range []*Session{
		{World: w, SeatA: Seat{stanza, w.Parley}, SeatB: Seat{driver(t, "matrixjs"), w.Parley}},
		{World: w, SeatA: Seat{converse, w.Parley}, SeatB: Seat{stanza, w.Parley}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, features, new(Report)) })
	}
}
