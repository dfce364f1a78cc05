package shared

import (
	"errors"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/mirror"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// maxPrev is how many events one follows at most.
//
// spec: MX 1.19 SS §5.1
const maxPrev = 20

// minted is an event of ours that was judged and is about to be kept.
type minted struct {
	e *graph.Event
	// before is the state before it, by what it follows, and its group.
	before graph.State
	group  int64
}

// Verdict implements [hub.Judge]: what is said here is built as the event that
// other servers will see, and held to the rules by the room's current state.
// [hub.ErrAsk] says that it takes a server that is in the room, a [hub.Consult]
// that the room's policy server is to be asked.
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
	var signed *wire.PDU
	pdu, err := r.mirror.Mint(tx, c, s, e, func(p *wire.Proto) (err error) {
		if signed = r.approvals.take(tx, p); signed != nil {
			p.PrevEvents, p.AuthEvents, p.Depth, p.Time = signed.PrevEvents, signed.AuthEvents, signed.Depth, signed.Time
			cites, err = t.cited(rm, p.AuthEvents)
			return err
		}
		cites = graph.Needs(rm.current, rm.version, p.Type, p.StateKey, p.Sender, p.Content)
		for _, a := range cites {
			p.AuthEvents = append(p.AuthEvents, a.ID)
		}
		p.Depth = rm.depth + 1
		p.PrevEvents, err = t.follow(rm, cites)
		return err
	})
	if err != nil {
		return err
	}
	made, err := t.judge(rm, pdu, cites)
	if errors.Is(err, graph.ErrDenied) {
		return refusal(e, s, err)
	}
	if err != nil {
		return err
	}
	pol, err := t.policy(rm)
	switch {
	case err != nil:
		return err
	case signed != nil && signed.EventID == pdu.EventID:
		r.mirror.Seal(e.ID, signed)
	case pol != nil && r.approvals.asker != nil && pol.Covers(pdu):
		return r.consult(pol, pdu)
	}
	r.minted[pdu.EventID] = made
	tx.OnRollback(func() { delete(r.minted, pdu.EventID) })
	return nil
}

// judge holds an event of ours to the rules.
func (t *Turn) judge(rm *room, pdu *wire.PDU, cites []*graph.Event) (*minted, error) {
	made := &minted{before: rm.current, group: rm.group}
	var err error
	if made.e, err = graph.Link(pdu, rm.create, cites); err != nil {
		return nil, err
	}
	made.e.ViaSigned = true // by us: see mirror.Signed
	if len(pdu.PrevEvents) != len(rm.ends) || !slices.Equal(pdu.PrevEvents, rm.ends) {
		if made.before, made.group, err = t.before(rm, Incoming{PDU: pdu}); err != nil {
			return nil, err
		}
		if err := graph.Allowed(made.e, made.before); err != nil {
			return nil, err
		}
	}
	if err := graph.CheckCited(made.e); err != nil {
		return nil, err
	}
	return made, graph.Allowed(made.e, rm.current)
}

// follow is what an event of ours that cites some events follows: the ends, and
// where they are too many those in whose state stands what it cites.
func (t *Turn) follow(rm *room, cites []*graph.Event) ([]string, error) {
	if len(rm.ends) <= maxPrev {
		return slices.Clone(rm.ends), nil
	}
	var agree, rest []string
	for _, id := range rm.ends {
		group, _, err := t.after(rm, id)
		if err != nil {
			return nil, err
		}
		s, err := t.state(rm, group)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(cites, func(a *graph.Event) bool { return s.Get(a.Type, *a.StateKey) != a }) {
			rest = append(rest, id)
		} else if agree = append(agree, id); len(agree) == maxPrev {
			break
		}
	}
	return append(agree, rest...)[:maxPrev], nil
}

// cited are events that are known, in their order.
func (t *Turn) cited(rm *room, ids []string) ([]*graph.Event, error) {
	missing, err := t.want(rm, ids...)
	if err == nil && len(missing) > 0 {
		err = &MissingError{Auth: missing}
	}
	if err != nil {
		return nil, err
	}
	out := make([]*graph.Event, len(ids))
	for i, id := range ids {
		out[i] = rm.events[id]
	}
	return out, nil
}

// refusal says why the rules do not allow an event, in the hub's terms.
func refusal(e *core.Event, s *core.State, why error) error {
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
	was := rm.head
	after := graph.After(made.before, made.e, graph.Accepted)
	group, err := t.group(rm, after, made.group, made.before)
	if err != nil {
		return err
	}
	t.learnState(rm, made.e)
	if err := t.put(rm, entry{pdu: pdu, verdict: accepted, prior: made.group, state: group, viaSigned: true, shown: true}); err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(rm.ends), func(id string) bool { return slices.Contains(pdu.PrevEvents, id) })
	rm.ends, rm.depth = append(rest, pdu.EventID), max(rm.depth, pdu.Depth)
	next, nextGroup := after, group
	if len(rest) > 0 {
		if next, nextGroup, err = t.resolveEnds(rm); err != nil {
			return err
		}
		t.unsettle(rm, graph.After(was.current, made.e, graph.Accepted), next)
	}
	if err := r.cfg.Outbox.Owe(tx, c.ID, pdu.EventID, e.Feed); err != nil {
		return err
	}
	if err := r.oweOutside(tx, e, pdu, was); err != nil {
		return err
	}
	return t.move(rm, was, next, nextGroup, e.Feed)
}

// Alone implements [mirror.Graph].
func (r *Rooms) Alone(tx hub.Tx, e *core.Event, pdu *wire.PDU) error {
	return r.oweOutside(tx, e, pdu, head{})
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

// unsettled is where the state that the hub will have after an event of ours is
// not the graph's.
type unsettled struct {
	was    graph.State
	pieces []mirror.Piece
}

// unsettle notes it.
func (t *Turn) unsettle(rm *room, was, next graph.State) {
	var u unsettled
	was.Diff(next, func(old, is *graph.Event) { u.pieces = append(u.pieces, piece(old, is)) })
	if len(u.pieces) == 0 {
		return
	}
	u.was = was
	t.r.unsettled[rm.conv] = u
	t.tx.OnRollback(func() { delete(t.r.unsettled, rm.conv) })
}

// Settle implements [hub.Settler].
func (r *Rooms) Settle(g *hub.GraphTurn, conv core.ConvID) error {
	u, ok := r.unsettled[conv]
	if !ok {
		return nil
	}
	delete(r.unsettled, conv)
	t := &Turn{r: r, Hub: g, tx: g.Tx(), sql: hubstore.Tx(g.Tx())}
	rm, err := t.room(conv)
	if err != nil {
		return err
	}
	return t.correct(rm, u.pieces, u.was)
}
