package hub

import (
	"context"
	"errors"

	"parley/core"
)

// A conversation whose authority is elsewhere is a room on another server, of
// which one account here holds a projection: her own, because what a room
// shows depends on who looks. What the room does is applied without asking
// again. What she says there is kept, and owed to the room; what only the room
// can do (a kick, a topic, her own leaving) is asked of it first.

// Remote asks the rooms of one network that are elsewhere, and tells the hub
// what they do by [Hub.Project] and [Hub.Apply].
type Remote interface {
	Network() core.Network
	// Enter makes r.Who a member of the room at an address, and returns the
	// conversation that shows it to her. r.Conv is not looked at.
	Enter(ctx context.Context, room core.Address, r JoinRequest) (core.ConvID, error)
	// Look finds a room, and returns the conversation that is to show it to
	// one who is not in it.
	Look(ctx context.Context, who, room core.Address) (core.ConvID, error)
	// Ask has the room do what d asks. When it returns without an error, the
	// projection shows that it is done. A refusal is the room's own.
	Ask(ctx context.Context, c core.Conversation, s *core.State, d Draft) error
	// Older fetches history from before what is known, and reports whether it
	// found any.
	Older(ctx context.Context, c core.Conversation, limit int) (found bool, err error)
}

// projected is the position of the first event of a projection that is not of
// the state in which it began: older history is learnt downwards from here.
const projected core.Position = 1 << 40

// Ground is a position above the state with which a graph of other servers was
// found, and below all of its history.
const Ground = projected / 2

// Found reports whether an event is of the state in which a graph was found when
// it was entered: nobody here was there, and it is in nobody's history. Once more
// of the history is known it may be: see [GraphTurn.Lower].
func Found(e *core.Event) bool { return e.Feed < 0 && e.Position < Ground }

// Beginning is a position before all of a conversation's history and after what
// was found of its state, as far as that can be told without looking at all of
// it: zero for one that began here.
func Beginning(v View, conv core.ConvID) (core.Position, error) {
	c, err := v.Conversation(conv)
	if err != nil || c.Authority != core.Graph {
		return 0, err
	}
	first, err := v.Page(Query{Conv: conv, Limit: 1})
	if err != nil || len(first) == 0 || !Found(&first[0]) {
		return 0, err
	}
	return Ground, nil
}

// ErrAsk says that only another server can do it: the room's own, or one that
// is in the room. A [Judge] that returns it has the [Remote] asked.
var ErrAsk error = &Refusal{Unable, "only the room's own server can do that"}

// judgeElsewhere decides what need not be asked of the room first: what a
// member says.
func judgeElsewhere(s *core.State, e, target *core.Event) error {
	action, state := core.Action(e.Content)
	if _, ok := core.StateKeyOf(e.Content); ok {
		return ErrAsk
	}
	switch s.Standing(e.Sender) {
	case core.Joined:
	case core.Banned:
		return Refuse(Outcast, "you are banned from this room")
	default:
		return Refuse(NotMember, "you are not in this room")
	}
	if _, ok := e.Content.(core.Retract); ok && target != nil && target.Sender != e.Sender {
		return ErrAsk
	}
	if have, need := s.Level(e.Sender), s.Needs(action, state); have < need {
		return Refuse(Forbidden, "you may not speak in this room: it is moderated")
	}
	return nil
}

// ask has the room do what d asks, and returns the event that says that it
// has.
func (h *Hub) ask(ctx context.Context, d Draft) (core.Event, error) {
	c, s, err := h.conversation(ctx, d.Conv)
	if err != nil {
		return core.Event{}, err
	}
	r := h.remoteOf(c)
	if r == nil {
		return core.Event{}, ErrAsk
	}
	if err := r.Ask(ctx, c, s, d); err != nil {
		h.count.Count("refused", string(core.KindOf(d.Content)), string(CodeOf(err)))
		return core.Event{}, err
	}
	return h.asked(ctx, d)
}

// asked finds what a room did because of d, and keeps with it what belongs to
// d.
func (h *Hub) asked(ctx context.Context, d Draft) (e core.Event, err error) {
	err = h.Write(ctx, func(tx Tx) error {
		id, err := doneBy(tx, d)
		if err != nil {
			return err
		}
		if e, err = tx.Event(id); err != nil {
			return refuseNone(err, "the room's server said yes and did nothing")
		}
		if err := tx.PutAliases(id, d.Aliases); err != nil && CodeOf(err) != Conflict {
			return err
		}
		if d.With != nil {
			return d.With(tx, &e)
		}
		return nil
	})
	return e, err
}

// doneBy is the event that stands for what d asked.
func doneBy(v View, d Draft) (core.EventID, error) {
	if target := core.Target(d.Content); target != "" {
		e, err := v.Event(target)
		return e.Retracted, err
	}
	s, err := v.State(d.Conv)
	if err != nil {
		return "", err
	}
	key, _ := core.StateKeyOf(d.Content)
	return s.Events[key], nil
}

// remoteOf is who asks others about a conversation; nil if there is nobody to
// ask.
func (h *Hub) remoteOf(c core.Conversation) Remote {
	switch c.Authority {
	case core.Elsewhere:
		return h.remotes[c.Address.Network]
	case core.Graph:
		return h.remotes[core.Matrix]
	}
	return nil
}

func (h *Hub) conversation(ctx context.Context, id core.ConvID) (c core.Conversation, s *core.State, err error) {
	err = h.Read(ctx, func(v View) error {
		if c, err = v.Conversation(id); err != nil {
			return refuseNone(err, "there is no such conversation")
		}
		s, err = v.State(id)
		return err
	})
	return c, s, err
}

// enter joins a conversation elsewhere.
func (h *Hub) enter(ctx context.Context, r JoinRequest) (core.Event, error) {
	c, _, err := h.conversation(ctx, r.Conv)
	if err != nil {
		return core.Event{}, err
	}
	if c.Authority == core.Graph {
		return h.enterGraph(ctx, r)
	}
	id, err := h.EnterAt(ctx, c.Address, r)
	if err != nil {
		return core.Event{}, err
	}
	return h.asked(ctx, Draft{Conv: id, With: r.With, Content: core.Membership{Target: r.Who}})
}

// Look finds a room on another server and returns the conversation that would
// show it to an account that enters it.
func (h *Hub) Look(ctx context.Context, who, room core.Address) (core.ConvID, error) {
	remote := h.remotes[room.Network]
	if remote == nil || h.ours(room) || !h.ours(who) {
		return "", Refuse(NotFound, "there is no room %s", room.Bare())
	}
	return remote.Look(ctx, who, room)
}

// EnterAt makes one a member of a room on another server, and returns the
// conversation that shows it to her. r.Conv and r.With are not looked at.
func (h *Hub) EnterAt(ctx context.Context, room core.Address, r JoinRequest) (core.ConvID, error) {
	remote := h.remotes[room.Network]
	if remote == nil || h.ours(room) {
		return "", Refuse(NotFound, "there is no room %s", room.Bare())
	}
	return remote.Enter(ctx, room, r)
}

// Older asks a room elsewhere for history, if of what is before a position (zero
// for the end) fewer than limit events are known. For conversations here there
// is nothing to ask.
func (h *Hub) Older(ctx context.Context, conv core.ConvID, before core.Position, limit int) error {
	var c core.Conversation
	var known []core.Event
	err := h.Read(ctx, func(v View) (err error) {
		if c, err = v.Conversation(conv); err != nil || c.Authority == core.Here {
			return err
		}
		known, err = v.Page(Query{Conv: conv, After: projected / 2, Before: before, Limit: limit})
		return err
	})
	r := h.remoteOf(c)
	if err != nil || r == nil || len(known) >= limit {
		return err
	}
	_, err = r.Older(ctx, c, limit)
	return err
}

// RoomFor finds the conversation that shows one a room: a room here by any of
// its addresses, one elsewhere by its own.
func RoomFor(v View, who, a core.Address) (core.ConvID, error) {
	id, err := v.ConversationAt(a)
	if err == nil || a.IsLocal() || !errors.Is(err, ErrNone) {
		return id, err
	}
	places, err := v.Places(who)
	if err != nil {
		return "", err
	}
	for _, p := range places {
		if !p.Peer.IsZero() {
			continue
		}
		c, err := v.Conversation(p.Conv)
		if err != nil {
			return "", err
		}
		if c.Authority == core.Elsewhere && c.Address == a {
			return c.ID, nil
		}
	}
	return "", ErrNone
}

// roommates says whether a is an occupant of a room elsewhere in which the
// account is: who is in a room talks with those who are there.
func roommates(v View, account, a core.Address) (bool, error) {
	room, _, ok := a.Occupant()
	if !ok {
		return false, nil
	}
	id, err := RoomFor(v, account, room)
	if err != nil {
		_, _, err = none(id, err)
		return false, err
	}
	s, err := v.State(id)
	return err == nil && s.Standing(account) == core.Joined, err
}

// Project begins to show an account a room on another server. initial is the
// state in which it is found; Conv is filled in, and a missing Sender is the
// room.
func (h *Hub) Project(ctx context.Context, room core.Address, initial []Draft, with func(Tx, core.Conversation) error) (core.Conversation, error) {
	var c core.Conversation
	err := h.turn(ctx, func(t *turn) error {
		c = core.Conversation{
			ID: core.NewConvID(), Shape: core.Group, Authority: core.Elsewhere, Creator: room, Created: t.now,
			Address: room, Native: map[core.Network]string{},
		}
		if err := t.tx.PutConversation(c); err != nil {
			return err
		}
		begin := Draft{Content: core.Change{Aspect: core.AspectCreated, Creation: &core.Creation{
			Shape: core.Group, Creators: []core.Address{room}, Supreme: true, Version: t.h.cfg.RoomVersion,
		}}}
		for _, d := range append([]Draft{begin}, initial...) {
			if d.Conv, d.Accepted = c.ID, true; d.Sender.IsZero() {
				d.Sender = room
			}
			if _, err := t.admit(d); err != nil {
				return err
			}
		}
		if with != nil {
			if err := with(t.tx, c); err != nil {
				return err
			}
		}
		var err error
		c, err = t.tx.Conversation(c.ID)
		return err
	})
	return c, err
}

// Apply applies what a room elsewhere has done, in one turn.
func (h *Hub) Apply(ctx context.Context, drafts ...Draft) ([]core.Event, error) {
	for i := range drafts {
		drafts[i].Accepted, drafts[i].at = true, projected
	}
	return h.SubmitAll(ctx, drafts)
}

// numberBelow puts an event below all that is known of a projection, and above
// the state in which it began. It is no news: its feed number is negative.
func (t *turn) numberBelow(e *core.Event) error {
	first, err := t.tx.Page(Query{Conv: e.Conv, After: projected / 2, Limit: 1})
	if err != nil {
		return err
	}
	e.Position, e.Feed = projected, -t.tx.NextFeed()
	if len(first) > 0 {
		e.Position = first[0].Position - 1
	}
	return nil
}

// postElsewhere puts what a member has said into the outbox, for the room. Each
// projection is a destination of its own: one that is cut off holds up no
// other.
func (t *turn) postElsewhere(p place, e *core.Event, d Draft) error {
	if d.Accepted {
		return nil
	}
	return t.parcel(Parcel{
		Network: p.c.Address.Network, Dest: DestinationOf(p.c), To: []core.Address{p.c.Address},
		From: e.Sender, Event: e.ID, Conv: e.Conv,
	})
}

// DestinationOf is the destination of what is owed to a room elsewhere: its
// server and, after a '/', the conversation.
func DestinationOf(c *core.Conversation) string {
	return c.Address.Domain + "/" + string(c.ID)
}

// Taken notes that a room elsewhere has taken a message, and what it calls it.
func (h *Hub) Taken(ctx context.Context, id core.EventID, room core.Address, names ...core.Alias) error {
	return h.turn(ctx, func(t *turn) error {
		if err := t.tx.PutAliases(id, names); err != nil && CodeOf(err) != Conflict {
			return err
		}
		_, err := t.report(Report{Event: id, To: room, Stage: core.StageThere})
		return err
	})
}
