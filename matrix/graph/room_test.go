package graph

import (
	"fmt"
	"testing"

	"parley/matrix/wire"
)

const (
	alice = "@alice:a.example"
	bob   = "@bob:b.example"
	carol = "@carol:c.example"
	mal   = "@mal:m.example"
)

// world makes events and keeps the state after each.
type world struct {
	t      testing.TB
	v      *wire.Version
	create *Event
	clock  int64
	known  map[string]*Event
	pdus   map[string]*wire.PDU
	after  map[string]State
}

func newWorld(t testing.TB, version string) *world {
	v, err := wire.VersionOf(version)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, v: v, known: map[string]*Event{}, pdus: map[string]*wire.PDU{}, after: map[string]State{}}
}

// make builds an event after others, citing what the state before it gives.
func (w *world) make(sender, eventType string, key *string, content string, prev ...*Event) *Event {
	w.t.Helper()
	var before State
	var states []State
	for _, p := range prev {
		states = append(states, w.after[p.ID])
	}
	before = Resolve(w.v, states...)
	canon, err := wire.Canonical([]byte(content))
	if err != nil {
		w.t.Fatal(err)
	}
	w.clock++
	p := wire.Proto{Type: eventType, StateKey: key, Sender: sender, Content: canon, Time: w.clock, Depth: w.clock}
	if w.create != nil {
		p.RoomID = w.create.Room
	} else if !w.v.HashedRoomID {
		p.RoomID = "!r:a.example"
	}
	for _, x := range prev {
		p.PrevEvents = append(p.PrevEvents, x.ID)
	}
	auth := Needs(before, w.v, eventType, key, sender, canon)
	for _, a := range auth {
		p.AuthEvents = append(p.AuthEvents, a.ID)
	}
	pdu, err := wire.Build(w.v, p)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := Link(pdu, w.create, auth)
	if err != nil {
		w.t.Fatal(err)
	}
	e.ViaSigned = true
	if w.create == nil {
		w.create = e
	}
	verdict, _ := Check(e, before, before)
	e.Rejected = verdict == Rejected
	w.known[e.ID], w.pdus[e.ID], w.after[e.ID] = e, pdu, After(before, e, verdict)
	return e
}

// ok is make for what must be authorised.
func (w *world) ok(sender, eventType, key, content string, prev ...*Event) *Event {
	w.t.Helper()
	e := w.make(sender, eventType, &key, content, prev...)
	if e.Rejected {
		w.t.Fatalf("%s by %s is rejected: %v", eventType, sender, w.why(e, prev...))
	}
	return e
}

func (w *world) why(e *Event, prev ...*Event) error {
	_, err := Check(e, w.meet(prev...), w.meet(prev...))
	return err
}

// meet is the state where branches meet.
func (w *world) meet(tips ...*Event) State {
	var states []State
	for _, e := range tips {
		states = append(states, w.after[e.ID])
	}
	return Resolve(w.v, states...)
}

func (w *world) member(sender, user, membership string, prev ...*Event) *Event {
	w.t.Helper()
	return w.ok(sender, wire.TypeMember, user, fmt.Sprintf(`{"membership":%q}`, membership), prev...)
}

// room is a public room of alice with levels, bob as moderator, and carol.
func (w *world) room(levels string) *Event {
	w.t.Helper()
	content := fmt.Sprintf(`{"room_version":%q}`, w.v.ID)
	if w.v.CreatorKey {
		content = fmt.Sprintf(`{"room_version":%q,"creator":%q}`, w.v.ID, alice)
	}
	e := w.ok(alice, wire.TypeCreate, "", content)
	e = w.member(alice, alice, "join", e)
	e = w.ok(alice, wire.TypePowerLevels, "", w.levels(levels), e)
	e = w.ok(alice, wire.TypeJoinRules, "", `{"join_rule":"public"}`, e)
	e = w.member(bob, bob, "join", e)
	return w.member(carol, carol, "join", e)
}

// levels gives alice 100 where a creator does not stand above all levels.
func (w *world) levels(users string) string {
	if !w.v.HashedRoomID {
		users = fmt.Sprintf(`%q:100,`, alice) + users
	}
	return `{"users":{` + users + `}}`
}

func versions(t *testing.T, f func(t *testing.T, w *world)) {
	for _, v := range wire.Versions() {
		t.Run("version "+v, func(t *testing.T) { f(t, newWorld(t, v)) })
	}
}

func membership(s State, user string) string {
	if e := s.Get(wire.TypeMember, user); e != nil {
		return e.membership
	}
	return ""
}
