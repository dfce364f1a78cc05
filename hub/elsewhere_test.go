package hub_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/store"
)

// remoteRooms is a network of rooms that does all that it is asked, unless the test says no.
type remoteRooms struct {
	h     *hub.Hub
	no    error
	mu    sync.Mutex
	asked []hub.Draft
	dests []string // to which something was delivered
	older func(core.Conversation)
}

func (r *remoteRooms) Network() core.Network                       { return core.XMPP }
func (r *remoteRooms) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (r *remoteRooms) Whisper(hub.Whisper)                         {}
func (r *remoteRooms) Deliver(_ context.Context, dest string, p []hub.Delivery) []hub.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]hub.Result, len(p))
	for i := range p {
		r.dests = append(r.dests, dest)
		out[i].Outcome = hub.Accepted
	}
	return out
}

func (r *remoteRooms) Enter(ctx context.Context, room core.Address, j hub.JoinRequest) (core.ConvID, error) {
	if r.no != nil {
		return "", r.no
	}
	c, err := r.h.Project(ctx, room, []hub.Draft{{Content: core.Change{Aspect: core.AspectName, Text: "Garden"}}}, nil)
	if err != nil {
		return "", err
	}
	_, err = r.h.Apply(ctx, hub.Draft{Conv: c.ID, Sender: j.Who, Content: core.Membership{Target: j.Who, Standing: core.Joined, Nick: "a", Name: "a"}})
	return c.ID, err
}

func (r *remoteRooms) Look(context.Context, core.Address, core.Address) (core.ConvID, error) {
	return "", hub.Refuse(hub.NotFound, "no")
}

func (r *remoteRooms) Ask(ctx context.Context, c core.Conversation, _ *core.State, d hub.Draft) error {
	r.asked = append(r.asked, d)
	if r.no != nil {
		return r.no
	}
	_, err := r.h.Apply(ctx, hub.Draft{Conv: c.ID, Sender: d.Sender, Content: d.Content})
	return err
}

func (r *remoteRooms) Older(_ context.Context, c core.Conversation, _ int) (bool, error) {
	if r.older == nil {
		return false, nil
	}
	r.older(c)
	return true, nil
}

type abroad struct {
	*hub.Hub
	t     *testing.T
	db    *store.DB
	r     *remoteRooms
	alice core.Address
	bob   core.Address
	room  core.Address
}

func newAbroad(t *testing.T) *abroad {
	h, db := hubtest.New(t)
	r := &remoteRooms{h: h}
	h.AddRemote(r)
	h.AddCarrier(r)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &abroad{Hub: h, t: t, db: db, r: r, alice: hubtest.Account(t, h, "alice"),
		bob:  core.OccupantAddress(core.Address{Network: core.XMPP, Name: "garden", Domain: "rooms.test"}, "bob"),
		room: core.Address{Network: core.XMPP, Name: "garden", Domain: "rooms.test"}}
}

func (a *abroad) enter() core.ConvID {
	a.t.Helper()
	id, err := a.EnterAt(a.t.Context(), a.room, hub.JoinRequest{Who: a.alice})
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

func text(s string) core.Message { return core.Message{Body: core.TextBody(s)} }

func (a *abroad) apply(conv core.ConvID, by core.Address, c core.Content, below bool) core.Event {
	a.t.Helper()
	events, err := a.Apply(a.t.Context(), hub.Draft{Conv: conv, Sender: by, Content: c, Below: below})
	if err != nil {
		a.t.Fatal(err)
	}
	return events[0]
}

func (a *abroad) owed() (dests []hub.Destination) {
	a.t.Helper()
	err := a.Read(a.t.Context(), func(v hub.View) (err error) {
		dests, err = v.Destinations()
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return dests
}

// What the room does is applied without asking, also what the shown levels would forbid, and goes to no outbox.
func TestElsewhereApplies(t *testing.T) {
	a := newAbroad(t)
	conv := a.enter()
	a.r.no = hub.Refuse(hub.Forbidden, "never")
	a.apply(conv, a.bob, text("said by one of whom nobody has heard"), false)
	a.apply(conv, a.bob, core.Change{Aspect: core.AspectTopic, Text: "roses"}, false)
	a.apply(conv, a.room, core.Membership{Target: a.bob, Standing: core.Banned, Nick: "bob"}, false)
	if len(a.r.asked) != 0 {
		t.Errorf("the room was asked about what it has done: %v", a.r.asked)
	}
	if owed := a.owed(); len(owed) != 0 || len(a.r.dests) != 0 {
		t.Errorf("what the room has done is owed to %v, was delivered to %v", owed, a.r.dests)
	}
	// Nothing else may be forced so.
	local, err := a.Open(t.Context(), hub.Opening{Creator: a.alice, Shape: core.Group})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Apply(t.Context(), hub.Draft{Conv: local.ID, Sender: a.bob, Content: text("forced")}); err == nil {
		t.Error("a room of ours was made to take what nobody here decided")
	}
}

// Speaking is decided here and owed to the room; what changes the room is asked of it, and a no is the room's own.
func TestElsewhereAsks(t *testing.T) {
	a := newAbroad(t)
	conv := a.enter()
	submit := func(c core.Content) error {
		_, err := a.Submit(t.Context(), hub.Draft{Conv: conv, Sender: a.alice, Content: c})
		return err
	}
	if err := submit(text("hello")); err != nil || len(a.r.asked) != 0 {
		t.Fatalf("speaking: %v, asked %v", err, a.r.asked)
	}
	if err := submit(core.Change{Aspect: core.AspectTopic, Text: "roses"}); err != nil || len(a.r.asked) != 1 {
		t.Fatalf("a topic: %v, asked %v", err, a.r.asked)
	}
	bobs := a.apply(conv, a.bob, text("mine"), false)
	a.r.no = hub.Refuse(hub.Forbidden, "the room says: no")
	for _, c := range []core.Content{
		core.Change{Aspect: core.AspectTopic, Text: "lilies"}, core.Retract{Target: bobs.ID},
		core.Membership{Target: a.bob, Standing: core.Banned},
	} {
		if err := submit(c); hub.CodeOf(err) != hub.Forbidden || !strings.Contains(err.Error(), "the room says: no") {
			t.Errorf("%v: %v", c, err)
		}
	}
	err := a.Read(t.Context(), func(v hub.View) error {
		st, err := v.State(conv)
		if err == nil && (st.Topic != "roses" || st.Standing(a.bob) == core.Banned) {
			t.Errorf("what the room refused has happened: %q %v", st.Topic, st.Standing(a.bob))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Who may not speak is told at once.
	levels := core.Levels{Users: map[core.Address]int64{a.alice: -1}}
	a.apply(conv, a.room, core.Change{Aspect: core.AspectLevels, Levels: &levels}, false)
	if err := submit(text("psst")); hub.CodeOf(err) != hub.Forbidden {
		t.Errorf("a visitor in a moderated room: %v", err)
	}
	a.apply(conv, a.room, core.Membership{Target: a.alice, Standing: core.Left}, false)
	if err := submit(text("psst")); hub.CodeOf(err) != hub.NotMember {
		t.Errorf("one who was kicked: %v", err)
	}
}

// Each projection is a destination of its own.
func TestElsewhereDestinations(t *testing.T) {
	a := newAbroad(t)
	one := a.enter()
	a.room.Name = "kitchen"
	two := a.enter()
	for _, conv := range []core.ConvID{one, two} {
		if _, err := a.Submit(t.Context(), hub.Draft{Conv: conv, Sender: a.alice, Content: text("hello")}); err != nil {
			t.Fatal(err)
		}
	}
	a.Stop() // which lets deliveries end
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	seen := map[string]bool{}
	for _, d := range a.r.dests {
		seen[d] = true
	}
	for _, d := range a.owed() {
		seen[d.Dest] = true
	}
	if !seen["rooms.test/"+string(one)] || !seen["rooms.test/"+string(two)] || len(seen) != 2 {
		t.Errorf("destinations are %v", seen)
	}
}

// Older history stands below what is known, above the state in which the projection began, and is no news.
func TestElsewhereBelow(t *testing.T) {
	a := newAbroad(t)
	conv := a.enter()
	a.apply(conv, a.bob, text("now"), false)
	asked := 0
	a.r.older = func(c core.Conversation) {
		asked++
		a.apply(c.ID, a.bob, text("before"), true)
		a.apply(c.ID, a.bob, text("long before"), true)
	}
	if err := a.Older(t.Context(), conv, 0, 10); err != nil || asked != 1 {
		t.Fatalf("%v, asked %d times", err, asked)
	}
	if err := a.Older(t.Context(), conv, 0, 2); err != nil || asked != 1 {
		t.Errorf("asked %d times, though enough was known: %v", asked, err)
	}
	err := a.Read(t.Context(), func(v hub.View) error {
		events, err := v.Page(hub.Query{Conv: conv, Limit: 100})
		var order []string
		for _, e := range events {
			switch c := e.Content.(type) {
			case core.Message:
				order = append(order, c.Body.Plain())
				if (e.Feed < 0) != (c.Body.Plain() != "now") {
					t.Errorf("%q has the feed number %d", c.Body.Plain(), e.Feed)
				}
			case core.Change:
				if c.Aspect == core.AspectCreated {
					order = append(order, "created")
				}
			}
		}
		if len(order) != 4 || order[0] != "created" || order[1] != "long before" || order[2] != "before" || order[3] != "now" {
			t.Errorf("the timeline is %q", order)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = a.Read(t.Context(), func(v hub.View) error {
		got, err := hub.RoomFor(v, a.alice, a.room)
		if got != conv {
			t.Errorf("the room is shown by %q, not %q", got, conv)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
