package sending

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// transaction is what goes to a server at once.
type transaction struct {
	id      string
	events  []*event  // of rooms, owed to all there
	singles []single  // owed to this server alone
	edus    []owedEDU // owed
	said    []said    // not owed
	pdus    []signed  // what goes out of events and singles
}

// single is an event that is owed to one server.
type single struct {
	row   int64
	id    string
	since time.Time
}

// owedEDU is ephemeral data that is owed.
type owedEDU struct {
	row int64
	EDU
}

// said is what is not owed, and its key.
type said struct {
	key string
	EDU
}

// size is how many things are in it.
func (t *transaction) size() int {
	return len(t.events) + len(t.singles) + len(t.edus) + len(t.said)
}

// maxBytes is how large a transaction becomes at most, besides its first thing.
const maxBytes = 4 << 20

// compose makes the next transaction, nil if there is nothing to send. One that
// was not answered goes out again as it was, under the same ID, as far as it was
// owed; but not to a server that was away for so long that it is to catch up.
//
// spec: MX 1.19 SS §4
func (s *Sender) compose(ctx context.Context, p *peer) (*transaction, error) {
	s.mu.Lock()
	if p.last != nil && p.behind && p.more {
		p.last, p.singles, p.edus = nil, true, true
	}
	t, refill := p.last, len(p.queue) == 0 && p.more
	s.mu.Unlock()
	if t == nil {
		if refill {
			if err := s.refill(ctx, p); err != nil {
				return nil, err
			}
		}
		t = s.cut(p)
	}
	if err := s.fill(ctx, p, t); err != nil {
		return nil, err
	}
	if t.size() == 0 {
		p.last = nil
		return nil, nil
	}
	return t, nil
}

// cut takes events off the queue, which are in p.last from then on.
func (s *Sender) cut(p *peer) *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := MaxPDUs
	if p.singles {
		n -= MaxPDUs / 5 // so that they are not held up for ever
	}
	if p.limit > 0 {
		n = min(n, p.limit)
	}
	n = min(n, len(p.queue))
	t := &transaction{id: s.nextID(), events: slices.Clone(p.queue[:n])}
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue = nil
	}
	p.last = t
	return t
}

// fill finds the events of a transaction, and adds what else there is for the
// server; but to a transaction that was sent before, nothing is added.
func (s *Sender) fill(ctx context.Context, p *peer, t *transaction) error {
	fresh := t.pdus == nil
	if fresh {
		if err := s.addOwed(ctx, p, t); err != nil {
			return err
		}
	}
	ids := make([]string, 0, len(t.events)+len(t.singles))
	for _, e := range t.events {
		ids = append(ids, e.id)
	}
	for _, o := range t.singles {
		ids = append(ids, o.id)
	}
	found, err := s.pdus(ctx, ids)
	if err != nil {
		return err
	}
	t.pdus = append([]signed{}, slices.DeleteFunc(found, func(e signed) bool { return domainOf(e.sender) == p.dest })...)
	if !fresh {
		return nil
	}
	left := maxBytes
	for _, e := range t.pdus {
		left -= len(e.json)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range t.edus {
		if left -= len(e.Content); left < 0 && i > 0 {
			t.edus, p.edus = t.edus[:i], true
			break
		}
	}
	s.addSaid(p, t, p.room(t), left)
	return nil
}

// room is how many EDUs go into a transaction besides what is in it.
func (p *peer) room(t *transaction) int {
	if p.limit > 0 {
		return min(MaxEDUs, p.limit-len(t.events)-len(t.singles)) - len(t.edus)
	}
	return MaxEDUs - len(t.edus)
}

// addOwed adds what is owed to the server alone.
func (s *Sender) addOwed(ctx context.Context, p *peer, t *transaction) error {
	most := MaxPDUs - len(t.events)
	if p.limit > 0 {
		most = min(most, p.limit-len(t.events))
	}
	s.mu.Lock()
	singles, edus, stirred := p.singles && most > 0, p.edus && p.room(t) > 0, p.stirred
	s.mu.Unlock()
	if !singles && !edus {
		return nil
	}
	noSingles, noEDUs := false, false
	err := s.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		q := hubstore.Querier(v)
		if singles {
			if t.singles, err = p.readSingles(q, most); err != nil {
				return err
			}
			noSingles = len(t.singles) < most
		}
		room := p.room(t)
		if !edus || room <= 0 {
			return nil
		}
		t.edus, err = p.readEDUs(q, room)
		noEDUs = len(t.edus) < room
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.stirred == stirred {
		p.singles, p.edus = p.singles && !noSingles, p.edus && !noEDUs
	}
	return nil
}

// addSaid adds what is said, up to a number and a size.
func (s *Sender) addSaid(p *peer, t *transaction, room, bytes int) {
	for len(p.order) > 0 && room > 0 && (bytes > 0 || t.size() == 0) {
		key := p.order[0]
		e := s.unsay(p, key)
		t.said = append(t.said, said{key, e})
		room, bytes = room-1, bytes-len(e.Content)
	}
}

func (p *peer) readSingles(q store.Querier, limit int) ([]single, error) {
	return store.List(q, func(r store.Scanner) (o single, err error) {
		var since int64
		err = r.Scan(&o.row, &o.id, &since)
		o.since = time.UnixMilli(since)
		return o, err
	}, `SELECT id, event_id, since FROM sending_singles WHERE dest = $1 AND origin = $2 AND id > $3 ORDER BY id LIMIT $4`,
		p.dest, p.origin, p.singlesDone, int64(limit))
}

func (p *peer) readEDUs(q store.Querier, limit int) ([]owedEDU, error) {
	return store.List(q, func(r store.Scanner) (o owedEDU, err error) {
		return o, r.Scan(&o.row, &o.Type, (*[]byte)(&o.Content))
	}, `SELECT id, type, content FROM sending_edus WHERE dest = $1 AND origin = $2 AND id > $3 ORDER BY id LIMIT $4`,
		p.dest, p.origin, p.edusDone, int64(limit))
}

// owedHere is the part of a query that finds the events that are owed to a
// destination ($1) from one of our domains ($2).
const owedHere = ` FROM sending_peers p
	JOIN sending_events e ON e.conv = p.conv AND e.feed > p.since AND e.feed <= p.until
	LEFT JOIN sending_acks a ON a.dest = p.dest AND a.origin = e.origin AND a.conv = p.conv
	WHERE p.dest = $1 AND e.origin = $2 AND (a.acked IS NULL OR e.feed > a.acked)`

// backlog is how much is owed in one room.
type backlog struct {
	conv  core.ConvID
	count int
}

// refill reads events into the queue, room by room. Of a room in which much is
// owed to a server that was away only the newest are read; of a conversation of
// two, in which the sender waits to hear of each, all.
func (s *Sender) refill(ctx context.Context, p *peer) error {
	// What was taken is found in the store only when it is written down.
	if err := s.flush(ctx, false); err != nil {
		return err
	}
	s.mu.Lock()
	stirred, behind := p.stirred, p.behind
	s.mu.Unlock()
	var queue []*event
	more := false
	err := s.cfg.Hub.Read(ctx, func(v hub.View) error {
		rooms, err := store.List(hubstore.Querier(v), func(r store.Scanner) (b backlog, err error) {
			return b, r.Scan((*string)(&b.conv), &b.count)
		}, `SELECT e.conv, COUNT(*)`+owedHere+` GROUP BY e.conv ORDER BY MIN(e.feed) LIMIT $3`, p.dest, p.origin, int64(MaxPDUs+1))
		if err != nil {
			return err
		}
		for _, b := range rooms {
			if len(queue)+newest > MaxPDUs { // so that there is room for the newest of any
				more = true
				break
			}
			events, whole, err := s.readRoom(v, p.route, b, MaxPDUs-len(queue), behind)
			if err != nil {
				return err
			}
			queue, more = append(queue, events...), more || !whole
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.queue = queue; p.stirred == stirred {
		p.more = more
	}
	return nil
}

// readRoom reads what is owed in one room, or as much of it as there is room for;
// of much, if the server was away, the newest.
func (s *Sender) readRoom(v hub.View, r route, b backlog, room int, away bool) (events []*event, whole bool, err error) {
	order, n := ``, room
	if away && b.count > catchUp {
		c, err := v.Conversation(b.conv)
		if err != nil {
			return nil, false, err
		}
		if c.Shape != core.Direct {
			order, n = ` DESC`, newest
		}
	}
	events, err = readOwed(hubstore.Querier(v), ` AND e.conv = $3 ORDER BY e.feed`+order+` LIMIT $4`, r.dest, r.origin, string(b.conv), int64(n))
	if order != `` {
		slices.Reverse(events)
		s.cfg.Count.Count("matrix_sent", "event", "skipped")
		return events, true, err
	}
	return events, len(events) == b.count, err
}

// readOwed reads events that are owed; rest ends the query.
func readOwed(q store.Querier, rest string, args ...any) ([]*event, error) {
	return store.List(q, func(r store.Scanner) (*event, error) {
		var e event
		var since int64
		err := r.Scan((*string)(&e.conv), (*int64)(&e.feed), &e.id, &since)
		e.since = time.UnixMilli(since)
		return &e, err
	}, `SELECT e.conv, e.feed, e.event_id, e.since`+owedHere+rest, args...)
}

// signed is an event as it goes out.
type signed struct {
	id, sender string
	core       core.EventID
	conv       core.ConvID
	state      bool
	json       []byte
	at         time.Time
}

// signedCache holds the events that go to many servers just now. What was
// retracted meanwhile is in it for a moment.
type signedCache struct {
	mu    sync.Mutex
	m     map[string]signed
	bytes int
}

// Bounds of what is held.
const (
	maxCached = 8 << 20 // bytes
	cachedFor = 10 * time.Second
)

func (c *signedCache) get(id string) (signed, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[id]
	return e, ok && time.Since(e.at) < cachedFor
}

func (c *signedCache) put(e signed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || c.bytes+len(e.json) > maxCached {
		c.m, c.bytes = map[string]signed{}, 0
	}
	c.bytes += len(e.json) - len(c.m[e.id].json)
	c.m[e.id] = e
}

// pdus finds events and signs those that are ours, in the order of ids. One that
// is there no longer is left out.
func (s *Sender) pdus(ctx context.Context, ids []string) ([]signed, error) {
	out := make([]signed, len(ids))
	var missing []string
	for i, id := range ids {
		var ok bool
		if out[i], ok = s.signed.get(id); !ok {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return out, nil
	}
	var found []mirror.Event
	if err := s.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		found, err = s.cfg.Mirror.ByEventID(v, missing...)
		return err
	}); err != nil {
		return nil, err
	}
	for _, e := range found {
		raw := e.JSON // of another's event, with the signatures that it came with
		if s.ours(domainOf(e.Sender)) {
			var err error
			if raw, err = s.cfg.Mirror.Signed(e.PDU); err != nil {
				return nil, err
			}
		}
		x := signed{e.EventID, e.Sender, e.ID, e.Conv, e.StateKey != nil, raw, time.Now()}
		s.signed.put(x)
		for i, id := range ids {
			if id == x.id {
				out[i] = x
			}
		}
	}
	return slices.DeleteFunc(out, func(e signed) bool {
		if e.json == nil {
			s.cfg.Count.Count("matrix_sent", "event", "gone")
		}
		return e.json == nil
	}), nil
}

// call is the request that carries a transaction.
//
// spec: MX 1.19 SS §4
func (t *transaction) call(r route, timeout time.Duration) federation.Call {
	edus, size := t.writeEDUs(), 1024
	for _, e := range t.pdus {
		size += len(e.json) + 1
	}
	body := append(make([]byte, 0, size+len(edus)), `{"edus":[`...)
	body = append(append(body, edus...), `],"origin":`...)
	body = append(body, wire.Quote(r.origin)...)
	body = append(body, `,"origin_server_ts":`...)
	now, _ := json.Marshal(time.Now().UnixMilli()) // a number always has JSON
	body = append(append(body, now...), `,"pdus":[`...)
	for i, e := range t.pdus {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, e.json...)
	}
	return federation.Call{
		Origin: r.origin, Destination: r.dest, Method: "PUT", Timeout: timeout, MaxAnswer: 1 << 20,
		URI: federation.URI(nil, "_matrix", "federation", "v1", "send", t.id), Body: append(body, `]}`...),
	}
}

func (t *transaction) writeEDUs() []byte {
	var out []byte
	add := func(e EDU) {
		if len(out) > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"content":`...)
		out = append(append(out, e.Content...), `,"edu_type":`...)
		out = append(append(out, wire.Quote(e.Type)...), '}')
	}
	for _, e := range t.edus {
		add(e.EDU)
	}
	for _, e := range t.said {
		add(e.EDU)
	}
	return out
}
