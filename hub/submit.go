package hub

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"parley/core"
)

// refuseNone turns ErrNone into a NotFound for the user.
func refuseNone(err error, text string) error {
	if errors.Is(err, ErrNone) {
		return Refuse(NotFound, "%s", text)
	}
	return err
}

// Submit admits one event, or says why not. When it returns an event, that
// event is on disk. A draft that repeats an earlier one returns the earlier
// event.
func (h *Hub) Submit(ctx context.Context, d Draft) (core.Event, error) {
	events, err := h.SubmitAll(ctx, []Draft{d})
	if errors.Is(err, ErrAsk) {
		return h.ask(ctx, d)
	}
	if err != nil {
		return core.Event{}, err
	}
	return events[0], nil
}

// SubmitAll admits several events in one turn: all of them, or none.
func (h *Hub) SubmitAll(ctx context.Context, drafts []Draft) ([]core.Event, error) {
	var out []core.Event
	err := h.turn(ctx, func(t *turn) error {
		out = nil
		for _, d := range drafts {
			e, err := t.admit(d)
			if err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// place is a conversation in the middle of a turn.
type place struct {
	c *core.Conversation
	s *core.State // of the turn: admitting an event replaces it
}

func (t *turn) place(id core.ConvID) (place, error) {
	c, err := t.tx.Conversation(id)
	if err != nil {
		return place{}, refuseNone(err, "there is no such conversation")
	}
	s, err := t.tx.State(id)
	return place{&c, s}, err
}

// admit is one event's way in: repetition, form, verdict, mirrors, store,
// consequences, and who is told.
func (t *turn) admit(d Draft) (core.Event, error) {
	if e, ok, err := t.repetition(&d); err != nil || ok {
		return e, err
	}
	p, err := t.place(d.Conv)
	if err != nil {
		return core.Event{}, err
	}
	e := core.Event{
		ID: core.NewEventID(), Conv: d.Conv, Sender: d.Sender, Time: t.now, Origin: d.Origin,
		Content: d.Content, Native: d.Native, Aliases: slices.Clone(d.Aliases),
	}
	if e.Origin.IsZero() {
		e.Origin = t.now
	}
	if m, ok := e.Content.(core.Membership); ok {
		m.Via = d.via
		e.Content = m
	}
	target, err := t.prepare(p, &e, d.Accepted)
	if err != nil {
		return core.Event{}, err
	}
	if err := t.verdict(p, &e, target, d.Accepted); err != nil {
		if _, asks := errors.AsType[*Consult](err); !asks && !errors.Is(err, ErrAsk) {
			t.h.count.Count("refused", string(core.KindOf(e.Content)), string(CodeOf(err)))
		}
		return core.Event{}, err
	}
	if err := t.keep(p, &e, d); err != nil {
		return core.Event{}, err
	}
	if d.With != nil {
		if err := d.With(t.tx, &e); err != nil {
			return core.Event{}, err
		}
	}
	after := p.s
	if _, ok := core.StateKeyOf(e.Content); ok && !d.Aside && !d.Found {
		after = p.s.Clone()
		after.Apply(&e)
		t.stay(p, after, e.Content)
		if err := t.tx.PutState(p.c, after, &e); err != nil {
			return core.Event{}, err
		}
	}
	if err := t.consequences(place{p.c, after}, p.s, &e, target, d); err != nil {
		return core.Event{}, err
	}
	if !d.Accepted {
		if err := t.settle(p.c); err != nil {
			return core.Event{}, err
		}
	}
	t.h.count.Count("admitted", string(core.KindOf(e.Content)))
	return e, nil
}

// repetition finds the event that a draft repeats. Another content under a key
// that is known is another message, which the digest tells.
func (t *turn) repetition(d *Draft) (core.Event, bool, error) {
	for _, a := range d.Aliases {
		id, _, err := t.tx.EventBy(a)
		if errors.Is(err, ErrNone) {
			continue
		}
		if err != nil {
			return core.Event{}, false, err
		}
		e, err := t.tx.Event(id)
		if err != nil {
			return core.Event{}, false, err
		}
		t.h.count.Count("repeated", string(core.KindOf(e.Content)))
		if d.With != nil {
			err = d.With(t.tx, &e)
		}
		return e, true, err
	}
	return core.Event{}, false, nil
}

// prepare holds the content to its form and fills in what the hub decides. It
// returns the event that e is about.
func (t *turn) prepare(p place, e *core.Event, accepted bool) (*core.Event, error) {
	if e.Content == nil || e.Sender.IsZero() && !accepted {
		return nil, Refuse(Bad, "an event needs a sender and a content")
	}
	if err := t.adopt(e); err != nil {
		return nil, err
	}
	_, data, err := core.EncodeContent(e.Content)
	if err != nil {
		return nil, Refuse(Bad, "the content cannot be kept: %v", err)
	}
	size := len(data)
	if e.Native != nil {
		size = max(size, len(e.Native.Data))
	}
	if size > t.h.cfg.MaxContent && !accepted {
		return nil, Refuse(TooLarge, "this is longer than %d bytes", t.h.cfg.MaxContent)
	}
	if c, ok := e.Content.(core.Membership); ok {
		if accepted {
			c = t.accepted(p, c)
		} else if c, err = t.membership(p, e, c); err != nil {
			return nil, err
		}
		e.Content = c
		return nil, nil
	}
	if c, ok := e.Content.(core.Change); ok && c.Aspect == core.AspectLevels && p.s.HasLevels {
		old := p.s.Levels.Clone()
		c.OldLevels = &old
		e.Content = c
	}
	return t.target(p, e, accepted)
}

// adopt gives the files of a body that are elsewhere a name here, by which
// clients that know no links can ask for them. They are fetched when somebody
// does.
func (t *turn) adopt(e *core.Event) error {
	b, ok := core.BodyOf(e.Content)
	if !ok {
		return nil
	}
	var failed error
	b = b.MapFiles(func(f core.File) core.File {
		var err error
		switch {
		case f.Media != "":
		case strings.HasPrefix(f.URL, "https://"), strings.HasPrefix(f.URL, "http://"):
			f.Media = core.NewMediaID()
			err = t.tx.PutMedia(Media{ID: f.Media, Owner: e.Sender, Created: t.now, File: f})
		case strings.HasPrefix(f.URL, contentURI):
			f.Media = core.MediaIDOf(f.URL)
			err = t.adoptContent(f, e.Sender)
		}
		failed = errors.Join(failed, err)
		return f
	})
	switch e.Content.(type) {
	case core.Message:
		e.Content = core.Message{Body: b}
	case core.Edit:
		e.Content = core.Edit{Target: core.Target(e.Content), Body: b}
	}
	return failed
}

// contentURI begins the URL of a file in a Matrix server's repository, which
// never becomes another file.
const contentURI = "mxc://"

// adoptContent names such a file. It is one file for all who refer to it, so
// what this sender says of it (a type, a hash) is not kept with it.
func (t *turn) adoptContent(f core.File, sender core.Address) error {
	_, err := t.tx.Media(f.Media)
	if !errors.Is(err, ErrNone) {
		return err
	}
	return t.tx.PutMedia(Media{ID: f.Media, Owner: sender, Created: t.now, File: core.File{Media: f.Media, URL: f.URL}})
}

// target finds the event that e is about and asks whether e may be about it. Who
// may retract what others said is not asked of what an authority has accepted:
// in a graph the level of that time counts.
func (t *turn) target(p place, e *core.Event, accepted bool) (*core.Event, error) {
	id := core.Target(e.Content)
	if id == "" {
		return nil, nil
	}
	target, err := t.tx.Event(id)
	if err != nil {
		return nil, refuseNone(err, "there is no such message")
	}
	if target.Conv != e.Conv {
		return nil, Refuse(Forbidden, "that message is in another conversation")
	}
	switch c := e.Content.(type) {
	case core.Edit:
		if target.Sender != e.Sender {
			return nil, Refuse(Forbidden, "only its author edits a message")
		}
		if core.KindOf(target.Content) != core.KindMessage {
			return nil, Refuse(Bad, "only messages can be edited")
		}
	case core.Retract:
		if target.Retracted != "" {
			return &target, nil
		}
		if p.c.Authority != core.Elsewhere && !accepted && target.Sender != e.Sender && p.s.Level(e.Sender) < levelOf(p.s, func(l core.Levels) int64 { return l.Redact }) {
			return nil, Refuse(Forbidden, "only its author or a moderator retracts a message")
		}
	case core.Reaction:
		if c.Key == "" || len(c.Key) > 1024 {
			return nil, Refuse(Bad, "a reaction needs a key of at most 1024 bytes")
		}
		mine, err := t.reactions(e.Sender, id)
		if err != nil {
			return nil, err
		}
		if _, again := mine[c.Key]; again {
			return nil, Refuse(Conflict, "you reacted with %s already", c.Key)
		}
	}
	return &target, nil
}

// reactions are one person's standing reactions on an event, by key.
func (t *turn) reactions(who core.Address, target core.EventID) (map[string]core.EventID, error) {
	return reactionsOf(t.tx, who, target)
}

func reactionsOf(v View, who core.Address, target core.EventID) (map[string]core.EventID, error) {
	related, err := v.Related(target, core.KindReaction)
	if err != nil {
		return nil, err
	}
	out := map[string]core.EventID{}
	for _, r := range related {
		if c, ok := r.Content.(core.Reaction); ok && r.Sender == who && r.Retracted == "" {
			out[c.Key] = r.ID
		}
	}
	return out, nil
}

// verdict asks the conversation's one authority.
func (t *turn) verdict(p place, e, target *core.Event, accepted bool) error {
	if p.c.Shape == core.Direct && talks(e.Content) && !accepted {
		if err := t.unheard(p, e.Sender); err != nil {
			return err
		}
	}
	switch {
	case p.c.Authority == core.Here && accepted:
		return errors.New("nobody elsewhere decides about this conversation")
	case p.c.Authority == core.Here:
		return judge(p.s, e)
	case accepted:
		return nil
	case p.c.Authority == core.Elsewhere && t.h.remotes[p.c.Address.Network] != nil:
		return judgeElsewhere(p.s, e, target)
	}
	j := t.h.judges[p.c.Authority]
	if j == nil {
		return Refuse(Unable, "nobody here can decide about this conversation")
	}
	return j.Verdict(t.tx, p.c, p.s, e)
}

// unheard refuses what is said to one person alone who blocks the speaker:
// nobody would ever hear it.
func (t *turn) unheard(p place, sender core.Address) error {
	to, ok := peer(p.c, p.s, sender)
	if !ok || !t.h.ours(to) {
		return nil
	}
	blocked, err := t.h.blocks.has(t.tx, to, sender)
	if err == nil && blocked {
		err = Refuse(Blocked, "%s takes no messages from you", to.Bare())
	}
	return err
}

// keep numbers the event, lets the mirrors write their forms, and stores it.
func (t *turn) keep(p place, e *core.Event, d Draft) error {
	if err := t.number(p, e, d); err != nil {
		return err
	}
	native := len(p.c.Native)
	for _, m := range t.h.mirrors {
		if err := m.Admit(t.tx, p.c, p.s, e); err != nil {
			return err
		}
	}
	if len(p.c.Native) != native {
		if err := t.tx.PutConversation(*p.c); err != nil {
			return err
		}
	}
	if err := t.tx.PutEvent(e); err != nil {
		return err
	}
	return t.tellLost(p, e)
}

// number gives the event its places in the two orders.
func (t *turn) number(p place, e *core.Event, d Draft) error {
	switch {
	case d.Below && d.Accepted:
		return t.numberBelow(e)
	case d.Found && d.Accepted:
		return t.numberFound(e)
	}
	edge, _, err := t.tx.Edge(e.Conv)
	e.Position, e.Feed = max(edge+1, d.at), t.tx.NextFeed()
	return err
}

// consequences are what an admitted event brings with it, and whom it reaches.
func (t *turn) consequences(p place, before *core.State, e *core.Event, target *core.Event, d Draft) error {
	switch c := e.Content.(type) {
	case core.Retract:
		if target != nil && target.Retracted == "" {
			if err := t.tx.Erase(target.ID, e.ID); err != nil {
				return err
			}
			if err := t.tx.DeleteLinks(target.ID); err != nil {
				return err
			}
		}
	case core.Membership:
		if d.Found || d.Aside {
			break
		}
		if err := t.afterMembership(&p, before, e, c); err != nil {
			return err
		}
	}
	if b, ok := core.BodyOf(e.Content); ok {
		if err := t.link(e, b); err != nil {
			return err
		}
	}
	if d.Below || d.Found {
		return nil
	}
	if err := t.tellEvent(p, before, e, target, d); err != nil {
		return err
	}
	switch {
	case p.c.Authority == core.Elsewhere:
		return t.postElsewhere(p, e, d)
	case d.Aside:
		return nil
	}
	if err := t.post(p, before, e, d.Accepted); err != nil {
		return err
	}
	if c, ok := e.Content.(core.Membership); ok && c.Standing == core.Invited {
		return t.received(p, e, c)
	}
	return nil
}

// link gives every stored file of a body an address for this conversation.
func (t *turn) link(e *core.Event, b core.Body) error {
	for _, f := range b.Files() {
		for _, id := range []core.MediaID{f.Media, previewOf(f)} {
			if id == "" {
				continue
			}
			if _, err := t.tx.Media(id); errors.Is(err, ErrNone) {
				continue // names a file that is not here; nothing to give away
			} else if err != nil {
				return err
			}
			if err := t.tx.PutLink(Link{core.NewToken(), id, e.Conv, e.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

func previewOf(f core.File) core.MediaID {
	if f.Preview == nil {
		return ""
	}
	return f.Preview.Media
}

// hears reports whether a member is one to whom the conversation's messages
// go. The two of a direct hear each other as soon as it is open, unless one
// has left; elsewhere, and where the other's network is Matrix, one must have
// joined.
func (h *Hub) hears(c *core.Conversation, m core.Member) bool {
	if m.Standing == core.Joined {
		return true
	}
	return c.Shape == core.Direct && m.Standing == core.Invited && !h.ours(m.Address) && m.Address.Network != core.Matrix
}

// tellEvent queues the event for the sessions of the members who live here.
func (t *turn) tellEvent(p place, before *core.State, e *core.Event, target *core.Event, d Draft) error {
	var to []core.Address
	member, isMembership := e.Content.(core.Membership)
	for m := range t.near(p) {
		if !t.h.ours(m.Address) || m.Standing != core.Joined {
			continue
		}
		if talks(e.Content) && m.Address != e.Sender {
			blocked, err := t.h.blocks.has(t.tx, m.Address, e.Sender)
			if err != nil {
				return err
			}
			if blocked {
				continue
			}
		}
		to = append(to, m.Address)
	}
	if isMembership && t.h.ours(member.Target) && member.Standing != core.Joined {
		if member.Standing != core.Banned || before.Standing(member.Target) != core.Left {
			to = append(to, member.Target)
		}
	}
	n := EventNews{Event: *e, Conv: *p.c, State: p.s, From: d.From, Target: target, Aside: d.Aside}
	if c, ok := e.Content.(core.Change); ok && c.Aspect == core.AspectCorrected {
		n.Before = before
		to = append(to, t.h.displaced(before, p.s, c.Corrected)...)
	}
	t.tell(n, to...)
	return nil
}

// talks reports whether c is something said, which a block list holds back.
func talks(c core.Content) bool {
	switch c := c.(type) {
	case core.Message, core.Edit, core.Reaction:
		return true
	case core.Extension:
		return c.StateKey == nil
	}
	return false
}

// post puts into the outbox what members on other networks are owed: one
// parcel for each destination. The events of a graph go to other Matrix servers
// as what they are, which is for its [Judge] to see to; only an invitation is a
// parcel, because the invited one's server is in no room yet.
func (t *turn) post(p place, before *core.State, e *core.Event, accepted bool) error {
	to := map[Destination][]core.Address{}
	add := func(a core.Address) {
		d := Destination{a.Network, a.Domain}
		if t.h.carriers[a.Network] != nil && !slices.Contains(to[d], a) {
			to[d] = append(to[d], a)
		}
	}
	for m := range t.near(p) {
		if m.Address.IsLocal() || p.c.Shape == core.Direct && m.Address == e.Sender {
			continue
		}
		if t.h.hears(p.c, m) {
			add(m.Address)
		}
	}
	if c, ok := e.Content.(core.Membership); ok && !c.Target.IsLocal() {
		matrix := c.Target.Network == core.Matrix
		switch {
		case matrix && (accepted || c.Standing != core.Invited):
		case c.Target != e.Sender || before.Standing(c.Target) == core.Joined:
			add(c.Target)
		}
	}
	for d, addresses := range to {
		slices.SortFunc(addresses, func(a, b core.Address) int { return compareAddresses(a, b) })
		if err := t.parcel(Parcel{Network: d.Network, Dest: d.Dest, To: addresses, From: e.Sender, Event: e.ID, Conv: e.Conv}); err != nil {
			return err
		}
	}
	return nil
}

// parcel puts one parcel into the outbox and wakes who delivers it.
func (t *turn) parcel(p Parcel) error {
	p.Created, p.Next, p.Expires = t.now, t.now, t.now.Add(t.h.cfg.GiveUp)
	if err := t.tx.PutParcel(p); err != nil {
		return err
	}
	t.after = append(t.after, func() { t.h.outbox.wake(Destination{p.Network, p.Dest}, false) })
	return nil
}

// React makes keys the whole set of who's reactions on a message. The draft
// gives what else there is to say: native form, aliases, session.
func (h *Hub) React(ctx context.Context, target core.EventID, keys []string, d Draft) error {
	if len(keys) > 50 {
		return Refuse(TooMany, "that is more than 50 reactions on one message")
	}
	return h.turn(ctx, func(t *turn) error {
		if _, again, err := t.repetition(&d); err != nil || again {
			return err
		}
		mine, err := t.reactions(d.Sender, target)
		if err != nil {
			return err
		}
		first := d
		put := func(c core.Content) error {
			d := Draft{
				Conv: d.Conv, Sender: d.Sender, Origin: d.Origin, From: d.From, Content: c,
				Accepted: d.Accepted, Below: d.Below, at: d.at,
			}
			d.Aliases, d.Native, d.With = first.Aliases, first.Native, first.With
			first.Aliases, first.Native, first.With = nil, nil, nil
			_, err := t.admit(d)
			return err
		}
		for key, id := range mine {
			if !slices.Contains(keys, key) {
				if err := put(core.Retract{Target: id}); err != nil {
					return err
				}
			}
		}
		for i, key := range keys {
			if _, had := mine[key]; !had && !slices.Contains(keys[:i], key) {
				if err := put(core.Reaction{Target: target, Key: key}); err != nil {
					return err
				}
			}
		}
		if first.With != nil { // there was no difference
			return first.With(t.tx, nil)
		}
		return nil
	})
}

// Reactions are the keys that one person has on a message, sorted.
func Reactions(v View, who core.Address, target core.EventID) ([]string, error) {
	m, err := reactionsOf(v, who, target)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out, nil
}

// timeoutContext is for work that no caller waits for.
func timeoutContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}
