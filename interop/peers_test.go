package interop

import (
	"context"
	"testing"
	"time"

	"parley/interop/lab"
)

// missingAtPeers are the features that Prosody and ejabberd lack between themselves.
var missingAtPeers = map[string]bool{}

// TestPeers runs the XMPP clients between Prosody and ejabberd, without Parley: a feature
// that fails here is a mistake in a driver or in the lab.
func TestPeers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w, err := NewWorld(ctx, Parts{Prosody: true, Ejabberd: true, Auth: lab.Certificates, Dir: t.ArtifactDir()})
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
	slixmpp, xmppjs := Drivers[2], Drivers[3]
	for _, s := range []*Session{
		{World: w, SeatA: Seat{slixmpp, w.Prosody}, SeatB: Seat{xmppjs, w.Ejabberd}},
		{World: w, SeatA: Seat{xmppjs, w.Ejabberd}, SeatB: Seat{slixmpp, w.Prosody}},
		{World: w, SeatA: Seat{slixmpp, w.Prosody}, SeatB: Seat{xmppjs, w.Prosody}},
	} {
		t.Run(s.SeatA.String()+"→"+s.SeatB.String(), func(t *testing.T) { runSession(ctx, t, s, missingAtPeers) })
	}
}

// runSession runs all features; those that do not work and are not expected to fail are errors.
func runSession(ctx context.Context, t *testing.T, s *Session, expected map[string]bool) {
	err := s.Run(ctx, Features, func(c Cell) {
		switch {
		case c.Result == No && !expected[c.Feature]:
			t.Errorf("%s: %s: %s", c.Feature, c.Result, c.Note)
		default:
			t.Logf("%s: %s %s", c.Feature, c.Result, c.Note)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
