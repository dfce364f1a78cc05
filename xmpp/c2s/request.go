package c2s

import (
	"context"
	"errors"

	"parley/core"
	"parley/hub"
)

// A first message of a stranger is held until the account answers it. To the account's XMPP clients that is a request to subscribe,
// which they show; approving it, or writing back, lets the stranger in.

// requested shows the client that a stranger has written, unless she has asked for consent too, which is shown by itself.
func (s *Session) requested(ctx context.Context, who core.Address) error {
	var c core.Contact
	err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		c, err = v.Contact(s.account, who)
		return err
	})
	if err == nil && c.Asks {
		return nil
	}
	if err != nil && !errors.Is(err, hub.ErrNone) {
		return err
	}
	s.tellNotice(hub.ContactNotice{Kind: hub.Ask, From: who, To: s.account})
	return nil
}

// waitingRequests shows a client that has just come the strangers who have written, but for those that were shown already, and the
// rooms into which the account was asked.
func (s *Session) waitingRequests(ctx context.Context, shown map[core.Address]bool) error {
	var places []hub.Place
	err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		places, err = v.Places(s.account)
		return err
	})
	for _, p := range places {
		if p.Standing == core.Invited && !p.Peer.IsZero() && !shown[p.Peer] {
			shown[p.Peer] = true
			s.tellNotice(hub.ContactNotice{Kind: hub.Ask, From: p.Peer, To: s.account})
		}
	}
	if err != nil {
		return err
	}
	return s.waitingInvitations(ctx)
}

// asks says whether somebody asks the account for consent, or has it.
func (s *Session) asks(ctx context.Context, who core.Address) (asks bool, err error) {
	err = s.srv.Hub.Read(ctx, func(v hub.View) error {
		c, err := v.Contact(s.account, who)
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		asks = c.Asks || c.Sees
		return err
	})
	return asks, err
}

// decline turns down the directs to which one invited the account to whom it denies consent.
func (s *Session) decline(ctx context.Context, who core.Address) error {
	var invited []core.ConvID
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		directs, err := v.Directs(s.account, who)
		if err != nil {
			return err
		}
		for _, id := range directs {
			p, err := v.Place(s.account, id)
			if err == nil && p.Standing == core.Invited {
				invited = append(invited, id)
			} else if err != nil && !errors.Is(err, hub.ErrNone) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range invited {
		_, err := s.srv.Hub.Submit(ctx, hub.Draft{Conv: id, Sender: s.account, From: s.ID(),
			Content: core.Membership{Target: s.account, Standing: core.Left}})
		if err != nil {
			return err
		}
	}
	return nil
}
