package joining

import (
	"cmp"
	"encoding/json"
	"slices"

	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/graph"
	"parley/matrix/wire"
)

// welcome is what a joiner's server is told of the room: the state before the
// join, and all from which it follows. One that can do without gets no more
// members than it needs.
//
// spec: MX 1.19 SS §10
func (j *Joining) welcome(r *federation.Request, a *arrival) (any, error) {
	omit := r.HTTP.URL.Query().Get("omit_members") == "true"
	list, members := split(a.before, a.pdu.Sender)
	omitted := omit && len(members) >= j.cfg.OmitFrom
	if omitted {
		members = heroes(a.before, members)
	}
	list = append(list, members...)
	has := make(map[*graph.Event]bool, len(list))
	for _, e := range list {
		has[e] = true
	}
	chain := chainOf(append(slices.Clone(list), a.e), func(e *graph.Event) bool { return !omit || !has[e] })
	answer := object{"event": json.RawMessage(a.pdu.JSON), "members_omitted": omitted}
	if omitted {
		answer["servers_in_room"] = serversIn(a.before)
	}
	err := j.cfg.Hub.Read(r.Context(), func(v hub.View) error {
		for key, events := range map[string][]*graph.Event{"state": list, "auth_chain": chain} {
			out, err := j.onWire(v, a.version, events)
			if err != nil {
				return err
			}
			answer[key] = out
		}
		return nil
	})
	return answer, err
}

// split takes the members, but for the joiner, out of a state.
func split(s graph.State, joiner string) (list, members []*graph.Event) {
	for e := range s.All() {
		if e.Type == wire.TypeMember && *e.StateKey != joiner {
			members = append(members, e)
		} else {
			list = append(list, e)
		}
	}
	return list, members
}

// onWire are events as they go to other servers.
func (j *Joining) onWire(v hub.View, version *wire.Version, events []*graph.Event) ([]json.RawMessage, error) {
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	found, err := j.cfg.Rooms.Wire(v, version, ids)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, 0, len(ids))
	for _, id := range ids {
		if raw, ok := found[id]; ok {
			out = append(out, raw)
		}
	}
	return out, nil
}

// chainOf are the events that others cite, and those that these cite, and so on,
// as far as they are wanted. One comes after those that it cites.
func chainOf(from []*graph.Event, wanted func(*graph.Event) bool) []*graph.Event {
	var out []*graph.Event
	// A list of what is to be done in place of recursion: chains are long.
	type step struct {
		e    *graph.Event
		next int
	}
	seen := map[*graph.Event]bool{}
	for _, root := range from {
		todo := []step{{e: root}}
		for len(todo) > 0 {
			s := &todo[len(todo)-1]
			if s.next < len(s.e.Auth) {
				a := s.e.Auth[s.next]
				s.next++
				if !seen[a] {
					seen[a] = true
					todo = append(todo, step{e: a})
				}
				continue
			}
			if s.e != root && wanted(s.e) {
				out = append(out, s.e)
			}
			todo = todo[:len(todo)-1]
		}
	}
	return out
}

// maxHeroes is by how many members a room without a name is called.
//
// spec: MX 1.19 SS §10
const maxHeroes = 5

// heroes are those of some members by whom a room without a name is called.
func heroes(s graph.State, members []*graph.Event) []*graph.Event {
	if s.Get("m.room.name", "") != nil || s.Get("m.room.canonical_alias", "") != nil {
		return nil
	}
	out := slices.DeleteFunc(slices.Clone(members), func(e *graph.Event) bool {
		return e.Membership() != "join" && e.Membership() != "invite"
	})
	slices.SortFunc(out, func(a, b *graph.Event) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.ID, b.ID)) })
	return out[:min(len(out), maxHeroes)]
}

// serversIn are the servers of which somebody is in a room.
func serversIn(s graph.State) []string {
	has := map[string]bool{}
	for e := range s.All() {
		if e.Membership() == "join" {
			has[serverOf(*e.StateKey)] = true
		}
	}
	out := make([]string, 0, len(has))
	for server := range has {
		out = append(out, server)
	}
	slices.Sort(out)
	return out
}
