package shared

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// Look is a room as a snapshot shows it: one that is shared, or one of ours that
// could be. It is good as long as the snapshot is, and looks at nothing of the
// writer's.
type Look struct {
	Conv    core.ConvID
	ID      string
	Version *wire.Version
	// Partial says that its members are not all known yet.
	Partial bool

	r *Rooms
	v hub.View
	q store.Querier
}

// Look finds a room by its ID. [ErrNotShared] says that there is none that other
// servers could be told of.
func (r *Rooms) Look(v hub.View, roomID string) (*Look, error) {
	if wire.CheckRoomID(roomID) != nil {
		return nil, ErrNotShared
	}
	conv, err := v.ConversationNative(core.Matrix, roomID)
	if errors.Is(err, hub.ErrNone) {
		return nil, ErrNotShared
	}
	if err != nil {
		return nil, err
	}
	return r.lookAt(v, conv)
}

func (r *Rooms) lookAt(v hub.View, conv core.ConvID) (*Look, error) {
	c, err := v.Conversation(conv)
	if err != nil {
		return nil, err
	}
	l := &Look{Conv: conv, ID: c.Native[core.Matrix], r: r, v: v, q: hubstore.Querier(v)}
	var version string
	switch c.Authority {
	case core.Here:
		s, err := v.State(conv)
		if err != nil {
			return nil, err
		}
		version = s.Creation.Version
	case core.Graph:
		var partial string
		err := l.q.QueryRow(`SELECT version, partial FROM shared_rooms WHERE conv = $1`, string(conv)).Scan(&version, &partial)
		if store.NotFound(err) {
			return nil, ErrNotShared // of an invitation: nothing is known but that
		}
		if err != nil {
			return nil, err
		}
		l.Partial = partial != ""
	default:
		return nil, ErrNotShared
	}
	l.Version, err = wire.VersionOf(version)
	return l, err
}

// LookFor finds an event, and its room, by the event's ID. [ErrNotShared] says
// that there is none that other servers could be told of.
func (r *Rooms) LookFor(v hub.View, eventID string) (*Look, Event, error) {
	if wire.CheckEventID(eventID) != nil {
		return nil, Event{}, ErrNotShared
	}
	var conv string
	err := hubstore.Querier(v).QueryRow(`SELECT conv FROM shared_events WHERE event_id = $1
		UNION SELECT conv FROM mirror_pdus WHERE event_id = $1`, eventID).Scan(&conv)
	if store.NotFound(err) {
		return nil, Event{}, ErrNotShared
	}
	if err != nil {
		return nil, Event{}, err
	}
	l, err := r.lookAt(v, core.ConvID(conv))
	if err != nil {
		return nil, Event{}, err
	}
	found, err := l.Events(eventID)
	if err == nil && len(found) == 0 {
		err = ErrNotShared
	}
	return l, found[eventID], err
}

// Event is an event of a room as a snapshot has it.
type Event struct {
	*wire.PDU
	Verdict graph.Verdict
	// Cited says that it is known as state or as a cause of others, and was judged
	// by what it cites alone.
	Cited bool
	// prior and state are the groups before and after it; early that it is from
	// before the room was shared, when one followed the other.
	prior, state int64
	early        bool
	pos          core.Position // 0 where clients do not see it
}

// Events finds events of the room; those that are not known are left out.
func (l *Look) Events(ids ...string) (map[string]Event, error) {
	out := make(map[string]Event, len(ids))
	for batch := range slices.Chunk(ids, 200) {
		batch = slices.DeleteFunc(slices.Clone(batch), func(id string) bool { return wire.CheckEventID(id) != nil })
		if len(batch) == 0 {
			continue
		}
		marks, args := placeholders(batch)
		err := l.events(out, `SELECT s.event_id, s.conv, s.verdict, s.prior, s.state, COALESCE(p.pos, 0), COALESCE(s.json, p.json)
			FROM shared_events s LEFT JOIN mirror_pdus p ON p.event_id = s.event_id WHERE s.event_id IN (`+marks+`)`, args)
		if err != nil {
			return nil, err
		}
		batch = slices.DeleteFunc(batch, func(id string) bool { _, ok := out[id]; return ok })
		if len(batch) == 0 {
			continue
		}
		marks, args = placeholders(batch)
		// What was said before the room was shared is the mirror's alone.
		err = l.events(out, `SELECT event_id, conv, '`+accepted+`', 0, 0, pos, json FROM mirror_pdus WHERE event_id IN (`+marks+`)`, args)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// events adds what a query finds.
func (l *Look) events(out map[string]Event, query string, args []any) error {
	return store.Each(l.q, func(row store.Scanner) error {
		var id, conv, verdict string
		var e Event
		var raw []byte
		var pos int64
		if err := row.Scan(&id, &conv, &verdict, &e.prior, &e.state, &pos, &raw); err != nil || conv != string(l.Conv) {
			return err
		}
		pdu, err := wire.Restore(l.Version, id, raw)
		if err != nil {
			return fmt.Errorf("stored event %s: %w", id, err)
		}
		e.PDU, e.Verdict, e.Cited, e.pos = pdu, verdictOf(verdict), verdict == cited, core.Position(pos)
		if e.Cited {
			e.Verdict = graph.Accepted // by what it cites
		}
		e.early = e.prior == 0 && !e.Cited && 0 < e.pos && e.pos < hub.Ground
		out[id] = e
		return nil
	}, query, args...)
}

// ErrUnknownState says that the state at an event is not known here.
var ErrUnknownState = errors.New("the state there is not known")

// StateBefore is the state before an event, as the event IDs of its pieces.
func (l *Look) StateBefore(e Event) (map[wire.StateKey]string, error) {
	if e.early {
		return l.stateAt(e.pos - 1)
	}
	return l.stateOf(e.prior)
}

// StateAfter is the state after an event, likewise.
func (l *Look) StateAfter(e Event) (map[wire.StateKey]string, error) {
	if e.early {
		return l.stateAt(e.pos)
	}
	return l.stateOf(e.state)
}

// stateAt is the state after a position of a room's time with one server.
func (l *Look) stateAt(at core.Position) (map[wire.StateKey]string, error) {
	events, err := l.r.mirror.StateAt(l.v, l.Conv, at)
	out := make(map[wire.StateKey]string, len(events))
	for _, e := range events {
		out[wire.StateKey{Type: e.Type, Key: *e.StateKey}] = e.EventID
	}
	return out, err
}

func (l *Look) stateOf(group int64) (map[wire.StateKey]string, error) {
	if group == 0 {
		return nil, ErrUnknownState
	}
	out := map[wire.StateKey]string{}
	err := l.walk([]int64{group}, "", nil, func(k wire.StateKey, _, is string) {
		if out[k] = is; is == "" {
			delete(out, k)
		}
	}, nil)
	return out, err
}

// ErrTooMuch says that an answer would be larger than any that is given.
var ErrTooMuch = errors.New("that is more than is told at once")

// AuthChain are the events that some events cite, and all that those cite, at
// most limit. Such as are not known are left out.
//
// spec: MX 1.19 SS §5.1.5
func (l *Look) AuthChain(of []Event, limit int) ([]Event, error) {
	seen := map[string]bool{}
	var out []Event
	for len(of) > 0 {
		var ids []string
		for _, e := range of {
			for _, id := range e.AuthEvents {
				if !seen[id] {
					seen[id] = true
					ids = append(ids, id)
				}
			}
			// From version 12 on the create event is cited by the room's ID.
			if id := "$" + l.ID[1:]; l.Version.HashedRoomID && e.Type != wire.TypeCreate && !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		if len(seen) > limit {
			return nil, ErrTooMuch
		}
		found, err := l.Events(ids...)
		if err != nil {
			return nil, err
		}
		of = of[:0:0]
		for _, id := range ids {
			if e, ok := found[id]; ok {
				of = append(of, e)
			}
		}
		out = append(out, of...)
	}
	return out, nil
}

// Outgoing is an event as it goes to other servers: as it came, or with our
// signatures.
func (r *Rooms) Outgoing(pdu *wire.PDU) (json.RawMessage, error) {
	if !r.ours(pdu.Sender) {
		return pdu.JSON, nil
	}
	return r.mirror.Signed(pdu)
}
