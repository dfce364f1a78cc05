package c2s

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// presenceStanza deals with presence of the client.
//
// spec: RFC 6121 §4
func (s *Session) presenceStanza(ctx context.Context, st *element.Element) error {
	typ := st.Attr("type")
	if st.Attr("to") == "" {
		switch typ {
		case "":
			return s.available(ctx, st)
		case "unavailable":
			s.unavailable(ctx, st)
			return nil
		}
		return translate.Fail(translate.BadRequest, "this presence needs an address")
	}
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil {
		return translate.Fail(translate.JIDMalformed, "")
	}
	if svc, ok := s.serves(st, to); ok {
		return svc.Stanza(ctx, s, st)
	}
	if n, ok := translate.ReadNotice(st); ok {
		return s.consent(ctx, st, n, to.Bare())
	}
	switch typ {
	case "", "unavailable":
		return s.direct(st, to, typ == "")
	case "probe":
		return translate.Fail(translate.NotAllowed, "the server probes for its clients")
	}
	return translate.Fail(translate.BadRequest, "no such type of presence")
}

// consent takes a step of consent.
//
// spec: RFC 6121 §3.1.2
func (s *Session) consent(ctx context.Context, st *element.Element, n hub.ContactNotice, to translate.JID) error {
	a, err := s.srv.names.Address(to)
	if err != nil || a == s.account {
		return translate.Fail(translate.NotAllowed, "")
	}
	n.From, n.To = s.account, a
	if n.Kind == hub.Ask {
		if err := s.srv.Guard.Allow(guard.Asks, s.account.String()); err != nil {
			return err
		}
	}
	asked, err := s.asks(ctx, a)
	if err != nil {
		return err
	}
	if err := s.srv.Requested(ctx, st, n); err != nil || n.Kind != hub.Deny || asked && abroad(a) {
		return err // to one on another network a denial is carried by declining
	}
	return s.decline(ctx, a)
}

// direct sends presence to one entity, and remembers to say there when the client goes.
//
// spec: RFC 6121 §4.6
func (s *Session) direct(st *element.Element, to translate.JID, available bool) error {
	if available {
		if len(s.directed) >= s.srv.MaxDirected && !s.directed[to] {
			return s.srv.Guard.Over(guard.DirectedPresences, translate.ResourceConstraint,
				"your presence is directed to %d entities already", s.srv.MaxDirected)
		}
		s.directed[to] = true
	} else {
		delete(s.directed, to)
	}
	if err := s.forward(st, to); err != nil && !s.srv.Hub.Hosts(to.Domain) {
		return err
	}
	return nil
}

// available takes broadcast presence. With the first, the client hears who else is there, what was asked of it meanwhile, and the
// messages that waited.
//
// spec: RFC 6121 §4.2
func (s *Session) available(ctx context.Context, st *element.Element) error {
	if err := s.srv.Guard.Allow(guard.Presences, s.jid.String()); err != nil {
		return err
	}
	if err := s.addPhoto(ctx, st); err != nil {
		return err
	}
	p := translate.ReadPresence(st, s.jid)
	first := !s.Available()
	wasDeaf := !s.state.takesBare()
	s.presence = st
	s.state.priority.Store(int32(p.Priority))
	s.state.available.Store(true)
	if err := s.srv.Hub.SetPresence(ctx, s.account, p); err != nil {
		return err
	}
	if first {
		if err := s.arrive(ctx); err != nil {
			return err
		}
	}
	if wasDeaf && p.Priority >= 0 {
		if err := s.offline(ctx); err != nil {
			return err
		}
	}
	s.learnCaps(st)
	return nil
}

// arrive shows the client the account's other clients and the requests that wait for an answer.
//
// spec: RFC 6121 §3.1.3
func (s *Session) arrive(ctx context.Context) error {
	own, err := s.srv.Hub.PresenceOf(ctx, s.account, s.account)
	if err != nil {
		return err
	}
	for _, p := range own {
		if p.Session != s.jid.Resource {
			s.showPresence(s.account, p)
		}
	}
	contacts, _, err := s.srv.Hub.Contacts(ctx, s.account)
	if err != nil {
		return err
	}
	asks := map[core.Address]bool{}
	for _, c := range contacts {
		if c.Asks {
			asks[c.Address] = true
			s.tellNotice(hub.ContactNotice{Kind: hub.Ask, From: c.Address, To: s.account, Words: c.Words})
		}
	}
	if err := s.tellMOTD(ctx); err != nil {
		return err
	}
	return s.waitingRequests(ctx, asks)
}

// unavailable ends the client's availability.
//
// spec: RFC 6121 §4.5
func (s *Session) unavailable(ctx context.Context, st *element.Element) {
	if !s.Available() && len(s.directed) == 0 {
		return
	}
	s.state.available.Store(false)
	s.presence = nil
	if st == nil {
		st = element.New(translate.NSClient, "presence").SetAttr("type", "unavailable").SetAttr("from", s.jid.String())
	}
	if err := s.srv.Hub.SetPresence(ctx, s.account, translate.ReadPresence(st, s.jid)); err != nil {
		s.Log().Error("ending presence", "err", err)
	}
	for to := range s.directed {
		_ = s.forward(st.Copy().SetAttr("to", to.String()), to)
	}
	clear(s.directed)
	s.leaveServices()
}

// leaveServices tells the services that the client is no longer there.
func (s *Session) leaveServices() {
	for _, svc := range s.srv.services {
		svc.Gone(s)
	}
	if s.srv.elsewhere != nil {
		s.srv.elsewhere.Gone(s)
	}
}

// gone is unavailable for a client that did not say so.
func (s *Session) gone(ctx context.Context) {
	s.unavailable(ctx, nil)
	s.leaveServices()
}

// presenceNews shows the client somebody's presence.
func (s *Session) presenceNews(n hub.PresenceNews) {
	if s.Available() && !(n.Who == s.account && n.Presence.Session == s.jid.Resource && n.Presence.Show == core.ShowOffline) {
		s.showPresence(n.Who, n.Presence)
	}
}

func (s *Session) showPresence(who core.Address, p core.Presence) {
	st := translate.Presence(s.srv.names, who, p).SetAttr("to", s.jid.String())
	if abroad(who) && p.Show != core.ShowOffline {
		s.personPhoto(context.Background(), who, st)
	}
	s.SendAway(st)
	if who != s.account && st.Attr("type") == "" {
		s.contactArrived(who, st)
	}
}
