package c2s

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/talk"
	"parley/xmpp/translate"
)

// message deals with a message of the client.
//
// spec: RFC 6121 §5
func (s *Session) message(ctx context.Context, st *element.Element) error {
	to := s.jid.Bare()
	if st.Attr("to") != "" {
		var err error
		if to, err = translate.ParseJID(st.Attr("to")); err != nil {
			return translate.Fail(translate.JIDMalformed, "")
		}
	}
	if err := s.assist(ctx, st); err != nil {
		return err
	}
	if to == s.jid.Bare() {
		if answered, err := s.approval(ctx, st); answered || err != nil {
			return err
		}
	}
	if svc, ok := s.serves(st, to); ok {
		return svc.Stanza(ctx, s, st)
	}
	typ := st.Attr("type")
	if to.Local == "" && s.srv.Hub.Hosts(to.Domain) {
		return errNobody
	}
	if typ == "groupchat" {
		if s.srv.Hub.Hosts(to.Domain) {
			return errNobody
		}
		return s.forward(st, to)
	}
	peer, err := s.srv.names.Address(to.Bare())
	if err != nil {
		return translate.Fail(translate.ItemNotFound, "")
	}
	if typ == "headline" || typ == "error" || peer == s.account {
		return s.passing(st, to)
	}
	if abroad(peer) {
		return s.talkAbroad(ctx, st, to, peer)
	}
	return s.talk(ctx, st, to, peer)
}

// talk deals with a message to a person: what it says is the hub's, and what means nothing here goes on to her clients as it is.
func (s *Session) talk(ctx context.Context, st *element.Element, to translate.JID, peer core.Address) error {
	if blocked, err := s.srv.Hub.Blocks(ctx, s.account, peer); err != nil {
		return err
	} else if blocked { // spec: XEP-0191 §3.3
		return &translate.Error{Condition: translate.NotAcceptable, Text: "you have blocked this person",
			Extra: element.New("urn:xmpp:blocking:errors", "blocked")}
	}
	if invitation, err := s.invite(ctx, st, peer); invitation && err != nil {
		return err
	}
	speaker := talk.Speaker{
		Hub: s.srv.Hub, Names: s.srv.names, Base: s.srv.Base, Who: s.account, Peer: peer, Session: s.ID(), With: s.Counted,
	}
	said, losses, err := speaker.Interpret(ctx, st)
	if err != nil {
		return err
	}
	for _, l := range losses {
		s.Log().Debug("not carried", "loss", l.String())
	}
	kept, err := speaker.Say(ctx, said)
	if err != nil {
		return err
	}
	if !kept && said.Invitation != nil && st.ChildText("", "body") == "" {
		return s.passing(st, to)
	}
	if err := speaker.Tell(ctx, said); err != nil {
		return err
	}
	if !kept && talk.HasOther(st) {
		return s.passing(st, to)
	}
	return nil
}

// passing sends a message on to the clients that are there, and to the account's own others as a carbon copy.
func (s *Session) passing(st *element.Element, to translate.JID) error {
	out := st.Copy()
	private := out.Child(translate.NSCarbons, "private") != nil || out.Child(translate.NSHints, "no-copy") != nil
	out.RemoveChildren(func(c *element.Element) bool { return c.Name.Space == translate.NSCarbons })
	if err := s.forward(out, to); err != nil {
		if st.Attr("type") == "headline" || !s.srv.Hub.Hosts(to.Domain) {
			return ignoreNobody(err)
		}
	}
	if private || st.Attr("type") == "headline" || st.Attr("type") == "error" || to.Bare() == s.jid.Bare() {
		return nil
	}
	for _, o := range s.srv.of(s.account) {
		if o != s {
			o.copySent(out)
		}
	}
	return nil
}

// copySent shows a message that another client of the account has sent. Any goroutine may call it.
func (s *Session) copySent(m *element.Element) {
	if s.state.carbons.Load() {
		s.post(s.carbon("sent", m))
	}
}

// carbon wraps a message as one that another client of the account has sent or received.
//
// spec: XEP-0280 §7
func (s *Session) carbon(kind string, m *element.Element) *element.Element {
	c := element.New(translate.NSClient, "message").SetAttr("from", s.jid.Bare().String()).SetAttr("to", s.jid.String())
	if t := m.Attr("type"); t != "" {
		c.SetAttr("type", t)
	}
	c.Add(translate.NSCarbons, kind).Append(translate.Forwarded(m, time.Time{}))
	return c
}

func ignoreNobody(err error) error {
	if err == errNobody { //nolint:errorlint // it is returned bare
		return nil
	}
	return err
}

// invite lets the invited one into a room of ours to which the client invites her; the message itself goes on as any other.
func (s *Session) invite(ctx context.Context, st *element.Element, peer core.Address) (invitation bool, err error) {
	x := st.Child(translate.NSConference, "x")
	if x == nil {
		return false, nil
	}
	j, err := translate.ParseJID(x.Attr("jid"))
	if err != nil {
		return true, translate.Fail(translate.BadRequest, "this is no room")
	}
	if _, ours := s.srv.names.RoomsOf(j.Domain); !ours {
		return true, nil
	}
	room, err := s.srv.names.RoomAddress(j.Bare())
	if err != nil {
		return true, translate.Fail(translate.ItemNotFound, "")
	}
	var conv core.ConvID
	var standing core.Standing
	err = s.srv.Hub.Read(ctx, func(v hub.View) error {
		if conv, err = v.ConversationAt(room); err != nil {
			return err
		}
		state, err := v.State(conv)
		if err == nil {
			standing = state.Standing(peer)
		}
		return err
	})
	if err != nil || standing == core.Joined || standing == core.Invited {
		return true, nil //nolint:nilerr // there is no such room: the message says so to her who tries
	}
	_, err = s.srv.Hub.Submit(ctx, hub.Draft{Conv: conv, Sender: s.account, From: s.ID(),
		Content: core.Membership{Target: peer, Standing: core.Invited, Reason: x.Attr("reason")}})
	return true, err
}
