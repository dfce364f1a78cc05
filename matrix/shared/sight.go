package shared

import (
	"fmt"
	"slices"

	"parley/core"
	"parley/matrix/wire"
	"parley/store"
)

// Sight is what decides whether a server may see an event: how open the room was
// there, and whether somebody of the server was in it.
type Sight struct {
	// Visibility is "shared" where none is set, or none that is understood.
	Visibility      core.Visibility
	Joined, Invited bool
}

// Lets says whether the event may be seen; inside that the server is or was in
// the room at that time or later.
//
// spec: MX 1.19 CS §10.14
func (s Sight) Lets(inside bool) bool {
	switch s.Visibility {
	case core.VisibleWorld:
		return true
	case core.VisibleShared:
		return inside || s.Joined
	case core.VisibleInvited:
		return s.Joined || s.Invited
	}
	return s.Joined
}

// Sights are how a server saw the room before and after some events. Where the
// state is not known, as at history that was learnt later, it is nobody's who is
// in the room for members only; and what is known as state or as a cause of other
// events is told to all in the room anyway.
func (l *Look) Sights(server string, events ...Event) (before, after map[string]Sight, err error) {
	before, after = make(map[string]Sight, len(events)), make(map[string]Sight, len(events))
	groups, err := l.groupSights(server, events)
	if err != nil {
		return nil, nil, err
	}
	var line *line
	for _, e := range events {
		switch {
		case e.prior != 0:
			before[e.EventID], after[e.EventID] = groups[e.prior], groups[e.state]
			continue
		case e.pos == 0:
			before[e.EventID] = Sight{Visibility: core.VisibleShared}
			after[e.EventID] = before[e.EventID]
			continue
		case line == nil:
			if line, err = l.line(server); err != nil {
				return nil, nil, err
			}
		}
		before[e.EventID], after[e.EventID] = line.sight(e.pos-1), line.sight(e.pos)
		if !e.early { // who was there then is not known
			s := Sight{Visibility: line.sight(e.pos).Visibility}
			before[e.EventID], after[e.EventID] = s, s
		}
	}
	return before, after, nil
}

// groupSights are the sights at the groups before and after events. Members are
// only looked for where it matters.
func (l *Look) groupSights(server string, events []Event) (map[int64]Sight, error) {
	var groups []int64
	for _, e := range events {
		if e.prior != 0 {
			groups = append(groups, e.prior, e.state)
		}
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	out := make(map[int64]Sight, len(groups))
	if len(groups) == 0 {
		return out, nil
	}
	var set string
	where := fmt.Sprintf("s.type = $%d AND s.state_key = ''", len(groups)+1)
	at := map[int64]string{}
	err := l.walk(groups, where, []any{wire.TypeVisibility},
		func(_ wire.StateKey, _, is string) { set = is }, func(g int64) { at[g] = set })
	if err != nil {
		return nil, err
	}
	said := map[string]core.Visibility{}
	for _, id := range at {
		said[id] = ""
	}
	if err := l.visibilities(said); err != nil {
		return nil, err
	}
	var closed []int64
	for _, g := range groups {
		s := Sight{Visibility: said[at[g]]}
		if out[g] = s; s.Visibility == core.VisibleInvited || s.Visibility == core.VisibleJoined {
			closed = append(closed, g)
		}
	}
	return out, l.memberSights(out, closed, server)
}

// memberSights fills in who of a server was in the room.
func (l *Look) memberSights(out map[int64]Sight, groups []int64, server string) error {
	if len(groups) == 0 {
		return nil
	}
	// What a membership event says is known by its ID once it was read, so the way
	// is gone twice: for the IDs, and for the counts.
	where := fmt.Sprintf("s.type = $%d AND s.state_key LIKE $%d", len(groups)+1, len(groups)+2)
	more := []any{wire.TypeMember, "%:" + server}
	said := map[string]string{"": ""}
	err := l.walk(groups, where, more, func(_ wire.StateKey, _, is string) { said[is] = "" }, nil)
	if err != nil {
		return err
	}
	if err := l.memberships(said); err != nil {
		return err
	}
	count := map[string]int{}
	return l.walk(groups, where, more, func(k wire.StateKey, was, is string) {
		if serverOf(k.Key) == server {
			count[said[was]]--
			count[said[is]]++
		}
	}, func(g int64) {
		s := out[g]
		s.Joined, s.Invited = count["join"] > 0, count["invite"] > 0
		out[g] = s
	})
}

// visibilities fills in what visibility events say.
func (l *Look) visibilities(said map[string]core.Visibility) error {
	return contents(l, said, func(o wire.Object) core.Visibility {
		text, _ := o.String("history_visibility")
		switch v := core.Visibility(text); v {
		case core.VisibleWorld, core.VisibleInvited, core.VisibleJoined:
			return v
		}
		return core.VisibleShared
	})
}

// memberships fills in what membership events say.
func (l *Look) memberships(said map[string]string) error {
	return contents(l, said, func(o wire.Object) string {
		m, _ := o.String("membership")
		return m
	})
}

// contents fills in what events say, by their IDs; one that is not there says
// what an empty content does.
func contents[T any](l *Look, said map[string]T, say func(wire.Object) T) error {
	ids := make([]string, 0, len(said))
	for id := range said {
		ids = append(ids, id)
	}
	events, err := l.Events(ids...)
	if err != nil {
		return err
	}
	for _, id := range ids {
		var o wire.Object
		if e, ok := events[id]; ok {
			if o, err = wire.ParseObject(e.Content); err != nil {
				return fmt.Errorf("content of %s: %w", id, err)
			}
		}
		said[id] = say(o)
	}
	return nil
}

// line is a stretch of a room's time that has no branches here: that before it
// was shared, and the history that was learnt later.
type line struct {
	visibility []span[core.Visibility]
	members    []span[string]
}

type span[T any] struct {
	from, until int64
	event       string
	is          T
}

// line reads who of a server was in the room, and how open it was, by position.
func (l *Look) line(server string) (*line, error) {
	var out line
	var err error
	if out.visibility, err = spans(l, l.visibilities, `type = $2 AND state_key = $3`, wire.TypeVisibility, ""); err != nil {
		return nil, err
	}
	out.members, err = spans(l, l.memberships, `type = $2 AND state_key LIKE $3`, wire.TypeMember, "%:"+server)
	return &out, err
}

// spans reads pieces of the state over time.
func spans[T any](l *Look, read func(map[string]T) error, where string, args ...any) ([]span[T], error) {
	said := map[string]T{}
	out, err := store.List(l.q, func(row store.Scanner) (s span[T], err error) {
		err = row.Scan(&s.from, &s.until, &s.event)
		var none T
		said[s.event] = none
		return s, err
	}, `SELECT pos, until, event_id FROM mirror_state WHERE conv = $1 AND `+where, append([]any{string(l.Conv)}, args...)...)
	if err != nil {
		return nil, err
	}
	if err := read(said); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].is = said[out[i].event]
	}
	return out, nil
}

func (l *line) sight(at core.Position) Sight {
	s := Sight{Visibility: core.VisibleShared}
	for _, v := range l.visibility {
		if v.from <= int64(at) && int64(at) < v.until {
			s.Visibility = v.is
		}
	}
	for _, m := range l.members {
		if m.from <= int64(at) && int64(at) < m.until {
			s.Joined, s.Invited = s.Joined || m.is == "join", s.Invited || m.is == "invite"
		}
	}
	return s
}

// Has reports whether somebody of a server is in the room now.
func (l *Look) Has(server string) (bool, error) { return l.r.Present(l.v, l.Conv, server) }

// Was reports whether somebody of a server was in the room before or after an
// event.
func (l *Look) Was(server string, e Event) (bool, error) {
	var groups []int64
	for _, g := range []int64{e.prior, e.state} {
		if g != 0 {
			groups = append(groups, g)
		}
	}
	if len(groups) == 0 && !e.early {
		return false, nil
	}
	if e.early {
		line, err := l.line(server)
		return err == nil && (line.sight(e.pos-1).Joined || line.sight(e.pos).Joined), err
	}
	found := make(map[int64]Sight, len(groups))
	err := l.memberSights(found, groups, server)
	return found[e.prior].Joined || found[e.state].Joined, err
}
