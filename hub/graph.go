package hub

import (
	"context"
	"errors"
	"strings"

	"parley/core"
)

// A conversation whose authority is a graph is a Matrix room that servers other
// than this one take part in. Its [Judge] decides by the room's resolved state;
// what other servers did is applied in a [GraphTurn], without asking again, and
// where the servers' branches meet the outcome may be another than it was: that
// is a correction, which has no actor.

// GraphTurn is one turn of the writer in which the judge of graphs applies what
// happened in them. It is good until the function that it was given to returns.
type GraphTurn struct {
	t *turn
}

// Graph runs f as one turn: all that it applies is on disk when Graph returns
// nil, or else nothing.
func (h *Hub) Graph(ctx context.Context, f func(*GraphTurn) error) error {
	return h.turn(ctx, func(t *turn) error { return f(&GraphTurn{t}) })
}

// Tx is the transaction of the turn.
func (g *GraphTurn) Tx() Tx { return g.t.tx }

// Begin makes a conversation of a room that is known from other servers. Its
// state is for Apply and Correct. A group gets an address here, by which other
// protocols enter it.
func (g *GraphTurn) Begin(c core.Conversation) (core.Conversation, error) {
	t := g.t
	c.Authority, c.Created = core.Graph, t.now
	if c.ID == "" {
		c.ID = core.NewConvID()
	}
	if c.Shape == core.Group && c.Address.IsZero() {
		c.Address = core.LocalAddress(string(c.ID), t.h.Home())
	}
	if err := t.tx.PutConversation(c); err != nil {
		return c, err
	}
	if c.Shape == core.Group {
		return c, t.tx.PutRoomAddress(c.Address, c.ID, c.Creator)
	}
	return c, nil
}

// Share gives a conversation that was the hub's own to the graph, for good.
func (g *GraphTurn) Share(id core.ConvID) error {
	c, err := g.t.tx.Conversation(id)
	if err != nil || c.Authority != core.Here {
		return err
	}
	c.Authority = core.Graph
	return g.t.tx.PutConversation(c)
}

// Consent is [Hub.Consent] within the turn.
func (g *GraphTurn) Consent(n ContactNotice) error { return g.t.consent(n) }

// Apply keeps an event of a graph. The draft is taken for accepted.
func (g *GraphTurn) Apply(d Draft) (core.Event, error) {
	d.Accepted = true
	c, err := g.t.tx.Conversation(d.Conv)
	if err != nil {
		return core.Event{}, err
	}
	if !g.t.h.ours(c.Creator) {
		d.at = projected
	}
	return g.t.admit(d)
}

// Lower moves an event that was found as state to where it belongs in the
// history: below all that is known of the timeline.
func (g *GraphTurn) Lower(id core.EventID) (core.Position, error) {
	e, err := g.t.tx.Event(id)
	if err != nil || e.Position >= projected/2 {
		return e.Position, err
	}
	feed := e.Feed
	if err := g.t.numberBelow(&e); err != nil {
		return 0, err
	}
	e.Feed = feed
	return e.Position, g.t.tx.PutPosition(id, e.Position)
}

// Correct makes other events the state of a conversation than were, without
// anybody having done anything. All the events that it names are kept already.
// Members hear of it by one event of the aspect [core.AspectCorrected].
func (g *GraphTurn) Correct(id core.ConvID, list []core.Correction) (core.Event, error) {
	t := g.t
	if len(list) == 0 {
		return core.Event{}, nil
	}
	p, err := t.place(id)
	if err != nil {
		return core.Event{}, err
	}
	e := core.Event{
		ID: core.NewEventID(), Conv: id, Time: t.now, Origin: t.now,
		Content: core.Change{Aspect: core.AspectCorrected, Corrected: list},
	}
	d := Draft{Conv: id, Accepted: true}
	if !t.h.ours(p.c.Creator) {
		d.at = projected
	}
	if err := t.keep(p, &e, d); err != nil {
		return e, err
	}
	after := p.s.Clone()
	for _, c := range list {
		if c.Is == "" {
			after.Clear(c.StateKey())
			continue
		}
		sets, err := t.tx.Event(c.Is)
		if err != nil {
			return e, err
		}
		after.Apply(&sets)
	}
	if err := t.tx.PutCorrected(p.c, after, &e); err != nil {
		return e, err
	}
	t.h.count.Count("corrected", string(core.Matrix))
	if err := t.tellEvent(place{p.c, after}, p.s, &e, nil, d); err != nil {
		return e, err
	}
	return e, t.postCorrection(place{p.c, after}, p.s, &e, list)
}

// postCorrection tells the members who are on servers of other networks than
// Matrix, and those who by the correction are members no longer.
func (t *turn) postCorrection(p place, before *core.State, e *core.Event, list []core.Correction) error {
	all := p.s
	for _, c := range list {
		a, err := core.ParseAddress(c.Key)
		if c.Kind != string(core.KindMembership) || err != nil || a.IsLocal() || a.Network == core.Matrix {
			continue
		}
		if before.Standing(a) == core.Joined && all.Standing(a) != core.Joined {
			if all == p.s {
				all = p.s.Clone()
			}
			all.Members[a] = before.Members[a]
		}
	}
	return t.post(place{p.c, all}, before, e, true)
}

// Uncorrected is the state before a correction, from the state after it: for who
// tells of one later.
func Uncorrected(v View, s *core.State, ch core.Change) (*core.State, error) {
	before := s.Clone()
	for _, c := range ch.Corrected {
		before.Clear(c.StateKey())
		if c.Was == "" {
			continue
		}
		e, err := v.Event(c.Was)
		if err != nil {
			return nil, err
		}
		before.Apply(&e)
	}
	return before, nil
}

// displaced are those who live here and are not in a conversation by what it was
// corrected to, if before they were something else in it.
func (h *Hub) displaced(before, after *core.State, list []core.Correction) (out []core.Address) {
	for _, c := range list {
		if c.Kind != string(core.KindMembership) {
			continue
		}
		a, err := core.ParseAddress(c.Key)
		if now := after.Standing(a); err == nil && h.ours(a) && now != core.Joined && now != before.Standing(a) {
			out = append(out, a)
		}
	}
	return out
}

// accepted fills in what the hub adds to a membership that an authority
// elsewhere has accepted: what it changes and, in a graph, the stable nick.
func (t *turn) accepted(p place, c core.Membership) core.Membership {
	was := p.s.Members[c.Target]
	c.Before, c.OldNick = p.s.Standing(c.Target), was.Nick
	if p.c.Authority != core.Graph || c.Nick != "" {
		return c
	}
	if c.Standing != core.Joined && c.Standing != core.Invited {
		c.Nick = was.Nick
		return c
	}
	nicks := t.nicksOf(p)
	c.Nick = chooseFree(func(nick string) bool {
		holder, taken := nicks[strings.ToLower(nick)]
		return !taken || holder == c.Target
	}, c.Target, was.Nick, c.Name)
	nicks[strings.ToLower(c.Nick)] = c.Target
	return c
}

// nicksOf are the nicks of a conversation in lower case, found once a turn: a
// room of thousands is entered in few.
func (t *turn) nicksOf(p place) map[string]core.Address {
	if n, ok := t.nicks[p.c.ID]; ok {
		return n
	}
	n := make(map[string]core.Address, len(p.s.Members))
	for _, m := range p.s.Members {
		if m.Standing == core.Joined || m.Standing == core.Invited {
			n[strings.ToLower(m.Nick)] = m.Address
		}
	}
	if t.nicks == nil {
		t.nicks = map[core.ConvID]map[string]core.Address{}
	}
	t.nicks[p.c.ID] = n
	return n
}

// numberFound puts an event of the state in which a room was found above what
// was found before, and below the timeline. It is no news.
func (t *turn) numberFound(e *core.Event) error {
	last, ok := t.found[e.Conv]
	if !ok {
		page, err := t.tx.Page(Query{Conv: e.Conv, Before: projected / 2, Latest: true, Limit: 1})
		if err != nil {
			return err
		}
		if len(page) > 0 {
			last = page[0].Position
		}
		if t.found == nil {
			t.found = map[core.ConvID]core.Position{}
		}
	}
	e.Position, e.Feed = last+1, -t.tx.NextFeed()
	t.found[e.Conv] = e.Position
	return nil
}

// joinLater joins once the turn is over, where others have to be asked first: in
// a turn nobody waits for another server.
func (t *turn) joinLater(r JoinRequest) error {
	_, err := t.join(r)
	if !errors.Is(err, ErrAsk) {
		return err
	}
	t.after = append(t.after, func() {
		go t.h.outbox.during(func() {
			ctx, cancel := context.WithTimeout(context.Background(), deliverTimeout)
			defer cancel()
			if _, err := t.h.Join(ctx, r); err != nil {
				t.h.log.Info("cannot enter a conversation of another server", "conversation", r.Conv, "account", r.Who, "err", err)
				t.h.count.Count("refused", string(core.KindMembership), string(CodeOf(err)))
			}
		})
	})
	return nil
}

// retryEntered runs f, and once more when it said that another server has to let
// from into the directs to which she was invited: what one says there is an
// answer to the invitation.
func (h *Hub) retryEntered(ctx context.Context, from, to core.Address, f func() error) error {
	err := f()
	if !errors.Is(err, ErrAsk) {
		return err
	}
	var invited []core.ConvID
	err = h.Read(ctx, func(v View) error {
		directs, err := v.Directs(from, to)
		for _, id := range directs {
			s, err := v.State(id)
			if err != nil {
				return err
			}
			if s.Standing(from) == core.Invited {
				invited = append(invited, id)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range invited {
		if _, err := h.Accept(ctx, JoinRequest{Conv: id, Who: from}); err != nil {
			return err
		}
	}
	return f()
}

// consentMatrix carries a step of consent to one on another Matrix server, where
// being in a direct room is the consent there is: who asks invites, who denies
// declines the invitation.
func (t *turn) consentMatrix(n ContactNotice) error {
	if n.Kind != Ask && n.Kind != Deny {
		return nil
	}
	directs, err := t.tx.Directs(n.From, n.To)
	if err != nil {
		return err
	}
	for _, id := range directs {
		p, err := t.place(id)
		if err != nil {
			return err
		}
		mine, other := p.s.Standing(n.From), p.s.Standing(n.To)
		if n.Kind == Ask && mine == core.Joined && (other == core.Joined || other == core.Invited) {
			return nil // that, encrypted or not, is asking
		}
		if n.Kind == Deny && mine == core.Invited {
			t.after = append(t.after, func() { go t.h.decline(id, n.From) })
		}
	}
	if n.Kind == Ask {
		_, err = t.direct(n.From, n.To)
	}
	return err
}

// decline leaves a conversation to which one was invited.
func (h *Hub) decline(id core.ConvID, who core.Address) {
	h.outbox.during(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deliverTimeout)
		defer cancel()
		_, err := h.Submit(ctx, Draft{Conv: id, Sender: who, Content: core.Membership{Target: who, Standing: core.Left}})
		if err != nil {
			h.log.Info("cannot decline an invitation", "conversation", id, "account", who, "err", err)
		}
	})
}

// answeredMatrix is what it means between two people, one of them on another
// Matrix server, that one entered or left their direct.
func (t *turn) answeredMatrix(p *place, before *core.State, c core.Membership) error {
	other, ok := peer(p.c, p.s, c.Target)
	if !ok || (c.Target.Network != core.Matrix || !t.h.ours(other)) && (other.Network != core.Matrix || !t.h.ours(c.Target)) {
		return nil
	}
	was, steps := before.Standing(c.Target), []ContactNotice(nil)
	who := ContactNotice{From: c.Target, To: other}
	switch theirs := c.Target.Network == core.Matrix; {
	case c.Standing == core.Joined && theirs && was != core.Joined:
		steps = who.of(Approve, Ask)
	case c.Standing == core.Joined && !theirs && was == core.Invited:
		// Her invitation was her asking and her approval; that one stands only
		// now, when it is asked for.
		steps = append(who.of(Approve, Ask), ContactNotice{Kind: Approve, From: other, To: c.Target})
	case c.Standing == core.Left && theirs && (was == core.Joined || was == core.Invited):
		steps = who.of(Deny, Unask)
	}
	for _, n := range steps {
		if err := t.consent(n); err != nil && CodeOf(err) == "" {
			return err
		}
	}
	return nil
}

// of are steps between the same two.
func (n ContactNotice) of(kinds ...NoticeKind) []ContactNotice {
	var steps []ContactNotice
	for _, n.Kind = range kinds {
		steps = append(steps, n)
	}
	return steps
}

// enterGraph has other servers let one into a room that none of ours is in.
func (h *Hub) enterGraph(ctx context.Context, r JoinRequest) (core.Event, error) {
	m := core.Membership{Target: r.Who, Standing: core.Joined, Name: r.Name, Nick: r.Nick, Reason: r.Reason}
	if m.Name == "" {
		err := h.Read(ctx, func(v View) error {
			p, err := v.Profile(r.Who)
			m.Name, m.Avatar = p.Name, p.Avatar
			return err
		})
		if err != nil {
			return core.Event{}, err
		}
	}
	return h.ask(ctx, Draft{Conv: r.Conv, Sender: r.Who, Content: m, Native: r.Native, From: r.From, With: r.With})
}
