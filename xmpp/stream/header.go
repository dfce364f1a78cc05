package stream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"mellium.im/xmpp/jid"
	"parley/xmpp/element"
)

// How elements are written on either kind of stream, whose headers declare these prefixes.
var (
	clientEncoder = element.Encoder{Default: NSClient, Prefixes: map[string]string{NSStream: "stream"}}
	serverEncoder = element.Encoder{Default: NSServer, Prefixes: map[string]string{NSStream: "stream", NSDialback: "db"}}
)

// newID makes an identifier that nobody can guess, for streams and the keys of dialback that hang on them.
//
// spec: RFC 6120 §4.7.3
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// header is what is in the opening tag of a stream.
type header struct {
	from, to, id, lang string
	dialback           bool
	features           bool // version 1.0 or later
}

// readHeader reads the peer's opening tag. The error is a stream error for what the peer did wrong.
//
// spec: RFC 6120 §4.7
// spec: RFC 6120 §4.8
func (c *Conn) readHeader(ctx context.Context) (header, error) {
	el, err := c.reader.Header()
	if err != nil {
		return header{}, c.explain(ctx, err)
	}
	h := header{from: el.Attr("from"), to: el.Attr("to"), id: el.Attr("id"), lang: el.Lang()}
	if len(h.lang) > 64 {
		h.lang = ""
	}
	if err := c.framing.check(el, c.reader); err != nil {
		return h, err
	}
	major, _, _ := strings.Cut(el.Attr("version"), ".")
	h.features = major != "" && major != "0"
	if h.dialback = c.reader.Namespace("db") == NSDialback; !h.features && !h.dialback {
		return h, Errorf(UnsupportedVersion, "version 1.0 is needed")
	}
	return h, nil
}

// writeHeader queues our opening tag.
func (c *Conn) writeHeader(from, to, id string) error {
	c.mu.Lock()
	c.opened = true
	c.mu.Unlock()
	return c.w.add(func(b []byte) []byte { return c.framing.open(b, from, to, id) }, false)
}

// features makes the element that says what may be negotiated next.
//
// spec: RFC 6120 §4.3.2
func features(children ...*element.Element) *element.Element {
	return element.New(NSStream, "features").Append(children...)
}

// normalDomain normalises a domain as RFC 7622 says, and refuses an address with a local part or a resource.
//
// spec: RFC 7622 §3.2
func normalDomain(s string) (string, bool) {
	if s == "" || len(s) > 1023 {
		return "", false
	}
	j, err := jid.Parse(s)
	if err != nil || j.Localpart() != "" || j.Resourcepart() != "" {
		return "", false
	}
	return strings.ToLower(j.Domainpart()), true
}

// errInjected says that someone wrote into the connection before TLS began.
var errInjected = errors.New("data follows starttls in the clear")

// startTLS begins TLS on either side. Whatever was sent in the clear behind the request is refused, not carried over.
//
// spec: RFC 6120 §5.4.3.3
// spec: RFC 7590 §3.1
func (c *Conn) startTLS(ctx context.Context, wrap func() *tls.Conn) error {
	if c.doc.Buffered() != 0 {
		return &Error{Condition: PolicyViolation, Err: errInjected}
	}
	if err := c.w.drain(); err != nil {
		return err
	}
	t := wrap()
	if err := t.HandshakeContext(ctx); err != nil {
		c.Abort()
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.mu.Lock()
	c.tls, c.opened = t, false
	c.mu.Unlock()
	c.w.setConn(t)
	c.doc.Reset(t)
	return nil
}
