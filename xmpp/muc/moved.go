package muc

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// A room that went on elsewhere is destroyed for clients of XMPP, with the address of the other as the alternate venue: they leave it and
// show where to go on. None of them goes there by itself, but Conversations, Dino, Gajim and Converse enter what is bookmarked, and a room
// is bookmarked as soon as the account is in it. So the accounts are brought there first, and the notice waits for that, which it does not
// for long: a client that is told of the end alone shows a room that nobody can find again. Where they could not be brought there in time,
// the notice says so without an address, and the bookmark comes when they are.

// movedOn says whether an event says where the room went on.
func movedOn(e *core.Event) bool {
	ch, ok := e.Content.(core.Change)
	return ok && ch.Aspect == core.AspectMovedTo
}

// successor is where a room went on, as far as that is known. waits says that it is being found out.
func (s *Service) successor(ctx context.Context, c core.Conversation, st *core.State) (next core.Conversation, waits bool, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		if waits, err = s.Hub.Following(v, c.ID); err != nil || waits {
			return err
		}
		next, _, err = hub.Successor(v, st)
		return err
	})
	return next, waits, err
}

// moved tells one viewer that the room went on elsewhere.
func (s *Service) moved(ctx context.Context, c core.Conversation, st *core.State, viewer core.Address) ([]*element.Element, error) {
	next, waits, err := s.successor(ctx, c, st)
	if err != nil || waits || st.MovedTo == nil {
		return nil, err
	}
	return []*element.Element{s.destroyed(c, st, next, viewer)}, nil
}

// goesOn refuses to let anybody into a room that went on elsewhere, if it is known where.
//
// spec: RFC 6120 §8.3.3.5
func (s *Service) goesOn(ctx context.Context, c core.Conversation) error {
	var st *core.State
	err := s.Hub.Read(ctx, func(v hub.View) (err error) {
		st, err = v.State(c.ID)
		return err
	})
	if err != nil || st.MovedTo == nil {
		return err
	}
	next, waits, err := s.successor(ctx, c, st)
	if err != nil || waits || next.Address.IsZero() {
		return err
	}
	return s.movedTo(next.Address, "this room went on at another address")
}

// movedTo is the error that names the address of a room.
func (s *Service) movedTo(a core.Address, text string) error {
	return &translate.Error{
		Condition: translate.GoneError, Text: text,
		Extra: element.NewText(translate.NSStanzas, "gone", "xmpp:"+s.Names.RoomJID(a).String()+"?join"),
	}
}

// destroyed tells an occupant that the room is no more, and where it went on.
//
// spec: XEP-0045 §10.9
func (s *Service) destroyed(c core.Conversation, st *core.State, next core.Conversation, viewer core.Address) *element.Element {
	p := element.New(translate.NSClient, "presence")
	p.SetAttr("type", "unavailable")
	p.SetAttr("from", s.Names.RoomJID(c.Address).With(st.Members[viewer].Nick).String())
	x := p.Add(translate.NSMUCUser, "x")
	item := x.Add("", "item")
	item.SetAttr("affiliation", "none")
	item.SetAttr("role", noRole)
	d := x.Add("", "destroy")
	at := next.Address
	if at.IsZero() {
		at = st.MovedTo.Address
	}
	if !at.IsZero() {
		d.SetAttr("jid", s.Names.RoomJID(at).String())
	}
	if st.MovedTo.Reason != "" {
		d.Append(element.NewText(translate.NSMUCUser, "reason", st.MovedTo.Reason))
	}
	return addStatus(p, 110)
}

// ends says whether one of the stanzas says that the room is no more.
func ends(out []*element.Element) bool {
	for _, el := range out {
		if el.Name.Local == "presence" && el.Child(translate.NSMUCUser, "x").Child("", "destroy") != nil {
			return true
		}
	}
	return false
}
