package shared_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/shared/sharedtest"
	"parley/matrix/wire"
)

// look reads a room.
func (s *server) look(roomID string, f func(v hub.View, l *shared.Look) error) {
	s.t.Helper()
	s.read(func(v hub.View) error {
		l, err := s.r.Look(v, roomID)
		if err != nil {
			return err
		}
		return f(v, l)
	})
}

func (s *server) enterRoom(room *sharedtest.Room, who string) core.ConvID {
	s.t.Helper()
	var conv core.ConvID
	entry := room.Entry(who)
	s.turn(func(t *shared.Turn) (err error) {
		conv, err = t.Enter(entry)
		return err
	})
	return conv
}

func (s *server) accept(conv core.ConvID, in shared.Incoming) (verdict graph.Verdict) {
	s.t.Helper()
	s.turn(func(t *shared.Turn) error {
		out, err := t.Accept(conv, in)
		verdict = out.Verdict
		return err
	})
	return verdict
}

func idsOfState(s map[wire.StateKey]*wire.PDU) map[wire.StateKey]string {
	out := map[wire.StateKey]string{}
	for k, e := range s {
		out[k] = e.EventID
	}
	return out
}

// The state before and after each event of two branches is what the branch says,
// however many differences lie between it and the last whole one, and a server
// was there when the branch says so.
func TestLookStates(t *testing.T) {
	s := newServer(t, "b.test")
	s.account("bob")
	const alice, dave = "@alice:a.test", "@dave:d.test"
	room := sharedtest.New(t, "11", alice)
	room.Set(alice, wire.TypePowerLevels, "", `{"users":{"`+alice+`":100},"state_default":0}`)
	conv := s.enterRoom(room, "@bob:b.test")
	other := room.Fork()
	r := rand.New(rand.NewPCG(1, 2))
	before, after := map[string]map[wire.StateKey]string{}, map[string]map[wire.StateKey]string{}
	was := map[string]bool{}
	in := func(f *sharedtest.Room) bool {
		m := f.State[wire.StateKey{Type: wire.TypeMember, Key: dave}]
		return m != nil && strings.Contains(string(m.Content), `"join"`)
	}
	visibilities := []string{"shared", "joined", "invited", "world_readable", "odd"}
	sights := map[string]shared.Sight{}
	for i := range 260 {
		f := []*sharedtest.Room{room, other}[r.IntN(2)]
		was1, inside := idsOfState(f.State), in(f)
		var e *wire.PDU
		switch r.IntN(8) {
		case 0:
			if e = nil; inside {
				e = f.Member(alice, dave, "leave")
			} else {
				e = f.Member(dave, dave, "join")
			}
		case 1:
			e = f.Set(alice, wire.TypeVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, visibilities[r.IntN(5)]))
		case 2:
			e = f.Say(alice, fmt.Sprint(i))
		default:
			e = f.Set(alice, "org.example.x", fmt.Sprint(r.IntN(5)), fmt.Sprintf(`{"i":%d}`, i))
		}
		if got := s.accept(conv, shared.Incoming{PDU: e}); got != graph.Accepted {
			t.Fatalf("%s is %v", e.Type, got)
		}
		before[e.EventID], after[e.EventID] = was1, idsOfState(f.State)
		was[e.EventID] = inside || in(f)
		sights[e.EventID] = sightOf(f, in(f))
	}
	s.look(room.ID, func(v hub.View, l *shared.Look) error {
		found, err := l.Events(slices.Collect(maps.Keys(before))...)
		if err != nil || len(found) != len(before) {
			return fmt.Errorf("%d of %d events: %w", len(found), len(before), err)
		}
		for id, e := range found {
			b, err := l.StateBefore(e)
			if err != nil || !maps.Equal(b, before[id]) {
				t.Errorf("before %s: %v, %v, want %v", e.Type, b, err, before[id])
			}
			a, err := l.StateAfter(e)
			if err != nil || !maps.Equal(a, after[id]) {
				t.Errorf("after %s: %v, %v, want %v", e.Type, a, err, after[id])
			}
			if there, err := l.Was("d.test", e); err != nil || there != was[id] {
				t.Errorf("at %s d.test was there: %v, %v", e.Type, there, err)
			}
		}
		all := slices.Collect(maps.Values(found))
		_, seen, err := l.Sights("d.test", all...)
		if !maps.Equal(seen, sights) {
			for id, want := range sights {
				if seen[id] != want {
					t.Errorf("%s is seen as %+v, want %+v", found[id].Type, seen[id], want)
				}
			}
		}
		return err
	})
}

// sightOf is what the branch says. Members are not looked for where anybody sees
// all.
func sightOf(f *sharedtest.Room, in bool) shared.Sight {
	s := shared.Sight{Visibility: core.VisibleShared}
	if e := f.State[wire.StateKey{Type: wire.TypeVisibility}]; e != nil {
		for _, v := range []core.Visibility{core.VisibleWorld, core.VisibleInvited, core.VisibleJoined} {
			if strings.Contains(string(e.Content), `"`+string(v)+`"`) {
				s.Visibility = v
			}
		}
	}
	s.Joined = in && (s.Visibility == core.VisibleInvited || s.Visibility == core.VisibleJoined)
	return s
}

// A room of ours is known from its beginning, before and after it was shared.
func TestLookEarly(t *testing.T) {
	a, b := newServer(t, "a.test"), newServer(t, "b.test")
	alice, bob := a.account("alice"), b.account("bob")
	c, err := a.h.Open(t.Context(), hub.Opening{Creator: alice, Shape: core.Group, Address: core.LocalAddress("garden", "a.test"), Public: true})
	if err != nil {
		t.Fatal(err)
	}
	var topics []string
	for i := range 3 {
		topics = append(topics, eventID(a.submit(c.ID, alice, core.Change{Aspect: core.AspectTopic, Text: fmt.Sprint(i)})))
	}
	said := eventID(a.submit(c.ID, alice, core.Message{Body: core.TextBody("hello")}))
	room := a.pdu(said).RoomID
	check := func() {
		t.Helper()
		a.look(room, func(v hub.View, l *shared.Look) error {
			found, err := l.Events(append(topics, said)...)
			if err != nil {
				return err
			}
			k := wire.StateKey{Type: "m.room.topic"}
			for i, id := range topics {
				before, err := l.StateBefore(found[id])
				if err != nil || i > 0 && before[k] != topics[i-1] || i == 0 && before[k] != "" {
					t.Errorf("before topic %d: %v, %v", i, before[k], err)
				}
				after, err := l.StateAfter(found[id])
				if err != nil || after[k] != id || len(after) < 4 {
					t.Errorf("after topic %d: %v, %v", i, after, err)
				}
			}
			chain, err := l.AuthChain([]shared.Event{found[said]}, 100)
			if err != nil {
				return err
			}
			var types []string
			for _, e := range chain {
				types = append(types, e.Type)
			}
			if slices.Sort(types); !slices.Equal(slices.Compact(types), []string{wire.TypeCreate, wire.TypeMember, wire.TypePowerLevels}) {
				t.Errorf("the message cites %q", types)
			}
			if _, err := l.AuthChain([]shared.Event{found[said]}, 2); !errors.Is(err, shared.ErrTooMuch) {
				t.Errorf("more than two: %v", err)
			}
			if in, err := l.Was("b.test", found[said]); in || err != nil {
				t.Errorf("b.test was there: %v, %v", in, err)
			}
			_, after, err := l.Sights("b.test", found[said])
			if got := after[said]; got.Joined || got.Visibility != core.VisibleShared || !got.Lets(true) || got.Lets(false) {
				t.Errorf("b.test sees it as %+v", got)
			}
			return err
		})
	}
	check()
	a.look(room, func(v hub.View, l *shared.Look) error {
		if in, err := l.Has("b.test"); in || err != nil {
			t.Errorf("b.test is in: %v, %v", in, err)
		}
		return nil
	})
	there := enter(t, b, a, c.ID, bob)
	check()
	a.look(room, func(v hub.View, l *shared.Look) error {
		servers, err := a.r.Servers(v, c.ID)
		if in, _ := l.Has("b.test"); !in || err != nil || !slices.Equal(servers, []string{"b.test"}) {
			t.Errorf("the servers are %q, %v", servers, err)
		}
		return nil
	})
	// What b.test knows as state alone it cannot say the state of.
	b.look(room, func(v hub.View, l *shared.Look) error {
		found, err := l.Events(topics[2], said)
		if e, ok := found[topics[2]]; !ok || !e.Cited || len(found) != 1 {
			t.Errorf("b.test knows %v", found)
		}
		if _, err := l.StateBefore(found[topics[2]]); !errors.Is(err, shared.ErrUnknownState) {
			t.Errorf("before what is only known: %v", err)
		}
		return err
	})
	b.read(func(v hub.View) error {
		if _, _, err := b.r.LookFor(v, said); !errors.Is(err, shared.ErrNotShared) {
			t.Errorf("b.test knows what was said before: %v", err)
		}
		l, e, err := b.r.LookFor(v, topics[2])
		if err == nil && (l.Conv != there || e.EventID != topics[2]) {
			t.Errorf("found %v", e)
		}
		return err
	})
}

// A list of servers counts as soon as it is set, and our own are never kept out.
func TestAllows(t *testing.T) {
	s := newServer(t, "b.test")
	bob := s.account("bob")
	room := sharedtest.New(t, "11", "@alice:a.test")
	conv := s.enterRoom(room, "@bob:b.test")
	allows := func(server string, want bool) {
		t.Helper()
		s.read(func(v hub.View) error {
			got, err := s.r.Allows(v, conv, server)
			if got != want {
				t.Errorf("%s: %v", server, got)
			}
			return err
		})
	}
	allows("evil.test", true)
	s.accept(conv, shared.Incoming{PDU: room.Set("@alice:a.test", "m.room.server_acl", "", `{"allow":["*"],"deny":["evil.test"]}`)})
	allows("evil.test:8448", false)
	allows("a.test", true)
	acl := room.Set("@alice:a.test", "m.room.server_acl", "", `{"allow":["evil.test"]}`)
	s.accept(conv, shared.Incoming{PDU: acl})
	allows("evil.test", true)
	allows("a.test", false)
	allows("b.test", true)
	s.accept(conv, shared.Incoming{PDU: room.Make("@alice:a.test", wire.TypeRedaction, nil, `{"redacts":"`+acl.EventID+`"}`)})
	allows("evil.test", false)
	allows("b.test", true)
	s.submit(conv, bob, core.Message{Body: core.TextBody("still here")})
}
