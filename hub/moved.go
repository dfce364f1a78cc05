package hub

import "context"

// ConsentMoved takes a request for consent of somebody who had another address before, n.Moved, once that has been found to be true.
// If she could see the account under the old one, she can under the new one, and no longer under the old; if the account saw her, it
// asks to see her where she is now. Otherwise it is a request like any other.
//
// spec: XEP-0283 §4.4
func (h *Hub) ConsentMoved(ctx context.Context, n ContactNotice) error {
	return h.turn(ctx, func(t *turn) error { return t.consentMoved(n) })
}

func (t *turn) consentMoved(n ContactNotice) error {
	old, found, err := none(t.tx.Contact(n.To, n.Moved))
	if err != nil {
		return err
	}
	blocked, err := t.h.blocks.has(t.tx, n.To, n.From)
	if err != nil {
		return err
	}
	if !found || !old.Sees || blocked || n.Kind != Ask || !t.h.ours(n.To) || n.From == n.To || n.From == n.Moved {
		return t.consent(n)
	}
	if t.h.ours(n.From) {
		if send, err := t.consentFrom(n); err != nil || !send {
			return err
		}
	}
	c, err := t.known(n.To, n.From)
	if err != nil {
		return err
	}
	if !c.Listed {
		c.Name, c.Groups = old.Name, old.Groups
	}
	c.Listed, c.Sees, c.Asks, c.Approved = true, true, false, false
	if err := t.putContact(c, nil); err != nil {
		return err
	}
	t.after = append(t.after, func() { t.h.showAll(n.To, n.From) })
	if err := t.enter(n.To, n.From); err != nil {
		return err
	}
	if err := t.answer(ContactNotice{Kind: Approve, From: n.To, To: n.From}); err != nil {
		return err
	}
	if err := t.consent(ContactNotice{Kind: Deny, From: n.To, To: n.Moved}); err != nil {
		return err
	}
	if !old.Seen || c.Seen {
		return nil
	}
	return t.consent(ContactNotice{Kind: Ask, From: n.To, To: n.From})
}
