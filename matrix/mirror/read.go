package mirror

import (
	"fmt"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// Event is a PDU with its place in the core's log.
type Event struct {
	*wire.PDU
	ID       core.EventID
	Conv     core.ConvID
	Position core.Position
	// Replaces is the state event that this one replaced, RedactedBy the
	// redaction that emptied it: event IDs, "" for none.
	Replaces, RedactedBy string
	// Late says, of what [Mirror.StateChanged] finds, that it was in force
	// before, and only became known.
	Late bool

	device, txn string
}

const columns = `p.event_id, p.conv, p.pos, p.core_id, p.version, p.replaces, p.redacted_by, p.device, p.txn, p.json`

// events runs a query for columns.
func events(q store.Querier, query string, args ...any) ([]Event, error) {
	return eventsAnd(q, nil, query, args...)
}

// eventsAnd is events for a query that has one column more, which is for more.
func eventsAnd(q store.Querier, more func(*Event, int64), query string, args ...any) ([]Event, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Event
	for rows.Next() {
		var e Event
		var id, conv, coreID, version string
		var pos int64
		var raw []byte
		into := []any{&id, &conv, &pos, &coreID, &version, &e.Replaces, &e.RedactedBy, &e.device, &e.txn, &raw}
		var extra int64
		if more != nil {
			into = append(into, &extra)
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		v, err := wire.VersionOf(version)
		if err != nil {
			return nil, err
		}
		if e.PDU, err = wire.Restore(v, id, raw); err != nil {
			return nil, fmt.Errorf("stored event %s: %w", id, err)
		}
		e.ID, e.Conv, e.Position = core.EventID(coreID), core.ConvID(conv), core.Position(pos)
		if more != nil {
			more(&e, extra)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// State is the current state of a room, create event first.
func (m *Mirror) State(v hub.View, conv core.ConvID) ([]Event, error) {
	return events(hubstore.Querier(v), `SELECT `+columns+` FROM mirror_state s JOIN mirror_pdus p ON p.event_id = s.event_id
		WHERE s.conv = $1 AND s.until = $2 ORDER BY s.pos`, string(conv), int64(always))
}

// StateAt is the state after the event at a position.
func (m *Mirror) StateAt(v hub.View, conv core.ConvID, at core.Position) ([]Event, error) {
	return events(hubstore.Querier(v), `SELECT `+columns+` FROM mirror_state s JOIN mirror_pdus p ON p.event_id = s.event_id
		WHERE s.conv = $1 AND s.pos <= $2 AND s.until > $2 ORDER BY s.pos`, string(conv), int64(at))
}

// StateBut is StateAt without the pieces of one type, of which there may be more
// than of all others.
func (m *Mirror) StateBut(v hub.View, conv core.ConvID, at core.Position, eventType string) ([]Event, error) {
	return events(hubstore.Querier(v), `SELECT `+columns+` FROM mirror_state s JOIN mirror_pdus p ON p.event_id = s.event_id
		WHERE s.conv = $1 AND s.pos <= $2 AND s.until > $2 AND s.type <> $3 ORDER BY s.pos`, string(conv), int64(at), eventType)
}

// StateChanged is of the state at position to what one who knew that at position
// from does not know: for each key the newest event in the interval (from, to],
// and what became known in it though it was in force before.
func (m *Mirror) StateChanged(v hub.View, conv core.ConvID, from, to core.Position) ([]Event, error) {
	return eventsAnd(hubstore.Querier(v), func(e *Event, pos int64) { e.Late = core.Position(pos) <= from },
		`SELECT `+columns+`, s.pos FROM mirror_state s JOIN mirror_pdus p ON p.event_id = s.event_id
		WHERE s.conv = $1 AND s.told > $2 AND s.told <= $3 AND s.pos <= $3 AND s.until > $3 ORDER BY s.pos`,
		string(conv), int64(from), int64(to))
}

// StateEvent is one piece of the current state, [hub.ErrNone] if not set.
func (m *Mirror) StateEvent(v hub.View, conv core.ConvID, eventType, key string) (Event, error) {
	return m.StateEventAt(v, conv, eventType, key, always-1)
}

// StateEventAt is one piece of the state after the event at a position,
// [hub.ErrNone] if it was not set.
func (m *Mirror) StateEventAt(v hub.View, conv core.ConvID, eventType, key string, at core.Position) (Event, error) {
	if strings.IndexByte(eventType, 0) >= 0 || strings.IndexByte(key, 0) >= 0 {
		return Event{}, hub.ErrNone
	}
	out, err := events(hubstore.Querier(v), `SELECT `+columns+` FROM mirror_state s JOIN mirror_pdus p ON p.event_id = s.event_id
		WHERE s.conv = $1 AND s.type = $2 AND s.state_key = $3 AND s.pos <= $4 AND s.until > $4`,
		string(conv), eventType, key, int64(at))
	if err != nil {
		return Event{}, err
	}
	if len(out) == 0 {
		return Event{}, hub.ErrNone
	}
	return out[0], nil
}

// ByEventID finds events, in the order of ids; those unknown are left out.
func (m *Mirror) ByEventID(v hub.View, ids ...string) ([]Event, error) {
	known := make([]string, 0, len(ids))
	for _, id := range ids {
		if wire.CheckEventID(id) == nil {
			known = append(known, id)
		}
	}
	return lookUp(hubstore.Querier(v), "event_id", known, func(e Event) string { return e.EventID })
}

// ByCore finds the Matrix events of core events, in the order of ids; those
// unknown are left out.
func (m *Mirror) ByCore(v hub.View, ids ...core.EventID) ([]Event, error) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = string(id)
	}
	return lookUp(hubstore.Querier(v), "core_id", keys, func(e Event) string { return string(e.ID) })
}

func lookUp(q store.Querier, column string, keys []string, keyOf func(Event) string) ([]Event, error) {
	found := make(map[string]Event, len(keys))
	err := inBatches(keys, func(in string, args []any) error {
		list, err := events(q, `SELECT `+columns+` FROM mirror_pdus p WHERE p.`+column+` IN (`+in+`)`, args...)
		for _, e := range list {
			found[keyOf(e)] = e
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]Event, 0, len(found))
	for _, k := range keys {
		if e, ok := found[k]; ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// inBatches calls f with the placeholders and arguments of IN lists that hold
// all keys. Lists have one of few lengths, the last key filling the rest, so
// that there are few statements to prepare.
func inBatches(keys []string, f func(in string, args []any) error) error {
	for len(keys) > 0 {
		size := 1
		for size < len(keys) && size < 64 {
			size *= 4
		}
		n := min(size, len(keys))
		args, marks := make([]any, size), make([]string, size)
		for i := range size {
			args[i], marks[i] = keys[min(i, n-1)], fmt.Sprintf("$%d", i+1)
		}
		if err := f(strings.Join(marks, ", "), args); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// RelationQuery asks for the events that relate to a target.
type RelationQuery struct {
	Target    string // event ID
	RelType   string // "" is any
	EventType string // "" is any
	// Before and After bound the position, exclusively; zero is no bound.
	Before, After core.Position
	Limit         int
	Forward       bool // oldest first
}

// Relations are the events that relate to a target; redacted ones do not.
//
// spec: MX 1.19 CS §7.10.3
func (m *Mirror) Relations(v hub.View, q RelationQuery) ([]Event, error) {
	query := `SELECT ` + columns + ` FROM mirror_relations r JOIN mirror_pdus p ON p.event_id = r.event_id WHERE r.target = $1`
	args := []any{q.Target}
	and := func(cond string, arg any) {
		args = append(args, arg)
		query += fmt.Sprintf(" AND "+cond, len(args))
	}
	if q.RelType != "" {
		and("r.rel_type = $%d", q.RelType)
	}
	if q.EventType != "" {
		and("r.type = $%d", q.EventType)
	}
	if q.Before != 0 {
		and("r.pos < $%d", int64(q.Before))
	}
	if q.After != 0 {
		and("r.pos > $%d", int64(q.After))
	}
	order := " DESC"
	if q.Forward {
		order = ""
	}
	args = append(args, int64(max(q.Limit, 1)))
	query += fmt.Sprintf(" ORDER BY r.pos%s, r.event_id%s LIMIT $%d", order, order, len(args))
	if strings.IndexByte(q.Target+q.RelType+q.EventType, 0) >= 0 {
		return nil, nil
	}
	return events(hubstore.Querier(v), query, args...)
}
