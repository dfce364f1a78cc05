package graph

import (
	"slices"

	"parley/matrix/wire"
)

// Verdict is what becomes of an event that arrives.
type Verdict int

// Verdicts, of which the zero one is the worst.
const (
	// Rejected: not shown, not cited, and no part of the state.
	Rejected Verdict = iota
	// SoftFailed: not shown and not cited, but it counts where somebody else
	// cites it.
	SoftFailed
	// Accepted as any other.
	Accepted
)

func (v Verdict) String() string {
	return [...]string{"rejected", "soft-failed", "accepted"}[v]
}

// Check judges an event by what it cites, by the state before it and by the
// room's current state. The error says why it is not accepted. Signatures and
// hashes were checked before.
//
// spec: MX 1.19 SS §5.1
func Check(e *Event, before, current View) (Verdict, error) {
	if err := CheckCited(e); err != nil {
		return Rejected, err
	}
	if e.Type == wire.TypeCreate {
		if old := current.Get(wire.TypeCreate, ""); old != nil && old.ID != e.ID {
			return Rejected, deny("the room exists already")
		}
		return Accepted, nil
	}
	if len(e.Prev) == 0 {
		return Rejected, deny("it comes after nothing")
	}
	if err := Allowed(e, cited{e}); err != nil {
		return Rejected, err
	}
	if err := Allowed(e, before); err != nil {
		return Rejected, err
	}
	if err := Allowed(e, current); err != nil {
		return SoftFailed, err
	}
	return Accepted, nil
}

// cited is the state that an event's auth events make.
type cited struct{ e *Event }

func (c cited) Get(eventType, key string) *Event { return c.e.cites(eventType, key) }

// After is the state after an event.
//
// spec: MX 1.19 RV v12
// spec: MX 1.19 SS §5.1.3
func After(before State, e *Event, v Verdict) State {
	if v == Rejected || e.StateKey == nil {
		return before
	}
	return before.With(e)
}

// Extremities are a room's forward extremities after an event: those events
// that no accepted one follows. Neither rejected nor soft-failed events are
// among them. past returns the previous events of one that was rejected or
// soft-failed, and nil for others: what an event follows by way of such a one
// it follows. followed says that an accepted event that follows e is known
// already, as it is when a gap is filled.
//
// spec: MX 1.19 SS §5.1.4
func Extremities(have []string, e *Event, v Verdict, followed bool, past func(id string) []string) []string {
	if v != Accepted {
		return have
	}
	out := slices.Clone(have)
	seen := map[string]bool{}
	todo := slices.Clone(e.Prev)
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		out = slices.DeleteFunc(out, func(x string) bool { return x == id })
		todo = append(todo, past(id)...)
	}
	if !followed && !slices.Contains(out, e.ID) {
		out = append(out, e.ID)
	}
	return out
}
