package shared

import (
	"errors"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// maxPrev is how many events one follows at most.
//
// spec: MX 1.19 SS §5.1
const maxPrev = 20

// minted is an event of ours that was judged and is about to be kept.
type minted struct {
	e    *graph.Event
	rest []string // ends that it does not follow
}

// Verdict implements [hub.Judge]: what is said here is built as the event that
// other servers will see, and held to the rules by the room's current state.
// [hub.ErrAsk] says that it takes a server that is in the room.
//
// spec: MX 1.19 SS §5.1
func (r *Rooms) Verdict(tx hub.Tx, c *core.Conversation, s *core.State, e *core.Event) error {
	t := &Turn{r: r, tx: tx, sql: hubstore.Tx(tx)}
	rm, err := t.room(c.ID)
	if errors.Is(err, ErrNotShared) {
		err = hub.ErrAsk // an invitation into a room that nobody here has been in
	}
	if err != nil {
		return err
	}
	if !r.inside(rm.head) {
		if m, ok := e.Content.(core.Membership); ok && m.Target == e.Sender {
			return hub.ErrAsk
		}
		return hub.Refuse(hub.NotMember, "you are not in this room")
	}
	var cites []*graph.Event
	ends := rm.ends
	pdu, err := r.mirror.Mint(tx, c, s, e, func(p *wire.Proto) error {
		if len(ends) > maxPrev {
			ends = ends[:maxPrev]
		}
		p.PrevEvents, p.Depth = slices.Clone(ends), rm.depth+1
		cites = graph.Needs(rm.current, rm.version, p.Type, p.StateKey, p.Sender, p.Content)
		for _, a := range cites {
			p.AuthEvents = append(p.AuthEvents, a.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	event, err := graph.Link(pdu, rm.create, cites)
	if err != nil {
		return err
	}
	event.ViaSigned = true // by us: see mirror.Signed
	err = graph.CheckCited(event)
	if err == nil {
		err = graph.Allowed(event, rm.current)
	}
	if err != nil {
		return refusal(rm, event, e, s, err)
	}
	r.minted[pdu.EventID] = &minted{event, slices.Clone(rm.ends[len(ends):])}
	tx.OnRollback(func() { delete(r.minted, pdu.EventID) })
	return nil
}

// refusal says why the rules do not allow an event, in the hub's terms.
func refusal(rm *room, event *graph.Event, e *core.Event, s *core.State, why error) error {
	standing := s.Standing(e.Sender)
	m, isMember := e.Content.(core.Membership)
	switch joins := isMember && m.Target == e.Sender && m.Standing == core.Joined; {
	case standing == core.Banned:
		return hub.Refuse(hub.Outcast, "you are banned from this room")
	case joins && (s.JoinRule == core.JoinRestricted || s.JoinRule == core.JoinKnockRestricted):
		return hub.ErrAsk // another server may let her in
	case joins:
		return hub.Refuse(hub.MembersOnly, "you need an invitation to join this room")
	case !isMember && standing != core.Joined:
		return hub.Refuse(hub.NotMember, "you are not in this room")
	}
	return hub.Refuse(hub.Forbidden, "the room does not allow it: %v", why)
}

// Minted implements [mirror.Graph]: the event takes its place in the graph, and
// is owed to the other servers.
func (r *Rooms) Minted(tx hub.Tx, c *core.Conversation, e *core.Event, pdu *wire.PDU) error {
	made := r.minted[pdu.EventID]
	if made == nil {
		return errors.New("an event was kept that had no verdict")
	}
	delete(r.minted, pdu.EventID)
	t := &Turn{r: r, tx: tx, sql: hubstore.Tx(tx)}
	rm, err := t.room(c.ID)
	if err != nil {
		return err
	}
	before, was := rm.current, rm.head
	after := graph.After(before, made.e, graph.Accepted)
	group, err := t.group(rm, after, rm.group, before)
	if err != nil {
		return err
	}
	t.learnState(rm, made.e)
	if err := t.put(rm, entry{pdu: pdu, verdict: accepted, prior: rm.group, state: group, viaSigned: true, shown: true}); err != nil {
		return err
	}
	rm.ends, rm.depth = append(made.rest, pdu.EventID), max(rm.depth, pdu.Depth)
	next, nextGroup := after, group
	if len(made.rest) > 0 {
		if next, nextGroup, err = t.resolveEnds(rm); err != nil {
			return err
		}
	}
	if err := r.cfg.Outbox.Owe(tx, c.ID, pdu.EventID, e.Feed); err != nil {
		return err
	}
	if err := r.oweOutside(tx, e, pdu, was); err != nil {
		return err
	}
	return t.move(rm, was, next, nextGroup, e.Feed)
}

// oweOutside owes an event to the server of the person that it is about, where
// that is not in the room: an invitation is taken back, or somebody banned. The
// invitation itself goes another way.
func (r *Rooms) oweOutside(tx hub.Tx, e *core.Event, pdu *wire.PDU, was head) error {
	m, ok := e.Content.(core.Membership)
	if !ok || m.Standing == core.Invited || pdu.StateKey == nil || r.ours(*pdu.StateKey) {
		return nil
	}
	if server := serverOf(*pdu.StateKey); was.joined[server] == 0 && m.Before != core.Left {
		return r.cfg.Outbox.OweTo(tx, pdu.EventID, server)
	}
	return nil
}
