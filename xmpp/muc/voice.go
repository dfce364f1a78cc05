package muc

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// nsRequest is the form type of requests for voice.
const nsRequest = "http://jabber.org/protocol/muc#request"

// voiceForm returns the form about voice that a message holds, or nil.
func voiceForm(el *element.Element) map[string]string {
	x := el.Child(nsForm, "x")
	if x == nil || x.Attr("type") != "submit" {
		return nil
	}
	if f := readForm(x); f["FORM_TYPE"] == nsRequest {
		return f
	}
	return nil
}

// voice takes a visitor's request to speak, which goes to the moderators who
// are there, and a moderator's answer to one: both come as messages.
//
// spec: XEP-0045 §7.13
func (s *Service) voice(ctx context.Context, v Visit, c core.Conversation, st *core.State, f map[string]string) error {
	if _, answer := f["muc#request_allow"]; answer {
		return s.grantVoice(ctx, v, c, st, f)
	}
	if f["muc#role"] != participant {
		return translate.Fail(translate.BadRequest, "only the role of a participant can be asked for")
	}
	if roleOf(st, v.Who) != visitor {
		return translate.Fail(translate.NotAllowed, "you may speak already")
	}
	asked := false
	for _, m := range st.Joined() {
		if roleOf(st, m.Address) != moderator {
			continue
		}
		for _, o := range s.sessionsOf(c.ID, m.Address) {
			s.send(o.jid, s.voiceRequest(c, st.Members[v.Who]))
			asked = true
		}
	}
	if !asked {
		return translate.Fail(translate.RecipientUnavailable, "no moderator is here")
	}
	return nil
}

// voiceRequest is the form in which a moderator decides.
//
// spec: XEP-0045 §8.6
func (s *Service) voiceRequest(c core.Conversation, m core.Member) *element.Element {
	el := element.New(translate.NSClient, "message")
	el.SetAttr("from", s.Names.RoomJID(c.Address).String())
	f := newForm(el, "form", nsRequest)
	role := f.field("muc#role", "list-single", "Requested role", participant)
	option(role, "Participant", participant)
	f.field("muc#jid", "jid-single", "User ID", s.Names.JID(m.Address).String())
	f.field("muc#roomnick", "text-single", "Room Nickname", m.Nick)
	f.boolean("muc#request_allow", "Grant voice to this person?", false)
	return el
}

// grantVoice does what a moderator decided. Whether she may is judged by the
// room's authority, as of any change of levels.
//
// spec: XEP-0045 §8.6
func (s *Service) grantVoice(ctx context.Context, v Visit, c core.Conversation, st *core.State, f map[string]string) error {
	if roleOf(st, v.Who) != moderator {
		return translate.Fail(translate.ForbiddenError, "only moderators grant voice")
	}
	if !isTrue(f["muc#request_allow"]) {
		return nil
	}
	j, err := translate.ParseJID(f["muc#jid"])
	if err != nil {
		return translate.Fail(translate.JIDMalformed, "")
	}
	who, err := s.Names.Address(j.Bare())
	if err != nil || st.Standing(who) != core.Joined {
		return translate.Fail(translate.ItemNotFound, "nobody here has that address")
	}
	return s.Hub.ChangeLevels(ctx, c.ID, v.Who, func(now *core.State, l *core.Levels) {
		if roleOf(now, who) == visitor {
			l.Users[who] = max(now.Needs("message", false), l.Default)
		}
	})
}

// decline tells the inviter that an invitation was not accepted. The invited
// need not be in the room; what was not offered cannot be declined.
//
// spec: XEP-0045 §7.8.2
func (s *Service) decline(ctx context.Context, v Visit, c core.Conversation, st *core.State, d *element.Element) error {
	if st.Standing(v.Who) != core.Invited {
		return translate.Fail(translate.ForbiddenError, "nobody has invited you")
	}
	j, err := translate.ParseJID(d.Attr("to"))
	if err != nil {
		return translate.Fail(translate.JIDMalformed, "")
	}
	inviter, err := s.Names.Address(j.Bare())
	if err != nil || st.Standing(inviter) != core.Joined && st.Members[v.Who].By != inviter {
		return translate.Fail(translate.ItemNotFound, "nobody here has that address")
	}
	_, err = s.Hub.Submit(ctx, hub.Draft{
		Conv: c.ID, Sender: v.Who, With: v.With, Content: core.Membership{Target: v.Who, Standing: core.Left},
	})
	if err != nil {
		return err
	}
	for _, o := range s.sessionsOf(c.ID, inviter) {
		el := element.New(translate.NSClient, "message")
		el.SetAttr("from", s.Names.RoomJID(c.Address).String())
		out := el.Add(translate.NSMUCUser, "x").Add("", "decline")
		out.SetAttr("from", s.Names.JID(v.Who).String())
		if reason := d.ChildText("", "reason"); reason != "" {
			out.Append(element.NewText(translate.NSMUCUser, "reason", reason))
		}
		s.send(o.jid, el)
	}
	return nil
}
