package hub

import (
	"context"
	"slices"
	"strconv"

	"parley/core"
)

// Open makes a conversation: the creation, the creator's joining, the rules
// (defaults where Initial has none), and the rest of Initial, all in one turn.
// Opening a direct asks the peer for consent to be a contact.
func (h *Hub) Open(ctx context.Context, o Opening) (core.Conversation, error) {
	var c core.Conversation
	err := h.turn(ctx, func(t *turn) (err error) {
		if c, err = t.open(o); err != nil || o.Shape != core.Direct {
			return err
		}
		if err := t.consent(ContactNotice{Kind: Approve, From: o.Creator, To: o.Peer}); err != nil {
			return err
		}
		return t.consent(ContactNotice{Kind: Ask, From: o.Creator, To: o.Peer})
	})
	return c, err
}

func (t *turn) open(o Opening) (core.Conversation, error) {
	c := core.Conversation{
		ID: core.NewConvID(), Shape: o.Shape, Authority: core.Here, Creator: o.Creator, Created: t.now,
		Address: o.Address, Temporary: o.Temporary, Native: map[core.Network]string{},
	}
	if o.Version == "" {
		o.Version = t.h.cfg.RoomVersion
	}
	named := !o.Address.IsZero()
	switch {
	case o.Shape == core.Direct && (o.Peer.IsZero() || o.Peer == o.Creator):
		return c, Refuse(Bad, "a direct conversation needs another person")
	case o.Shape == core.Group && named:
		if err := t.checkRoom(o.Address); err != nil {
			return c, err
		}
	case o.Shape == core.Group:
		c.Address = core.LocalAddress(string(c.ID), t.h.domainOf(o.Creator))
	}
	if err := t.tx.PutConversation(c); err != nil {
		return c, err
	}
	if o.Shape == core.Group {
		if err := t.tx.PutRoomAddress(c.Address, c.ID, o.Creator); err != nil {
			return c, err
		}
	}
	if o.With != nil {
		if err := o.With(t.tx, c); err != nil {
			return c, err
		}
	}
	if o.Shape == core.Direct {
		if err := t.tx.PutDirect(c.ID, o.Creator, o.Peer); err != nil {
			return c, err
		}
	}
	if o.Public {
		if err := t.tx.SetPublic(c.ID, true); err != nil {
			return c, err
		}
	}
	for _, d := range script(o, named) {
		d.Conv, d.Sender, d.From = c.ID, o.Creator, o.From
		if _, err := t.admit(d); err != nil {
			return c, err
		}
	}
	return t.tx.Conversation(c.ID)
}

// checkRoom holds a new room's address to the rules of local names.
func (t *turn) checkRoom(a core.Address) error {
	if !t.h.ours(a) {
		return Refuse(Bad, "%s is not a domain of this server", a.Domain)
	}
	if err := core.CheckName(a.Name); err != nil {
		return Refuse(Bad, "%v", err)
	}
	return nil
}

// script is the log with which a conversation begins.
//
// spec: MX 1.19 CS §8.2
func script(o Opening, named bool) []Draft {
	creators := []core.Address{o.Creator}
	for _, a := range o.Creators {
		if !slices.Contains(creators, a) {
			creators = append(creators, a)
		}
	}
	version, _ := strconv.Atoi(o.Version)
	supreme := version >= 12
	me := o.Member
	me.Target, me.Standing = o.Creator, core.Joined
	drafts := []Draft{
		{Native: o.Native, Content: core.Change{Aspect: core.AspectCreated, Creation: &core.Creation{
			Shape: o.Shape, Creators: creators, Supreme: supreme, Version: o.Version, Type: o.Type,
		}}},
		{Content: me},
	}
	has := func(a core.Aspect) bool {
		return slices.ContainsFunc(o.Initial, func(d Draft) bool {
			c, ok := d.Content.(core.Change)
			return ok && c.Aspect == a
		})
	}
	if !has(core.AspectLevels) {
		levels := core.DefaultLevels()
		if !supreme {
			levels.Actions[string(core.AspectMovedTo)] = 100
			for _, a := range creators {
				levels.Users[a] = 100
			}
		}
		if o.Shape == core.Direct && !slices.Contains(creators, o.Peer) {
			levels.Users[o.Peer] = 100
		}
		drafts = append(drafts, Draft{Content: core.Change{Aspect: core.AspectLevels, Levels: &levels}})
	} else if c, ok := o.Initial[0].Content.(core.Change); ok && c.Aspect == core.AspectLevels {
		drafts, o.Initial = append(drafts, o.Initial[0]), o.Initial[1:] // before the address
	}
	if named {
		drafts = append(drafts, Draft{Content: core.Change{Aspect: core.AspectAddresses, Main: o.Address}})
	}
	if !has(core.AspectJoinRule) {
		rule := core.JoinInvite
		if o.Public {
			rule = core.JoinPublic
		}
		drafts = append(drafts, Draft{Content: core.Change{Aspect: core.AspectJoinRule, JoinRule: rule}})
	}
	if !has(core.AspectVisibility) {
		drafts = append(drafts, Draft{Content: core.Change{Aspect: core.AspectVisibility, Visibility: core.VisibleShared}})
	}
	drafts = append(drafts, o.Initial...)
	invited := func(d Draft) bool {
		c, ok := d.Content.(core.Membership)
		return ok && c.Target == o.Peer
	}
	if o.Shape == core.Direct && !slices.ContainsFunc(o.Initial, invited) {
		drafts = append(drafts, Draft{Content: core.Membership{Target: o.Peer, Standing: core.Invited, Direct: true}})
	}
	return drafts
}

// DirectWith returns the pair's current plain direct conversation, as one into
// which from may write: it joins where from was invited, invites again one who
// left, and opens another where there is none that will do.
func (h *Hub) DirectWith(ctx context.Context, from, to core.Address) (core.ConvID, error) {
	var id core.ConvID
	err := h.retryEntered(ctx, from, to, func() error {
		return h.turn(ctx, func(t *turn) (err error) {
			id, err = t.direct(from, to)
			return err
		})
	})
	return id, err
}

// SubmitDirect admits an event into the pair's current plain direct.
func (h *Hub) SubmitDirect(ctx context.Context, to core.Address, d Draft) (core.Event, error) {
	var e core.Event
	err := h.retryEntered(ctx, d.Sender, to, func() error {
		return h.turn(ctx, func(t *turn) (err error) {
			d := d // the turn may run again
			var again bool
			if e, again, err = t.repetition(&d); err != nil || again {
				return err
			}
			if d.Conv, err = t.directFor(d.Sender, to, core.Target(d.Content)); err != nil {
				return err
			}
			e, err = t.admit(d)
			return err
		})
	})
	return e, err
}

// directFor is the direct that holds target, if it is one of the pair's, and
// the current one otherwise: an edit goes to where the message is.
func (t *turn) directFor(from, to core.Address, target core.EventID) (core.ConvID, error) {
	if target != "" {
		e, found, err := none(t.tx.Event(target))
		if err != nil {
			return "", err
		}
		directs, err := t.tx.Directs(from, to)
		if err != nil {
			return "", err
		}
		if found && slices.Contains(directs, e.Conv) {
			return e.Conv, nil
		}
	}
	return t.direct(from, to)
}

func (t *turn) direct(from, to core.Address) (core.ConvID, error) {
	if from == to {
		return "", Refuse(Bad, "this conversation would have nobody else in it")
	}
	directs, err := t.tx.Directs(from, to)
	if err != nil {
		return "", err
	}
	for _, id := range directs {
		p, err := t.place(id)
		if err != nil {
			return "", err
		}
		ok, err := t.usable(p, from, to)
		if err != nil {
			return "", err
		}
		if ok {
			return id, nil
		}
	}
	c, err := t.open(Opening{Creator: from, Creators: []core.Address{to}, Shape: core.Direct, Peer: to})
	return c.ID, err
}

// usable makes a direct one into which from can write to the other, if it can
// be made so. Plain text never enters an encrypted one.
func (t *turn) usable(p place, from, to core.Address) (bool, error) {
	if p.s.Encryption != nil || p.s.MovedTo != nil {
		return false, nil
	}
	switch p.s.Standing(from) {
	case core.Joined:
	case core.Invited:
		if _, err := t.join(JoinRequest{Conv: p.c.ID, Who: from}); err != nil {
			return false, err
		}
	default:
		return false, nil
	}
	switch p.s.Standing(to) {
	case core.Joined, core.Invited:
		return true, nil
	case core.Left:
		_, err := t.admit(Draft{Conv: p.c.ID, Sender: from, Content: core.Membership{Target: to, Standing: core.Invited, Direct: true}})
		return err == nil, err
	}
	return false, nil
}

// foreignInvited is what becomes of an invitation to one of another network
// that knows no invitations: a contact is in the conversation at once; another
// is when she answers or consents.
func (t *turn) foreignInvited(p place, by, target core.Address) error {
	if target.Network == core.Matrix {
		return nil
	}
	c, found, err := none(t.tx.Contact(by, target))
	if err != nil || !found || !c.Seen && !c.Sees {
		return err
	}
	_, err = t.join(JoinRequest{Conv: p.c.ID, Who: target})
	return err
}

// peer returns the other person of a direct.
func peer(c *core.Conversation, s *core.State, who core.Address) (core.Address, bool) {
	if c.Shape != core.Direct {
		return core.Address{}, false
	}
	return s.Other(who)
}
