package shared

import (
	"fmt"
	"maps"
	"slices"

	"parley/core"
	"parley/matrix/graph"
	"parley/matrix/wire"
	"parley/store"
)

// maxHeld bounds the events in memory; rooms that are not in use are dropped
// when there are more.
const maxHeld = 1 << 20

// room is what the writer knows of a room in use. All of it can be thrown away.
type room struct {
	conv    core.ConvID
	id      string
	version *wire.Version
	create  *graph.Event
	base    int64
	// events are those that the rules have to look at, each once, so that they
	// can be compared as pointers; states are groups that were asked for.
	events map[string]*graph.Event
	states map[int64]graph.State
	head
}

// head is where a room has got to. What its fields refer to is not changed, so
// that a copy is enough to go back to.
type head struct {
	ends    []string
	depth   int64
	current graph.State
	group   int64  // of current
	partial string // see shared_rooms
	// joined counts the joined members of each server, ours too.
	joined map[string]int
}

// inside reports whether anybody of ours is in the room.
func (r *Rooms) inside(h head) bool {
	return slices.ContainsFunc(r.cfg.Domains, func(d string) bool { return h.joined[d] > 0 })
}

// others are the servers in the room that are not ours.
func (r *Rooms) others(h head) []string {
	var out []string
	for s := range h.joined {
		if !slices.Contains(r.cfg.Domains, s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// room finds a shared room, for a turn that may change its head.
func (t *Turn) room(conv core.ConvID) (*room, error) {
	rm := t.r.rooms[conv]
	if rm == nil {
		var err error
		if rm, err = t.load(conv); err != nil {
			return nil, err
		}
		t.r.keepRoom(rm)
	}
	was := rm.head
	t.tx.OnRollback(func() { rm.head = was })
	return rm, nil
}

func (r *Rooms) keepRoom(rm *room) {
	if r.held > maxHeld {
		clear(r.rooms)
		r.held = 0
	}
	r.rooms[rm.conv] = rm
	r.held += len(rm.events)
}

// forget drops what is known of a room, now and if the turn is undone.
func (t *Turn) forget(conv core.ConvID) {
	delete(t.r.rooms, conv)
	t.tx.OnRollback(func() { delete(t.r.rooms, conv) })
}

// load reads a room.
func (t *Turn) load(conv core.ConvID) (*room, error) {
	rm := &room{conv: conv, events: map[string]*graph.Event{}, states: map[int64]graph.State{}}
	var version string
	err := t.sql.QueryRow(`SELECT room_id, version, state, base, partial, depth FROM shared_rooms WHERE conv = $1`, string(conv)).
		Scan(&rm.id, &version, &rm.group, &rm.base, &rm.partial, &rm.depth)
	if store.NotFound(err) {
		return nil, ErrNotShared
	}
	if err != nil {
		return nil, err
	}
	if rm.version, err = wire.VersionOf(version); err != nil {
		return nil, err
	}
	if rm.current, err = t.state(rm, rm.group); err != nil {
		return nil, fmt.Errorf("the state of %s: %w", rm.id, err)
	}
	if rm.ends, err = store.List(t.sql, store.Column[string], `SELECT event_id FROM shared_ends WHERE conv = $1 ORDER BY event_id`, string(conv)); err != nil {
		return nil, err
	}
	rm.joined = map[string]int{}
	for e := range rm.current.All() {
		if e.Membership() == "join" {
			rm.joined[serverOf(*e.StateKey)]++
		}
	}
	return rm, nil
}

// saveHead writes where the room has got to.
func (t *Turn) saveHead(rm *room, was head) error {
	if _, err := t.sql.Exec(`UPDATE shared_rooms SET state = $2, partial = $3, depth = $4 WHERE conv = $1`,
		string(rm.conv), rm.group, rm.partial, rm.depth); err != nil {
		return err
	}
	for _, id := range was.ends {
		if !slices.Contains(rm.ends, id) {
			if _, err := t.sql.Exec(`DELETE FROM shared_ends WHERE conv = $1 AND event_id = $2`, string(rm.conv), id); err != nil {
				return err
			}
		}
	}
	for _, id := range rm.ends {
		if !slices.Contains(was.ends, id) {
			if _, err := t.sql.Exec(`INSERT INTO shared_ends (conv, event_id) VALUES ($1, $2)`, string(rm.conv), id); err != nil {
				return err
			}
		}
	}
	return nil
}

// turnOut moves the counts of joined members from one state to the next, and
// says which other servers came and went.
func (r *Rooms) turnOut(h *head, next graph.State) (joined, parted []string) {
	counts := h.joined
	changed := false
	add := func(e *graph.Event, n int) {
		if e == nil || e.Membership() != "join" {
			return
		}
		if !changed {
			counts, changed = maps.Clone(counts), true
		}
		s := serverOf(*e.StateKey)
		if counts[s] += n; counts[s] <= 0 {
			delete(counts, s)
		}
	}
	h.current.Diff(next, func(was, is *graph.Event) { add(was, -1); add(is, 1) })
	if !changed {
		return nil, nil
	}
	before, after := head{joined: h.joined}, head{joined: counts}
	if !r.inside(before) {
		before.joined = nil
	}
	if !r.inside(after) {
		after.joined = nil
	}
	for _, s := range r.others(after) {
		if before.joined[s] == 0 {
			joined = append(joined, s)
		}
	}
	for _, s := range r.others(before) {
		if after.joined[s] == 0 {
			parted = append(parted, s)
		}
	}
	h.joined = counts
	return joined, parted
}

// kept is an event on disk.
type kept struct {
	pdu       *wire.PDU
	verdict   string
	state     int64
	viaSigned bool
}

// standing is what is known of an event without reading it.
type standing struct {
	verdict string
	state   int64
}

// status says what is known of an event since its room is shared.
func status(q store.Querier, id string) (s standing, found bool, err error) {
	err = q.QueryRow(`SELECT verdict, state FROM shared_events WHERE event_id = $1`, id).Scan(&s.verdict, &s.state)
	if store.NotFound(err) {
		return s, false, nil
	}
	return s, err == nil, err
}

// known says whether an event was judged, and how: since its room is shared, or
// before.
func (t *Turn) known(id string) (verdict string, known bool, err error) {
	s, found, err := status(t.sql, id)
	if err != nil || found {
		return s.verdict, found && s.verdict != cited, err
	}
	events, err := t.r.mirror.ByEventID(t.tx, id)
	return accepted, len(events) > 0, err
}

// read finds events on disk: those that clients see, and the others.
func read(q store.Querier, version *wire.Version, ids []string) (map[string]kept, error) {
	out := make(map[string]kept, len(ids))
	for batch := range slices.Chunk(ids, 200) {
		marks, args := placeholders(batch)
		err := store.Each(q, func(row store.Scanner) error {
			var id string
			var k kept
			var raw []byte
			if err := row.Scan(&id, &k.verdict, &k.state, &k.viaSigned, &raw); err != nil {
				return err
			}
			var err error
			if k.pdu, err = wire.Restore(version, id, raw); err != nil {
				return fmt.Errorf("stored event %s: %w", id, err)
			}
			out[id] = k
			return nil
		}, `SELECT s.event_id, s.verdict, s.state, s.via_signed, COALESCE(s.json, p.json)
			FROM shared_events s LEFT JOIN mirror_pdus p ON p.event_id = s.event_id WHERE s.event_id IN (`+marks+`)`, args...)
		if err != nil {
			return nil, err
		}
		// What was said before the room was shared is the mirror's alone.
		rest := slices.DeleteFunc(slices.Clone(batch), func(id string) bool { _, ok := out[id]; return ok })
		if len(rest) == 0 {
			continue
		}
		marks, args = placeholders(rest)
		err = store.Each(q, func(row store.Scanner) error {
			var id string
			var raw []byte
			if err := row.Scan(&id, &raw); err != nil {
				return err
			}
			pdu, err := wire.Restore(version, id, raw)
			if err != nil {
				return fmt.Errorf("stored event %s: %w", id, err)
			}
			out[id] = kept{pdu: pdu, verdict: accepted, viaSigned: true}
			return nil
		}, `SELECT event_id, json FROM mirror_pdus WHERE event_id IN (`+marks+`)`, args...)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// placeholders are those of an IN list, and its arguments.
func placeholders(ids []string) (string, []any) {
	marks, args := make([]byte, 0, 5*len(ids)), make([]any, len(ids))
	for i, id := range ids {
		if i > 0 {
			marks = append(marks, ',')
		}
		marks = fmt.Appendf(marks, "$%d", i+1)
		args[i] = id
	}
	return string(marks), args
}

// want has events, and all that they cite, in memory. It says which are not
// known.
func (t *Turn) want(rm *room, ids ...string) (missing []string, err error) {
	found := map[string]kept{}
	todo := ids
	for len(todo) > 0 {
		todo = slices.DeleteFunc(slices.Clone(todo), func(id string) bool {
			_, read := found[id]
			return rm.events[id] != nil || read
		})
		slices.Sort(todo)
		todo = slices.Compact(todo)
		got, err := read(t.sql, rm.version, todo)
		if err != nil {
			return nil, err
		}
		var next []string
		for _, id := range todo {
			k, ok := got[id]
			if !ok {
				missing = append(missing, id)
				continue
			}
			found[id] = k
			next = append(next, k.pdu.AuthEvents...)
			if rm.create == nil && rm.version.HashedRoomID && k.pdu.Type != wire.TypeCreate {
				next = append(next, "$"+rm.id[1:])
			}
		}
		todo = next
	}
	for id := range found {
		if _, err := t.linkKept(rm, id, found); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// linkKept ties an event from disk to what it cites, which is in memory or in
// found.
func (t *Turn) linkKept(rm *room, id string, found map[string]kept) (*graph.Event, error) {
	if e := rm.events[id]; e != nil {
		return e, nil
	}
	k, ok := found[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", graph.ErrLink, id)
	}
	auth := make([]*graph.Event, len(k.pdu.AuthEvents))
	for i, a := range k.pdu.AuthEvents {
		var err error
		if auth[i], err = t.linkKept(rm, a, found); err != nil {
			return nil, err
		}
	}
	if rm.create == nil && rm.version.HashedRoomID && k.pdu.Type != wire.TypeCreate {
		if _, err := t.linkKept(rm, "$"+rm.id[1:], found); err != nil {
			return nil, err
		}
	}
	e, err := graph.Link(k.pdu, rm.create, auth)
	if err != nil {
		return nil, err
	}
	e.Rejected, e.ViaSigned = k.verdict == rejected, k.viaSigned
	t.remember(rm, e)
	return e, nil
}

// remember keeps an event that is on disk in memory.
func (t *Turn) remember(rm *room, e *graph.Event) {
	rm.events[e.ID] = e
	t.r.held++
	if e.Type == wire.TypeCreate && rm.create == nil {
		rm.create = e
	}
}

// learn keeps one that this turn writes in memory, unless the turn is undone.
func (t *Turn) learn(rm *room, e *graph.Event) {
	t.remember(rm, e)
	t.tx.OnRollback(func() {
		delete(rm.events, e.ID)
		if rm.create == e {
			rm.create = nil
		}
	})
}
