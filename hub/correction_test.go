package hub_test

import (
	"context"
	"slices"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
)

// letters is a carrier of XMPP that keeps what it is given.
type letters chan hub.Delivery

func (letters) Network() core.Network                       { return core.XMPP }
func (letters) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (letters) Whisper(hub.Whisper)                         {}
func (l letters) Deliver(_ context.Context, _ string, p []hub.Delivery) []hub.Result {
	for _, d := range p {
		l <- d
	}
	return make([]hub.Result, len(p))
}

// Visitors of other networks hear of corrections too, those who are put out by one among them; and again of where a room went on.
func TestCorrectionsReachVisitors(t *testing.T) {
	h, _ := hubtest.New(t)
	out := make(letters, 100)
	h.AddCarrier(out)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice := hubtest.Account(t, h, "alice")
	carol, erin := core.Address{Network: core.XMPP, Name: "carol", Domain: "a.net"}, core.Address{Network: core.XMPP, Name: "erin", Domain: "b.net"}
	c, err := h.Open(t.Context(), hub.Opening{Creator: alice, Shape: core.Group, Public: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []core.Address{carol, erin} {
		if _, err := h.Join(t.Context(), hub.JoinRequest{Conv: c.ID, Who: who}); err != nil {
			t.Fatal(err)
		}
	}
	var moved core.Event
	err = h.Graph(t.Context(), func(g *hub.GraphTurn) error {
		if err := g.Share(c.ID); err != nil {
			return err
		}
		ban, err := g.Apply(hub.Draft{Conv: c.ID, Sender: alice, Content: core.Membership{Target: carol, Standing: core.Banned}, Aside: true})
		if err != nil {
			return err
		}
		_, err = g.Correct(c.ID, []core.Correction{{Kind: string(core.KindMembership), Key: carol.String(), Is: ban.ID}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for want := []core.Address{carol, erin}; len(want) > 0; {
		d := <-out
		if ch, ok := d.Content.Content.(core.Change); ok && ch.Aspect == core.AspectCorrected {
			want = slices.DeleteFunc(want, func(a core.Address) bool { return slices.Contains(d.To, a) })
		}
	}
	err = h.Graph(t.Context(), func(g *hub.GraphTurn) (err error) {
		moved, err = g.Apply(hub.Draft{Conv: c.ID, Sender: alice, Content: core.Change{Aspect: core.AspectMovedTo, MovedTo: &core.Move{Native: "!next:b.test"}}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	again := make(chan hub.EventNews, 10)
	h.Listen(func(b hub.Bulletin) {
		if n, ok := b.News.(hub.EventNews); ok && n.Again && slices.Contains(b.To, alice) {
			again <- n
		}
	})
	if err := h.Retell(t.Context(), moved.ID); err != nil {
		t.Fatal(err)
	}
	if n := <-again; n.Event.ID != moved.ID || n.State.MovedTo == nil {
		t.Errorf("%+v", n.Event)
	}
	for told := 0; told < 2; {
		d := <-out
		if slices.Contains(d.To, carol) {
			t.Error("carol, who is banned, hears of it")
		}
		if d.Event == moved.ID && slices.Contains(d.To, erin) {
			told++
		}
	}
}
