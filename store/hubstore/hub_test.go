package hubstore_test

import (
	"context"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/store"
	"parley/store/storetest"
)

// each runs a test of the hub on both databases.
func each(t *testing.T, f func(t *testing.T, h *hub.Hub)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		h := hubtest.On(t, db)
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(t, h)
	})
}

func say(text string) core.Content { return core.Message{Body: core.TextBody(text)} }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func texts(events []core.Event) []string {
	var out []string
	for _, e := range events {
		if b, ok := core.BodyOf(e.Content); ok {
			out = append(out, b.Plain())
		}
	}
	return out
}

// A stranger's message is held as a request until it is answered, and both
// then have the same history.
func TestRequestAndAnswer(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
		ears := must[*hub.Session](t)(h.Attach(hub.SessionSpec{Account: bob}))
		first := must[core.Event](t)(h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: say("hello")}))
		invited := false
		for n, ok := ears.TryNext(); ok; n, ok = ears.TryNext() {
			e, ok := n.(hub.EventNews)
			if !ok {
				continue
			}
			if core.KindOf(e.Event.Content) == core.KindMessage {
				t.Error("a stranger's message was delivered and not held")
			}
			m, ok := e.Event.Content.(core.Membership)
			invited = invited || ok && m.Standing == core.Invited && m.Target == bob
		}
		if !invited {
			t.Error("bob heard of no request")
		}
		second := must[core.Event](t)(h.SubmitDirect(ctx, alice, hub.Draft{Sender: bob, Content: say("who is it?")}))
		if first.Conv != second.Conv {
			t.Fatal("the answer went into another conversation")
		}
		for _, who := range []core.Address{alice, bob} {
			got := texts(must[[]core.Event](t)(h.History(ctx, who, hub.Query{Conv: first.Conv})))
			if len(got) != 2 || got[0] != "hello" || got[1] != "who is it?" {
				t.Errorf("%s reads %q", who, got)
			}
		}
	})
}

// Who is blocked is told that she is not heard, and nothing is kept of what she
// said; in a room she goes on speaking to the others.
func TestBlockedIsTold(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
		must[core.Event](t)(h.SubmitDirect(ctx, alice, hub.Draft{Sender: bob, Content: say("hello")}))
		first := must[core.Event](t)(h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: say("hello too")}))
		if err := h.Block(ctx, bob, alice); err != nil {
			t.Fatal(err)
		}
		for _, c := range []core.Content{say("are you there?"), core.Edit{Target: first.ID, Body: core.TextBody("hello!")}} {
			if _, err := h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: c}); hub.CodeOf(err) != hub.Blocked {
				t.Errorf("%T to one who blocks the sender: %v", c, err)
			}
		}
		if _, err := h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: core.Retract{Target: first.ID}}); err != nil {
			t.Errorf("what was said can be taken back: %v", err)
		}
		room := must[core.Conversation](t)(h.Open(ctx, hub.Opening{Creator: alice, Shape: core.Group, Public: true}))
		must[core.Event](t)(h.Join(ctx, hub.JoinRequest{Conv: room.ID, Who: bob}))
		must[core.Event](t)(h.Submit(ctx, hub.Draft{Conv: room.ID, Sender: alice, Content: say("to all")}))
		if err := h.Unblock(ctx, bob, alice); err != nil {
			t.Fatal(err)
		}
		must[core.Event](t)(h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: say("thank you")}))
	})
}

// The same alias is the same message; with another digest it is another.
func TestRepetition(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
		send := func(text, digest string) core.Event {
			return must[core.Event](t)(h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: say(text), Aliases: []core.Alias{
				{Network: core.XMPP, Kind: "origin-id", Scope: "alice bob", Key: "1", Digest: digest},
			}}))
		}
		a, b, c := send("one", "d1"), send("one", "d1"), send("two", "d2")
		if a.ID != b.ID {
			t.Error("a resent message became two")
		}
		if a.ID == c.ID {
			t.Error("another message under the same id was taken for the first")
		}
		got := texts(must[[]core.Event](t)(h.History(ctx, alice, hub.Query{Directs: true})))
		if len(got) != 2 {
			t.Errorf("alice's archive holds %q", got)
		}
	})
}

// What was retracted is gone from the store, and so are its links.
func TestRetract(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
		file := core.File{Media: core.NewMediaID(), Type: "image/png", Name: "a.png", Size: 3}
		if err := h.AddMedia(ctx, hub.Media{ID: file.Media, Owner: alice, File: file, Secret: "up", Stored: true}); err != nil {
			t.Fatal(err)
		}
		e := must[core.Event](t)(h.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: core.Message{Body: core.FileBody(file, "")}}))
		var links []hub.Link
		read := func(f func(v hub.View) error) {
			t.Helper()
			if err := h.Read(ctx, f); err != nil {
				t.Fatal(err)
			}
		}
		read(func(v hub.View) (err error) { links, err = v.Links(e.ID); return err })
		if len(links) != 1 {
			t.Fatalf("%d links for one file", len(links))
		}
		if _, err := h.MediaBySecret(ctx, links[0].Secret); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Submit(ctx, hub.Draft{Conv: e.Conv, Sender: bob, Content: core.Retract{Target: e.ID}}); hub.CodeOf(err) != "" {
			t.Logf("bob, a creator too, may not retract: %v", err)
		}
		must[core.Event](t)(h.Submit(ctx, hub.Draft{Conv: e.Conv, Sender: alice, Content: core.Retract{Target: e.ID}}))
		read(func(v hub.View) (err error) { e, err = v.Event(e.ID); return err })
		if b, _ := core.BodyOf(e.Content); len(b.Files()) != 0 || e.Retracted == "" {
			t.Errorf("the retracted event still says %+v", e.Content)
		}
		for _, secret := range []string{links[0].Secret, "up"} {
			if _, err := h.MediaBySecret(ctx, secret); hub.CodeOf(err) != hub.NotFound {
				t.Errorf("the link %s outlived the message: %v", secret, err)
			}
		}
	})
}

// Members of a room hear what is said; strangers and the banned do not.
func TestRoom(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, bob, eve := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob"), hubtest.Account(t, h, "eve")
		room := must[core.Conversation](t)(h.Open(ctx, hub.Opening{
			Creator: alice, Shape: core.Group, Address: core.LocalAddress("garden", hubtest.Domain),
		}))
		if _, err := h.Join(ctx, hub.JoinRequest{Conv: room.ID, Who: bob}); hub.CodeOf(err) != hub.MembersOnly {
			t.Errorf("joining without an invitation: %v", err)
		}
		if err := h.Affiliate(ctx, room.ID, alice, bob, hub.AsMember, ""); err != nil {
			t.Fatal(err)
		}
		must[core.Event](t)(h.Join(ctx, hub.JoinRequest{Conv: room.ID, Who: bob, Nick: "Bobby"}))
		ears := must[*hub.Session](t)(h.Attach(hub.SessionSpec{Account: bob}))
		must[core.Event](t)(h.Submit(ctx, hub.Draft{Conv: room.ID, Sender: alice, Content: say("hi")}))
		if n, ok := ears.TryNext(); !ok || n.(hub.EventNews).Event.Sender != alice {
			t.Errorf("bob heard %v", n)
		}
		if _, err := h.Submit(ctx, hub.Draft{Conv: room.ID, Sender: eve, Content: say("psst")}); hub.CodeOf(err) != hub.NotMember {
			t.Errorf("a stranger spoke: %v", err)
		}
		if _, err := h.History(ctx, eve, hub.Query{Conv: room.ID}); hub.CodeOf(err) != hub.NotMember {
			t.Errorf("a stranger read: %v", err)
		}
		// The right to return outlives membership.
		must[core.Event](t)(h.Submit(ctx, hub.Draft{Conv: room.ID, Sender: bob, Content: core.Membership{Target: bob, Standing: core.Left}}))
		e := must[core.Event](t)(h.Join(ctx, hub.JoinRequest{Conv: room.ID, Who: bob}))
		if m := e.Content.(core.Membership); m.Nick != "Bobby" {
			t.Errorf("bob came back as %q", m.Nick)
		}
		if err := h.Affiliate(ctx, room.ID, bob, alice, hub.Outcasts, ""); hub.CodeOf(err) != hub.Forbidden {
			t.Errorf("bob banned his host: %v", err)
		}
		if err := h.Affiliate(ctx, room.ID, alice, bob, hub.Outcasts, "spam"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Join(ctx, hub.JoinRequest{Conv: room.ID, Who: bob}); hub.CodeOf(err) != hub.Outcast {
			t.Errorf("the banned came back: %v", err)
		}
	})
}

// Consent has two directions and presence follows it.
func TestConsent(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
		online := core.Presence{Show: core.ShowOnline, Session: "phone"}
		if err := h.SetPresence(ctx, bob, online); err != nil {
			t.Fatal(err)
		}
		sees := func() int { return len(must[[]core.Presence](t)(h.PresenceOf(ctx, alice, bob))) }
		step := func(k hub.NoticeKind, from, to core.Address) {
			t.Helper()
			if err := h.Consent(ctx, hub.ContactNotice{Kind: k, From: from, To: to}); err != nil {
				t.Fatal(err)
			}
		}
		step(hub.Ask, alice, bob)
		if sees() != 0 {
			t.Error("alice sees bob before he consented")
		}
		step(hub.Approve, bob, alice)
		if sees() != 1 {
			t.Error("alice does not see bob, who consented")
		}
		if n := len(must[[]core.Presence](t)(h.PresenceOf(ctx, bob, alice))); n != 0 {
			t.Error("consent went both ways unasked")
		}
		step(hub.Deny, bob, alice)
		if sees() != 0 {
			t.Error("alice still sees bob, who took his consent back")
		}
	})
}

// Nobody says herself who let her in.
func TestForgedVia(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		alice, eve := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "eve")
		room := must[core.Conversation](t)(h.Open(ctx, hub.Opening{Creator: alice, Shape: core.Group, Initial: []hub.Draft{
			{Content: core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinRestricted, Allow: []string{"!elsewhere"}}},
		}}))
		_, err := h.Submit(ctx, hub.Draft{Conv: room.ID, Sender: eve, Content: core.Membership{Target: eve, Standing: core.Joined, Via: alice}})
		if hub.CodeOf(err) != hub.MembersOnly {
			t.Errorf("eve let herself in: %v", err)
		}
	})
}
