package c2s

import (
	"context"
	"errors"
	"time"

	"mellium.im/xmpp/jid"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// The namespaces of the stream itself.
const (
	nsBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	nsSession = "urn:ietf:params:xml:ns:xmpp-session"
	nsSM      = "urn:xmpp:sm:3"
	nsCSI     = "urn:xmpp:csi:0"
	nsCaps    = "http://jabber.org/protocol/caps"
	nsRoster  = "jabber:iq:roster"
)

// Features is what clients are offered after authentication: [stream.Clients.Features].
func (srv *Server) Features(c *stream.Conn) []*element.Element {
	session := element.New(nsSession, "session")
	session.Add("", "optional")
	return append([]*element.Element{element.New(nsBind, "bind"), session}, srv.boundFeatures(c)...)
}

// boundFeatures are what is left for clients that have bound a resource.
func (srv *Server) boundFeatures(c *stream.Conn) []*element.Element {
	return []*element.Element{
		element.New(nsSM, "sm"), element.New(nsCSI, "csi"), element.New("urn:xmpp:features:rosterver", "ver"),
		element.New("urn:xmpp:features:pre-approval", "sub"), // spec: RFC 6121 §3.4
		srv.capsOf(c.LocalDomain()),
	}
}

// Handle serves one authenticated stream: [stream.Clients.Handle]. What goes on before a resource is bound is dealt with here; then
// this goroutine only reads.
//
// spec: RFC 6120 §7
func (srv *Server) Handle(ctx context.Context, conn *stream.Conn) {
	// The stack of this goroutine is most of what an idle session takes, so what is waited in is small.
	if s, l := srv.begin(ctx, conn); s != nil {
		s.read(ctx, l)
	}
}

// begin deals with what goes on before a resource is bound. It returns nil when the stream has come to nothing.
func (srv *Server) begin(ctx context.Context, conn *stream.Conn) (*Session, *link) {
	account := core.LocalAddress(conn.Account(), conn.LocalDomain())
	if in := conn.Login(); in != nil {
		if s, l := srv.login(ctx, conn, account, in); s != nil {
			return s, l
		}
	}
	for range 20 {
		el, err := conn.Next(ctx)
		if err != nil {
			conn.Close(err)
			return nil, nil
		}
		switch {
		case el.Is(nsSM, "resume"):
			if s, l := srv.resume(ctx, conn, account, el); s != nil {
				return s, l
			}
		case el.Is(nsSM, "enable"):
			_ = conn.Send(smFailed(translate.UnexpectedRequest.Name))
		case el.Is(translate.NSClient, "iq") && el.Attr("type") == "set" && el.Child(nsBind, "bind") != nil:
			s, l, err := srv.bind(ctx, conn, account, el.Child(nsBind, "bind").ChildText("", "resource"), "")
			if err != nil {
				_ = conn.Send(translate.Bounce(el, err))
				continue
			}
			result := element.New(translate.NSClient, "iq").SetAttr("type", "result").SetAttr("id", el.Attr("id"))
			result.Add(nsBind, "bind").Append(element.NewText(nsBind, "jid", s.jid.String()))
			_ = conn.Send(result)
			srv.start(ctx, s)
			return s, l
		case el.Is(translate.NSClient, "iq") && isRequest(el):
			_ = conn.Send(translate.Bounce(el, translate.Fail(translate.NotAllowed, "bind a resource first")))
		default:
			conn.Close(stream.Errorf(stream.NotAuthorized, "bind a resource first"))
			return nil, nil
		}
	}
	conn.Close(stream.Errorf(stream.PolicyViolation, "bind a resource"))
	return nil, nil
}

// bind makes a session; client is the installation, where it has named itself. One that has the resource already ends first.
//
// spec: RFC 6120 §7.7.2.2
func (srv *Server) bind(ctx context.Context, conn *stream.Conn, account core.Address, wish, client string) (*Session, *link, error) {
	full, err := srv.fullJID(account, wish)
	if err != nil {
		return nil, nil, translate.Fail(translate.BadRequest, "this is no resource")
	}
	if old, ok := srv.at(account, full.Resource); ok {
		old.call(func(context.Context) { old.fail(errReplaced) })
		select {
		case <-old.done:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	if err := srv.makeRoom(ctx, account); err != nil {
		return nil, nil, err
	}
	hs, err := srv.Hub.Attach(hub.SessionSpec{Account: account, Protocol: core.XMPP, ID: full.Resource})
	if err != nil {
		return nil, nil, err
	}
	l := &link{conn: conn, released: make(chan struct{})}
	s := &Session{
		srv: srv, account: account, jid: full, client: client, hub: hs, link: l,
		inbox: make(chan inbound), mail: newMailbox(), calls: make(chan func(context.Context), 1),
		done: make(chan struct{}), drained: make(chan *link, 1),
		lastSent: map[core.Address]bool{},
		directed: map[translate.JID]bool{}, pending: map[string]func(*element.Element){}, values: map[any]any{},
	}
	if !srv.add(s) {
		hs.Close()
		return nil, nil, srv.tooMany()
	}
	return s, l, nil
}

// makeRoom sees to it that an account has not too many sessions: of those whose clients have lost their connections, the one that has
// waited longest has to go; where all are in use, the new one does.
//
// spec: RFC 6120 §7.6.2.1
func (srv *Server) makeRoom(ctx context.Context, account core.Address) error {
	all := srv.of(account)
	if len(all) < srv.MaxSessions {
		return nil
	}
	var longest *Session
	for _, s := range all {
		if at := s.away.Load(); at != 0 && (longest == nil || at < longest.away.Load()) {
			longest = s
		}
	}
	if longest == nil {
		return srv.tooMany()
	}
	srv.Guard.Count(guard.Sessions)
	longest.call(func(context.Context) {
		if longest.link == nil {
			longest.fail(errBehind)
		}
	})
	select {
	case <-longest.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second): // its client has just come back
		return translate.Fail(translate.ResourceConstraint, "the account has too many clients; try again")
	}
}

func (srv *Server) tooMany() error {
	return srv.Guard.Over(guard.Sessions, translate.ResourceConstraint, "an account has at most %d clients at a time", srv.MaxSessions)
}

func (srv *Server) fullJID(account core.Address, wish string) (translate.JID, error) {
	bare := srv.names.JID(account)
	if wish == "" {
		wish = "parley." + core.NewToken()[:10]
	}
	j, err := jid.New(bare.Local, bare.Domain, wish)
	if err != nil {
		return translate.JID{}, err
	}
	return bare.With(j.Resourcepart()), nil
}

// read gives the session what the client says until the stream ends or the session has done with it. It waits with little on the
// stack, see [stream.Conn.Next].
func (s *Session) read(ctx context.Context, l *link) {
	slow := s.pace()
	patient := context.WithoutCancel(ctx) // when the server ends, so does the session, and with it the stream
	for {
		el, err := l.conn.Next(patient)
		if err == nil {
			slow(ctx)
		}
		if !s.hand(l, el, err) {
			break
		}
	}
	s.letGo(l)
}

// pace returns what holds the client to its rates. It fails only at the end of the server, which the session hears of.
func (s *Session) pace() func(context.Context) {
	pace, account := s.srv.Guard.Pace(guard.Stanzas), s.account.String()
	return func(ctx context.Context) {
		_ = pace.Wait(ctx)
		_ = s.srv.Guard.Wait(ctx, guard.AccountStanzas, account)
	}
}

// hand gives the session what was read, and says whether to read on.
//
//go:noinline
func (s *Session) hand(l *link, el *element.Element, err error) bool {
	told := int64(-1)
	if err == nil {
		told = s.answerAtOnce(l, el)
	}
	select {
	case s.inbox <- inbound{l, el, err, told}:
	case <-l.released:
		return false
	case <-s.done:
		return false
	}
	return err == nil || errors.Is(err, stream.ErrIdle)
}

// letGo waits until the session has done with the stream.
//
//go:noinline
func (s *Session) letGo(l *link) {
	select {
	case <-l.released:
	case <-s.done: // the session lets go of its stream when it ends
		select {
		case <-l.released:
		case <-time.After(time.Minute):
		}
	}
}
