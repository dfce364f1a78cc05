package interop

import (
	"context"
	"os"
	"testing"
	"time"
)

// dendrite is the path of the Dendrite that the environment names. The tests that need one are
// not part of `make test`, which has nobody else's program at hand.
func dendrite(t *testing.T) string {
	t.Helper()
	binary := os.Getenv("PARLEY_DENDRITE")
	if binary == "" {
		t.Skip("PARLEY_DENDRITE names no Dendrite to test with")
	}
	return binary
}

// TestDendrites runs the Matrix clients between two Dendrites, without Parley: a feature that fails
// here is a mistake in a driver or in the lab, or Dendrite's own.
func TestDendrites(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	binary := dendrite(t)
	w := newWorld(ctx, t, Parts{Dendrite: binary})
	server, err := w.Lab.AddDendrite(ctx, binary, OtherDomain)
	if err != nil {
		t.Fatal(err)
	}
	other := &Site{Server: server, Name: "other", Web: server.Homeserver()}
	if err := w.Add(ctx, other); err != nil {
		t.Fatal(err)
	}
	nio, matrixjs := driver(t, "nio"), driver(t, "matrixjs")
	for _, s := range []*Session{
		{World: w, SeatA: Seat{nio, w.Dendrite}, SeatB: Seat{matrixjs, other}},
		{World: w, SeatA: Seat{matrixjs, other}, SeatB: Seat{nio, w.Dendrite}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, Features, new(Report)) })
	}
}

// TestDendrite runs a session in each direction between Parley and a Dendrite.
func TestDendrite(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true, Prosody: true, Dendrite: dendrite(t)})
	baseline, err := Load(BaselineFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Session{
		{World: w, SeatA: Seat{driver(t, "nio"), w.Parley}, SeatB: Seat{driver(t, "matrixjs"), w.Dendrite}},
		{World: w, SeatA: Seat{driver(t, "matrixjs"), w.Dendrite}, SeatB: Seat{driver(t, "slixmpp"), w.Parley}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, Features, baseline) })
	}
}
