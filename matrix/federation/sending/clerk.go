package sending

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
)

// ledger is what has come to be and is not yet written down. Sender.mu holds it.
type ledger struct {
	acks map[ackKey]core.Feed
	// singles and edus are up to which row each destination has had its own.
	singles, edus map[route]int64
	// silent are outages that began, or went on; nil is one that ended.
	silent map[route]*outage
	// touched are the rooms of which rows may be superfluous.
	touched map[core.ConvID]bool
	// pruned is when they were looked at last.
	pruned time.Time
}

type ackKey struct {
	route
	conv core.ConvID
}

func newLedger() ledger {
	return ledger{
		acks: map[ackKey]core.Feed{}, singles: map[route]int64{}, edus: map[route]int64{},
		silent: map[route]*outage{}, touched: map[core.ConvID]bool{},
	}
}

// stir has the ledger written down soon. Call it with mu held.
func (s *Sender) stir() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// clerk writes down what was taken, some time after it was.
func (s *Sender) clerk(ctx context.Context) {
	defer s.wg.Done()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-s.dirty:
		case <-ctx.Done():
			return
		}
		tick.Reset(s.cfg.AckEvery)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := s.keep.Do(func() error { return s.flush(ctx, false) })
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("writing down what Matrix servers have taken", "err", err)
			s.stir()
		}
	}
}

// Measures of writing down.
const (
	perTurn = 500 // rows
	// pruneEvery is how many times rarer superfluous rows are looked for.
	pruneEvery = 10
)

// entry is one thing to write down, and what forgets it afterwards.
type entry struct {
	write  func(*store.Tx) error
	forget func()
}

// flush writes down all that is in the ledger. prune has superfluous rows
// looked for in any case.
func (s *Sender) flush(ctx context.Context, prune bool) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	entries, touched := s.entries(prune)
	for len(entries) > 0 {
		n := min(len(entries), perTurn)
		err := s.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
			for _, e := range entries[:n] {
				if err := e.write(hubstore.Tx(tx)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.touch(touched)
			return err
		}
		s.mu.Lock()
		for _, e := range entries[:n] {
			e.forget()
		}
		s.mu.Unlock()
		entries = entries[n:]
	}
	for conv := range touched {
		if err := s.cfg.Hub.Write(ctx, func(tx hub.Tx) error { return s.prune(tx, conv) }); err != nil {
			s.touch(touched)
			return err
		}
	}
	return nil
}

// touch has rooms looked at later.
func (s *Sender) touch(rooms map[core.ConvID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conv := range rooms {
		s.news.touched[conv] = true
	}
}

// entries are what is in the ledger now, and the rooms of which superfluous rows
// are to be looked for when that is written.
func (s *Sender) entries(prune bool) (out []entry, touched map[core.ConvID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.news.touched) > 0 {
		now := time.Now()
		if prune || !now.Before(s.news.pruned.Add(pruneEvery*s.cfg.AckEvery)) {
			touched = s.news.touched
			s.news.touched, s.news.pruned = map[core.ConvID]bool{}, now
		} else {
			s.stir()
		}
	}
	for k, feed := range s.news.acks {
		out = append(out, entry{exec(`INSERT INTO sending_acks (dest, origin, conv, acked, told) VALUES ($1, $2, $3, $4, 0)
			ON CONFLICT (dest, origin, conv) DO UPDATE SET acked = excluded.acked`, k.dest, k.origin, string(k.conv), int64(feed)),
			forget(s.news.acks, k, feed)})
	}
	for r, row := range s.news.singles {
		out = append(out, entry{exec(`DELETE FROM sending_singles WHERE dest = $1 AND origin = $2 AND id <= $3`, r.dest, r.origin, row),
			forget(s.news.singles, r, row)})
	}
	for r, row := range s.news.edus {
		out = append(out, entry{exec(`DELETE FROM sending_edus WHERE dest = $1 AND origin = $2 AND id <= $3`, r.dest, r.origin, row),
			forget(s.news.edus, r, row)})
	}
	for r, o := range s.news.silent {
		write := exec(`DELETE FROM sending_silent WHERE dest = $1 AND origin = $2`, r.dest, r.origin)
		if o != nil {
			write = exec(`INSERT INTO sending_silent (dest, origin, since, tries, next) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (dest, origin) DO UPDATE SET since = excluded.since, tries = excluded.tries, next = excluded.next`,
				r.dest, r.origin, o.since.UnixMilli(), int64(o.tries), o.next.UnixMilli())
		}
		out = append(out, entry{write, forget(s.news.silent, r, o)})
	}
	return out, touched
}

func exec(query string, args ...any) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}
}

// forget takes an entry away, if it is still what was written.
func forget[K, V comparable](m map[K]V, k K, v V) func() {
	return func() {
		if m[k] == v {
			delete(m, k)
		}
	}
}

// prune deletes the rows of a room that nobody waits for: events that every
// server has, servers that have left and have had all, and events that are so
// old that no server is waited for any more, but for the newest.
func (s *Sender) prune(tx hub.Tx, conv core.ConvID) error {
	sql, id := hubstore.Tx(tx), string(conv)
	ended, err := sql.Exec(`DELETE FROM sending_peers WHERE conv = $1 AND until < $2 AND NOT EXISTS (
		SELECT 1 FROM sending_events e
		LEFT JOIN sending_acks a ON a.dest = sending_peers.dest AND a.origin = e.origin AND a.conv = e.conv
		WHERE e.conv = $1 AND e.feed > sending_peers.since AND e.feed <= sending_peers.until AND (a.acked IS NULL OR e.feed > a.acked))`, id, staying)
	if err != nil {
		return err
	}
	if ended > 0 {
		delete(s.rooms, conv) // and read anew
		if _, err := sql.Exec(`DELETE FROM sending_acks WHERE conv = $1 AND NOT EXISTS (
			SELECT 1 FROM sending_peers p WHERE p.conv = $1 AND p.dest = sending_acks.dest)`, id); err != nil {
			return err
		}
	}
	floors, err := s.floors(tx, conv)
	if err != nil {
		return err
	}
	for origin, floor := range floors {
		if _, err := sql.Exec(`DELETE FROM sending_events WHERE conv = $1 AND origin = $2 AND feed <= $3`, id, origin, floor); err != nil {
			return err
		}
	}
	old := time.Now().Add(-s.cfg.Hub.Config().GiveUp - 24*time.Hour).UnixMilli()
	_, err = sql.Exec(`DELETE FROM sending_events WHERE conv = $1 AND since < $2 AND feed < (
		SELECT MIN(feed) FROM (SELECT feed FROM sending_events WHERE conv = $1 ORDER BY feed DESC LIMIT $3) newest)`, id, old, int64(newest))
	return err
}

// floors are, for each of our domains, up to which feed number nobody waits for
// an event of the room.
func (s *Sender) floors(tx hub.Tx, conv core.ConvID) (map[string]int64, error) {
	q := hubstore.Querier(tx)
	r, err := s.room(tx, conv)
	if err != nil {
		return nil, err
	}
	acked := map[route]int64{}
	if _, err := store.List(q, func(r store.Scanner) (x route, err error) {
		var feed int64
		err = r.Scan(&x.origin, &x.dest, &feed)
		acked[x] = feed
		return x, err
	}, `SELECT origin, dest, acked FROM sending_acks WHERE conv = $1`, string(conv)); err != nil {
		return nil, err
	}
	floors := map[string]int64{}
	for _, origin := range s.cfg.Domains {
		floor := staying
		for _, st := range r.stays {
			has := max(acked[route{origin, st.dest}], int64(st.since))
			if has < int64(st.until) {
				floor = min(floor, has)
			}
		}
		floors[origin] = floor
	}
	return floors, nil
}
