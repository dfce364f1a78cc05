package shared

import (
	"encoding/json"
	"errors"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// ErrPartial says that a room's members are not all known yet, so that nothing
// can be said about them to others.
var ErrPartial = errors.New("the members of the room are not all known yet")

// Propose lays out a membership event for somebody on another server to sign: p
// without room, previous events, auth events and depth, which are filled in. It
// is held to the rules as if it came now; a room that is this server's alone
// stays so. [ErrNotShared] says that none of ours is in the room.
//
// spec: MX 1.19 SS §10
func (t *Turn) Propose(conv core.ConvID, p wire.Proto) (wire.Proto, *wire.Version, error) {
	rm, err := t.now(conv, &p)
	if err != nil {
		return p, nil, err
	}
	p.RoomID, p.Depth = rm.id, rm.depth+1
	p.PrevEvents = slices.Clone(rm.ends[:min(len(rm.ends), maxPrev)])
	cites := graph.Needs(rm.current, rm.version, p.Type, p.StateKey, p.Sender, p.Content)
	for _, e := range cites {
		p.AuthEvents = append(p.AuthEvents, e.ID)
	}
	pdu, err := wire.Build(rm.version, p)
	if err != nil {
		return p, nil, err
	}
	e, err := graph.Link(pdu, rm.create, cites)
	if err != nil {
		return p, nil, err
	}
	e.ViaSigned = true // it will be
	if err = graph.CheckCited(e); err == nil {
		err = graph.Allowed(e, rm.current)
	}
	if err != nil {
		return p, rm.version, hub.Refuse(hub.Forbidden, "the room does not allow it: %v", err)
	}
	return p, rm.version, nil
}

// now is a room as it is. Of one that is this server's alone, only the state that
// has a say in p is read.
func (t *Turn) now(conv core.ConvID, p *wire.Proto) (*room, error) {
	c, err := t.tx.Conversation(conv)
	if err != nil {
		return nil, err
	}
	switch c.Authority {
	case core.Graph:
		rm, err := t.room(conv)
		switch {
		case err != nil:
			return nil, err
		case !t.r.inside(rm.head):
			return nil, ErrNotShared
		case rm.partial != "":
			return nil, ErrPartial
		}
		return rm, nil
	case core.Elsewhere:
		return nil, ErrNotShared
	}
	rm, err := t.early(&c)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, k := range wire.AuthTypes(rm.version, p.Type, p.StateKey, p.Sender, p.Content) {
		e, err := t.r.mirror.StateEvent(t.tx, conv, k.Type, k.Key)
		if err == nil {
			ids = append(ids, e.EventID)
		} else if !errors.Is(err, hub.ErrNone) {
			return nil, err
		}
	}
	rm.current, err = t.stateOf(rm, ids)
	return rm, err
}

// early is a room that is this server's alone, with its end and without its
// state.
func (t *Turn) early(c *core.Conversation) (*room, error) {
	s, err := t.tx.State(c.ID)
	if err != nil {
		return nil, err
	}
	end, err := t.r.mirror.End(t.tx, c)
	if err != nil {
		return nil, err
	}
	rm := &room{
		conv: c.ID, id: c.Native[core.Matrix], events: map[string]*graph.Event{}, states: map[int64]graph.State{},
	}
	rm.ends, rm.depth = []string{end.EventID}, end.Depth
	rm.version, err = wire.VersionOf(s.Creation.Version)
	return rm, err
}

// Before is the state before an event of which the previous and the cited ones
// are known, and the event with what it cites. Neither is changed after the turn.
func (t *Turn) Before(conv core.ConvID, in Incoming) (graph.State, *graph.Event, error) {
	rm, err := t.room(conv)
	if err != nil {
		return graph.State{}, nil, err
	}
	if rm.partial != "" {
		return graph.State{}, nil, ErrPartial
	}
	e, err := t.link(rm, in.PDU, in.ViaSigned)
	if err != nil {
		return graph.State{}, nil, err
	}
	s, _, err := t.before(rm, in)
	return s, e, err
}

// Inside reports whether anybody of ours is in a shared room.
func (t *Turn) Inside(conv core.ConvID) (bool, error) {
	rm, err := t.room(conv)
	if errors.Is(err, ErrNotShared) {
		return false, nil
	}
	return err == nil && t.r.inside(rm.head), err
}

// Servers lists the other servers of which somebody is known to be in a room.
func (t *Turn) Servers(conv core.ConvID) ([]string, error) {
	rm, err := t.room(conv)
	if err != nil {
		return nil, err
	}
	return t.r.others(rm.head), nil
}

// Wire are events as they go to other servers, with signatures, by their IDs;
// those unknown are left out.
func (r *Rooms) Wire(v hub.View, version *wire.Version, ids []string) (map[string]json.RawMessage, error) {
	got, err := read(hubstore.Querier(v), version, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(got))
	for id, k := range got {
		if out[id], err = r.Outgoing(k.pdu); err != nil {
			return nil, err
		}
	}
	return out, nil
}
