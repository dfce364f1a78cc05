package incoming

import (
	"errors"
	"fmt"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// How many events wait: of one room, of one server, and of all.
const (
	maxWaitingRoom   = 500
	maxWaitingOrigin = 1000
	maxWaiting       = 20_000
)

func isStoreError(err error) bool {
	return errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrInDoubt) || errors.Is(err, store.ErrLeaseLost)
}

// areWaiting picks of some events those that wait, and says how often each was tried.
func areWaiting(v hub.View, ids []string) (map[string]int, error) {
	q, out := hubstore.Querier(v), map[string]int{}
	for _, id := range ids {
		var tries int64
		err := q.QueryRow(`SELECT tries FROM incoming_waiting WHERE event_id = $1`, id).Scan(&tries)
		if store.NotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[id] = int(tries)
	}
	return out, nil
}

// anyWait says whether any event waits.
func (n *Incoming) anyWait() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.waiting > 0 || n.ctx == nil
}

func countWaiting(v hub.View) (n int, err error) {
	err = hubstore.Querier(v).QueryRow(`SELECT COUNT(*) FROM incoming_waiting`).Scan(&n)
	return n, err
}

// keepWaiting writes down, in the turn that tried them, which events wait and
// which no longer do. For those for which there is no room there is an error.
func (n *Incoming) keepWaiting(t *shared.Turn, p *place, items []*item, r *round) error {
	sql := hubstore.Tx(t.Tx())
	for _, it := range items {
		if r.done[it] && it.waits {
			if err := n.drop(t, it); err != nil {
				return err
			}
			r.counts["filled"]++
		}
	}
	for _, it := range items {
		if r.missing[it] == nil || it.waits || it.found {
			continue
		}
		full, err := n.full(sql, p, it)
		if err != nil {
			return err
		}
		if full {
			r.refused[it.pdu.EventID] = errBusy
			r.counts["overflow"]++
			continue
		}
		checked := 1
		if it.unchecked {
			checked = 0
		}
		added, err := sql.Exec(`INSERT INTO incoming_waiting (event_id, conv, origin, checked, depth, tries, next, json)
			VALUES ($1, $2, $3, $4, $5, 0, 0, $6) ON CONFLICT DO NOTHING`,
			it.pdu.EventID, string(p.conv), it.origin, checked, it.pdu.Depth, it.pdu.JSON)
		if err != nil {
			return err
		}
		n.counted(t, int(added))
		r.waits = true
		r.counts["waiting"]++
	}
	return nil
}

// counted changes how many rows there are, if the turn is kept.
func (n *Incoming) counted(t *shared.Turn, by int) {
	t.Tx().OnCommit(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.waiting += by
	})
}

// full says whether there is no room for one more.
func (n *Incoming) full(sql *store.Tx, p *place, it *item) (bool, error) {
	n.mu.Lock()
	all := n.waiting
	n.mu.Unlock()
	if all >= maxWaiting {
		return true, nil
	}
	var room, origin int
	if err := sql.QueryRow(`SELECT COUNT(*) FROM incoming_waiting WHERE conv = $1`, string(p.conv)).Scan(&room); err != nil {
		return false, err
	}
	err := sql.QueryRow(`SELECT COUNT(*) FROM incoming_waiting WHERE origin = $1`, it.origin).Scan(&origin)
	return room >= maxWaitingRoom || origin >= maxWaitingOrigin, err
}

// drop takes an event off the list.
func (n *Incoming) drop(t *shared.Turn, it *item) error {
	gone, err := hubstore.Tx(t.Tx()).Exec(`DELETE FROM incoming_waiting WHERE event_id = $1`, it.pdu.EventID)
	n.counted(t, -int(gone))
	return err
}

// due are the rooms in which something waits whose time has come, those first
// that have waited longest, and when the next is due; zero if none is.
func due(v hub.View, now time.Time) (convs []core.ConvID, next time.Time, err error) {
	rows, err := hubstore.Querier(v).Query(`SELECT conv, MIN(next) FROM incoming_waiting GROUP BY conv ORDER BY 2, 1`)
	if err != nil {
		return nil, next, err
	}
	defer rows.Close()
	for rows.Next() {
		var conv string
		var ms int64
		if err := rows.Scan(&conv, &ms); err != nil {
			return nil, next, err
		}
		if ms > now.UnixMilli() {
			return convs, time.UnixMilli(ms), nil
		}
		convs = append(convs, core.ConvID(conv))
	}
	return convs, next, rows.Err()
}

// waitingIn are the events of a room whose time has come, those of least depth
// first.
func waitingIn(v hub.View, p *place, now time.Time, limit int) ([]*item, error) {
	return store.List(hubstore.Querier(v), func(row store.Scanner) (*item, error) {
		it := &item{waits: true}
		var id string
		var checked int64
		var tries int64
		var raw []byte
		if err := row.Scan(&id, &it.origin, &checked, &tries, &raw); err != nil {
			return nil, err
		}
		var err error
		if it.pdu, err = wire.Restore(p.version, id, raw); err != nil {
			return nil, fmt.Errorf("waiting event %s: %w", id, err)
		}
		it.unchecked, it.tries = checked == 0, int(tries)
		return it, nil
	}, `SELECT event_id, origin, checked, tries, json FROM incoming_waiting
		WHERE conv = $1 AND next <= $2 ORDER BY depth, event_id LIMIT $3`, string(p.conv), now.UnixMilli(), limit)
}

// postpone has events tried again later: because it failed, or because others
// have their turn first.
func (n *Incoming) postpone(t *shared.Turn, it *item, failed bool, until time.Time) error {
	if failed {
		if it.tries++; it.tries >= n.cfg.Tries {
			n.count("given-up")
			n.cfg.Log.Info("an event of a Matrix server is given up", "event", it.pdu.EventID, "origin", it.origin)
			return n.drop(t, it)
		}
		pause := n.cfg.MaxRetry
		if shift := it.tries - 1; shift < 20 {
			pause = min(pause, n.cfg.FirstRetry<<shift)
		}
		until = time.Now().Add(pause)
	}
	_, err := hubstore.Tx(t.Tx()).Exec(`UPDATE incoming_waiting SET tries = $2, next = $3 WHERE event_id = $1`,
		it.pdu.EventID, it.tries, until.UnixMilli())
	return err
}

// forgetRoom drops what waits for a room that none of ours is in any longer.
func (n *Incoming) forgetRoom(t *shared.Turn, conv core.ConvID) error {
	gone, err := hubstore.Tx(t.Tx()).Exec(`DELETE FROM incoming_waiting WHERE conv = $1`, string(conv))
	n.counted(t, -int(gone))
	return err
}
