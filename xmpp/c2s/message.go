package c2s

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// composingFor is for how long one is said to be writing who does not say it again: clients say it once and then when it ends.
const composingFor = 90 * time.Second

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
	if svc, ok := s.srv.service(to.Domain); ok {
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
	return s.talk(ctx, st, to, peer)
}

// talk deals with a message to a person: what it says is the hub's, and what means nothing here goes on to her clients as it is.
func (s *Session) talk(ctx context.Context, st *element.Element, to translate.JID, peer core.Address) error {
	if invitation, err := s.invite(ctx, st, peer); invitation && err != nil {
		return err
	}
	said, err := s.interpret(ctx, st, peer)
	if err != nil {
		return err
	}
	switch {
	case said.Reactions != nil:
		err = s.react(ctx, said, peer)
	case said.Content != nil:
		err = s.say(ctx, said, peer)
	case said.Invitation != nil && st.ChildText("", "body") == "":
		return s.passing(st, to)
	}
	if err != nil {
		return err
	}
	if err := s.tell(ctx, said, peer); err != nil {
		return err
	}
	if said.Content == nil && said.Reactions == nil && hasOther(st) {
		return s.passing(st, to)
	}
	return nil
}

// interpret says what a stanza means that the client sends to a person.
func (s *Session) interpret(ctx context.Context, st *element.Element, peer core.Address) (said translate.Said, err error) {
	r := translate.Reading{Sender: s.account, Names: s.srv.names, Now: time.Now()}
	err = s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		r, err = lookup.Reading(v, st, lookup.Place{Peer: peer}, s.srv.Base, r)
		return err
	})
	if err != nil {
		return said, err
	}
	said, losses := translate.In(st, r)
	for _, l := range losses {
		s.log.Debug("not carried", "loss", l.String())
	}
	return said, nil
}

func (s *Session) say(ctx context.Context, said translate.Said, peer core.Address) error {
	_, err := s.srv.Hub.SubmitDirect(ctx, peer, hub.Draft{
		Sender: s.account, Origin: said.Origin, Content: said.Content, Native: said.Native, Aliases: said.Aliases,
		From: s.ID(), With: s.counted,
	})
	return err
}

func (s *Session) react(ctx context.Context, said translate.Said, peer core.Address) error {
	var conv core.ConvID
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		e, err := v.Event(said.Reactions.Target)
		conv = e.Conv
		return err
	})
	if err != nil {
		return err
	}
	return s.srv.Hub.React(ctx, said.Reactions.Target, said.Reactions.Keys, hub.Draft{
		Conv: conv, Sender: s.account, Native: said.Native, Aliases: said.Aliases, From: s.ID(), With: s.counted,
	})
}

// tell passes on what is worth nothing later: that somebody writes, and how far she has read.
func (s *Session) tell(ctx context.Context, said translate.Said, peer core.Address) error {
	for _, r := range said.Receipts {
		e, err := s.event(ctx, r.Target)
		if err != nil {
			return err
		}
		if e.Sender == s.account {
			continue // one has read one's own
		}
		req := hub.ReadingRequest{Conv: e.Conv, Who: s.account, Event: e.ID, Thread: string(r.Thread), From: s.ID(), With: s.Counted}
		if r.Stage == core.StageDisplayed {
			err = s.srv.Hub.MarkDisplayed(ctx, req)
		} else {
			err = s.srv.Hub.MarkDelivered(ctx, req)
		}
		if err != nil {
			return ignoreRefusal(err)
		}
	}
	if said.Typing == nil {
		return nil
	}
	conv, err := s.directWith(ctx, peer)
	if err != nil || conv == "" {
		return err
	}
	var until time.Time
	if *said.Typing {
		until = time.Now().Add(composingFor)
	}
	return ignoreRefusal(s.srv.Hub.Typing(ctx, conv, s.account, until, s.ID()))
}

// ignoreRefusal is for what its sender expects no answer to.
func ignoreRefusal(err error) error {
	if hub.CodeOf(err) != "" {
		return nil
	}
	return err
}

func (s *Session) event(ctx context.Context, id core.EventID) (e core.Event, err error) {
	err = s.srv.Hub.Read(ctx, func(v hub.View) error {
		e, err = v.Event(id)
		return err
	})
	return e, err
}

// directWith is the current direct with a person, or "" if there is none yet: that somebody writes does not open one.
func (s *Session) directWith(ctx context.Context, peer core.Address) (conv core.ConvID, err error) {
	err = s.srv.Hub.Read(ctx, func(v hub.View) error {
		all, err := v.Directs(s.account, peer)
		if err == nil && len(all) > 0 {
			conv = all[0]
		}
		return err
	})
	return conv, err
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
	go s.call(func(context.Context) {
		if s.carbons {
			s.SendAway(s.carbon("sent", m))
		}
	})
}

// carbon wraps a message as one that another client of the account has sent or received.
//
// spec: XEP-0280 §6
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

// hasOther says whether a message holds something that is passed on as it is.
func hasOther(m *element.Element) bool {
	for _, c := range m.Elements() {
		switch c.Name.Space {
		case translate.NSChatStates, translate.NSReceipts, translate.NSMarkers, translate.NSHints, translate.NSSID,
			translate.NSCarbons, translate.NSClient, translate.NSDelay:
		default:
			return true
		}
	}
	return false
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
