package foreign

import (
	"context"

	"parley/core"
	"parley/hub"
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
