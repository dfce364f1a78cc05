package joining

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// place is a room about which another server asks.
type place struct {
	conv    core.Conversation
	state   *core.State
	version *wire.Version
	id      string
}

// place finds the room of a request, if the server that asks is let in.
//
// spec: MX 1.19 SS §26
func (j *Joining) place(v hub.View, r *federation.Request) (place, error) {
	p := place{id: r.Var("roomId")}
	if err := wire.CheckRoomID(p.id); err != nil {
		return p, invalid("%v", err)
	}
	id, err := v.ConversationNative(core.Matrix, p.id)
	if err != nil {
		return p, refused(err)
	}
	if p.conv, err = v.Conversation(id); err != nil {
		return p, err
	}
	if p.conv.Authority == core.Elsewhere {
		return p, unknownRoom()
	}
	if p.state, err = v.State(id); err != nil {
		return p, err
	}
	if p.version, err = wire.VersionOf(p.state.Creation.Version); err != nil {
		return p, unknownRoom() // only a glimpse of it is known
	}
	return p, j.allowed(v, id, r.Origin)
}

// allowed holds a server to a room's ACL.
func (j *Joining) allowed(v hub.View, conv core.ConvID, server string) error {
	ok, err := j.cfg.Access.Allows(v, conv, server)
	if err == nil && !ok {
		err = forbidden("The room does not let the server %s in.", server)
	}
	return err
}

// propose answers with a template of the asker's membership event.
//
// spec: MX 1.19 SS §10
// spec: MX 1.19 SS §11
// spec: MX 1.19 SS §13
func (j *Joining) propose(k *kind) federation.Handler {
	return func(r *federation.Request) (any, error) {
		user := r.Var("userId")
		_, server, err := wire.ParseUserID(user)
		if err != nil {
			return nil, invalid("%v", err)
		}
		if server != r.Origin {
			return nil, forbidden("%s is not of the server %s.", user, r.Origin)
		}
		var at place
		var via string
		err = j.cfg.Hub.Read(r.Context(), func(v hub.View) error {
			if at, err = j.place(v, r); err != nil {
				return err
			}
			// One that lists none knows version 1 alone.
			if k.versioned && !slices.Contains(r.HTTP.URL.Query()["ver"], at.version.ID) {
				return incompatible(at.version.ID)
			}
			if k == join {
				via, err = j.letIn(v, at, user)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		p, err := j.layOut(r.Context(), at, k, user, via)
		if err != nil {
			return nil, refused(err)
		}
		j.count("make_"+k.name, "served")
		return object{"room_version": at.version.ID, "event": object{
			"type": p.Type, "room_id": p.RoomID, "sender": p.Sender, "state_key": p.StateKey,
			"content": json.RawMessage(p.Content), "origin": r.Destination, "origin_server_ts": p.Time,
			"prev_events": p.PrevEvents, "auth_events": slices.Concat([]string{}, p.AuthEvents), "depth": p.Depth,
		}}, nil
	}
}

// layOut is the template.
func (j *Joining) layOut(ctx context.Context, at place, k *kind, user, via string) (p wire.Proto, err error) {
	content := wire.Object{}.With("membership", wire.Quote(k.membership))
	if via != "" {
		content = content.With(viaKey, wire.Quote(via))
	}
	err = j.cfg.Rooms.Turn(ctx, func(t *shared.Turn) (err error) {
		p, _, err = t.Propose(at.conv.ID, wire.Proto{
			Type: wire.TypeMember, StateKey: &user, Sender: user, Content: content.JSON(), Time: time.Now().UnixMilli(),
		})
		return err
	})
	return p, err
}

func incompatible(version string) error {
	e := federation.Errorf(http.StatusBadRequest, "M_INCOMPATIBLE_ROOM_VERSION", "The room has version %s, which is not among those that can be used.", version)
	e.Fields = map[string]any{"room_version": version}
	return e
}

// arrival is an event of another server that asks to be taken into a room.
type arrival struct {
	place
	pdu *wire.PDU
	via bool
	// before is the state before a join, e the join with what it cites.
	before graph.State
	e      *graph.Event
}

// take takes an event for which there was a template.
//
// spec: MX 1.19 SS §10
// spec: MX 1.19 SS §11
// spec: MX 1.19 SS §13
func (j *Joining) take(k *kind, form func(any) any) federation.Handler {
	return func(r *federation.Request) (any, error) {
		a, err := j.read(r, k)
		if err != nil {
			return nil, err
		}
		if err := j.verify(r.Context(), a.pdu); err != nil {
			return nil, err
		}
		if err := j.admit(r.Context(), k, a); err != nil {
			j.count("send_"+k.name, "refused")
			return nil, refused(err)
		}
		j.count("send_"+k.name, "served")
		switch k {
		case join:
			answer, err := j.welcome(r, a)
			return form(answer), err
		case knock:
			answer, err := j.glimpse(r.Context(), a.place)
			return form(object{"knock_room_state": answer}), err
		}
		return form(object{}), nil
	}
}

// read reads the event and holds it to its form. One that lets a joiner in by
// somebody of ours is signed for her.
func (j *Joining) read(r *federation.Request, k *kind) (*arrival, error) {
	a := &arrival{}
	err := j.cfg.Hub.Read(r.Context(), func(v hub.View) (err error) {
		if a.place, err = j.place(v, r); err != nil {
			return err
		}
		if a.pdu, err = parseEvent(a.version, r.Body); err != nil {
			return err
		}
		if err := checkMember(a.pdu, k.membership, r.Var("roomId"), r.Var("eventId"), r.Origin); err != nil {
			return err
		}
		if a.pdu.Sender != *a.pdu.StateKey {
			return invalid("The event is about another person than its sender.")
		}
		if k == join {
			return j.countersign(v, a)
		}
		return nil
	})
	return a, err
}

func parseEvent(v *wire.Version, raw []byte) (*wire.PDU, error) {
	pdu, err := wire.Parse(v, raw)
	if errors.Is(err, wire.ErrTooLarge) {
		return nil, federation.Errorf(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "%v", err)
	}
	if err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "This is no event of room version %s: %v", v.ID, err)
	}
	return pdu, nil
}

// checkMember holds an event to what the path of a request and its origin say.
func checkMember(pdu *wire.PDU, membership, roomID, eventID, origin string) error {
	content, err := wire.ParseObject(pdu.Content)
	if err != nil {
		return invalid("The content is no object.")
	}
	has, _ := content.String("membership")
	switch {
	case pdu.EventID != eventID:
		return invalid("The event's ID is %s.", pdu.EventID)
	case pdu.RoomID != roomID:
		return invalid("The event is of another room.")
	case pdu.Type != wire.TypeMember || pdu.StateKey == nil || has != membership:
		return invalid("The event is no %s with the membership %q.", wire.TypeMember, membership)
	case serverOf(pdu.Sender) != origin:
		return invalid("The sender is not of the server %s.", origin)
	case !pdu.CheckHash():
		return invalid("The event's hash is not right.")
	}
	return nil
}

// verify checks an event's signatures.
//
// spec: MX 1.19 SS §28.2
func (j *Joining) verify(ctx context.Context, pdu *wire.PDU) error {
	if err := j.cfg.Keys.VerifyPDUs(ctx, []*wire.PDU{pdu})[0]; err != nil {
		j.cfg.Log.Debug("an event of another server is not authentic", "event", pdu.EventID, "err", err)
		return invalid("The event is not signed as it must be.")
	}
	return nil
}

// admit has the room judge the event. A room that was this server's alone is
// shared from then on, if it is let in.
func (j *Joining) admit(ctx context.Context, k *kind, a *arrival) error {
	conv, in := a.conv.ID, shared.Incoming{PDU: a.pdu, ViaSigned: a.via}
	return j.cfg.Rooms.Turn(ctx, func(t *shared.Turn) error {
		if err := t.Share(conv); err != nil {
			return err
		}
		inside, err := t.Inside(conv)
		if err == nil && !inside && a.conv.Authority == core.Graph {
			err = shared.ErrNotShared
		}
		if err != nil {
			return err
		}
		if k == join {
			if a.before, a.e, err = t.Before(conv, in); err != nil {
				return err
			}
		}
		return j.accept(t, conv, in)
	})
}

// accept has an event accepted, and owes it to the servers in the room.
func (j *Joining) accept(t *shared.Turn, conv core.ConvID, in shared.Incoming) error {
	out, err := t.Accept(conv, in)
	switch {
	case err != nil:
		return err
	case out.Verdict != graph.Accepted && out.Why == nil:
		return hub.Refuse(hub.Forbidden, "the room has not accepted this event")
	case out.Verdict != graph.Accepted:
		return hub.Refuse(hub.Forbidden, "the room does not allow it: %v", out.Why)
	case out.Known:
		return nil
	}
	id, err := j.cfg.Mirror.CoreID(t.Tx(), in.PDU.EventID)
	if err != nil {
		return err
	}
	e, err := t.Tx().Event(id)
	if err != nil {
		return err
	}
	return j.cfg.Outbox.Owe(t.Tx(), conv, in.PDU.EventID, e.Feed)
}

// glimpse is what one is told of a room on whose door she knocks.
func (j *Joining) glimpse(ctx context.Context, at place) (out []json.RawMessage, err error) {
	err = j.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		out, err = j.cfg.Rooms.Glimpse(v, at.conv.ID, at.version)
		return err
	})
	return out, err
}
