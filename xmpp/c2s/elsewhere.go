package c2s

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// Elsewhere serves the rooms of other servers: package foreign. It is a [Service] not of a domain but of those rooms that an account
// is in, or is about to enter.
type Elsewhere interface {
	Service
	// Takes says whether a stanza of the session's, to that address, is for it.
	Takes(s *Session, st *element.Element, to translate.JID) bool
	// Leave ends an account's membership in a room; it is no error if there is none.
	Leave(ctx context.Context, account core.Address, room translate.JID, reason string) error
}

// AttachElsewhere adds the service of rooms of other servers, before the server serves.
func (srv *Server) AttachElsewhere(e Elsewhere) { srv.elsewhere = e }

// serves finds the service that a stanza to that address is for.
func (s *Session) serves(st *element.Element, to translate.JID) (Service, bool) {
	if svc, ok := s.srv.service(to.Domain); ok {
		return svc, true
	}
	if e := s.srv.elsewhere; e != nil && e.Takes(s, st, to) {
		return e, true
	}
	return nil, false
}

// elsewhereNews passes news on to the service of rooms of other servers.
func (s *Session) elsewhereNews(ctx context.Context, n hub.News) error {
	if s.srv.elsewhere == nil {
		return nil
	}
	return s.srv.elsewhere.News(ctx, s, n)
}

// Call has f done by the session's goroutine; false if the session is over. Not to be called by that goroutine itself.
func (s *Session) Call(f func(context.Context)) bool { return s.call(f) }

// Talk deals with what the client says to one person, as whom it is addressed.
func (s *Session) Talk(ctx context.Context, st *element.Element, to translate.JID, peer core.Address) error {
	if t := st.Attr("type"); t == "headline" || t == "error" {
		return s.passing(st, to)
	}
	return s.talk(ctx, st, to, peer)
}

// waitingInvitations shows a client that has just come the rooms, here or elsewhere, into which the account was asked meanwhile.
//
// spec: XEP-0045 §7.8.2
// spec: XEP-0249 §3
func (s *Session) waitingInvitations(ctx context.Context) error {
	var waiting []*element.Element
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		places, err := v.Places(s.account)
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Standing != core.Invited || !p.Peer.IsZero() {
				continue
			}
			c, err := v.Conversation(p.Conv)
			if err != nil {
				return err
			}
			st, err := v.State(p.Conv)
			if err != nil {
				return err
			}
			if c.Address.IsZero() || st.Creation.Type != "" {
				continue // no client could enter it
			}
			e, err := v.Event(st.Members[s.account].Event)
			if err != nil {
				return err
			}
			m, _ := e.Content.(core.Membership)
			from := s.srv.names.JID(e.Sender).String()
			words := translate.InviteWords(c, st, m.Reason)
			waiting = append(waiting, translate.Invite(s.srv.names.RoomJID(c.Address), from, s.jid.String(), words).Append(
				translate.Delay(e.Time, s.jid.Domain)))
		}
		return nil
	})
	for _, m := range waiting {
		s.Send(m)
	}
	return err
}
