package joining

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"parley/core"
	"parley/matrix/federation"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// enterBy enters a room by one server.
//
// spec: MX 1.19 SS §10
func (j *Joining) enterBy(ctx context.Context, server string, a *asking, at core.Address) (core.ConvID, error) {
	t, err := j.makeTemplate(ctx, server, a)
	if err != nil {
		return "", err
	}
	pdu, err := j.build(ctx, a, t)
	if err != nil {
		return "", ownFault(err)
	}
	body, err := j.cfg.Client.Open(ctx, federation.Call{
		Origin: a.origin(), Destination: server, Method: http.MethodPut, Insist: true, Body: pdu.JSON,
		URI: a.sendURI("v2", pdu, url.Values{"omit_members": {"true"}}), MaxAnswer: j.cfg.MaxAnswer, Timeout: j.cfg.Timeout,
	})
	if err != nil {
		return "", err
	}
	defer body.Close()
	a.taken = append(a.taken, server)
	f, err := j.readWelcome(ctx, body, a, t.version, pdu)
	if err != nil {
		return "", err
	}
	conv, rest, err := j.keep(ctx, server, a, at, f)
	if missing := (*shared.MissingError)(nil); errors.As(err, &missing) || errors.Is(err, graph.ErrLink) {
		return "", unusable("%v", err)
	}
	if err == nil && rest != nil {
		j.fill(conv, rest)
	}
	return conv, ownFault(err)
}

// entry is what of a room is kept at once, and whether members are left for
// later.
func (j *Joining) entry(server string, f *found) (in shared.Entry, rest bool) {
	var first []string
	members := 0
	for _, pdu := range f.all {
		if !f.state[pdu.EventID] {
			continue
		}
		if pdu.Type == wire.TypeMember {
			members++
		} else {
			first = append(first, pdu.EventID)
		}
	}
	rest = members > j.cfg.MaxMembers
	all := f.all
	if rest {
		all = f.closure(append(first, f.join.AuthEvents...))
	}
	in.Join = incoming(f.join)
	for _, pdu := range all {
		in.Auth = append(in.Auth, incoming(pdu))
		if f.state[pdu.EventID] {
			in.State = append(in.State, incoming(pdu))
		}
	}
	if rest || f.omitted || f.silent > 0 {
		in.Partial = server
	}
	return in, rest
}

// keep has the room kept, in one turn. rest is what is left of it for later, if
// it is there already.
func (j *Joining) keep(ctx context.Context, server string, a *asking, at core.Address, f *found) (conv core.ConvID, rest *found, err error) {
	in, held := j.entry(server, f)
	in.RoomID, in.Version, in.Address = a.roomID, f.version, at
	err = j.cfg.Rooms.Turn(ctx, func(t *shared.Turn) error {
		was, err := j.inside(t, a.roomID)
		if err != nil {
			return err
		}
		if conv, err = t.Enter(in); err != nil || was {
			return err
		}
		return j.notePartial(t, conv, in, a.origin(), f.servers)
	})
	if err != nil || in.Partial == "" {
		return conv, nil, err
	}
	if rest = f; !held || f.omitted || f.silent > 0 {
		rest = &found{} // which has to be asked for
	}
	return conv, rest, nil
}

// inside reports whether one of ours is in a room.
func (j *Joining) inside(t *shared.Turn, roomID string) (bool, error) {
	conv, err := t.Tx().ConversationNative(core.Matrix, roomID)
	if err != nil {
		return false, noneIs(err)
	}
	return t.Inside(conv)
}

// notePartial writes down that members are missing, and that the servers which
// are said to be in the room are owed what is said in it meanwhile.
//
// spec: MX 1.19 SS §10
func (j *Joining) notePartial(t *shared.Turn, conv core.ConvID, in shared.Entry, origin string, servers []string) error {
	sql := hubstore.Tx(t.Tx())
	if _, err := sql.Exec(`DELETE FROM joining_partial WHERE conv = $1`, string(conv)); err != nil || in.Partial == "" {
		return err
	}
	ask := append([]string{in.Partial}, servers...)
	ask = candidates(j.ours, ask)
	if _, err := sql.Exec(`INSERT INTO joining_partial (conv, event_id, origin, servers) VALUES ($1, $2, $3, $4)`,
		string(conv), in.Join.PDU.EventID, origin, string(compact(ask))); err != nil {
		return err
	}
	id, err := j.cfg.Mirror.CoreID(t.Tx(), in.Join.PDU.EventID)
	if err != nil {
		return err
	}
	e, err := t.Tx().Event(id)
	if err != nil {
		return err
	}
	return j.cfg.Outbox.Peers(t.Tx(), conv, servers, nil, e.Feed)
}

// retreat takes back a join that servers have taken and of which nothing came here: to everybody
// else she would be in the room.
func (j *Joining) retreat(ctx context.Context, a *asking) {
	if len(a.taken) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.cfg.AskTimeout)
	defer cancel()
	back := *a
	back.kind, back.member, back.native = leave, core.Membership{Target: a.who, Standing: core.Left}, nil
	err := j.byAny(ctx, &back, a.taken, func(server string) error {
		_, err := j.leaveBy(ctx, server, &back)
		return err
	})
	if err != nil {
		j.cfg.Log.Warn("a join that came to nothing could not be taken back", "room", a.roomID, "who", a.userID, "err", err)
	}
}

// leaveBy has one server take a leave, and returns it.
//
// spec: MX 1.19 SS §13
func (j *Joining) leaveBy(ctx context.Context, server string, a *asking) (*wire.PDU, error) {
	t, err := j.makeTemplate(ctx, server, a)
	if err != nil {
		return nil, err
	}
	pdu, err := j.build(ctx, a, t)
	if err != nil {
		return nil, ownFault(err)
	}
	_, err = j.cfg.Client.Do(ctx, federation.Call{
		Origin: a.origin(), Destination: server, Method: http.MethodPut, Insist: true, Body: pdu.JSON,
		URI: a.sendURI("v2", pdu, nil), MaxAnswer: maxTemplate, Timeout: j.cfg.AskTimeout,
	})
	return pdu, err
}

// knockBy has one server take a knock.
//
// spec: MX 1.19 SS §11
func (j *Joining) knockBy(ctx context.Context, server string, a *asking) (core.ConvID, error) {
	t, err := j.makeTemplate(ctx, server, a)
	if err != nil {
		return "", err
	}
	pdu, err := j.build(ctx, a, t)
	if err != nil {
		return "", ownFault(err)
	}
	raw, err := j.cfg.Client.Do(ctx, federation.Call{
		Origin: a.origin(), Destination: server, Method: http.MethodPut, Insist: true, Body: pdu.JSON,
		URI: a.sendURI("v1", pdu, nil), MaxAnswer: maxInvite, Timeout: j.cfg.AskTimeout,
	})
	if err != nil {
		return "", err
	}
	var answer struct {
		Stripped []json.RawMessage `json:"knock_room_state"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return "", unusable("%v", err)
	}
	stripped, err := j.told(ctx, t.version, a.roomID, answer.Stripped)
	if err != nil {
		return "", err
	}
	var conv core.ConvID
	err = j.cfg.Rooms.Turn(ctx, func(turn *shared.Turn) (err error) {
		conv, err = turn.Knocked(shared.Offer{Event: pdu, Stripped: stripped})
		return err
	})
	return conv, ownFault(err)
}

// told is what of the stripped state that came with an answer can be shown. The
// knock is made, whatever else the answer says.
//
// spec: MX 1.19 SS §11
func (j *Joining) told(ctx context.Context, v *wire.Version, roomID string, stripped []json.RawMessage) ([]json.RawMessage, error) {
	if !v.HashedRoomID {
		out, err := j.checkStripped(ctx, v, roomID, stripped)
		if err != nil { // too much of it
			out = nil
		}
		return out, nil
	}
	var pdus []*wire.PDU
	for _, raw := range stripped[:min(len(stripped), maxStripped)] {
		if pdu, err := wire.Parse(v, raw); err == nil {
			pdus = append(pdus, pdu)
		}
	}
	genuine, _, err := j.genuine(ctx, 0, roomID, pdus)
	if err != nil {
		return nil, err
	}
	var out []json.RawMessage
	for _, pdu := range pdus {
		if g := genuine[pdu.EventID]; g != nil {
			out = append(out, g.JSON)
		}
	}
	return out, nil
}
