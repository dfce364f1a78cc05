package mirror

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// Viewer is for whom events are written.
type Viewer struct {
	User   core.Address
	Device string // sees the transaction IDs of what it sent itself
}

// maxReferences bounds how many references to one event are bundled with it.
const maxReferences = 100

// page is what a page of events is written from: fetched in a fixed number of
// queries, whatever the number of events.
type page struct {
	userID   string
	device   string
	now      time.Time
	related  map[string]Event // replaced states, redactions, edits, thread ends
	standing map[core.ConvID][]span
	edits    map[string]string // latest edit
	threads  map[string]thread
	refs     map[string][]string
}

// span is a stretch of the viewer's membership.
type span struct {
	from, until core.Position
	event       string
}

// thread is what is known of the thread under an event.
type thread struct {
	count  int64
	latest string
	took   bool // the viewer took part
}

// Client writes events as clients see them, with `unsigned`: age,
// transaction_id, membership, prev_content, redacted_because and the bundled
// aggregations. It takes a fixed number of queries for up to 64 events.
//
// spec: MX 1.19 CS §7.2
func (m *Mirror) Client(v hub.View, viewer Viewer, events []Event) ([]json.RawMessage, error) {
	userID, _ := m.Names(v).UserID(viewer.User)
	p := &page{
		userID: userID, device: viewer.Device, now: time.Now(), related: map[string]Event{},
		standing: map[core.ConvID][]span{}, edits: map[string]string{},
		threads: map[string]thread{}, refs: map[string][]string{},
	}
	if err := m.fill(v, p, events); err != nil {
		return nil, fmt.Errorf("read what belongs to events: %w", err)
	}
	out := make([]json.RawMessage, len(events))
	for i, e := range events {
		out[i] = p.write(e, true).JSON()
	}
	return out, nil
}

// fill reads everything that the events need besides themselves.
func (m *Mirror) fill(v hub.View, p *page, events []Event) error {
	q := hubstore.Querier(v)
	var ids []string
	for _, e := range events {
		ids = append(ids, e.EventID)
	}
	if err := p.aggregate(q, ids); err != nil {
		return err
	}
	var want, ends []string
	for _, t := range p.threads {
		ends = append(ends, t.latest)
	}
	if err := p.replaced(q, ends); err != nil { // edits of the threads' ends
		return err
	}
	for _, e := range events {
		want = append(want, e.Replaces, e.RedactedBy)
	}
	for _, id := range p.edits {
		want = append(want, id)
	}
	found, err := m.ByEventID(v, append(want, ends...)...)
	if err != nil {
		return err
	}
	for _, e := range found {
		p.related[e.EventID] = e
	}
	return m.memberships(v, p, events)
}

// aggregate reads the events that relate to ids, summed up.
//
// spec: MX 1.19 CS §7.10.2
// spec: MX 1.19 CS §10.43.3.2
// spec: MX 1.19 CS §10.44.1.1
func (p *page) aggregate(q store.Querier, ids []string) error {
	if err := p.replaced(q, ids); err != nil {
		return err
	}
	err := inBatches(ids, func(in string, args []any) error {
		// One row for each thread, its last event first.
		n := len(args) + 1
		return store.Each(q, func(r store.Scanner) error {
			var target string
			var t thread
			err := r.Scan(&target, &t.latest, &t.count, &t.took)
			p.threads[target] = t
			return err
		}, fmt.Sprintf(`SELECT target, event_id, n, took FROM (
			SELECT target, event_id,
				COUNT(*) OVER (PARTITION BY target) AS n,
				MAX(CASE WHEN sender = $%d THEN 1 ELSE 0 END) OVER (PARTITION BY target) AS took,
				ROW_NUMBER() OVER (PARTITION BY target ORDER BY pos DESC) AS place
			FROM mirror_relations WHERE rel_type = 'm.thread' AND target IN (%s)) AS t WHERE place = 1`, n, in),
			append(args, p.userID)...)
	})
	if err != nil {
		return err
	}
	return inBatches(ids, func(in string, args []any) error {
		return store.Each(q, func(r store.Scanner) error {
			var target, id string
			err := r.Scan(&target, &id)
			p.refs[target] = append(p.refs[target], id)
			return err
		}, fmt.Sprintf(`SELECT target, event_id FROM (
			SELECT target, event_id, pos, ROW_NUMBER() OVER (PARTITION BY target ORDER BY pos) AS place
			FROM mirror_relations WHERE rel_type = 'm.reference' AND target IN (%s)) AS t
			WHERE place <= %d ORDER BY target, pos`, in, maxReferences), args...)
	})
}

// replaced reads the latest valid edit of each event.
//
// spec: MX 1.19 CS §10.39.4.1
func (p *page) replaced(q store.Querier, ids []string) error {
	return inBatches(ids, func(in string, args []any) error {
		return store.Each(q, func(r store.Scanner) error {
			var target, id string
			err := r.Scan(&target, &id)
			p.edits[target] = id
			return err
		}, `SELECT target, event_id FROM (
			SELECT target, event_id, ROW_NUMBER() OVER (PARTITION BY target ORDER BY ts DESC, event_id DESC) AS place
			FROM mirror_relations WHERE rel_type = 'm.replace' AND own = 1 AND target IN (`+in+`)) AS t
			WHERE place = 1`, args...)
	})
}

// memberships reads the viewer's own memberships in the events' rooms.
//
// spec: MX 1.19 CS §7.2
func (m *Mirror) memberships(v hub.View, p *page, events []Event) error {
	q := hubstore.Querier(v)
	var ids []string
	for _, e := range events {
		if _, done := p.standing[e.Conv]; done {
			continue
		}
		spans := []span{}
		err := store.Each(q, func(r store.Scanner) error {
			var from, until int64
			var s span
			err := r.Scan(&from, &until, &s.event)
			s.from, s.until = core.Position(from), core.Position(until)
			spans = append(spans, s)
			ids = append(ids, s.event)
			return err
		}, `SELECT pos, until, event_id FROM mirror_state WHERE conv = $1 AND type = $2 AND state_key = $3`,
			string(e.Conv), wire.TypeMember, p.userID)
		if err != nil {
			return err
		}
		p.standing[e.Conv] = spans
	}
	found, err := m.ByEventID(v, ids...)
	for _, e := range found {
		p.related[e.EventID] = e
	}
	return err
}

// membership is the viewer's own, at the event and with what it changed.
func (p *page) membership(e Event) string {
	for _, s := range p.standing[e.Conv] {
		if s.from <= e.Position && e.Position < s.until {
			if member, ok := p.related[s.event]; ok {
				if o, err := wire.ParseObject(member.Content); err == nil {
					if m, ok := o.String("membership"); ok {
						return m
					}
				}
			}
		}
	}
	return "leave"
}

// write writes one event; whole says with its relations.
func (p *page) write(e Event, whole bool) wire.Object {
	o := clientFields(e)
	var u wire.Object
	u = u.With("age", strconv.AppendInt(nil, max(p.now.UnixMilli()-e.Time, 0), 10))
	u = u.With("membership", wire.Quote(p.membership(e)))
	if e.txn != "" && e.Sender == p.userID && e.device == p.device {
		u = u.With("transaction_id", wire.Quote(e.txn))
	}
	if old, ok := p.related[e.Replaces]; ok {
		u = u.With("prev_content", old.Content).With("prev_sender", wire.Quote(old.Sender))
		u = u.With("replaces_state", wire.Quote(e.Replaces))
	}
	if r, ok := p.related[e.RedactedBy]; ok && whole {
		u = u.With("redacted_because", p.write(r, false).JSON())
	}
	if rel := p.relations(e, whole); len(rel) > 0 {
		u = u.With("m.relations", rel.JSON())
	}
	return o.With("unsigned", u.JSON())
}

// clientFields are the keys that do not depend on who looks.
func clientFields(e Event) wire.Object {
	o := wire.Object{
		{Key: "content", Value: e.Content},
		{Key: "event_id", Value: wire.Quote(e.EventID)},
		{Key: "origin_server_ts", Value: strconv.AppendInt(nil, e.Time, 10)},
		{Key: "room_id", Value: wire.Quote(e.RoomID)},
		{Key: "sender", Value: wire.Quote(e.Sender)},
		{Key: "type", Value: wire.Quote(e.Type)},
	}
	if e.StateKey != nil {
		o = o.With("state_key", wire.Quote(*e.StateKey))
	}
	if e.Type != wire.TypeRedaction {
		return o
	}
	// Clients of either age find the redacted event where they look for it.
	content, err := wire.ParseObject(e.Content)
	if err != nil {
		return o
	}
	if e.Redacts != "" {
		return o.With("redacts", wire.Quote(e.Redacts)).With("content", content.With("redacts", wire.Quote(e.Redacts)).JSON())
	}
	if target, ok := content.String("redacts"); ok {
		o = o.With("redacts", wire.Quote(target))
	}
	return o
}

// relations are the bundled aggregations of an event. Those of a thread's last
// event (not whole) are its edit only, or else threads could nest.
//
// spec: MX 1.19 CS §7.10.2
func (p *page) relations(e Event, whole bool) wire.Object {
	var o wire.Object
	if edit, ok := p.related[p.edits[e.EventID]]; ok && e.RedactedBy == "" {
		o = o.With("m.replace", p.write(edit, false).JSON())
	}
	if !whole {
		return o
	}
	if t, ok := p.threads[e.EventID]; ok {
		if end, ok := p.related[t.latest]; ok {
			o = o.With("m.thread", wire.Object{
				{Key: "count", Value: strconv.AppendInt(nil, t.count, 10)},
				{Key: "current_user_participated", Value: strconv.AppendBool(nil, t.took || e.Sender == p.userID)},
				{Key: "latest_event", Value: p.write(end, false).JSON()},
			}.JSON())
		}
	}
	if refs := p.refs[e.EventID]; len(refs) > 0 {
		chunk := []byte{'['}
		for i, id := range refs {
			if i > 0 {
				chunk = append(chunk, ',')
			}
			chunk = append(chunk, wire.Object{{Key: "event_id", Value: wire.Quote(id)}}.JSON()...)
		}
		o = o.With("m.reference", wire.Object{{Key: "chunk", Value: append(chunk, ']')}}.JSON())
	}
	return o
}

// Stripped writes a state event as invitations show it.
//
// spec: MX 1.19 CS §7.3
func Stripped(e Event) json.RawMessage {
	key := ""
	if e.StateKey != nil {
		key = *e.StateKey
	}
	return wire.Object{
		{Key: "content", Value: e.Content},
		{Key: "sender", Value: wire.Quote(e.Sender)},
		{Key: "state_key", Value: wire.Quote(key)},
		{Key: "type", Value: wire.Quote(e.Type)},
	}.JSON()
}
