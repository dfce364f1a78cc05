package stream

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/xdg-go/scram"
	"parley/xmpp/element"
)

// Clients serves streams of clients. Set the fields before the first Serve and leave them alone after it.
type Clients struct {
	// Hosted says whether a domain is served here. It gets normalised names.
	Hosted func(domain string) bool
	// GetCertificate picks a certificate. ServerName is what the client asked for in TLS or, failing that, in its stream header.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Authenticator knows the accounts.
	Authenticator Authenticator
	// Secret makes up the salts of accounts that do not exist. It must stay the same over restarts, and be 32 random bytes.
	Secret []byte
	// ScramIterations is the count that real accounts have, told for those that do not exist.
	ScramIterations int
	// Features are offered once the client has authenticated: resource binding, stream management and so on.
	Features func(*Conn) []*element.Element
	// Inline are what clients may ask for within <authenticate/>. If it is set, SASL2 is offered, and Handle must look at [Conn.Login].
	Inline func(*Conn) []*element.Element
	// Tokens lets clients log in with tokens in place of a password; nil if they may not. It needs Inline.
	Tokens Tokens
	// Register answers an iq of a client that has not authenticated, which wants an account; nil if none are made so. RegisterFeatures
	// say that to a client.
	Register         func(ctx context.Context, c *Conn, iq *element.Element) *element.Element
	RegisterFeatures func(*Conn) []*element.Element
	// Handle gets each authenticated stream and owns it until it returns, after which it is closed. ctx ends with the server.
	Handle func(ctx context.Context, c *Conn)
	// Settings bound each stream.
	Settings Settings
	// Logins limits how many may fail; nil for no limit.
	Logins Logins
	// Log gets what operators want to know. It never sees content or passwords.
	Log *slog.Logger

	pending pending
	tls     clientTLS
}

// clientTLS are the configurations of TLS, the same for all connections, made
// when they are first asked for.
type clientTLS struct {
	once             sync.Once
	direct, starting *tls.Config
}

// tlsFor is the configuration for streams within TLS, or for those that begin in
// the clear.
func (s *Clients) tlsFor(direct bool) *tls.Config {
	s.tls.once.Do(func() {
		s.tls.direct, s.tls.starting = serverTLS(s.GetCertificate, "xmpp-client"), serverTLS(s.GetCertificate)
	})
	if direct {
		return s.tls.direct
	}
	return s.tls.starting
}

// Serve accepts streams that begin in the clear and must use STARTTLS, until ctx ends or ln fails; it closes ln, and returns when
// all its streams have ended.
func (s *Clients) Serve(ctx context.Context, ln net.Listener) error { return s.run(ctx, ln, false) }

// ServeTLS accepts streams within TLS.
//
// spec: XEP-0368 §3
func (s *Clients) ServeTLS(ctx context.Context, ln net.Listener) error { return s.run(ctx, ln, true) }

func (s *Clients) run(ctx context.Context, ln net.Listener, direct bool) error {
	set := s.Settings.withDefaults()
	a := acceptor{set: set, pending: &s.pending, log: s.Log, serve: func(ctx context.Context, nc net.Conn, leave func()) {
		s.serve(ctx, clientConn(ctx, nc, &set, leave), direct)
	}}
	return a.run(ctx, ln)
}

// clientConn is a client's stream; leave is called when it has authenticated or ended.
//
//go:noinline
func clientConn(ctx context.Context, nc net.Conn, set *Settings, leave func()) *Conn {
	c := newConn(ctx, nc, *set, clientEncoder)
	c.release = leave
	return c
}

// serve serves one stream until it has ended. What it has on the stack is there as long as the stream is.
func (s *Clients) serve(ctx context.Context, c *Conn, direct bool) {
	defer c.Abort()
	if !s.negotiate(ctx, c, direct) {
		return
	}
	c.inspect = checkStanza
	if c.doc != nil && c.tlsConn() != nil {
		c.wire.awaitable()
	}
	s.Handle(ctx, c)
	c.Close(nil)
}

// negotiate says whether a client has authenticated. If not, the stream is closed.
//
//go:noinline
func (s *Clients) negotiate(ctx context.Context, c *Conn, direct bool) bool {
	n := &clientNegotiation{s: s, c: c}
	stop := context.AfterFunc(ctx, c.Abort)
	err := n.run(ctx, direct)
	if stop(); err != nil {
		s.Log.Debug("client stream was not negotiated", "addr", c.RemoteAddr(), "err", err)
		c.Close(err)
	}
	return err == nil
}

// clientNegotiation is a client's stream until it has authenticated.
type clientNegotiation struct {
	s        *Clients
	c        *Conn
	id       identity
	attempts int
	tried    string // the account for which the last attempt was
	from     string // who the client says it is, in its stream header
	login    *Login // set when SASL2 has succeeded
	renew    bool   // the token that was used has grown old
	requests int    // for an account
	bindings []scram.ChannelBinding
}

// clientTable says what each element does before authentication; restart says that a new stream header is due.
var clientTable = map[xml.Name]func(n *clientNegotiation, ctx context.Context, el *element.Element) (restart bool, err error){
	{Space: NSTLS, Local: "starttls"}:       (*clientNegotiation).startTLS,
	{Space: NSSASL, Local: "auth"}:          (*clientNegotiation).auth,
	{Space: NSSASL2, Local: "authenticate"}: (*clientNegotiation).authenticate,
	{Space: NSClient, Local: "iq"}:          (*clientNegotiation).register,
}

// run negotiates until the features for authenticated clients have been sent.
//
// spec: RFC 6120 §4.3
func (n *clientNegotiation) run(ctx context.Context, direct bool) error {
	if direct {
		if err := n.c.directTLS(ctx, n.s.tlsFor(true)); err != nil {
			return err
		}
	}
	for {
		if err := n.open(ctx); err != nil {
			return err
		}
		if n.id.local != "" {
			n.c.authenticated()
			return n.c.Send(features(n.s.Features(n.c)...))
		}
		if err := n.c.Send(n.features()); err != nil {
			return err
		}
		for restart := false; !restart; {
			if n.login != nil {
				n.c.authenticated()
				return nil // Handle says the rest
			}
			el, err := n.c.read(ctx)
			if err != nil {
				return err
			}
			do := clientTable[el.Name]
			if do == nil {
				return Errorf(NotAuthorized, "authenticate first")
			}
			if restart, err = do(n, ctx, el); err != nil {
				return err
			}
		}
	}
}

// open exchanges stream headers. Ours is written even if the peer's is wrong, since an error must be inside a stream.
//
// spec: RFC 6120 §4.9.1.2
func (n *clientNegotiation) open(ctx context.Context) error {
	h, err := n.c.readHeader(ctx)
	host, ok := normalDomain(h.to)
	switch {
	case err != nil:
	case !h.features:
		err = Errorf(UnsupportedVersion, "version 1.0 is needed")
	case !ok || !n.s.Hosted(host):
		err, host = Errorf(HostUnknown, "not served here"), ""
	case n.id.domain != "" && n.id.domain != host:
		err = Errorf(HostUnknown, "not the domain of the stream before")
	}
	if err != nil {
		host = n.id.domain
	}
	n.from = h.from
	id := newID()
	n.c.mu.Lock()
	n.c.id, n.c.lang, n.c.local, n.c.account = id, h.lang, host, n.id.local
	n.c.mu.Unlock()
	if se := asStreamError(err); err != nil && se == nil {
		return err // nobody is there to be told
	}
	if werr := n.c.writeHeader(host, "", id); werr != nil {
		return werr
	}
	if err == nil && n.c.secured() {
		n.id.domain = host // in the clear anyone may have written it
	}
	return err
}

// features offers TLS and nothing else, or SASL.
//
// spec: RFC 6120 §5.3.1
// spec: XEP-0440 §2
func (n *clientNegotiation) features() *element.Element {
	if !n.c.secured() {
		tls := element.New(NSTLS, "starttls")
		tls.Add("", "required")
		return features(tls)
	}
	n.bindings = n.c.channelBindings()
	offer := element.New(NSSASL, "mechanisms")
	for _, m := range n.mechanisms() {
		offer.Add("", "mechanism").SetText(m)
	}
	all := []*element.Element{offer}
	if n.s.Inline != nil {
		all = append(all, n.offer2())
	}
	if len(n.bindings) > 0 {
		announce := element.New(nsChannelBinding, "sasl-channel-binding")
		for _, kind := range n.kinds() {
			announce.Add("", "channel-binding").SetAttr("type", kind)
		}
		all = append(all, announce)
	}
	if n.s.RegisterFeatures != nil {
		all = append(all, n.s.RegisterFeatures(n.c)...)
	}
	return features(all...)
}

// kinds are the types of the channel bindings.
func (n *clientNegotiation) kinds() []string {
	var out []string
	for _, b := range n.bindings {
		out = append(out, string(b.Type))
	}
	return out
}

// mechanisms are those offered, the best first.
func (n *clientNegotiation) mechanisms() []string {
	all := []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"}
	if len(n.bindings) == 0 {
		return all[2:]
	}
	return all
}

func (n *clientNegotiation) startTLS(ctx context.Context, _ *element.Element) (bool, error) {
	if n.c.secured() {
		return false, Errorf(PolicyViolation, "TLS is in use already")
	}
	return true, n.c.upgrade(ctx, n.s.tlsFor(false))
}

func (n *clientNegotiation) auth(ctx context.Context, el *element.Element) (bool, error) {
	if !n.c.secured() {
		return false, n.c.Send(element.New(NSSASL, "failure").Append(element.New(NSSASL, "encryption-required")))
	}
	err := n.c.authenticate(ctx, el, n.find)
	if f, ok := errors.AsType[*saslFailure](err); ok {
		return false, n.failed(el.Attr("mechanism"), f)
	}
	if err == nil {
		n.c.reader.Restart()
	}
	return err == nil, err
}

// failed notes an attempt that failed; the error, if any, ends the stream.
func (n *clientNegotiation) failed(mechanism string, f *saslFailure) error {
	n.s.Log.Info("client did not authenticate", "addr", n.c.RemoteAddr(), "mechanism", mechanism, "err", f)
	if n.attempts++; n.attempts >= maxAuthAttempts {
		return Errorf(PolicyViolation, "too many attempts to authenticate")
	}
	return nil
}

// maxRegister is how many requests for an account one stream may make.
const maxRegister = 10

// register has an account made before authentication.
//
// spec: XEP-0077 §3.1
func (n *clientNegotiation) register(ctx context.Context, el *element.Element) (bool, error) {
	if n.s.Register == nil || !n.c.secured() {
		return false, Errorf(NotAuthorized, "authenticate first")
	}
	if n.requests++; n.requests > maxRegister {
		return false, Errorf(PolicyViolation, "too many requests for an account")
	}
	return false, n.c.Send(n.s.Register(ctx, n.c, el))
}

// find makes the mechanism of this name, or nil if it is not offered.
func (n *clientNegotiation) find(name string) mechanism {
	if !slices.Contains(n.mechanisms(), name) {
		return nil
	}
	if name == "PLAIN" {
		return n.hold(&plainMechanism{id: &n.id, auth: n.authenticator()})
	}
	base, plus := strings.CutSuffix(name, "-PLUS")
	hash := ScramHash(base)
	return n.hold(&scramMechanism{id: &n.id, auth: n.authenticator(), hash: hash, plus: plus, bindings: n.bindings,
		offer: offered(hash, n.mechanisms(), n.kinds()),
		fake: func(local string) ScramKeys {
			return fakeKeys(n.s.Secret, hash, n.s.ScramIterations, n.id.domain, local)
		}})
}
