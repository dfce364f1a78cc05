package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"log/slog"
	"net"
	"slices"

	"parley/xmpp/element"
)

// Federation serves and opens streams between servers. Set the fields before first use and leave them alone after it.
//
// A stream carries stanzas from the server that opened it, and to it where both sides agree (see Conn.Returns). Each pair of domains on it is authorised on its own:
// by a certificate, or by Server Dialback if that is allowed.
type Federation struct {
	// Hosted says whether a domain is served here. It gets normalised names.
	Hosted func(domain string) bool
	// GetCertificate picks the certificate to show, as a server and as a client. In the latter case the hello was made up here.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Roots are the authorities to trust; nil means the system's.
	Roots *x509.CertPool
	// Secret makes the keys of dialback. All processes of one service share it.
	Secret []byte
	// AllowDialback takes a domain's word without a trusted certificate if its DNS confirms it, and sends to such domains. What is
	// sent is encrypted all the same, but not to a proven peer.
	AllowDialback bool
	// AllowPlaintext does without TLS where the peer has none. It is for closed networks.
	AllowPlaintext bool
	// OneWay keeps stanzas from going both ways on one stream.
	OneWay bool
	// Resolver finds servers; nil means net.DefaultResolver.
	Resolver Resolver
	// Dialer connects to an IP address and port. Which networks may be reached is decided there. Nil means a plain net.Dialer.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
	// Handle gets an inbound stream when its first stanza has arrived, and owns it until it returns, after which it is closed. Next
	// gives it only stanzas whose addresses fit an authorised pair. ctx ends with the server.
	Handle func(ctx context.Context, c *Conn)
	// Settings bound each stream.
	Settings Settings
	// Log gets what operators want to know. It never sees content or keys.
	Log *slog.Logger

	pending pending
}

// Serve accepts streams that begin in the clear, until ctx ends or ln fails; it closes ln, and returns when all its streams have
// ended.
func (f *Federation) Serve(ctx context.Context, ln net.Listener) error { return f.run(ctx, ln, false) }

// ServeTLS accepts streams within TLS.
//
// spec: XEP-0368 §3
func (f *Federation) ServeTLS(ctx context.Context, ln net.Listener) error {
	return f.run(ctx, ln, true)
}

func (f *Federation) run(ctx context.Context, ln net.Listener, direct bool) error {
	set := f.Settings.withDefaults()
	a := acceptor{set: set, pending: &f.pending, log: f.Log, serve: func(ctx context.Context, nc net.Conn, leave func()) {
		c := f.newConn(ctx, nc, false)
		c.release = leave
		defer c.Abort()
		in := &inbound{f: f, c: c}
		first, err := in.run(ctx, direct)
		if err != nil {
			f.Log.Debug("inbound stream ended before its first stanza", "addr", nc.RemoteAddr(), "remote", c.RemoteDomain(), "err", err)
			c.Close(err)
			return
		}
		c.pushed = first
		f.Handle(ctx, c)
		c.Close(nil)
	}}
	return a.run(ctx, ln)
}

func (f *Federation) newConn(ctx context.Context, nc net.Conn, outbound bool) *Conn {
	c := newConn(ctx, nc, f.Settings.withDefaults(), serverEncoder)
	c.s2s = &s2sState{fed: f, outbound: outbound, pairs: make(map[Pair]bool), verifying: make(map[Pair]bool),
		asked: make(map[Pair]chan error)}
	return c
}

// proves says whether the peer's certificate is for a domain: nil if so.
func (f *Federation) proves(c *Conn, domain string) error {
	state, ok := c.TLS()
	if !ok {
		return errors.New("no TLS")
	}
	return verifyCertificate(state.PeerCertificates, domain, f.Roots)
}

// inbound is what happens on a stream that another server opened, besides stanzas.
type inbound struct {
	f        *Federation
	c        *Conn
	attempts int
}

// inboundTable says what each element does that is not for the session; it holds before and after authorisation.
var inboundTable = map[xml.Name]func(in *inbound, el *element.Element) error{
	{Space: NSTLS, Local: "starttls"}:    (*inbound).startTLS,
	{Space: NSSASL, Local: "auth"}:       (*inbound).auth,
	{Space: nsBidi, Local: "bidi"}:       (*inbound).enableBidi,
	{Space: NSDialback, Local: "result"}: func(in *inbound, el *element.Element) error { return in.c.receiveResult(el) },
	{Space: NSDialback, Local: "verify"}: func(in *inbound, el *element.Element) error { return in.c.answerVerify(el) },
}

// run negotiates until the first stanza that may pass.
func (in *inbound) run(ctx context.Context, direct bool) (*element.Element, error) {
	defer context.AfterFunc(ctx, in.c.Abort)()
	if direct {
		cfg := serverTLS(in.f.GetCertificate, "xmpp-server")
		cfg.ClientAuth = tls.RequestClientCert
		if err := in.c.directTLS(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if err := in.open(ctx); err != nil {
		return nil, err
	}
	in.c.inspect = in.inspect
	return in.c.Next(ctx)
}

// open exchanges headers and sends features.
//
// spec: RFC 6120 §4.3
func (in *inbound) open(ctx context.Context) error {
	h, err := in.c.readHeader(ctx)
	local, ok := normalDomain(h.to)
	remote, named := normalDomain(h.from)
	if err == nil {
		switch {
		case h.to != "" && (!ok || !in.f.Hosted(local)):
			err, local = Errorf(HostUnknown, "not served here"), ""
		case h.to == "" && h.features:
			err = Errorf(ImproperAddressing, "the stream header needs a domain in 'to'")
		case h.from != "" && !named:
			err = Errorf(InvalidFrom, "not a domain")
		case in.c.Mechanism() != "" && (remote != in.c.RemoteDomain() || local != in.c.LocalDomain()):
			err = Errorf(InvalidFrom, "not the domains that were authenticated")
		}
	}
	if err != nil && asStreamError(err) == nil {
		return err
	}
	id := newID()
	in.c.mu.Lock()
	in.c.id, in.c.lang = id, h.lang
	if err == nil {
		in.c.local, in.c.remote = local, remote
	}
	in.c.mu.Unlock()
	if werr := in.c.writeHeader(local, remote, id); werr != nil || err != nil {
		return errors.Join(err, werr)
	}
	if !h.features {
		return nil // a server from before 2004, which knows dialback only
	}
	return in.c.Send(in.features())
}

// features offers what would help this peer.
//
// spec: XEP-0220 §2.4
func (in *inbound) features() *element.Element {
	out := features()
	if in.c.tlsConn() == nil {
		starttls := out.Add(NSTLS, "starttls")
		if !in.f.AllowPlaintext {
			starttls.Add("", "required")
			return out
		}
	}
	if in.c.tlsConn() != nil && in.c.Mechanism() == "" && !in.f.OneWay {
		out.Add(nsBidiFeature, "bidi")
	}
	remote := in.c.RemoteDomain()
	proven := remote != "" && in.f.proves(in.c, remote) == nil
	if proven && in.c.Mechanism() == "" {
		out.Add(NSSASL, "mechanisms").Add("", "mechanism").SetText("EXTERNAL")
	}
	if proven || in.f.AllowDialback { // who is proven may name further domains of its certificate
		out.Add(nsDialbackFeature, "dialback").Add("", "errors")
	}
	return out
}

// inspect deals with what is not for the session and lets through what may pass.
func (in *inbound) inspect(el *element.Element) (*element.Element, error) {
	if do := inboundTable[el.Name]; do != nil {
		return nil, do(in, el)
	}
	if el.Name.Space == NSServer {
		if !isStanza(el) {
			return nil, Errorf(UnsupportedStanzaType, "no such stanza")
		}
		if err := in.checkAddresses(el); err != nil {
			return nil, err
		}
		return el.Rename(NSServer, NSClient), nil
	}
	switch el.Name.Space {
	case "", NSClient, NSStream, NSTLS, NSSASL, NSDialback:
		return nil, Errorf(InvalidNamespace, "not expected here")
	}
	in.c.s2s.mu.Lock()
	authorized := len(in.c.s2s.pairs) > 0
	in.c.s2s.mu.Unlock()
	if !authorized {
		return nil, Errorf(NotAuthorized, "authenticate first")
	}
	return el, nil
}

// checkAddresses refuses stanzas that are not from and to domains of an authorised pair.
func (in *inbound) checkAddresses(el *element.Element) error {
	pair, err := pairOfStanza(el)
	switch {
	case err != nil || in.c.Authorized(pair):
		return err
	case !in.f.Hosted(pair.Local):
		return Errorf(HostUnknown, "not served here")
	}
	return Errorf(InvalidFrom, "this stream is not authorised for the two domains")
}

func (in *inbound) startTLS(*element.Element) error {
	if in.c.tlsConn() != nil {
		return Errorf(PolicyViolation, "TLS is in use already")
	}
	in.c.s2s.mu.Lock()
	busy := len(in.c.s2s.pairs)+len(in.c.s2s.verifying) > 0
	in.c.s2s.mu.Unlock()
	if busy {
		return Errorf(PolicyViolation, "TLS comes first")
	}
	cfg := serverTLS(in.f.GetCertificate)
	cfg.ClientAuth = tls.RequestClientCert
	ctx := in.c.wire.ctx
	if err := in.c.upgrade(ctx, cfg); err != nil {
		return err
	}
	return in.open(ctx)
}

func (in *inbound) auth(el *element.Element) error {
	if in.c.Mechanism() != "" {
		return Errorf(PolicyViolation, "authenticated already")
	}
	ctx := in.c.wire.ctx
	err := in.c.authenticate(ctx, el, func(name string) mechanism {
		if name != "EXTERNAL" || in.c.tlsConn() == nil {
			return nil
		}
		return &externalMechanism{f: in.f, c: in.c}
	})
	if _, ok := errors.AsType[*saslFailure](err); ok {
		in.f.Log.Info("server did not authenticate", "addr", in.c.RemoteAddr(), "remote", in.c.RemoteDomain(), "err", err)
		if in.attempts++; in.attempts >= maxAuthAttempts {
			return Errorf(PolicyViolation, "too many attempts to authenticate")
		}
		return nil
	}
	if err != nil {
		return err
	}
	in.c.authorize(Pair{Local: in.c.LocalDomain(), Remote: in.c.RemoteDomain()})
	in.c.reader.Restart()
	return in.open(ctx)
}

// externalMechanism lets the peer's certificate speak.
//
// spec: RFC 6120 §13.7.2
// spec: XEP-0178 §3
type externalMechanism struct {
	f *Federation
	c *Conn
}

func (m *externalMechanism) step(_ context.Context, in []byte) ([]byte, bool, error) {
	remote := m.c.RemoteDomain()
	if len(in) > 0 {
		if authzid, ok := normalDomain(string(in)); !ok || authzid != remote {
			return nil, false, refuse("invalid-authzid", "another domain than in the stream header")
		}
	}
	if remote == "" || m.f.Hosted(remote) {
		return nil, false, refuse("not-authorized", "no domain that could be the peer's")
	}
	if err := m.f.proves(m.c, remote); err != nil {
		return nil, false, &saslFailure{condition: "not-authorized", err: err}
	}
	return nil, true, nil
}

// clientCertificate gets the certificate with which a domain of ours shows itself to another server.
func (f *Federation) clientCertificate(local string) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		name, err := toASCII(local)
		if err != nil {
			return &tls.Certificate{}, nil
		}
		suites := make([]uint16, 0, 16)
		for _, s := range tls.CipherSuites() {
			suites = append(suites, s.ID)
		}
		cert, err := f.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SignatureSchemes: slices.Clone(req.SignatureSchemes),
			SupportedVersions: []uint16{req.Version}, CipherSuites: suites,
			SupportedCurves: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}})
		if err != nil || cert == nil {
			f.Log.Warn("no certificate to show to another server", "local", local, "err", err)
			return &tls.Certificate{}, nil // none: the other side may do without
		}
		return cert, nil
	}
}
