package foreign

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// Invited takes that somebody asks an account into a room of another server. All clients of the account see it, and it waits for those
// that are not there.
//
// spec: XEP-0045 §7.8
// spec: XEP-0249 §3
func (s *Service) Invited(ctx context.Context, account, by core.Address, inv translate.Invitation) error {
	p := place{account, inv.Room.Bare()}
	if p.room.Local == "" {
		return translate.Fail(translate.JIDMalformed, "")
	}
	if err := s.mayInvite(ctx, p); err != nil {
		return err
	}
	o, err := s.open(ctx, p)
	if err != nil {
		return err
	}
	o.later(func() { // whoever brought it also brings what the room answers, and cannot wait
		o.invited(by, inv, func(err error) {
			if err != nil {
				s.Log.Warn("showing an invitation", "room", o.room.String(), "err", err)
			}
		})
	})
	return nil
}

// Look implements [hub.Remote].
func (s *Service) Look(ctx context.Context, who, room core.Address) (core.ConvID, error) {
	p := place{who, s.Names.JID(room)}
	if p.room.Local == "" {
		return "", refusal(translate.Fail(translate.ItemNotFound, "that is no room"))
	}
	if err := s.mayLook(ctx, p); err != nil {
		return "", refusal(err)
	}
	o, err := s.open(ctx, p)
	if err == nil {
		err = o.do(ctx, o.look)
	}
	if err != nil {
		return "", refusal(err)
	}
	return o.conv, nil
}

// open finds an account's occupancy of a room, or makes it.
func (s *Service) open(ctx context.Context, p place) (*occupancy, error) {
	if o := s.of(p.account, p.room); o != nil {
		return o, nil
	}
	if s.rooms(p.account) >= s.MaxRooms {
		return nil, translate.Fail(translate.ResourceConstraint, "nobody may be in more rooms of other servers on this server")
	}
	r, err := s.rowOf(ctx, p)
	if err != nil {
		return nil, err
	}
	if o := s.begin(r); o != nil {
		return o, nil
	}
	return nil, translate.Fail(translate.ResourceConstraint, "this server is just starting or stopping")
}

// look finds out whether the room is one.
func (o *occupancy) look(then func(error)) {
	if o.conv != "" {
		then(nil)
		return
	}
	o.describe(func(err error) {
		switch {
		case err == nil && o.conv == "" && o.about.room:
			err = o.begun(o.changes(core.NewState()))
		case err == nil && o.conv == "":
			err = translate.Fail(translate.ItemNotFound, "that is no room")
		}
		o.over = err != nil && o.phase == outside && o.conv == ""
		then(err)
	})
}

// idle says that nobody is in the room nor wants to be: an invitation, or somebody who has only looked. What was seen of the room is
// kept.
func (o *occupancy) idle() bool {
	return o.phase == outside && !o.wanted && len(o.waiters)+len(o.visitors)+len(o.asked)+len(o.work) == 0
}

// looks counts the rooms at which an account has looked that it has not entered.
type looks struct {
	since time.Time
	n     int
}

// mayLook bounds how many rooms an account looks at that are new to it.
func (s *Service) mayLook(ctx context.Context, p place) error {
	if s.of(p.account, p.room) != nil {
		return nil
	}
	if r, err := s.rowOf(ctx, p); err != nil || r.conv != "" {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.looks[p.account]
	if time.Since(l.since) > time.Hour {
		l = looks{since: time.Now()}
	}
	if l.n++; l.n > s.MaxLooked {
		return translate.Fail(translate.ResourceConstraint, "too many rooms were looked at within an hour")
	}
	s.looks[p.account] = l
	return nil
}

// mayInvite bounds the invitations of an account that it has not answered.
func (s *Service) mayInvite(ctx context.Context, p place) error {
	n := 0
	err := s.Hub.Read(ctx, func(v hub.View) error {
		places, err := v.Places(p.account)
		for _, at := range places {
			if at.Standing == core.Invited && at.Peer.IsZero() {
				n++
			}
		}
		return err
	})
	if err == nil && n >= s.MaxInvited {
		s.Count.Count("foreign_dropped", "flood")
		err = translate.Fail(translate.ResourceConstraint, "too many invitations wait for an answer")
	}
	return err
}

// declined takes that a client says no to an invitation.
//
// spec: XEP-0045 §7.8.2
func (s *Service) declined(account core.Address, room translate.JID) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
		defer cancel()
		r, err := s.rowOf(ctx, place{account, room})
		if err != nil || r.conv == "" || r.wanted {
			return
		}
		var st *core.State
		err = s.Hub.Read(ctx, func(v hub.View) (err error) {
			st, err = v.State(r.conv)
			return err
		})
		if err == nil && st.Standing(account) == core.Invited {
			_, err = s.Hub.Apply(ctx, hub.Draft{Conv: r.conv, Sender: account, Content: core.Membership{Target: account, Standing: core.Left}})
		}
		if err != nil {
			s.Log.Error("noting that an invitation was declined", "room", room.String(), "err", err)
		}
	}()
}

// directInvitation reads an invitation that names its room.
//
// spec: XEP-0249 §3
func directInvitation(st *element.Element) (translate.Invitation, bool) {
	x := st.Child(translate.NSConference, "x")
	room, err := translate.ParseJID(x.Attr("jid"))
	if x == nil || err != nil {
		return translate.Invitation{}, false
	}
	return translate.Invitation{Room: room.Bare(), Reason: clip(x.Attr("reason"), 1000), Password: x.Attr("password")}, true
}

// askedIn takes that an occupant asks us into another room.
func (o *occupancy) askedIn(ctx context.Context, by core.Address, inv translate.Invitation) {
	blocked, err := o.s.Hub.Blocks(ctx, o.account, by)
	if err != nil || blocked || o.s.Hub.Hosts(inv.Room.Domain) {
		return
	}
	if _, ours := o.s.Names.RoomsOf(inv.Room.Domain); ours {
		return
	}
	go func() { // it may be about this room
		ctx, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), applyTimeout)
		defer cancel()
		if err := o.s.Invited(ctx, o.account, by, inv); err != nil {
			o.s.Log.Info("an invitation by an occupant", "room", o.room.String(), "err", err)
		}
	}()
}

// invited shows an invitation, with what the room says of itself to those outside.
func (o *occupancy) invited(by core.Address, inv translate.Invitation, then func(error)) {
	if o.phase != outside || o.wanted {
		then(nil) // we are there already
		return
	}
	if inv.Password != "" {
		o.password = inv.Password
	}
	o.describe(func(error) { // a room may well say nothing to those outside
		if o.phase != outside {
			then(nil)
			return
		}
		then(o.showInvitation(by, inv))
	})
}

func (o *occupancy) showInvitation(by core.Address, inv translate.Invitation) error {
	if o.conv == "" {
		if err := o.begun(o.changes(core.NewState())); err != nil {
			return err
		}
	} else if st := o.state(); st == nil || st.Standing(o.account) == core.Invited || st.Standing(o.account) == core.Joined {
		return nil
	}
	r := o.row
	o.apply(hub.Draft{
		Conv: o.conv, Sender: by, Content: core.Membership{
			Target: o.account, Standing: core.Invited, Reason: inv.Reason, Name: o.account.Name, Nick: o.account.Name,
		},
		With: func(tx hub.Tx, _ *core.Event) error { return r.keep(tx) },
	})
	return nil
}
