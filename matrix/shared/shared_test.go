package shared_test

import (
	"testing"

	"parley/core"
	"parley/hub"
)

// Two servers: one enters the other's room, both talk, one is put out.
func TestTwoServers(t *testing.T) {
	a, b := newServer(t, "a.test"), newServer(t, "b.test")
	alice, bob := a.account("alice"), b.account("bob")
	c, err := a.h.Open(t.Context(), hub.Opening{
		Creator: alice, Shape: core.Group, Address: core.LocalAddress("garden", "a.test"), Public: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.submit(c.ID, alice, core.Change{Aspect: core.AspectTopic, Text: "roses"})
	there := enter(t, b, a, c.ID, bob)

	if got := a.out.peers[c.ID]; len(got) != 1 || got[0] != "b.test" {
		t.Errorf("a.test knows %v in the room", got)
	}
	if got := b.out.peers[there]; len(got) != 1 || got[0] != "a.test" {
		t.Errorf("b.test knows %v in the room", got)
	}
	remoteAlice := core.Address{Network: core.Matrix, Name: "alice", Domain: "a.test"}
	remoteBob := core.Address{Network: core.Matrix, Name: "bob", Domain: "b.test"}
	s := b.state(there)
	if s.Topic != "roses" || s.Standing(remoteAlice) != core.Joined || s.Standing(bob) != core.Joined || s.Level(remoteAlice) != core.Supreme {
		t.Errorf("b.test sees the topic %q, alice %s with %d, bob %s", s.Topic, s.Standing(remoteAlice), s.Level(remoteAlice), s.Standing(bob))
	}
	if s.Members[bob].Nick != "bob" {
		t.Errorf("bob's nick is %q", s.Members[bob].Nick)
	}

	a.submit(c.ID, alice, core.Message{Body: core.TextBody("welcome")})
	pass(t, a, b, there)
	b.submit(there, bob, core.Message{Body: core.TextBody("thanks")})
	pass(t, b, a, c.ID)
	want := "alice: welcome; bob: thanks"
	if got := a.texts(c.ID); got != want {
		t.Errorf("a.test has %q", got)
	}
	if got := b.texts(there); got != want {
		t.Errorf("b.test has %q", got)
	}

	if _, err := b.h.Submit(t.Context(), hub.Draft{Conv: there, Sender: bob, Content: core.Change{Aspect: core.AspectTopic, Text: "weeds"}}); hub.CodeOf(err) != hub.Forbidden {
		t.Errorf("bob sets the topic: %v", err)
	}
	a.submit(c.ID, alice, core.Membership{Target: remoteBob, Standing: core.Banned})
	pass(t, a, b, there)
	if got := b.state(there).Standing(bob); got != core.Banned {
		t.Errorf("at b.test bob is %s", got)
	}
	if got := b.out.peers[there]; len(got) != 0 {
		t.Errorf("b.test, of which nobody is there, still talks to %v", got)
	}
	if _, err := b.h.Submit(t.Context(), hub.Draft{Conv: there, Sender: bob, Content: core.Message{Body: core.TextBody("hey")}}); err == nil {
		t.Error("bob speaks, though he is banned")
	}
}

// Two servers set the topic without having heard of each other; both end with
// the same, and members hear of it where it is another than they saw.
func TestFork(t *testing.T) {
	a, b := newServer(t, "a.test"), newServer(t, "b.test")
	alice, bob := a.account("alice"), b.account("bob")
	c, err := a.h.Open(t.Context(), hub.Opening{
		Creator: alice, Shape: core.Group, Address: core.LocalAddress("garden", "a.test"), Public: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	there := enter(t, b, a, c.ID, bob)
	remoteBob := core.Address{Network: core.Matrix, Name: "bob", Domain: "b.test"}
	err = a.h.ChangeLevels(t.Context(), c.ID, alice, func(_ *core.State, l *core.Levels) { l.Users[remoteBob] = 50 })
	if err != nil {
		t.Fatal(err)
	}
	pass(t, a, b, there)

	a.submit(c.ID, alice, core.Change{Aspect: core.AspectTopic, Text: "of alice"})
	b.submit(there, bob, core.Change{Aspect: core.AspectTopic, Text: "of bob"})
	owed := b.out.owed
	pass(t, a, b, there)
	b.out.owed = owed
	pass(t, b, a, c.ID)
	atA, atB := a.state(c.ID).Topic, b.state(there).Topic
	if atA != atB {
		t.Errorf("the topic at a.test is %q, at b.test %q", atA, atB)
	}
	corrected := 0
	for s, conv := range map[*server]core.ConvID{a: c.ID, b: there} {
		s.read(func(v hub.View) error {
			page, err := v.Page(hub.Query{Conv: conv, Kinds: []core.Kind{core.KindChange}, Limit: 1000})
			for _, e := range page {
				if ch := e.Content.(core.Change); ch.Aspect == core.AspectCorrected && e.Feed > 0 {
					corrected += len(ch.Corrected)
				}
			}
			return err
		})
	}
	t.Logf("the topic is %q; %d pieces were corrected", atA, corrected)

	// The next event follows both.
	e := a.submit(c.ID, alice, core.Message{Body: core.TextBody("one branch again")})
	if n := len(a.pdu(eventID(e)).PrevEvents); n != 2 {
		t.Errorf("it follows %d events", n)
	}
	pass(t, a, b, there)
}
