package muc

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/lookup"
	"parley/xmpp/talk"
	"parley/xmpp/translate"
)

// message is what is said in a room, said to one occupant, or asked of the
// room by a message: its subject, an invitation.
func (s *Service) message(ctx context.Context, v Visit, to translate.JID, el *element.Element) error {
	if err := s.maySay(v, el); err != nil {
		return err
	}
	c, st, err := s.open(ctx, to)
	if err != nil {
		return err
	}
	if d := el.Child(translate.NSMUCUser, "x").Child("", "decline"); d != nil && to.Resource == "" {
		return s.decline(ctx, v, c, st, d)
	}
	if s.session(c.ID, v.From) == nil {
		return translate.Fail(translate.NotAcceptable, "you are not in this room")
	}
	if to.Resource != "" {
		return s.private(ctx, c, st, v, to.Resource, el)
	}
	if x := el.Child(translate.NSMUCUser, "x"); x.Child("", "invite") != nil {
		return s.invite(ctx, v, c, x)
	}
	if f := voiceForm(el); f != nil && el.Attr("type") != "groupchat" {
		return s.voice(ctx, v, c, st, f)
	}
	if el.Attr("type") != "groupchat" {
		return translate.Fail(translate.BadRequest, "what is said to a room is of type groupchat")
	}
	if sub := el.Child("", "subject"); sub != nil && el.Child("", "body") == nil && el.Child("", "thread") == nil {
		_, err := s.Hub.Submit(ctx, hub.Draft{
			Conv: c.ID, Sender: v.Who, Content: core.Change{Aspect: core.AspectTopic, Text: sub.Text()}, With: v.With,
		})
		return err
	}
	return s.say(ctx, v, c, st, el)
}

// maySay refuses what is too long to be sent to everybody in a room, or too much: each message costs as many as there are occupants.
func (s *Service) maySay(v Visit, el *element.Element) error {
	if n := len(element.Marshal(el)); n > s.MaxStanza {
		return s.Guard.Over(guard.RoomStanza, translate.PolicyViolation, "this has %d bytes; a room takes at most %d", n, s.MaxStanza)
	}
	if el.Attr("type") == "error" {
		return nil
	}
	return s.Guard.Allow(guard.RoomMessages, v.Who.String())
}

// say takes what an occupant says to the whole room.
//
// spec: XEP-0045 §7.4
func (s *Service) say(ctx context.Context, v Visit, c core.Conversation, st *core.State, el *element.Element) error {
	reading := translate.Reading{
		Sender: v.Who, Names: s.Names,
		Occupant: func(nick string) (core.Address, bool) { return called(st, nick) },
	}
	said, losses, err := talk.Interpret(ctx, s.Hub, el, lookup.Place{Conv: c.ID}, s.Base, reading)
	if err != nil {
		return err
	}
	for _, r := range said.Receipts {
		if r.Stage != core.StageDisplayed {
			continue
		}
		req := hub.ReadingRequest{Conv: c.ID, Who: v.Who, Event: r.Target, Thread: string(r.Thread), From: v.From.Resource}
		if err := s.Hub.MarkDisplayed(ctx, req); err != nil {
			return err
		}
	}
	if said.Typing != nil {
		var until time.Time
		if *said.Typing {
			until = time.Now().Add(typingFor)
		}
		if err := s.Hub.Typing(ctx, c.ID, v.Who, until, v.From.Resource); err != nil {
			return err
		}
	}
	d := hub.Draft{
		Conv: c.ID, Sender: v.Who, Origin: said.Origin, Content: said.Content, Native: said.Native,
		Aliases: said.Aliases, From: v.From.Resource, With: v.With,
	}
	switch {
	case said.Reactions != nil:
		return s.Hub.React(ctx, said.Reactions.Target, said.Reactions.Keys, d)
	case said.Content != nil:
		_, err := s.Hub.Submit(ctx, d)
		return err
	case len(losses) > 0:
		return translate.Fail(translate.ItemNotFound, losses[0].String())
	}
	return nil
}

// typingFor is how long a chat state "composing" holds.
const typingFor = 30 * time.Second

// private passes a message on to one occupant's sessions. It is not kept: it
// is between two sessions in a room, and each has the other's real address.
//
// spec: XEP-0045 §7.5
func (s *Service) private(ctx context.Context, c core.Conversation, st *core.State, v Visit, nick string, el *element.Element) error {
	switch el.Attr("type") {
	case "groupchat":
		return translate.Fail(translate.BadRequest, "to speak to everybody, send to the room itself")
	case "error":
		return nil
	}
	to, here := called(st, nick)
	if !here {
		return translate.Fail(translate.ItemNotFound, "nobody here is called "+nick)
	}
	sessions := s.sessionsOf(c.ID, to)
	if len(sessions) == 0 {
		return s.aside(ctx, v, to, el)
	}
	from := s.Names.RoomJID(c.Address).With(st.Members[v.Who].Nick).String()
	for _, o := range sessions {
		copied := el.Copy().RemoveChildren(func(e *element.Element) bool {
			return e.Name.Space == translate.NSMUCUser || e.Name.Space == translate.NSOccupantID
		})
		copied.SetAttr("from", from)
		copied.Add(translate.NSMUCUser, "x")
		copied.Add(translate.NSOccupantID, "occupant-id").SetAttr("id", s.occupantID(c.ID, v.Who))
		s.send(o.jid, copied)
	}
	return nil
}

// aside is what is said in a room to one who has no client of XMPP in it, but one of another network or none at the moment. Those know no
// private messages of a room: it is said to her person, in the direct conversation with her, and that is where she answers.
//
// spec: XEP-0045 §7.5
func (s *Service) aside(ctx context.Context, v Visit, to core.Address, el *element.Element) error {
	if to == v.Who || to.Network == core.XMPP {
		return translate.Fail(translate.RecipientUnavailable, "nobody is there")
	}
	speaker := talk.Speaker{Hub: s.Hub, Names: s.Names, Base: s.Base, Who: v.Who, Peer: to, Session: v.From.Resource}
	if v.With != nil {
		speaker.With = func(tx hub.Tx) error { return v.With(tx, nil) }
	}
	direct := el.Copy().SetAttr("to", s.Names.JID(to).String()).RemoveChildren(func(c *element.Element) bool {
		return c.Name.Space == translate.NSMUCUser || c.Name.Space == translate.NSOccupantID
	})
	said, _, err := speaker.Interpret(ctx, direct)
	if err != nil {
		return err
	}
	if _, err := speaker.Say(ctx, said); err != nil {
		return err
	}
	return speaker.Tell(ctx, said)
}

// invite is a mediated invitation.
//
// spec: XEP-0045 §7.8.2
func (s *Service) invite(ctx context.Context, v Visit, c core.Conversation, x *element.Element) error {
	for _, inv := range x.ChildrenNamed("", "invite") {
		j, err := translate.ParseJID(inv.Attr("to"))
		if err != nil {
			return translate.Fail(translate.JIDMalformed, "")
		}
		who, err := s.Names.Address(j.Bare())
		if err != nil {
			return translate.Fail(translate.ItemNotFound, "nobody has that address")
		}
		if err := s.Invite(ctx, c.ID, v.Who, who, inv.ChildText("", "reason"), v.With); err != nil {
			return err
		}
	}
	return nil
}

// Invite asks a person into a room and gives her the right to return.
func (s *Service) Invite(ctx context.Context, conv core.ConvID, by, who core.Address, reason string, with func(hub.Tx, *core.Event) error) error {
	_, err := s.Hub.Submit(ctx, hub.Draft{
		Conv: conv, Sender: by, With: with,
		Content: core.Membership{Target: who, Standing: core.Invited, Reason: reason},
	})
	return err
}
