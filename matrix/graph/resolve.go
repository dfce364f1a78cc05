package graph

import (
	"slices"

	"parley/matrix/wire"
)

// Resolve is the resolution of a set of states: the state before an event, when
// given those after each of its previous events. The order of the states does
// not matter. It is version 2 of the algorithm, and 2.1 from room version 12.
//
// spec: MX 1.19 SS §7
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v12
func Resolve(v *wire.Version, states ...State) State {
	states = distinct(states)
	switch len(states) {
	case 0:
		return State{}
	case 1:
		return states[0]
	}
	conflicted, disputed, unconflicted := split(states)
	full := conflicted.union(authDifference(disputed, unconflicted))
	if v.HashedRoomID { // 2.1
		full = full.union(subgraph(conflicted))
	}
	power := powerEvents(full)

	// Version 2.1 starts from nothing, so that no event is judged by state that
	// stands beside the fork and may itself be the work of a mistake.
	partial := &partial{}
	if !v.HashedRoomID {
		partial.base = unconflicted
	}
	for _, e := range sortByPower(power) {
		partial.apply(e)
	}
	var rest []*Event
	for e := range full {
		if !power[e] {
			rest = append(rest, e)
		}
	}
	sortByMainline(rest, partial.Get(wire.TypePowerLevels, ""))
	for _, e := range rest {
		partial.apply(e)
	}
	// What nobody disputes stands whatever came of the rest.
	out := unconflicted
	for e := range partial.over.All() {
		if unconflicted.Get(e.Type, *e.StateKey) == nil {
			out = out.With(e)
		}
	}
	return out
}

// distinct leaves each state once.
func distinct(states []State) []State {
	type mark struct {
		size int
		sum  uint64
	}
	seen := make(map[mark][]State, len(states))
	var out []State
	for _, s := range states {
		m := mark{s.size, s.sum}
		if !slices.ContainsFunc(seen[m], s.Equal) {
			seen[m] = append(seen[m], s)
			out = append(out, s)
		}
	}
	return out
}

// set is a set of events.
type set map[*Event]bool

func (s set) union(t set) set {
	out := make(set, len(s)+len(t))
	for e := range s {
		out[e] = true
	}
	for e := range t {
		out[e] = true
	}
	return out
}

// split is the conflicted state set, which of it each of the states has, and the
// unconflicted state map.
//
// spec: MX 1.19 RV v12
func split(states []State) (conflicted set, disputed [][]*Event, unconflicted State) {
	keys := map[wire.StateKey]bool{}
	for _, s := range states[1:] {
		states[0].Diff(s, func(was, is *Event) {
			if was == nil {
				was = is
			}
			keys[was.Key()] = true
		})
	}
	conflicted, disputed, unconflicted = set{}, make([][]*Event, len(states)), states[0]
	for k := range keys {
		for i, s := range states {
			if e := s.Get(k.Type, k.Key); e != nil {
				conflicted[e] = true
				disputed[i] = append(disputed[i], e)
			}
		}
		unconflicted = unconflicted.Without(k)
	}
	return conflicted, disputed, unconflicted
}

// chain visits the events that can be reached from some by their auth events,
// and of generation least or later, each once, and not those in seen, to which
// it adds them.
//
// spec: MX 1.19 RV v12
func chain(from []*Event, least int, seen set, visit func(*Event)) {
	todo := slices.Clone(from)
	for len(todo) > 0 {
		e := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, a := range e.Auth {
			if a.generation >= least && !seen[a] {
				seen[a] = true
				visit(a)
				todo = append(todo, a)
			}
		}
	}
}

// authDifference is what stands in some but not in all of the states' auth
// chains. What is undisputed is in every state, and so its chain in all of
// theirs: it is enough to compare the chains of what is disputed, which are given
// for each state, and to take away what the undisputed rests on too.
//
// spec: MX 1.19 RV v12
func authDifference(disputed [][]*Event, unconflicted State) set {
	in := map[*Event]int{}
	for _, events := range disputed {
		chain(events, 0, set{}, func(e *Event) { in[e]++ })
	}
	out, least := set{}, -1
	for e, n := range in {
		if n < len(disputed) {
			out[e] = true
			if least < 0 || e.generation < least {
				least = e.generation
			}
		}
	}
	if len(out) == 0 {
		return out
	}
	seen := set{}
	for e := range unconflicted.All() {
		if e.generation > least {
			chain([]*Event{e}, least, seen, func(e *Event) { delete(out, e) })
		}
	}
	return out
}

// subgraph is the conflicted state subgraph: what lies on a path of auth events
// from one conflicted event to another, its ends included.
//
// spec: MX 1.19 RV v12
func subgraph(conflicted set) set {
	least := -1
	for e := range conflicted {
		if least < 0 || e.generation < least {
			least = e.generation
		}
	}
	seen := set{}
	var from, below []*Event
	for e := range conflicted {
		from = append(from, e)
	}
	chain(from, least, seen, func(e *Event) { below = append(below, e) })
	// From the oldest on: an event leads to a conflicted one if it cites one, or
	// one that leads to one.
	slices.SortFunc(below, func(a, b *Event) int { return a.generation - b.generation })
	leads, out := set{}, set{}
	for _, e := range append(below, from...) {
		for _, a := range e.Auth {
			if conflicted[a] || leads[a] {
				leads[e] = true
			}
		}
	}
	for e := range leads {
		if seen[e] || conflicted[e] {
			out[e] = true
		}
	}
	return out
}

// partial is the state that the iterative auth checks build.
type partial struct {
	base, over State
	for_       *Event
}

// Get returns what was applied, else what was there to begin with, else what
// the event that is being judged cites and was not rejected.
func (p *partial) Get(eventType, key string) *Event {
	if e := p.over.Get(eventType, key); e != nil {
		return e
	}
	if e := p.base.Get(eventType, key); e != nil {
		return e
	}
	if p.for_ == nil {
		return nil
	}
	if e := p.for_.cites(eventType, key); e != nil && !e.Rejected {
		return e
	}
	return nil
}

// apply is one step of the iterative auth checks.
//
// spec: MX 1.19 RV v12
func (p *partial) apply(e *Event) {
	p.for_ = e
	if Allowed(e, p) == nil {
		p.over = p.over.With(e)
	}
	p.for_ = nil
}
