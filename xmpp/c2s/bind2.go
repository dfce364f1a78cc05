package c2s

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

const (
	nsBind2 = "urn:xmpp:bind:0"
	maxTag  = 64 // bytes of the name that a client gives its software
)

// Inline is what clients may ask for in one go with SASL2: [stream.Clients.Inline].
//
// spec: XEP-0386 §3.1
// spec: XEP-0198 §9.2
func (srv *Server) Inline(*stream.Conn) []*element.Element {
	bind := element.New(nsBind2, "bind")
	inline := bind.Add("", "inline")
	for _, ns := range []string{translate.NSCarbons, nsCSI, nsSM} {
		inline.Add("", "feature").SetAttr("var", ns)
	}
	return []*element.Element{bind, element.New(nsSM, "sm")}
}

// login answers a client that has authenticated by SASL2. It returns its session, which goes on, or nil if the client has bound no
// resource and there was nothing to resume, or if the stream was closed.
//
// spec: XEP-0386 §3.2
// spec: XEP-0198 §9.2
func (srv *Server) login(ctx context.Context, conn *stream.Conn, account core.Address, in *stream.Login) (*Session, *link) {
	var results []*element.Element
	bare := srv.names.JID(account)
	if el := in.Request.Child(nsSM, "resume"); el != nil {
		l := &link{conn: conn, released: make(chan struct{})}
		l.welcome = func(s *Session, resumed *element.Element) *element.Element {
			return in.Success(s.jid.String(), resumed)
		}
		s, failed := srv.take(ctx, l, account, el)
		if s != nil {
			return s, l
		}
		results = append(results, failed)
	}
	ask := in.Request.Child(nsBind2, "bind")
	if ask == nil {
		_ = conn.Send(in.Success(bare.String(), results...))
		_ = conn.Send(element.New(stream.NSStream, "features").Append(srv.Features(conn)...))
		return nil, nil
	}
	s, l, err := srv.bind(ctx, conn, account, resource(account, in.Client, ask.ChildText("", "tag")), in.Client)
	if err != nil {
		srv.Log.Info("a client could not bind", "account", account.Bare(), "err", err)
		_ = conn.Send(in.Success(bare.String(), results...))
		conn.Close(stream.Errorf(stream.ResourceConstraint, "no resource could be bound"))
		return nil, nil
	}
	srv.replace(s)
	_ = conn.Send(in.Success(s.jid.String(), append(results, s.bound(ctx, ask))...))
	_ = conn.Send(element.New(stream.NSStream, "features").Append(srv.boundFeatures(conn)...))
	srv.start(ctx, s)
	return s, l
}

// resource is the wish for a client's resource: the same each time where the client says which installation it is, and telling
// nobody that.
//
// spec: XEP-0386 §3.2.1
func resource(account core.Address, client, tag string) string {
	own := core.NewToken()[:10]
	if client != "" {
		sum := sha256.Sum256([]byte(account.String() + "\x00" + client + "\x00" + tag))
		own = strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:12])
	}
	if tag = strings.TrimSpace(tag); tag == "" || len(tag) > maxTag {
		tag = "parley"
	}
	return tag + "/" + own
}

// replace ends earlier sessions of the same client, whose stream may be lost without the server's knowing.
//
// spec: XEP-0386 §3.2
func (srv *Server) replace(s *Session) {
	if s.client == "" {
		return
	}
	for _, old := range srv.of(s.account) {
		if old != s && old.client == s.client {
			go old.call(func(context.Context) { old.fail(errReplaced) })
		}
	}
}

// bound begins the session as the client asked for, before its goroutine runs.
//
// spec: XEP-0386 §3.2
// spec: XEP-0198 §9.1
func (s *Session) bound(ctx context.Context, ask *element.Element) *element.Element {
	bound := element.New(nsBind2, "bound")
	s.sawMAM = true // what has come meanwhile, the archive has
	q := &question{srv: s.srv, ctx: ctx, from: s.jid, who: s.account, s: s, account: s.account}
	if ends, err := q.archiveEnds(); err == nil {
		bound.Append(ends)
	} else {
		s.Log().Error("reading the ends of an archive", "err", err)
	}
	if ask.Child(translate.NSCarbons, "enable") != nil {
		s.state.carbons.Store(true)
	}
	if el := ask.Child(nsSM, "enable"); el != nil {
		bound.Append(s.enabled(ctx, el))
	}
	for _, state := range []string{"active", "inactive"} {
		if el := ask.Child(nsCSI, state); el != nil {
			s.clientState(el)
		}
	}
	return bound
}
