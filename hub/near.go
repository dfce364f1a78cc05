package hub

import (
	"iter"
	"maps"
	"slices"
	"weak"

	"parley/core"
)

// In a room of tens of thousands nearly all members are on other Matrix servers,
// which are told by other means, and each event is for the few others: they are
// remembered with the state of which they are, which is never changed once it is
// somebody's.

const (
	// nearLeast is how many members a conversation has at least where the few are
	// remembered, nearMost of how many conversations they are.
	nearLeast = 256
	nearMost  = 10_000
)

// nearby are the members of a state who are not on other Matrix servers.
type nearby struct {
	of      weak.Pointer[core.State]
	members []core.Member
}

// near are the members of a conversation who live here or on other networks than
// Matrix.
func (t *turn) near(p place) iter.Seq[core.Member] {
	if len(p.s.Members) < nearLeast {
		return func(yield func(core.Member) bool) {
			for m := range maps.Values(p.s.Members) {
				if m.Address.Network != core.Matrix && !yield(m) {
					return
				}
			}
		}
	}
	of := weak.Make(p.s)
	known, ok := t.h.near[p.c.ID]
	if !ok || known.of != of {
		known = nearby{of: of}
		for _, m := range p.s.Members {
			if m.Address.Network != core.Matrix {
				known.members = append(known.members, m)
			}
		}
		if len(t.h.near) >= nearMost {
			clear(t.h.near)
		}
		t.h.near[p.c.ID] = known
	}
	return slices.Values(known.members)
}

// stay says that what came of a content leaves the few as they are, in the state that is
// next: all but memberships of themselves do.
func (t *turn) stay(p place, next *core.State, c core.Content) {
	known, ok := t.h.near[p.c.ID]
	if m, is := c.(core.Membership); !ok || known.of != weak.Make(p.s) || is && m.Target.Network != core.Matrix {
		return
	}
	known.of = weak.Make(next)
	t.h.near[p.c.ID] = known
}
