package shared

import (
	"errors"
	"fmt"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// Find finds a shared room by its ID. [ErrNotShared] says that there is none,
// which does not mean that anybody of ours is in one that there is.
func Find(v hub.View, roomID string) (core.ConvID, *wire.Version, error) {
	var conv, version string
	err := hubstore.Querier(v).QueryRow(`SELECT conv, version FROM shared_rooms WHERE room_id = $1`, roomID).Scan(&conv, &version)
	if store.NotFound(err) {
		return "", nil, ErrNotShared
	}
	if err != nil {
		return "", nil, err
	}
	known, err := wire.VersionOf(version)
	return core.ConvID(conv), known, err
}

// RoomOf is the ID and the version of a shared room, [ErrNotShared] if it is none.
func RoomOf(v hub.View, conv core.ConvID) (roomID string, version *wire.Version, err error) {
	var name string
	err = hubstore.Querier(v).QueryRow(`SELECT room_id, version FROM shared_rooms WHERE conv = $1`, string(conv)).Scan(&roomID, &name)
	if store.NotFound(err) {
		return "", nil, ErrNotShared
	}
	if err != nil {
		return "", nil, err
	}
	version, err = wire.VersionOf(name)
	return roomID, version, err
}

// Judged picks of some events those that were judged, in a turn or before their
// room was shared; what is only known as somebody's state or cause was not.
func Judged(v hub.View, ids []string) (map[string]bool, error) {
	return known(hubstore.Querier(v), ids, func(verdict string) bool { return verdict != cited })
}

// Known picks of some events those of which something is known: judged or not,
// their content is here.
func Known(v hub.View, ids []string) (map[string]bool, error) {
	return known(hubstore.Querier(v), ids, func(string) bool { return true })
}

func known(q store.Querier, ids []string, counts func(verdict string) bool) (map[string]bool, error) {
	out := make(map[string]bool, len(ids))
	for batch := range slices.Chunk(ids, 200) {
		found := map[string]bool{}
		marks, args := placeholders(batch)
		if err := store.Each(q, func(row store.Scanner) error {
			var id, verdict string
			err := row.Scan(&id, &verdict)
			found[id] = true
			out[id] = counts(verdict)
			return err
		}, `SELECT event_id, verdict FROM shared_events WHERE event_id IN (`+marks+`)`, args...); err != nil {
			return nil, err
		}
		rest := slices.DeleteFunc(slices.Clone(batch), func(id string) bool { return found[id] })
		if len(rest) == 0 {
			continue
		}
		marks, args = placeholders(rest)
		early, err := store.List(q, store.Column[string], `SELECT event_id FROM mirror_pdus WHERE event_id IN (`+marks+`)`, args...)
		if err != nil {
			return nil, err
		}
		for _, id := range early {
			out[id] = true
		}
	}
	for id, is := range out {
		if !is {
			delete(out, id)
		}
	}
	return out, nil
}

// Ends are the events of a room that none follows, and the greatest depth of
// them.
func (t *Turn) Ends(conv core.ConvID) (ends []string, depth int64, err error) {
	rm, err := t.room(conv)
	if err != nil {
		return nil, 0, err
	}
	return slices.Clone(rm.ends), rm.depth, nil
}

// Has reports whether somebody of a server is in a room.
func (t *Turn) Has(conv core.ConvID, server string) (bool, error) {
	rm, err := t.room(conv)
	return err == nil && rm.joined[server] > 0, err
}

// Usable picks of what another server says is a state those events that are known
// and can be part of one. It must have what decides who may do what, where the
// room has that now.
func (t *Turn) Usable(conv core.ConvID, state []string) ([]string, error) {
	rm, err := t.room(conv)
	if err != nil {
		return nil, err
	}
	missing, err := t.want(rm, state...)
	if err != nil {
		return nil, err
	}
	gone := make(map[string]bool, len(missing))
	for _, id := range missing {
		gone[id] = true
	}
	out := make([]string, 0, len(state))
	has := map[wire.StateKey]bool{}
	for _, id := range state {
		e := rm.events[id]
		if gone[id] || e == nil || e.Rejected || e.StateKey == nil || e.Room != rm.id || has[e.Key()] {
			continue
		}
		has[e.Key()] = true
		out = append(out, id)
	}
	for _, typ := range []string{wire.TypeCreate, wire.TypePowerLevels, wire.TypeJoinRules} {
		if k := (wire.StateKey{Type: typ}); !has[k] && rm.current.Get(typ, "") != nil {
			return nil, fmt.Errorf("%w: no %s", ErrNoState, typ)
		}
	}
	return out, nil
}

// ErrNoState says that what another server tells is no state of the room.
var ErrNoState = errors.New("the state is incomplete")

// Missing lists events that others follow and that are not known: those first
// whose followers are the oldest in the timeline.
func Missing(v hub.View, conv core.ConvID, limit int) ([]string, error) {
	return store.List(hubstore.Querier(v), store.Column[string], `SELECT m.event_id FROM shared_missing m LEFT JOIN mirror_pdus p ON p.event_id = m.follower
		WHERE m.conv = $1 GROUP BY m.event_id ORDER BY MIN(COALESCE(p.pos, 0)), m.event_id LIMIT $2`, string(conv), limit)
}

// Pass goes past an event of the history that others follow, and that is not to
// be taken because nobody vouches for it: what it follows is missing in its
// place. That it says so itself is proved by its ID.
func (t *Turn) Pass(conv core.ConvID, pdu *wire.PDU) error {
	rm, err := t.room(conv)
	if err != nil || pdu.RoomID != rm.id {
		return err
	}
	followed, err := t.found(rm, pdu.EventID)
	if err != nil || !followed {
		return err
	}
	return t.note(rm, pdu, pdu.PrevEvents...)
}

// Revoked keeps that somebody was kicked or banned who had been invited to a room
// that none of ours is in, or had knocked there. Nothing is known by which it
// could be judged: it is believed of whoever invited, and of nobody else. kept
// says whether it was.
//
// spec: MX 1.19 SS §12
func (t *Turn) Revoked(conv core.ConvID, pdu *wire.PDU) (kept bool, err error) {
	rm, err := t.room(conv)
	if err == nil && t.r.inside(rm.head) || err != nil && !errors.Is(err, ErrNotShared) {
		return false, err
	}
	if pdu.Type != wire.TypeMember || pdu.StateKey == nil || *pdu.StateKey == pdu.Sender || !t.r.ours(*pdu.StateKey) {
		return false, nil
	}
	content, err := wire.ParseObject(pdu.Content)
	if err != nil {
		return false, nil
	}
	standing, _ := content.String("membership")
	if now := core.Standing(standing); now != core.Left && now != core.Banned {
		return false, nil
	}
	names := t.r.mirror.Names(t.tx)
	by, err := names.Address(pdu.Sender)
	if err != nil {
		return false, nil
	}
	who, err := names.Address(*pdu.StateKey)
	if err != nil {
		return false, nil
	}
	s, err := t.tx.State(conv)
	if err != nil {
		return false, err
	}
	if was := s.Members[who]; was.Standing != core.Invited || was.By != by {
		return false, nil
	}
	return true, t.invite(conv, pdu, by, who, content)
}
