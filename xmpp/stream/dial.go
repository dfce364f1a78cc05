package stream

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"parley/xmpp/element"
)

// connectTimeout is for one attempt to reach one address.
const connectTimeout = 15 * time.Second

// maxAddresses is how many addresses of one domain are tried.
const maxAddresses = 8

// connectError says that no server of the domain could be reached.
type connectError struct {
	domain string
	err    error
}

func (e *connectError) Error() string { return "connecting to " + e.domain + ": " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// Errors of policy.
var (
	// ErrNoTLS says that the other server has no TLS.
	ErrNoTLS = errors.New("server offers no TLS")
	// ErrUntrusted says that the other server's certificate does not prove its domain, and dialback is not allowed.
	ErrUntrusted = errors.New("server's certificate cannot be trusted")
)

// Dial opens a stream on which stanzas from a domain of ours to another server's domain may be sent at once. Both names are
// normalised ones. Somebody must call Next until it fails, to learn of errors and of the end, and for stanzas that come back.
//
// spec: RFC 6120 §3.2
// spec: RFC 6120 §13.7.2
func (f *Federation) Dial(ctx context.Context, local, remote string) (*Conn, error) {
	pair := Pair{Local: local, Remote: remote}
	c, offer, err := f.connect(ctx, pair, true)
	if err != nil {
		return nil, err
	}
	if err := f.authenticate(ctx, c, pair, offer); err != nil {
		c.Close(err)
		return nil, fmt.Errorf("authenticating as %s to %s: %w", local, remote, err)
	}
	c.inspect = c.inspectOutbound
	return c, nil
}

// connect opens a stream to the server of pair.Remote with TLS, if need be trying several places, and returns the last features.
// With trust, the certificate must prove the domain unless dialback is allowed.
func (f *Federation) connect(ctx context.Context, pair Pair, trust bool) (*Conn, *element.Element, error) {
	resolver := f.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	targets, err := resolve(ctx, resolver, pair.Remote)
	if err != nil {
		return nil, nil, &connectError{pair.Remote, err}
	}
	var errs []error
	tried := 0
	for _, t := range targets {
		addrs, err := resolver.LookupNetIP(ctx, "ip", t.host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, a := range addrs {
			if tried++; tried > maxAddresses || ctx.Err() != nil {
				return nil, nil, &connectError{pair.Remote, errors.Join(append(errs, ctx.Err())...)}
			}
			c, offer, err := f.attempt(ctx, t, a, pair, trust)
			if err == nil {
				return c, offer, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", netip.AddrPortFrom(a.Unmap(), t.port), err))
		}
	}
	return nil, nil, &connectError{pair.Remote, errors.Join(errs...)}
}

// attempt opens a stream at one address.
func (f *Federation) attempt(ctx context.Context, t target, addr netip.Addr, pair Pair, trust bool) (_ *Conn, _ *element.Element, err error) {
	dial := f.Dialer
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	dctx, cancel := context.WithTimeout(ctx, connectTimeout)
	nc, err := dial(dctx, "tcp", net.JoinHostPort(addr.Unmap().String(), strconv.Itoa(int(t.port))))
	cancel()
	if err != nil {
		return nil, nil, err
	}
	c := f.newConn(ctx, nc, true)
	defer c.interruptible(ctx)()
	defer func() {
		if err != nil {
			c.Close(err)
		}
	}()
	c.mu.Lock()
	c.local, c.remote = pair.Local, pair.Remote
	c.mu.Unlock()
	if t.direct {
		if err := f.clientTLS(ctx, c, pair, "xmpp-server"); err != nil {
			return nil, nil, err
		}
	}
	offer, err := c.openOutbound(ctx)
	if err != nil {
		return nil, nil, err
	}
	if c.tlsConn() == nil {
		if offer, err = f.startTLS(ctx, c, pair, offer); err != nil {
			return nil, nil, err
		}
	}
	if trust && !f.AllowDialback {
		if err := f.proves(c, pair.Remote); err != nil && (c.tlsConn() != nil || !f.AllowPlaintext) {
			return nil, nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
		}
	}
	return c, offer, nil
}

// startTLS asks for TLS if it is offered, and does without only if it may.
//
// spec: RFC 6120 §5.4
func (f *Federation) startTLS(ctx context.Context, c *Conn, pair Pair, offer *element.Element) (*element.Element, error) {
	if offer.Child(NSTLS, "starttls") == nil {
		if f.AllowPlaintext {
			return offer, nil
		}
		return nil, ErrNoTLS
	}
	if err := c.Send(element.New(NSTLS, "starttls")); err != nil {
		return nil, err
	}
	el, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	if !el.Is(NSTLS, "proceed") {
		return nil, fmt.Errorf("%w: it refused to begin", ErrNoTLS)
	}
	if err := f.clientTLS(ctx, c, pair, ""); err != nil {
		return nil, err
	}
	return c.openOutbound(ctx)
}

// clientTLS begins TLS. The certificate is checked afterwards by verifyCertificate, which knows the names that XMPP has.
func (f *Federation) clientTLS(ctx context.Context, c *Conn, pair Pair, protocol string) error {
	name, err := toASCII(pair.Remote)
	if err != nil {
		return err
	}
	cfg := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		GetClientCertificate: f.clientCertificate(pair.Local)}
	if protocol != "" {
		cfg.NextProtos = []string{protocol}
	}
	return c.startTLS(ctx, func() *tls.Conn { return tls.Client(c.wire, cfg) })
}

// openOutbound exchanges headers and reads the features.
func (c *Conn) openOutbound(ctx context.Context) (*element.Element, error) {
	if err := c.writeHeader(c.LocalDomain(), c.RemoteDomain(), ""); err != nil {
		return nil, err
	}
	h, err := c.readHeader(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.id, c.lang = h.id, h.lang
	c.mu.Unlock()
	if h.id == "" || len(h.id) > 256 {
		return nil, Errorf(BadFormat, "the stream header needs an id")
	}
	if !h.features {
		return features(), nil
	}
	el, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	if !el.Is(NSStream, "features") {
		return nil, Errorf(BadFormat, "expected features")
	}
	return el, nil
}

// authenticate proves our domain by our certificate if the other server will have it, or else by dialback, which it then wants.
func (f *Federation) authenticate(ctx context.Context, c *Conn, pair Pair, offer *element.Element) error {
	defer c.interruptible(ctx)()
	external := slices.ContainsFunc(offer.Child(NSSASL, "mechanisms").ChildrenNamed("", "mechanism"),
		func(m *element.Element) bool { return m.Text() == "EXTERNAL" })
	c.s2s.multiplex = offer.Child(nsDialbackFeature, "dialback").Child("", "errors") != nil
	if err := c.askBidi(pair, offer); err != nil {
		return err
	}
	if external {
		done, err := c.external(ctx, pair)
		if done || err != nil {
			return err
		}
	}
	answer := make(chan error, 1)
	c.s2s.asked[pair] = answer
	if err := c.sendKey(pair); err != nil {
		return err
	}
	for {
		el, err := c.read(ctx)
		if err != nil {
			return err
		}
		if _, err := c.inspectOutbound(el); err != nil {
			return err
		}
		select {
		case err := <-answer:
			return err
		default:
		}
	}
}

// external authenticates by certificate; false without an error means that the other server would not have it.
//
// spec: XEP-0178 §3
func (c *Conn) external(ctx context.Context, pair Pair) (bool, error) {
	auth := element.NewText(NSSASL, "auth", base64.StdEncoding.EncodeToString([]byte(pair.Local))).SetAttr("mechanism", "EXTERNAL")
	if err := c.Send(auth); err != nil {
		return false, err
	}
	el, err := c.read(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case el.Is(NSSASL, "failure"):
		return false, nil
	case !el.Is(NSSASL, "success"):
		return false, Errorf(BadFormat, "expected the outcome of SASL")
	}
	c.mu.Lock()
	c.mechanism = "EXTERNAL"
	c.mu.Unlock()
	c.reader.Restart()
	offer, err := c.openOutbound(ctx)
	if err != nil {
		return false, err
	}
	c.s2s.multiplex = offer.Child(nsDialbackFeature, "dialback").Child("", "errors") != nil
	c.authorize(pair)
	return true, nil
}

// inspectOutbound takes answers to our dialback, and stanzas that come back where both sides agreed to that.
func (c *Conn) inspectOutbound(el *element.Element) (*element.Element, error) {
	switch el.Name.Space {
	case NSDialback:
		if el.Name.Local == "result" && el.Attr("type") == "" && c.s2s.bidi {
			return nil, c.refuseBack(el)
		}
		if el.Name.Local != "result" || el.Attr("type") == "" {
			return nil, Errorf(PolicyViolation, "dialback in the wrong direction")
		}
		return nil, c.takeResult(el)
	case NSServer:
		return c.returned(el)
	case "", NSClient, NSStream, NSTLS, NSSASL:
		return nil, Errorf(InvalidNamespace, "not expected here")
	}
	return el, nil
}
