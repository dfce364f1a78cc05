package muc

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// News writes what a local session hears of its rooms. It is empty where the
// session is not in the room, except for invitations. It is not to be called
// within a snapshot.
func (s *Service) News(ctx context.Context, jid translate.JID, account core.Address, n hub.News) ([]*element.Element, []core.Loss, error) {
	switch n := n.(type) {
	case hub.EventNews:
		if n.Conv.Shape != core.Group {
			return nil, nil, nil
		}
		if m, ok := n.Event.Content.(core.Membership); ok && m.Target == account && m.Standing == core.Invited {
			return addressed(jid, s.invitation(n.Conv, n.State, &n.Event, m)), nil, nil
		}
		o := s.session(n.Conv.ID, jid)
		if n.Aside || o == nil || n.Event.Feed <= o.since && !n.Again {
			return nil, nil, nil
		}
		out, losses, err := s.event(ctx, n.Conv, n.Before, n.State, &n.Event, account)
		out = s.introduced(o, n.Conv, n.State, &n.Event, out)
		s.expel(n.Conv.ID, &n.Event, n.State, jid, account, out)
		return addressed(jid, out...), losses, err
	case hub.TypingNews:
		o := s.session(n.Conv, jid)
		if o == nil || n.Who == account {
			return nil, nil, nil
		}
		el, err := s.typing(ctx, n.Conv, n.Who, !n.Until.IsZero())
		return addressed(jid, el), nil, err
	case hub.ReadingNews:
		o := s.session(n.Reading.Conv, jid)
		if o == nil || n.Own || n.Reading.Private || n.Reading.Stage != core.StageDisplayed {
			return nil, nil, nil
		}
		el, err := s.displayed(ctx, n.Reading)
		return addressed(jid, el), nil, err
	}
	return nil, nil, nil
}

// addressed sets the `to` of what is not nil.
func addressed(jid translate.JID, els ...*element.Element) []*element.Element {
	var out []*element.Element
	for _, el := range els {
		if el != nil {
			el.SetAttr("to", jid.String())
			out = append(out, el)
		}
	}
	return out
}

// event writes one event for one viewer, without `to`. before is the state before
// it, where it is a correction.
func (s *Service) event(ctx context.Context, c core.Conversation, before, st *core.State, e *core.Event, viewer core.Address) (out []*element.Element, losses []core.Loss, err error) {
	switch content := e.Content.(type) {
	case core.Membership:
		return s.membership(c, st, e, content, viewer, s.crowdOf(c.ID).extra[content.Target]), nil, nil
	case core.Change:
		switch content.Aspect {
		case core.AspectLevels:
			return s.levels(s.crowdOf(c.ID), c, st, content, viewer), nil, nil
		case core.AspectTopic:
			return []*element.Element{s.topic(c, st, e, content)}, nil, nil
		case core.AspectMovedTo:
			out, err = s.moved(ctx, c, st, viewer)
			return out, nil, err
		case core.AspectCorrected:
			out, err = s.corrected(ctx, c, before, st, content, viewer)
			return out, nil, err
		}
		return []*element.Element{s.configChanged(c)}, nil, nil
	}
	el, losses, err := s.said(ctx, c, st, e)
	if el != nil {
		out = []*element.Element{el}
	}
	return out, losses, err
}

// topic writes a changed subject.
//
// spec: XEP-0045 §8.1
func (s *Service) topic(c core.Conversation, st *core.State, e *core.Event, ch core.Change) *element.Element {
	el := element.New(translate.NSClient, "message")
	el.SetAttr("type", "groupchat")
	el.SetAttr("id", translate.MessageID(e))
	el.SetAttr("from", s.Names.RoomJID(c.Address).With(st.Members[e.Sender].Nick).String())
	el.Append(element.NewText(translate.NSClient, "subject", ch.Text))
	id := el.Add(translate.NSSID, "stanza-id")
	id.SetAttr("by", s.Names.RoomJID(c.Address).String())
	id.SetAttr("id", string(e.ID))
	return el
}

// invitation passes an invitation on.
func (s *Service) invitation(c core.Conversation, st *core.State, e *core.Event, m core.Membership) *element.Element {
	words := translate.InviteWords(c, st, m.Reason)
	return translate.Invite(s.Names.RoomJID(c.Address), s.Names.JID(e.Sender).String(), s.Names.JID(m.Target).String(), words)
}

// typing writes a chat state of an occupant.
//
// spec: XEP-0085 §5.5
func (s *Service) typing(ctx context.Context, conv core.ConvID, who core.Address, on bool) (el *element.Element, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		from, err := s.nickname(v, conv, who)
		el = translate.ChatState(on, from, "", "groupchat")
		return err
	})
	return el, err
}

// displayed writes a chat marker of an occupant.
//
// spec: XEP-0333 §4.2
func (s *Service) displayed(ctx context.Context, r hub.Reading) (el *element.Element, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		from, err := s.nickname(v, r.Conv, r.Who)
		if err != nil {
			return err
		}
		e, err := v.Event(r.Event)
		if err != nil {
			return err
		}
		el = translate.ReceiptFor(&e, core.StageDisplayed, true, from, "")
		el.SetAttr("type", "groupchat")
		return nil
	})
	return el, err
}

// nickname is the occupant JID of a member.
func (s *Service) nickname(v hub.View, conv core.ConvID, who core.Address) (string, error) {
	c, err := v.Conversation(conv)
	if err != nil {
		return "", err
	}
	st, err := v.State(conv)
	if err != nil {
		return "", err
	}
	return s.Names.RoomJID(c.Address).With(st.Members[who].Nick).String(), nil
}

// expel takes a session out of the registry when what it was just told says
// that it is in the room no longer.
func (s *Service) expel(id core.ConvID, e *core.Event, st *core.State, jid translate.JID, account core.Address, told []*element.Element) {
	m, ok := e.Content.(core.Membership)
	gone := ok && m.Target == account && m.Standing != core.Joined || ends(told)
	if ch, ok := e.Content.(core.Change); ok && ch.Aspect == core.AspectCorrected {
		gone = gone || st.Standing(account) != core.Joined
	}
	if !gone {
		return
	}
	if r := s.room(id, false); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.exit(id, r, jid)
	}
}

// Deliver writes what is owed to one visitor of another server, one stanza or
// more for each of her sessions in the room. present says whether she has any;
// to one who has none only an invitation goes. It is not to be called within a
// snapshot.
func (s *Service) Deliver(ctx context.Context, d hub.Delivery, to core.Address) (out []*element.Element, losses []core.Loss, present bool, err error) {
	e := &d.Content
	if d.Receipt != nil {
		return nil, nil, true, nil
	}
	if m, ok := e.Content.(core.Membership); ok && m.Target == to && m.Standing == core.Invited {
		el := s.invitation(d.Room, d.State, e, m)
		return addressed(s.Names.JID(to), el), nil, true, nil
	}
	var stanzas []*element.Element
	for _, o := range s.sessionsOf(d.Room.ID, to) {
		present = true
		if e.Feed <= o.since && !movedOn(e) {
			continue
		}
		if stanzas == nil {
			if stanzas, losses, err = s.event(ctx, d.Room, nil, d.State, e, to); err != nil {
				return nil, nil, true, err
			}
		}
		mine := s.introduced(o, d.Room, d.State, e, stanzas)
		for _, el := range mine {
			out = append(out, addressed(o.jid, el.Copy())...)
		}
		s.expel(d.Room.ID, e, d.State, o.jid, to, mine)
	}
	return out, losses, present, nil
}

// Whisper writes a chat state or a chat marker for a visitor of another server.
func (s *Service) Whisper(ctx context.Context, w hub.Whisper) ([]*element.Element, error) {
	write := func() (*element.Element, error) {
		return s.displayed(ctx, hub.Reading{Conv: w.Conv, Who: w.From, Event: w.Displayed})
	}
	switch {
	case w.Typing != nil:
		write = func() (*element.Element, error) {
			return s.typing(ctx, w.Conv, w.From, w.Typing.Until.After(time.Now()))
		}
	case w.Displayed == "":
		return nil, nil
	}
	var out []*element.Element
	for _, o := range s.sessionsOf(w.Conv, w.To) {
		el, err := write()
		if err != nil {
			return nil, err
		}
		out = append(out, addressed(o.jid, el)...)
	}
	return out, nil
}
