package joining

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// Bounds of what comes with an invitation.
const (
	maxStripped     = 50
	maxStrippedSize = 256 << 10 // bytes, all together
	// maxInvited is how many invitations of one account wait.
	maxInvited = 1000
)

// invitation is what another server asks for one of ours.
type invitation struct {
	pdu      *wire.PDU
	stripped []json.RawMessage
	by, who  core.Address
}

// invite takes an invitation to one of ours, and signs it.
//
// spec: MX 1.19 SS §12
func (j *Joining) invite(r *federation.Request) (any, error) {
	var body struct {
		Version  string            `json:"room_version"`
		Event    json.RawMessage   `json:"event"`
		Stripped []json.RawMessage `json:"invite_room_state"`
	}
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "The body is no invitation.")
	}
	version, err := wire.VersionOf(body.Version)
	if err != nil {
		return nil, incompatible(body.Version)
	}
	in := invitation{}
	if in.pdu, err = parseEvent(version, body.Event); err != nil {
		return nil, err
	}
	if err := checkMember(in.pdu, "invite", r.Var("roomId"), r.Var("eventId"), r.Origin); err != nil {
		return nil, err
	}
	if err := wire.CheckRoomID(in.pdu.RoomID); err != nil {
		return nil, invalid("%v", err)
	}
	if !j.ours(serverOf(*in.pdu.StateKey)) {
		return nil, invalid("%.300s is not of this server.", *in.pdu.StateKey)
	}
	if o, err := wire.ParseObject(in.pdu.Content); err != nil || o.Get("third_party_invite") != nil {
		return nil, invalid("Invitations by other addresses than user IDs are not taken.")
	}
	if err := j.verify(r.Context(), in.pdu); err != nil {
		return nil, err
	}
	if in.stripped, err = j.checkStripped(r.Context(), version, in.pdu.RoomID, body.Stripped); err != nil {
		return nil, err
	}
	signed, err := j.offer(r.Context(), in, r.Origin)
	if err != nil {
		j.count("invite", "refused")
		return nil, refused(err)
	}
	j.count("invite", "served")
	return object{"event": json.RawMessage(signed)}, nil
}

// inviteOld is the first version of the endpoint, which is for room versions 1
// and 2 alone.
//
// spec: MX 1.19 SS §12
func (j *Joining) inviteOld(*federation.Request) (any, error) { return nil, incompatible("1") }

// checkStripped holds what is told of the room to its form. In rooms that are
// named after their create event it has to be whole events of the room, signed.
// Elsewhere there are servers that tell less, and who lies there can do so with
// or without a form.
//
// spec: MX 1.19 SS §12
func (j *Joining) checkStripped(ctx context.Context, v *wire.Version, roomID string, stripped []json.RawMessage) ([]json.RawMessage, error) {
	size := 0
	for _, raw := range stripped {
		size += len(raw)
	}
	if len(stripped) > maxStripped || size > maxStrippedSize {
		return nil, invalid("invite_room_state has at most %d events and %d bytes.", maxStripped, maxStrippedSize)
	}
	if v.HashedRoomID {
		return stripped, j.checkWhole(ctx, v, roomID, stripped)
	}
	var out []json.RawMessage
	for _, raw := range stripped {
		if _, err := wire.Loose(raw); err == nil && ofRoom(raw, roomID) {
			out = append(out, raw)
		}
	}
	return out, nil
}

// ofRoom says whether a piece of stripped state is at least not of another room.
func ofRoom(raw json.RawMessage, roomID string) bool {
	var e struct {
		Type     string          `json:"type"`
		StateKey *string         `json:"state_key"`
		Sender   string          `json:"sender"`
		Content  json.RawMessage `json:"content"`
		RoomID   string          `json:"room_id"`
	}
	return json.Unmarshal(raw, &e) == nil && e.StateKey != nil && len(e.Content) > 0 && (e.RoomID == "" || e.RoomID == roomID)
}

func (j *Joining) checkWhole(ctx context.Context, v *wire.Version, roomID string, stripped []json.RawMessage) error {
	var pdus []*wire.PDU
	created := false
	for _, raw := range stripped {
		pdu, err := wire.Parse(v, raw)
		switch {
		case err != nil:
			return invalid("invite_room_state holds something that is no event of room version %s: %v", v.ID, err)
		case pdu.RoomID != roomID || pdu.StateKey == nil:
			return invalid("invite_room_state holds an event that is not of the state of this room.")
		case !pdu.CheckHash():
			return invalid("invite_room_state holds an event with a wrong hash.")
		}
		created = created || pdu.Type == wire.TypeCreate
		pdus = append(pdus, pdu)
	}
	if !created {
		return invalid("There is no create event in invite_room_state.")
	}
	for _, err := range j.cfg.Keys.VerifyPDUs(ctx, pdus) {
		if err != nil {
			return invalid("invite_room_state holds an event that is not signed as it must be.")
		}
	}
	return nil
}

// offer asks whether the invitation is welcome, signs it, and lets the invited
// one know. Where one of ours is in the room already, the invitation comes again
// as an event of the room.
func (j *Joining) offer(ctx context.Context, in invitation, origin string) ([]byte, error) {
	err := j.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		names := j.cfg.Mirror.Names(v)
		if in.by, err = names.Address(in.pdu.Sender); err != nil {
			return invalid("%v", err)
		}
		if in.who, err = names.Address(*in.pdu.StateKey); err != nil {
			return invalid("%v", err)
		}
		return j.welcomed(v, in, origin)
	})
	if err != nil {
		return nil, err
	}
	server := serverOf(*in.pdu.StateKey)
	signed, err := in.pdu.Sign(wire.Signer{Server: server, Key: j.cfg.Signers[server]})
	if err != nil {
		return nil, err
	}
	event, err := wire.Parse(in.pdu.Version, signed)
	if err != nil {
		return nil, err
	}
	return signed, j.cfg.Rooms.Turn(ctx, func(t *shared.Turn) error {
		_, err := t.Offer(shared.Offer{Event: event, Stripped: in.stripped})
		return err
	})
}

// welcomed asks the invited one's account.
func (j *Joining) welcomed(v hub.View, in invitation, origin string) error {
	if !in.who.IsLocal() || !j.cfg.Hub.Hosts(in.who.Domain) {
		return forbidden("%.300s is of another network, and cannot be invited from here.", *in.pdu.StateKey)
	}
	err := j.cfg.Hub.Invitable(v, in.by, in.who)
	if hub.CodeOf(err) == hub.NotFound {
		return forbidden("There is no account %.300s.", *in.pdu.StateKey)
	}
	if err != nil {
		return err
	}
	conv, err := v.ConversationNative(core.Matrix, in.pdu.RoomID)
	if err == nil {
		err = j.allowed(v, conv, origin)
	} else if errors.Is(err, hub.ErrNone) {
		err = nil
	}
	if err != nil {
		return err
	}
	places, err := v.Places(in.who)
	if err != nil {
		return err
	}
	waiting := 0
	for _, p := range places {
		if p.Standing == core.Invited {
			waiting++
		}
	}
	if waiting >= maxInvited {
		return forbidden("%.300s has too many invitations that wait for an answer.", *in.pdu.StateKey)
	}
	return nil
}
