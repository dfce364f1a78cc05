package interop

import (
	"context"
	"slices"
	"testing"
	"time"
)

// converseFeatures are what converse.js has controls for, or shows.
var converseFeatures = []string{
	"contacts: ask and approve", "presence to contacts",
	"talk: text", "talk: image", "talk: edit", "talk: reaction", "talk: retraction", "talk: reply", "talk: typing",
	"talk: delivery confirmation", "talk: history",
	"room: join by address", "room: text", "room: image", "room: edit", "room: reaction", "room: retraction",
	"room: reply", "room: history", "room: topic",
}

// TestConverse has a person at converse.js, a web client, in a headless Chromium, meet one
// with a Matrix client and one with another XMPP client: each does, and the other sees.
func TestConverse(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	features := Select(func(name string) bool { return slices.Contains(converseFeatures, name) })
	for _, s := range []*Session{
		{World: w, SeatA: Seat{Converse, w.Parley}, SeatB: Seat{driver(t, "matrixjs"), w.Parley}},
		{World: w, SeatA: Seat{driver(t, "slixmpp"), w.Parley}, SeatB: Seat{Converse, w.Parley}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, features, new(Report)) })
	}
}
