package stream

import (
	"context"
	"crypto/sha1" //nolint:gosec // the hash of the handshake, in which a secret nobody else has is hashed with an ID of ours
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"log/slog"
	"net"
	"strings"

	"parley/xmpp/element"
)

// NSComponent is the content namespace of a stream of a component.
//
// spec: XEP-0114 §3
const NSComponent = "jabber:component:accept"

var componentEncoder = element.Encoder{Default: NSComponent, Prefixes: map[string]string{NSStream: "stream"}}

// Components serves streams of external components: programs, mostly on this machine, that serve a domain of their own. Set the fields
// before the first Serve and leave them alone after it.
type Components struct {
	// Secret is what the component of a domain proves itself with. It gets normalised names.
	Secret func(domain string) (secret string, ok bool)
	// Hosted says whether a domain is served here, and so one for which a component that binds its domains opens a stream; nil if
	// there are none of that kind.
	Hosted func(domain string) bool
	// GetCertificate picks a certificate for components that bind, which must then use TLS. If it is nil they must come from the
	// loopback address.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Handle gets each authenticated stream and owns it until it returns, after which it is closed. Conn.RemoteDomain is the
	// domain for which the component has authenticated; binds says that it has yet to bind it, and may bind others. Stanzas have the
	// namespace jabber:client, in both directions. ctx ends with the server.
	Handle func(ctx context.Context, c *Conn, binds bool)
	// Settings bound each stream.
	Settings Settings
	// Log gets what operators want to know. It never sees content or secrets.
	Log *slog.Logger

	pending pending
}

// Serve accepts streams until ctx ends or ln fails; it closes ln, and returns when all its streams have ended. The content namespace
// of its stream says which kind of component it is that connects.
func (s *Components) Serve(ctx context.Context, ln net.Listener) error {
	set := s.Settings.withDefaults()
	clients := s.binding()
	a := acceptor{set: set, pending: &s.pending, log: s.Log, serve: func(ctx context.Context, nc net.Conn, leave func()) {
		c := newConn(ctx, nc, set, componentEncoder)
		c.framing = componentDocument{document{componentEncoder}}
		c.release = leave
		defer c.Abort()
		stop := context.AfterFunc(ctx, c.Abort)
		header, err := c.reader.Header()
		binds := err == nil && clients != nil && c.reader.Namespace("") == NSClient
		if binds {
			err = s.authenticate(ctx, c, clients, header)
		} else {
			err = s.shakeHands(ctx, c, header, err)
		}
		if stop(); err != nil {
			s.Log.Warn("component did not authenticate", "addr", nc.RemoteAddr(), "component", c.RemoteDomain(), "err", err)
			c.Close(err)
			return
		}
		s.Handle(ctx, c, binds)
		c.Close(nil)
	}}
	return a.run(ctx, ln)
}

// shakeHands takes the component's header, or the error with which reading it failed, answers, and takes the component's proof that
// it has the secret.
//
// spec: XEP-0114 §3
func (s *Components) shakeHands(ctx context.Context, c *Conn, el *element.Element, err error) error {
	c.inspect = inspectComponent
	if err != nil {
		err = c.explain(ctx, err)
	} else {
		err = c.framing.check(el, c.reader)
	}
	var domain, secret string
	var ok bool
	if err == nil {
		if domain, ok = normalDomain(el.Attr("to")); ok {
			secret, ok = s.Secret(domain)
		}
		if !ok {
			err = Errorf(HostUnknown, "no component of this domain is configured")
		}
	}
	if err != nil && asStreamError(err) == nil {
		return err // nobody is there to be told
	}
	id := newID()
	c.mu.Lock()
	c.id, c.remote = id, domain
	c.mu.Unlock()
	if werr := c.writeHeader(domain, "", id); werr != nil || err != nil {
		if err == nil {
			err = werr
		}
		return err
	}
	if el, err = c.read(ctx); err != nil {
		return err
	}
	sum := sha1.Sum([]byte(id + secret)) //nolint:gosec // see the import
	want, got := hex.EncodeToString(sum[:]), strings.ToLower(strings.TrimSpace(el.Text()))
	if !el.Is(NSComponent, "handshake") || secret == "" || subtle.ConstantTimeCompare([]byte(want), []byte(got)) != 1 {
		return Errorf(NotAuthorized, "the handshake is not right")
	}
	c.authenticated()
	return c.Send(element.New(NSComponent, "handshake"))
}

// inspectComponent lets stanzas through.
func inspectComponent(el *element.Element) (*element.Element, error) {
	if el.Name.Space != NSComponent {
		return nil, Errorf(InvalidNamespace, "not a namespace for this stream")
	}
	if !isStanza(el) {
		return nil, Errorf(UnsupportedStanzaType, "no such stanza")
	}
	return el.Rename(NSComponent, NSClient), nil
}

// componentDocument is the document of a component's stream, of which the header has no version.
type componentDocument struct{ document }

func (d componentDocument) open(b []byte, from, _, id string) []byte {
	b = append(b, "<?xml version='1.0'?><stream:stream xmlns='"+NSComponent+"' xmlns:stream='"+NSStream+"'"...)
	if from != "" {
		b = append(b, " from='"+element.Escape(from)+"'"...)
	}
	return append(b, " id='"+element.Escape(id)+"'>"...)
}
