package shared

import (
	"encoding/json"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

// glimpsed is the state that is told to one who is invited, or knocks.
//
// spec: MX 1.19 CS §7.3
var glimpsed = []string{
	wire.TypeCreate, wire.TypeJoinRules, "m.room.name", "m.room.avatar", "m.room.topic", "m.room.canonical_alias", "m.room.encryption",
}

// Glimpse is what one who is invited to a room of ours, or knocks, is told of its
// state: whole events, with the memberships of some people.
//
// spec: MX 1.19 SS §12
func (r *Rooms) Glimpse(v hub.View, conv core.ConvID, version *wire.Version, userIDs ...string) ([]json.RawMessage, error) {
	var ids []string
	find := func(eventType, key string) error {
		e, err := r.mirror.StateEvent(v, conv, eventType, key)
		if err == nil {
			ids = append(ids, e.EventID)
		} else if errors.Is(err, hub.ErrNone) {
			err = nil
		}
		return err
	}
	for _, eventType := range glimpsed {
		if err := find(eventType, ""); err != nil {
			return nil, err
		}
	}
	for _, id := range userIDs {
		if err := find(wire.TypeMember, id); err != nil {
			return nil, err
		}
	}
	events, err := r.Wire(v, version, ids)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, 0, len(ids))
	for _, id := range ids {
		if raw, ok := events[id]; ok {
			out = append(out, raw)
		}
	}
	return out, nil
}
