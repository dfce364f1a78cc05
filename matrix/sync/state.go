package sync

import (
	"errors"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	"parley/matrix/wire"
)

// stateSet is a set of state events, one for each key, in the order in which
// the keys came.
type stateSet struct {
	m     map[wire.StateKey]mirror.Event
	order []wire.StateKey
}

func newStateSet() *stateSet { return &stateSet{m: map[wire.StateKey]mirror.Event{}} }

func keyOf(e mirror.Event) wire.StateKey { return wire.StateKey{Type: e.Type, Key: *e.StateKey} }

func (s *stateSet) put(e mirror.Event) {
	k := keyOf(e)
	if _, there := s.m[k]; !there {
		s.order = append(s.order, k)
	}
	s.m[k] = e
}

func (s *stateSet) has(k wire.StateKey) bool {
	_, ok := s.m[k]
	return ok
}

// events are those that keep wants.
func (s *stateSet) events(keep func(mirror.Event) bool) []mirror.Event {
	out := []mirror.Event{}
	for _, k := range s.order {
		if e, ok := s.m[k]; ok && keep(e) {
			out = append(out, e)
		}
	}
	return out
}

// settle takes out of the timeline the state events after which a client that
// works out the state from it would believe something else than is in force:
// what stands there came from another branch of the room, or was set before it
// and learnt later. What is in force is for [roomBuild.passedOver] to tell. A
// client that is told the state after the timeline gets them all.
//
// spec: MX 1.19 CS §7.6
func (r *roomBuild) settle() error {
	if r.q.after {
		return nil
	}
	if graph, err := r.graph(); err != nil || !graph {
		return err
	}
	last := map[wire.StateKey]string{}
	for _, e := range r.slice.Events {
		if e.StateKey != nil {
			last[keyOf(e)] = e.EventID
		}
	}
	wrong := map[wire.StateKey]string{} // and what is in force
	for k, id := range last {
		now, err := r.s.mirror.StateEventAt(r.v, r.conv, k.Type, k.Key, core.Position(r.to))
		switch {
		case errors.Is(err, hub.ErrNone):
			wrong[k] = ""
		case err != nil:
			return err
		case now.EventID != id:
			wrong[k] = now.EventID
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	r.slice.Events, r.slice.Hidden = without(r.slice.Events, wrong), true
	return nil
}

// without leaves out the state events of some keys. Where what is in force stands
// in the list itself, only those after it are left out.
func without(events []mirror.Event, inForce map[wire.StateKey]string) []mirror.Event {
	past := map[wire.StateKey]bool{}
	for k, id := range inForce {
		past[k] = !slices.ContainsFunc(events, func(e mirror.Event) bool { return e.EventID == id })
	}
	return slices.DeleteFunc(events, func(e mirror.Event) bool {
		if e.StateKey == nil {
			return false
		}
		k := keyOf(e)
		gone := past[k]
		past[k] = gone || e.EventID == inForce[k] && inForce[k] != ""
		return gone
	})
}

// graph reports whether other servers take part in the room.
func (r *roomBuild) graph() (bool, error) {
	c, err := r.v.Conversation(r.conv)
	return c.Authority == core.Graph, err
}

// lazily leaves of a whole state the members that the client need not know,
// and adds those who speak in the timeline, unless it knows them already. What
// changed in a gap is told in any case, but not who only became known.
//
// spec: MX 1.19 CS §6.1
func (r *roomBuild) lazily(set *stateSet, heroes []core.Address) error {
	needed := map[string]bool{}
	for _, e := range r.slice.Events {
		needed[e.Sender] = true
	}
	for _, a := range heroes {
		id, _ := r.names.UserID(a)
		needed[id] = true
	}
	if r.whole || r.q.full {
		needed[r.q.userID] = true
		for k := range set.m {
			if k.Type == wire.TypeMember && !needed[k.Key] {
				delete(set.m, k)
			}
		}
	} else {
		for k, e := range set.m {
			if k.Type == wire.TypeMember && e.Late && !needed[k.Key] && k.Key != r.q.userID {
				delete(set.m, k)
			}
		}
	}
	at := r.start
	if r.q.after {
		at = r.to
	}
	for userID := range needed {
		if err := r.tellMember(set, userID, at); err != nil {
			return err
		}
	}
	// What the timeline shows, the client knows as well.
	for _, e := range r.slice.Events {
		if e.Type == wire.TypeMember && e.StateKey != nil && !r.q.after {
			r.remember(*e.StateKey, e.EventID)
		}
	}
	return nil
}

// tellMember adds a membership event that the client does not know.
func (r *roomBuild) tellMember(set *stateSet, userID string, at rooms.Point) error {
	k := wire.StateKey{Type: wire.TypeMember, Key: userID}
	e, there := set.m[k]
	if !there {
		var err error
		e, err = r.s.mirror.StateEventAt(r.v, r.conv, wire.TypeMember, userID, core.Position(at))
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.known[r.conv][userID] == e.EventID && !r.whole && !r.q.full {
			return nil
		}
		set.put(e)
	}
	r.remember(userID, e.EventID)
	return nil
}

func (r *roomBuild) remember(userID, eventID string) {
	if r.told[r.conv] == nil {
		r.told[r.conv] = map[string]string{}
	}
	r.told[r.conv][userID] = eventID
}

// maxHeroes is how many members a room without a name is called after.
const maxHeroes = 5

// current is the state of the hub, which is kept in memory, brought up to the
// snapshot by the newest memberships: between a commit and its hooks it is
// older.
func (r *roomBuild) current(news []core.Event) (*core.State, error) {
	state, err := r.v.State(r.conv)
	if err != nil {
		return nil, err
	}
	for i := range news {
		m, ok := news[i].Content.(core.Membership)
		if ok && news[i].Position > state.Members[m.Target].Since {
			state = state.Clone()
			state.Apply(&news[i])
		}
	}
	return state, nil
}

// summary counts the members and names some, after whom a room without a name
// is called.
//
// spec: MX 1.19 CS §7.6
func (r *roomBuild) summary(news []core.Event) ([]core.Address, error) {
	state, err := r.current(news)
	if err != nil {
		return nil, err
	}
	sum := &roomSummary{}
	var here, gone []core.Member
	for _, m := range state.Members {
		switch m.Standing {
		case core.Joined:
			sum.Joined++
		case core.Invited:
			sum.Invited++
		}
		switch {
		case m.Address == r.q.account:
		case m.Standing == core.Joined || m.Standing == core.Invited:
			here = append(here, m)
		case m.Standing != core.Knocked:
			gone = append(gone, m)
		}
	}
	r.out.Summary = sum
	if state.Name != "" || !state.Main.IsZero() {
		return nil, nil
	}
	if len(here) == 0 {
		here = gone
	}
	slices.SortFunc(here, func(a, b core.Member) int {
		if a.Since != b.Since {
			return int(a.Since - b.Since)
		}
		return strings.Compare(a.Address.String(), b.Address.String())
	})
	var heroes []core.Address
	for _, m := range here[:min(len(here), maxHeroes)] {
		id, _ := r.names.UserID(m.Address)
		sum.Heroes = append(sum.Heroes, id)
		heroes = append(heroes, m.Address)
	}
	return heroes, nil
}
