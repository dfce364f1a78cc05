package sending

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// staying is until when a server is in a room that it has not left.
const staying = int64(math.MaxInt64)

// event is one that is owed. Nobody changes it.
type event struct {
	conv  core.ConvID
	feed  core.Feed
	id    string
	since time.Time
}

// stay is one server's time in a room.
type stay struct {
	dest         string
	since, until core.Feed
}

func (s stay) owed(feed core.Feed) bool { return feed > s.since && feed <= s.until }

// room is what the writer remembers of who is owed a room's events.
type room struct{ stays []stay }

// Bounds of what the writer remembers; what is full starts anew.
const (
	maxRooms = 1 << 13
	maxStays = 1 << 14 // of one room
)

// room returns what is known of a room. Whoever changes it registers the
// forgetting first.
func (s *Sender) room(tx hub.Tx, conv core.ConvID) (*room, error) {
	if r := s.rooms[conv]; r != nil {
		return r, nil
	}
	stays, err := store.List(hubstore.Querier(tx), func(r store.Scanner) (st stay, err error) {
		return st, r.Scan(&st.dest, (*int64)(&st.since), (*int64)(&st.until))
	}, `SELECT dest, since, until FROM sending_peers WHERE conv = $1`, string(conv))
	if err != nil {
		return nil, err
	}
	if len(s.rooms) >= maxRooms {
		clear(s.rooms)
	}
	r := &room{stays}
	if len(stays) <= maxStays {
		s.rooms[conv] = r
	}
	return r, nil
}

// Owe has an event go to every server of its room: call it in the turn that
// admits the event, when the mirror has it. Feed is the event's.
func (s *Sender) Owe(tx hub.Tx, conv core.ConvID, eventID string, feed core.Feed) error {
	r, err := s.room(tx, conv)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.stays, func(st stay) bool { return st.owed(feed) }) {
		return nil
	}
	origin, err := s.origin(tx, eventID)
	if err != nil {
		return err
	}
	now := time.Now()
	if _, err := hubstore.Tx(tx).Exec(`INSERT INTO sending_events (conv, feed, origin, event_id, since) VALUES ($1, $2, $3, $4, $5)`,
		string(conv), int64(feed), origin, eventID, now.UnixMilli()); err != nil {
		return err
	}
	e := &event{conv, feed, eventID, now}
	tx.OnCommit(func() { s.push(r, origin, e) })
	return nil
}

// origin is in whose name an event is sent: its sender's server, as long as
// that is one of ours.
func (s *Sender) origin(tx hub.Tx, eventID string) (string, error) {
	if len(s.cfg.Domains) == 1 {
		return s.cfg.Domains[0], nil
	}
	found, err := s.cfg.Mirror.ByEventID(tx, eventID)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("the event %s is to be sent and is not there", eventID)
	}
	if domain := domainOf(found[0].Sender); s.ours(domain) {
		return domain, nil
	}
	return s.cfg.Domains[0], nil
}

func domainOf(userID string) string {
	_, domain, _ := strings.Cut(userID, ":")
	return domain
}

// push queues an event that is committed for everybody to whom it is owed. What
// later turns of the batch have changed in r is above its feed number.
func (s *Sender) push(r *room, origin string, e *event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return // Start finds it in the store
	}
	for _, st := range r.stays {
		if st.owed(e.feed) {
			p := s.peer(route{origin, st.dest})
			p.enqueue(e)
			s.kick(p)
		}
	}
}

// Peers notes which servers begin to be in a room, to which events above feed
// are owed from now on, and which cease to be, to which the event at feed is
// the last one that is owed.
func (s *Sender) Peers(tx hub.Tx, conv core.ConvID, joined, parted []string, feed core.Feed) error {
	r, err := s.room(tx, conv)
	if err != nil {
		return err
	}
	tx.OnRollback(func() { delete(s.rooms, conv) })
	var began []string
	for _, dest := range joined {
		if s.ours(dest) || slices.ContainsFunc(r.stays, func(st stay) bool { return st.dest == dest && int64(st.until) == staying }) {
			continue
		}
		if err := wire.ParseServerName(dest); err != nil {
			return err
		}
		if _, err := hubstore.Tx(tx).Exec(`INSERT INTO sending_peers (conv, dest, since, until) VALUES ($1, $2, $3, $4)
			ON CONFLICT (conv, dest, since) DO UPDATE SET until = excluded.until`, string(conv), dest, int64(feed), staying); err != nil {
			return err
		}
		r.stays = slices.DeleteFunc(r.stays, func(st stay) bool { return st.dest == dest && st.since == feed })
		r.stays = append(r.stays, stay{dest, feed, core.Feed(staying)})
		began = append(began, dest)
	}
	if err := s.late(tx, conv, began, feed); err != nil {
		return err
	}
	for _, dest := range parted {
		if _, err := hubstore.Tx(tx).Exec(`UPDATE sending_peers SET until = $3 WHERE conv = $1 AND dest = $2 AND until = $4`,
			string(conv), dest, int64(feed), staying); err != nil {
			return err
		}
		for i, st := range r.stays {
			if st.dest == dest && int64(st.until) == staying {
				r.stays[i].until = feed
			}
		}
	}
	if len(parted) > 0 {
		tx.OnCommit(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.news.touched[conv] = true
			s.stir()
		})
	}
	return nil
}

// late has servers get what was said in a room before it was known that they are
// in it, as far as it is still owed to others.
func (s *Sender) late(tx hub.Tx, conv core.ConvID, dests []string, feed core.Feed) error {
	if len(dests) == 0 {
		return nil
	}
	origins, err := store.List(hubstore.Querier(tx), store.Column[string],
		`SELECT DISTINCT origin FROM sending_events WHERE conv = $1 AND feed > $2`, string(conv), int64(feed))
	if err != nil {
		return err
	}
	for _, origin := range origins {
		for _, dest := range dests {
			s.came(tx, route{origin, dest}, func(p *peer) { p.queue, p.more = nil, true })
		}
	}
	return nil
}

// OweTo has an event go to single servers, which need not be in its room. Call
// it in the turn that admits the event, when the mirror has it.
func (s *Sender) OweTo(tx hub.Tx, eventID string, servers ...string) error {
	origin, err := s.origin(tx, eventID)
	if err != nil {
		return err
	}
	for _, dest := range servers {
		if s.ours(dest) {
			continue
		}
		if err := wire.ParseServerName(dest); err != nil {
			return err
		}
		if _, err := hubstore.Tx(tx).Exec(`INSERT INTO sending_singles (id, origin, dest, event_id, since) VALUES ($1, $2, $3, $4, $5)`,
			int64(tx.NextFeed()), origin, dest, eventID, time.Now().UnixMilli()); err != nil {
			return err
		}
		s.came(tx, route{origin, dest}, func(p *peer) { p.singles = true })
	}
	return nil
}

// MaxEDU is the largest content of an EDU, in bytes.
const MaxEDU = 64 << 10

func (e EDU) check() error {
	switch {
	case len(e.Content) > MaxEDU:
		return hub.Refuse(hub.TooLarge, "a %s of %d bytes cannot be sent: %d is the most", e.Type, len(e.Content), MaxEDU)
	case e.Type == "" || len(e.Type) > wire.MaxField:
		return hub.Refuse(hub.Bad, "ephemeral data of the type %.40q", e.Type)
	}
	if _, err := wire.Loose(e.Content); err != nil || e.Content[0] != '{' {
		return hub.Refuse(hub.Bad, "a %s is no JSON object", e.Type)
	}
	return nil
}

// OweEDU has ephemeral data that must arrive go to a server, in order with what
// is owed to it in the same way.
func (s *Sender) OweEDU(tx hub.Tx, origin, dest string, e EDU) error {
	if err := e.check(); err != nil {
		return err
	}
	if !s.ours(origin) || s.ours(dest) {
		return fmt.Errorf("ephemeral data from %q to %q", origin, dest)
	}
	if err := wire.ParseServerName(dest); err != nil {
		return err
	}
	if _, err := hubstore.Tx(tx).Exec(`INSERT INTO sending_edus (id, origin, dest, type, content, since) VALUES ($1, $2, $3, $4, $5, $6)`,
		int64(tx.NextFeed()), origin, dest, e.Type, []byte(e.Content), time.Now().UnixMilli()); err != nil {
		return err
	}
	s.came(tx, route{origin, dest}, func(p *peer) { p.edus = true })
	return nil
}

// came tells a queue, after the commit, that the store holds more for it.
func (s *Sender) came(tx hub.Tx, r route, note func(*peer)) {
	tx.OnCommit(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ctx == nil {
			return // Start finds it in the store
		}
		p := s.peer(r)
		note(p)
		p.stirred++
		s.kick(p)
	})
}

// owing is what is owed when the server starts.
type owing struct {
	events, singles, edus []route
	silent                map[route]outage
}

func (o *owing) read(v hub.View) (err error) {
	q := hubstore.Querier(v)
	routes := func(query string) []route {
		var found []route
		if err == nil {
			found, err = store.List(q, func(r store.Scanner) (x route, err error) { return x, r.Scan(&x.origin, &x.dest) }, query)
		}
		return found
	}
	o.events = routes(`SELECT DISTINCT e.origin, p.dest FROM sending_peers p
		JOIN (SELECT conv, origin, MAX(feed) AS feed FROM sending_events GROUP BY conv, origin) e ON e.conv = p.conv
		LEFT JOIN sending_acks a ON a.dest = p.dest AND a.origin = e.origin AND a.conv = p.conv
		WHERE e.feed > p.since AND (a.acked IS NULL OR e.feed > a.acked AND p.until > a.acked)`)
	o.singles = routes(`SELECT DISTINCT origin, dest FROM sending_singles`)
	o.edus = routes(`SELECT DISTINCT origin, dest FROM sending_edus`)
	if err != nil {
		return err
	}
	o.silent = map[route]outage{}
	_, err = store.List(q, func(r store.Scanner) (x route, err error) {
		var since, next int64
		var out outage
		err = r.Scan(&x.origin, &x.dest, &since, &out.tries, &next)
		out.since, out.next = time.UnixMilli(since), time.UnixMilli(next)
		o.silent[x] = out
		return x, err
	}, `SELECT origin, dest, since, tries, next FROM sending_silent`)
	return err
}
