package rooms

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

// memberRoutes are about who is in a room.
//
// spec: MX 1.19 CS §8.5
func (s *Rooms) memberRoutes() []client.Route {
	post := func(path string, h client.Handler) client.Route {
		return client.Route{Method: http.MethodPost, Path: v3 + path, Limit: client.Writes, Handler: h}
	}
	return []client.Route{
		post("/createRoom", s.create),
		post("/join/{roomIdOrAlias}", s.joinAny),
		post("/rooms/{roomId}/join", s.join),
		post("/knock/{roomIdOrAlias}", s.knock),
		post("/rooms/{roomId}/leave", s.leave),
		post("/rooms/{roomId}/forget", s.forget),
		post("/rooms/{roomId}/invite", s.act(core.Invited)),
		post("/rooms/{roomId}/kick", s.act(core.Left)),
		post("/rooms/{roomId}/ban", s.act(core.Banned)),
		post("/rooms/{roomId}/unban", s.unban),
		post("/rooms/{roomId}/upgrade", s.upgrade),
		{Method: http.MethodGet, Path: v3 + "/joined_rooms", Handler: s.joinedRooms},
		{Method: http.MethodGet, Path: v3 + "/rooms/{roomId}/joined_members", Handler: s.joinedMembers},
		{Method: http.MethodGet, Path: v3 + "/rooms/{roomId}/members", Handler: s.members},
	}
}

// memberRequest is the body of what changes a membership.
type memberRequest struct {
	UserID string `json:"user_id"`
	Reason string `json:"reason"`
}

func (s *Rooms) join(r *client.Request) (any, error) { return s.enter(r, r.Var("roomId")) }

func (s *Rooms) joinAny(r *client.Request) (any, error) { return s.enter(r, r.Var("roomIdOrAlias")) }

// enter joins. Joining where one has joined is done already.
//
// spec: MX 1.19 CS §8.5.1
func (s *Rooms) enter(r *client.Request, idOrAlias string) (any, error) {
	var body memberRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if out, err := s.outside(r.Context(), idOrAlias, r.Account); err != nil {
		return nil, err
	} else if out {
		conv, err := s.door.Join(r.Context(), idOrAlias, via(r), hub.JoinRequest{Who: r.Account, Reason: body.Reason, From: r.Device})
		return s.entered(r.Context(), conv, err)
	}
	rm, err := s.reach(r.Context(), idOrAlias, r.Account)
	if err != nil {
		return nil, err
	}
	_, err = s.hub.Accept(r.Context(), hub.JoinRequest{
		Conv: rm.conv.ID, Who: r.Account, Reason: body.Reason, From: r.Device,
	})
	if err != nil {
		return nil, err
	}
	return object{"room_id": rm.id}, nil
}

// knock asks for an invitation.
//
// spec: MX 1.19 CS §8.5.1.1
func (s *Rooms) knock(r *client.Request) (any, error) {
	var body memberRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	name := r.Var("roomIdOrAlias")
	if out, err := s.outside(r.Context(), name, r.Account); err != nil {
		return nil, err
	} else if out {
		conv, err := s.door.Knock(r.Context(), name, via(r), r.Account, body.Reason)
		return s.entered(r.Context(), conv, err)
	}
	rm, err := s.locate(r.Context(), name, r.Account)
	if err != nil {
		return nil, err
	}
	if rm.mine != core.Knocked {
		err = s.change(r, rm, r.Account, core.Knocked, body.Reason)
	}
	return object{"room_id": rm.id}, err
}

// change submits a membership.
func (s *Rooms) change(r *client.Request, rm *room, target core.Address, to core.Standing, reason string) error {
	c := core.Membership{Target: target, Standing: to, Reason: reason}
	_, err := s.hub.Submit(r.Context(), hub.Draft{Conv: rm.conv.ID, Sender: r.Account, Content: c, From: r.Device})
	return err
}

// leave leaves, declines an invitation, or takes a knock back. Who is out
// already is out.
//
// spec: MX 1.19 CS §8.5.2
func (s *Rooms) leave(r *client.Request) (any, error) {
	var body memberRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	var rm *room
	err := s.hub.Read(r.Context(), func(v hub.View) (err error) {
		rm, err = find(v, r.Var("roomId"), r.Account)
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		return nil, errOutside()
	}
	if err != nil {
		return nil, err
	}
	if _, was := rm.state.Members[r.Account]; was && rm.mine == core.Left {
		return nil, nil
	}
	return nil, s.change(r, rm, r.Account, core.Left, body.Reason)
}

// act is what one does to another: inviting, kicking, banning.
func (s *Rooms) act(to core.Standing) client.Handler {
	return func(r *client.Request) (any, error) {
		rm, target, body, err := s.actor(r)
		if err != nil {
			return nil, err
		}
		now := rm.state.Standing(target)
		if to == core.Left && target == r.Account {
			return nil, forbidden("To leave a room yourself, leave it.")
		}
		if to == core.Left && now != core.Joined && now != core.Invited && now != core.Knocked {
			return nil, forbidden("%s is not in this room.", body.UserID)
		}
		if to == core.Banned && now == core.Banned {
			return nil, nil
		}
		return nil, s.change(r, rm, target, to, body.Reason)
	}
}

// unban lets one who was banned join again.
//
// spec: MX 1.19 CS §8.5.2.1
func (s *Rooms) unban(r *client.Request) (any, error) {
	rm, target, body, err := s.actor(r)
	if err != nil {
		return nil, err
	}
	if rm.state.Standing(target) != core.Banned {
		return nil, forbidden("%s is not banned from this room.", body.UserID)
	}
	return nil, s.change(r, rm, target, core.Left, body.Reason)
}

// actor reads a request in which one member does something to another.
func (s *Rooms) actor(r *client.Request) (rm *room, target core.Address, body memberRequest, err error) {
	if err = r.JSON(&body); err != nil {
		return nil, target, body, err
	}
	if body.UserID == "" {
		return nil, target, body, client.Errorf(http.StatusBadRequest, client.MissingParam, "There is no user_id in the request.")
	}
	err = s.inRoom(r, func(v hub.View, found *room) error {
		rm = found
		target, err = s.address(v, body.UserID)
		return err
	})
	return rm, target, body, err
}

// forgottenType is the private datum that notes a forgotten room; by its prefix
// it is no account data of Matrix clients. Its content is the position of the
// leaving that it is about, so that a later return is not forgotten.
const forgottenType = "local:matrix.forgotten"

// Forgotten reports whether an account has forgotten the room that it left.
func Forgotten(v hub.View, account core.Address, p hub.Place) (bool, error) {
	d, err := v.Datum(account, p.Conv, forgottenType)
	if errors.Is(err, hub.ErrNone) || err == nil && d.Data == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	at, err := strconv.ParseInt(string(d.Data), 10, 64)
	return core.Position(at) >= p.Since, err
}

// forget takes a room that one has left out of all answers.
//
// spec: MX 1.19 CS §8.5.2
func (s *Rooms) forget(r *client.Request) (any, error) {
	var d hub.Datum
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, err := find(v, r.Var("roomId"), r.Account)
		if errors.Is(err, hub.ErrNone) {
			return errOutside()
		}
		if err != nil {
			return err
		}
		p, err := v.Place(r.Account, rm.conv.ID)
		if errors.Is(err, hub.ErrNone) {
			return errOutside()
		}
		if err != nil {
			return err
		}
		if p.Standing != core.Left && p.Standing != core.Banned {
			return client.Errorf(http.StatusBadRequest, client.Unknown, "You have not left this room.")
		}
		d = hub.Datum{
			Account: r.Account, Conv: rm.conv.ID, Type: forgottenType,
			Data: strconv.AppendInt(nil, int64(p.Since), 10),
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nil, s.hub.PutDatum(r.Context(), d, r.Device)
}

// joinedRooms lists where one is.
//
// spec: MX 1.19 CS §8.5
func (s *Rooms) joinedRooms(r *client.Request) (any, error) {
	ids := []string{}
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		places, err := v.Places(r.Account)
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Standing != core.Joined {
				continue
			}
			id, err := roomIDOf(v, p.Conv)
			if err != nil {
				return err
			}
			if id != "" {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return object{"joined_rooms": ids}, err
}

// joinedMembers maps the joined members to how they appear.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) joinedMembers(r *client.Request) (any, error) {
	joined := object{}
	err := s.inRoom(r, func(v hub.View, rm *room) error {
		names := s.mirror.Names(v)
		for _, m := range rm.state.Joined() {
			// Both keys are always there: clients take one that is missing for
			// a broken answer.
			shown := object{"display_name": nil, "avatar_url": nil}
			if m.Name != "" {
				shown["display_name"] = m.Name
			}
			if m.Avatar != nil {
				if uri, ok := names.URI(*m.Avatar); ok {
					shown["avatar_url"] = uri
				}
			}
			id, _ := names.UserID(m.Address)
			joined[id] = shown
		}
		return nil
	})
	return object{"joined": joined}, err
}

// members are the membership events, now or at a token of /sync.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) members(r *client.Request) (any, error) {
	var chunk []json.RawMessage
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, end, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		if at := r.Query("at"); at != "" {
			p, err := ParsePoint(v, rm.conv.ID, at)
			if err != nil {
				return err
			}
			if pos := core.Position(p); end == nil || pos < *end {
				end = &pos
			}
		}
		events, err := s.stateUpTo(v, rm, end)
		if err != nil {
			return err
		}
		kept := events[:0]
		for _, e := range events {
			if e.Type != typeMember {
				continue
			}
			membership := membershipOf(e.Content)
			want, not := r.Query("membership"), r.Query("not_membership")
			// Both may be given; either that holds is enough.
			if want == "" && not == "" || want != "" && membership == want || not != "" && membership != not {
				kept = append(kept, e)
			}
		}
		chunk, err = s.show(v, r, slices.Clip(kept))
		return err
	})
	return object{"chunk": chunk}, err
}

const typeMember = "m.room.member"

func membershipOf(content []byte) string {
	var c struct {
		Membership string `json:"membership"`
	}
	_ = json.Unmarshal(content, &c) // a form of ours; what is not there is ""
	return c.Membership
}
