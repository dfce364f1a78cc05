package mirror

import (
	"fmt"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

// Bounds of what is remembered; what is full starts anew.
const (
	maxRooms = 1 << 15
	maxState = 1 << 10
)

// room is what the next event of a room needs to know of those before it. It
// belongs to the writer, and is forgotten when a turn that used it is undone.
type room struct {
	// ends is the event that none refers to yet as the one before it, and depth
	// is its depth.
	ends  []string
	depth int64
	// state are the events in force, by their keys, as far as they were asked
	// for; "" where there is none.
	state map[wire.StateKey]string
}

// remembered returns what is known of the room, which the turn may change.
func (t *minting) remembered() (*room, error) {
	id := t.c.ID
	r, ok := t.m.rooms[id]
	if !ok {
		var err error
		if r, err = t.load(); err != nil {
			return nil, err
		}
		if len(t.m.rooms) >= maxRooms {
			clear(t.m.rooms)
		}
		t.m.rooms[id] = r
	}
	t.tx.OnRollback(func() { delete(t.m.rooms, id) })
	return r, nil
}

// load finds the end: the event that was minted last, which is the one with the
// greatest feed number; those of events learnt later and put below are negative.
func (t *minting) load() (*room, error) {
	r := &room{state: map[wire.StateKey]string{}}
	last, err := t.lastMinted()
	if err == nil && last != nil {
		r.ends, r.depth = []string{last.EventID}, last.Depth
	}
	return r, err
}

// lastMinted is the PDU that was made last, nil if there is none.
func (t *minting) lastMinted() (*wire.PDU, error) {
	var last *wire.PDU
	var made core.Feed
	for _, latest := range []bool{true, false} {
		q := hub.Query{Conv: t.c.ID, ByFeed: true, Latest: latest, Limit: 1}
		for {
			page, err := t.tx.Page(q)
			if err != nil {
				return nil, err
			}
			if len(page) == 0 || !latest && page[0].Feed > 0 {
				break
			}
			e := page[0]
			found, err := t.m.ByCore(t.tx, e.ID)
			if err != nil {
				return nil, err
			}
			if len(found) == 0 { // says what the graph has already: see Admit
				if q.BeforeFeed, q.AfterFeed = e.Feed, 0; !latest {
					q.BeforeFeed, q.AfterFeed = 0, e.Feed
				}
				continue
			}
			if age := max(e.Feed, -e.Feed); last == nil || age > made {
				last, made = found[0].PDU, age
			}
			break
		}
	}
	return last, nil
}

// current are the events in force for the keys, without those that are not set.
func (t *minting) current(r *room, keys []wire.StateKey) ([]string, error) {
	var out []string
	var unknown []wire.StateKey
	for _, k := range keys {
		id, known := r.state[k]
		if !known {
			unknown = append(unknown, k)
		} else if id != "" {
			out = append(out, id)
		}
	}
	if len(unknown) == 0 {
		return out, nil
	}
	if len(r.state) >= maxState {
		clear(r.state)
	}
	each := make([]string, len(keys))
	args := []any{string(t.c.ID), int64(always)}
	for i, k := range keys {
		each[i] = fmt.Sprintf(`SELECT event_id, type, state_key FROM mirror_state
			WHERE conv = $1 AND type = $%d AND state_key = $%d AND until = $2`, len(args)+1, len(args)+2)
		args = append(args, k.Type, k.Key)
		r.state[k] = ""
	}
	rows, err := t.sql.Query(strings.Join(each, " UNION ALL "), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out = nil
	for rows.Next() {
		var id string
		var k wire.StateKey
		if err := rows.Scan(&id, &k.Type, &k.Key); err != nil {
			return nil, err
		}
		r.state[k] = id
		out = append(out, id)
	}
	return out, rows.Err()
}
