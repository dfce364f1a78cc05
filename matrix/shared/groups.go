package shared

import (
	"fmt"

	"parley/matrix/graph"
	"parley/matrix/wire"
	"parley/store"
)

// A group is one state of a room on disk. Most are written as what differs from
// the state before; when the differences since the last whole one have grown as
// large as the state, it is written whole, so that a state costs as much to keep
// as its events, and at most twice its size to read.

// minDeltas is how many differences there are at least between whole groups.
const minDeltas = 100

// state is the state of a group.
func (t *Turn) state(rm *room, id int64) (graph.State, error) {
	type delta struct {
		key   wire.StateKey
		event string
	}
	var chain [][]delta
	var ids []string
	s, known := graph.State{}, false
	at := id
	for at != 0 {
		if s, known = rm.states[at]; known {
			break
		}
		var parent int64
		if err := t.sql.QueryRow(`SELECT parent FROM shared_groups WHERE id = $1`, at).Scan(&parent); err != nil {
			return s, fmt.Errorf("state group %d: %w", at, err)
		}
		ds, err := store.List(t.sql, func(row store.Scanner) (d delta, err error) {
			err = row.Scan(&d.key.Type, &d.key.Key, &d.event)
			if d.event != "" {
				ids = append(ids, d.event)
			}
			return d, err
		}, `SELECT type, state_key, event_id FROM shared_states WHERE grp = $1`, at)
		if err != nil {
			return s, err
		}
		chain = append(chain, ds)
		at = parent
	}
	missing, err := t.want(rm, ids...)
	if err != nil {
		return s, err
	}
	if len(missing) > 0 {
		return s, fmt.Errorf("state group %d: %d events are missing", id, len(missing))
	}
	for i := len(chain) - 1; i >= 0; i-- {
		for _, d := range chain[i] {
			if d.event == "" {
				s = s.Without(d.key)
			} else {
				s = s.With(rm.events[d.event])
			}
		}
	}
	rm.states[id] = s
	return s, nil
}

// group keeps a state and returns its ID. near is a group from which it differs
// little, 0 for none, and was the state of that.
func (t *Turn) group(rm *room, s graph.State, near int64, was graph.State) (int64, error) {
	if near != 0 && was.Equal(s) {
		return near, nil
	}
	if t.r.groups == 0 {
		if err := t.sql.QueryRow(`SELECT COALESCE(MAX(id), 0) FROM shared_groups`).Scan(&t.r.groups); err != nil {
			return 0, err
		}
	}
	t.r.groups++
	id := t.r.groups
	put := func(k wire.StateKey, event string) error {
		_, err := t.sql.Exec(`INSERT INTO shared_states (grp, type, state_key, event_id) VALUES ($1, $2, $3, $4)`, id, k.Type, k.Key, event)
		return err
	}
	var since int64
	if near != 0 {
		if err := t.sql.QueryRow(`SELECT since FROM shared_groups WHERE id = $1`, near).Scan(&since); err != nil {
			return 0, err
		}
	}
	var failed error
	// While members are missing, all hangs together by differences from the
	// group to which they will be added.
	if whole := since >= max(minDeltas, int64(s.Len())) && rm.partial == ""; near == 0 || whole {
		near, since = 0, 0
		for e := range s.All() {
			if err := put(e.Key(), e.ID); err != nil {
				return 0, err
			}
		}
	} else {
		was.Diff(s, func(was, is *graph.Event) {
			since++
			k, event := wire.StateKey{}, ""
			if is != nil {
				k, event = is.Key(), is.ID
			} else {
				k = was.Key()
			}
			if err := put(k, event); failed == nil {
				failed = err
			}
		})
	}
	if failed != nil {
		return 0, failed
	}
	if _, err := t.sql.Exec(`INSERT INTO shared_groups (id, conv, parent, since) VALUES ($1, $2, $3, $4)`,
		id, string(rm.conv), near, since); err != nil {
		return 0, err
	}
	rm.states[id] = s
	t.tx.OnRollback(func() { delete(rm.states, id) })
	return id, nil
}

// after is the group after an event that is known, 0 if the state there is not.
func (t *Turn) after(rm *room, id string) (group int64, found bool, err error) {
	s, found, err := status(t.sql, id)
	if err != nil || found && s.verdict == cited {
		return 0, false, err
	}
	if found {
		return s.state, true, nil
	}
	return t.afterEarly(rm, id)
}

// afterEarly is the group after an event from before the room was shared, when
// one followed the other.
func (t *Turn) afterEarly(rm *room, id string) (int64, bool, error) {
	events, err := t.r.mirror.ByEventID(t.tx, id)
	if err != nil || len(events) == 0 || events[0].Conv != rm.conv || rm.base != 0 {
		return 0, false, err
	}
	list, err := t.r.mirror.StateAt(t.tx, rm.conv, events[0].Position)
	if err != nil {
		return 0, false, err
	}
	ids := make([]string, len(list))
	for i, e := range list {
		ids[i] = e.EventID
	}
	s, err := t.stateOf(rm, ids)
	if err != nil {
		return 0, false, err
	}
	group, err := t.group(rm, s, 0, graph.State{})
	if err != nil {
		return 0, false, err
	}
	return group, true, t.put(rm, entry{pdu: events[0].PDU, verdict: accepted, state: group, viaSigned: true, shown: true})
}

// stateOf is the state that events make, all of which are known.
func (t *Turn) stateOf(rm *room, ids []string) (graph.State, error) {
	missing, err := t.want(rm, ids...)
	if err != nil {
		return graph.State{}, err
	}
	if len(missing) > 0 {
		return graph.State{}, &MissingError{Auth: missing}
	}
	events := make([]*graph.Event, len(ids))
	for i, id := range ids {
		if events[i] = rm.events[id]; events[i].StateKey == nil {
			return graph.State{}, fmt.Errorf("%w: %s is no state event", graph.ErrLink, id)
		}
	}
	return graph.StateOf(events...), nil
}
