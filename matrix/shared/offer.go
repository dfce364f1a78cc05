package shared

import (
	"encoding/json"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
	"parley/matrix/translate"
	"parley/matrix/wire"
)

// Offer is an invitation of one of ours into a room in which none of ours is.
type Offer struct {
	// Event is the invitation, signed by both servers.
	Event *wire.PDU
	// Stripped is what the inviting server tells of the room's state: stripped
	// state events, or whole ones.
	Stripped []json.RawMessage
}

// maxStripped bounds what is told of a room.
const maxStripped = 50

// Offer keeps an invitation. In a room that one of ours is in it does nothing:
// the invitation comes as any other event does.
//
// spec: MX 1.19 SS §12
func (t *Turn) Offer(in Offer) (core.ConvID, error) {
	names := t.r.mirror.Names(t.tx)
	inviter, err := names.Address(in.Event.Sender)
	if err != nil {
		return "", err
	}
	who, err := names.Address(*in.Event.StateKey)
	if err != nil {
		return "", err
	}
	content, err := wire.ParseObject(in.Event.Content)
	if err != nil {
		return "", err
	}
	var peer core.Address
	if string(content.Get("is_direct")) == "true" {
		peer = inviter
	}
	conv, err := t.tx.ConversationNative(core.Matrix, in.Event.RoomID)
	switch {
	case errors.Is(err, hub.ErrNone):
		if conv, err = t.make(in.Event.RoomID, core.Address{}, inviter, who, peer); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	}
	rm, err := t.room(conv)
	if err == nil && t.r.inside(rm.head) {
		return conv, nil
	}
	if err != nil && !errors.Is(err, ErrNotShared) {
		return "", err
	}
	if rm == nil { // of a room that was left, the state at that time is known
		if err := t.preview(conv, in); err != nil {
			return "", err
		}
	}
	if err := t.r.mirror.PutPreview(t.tx, conv, in.Stripped[:min(len(in.Stripped), maxStripped)]); err != nil {
		return "", err
	}
	if err := t.invite(conv, in.Event, inviter, who, content); err != nil || peer.IsZero() {
		return conv, err
	}
	for _, k := range []hub.NoticeKind{hub.Approve, hub.Ask} {
		err := t.Hub.Consent(hub.ContactNotice{Kind: k, From: inviter, To: who})
		if err != nil && hub.CodeOf(err) == "" {
			return conv, err
		}
	}
	return conv, nil
}

// Knocked keeps that one of ours knocks on the door of a room in which none of
// ours is: the event, as another server has taken it, and what that server tells
// of the room's state.
//
// spec: MX 1.19 SS §11
func (t *Turn) Knocked(in Offer) (core.ConvID, error) {
	who, err := t.r.mirror.Names(t.tx).Address(in.Event.Sender)
	if err != nil {
		return "", err
	}
	content, err := wire.ParseObject(in.Event.Content)
	if err != nil {
		return "", err
	}
	conv, err := t.tx.ConversationNative(core.Matrix, in.Event.RoomID)
	if errors.Is(err, hub.ErrNone) {
		conv, err = t.make(in.Event.RoomID, core.Address{}, t.creator(in.Stripped), who, core.Address{})
	}
	if err != nil {
		return "", err
	}
	rm, err := t.room(conv)
	if err == nil && t.r.inside(rm.head) {
		return conv, nil // it comes as any other event does
	}
	if err != nil && !errors.Is(err, ErrNotShared) {
		return "", err
	}
	if rm == nil {
		if err := t.preview(conv, in); err != nil {
			return "", err
		}
	}
	if err := t.r.mirror.PutPreview(t.tx, conv, in.Stripped[:min(len(in.Stripped), maxStripped)]); err != nil {
		return "", err
	}
	return conv, t.invite(conv, in.Event, who, who, content)
}

// creator is who made a room, as far as that is told.
func (t *Turn) creator(stripped []json.RawMessage) core.Address {
	for _, raw := range stripped {
		var e struct {
			Type   string `json:"type"`
			Sender string `json:"sender"`
		}
		if json.Unmarshal(raw, &e) != nil || e.Type != wire.TypeCreate {
			continue
		}
		if a, err := t.r.mirror.Names(t.tx).Address(e.Sender); err == nil {
			return a
		}
	}
	return core.Address{Network: core.Matrix, Domain: "invalid"} // which nobody's is
}

// invite has the hub keep the invitation or the knock itself.
func (t *Turn) invite(conv core.ConvID, pdu *wire.PDU, sender, who core.Address, content wire.Object) error {
	m := core.Membership{Target: who, Direct: string(content.Get("is_direct")) == "true"}
	standing, _ := content.String("membership")
	m.Standing = core.Standing(standing)
	m.Name, _ = content.String("displayname")
	m.Reason, _ = content.String("reason")
	t.r.mirror.Adopt(t.tx, mirror.Adopted{PDU: pdu})
	_, err := t.Hub.Apply(hub.Draft{
		Conv: conv, Sender: sender, Content: m,
		Native:  &core.Native{Network: core.Matrix, Type: pdu.Type, Data: pdu.Content},
		Aliases: []core.Alias{{Network: core.Matrix, Kind: "event", Key: pdu.EventID}},
	})
	if err != nil {
		return err
	}
	_, err = t.sql.Exec(`INSERT INTO shared_events (event_id, conv, verdict, state, via_signed, json) VALUES ($1, $2, $3, 0, 0, NULL)
		ON CONFLICT DO NOTHING`, pdu.EventID, string(conv), cited)
	return err
}

// preview has the hub know what is told of the room.
func (t *Turn) preview(conv core.ConvID, in Offer) error {
	res := t.r.mirror.ResolverFor(t.tx, in.Event.Version)
	var list []core.Correction
	for _, raw := range in.Stripped[:min(len(in.Stripped), maxStripped)] {
		var e struct {
			Type     string          `json:"type"`
			StateKey *string         `json:"state_key"`
			Sender   string          `json:"sender"`
			Content  json.RawMessage `json:"content"`
		}
		if json.Unmarshal(raw, &e) != nil || e.StateKey == nil || e.Type == wire.TypeMember && *e.StateKey == *in.Event.StateKey {
			continue
		}
		sender, err := res.Address(e.Sender)
		if err != nil {
			continue
		}
		c, _, err := translate.In(res, translate.Event{Type: e.Type, StateKey: e.StateKey, Sender: e.Sender, Content: e.Content})
		if err != nil {
			continue
		}
		said, err := t.Hub.Apply(hub.Draft{Conv: conv, Sender: sender, Content: c, Found: true})
		if err != nil {
			return err
		}
		k, _ := core.StateKeyOf(said.Content)
		list = append(list, core.Correction{Kind: k.Kind, Key: k.Key, Is: said.ID})
	}
	t.r.mirror.Correcting(t.tx, conv, nil)
	_, err := t.Hub.Correct(conv, list)
	return err
}

// Declined keeps that one of ours has declined an invitation, or taken a knock
// back, by another server's leave: pdu is what it was told.
func (t *Turn) Declined(conv core.ConvID, pdu *wire.PDU) error {
	who, err := t.r.mirror.Names(t.tx).Address(*pdu.StateKey)
	if err != nil {
		return err
	}
	t.r.mirror.Adopt(t.tx, mirror.Adopted{PDU: pdu})
	o, err := wire.ParseObject(pdu.Content)
	if err != nil {
		return err
	}
	standing, _ := o.String("membership")
	_, err = t.Hub.Apply(hub.Draft{
		Conv: conv, Sender: who, Content: core.Membership{Target: who, Standing: core.Standing(standing)},
		Native:  &core.Native{Network: core.Matrix, Type: pdu.Type, Data: pdu.Content},
		Aliases: []core.Alias{{Network: core.Matrix, Kind: "event", Key: pdu.EventID}},
	})
	return err
}
