package c2s

import (
	"bytes"
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// news shows the client what the hub tells.
func (s *Session) news(ctx context.Context, n hub.News) error {
	switch n := n.(type) {
	case hub.EventNews:
		if n.Aside {
			return nil // a state that is not in force: XMPP shows what is
		}
		if n.Conv.Shape != core.Direct {
			return s.roomNews(ctx, n)
		}
		return s.directEvent(ctx, n)
	case hub.ReadingNews:
		return s.readingNews(ctx, n)
	case hub.TypingNews:
		return s.typingNews(ctx, n)
	case hub.PresenceNews:
		s.presenceNews(n)
	case hub.ContactNews:
		return s.contactNews(ctx, n)
	case hub.BlockNews:
		s.blockNews(n)
	case hub.ReportNews:
		if err := s.elsewhereNews(ctx, n); err != nil {
			return err
		}
		s.reportNews(n)
	case hub.PokeNews:
		return s.pepNews(ctx, n)
	case hub.BehindNews:
		s.fail(errBehind)
	case hub.ProfileNews:
		if err := s.profileNews(ctx, n); err != nil {
			return err
		}
		return s.servicesNews(ctx, n)
	}
	return nil
}

func (s *Session) servicesNews(ctx context.Context, n hub.News) error {
	for _, svc := range s.srv.services {
		if err := svc.News(ctx, s, n); err != nil {
			return err
		}
	}
	return nil
}

// roomNews passes news of a room to the service that serves it, and keeps the bookmarks.
func (s *Session) roomNews(ctx context.Context, n hub.EventNews) error {
	if c, ok := n.Event.Content.(core.Membership); ok && c.Target == s.account {
		if err := s.bookmarkNews(ctx, n, c); err != nil {
			return err
		}
	}
	if c, ok := n.Event.Content.(core.Change); ok && (c.Aspect == core.AspectMovedTo || c.Aspect == core.AspectCorrected) {
		if err := s.bookmarkGone(ctx, n); err != nil {
			return err
		}
		for _, piece := range c.Corrected {
			if piece.Kind != string(core.KindMembership) || piece.Key != s.account.String() {
				continue
			}
			if err := s.bookmarkNews(ctx, n, core.Membership{Target: s.account, Standing: n.State.Standing(s.account)}); err != nil {
				return err
			}
		}
	}
	if n.Conv.Authority == core.Elsewhere {
		return s.elsewhereNews(ctx, n)
	}
	return s.servicesNews(ctx, n)
}

// peerOf is the other person of a direct.
func peerOf(s *core.State, me core.Address) core.Address {
	other, _ := s.Other(me)
	return other
}

// directEvent shows an event of a direct.
func (s *Session) directEvent(ctx context.Context, n hub.EventNews) error {
	e := &n.Event
	peer := peerOf(n.State, s.account)
	if c, ok := e.Content.(core.Membership); ok {
		switch {
		case c.Target != s.account:
		case c.Standing == core.Joined && n.Conv.Authority == core.Graph:
			s.heldElsewhere(n.Conv.ID, e.Feed)
		case c.Standing == core.Joined:
			return s.heldMessages(ctx, n.Conv.ID, e.Feed)
		case c.Standing == core.Invited && s.Available():
			return s.requested(ctx, e.Sender)
		}
		return nil
	}
	if e.Sender == s.account {
		if n.From == s.ID() && s.spokeHere(e) {
			return nil
		}
		return s.sentEvent(ctx, e, peer)
	}
	if e.Feed <= s.replayed {
		return nil
	}
	m, err := s.render(ctx, e, peer)
	if err == nil && m != nil {
		s.receivedMessage(m, e)
	}
	return err
}

// spokeHere says whether it was this client that said it: sessions of other protocols have names of their own.
func (s *Session) spokeHere(e *core.Event) bool {
	return e.Native != nil && e.Native.Network == core.XMPP || core.KindOf(e.Content) == core.KindReaction || core.KindOf(e.Content) == core.KindRetract
}

// render writes an event of a direct with peer as a message for this account's clients; nil if there is none for it.
func (s *Session) render(ctx context.Context, e *core.Event, peer core.Address) (m *element.Element, err error) {
	err = s.srv.Hub.Read(ctx, func(v hub.View) error {
		m, err = s.srv.compose(v, s.account, peer, e)
		return err
	})
	return m, err
}

// compose writes an event of the direct of account and peer as the account's archive holds it.
func (srv *Server) compose(v hub.View, account, peer core.Address, e *core.Event) (*element.Element, error) {
	me, other := srv.names.JID(account).String(), srv.names.JID(peer).String()
	w := translate.Writing{Names: srv.names, From: other, To: me, Ask: true,
		StanzaIDs: []translate.StanzaID{{By: me, ID: string(e.ID)}}}
	if e.Sender == account {
		w.From, w.To, w.Ask = me, other, false
	}
	if err := lookup.Writing(v, e, srv.Base, &w); err != nil {
		return nil, err
	}
	m, _ := translate.Out(e, w) // what is lost was counted when it was accepted
	return m, nil
}

// receivedMessage shows the client a message to the account: as it is if it is for this client, else as a carbon copy.
//
// spec: RFC 6121 §8.5.2
// spec: XEP-0280 §7
func (s *Session) receivedMessage(m *element.Element, e *core.Event) {
	addressed := nativeTo(e)
	if addressed != "" && addressed != s.jid.Resource {
		if other, ok := s.srv.at(s.account, addressed); ok && other.Available() {
			if s.state.carbons.Load() && s.Available() && copied(m) {
				s.send(s.carbon("received", m), e.Feed)
			}
			return
		}
	}
	if addressed == s.jid.Resource || s.state.takesBare() {
		if addressed == s.jid.Resource {
			m.SetAttr("to", s.jid.String())
		}
		s.send(m, e.Feed)
	}
}

// nativeTo is the client to which the sender addressed a message, "" for all.
func nativeTo(e *core.Event) string {
	if e.Native == nil || e.Native.Network != core.XMPP || bareTo(e.Native.Data) {
		return ""
	}
	m, err := element.Parse(e.Native.Data, element.DefaultLimits)
	if err != nil {
		return ""
	}
	j, err := translate.ParseJID(m.Attr("to"))
	if err != nil {
		return ""
	}
	return j.Resource
}

// bareTo says that a stanza in our own encoding is plainly addressed to a bare JID, which most are: so that it need not be parsed to
// know that.
func bareTo(stanza []byte) bool {
	tag, _, _ := bytes.Cut(stanza, []byte(">"))
	_, to, ok := bytes.Cut(tag, []byte(" to='"))
	to, _, ended := bytes.Cut(to, []byte("'"))
	return ok && ended && !bytes.ContainsAny(to, "/&")
}

// copied says whether a message may be copied to other clients than the one that it is for.
func copied(m *element.Element) bool {
	return m.Child(translate.NSCarbons, "private") == nil && m.Child(translate.NSHints, "no-copy") == nil
}

// sentEvent shows the client what the account said on another one, in whatever network's client.
func (s *Session) sentEvent(ctx context.Context, e *core.Event, peer core.Address) error {
	if !s.state.carbons.Load() || !s.Available() || private(e) {
		return nil
	}
	m, err := s.render(ctx, e, peer)
	if err == nil && m != nil && copied(m) {
		s.send(s.carbon("sent", m), e.Feed)
	}
	return err
}

// private says whether the sender's client wants no copies on others.
func private(e *core.Event) bool {
	if e.Native == nil || e.Native.Network != core.XMPP {
		return false
	}
	m, err := element.Parse(e.Native.Data, element.DefaultLimits)
	return err == nil && !copied(m)
}

// maxOffline is how many messages a client gets that does not fetch them itself; the archive has the rest.
const maxOffline = 500

// spokenKinds are the kinds of events that are messages.
var spokenKinds = []core.Kind{core.KindMessage, core.KindEdit, core.KindRetract, core.KindReaction, core.KindExtension}

// offline gives the client the messages that no client of the account is known to have received, unless it has asked the archive
// itself. Among them are those on the way to a client that will perhaps never acknowledge them.
//
// spec: XEP-0160 §3
func (s *Session) offline(ctx context.Context) error {
	after, err := s.srv.cursors.get(ctx, s.account)
	if err != nil || s.sawMAM {
		return err
	}
	err = s.replay(ctx, hub.Query{For: s.account, Directs: true, AfterFeed: after, ByFeed: true, Latest: true,
		Limit: maxOffline, Kinds: spokenKinds, Aliases: true})
	if err != nil {
		return err
	}
	return s.lateFailures(ctx, after)
}

// lateFailures tells the client of messages that could not be delivered while no client was there.
func (s *Session) lateFailures(ctx context.Context, after core.Feed) error {
	var news []hub.ReportNews
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		reports, err := v.Reports(s.account, after)
		if err != nil {
			return err
		}
		for _, r := range reports {
			if r.Stage != core.StageFailed {
				continue
			}
			e, err := v.Event(r.Event)
			if err != nil {
				return err
			}
			news = append(news, hub.ReportNews{Report: r, Event: e})
		}
		return nil
	})
	for _, n := range news {
		s.reportNews(n)
	}
	return err
}

// heldMessages gives the client what was said in a direct before the account let the other in, by the event with that feed number:
// what was said since comes as news.
func (s *Session) heldMessages(ctx context.Context, conv core.ConvID, before core.Feed) error {
	if !s.state.takesBare() {
		return nil
	}
	return s.replay(ctx, hub.Query{Conv: conv, BeforeFeed: before, Latest: true, Limit: maxOffline, Kinds: spokenKinds, Aliases: true})
}

// replay shows the client messages of others that the account has not displayed anywhere.
func (s *Session) replay(ctx context.Context, q hub.Query) error {
	type item struct {
		m *element.Element
		e core.Event
	}
	var items []item
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		last, err := v.LastFeed()
		if err != nil {
			return err
		}
		events, err := s.srv.Hub.HistoryIn(v, s.account, q)
		if err != nil {
			return err
		}
		if q.Conv == "" {
			s.replayed = last
		}
		read := newDisplayed(v, s.account)
		for _, e := range events {
			if e.Sender == s.account || e.Retracted != "" {
				continue
			}
			seen, err := read.has(&e)
			if err != nil {
				return err
			}
			if seen {
				continue
			}
			m, err := s.srv.compose(v, s.account, e.Sender, &e)
			if err != nil {
				return err
			}
			if m != nil && m.Child(translate.NSHints, "no-store") == nil {
				items = append(items, item{m.Append(translate.Delay(e.Time, s.jid.Domain)), e})
			}
		}
		return nil
	})
	for _, it := range items {
		s.send(it.m, it.e.Feed)
	}
	return err
}

// displayed knows what an account has displayed.
type displayed struct {
	v    hub.View
	who  core.Address
	upTo map[core.ConvID]core.Position
}

func newDisplayed(v hub.View, who core.Address) *displayed {
	return &displayed{v: v, who: who, upTo: map[core.ConvID]core.Position{}}
}

func (d *displayed) has(e *core.Event) (bool, error) {
	at, known := d.upTo[e.Conv]
	if !known {
		all, err := d.v.Readings(e.Conv, d.who, 0)
		if err != nil {
			return false, err
		}
		for _, r := range all {
			if r.Who == d.who && r.Thread == "" {
				at = max(at, r.At)
			}
		}
		d.upTo[e.Conv] = at
	}
	return e.Position <= at, nil
}

// readingNews shows the client that the other has received or read a message of the account, and what the account has read on
// another client.
//
// spec: XEP-0333 §4
// spec: XEP-0184 §5
func (s *Session) readingNews(ctx context.Context, n hub.ReadingNews) error {
	if err := s.displayedNews(ctx, n); err != nil {
		return err
	}
	if !s.Available() || n.Own && (n.From == s.ID() || n.Reading.Stage != core.StageDisplayed) {
		return nil
	}
	var e core.Event
	var c core.Conversation
	var state *core.State
	err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		if c, err = v.Conversation(n.Reading.Conv); err != nil || c.Shape != core.Direct {
			return err
		}
		if state, err = v.State(c.ID); err != nil {
			return err
		}
		e, err = v.Event(n.Reading.Event)
		return err
	})
	if err != nil {
		return err
	}
	if c.Shape != core.Direct {
		return s.servicesNews(ctx, n)
	}
	peer := s.srv.names.JID(peerOf(state, s.account)).String()
	me := s.jid.Bare().String()
	if n.Own {
		if s.state.carbons.Load() {
			s.SendAway(s.carbon("sent", translate.ReceiptFor(&e, n.Reading.Stage, false, me, peer)))
		}
		return nil
	}
	if e.Sender == s.account && s.state.takesBare() {
		s.Send(translate.ReceiptFor(&e, n.Reading.Stage, false, peer, s.jid.String()))
	}
	return nil
}

// typingNews shows the client that somebody writes.
//
// spec: XEP-0085 §5
func (s *Session) typingNews(ctx context.Context, n hub.TypingNews) error {
	if !s.state.takesBare() || n.Who == s.account {
		return nil
	}
	var c core.Conversation
	err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		c, err = v.Conversation(n.Conv)
		return err
	})
	if err != nil {
		return err
	}
	if c.Shape != core.Direct {
		return s.servicesNews(ctx, n)
	}
	s.SendAway(translate.ChatState(!n.Until.IsZero(), s.srv.names.JID(n.Who).String(), s.jid.String(), "chat"))
	return nil
}

// reportNews tells the client that a message of the account could not be delivered after all.
//
// spec: RFC 6121 §8.5
func (s *Session) reportNews(n hub.ReportNews) {
	if !s.state.takesBare() {
		return
	}
	if n.Report.Stage != core.StageFailed {
		s.lossNews(n)
		return
	}
	reason := n.Report.Reason
	if reason == "" {
		reason = "the message could not be delivered"
	}
	m := element.New(translate.NSClient, "message").SetAttr("type", "error").SetAttr("id", translate.MessageID(&n.Event))
	m.SetAttr("from", s.srv.names.JID(n.Report.To).String()).SetAttr("to", s.jid.String())
	err := &translate.Error{Condition: translate.ConditionIn(reason), Text: reason}
	m.Append(err.Element())
	s.send(m, n.Report.Feed)
}

// lossNews tells the client what of a message of the account was not carried. XMPP has no status for that; it is a headline of the
// server's, which clients show and forget.
func (s *Session) lossNews(n hub.ReportNews) {
	if len(n.Report.Losses) == 0 {
		return
	}
	m := element.New(translate.NSClient, "message").SetAttr("type", "headline")
	m.SetAttr("from", s.jid.Domain).SetAttr("to", s.jid.String())
	words := s.srv.names.JID(n.Report.To).String() + " gets your message without: " + core.Losses(n.Report.Losses)
	m.Append(element.NewText(translate.NSClient, "body", words), translate.Hint("no-store"))
	s.send(m, n.Report.Feed)
}
