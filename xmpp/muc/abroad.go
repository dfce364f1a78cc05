package muc

import (
	"context"
	"errors"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// A room of another network's servers in which nobody here is yet is entered, declined or looked at by asking those servers, which may
// take minutes. Whoever asks goes on with other things meanwhile.

const (
	maxAbroad  = 16 // visitors who wait for other servers at a time
	abroadTime = 5 * time.Minute
)

// errand is what other servers have to be asked because of a stanza. ask does not touch the session and commits nothing with the stanza;
// then, if not nil, is what is left to do.
type errand struct {
	to   translate.JID // nothing else to there is dealt with meanwhile; zero for no such place
	ask  func(context.Context) error
	then func(context.Context) error
}

// errand looks whether other servers have to be asked because of a stanza; nil if not. Its error is that of the stanza.
func (s *Service) errand(ctx context.Context, v Visit, el *element.Element) (*errand, error) {
	to, err := translate.ParseJID(el.Attr("to"))
	if err != nil || to.Local == "" || !mayTakeOthers(el, to) {
		return nil, nil //nolint:nilerr // handle says so
	}
	place, err := s.placeOf(ctx, to, v.Who)
	if err == nil && !place.abroad && asksPast(el) {
		return s.digging(ctx, v, place, el)
	}
	if err != nil || !place.abroad {
		return nil, err
	}
	switch el.Name.Local {
	case "presence":
		return s.entering(v, to, place, el)
	case "message":
		if place.conv == "" {
			return nil, nil
		}
		alone := v
		alone.With, alone.Send = nil, nil
		return &errand{to: to.Bare(), ask: func(ctx context.Context) error { return s.handle(ctx, alone, el) }}, nil
	}
	return s.looking(v, place, el), nil
}

// mayTakeOthers says whether a stanza enters a room, declines an invitation or asks something of a room or of its archive: of all else,
// which is most, nobody else has to be asked.
func mayTakeOthers(el *element.Element, to translate.JID) bool {
	switch el.Name.Local {
	case "presence":
		return el.Attr("type") == "" && to.Resource != ""
	case "message":
		return to.Resource == "" && el.Child(translate.NSMUCUser, "x").Child("", "decline") != nil
	}
	return (el.Attr("type") == "get" || asksPast(el)) && to.Resource == ""
}

// place is what is known of the room that a JID names, to one person.
type place struct {
	conv core.ConvID  // empty for a room that is not known here
	at   core.Address // which is there
	// abroad says that it takes other servers to let her in.
	abroad bool
}

func (s *Service) placeOf(ctx context.Context, to translate.JID, who core.Address) (p place, err error) {
	a, err := s.Names.RoomAddress(to)
	if err != nil {
		return p, nil //nolint:nilerr // handle says so
	}
	err = s.Hub.Read(ctx, func(view hub.View) error {
		if p.conv, err = view.ConversationAt(a); err != nil {
			return err
		}
		p.abroad, err = s.Hub.Abroad(view, p.conv, who)
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		p, err = place{at: a, abroad: !a.IsLocal() && who.IsLocal()}, nil
	}
	return p, err
}

// entering has other servers let somebody in. She is called there as her profile says, or by the nick that she wants; what is left is
// what happens in any room.
//
// spec: XEP-0045 §7.2
func (s *Service) entering(v Visit, to translate.JID, p place, el *element.Element) (*errand, error) {
	if err := s.mayMove(v, to.Bare(), el); err != nil {
		return nil, err
	}
	ask := func(ctx context.Context) error {
		r := hub.JoinRequest{Conv: p.conv, Who: v.Who}
		profile, err := s.Hub.Profile(ctx, v.Who)
		if err != nil {
			return err
		}
		if profile.Name == "" {
			r.Name = to.Resource
		}
		if p.conv == "" {
			_, err = s.Hub.EnterAt(ctx, p.at, r)
		} else {
			_, err = s.Hub.Join(ctx, r)
		}
		return notLetIn(err)
	}
	v.admitted = true
	return &errand{to.Bare(), ask, func(ctx context.Context) error { return s.handle(ctx, v, el) }}, nil
}

// notLetIn makes what another server's refusal of a join is to clients of rooms here: that one is not on the list. The words say it if it
// was a ban.
//
// spec: XEP-0045 §7.2.6
func notLetIn(err error) error {
	if r, ok := errors.AsType[*hub.Refusal](err); ok && r.Code == hub.Forbidden {
		return hub.Refuse(hub.MembersOnly, "%s", r.Text)
	}
	return err
}

// looking has a room that nobody here knows asked what it is like. Clients ask that before they enter, and some enter only what
// exists. What is asked of it that only members may know is answered without it.
func (s *Service) looking(v Visit, p place, el *element.Element) *errand {
	body := el.First()
	if p.conv != "" || body == nil {
		return nil
	}
	info, items := body.Is(nsDisco, "query") && body.Attr("node") == "", body.Is(nsItems, "query")
	if !info && !items && !body.Is(nsPing, "ping") {
		return nil
	}
	var g hub.Glance
	return &errand{
		ask: func(ctx context.Context) (err error) {
			if err = s.Guard.Allow(guard.Joins, v.Who.String()); err == nil {
				g, err = s.Hub.Glance(ctx, v.Who, p.at)
			}
			return err
		},
		then: func(context.Context) error {
			var answer *element.Element
			switch {
			case info:
				answer = s.glance(g)
			case items:
				answer = element.New(nsItems, "query")
			}
			s.reply(v, el, answer)
			return nil
		},
	}
}

// glance describes a room as far as it is known from outside.
//
// spec: XEP-0045 §6.4
func (s *Service) glance(g hub.Glance) *element.Element {
	name := g.Name
	if name == "" {
		name = g.Address.Name
	}
	out := element.New(nsDisco, "query")
	identity(out, "conference", "text", name)
	features(out, roomFeatures...)
	features(out, either(g.JoinRule == core.JoinPublic, "muc_open", "muc_membersonly"), "muc_persistent",
		either(g.Members > 0, "muc_public", "muc_hidden"), "muc_unmoderated")
	f := newForm(out, "result", nsInfo)
	f.field("muc#roominfo_description", "text-single", "Description", g.Topic)
	f.field("muc#roominfo_subject", "text-single", "Subject", g.Topic)
	if g.Members > 0 {
		f.field("muc#roominfo_occupants", "text-single", "Occupants", strconv.Itoa(g.Members))
	}
	f.field("muc#roomconfig_roomname", "text-single", "Name", name)
	return out
}

// goesAbroad deals with a visitor's stanza because of which other servers have to be asked; false if it is another one.
func (s *Service) goesAbroad(ctx context.Context, v Visit, el *element.Element) bool {
	var e *errand
	refused := true
	s.answer(ctx, v, el, func(context.Context, Visit, *element.Element) (err error) {
		e, err = s.errand(ctx, v, el)
		refused = err != nil
		return err
	})
	if e == nil {
		return refused
	}
	select {
	case s.abroad <- struct{}{}:
	default:
		s.answer(ctx, v, el, func(context.Context, Visit, *element.Element) error {
			return translate.Fail(translate.ResourceConstraint, "too many wait for an answer of other servers")
		})
		return true
	}
	go func() {
		defer func() { <-s.abroad }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abroadTime)
		defer cancel()
		s.answer(ctx, v, el, func(ctx context.Context, _ Visit, _ *element.Element) error {
			if err := e.ask(ctx); err != nil || e.then == nil {
				return err
			}
			return e.then(ctx)
		})
	}()
	return true
}

// errandOf is goesAbroad for a session here.
func (l Local) errandOf(ctx context.Context, s *c2s.Session, v Visit, el *element.Element) (bool, error) {
	e, err := l.errand(ctx, v, el)
	if err != nil || e == nil {
		return err != nil, err
	}
	return true, s.Beside(e.to, e.ask, func(ctx context.Context, err error) error {
		if err != nil || e.then == nil {
			return err
		}
		return e.then(ctx)
	})
}
