package rooms

import (
	"errors"
	"maps"
	"net/http"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/wire"
)

// copied are the types of state that a new version of a room takes over.
//
// spec: MX 1.19 CS §10.34.3
var copied = []string{
	wire.TypeJoinRules, wire.TypeVisibility, "m.room.guest_access", "m.room.server_acl", "m.room.encryption",
	"m.room.name", "m.room.topic", "m.room.avatar", "m.space.child",
}

type upgradeRequest struct {
	Version  string `json:"new_version"`
	Creators any    `json:"additional_creators"`
}

// upgrade makes a room of another version that goes on where this one ends.
//
// spec: MX 1.19 CS §10.34.3
func (s *Rooms) upgrade(r *client.Request) (any, error) {
	var body upgradeRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if !slices.Contains(wire.Made(), body.Version) {
		return nil, client.Errorf(http.StatusBadRequest, client.UnsupportedVersion, "This server makes no rooms of version %.40q.", body.Version)
	}
	var old *room
	var o hub.Opening
	var moving []core.Address
	err := s.inRoom(r, func(v hub.View, rm *room) (err error) {
		old = rm
		if rm.state.Level(r.Account) < rm.state.Needs(string(core.AspectMovedTo), true) {
			return forbidden("You may not upgrade this room.")
		}
		if moving, err = v.RoomAddresses(rm.conv.ID); err != nil {
			return err
		}
		o, err = s.successor(v, rm, body)
		return err
	})
	if err != nil {
		return nil, err
	}
	o.From = r.Device
	next, err := s.hub.Open(r.Context(), o)
	if err != nil {
		return nil, err
	}
	if err := s.retire(r, old, next, moving); err != nil {
		return nil, err
	}
	return object{"replacement_room": next.Native[core.Matrix]}, nil
}

// successor plans the new room after the old one's state.
func (s *Rooms) successor(v hub.View, rm *room, body upgradeRequest) (hub.Opening, error) {
	p, err := s.newPlan(v, rm.who, body.Version)
	if err != nil {
		return hub.Opening{}, err
	}
	state, err := s.mirror.State(v, rm.conv.ID)
	if err != nil {
		return hub.Opening{}, err
	}
	for _, e := range state {
		if e.Type == wire.TypeCreate {
			if err := client.DecodeJSON(e.Content, &p.creation); err != nil {
				return hub.Opening{}, err
			}
		}
	}
	for _, k := range []string{"creator", "room_version", "additional_creators"} {
		delete(p.creation, k)
	}
	p.creation["predecessor"] = object{"room_id": rm.id}
	if p.version.HashedRoomID {
		more, err := creatorsOf(body.Creators, p.resolver.Names)
		if err != nil {
			return hub.Opening{}, err
		}
		p.addCreators(more)
	}
	if err := p.inherit(state); err != nil {
		return hub.Opening{}, err
	}
	for _, m := range rm.state.With(core.Banned) {
		p.o.Initial = append(p.o.Initial, hub.Draft{Content: core.Membership{Target: m.Address, Standing: core.Banned}})
	}
	return p.opening()
}

// inherit takes over the old room's state, its levels made fit for the new
// version.
func (p *plan) inherit(state []mirror.Event) error {
	levels := object{}
	for _, e := range state {
		if e.Type == wire.TypePowerLevels {
			if err := client.DecodeJSON(e.Content, &levels); err != nil {
				return err
			}
		}
	}
	users := object{}
	if u, ok := levels["users"].(object); ok {
		maps.Copy(users, u)
	}
	events := object{}
	if e, ok := levels["events"].(object); ok {
		maps.Copy(events, e)
	}
	if p.version.HashedRoomID {
		delete(users, p.userID)
		for _, a := range p.o.Creators {
			id, _ := p.resolver.UserID(a)
			delete(users, id)
		}
		events["m.room.tombstone"] = 150
	} else {
		users[p.userID] = 100
	}
	levels["users"], levels["events"] = users, events
	if err := p.setObject(wire.TypePowerLevels, levels); err != nil {
		return err
	}
	for _, typ := range copied {
		for _, e := range state {
			if e.Type == typ && len(e.Content) > len("{}") {
				p.set(e.Type, *e.StateKey, e.Content)
			}
		}
	}
	return nil
}

// retire ends the old room: it says where it went on, takes no more messages
// of those without a level, and its aliases lead to the new one.
func (s *Rooms) retire(r *client.Request, old *room, next core.Conversation, aliases []core.Address) error {
	say := func(c core.Content) hub.Draft {
		return hub.Draft{Conv: old.conv.ID, Sender: r.Account, Content: c, From: r.Device}
	}
	drafts := []hub.Draft{say(core.Change{Aspect: core.AspectMovedTo, MovedTo: &core.Move{
		Conv: next.ID, Address: next.Address, Native: next.Native[core.Matrix], Reason: "This room has been replaced",
	}})}
	if _, err := s.hub.SubmitAll(r.Context(), drafts); err != nil {
		return err
	}
	levels := old.state.Levels.Clone()
	levels.Message = max(levels.Message, 50)
	levels.Invite = max(levels.Invite, 50)
	// Who may end a room need not have the level to close it.
	if _, err := s.hub.Submit(r.Context(), say(core.Change{Aspect: core.AspectLevels, Levels: &levels})); err != nil && hub.CodeOf(err) == "" {
		return err
	}
	var main core.Address
	err := s.hub.Write(r.Context(), func(tx hub.Tx) error {
		for _, a := range aliases {
			if a == old.conv.Address {
				continue // its own, by which it stays known
			}
			if err := tx.DeleteRoomAddress(a); err != nil {
				return err
			}
			if err := tx.PutRoomAddress(a, next.ID, r.Account); err != nil {
				return err
			}
			if a == old.state.Main {
				main = a
			}
		}
		public, err := isPublic(tx, old.conv.ID)
		if err != nil || !public {
			return err
		}
		return errors.Join(tx.SetPublic(old.conv.ID, false), tx.SetPublic(next.ID, true))
	})
	if err != nil || main.IsZero() {
		return err
	}
	_, err = s.hub.Submit(r.Context(), hub.Draft{
		Conv: next.ID, Sender: r.Account, From: r.Device,
		Content: core.Change{Aspect: core.AspectAddresses, Main: main},
	})
	return err
}

// isPublic reports whether a room is in the directory.
func isPublic(v hub.View, id core.ConvID) (bool, error) {
	public, err := v.PublicRooms()
	return slices.Contains(public, id), err
}
