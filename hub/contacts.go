package hub

import (
	"context"
	"errors"

	"parley/core"
)

func (h *Hub) contact(ctx context.Context, account, a core.Address) (c core.Contact, found bool, err error) {
	err = h.Read(ctx, func(v View) error {
		c, found, err = none(v.Contact(account, a))
		return err
	})
	return c, found, err
}

// Contacts returns an account's list, and the feed number that it is as of.
// Entries that are not Listed only record a request.
func (h *Hub) Contacts(ctx context.Context, account core.Address) ([]core.Contact, core.Feed, error) {
	var list []core.Contact
	var feed core.Feed
	err := h.Read(ctx, func(v View) (err error) {
		if list, err = v.Contacts(account); err != nil {
			return err
		}
		feed, err = v.LastFeed()
		return err
	})
	return list, feed, err
}

// known returns the account's entry for a, or a new one.
func (t *turn) known(account, a core.Address) (core.Contact, error) {
	c, found, err := none(t.tx.Contact(account, a))
	if !found {
		c = core.Contact{Account: account, Address: a}
	}
	return c, err
}

// putContact keeps a contact and tells the account's sessions. An entry that
// says nothing any more is deleted.
func (t *turn) putContact(c core.Contact, n *ContactNotice) error {
	c.Feed = t.tx.NextFeed()
	empty := !c.Listed && !c.Sees && !c.Seen && !c.Asked && !c.Asks && !c.Approved
	t.tell(ContactNews{Contact: c, Removed: !c.Listed, Notice: n}, c.Account)
	if empty {
		return t.tx.DeleteContact(c.Account, c.Address)
	}
	return t.tx.PutContact(c)
}

// SetContact puts a person on the list, or gives her another name and groups
// there. Consent is not touched: that is [Hub.Consent].
func (h *Hub) SetContact(ctx context.Context, account, a core.Address, name string, groups []string) error {
	return h.turn(ctx, func(t *turn) error {
		c, err := t.known(account, a)
		if err != nil {
			return err
		}
		if !c.Listed {
			all, err := t.tx.Contacts(account)
			if err != nil {
				return err
			}
			if len(all) >= t.h.cfg.MaxContacts {
				return Refuse(TooMany, "a contact list holds at most %d people", t.h.cfg.MaxContacts)
			}
		}
		c.Listed, c.Name, c.Groups = true, name, groups
		return t.putContact(c, nil)
	})
}

// RemoveContact takes a person off the list and ends consent both ways.
//
// spec: RFC 6121 §2.5.2
func (h *Hub) RemoveContact(ctx context.Context, account, a core.Address) error {
	return h.turn(ctx, func(t *turn) error {
		c, found, err := none(t.tx.Contact(account, a))
		if err != nil {
			return err
		}
		if !found || !c.Listed {
			return Refuse(NotFound, "%s is not on your contact list", a.Bare())
		}
		if c.Seen || c.Asked {
			if err := t.consent(ContactNotice{Kind: Unask, From: account, To: a}); err != nil {
				return err
			}
		}
		if c.Sees || c.Asks || c.Approved {
			if err := t.consent(ContactNotice{Kind: Deny, From: account, To: a}); err != nil {
				return err
			}
		}
		c = core.Contact{Account: account, Address: a}
		return t.putContact(c, nil)
	})
}

// Consent takes one step of consent: from an account here, or from one on
// another server whose network has vouched for her.
//
// spec: RFC 6121 §3
func (h *Hub) Consent(ctx context.Context, n ContactNotice) error {
	return h.turn(ctx, func(t *turn) error { return t.consent(n) })
}

func (t *turn) consent(n ContactNotice) error {
	if n.From == n.To {
		return Refuse(Bad, "you need not ask yourself")
	}
	if nicked(n.From) || nicked(n.To) {
		return nil // who is known by a nick in one room is nobody's contact
	}
	send := true
	if t.h.ours(n.From) {
		var err error
		if send, err = t.consentFrom(n); err != nil || !send {
			return err
		}
	}
	if t.h.ours(n.To) {
		return t.consentTo(n)
	}
	if n.To.IsLocal() || t.h.carriers[n.To.Network] == nil {
		return Refuse(NotFound, "this server does not reach %s", n.To.Bare())
	}
	if n.To.Network == core.Matrix {
		return t.consentMatrix(n)
	}
	return t.parcel(Parcel{Network: n.To.Network, Dest: n.To.Domain, To: []core.Address{n.To}, From: n.From, Notice: &n})
}

// consentFrom notes the step in the list of the one who takes it; send says
// whether the other has to hear of it.
func (t *turn) consentFrom(n ContactNotice) (send bool, err error) {
	c, err := t.known(n.From, n.To)
	if err != nil {
		return false, err
	}
	was := c
	switch n.Kind {
	case Ask:
		if c.Seen {
			return false, nil
		}
		c.Asked, c.Listed = true, true
		send = true
	case Approve:
		send = c.Asks
		if !c.Asks && !c.Sees {
			c.Approved = true
		}
		if c.Asks {
			c.Asks, c.Sees, c.Listed = false, true, true
		}
	case Deny:
		send = c.Asks || c.Sees
		c.Asks, c.Sees, c.Approved = false, false, false
	case Unask:
		send = c.Asked || c.Seen
		c.Asked, c.Seen = false, false
	}
	if !sameContact(was, c) {
		if err := t.putContact(c, nil); err != nil {
			return false, err
		}
	}
	switch {
	case n.Kind == Approve && c.Sees && !was.Sees:
		t.after = append(t.after, func() { t.h.showAll(n.From, n.To) })
		err = t.enter(n.From, n.To)
	case n.Kind == Approve:
		err = t.enter(n.From, n.To)
	case n.Kind == Deny && was.Sees:
		t.after = append(t.after, func() { t.h.hideAll(n.From, n.To) })
	}
	return send, err
}

func sameContact(a, b core.Contact) bool {
	return a.Listed == b.Listed && a.Sees == b.Sees && a.Seen == b.Seen && a.Asked == b.Asked &&
		a.Asks == b.Asks && a.Approved == b.Approved && a.Words == b.Words
}

// consentTo notes the step in the list of the one whom it is about.
func (t *turn) consentTo(n ContactNotice) error {
	if n.Kind == Ask {
		return t.asked(n)
	}
	c, found, err := none(t.tx.Contact(n.To, n.From))
	if err != nil || !found {
		return err
	}
	was := c
	switch n.Kind {
	case Approve:
		if !c.Asked {
			return nil
		}
		c.Asked, c.Seen = false, true
		if !t.h.ours(n.From) {
			err = t.enter(n.From, n.To)
		}
	case Deny:
		c.Asked, c.Seen = false, false
	case Unask:
		c.Asks, c.Sees = false, false
		if was.Sees {
			t.after = append(t.after, func() { t.h.hideAll(n.To, n.From) })
		}
	}
	if err != nil || sameContact(was, c) {
		return err
	}
	return t.putContact(c, &n)
}

// asked is what becomes of a request for consent: what was approved before, or
// stands approved, is answered at once; a stranger's is held or refused as the
// account chose, and shown to Matrix clients as an invitation.
func (t *turn) asked(n ContactNotice) error {
	answer := func(k NoticeKind) error { return t.answer(ContactNotice{Kind: k, From: n.To, To: n.From}) }
	if a, found, err := none(t.tx.Account(n.To)); err != nil {
		return err
	} else if !found || a.Disabled {
		return answer(Deny)
	}
	blocked, err := t.h.blocks.has(t.tx, n.To, n.From)
	if err != nil {
		return err
	}
	if blocked {
		return nil // who is blocked learns nothing, not even that
	}
	c, err := t.known(n.To, n.From)
	if err != nil {
		return err
	}
	if c.Sees {
		return answer(Approve)
	}
	if c.Approved {
		c.Approved, c.Sees, c.Listed = false, true, true
		if err := t.putContact(c, nil); err != nil {
			return err
		}
		t.after = append(t.after, func() { t.h.showAll(n.To, n.From) })
		if err := t.enter(n.To, n.From); err != nil {
			return err
		}
		return answer(Approve)
	}
	_, policy, err := t.stranger(n.To, n.From)
	if err != nil {
		return err
	}
	if policy == core.Refuse && !c.Listed {
		return answer(Deny)
	}
	if c.Asks {
		return nil
	}
	if err := t.askable(n.To); err != nil {
		return err
	}
	c.Asks, c.Words = true, n.Words
	if err := t.putContact(c, &n); err != nil {
		return err
	}
	directs, err := t.tx.Directs(n.From, n.To)
	if err != nil || len(directs) > 0 {
		return err
	}
	_, err = t.direct(n.From, n.To)
	return err
}

// askable refuses a request for consent where too many wait for an answer.
func (t *turn) askable(account core.Address) error {
	all, err := t.tx.Contacts(account)
	waiting := 0
	for _, c := range all {
		if c.Asks {
			waiting++
		}
	}
	if err == nil && waiting >= t.h.cfg.MaxAsks {
		err = Refuse(TooMany, "too many requests wait for an answer of %s", account.Bare())
	}
	return err
}

// answer sends a step that the list did not have to note.
func (t *turn) answer(n ContactNotice) error {
	if t.h.ours(n.To) {
		return t.consentTo(n)
	}
	if n.To.Network == core.Matrix {
		return t.consentMatrix(n)
	}
	return t.parcel(Parcel{Network: n.To.Network, Dest: n.To.Domain, To: []core.Address{n.To}, From: n.From, Notice: &n})
}

// enter lets one who consented into the directs to which the other invited her.
func (t *turn) enter(who, other core.Address) error {
	directs, err := t.tx.Directs(who, other)
	if err != nil {
		return err
	}
	for _, id := range directs {
		p, err := t.place(id)
		if err != nil {
			return err
		}
		if p.s.Standing(who) == core.Invited {
			if err := t.joinLater(JoinRequest{Conv: id, Who: who}); err != nil {
				return err
			}
		}
	}
	return nil
}

// declined is a direct's invitation that was turned down: a Matrix client's
// way to deny consent.
func (t *turn) declined(who, by core.Address) error {
	c, found, err := none(t.tx.Contact(who, by))
	if err != nil || !found || !c.Asks {
		return err
	}
	return t.consent(ContactNotice{Kind: Deny, From: who, To: by})
}

// Accept joins a direct to which one was invited, by a client that has no
// other way to consent: being in it is being contacts, both ways.
func (h *Hub) Accept(ctx context.Context, r JoinRequest) (core.Event, error) {
	var e core.Event
	err := h.turn(ctx, func(t *turn) error {
		p, err := t.place(r.Conv)
		if err != nil {
			return err
		}
		standing := p.s.Standing(r.Who)
		if e, err = t.join(r); err != nil {
			return err
		}
		if standing != core.Invited {
			return nil
		}
		return t.acquaint(p, r.Who)
	})
	if !errors.Is(err, ErrAsk) {
		return e, err
	}
	if e, err = h.enter(ctx, r); err != nil {
		return e, err
	}
	return e, h.turn(ctx, func(t *turn) error {
		p, err := t.place(r.Conv)
		if err != nil {
			return err
		}
		return t.acquaint(p, r.Who)
	})
}

// acquaint makes one who has come into a direct and the other one in it contacts.
func (t *turn) acquaint(p place, who core.Address) error {
	other, direct := peer(p.c, p.s, who)
	if !direct {
		return nil
	}
	if err := t.consent(ContactNotice{Kind: Approve, From: who, To: other}); err != nil {
		return err
	}
	return t.consent(ContactNotice{Kind: Ask, From: who, To: other})
}

func nicked(a core.Address) bool {
	_, _, ok := a.Occupant()
	return ok
}

// showAll shows every session of from to one who may see it from now on.
func (h *Hub) showAll(from, to core.Address) {
	for _, p := range h.presence.of(from) {
		h.presentTo(from, to, p)
	}
}

// hideAll shows from as offline to one who may see it no longer.
func (h *Hub) hideAll(from, to core.Address) {
	for _, p := range h.presence.of(from) {
		h.presentTo(from, to, core.Presence{Show: core.ShowOffline, Session: p.Session})
	}
}

// Blocks reports whether account blocks a, or a's whole server.
func (h *Hub) Blocks(ctx context.Context, account, a core.Address) (blocked bool, err error) {
	err = h.Read(ctx, func(v View) (err error) {
		blocked, err = h.blocks.has(v, account, a)
		return err
	})
	return blocked, err
}

// Block puts a, a person or a whole server, on the account's one block list,
// and shows the account to it as offline. Unblock takes it off.
func (h *Hub) Block(ctx context.Context, account core.Address, who ...core.Address) error {
	return h.block(ctx, account, true, who)
}

// Unblock takes people and servers off the account's block list.
func (h *Hub) Unblock(ctx context.Context, account core.Address, who ...core.Address) error {
	return h.block(ctx, account, false, who)
}

func (h *Hub) block(ctx context.Context, account core.Address, on bool, who []core.Address) error {
	return h.turn(ctx, func(t *turn) error {
		for _, a := range who {
			put := t.tx.DeleteBlock
			if on {
				put = t.tx.PutBlock
			}
			if err := put(account, a); err != nil {
				return err
			}
			c, found, err := none(t.tx.Contact(account, a))
			if err != nil {
				return err
			}
			if show := h.showAll; found && c.Sees {
				if on {
					show = h.hideAll
				}
				t.after = append(t.after, func() { show(account, a) })
			}
			t.tell(BlockNews{a, on}, account)
		}
		h.blocks.drop(account)
		t.tx.OnRollback(func() { h.blocks.drop(account) })
		t.after = append([]func(){func() { h.blocks.drop(account) }}, t.after...)
		return nil
	})
}
