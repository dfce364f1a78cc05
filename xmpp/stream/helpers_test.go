package stream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"parley/certs/certstest"
	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// Two authorities, of which the second is trusted by nobody.
var (
	ca      = certstest.New()
	otherCA = certstest.New()
)

// issueOther makes a certificate for names of the kinds that XMPP has.
func issueOther(t testing.TB, names ...otherName) *tls.Certificate {
	t.Helper()
	return ca.Sign(t, &x509.Certificate{
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: otherNames(t, names)}}})
}

type otherName struct {
	oid   asn1.ObjectIdentifier
	tag   int // of the string: 12 is UTF8String, 22 is IA5String
	value string
}

func otherNames(t testing.TB, names []otherName) []byte {
	t.Helper()
	var seq []asn1.RawValue
	for _, n := range names {
		inner, err := asn1.Marshal(asn1.RawValue{Tag: n.tag, Bytes: []byte(n.value)})
		if err != nil {
			t.Fatal(err)
		}
		oid, err := asn1.Marshal(n.oid)
		if err != nil {
			t.Fatal(err)
		}
		explicit, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner})
		if err != nil {
			t.Fatal(err)
		}
		seq = append(seq, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, explicit...)})
	}
	der, err := asn1.Marshal(seq)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func always(c *tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c, nil }
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// accounts is an Authenticator with one account, alice, whose password is "secret", and a disabled one, mallory.
type accounts struct{}

func (accounts) ScramKeys(_ context.Context, domain, local string, hash stream.ScramHash) (stream.ScramKeys, error) {
	if domain != "example.org" || local != "alice" && local != "mallory" {
		if local == "broken" {
			return stream.ScramKeys{}, errors.New("database is away")
		}
		return stream.ScramKeys{}, stream.ErrNoAccount
	}
	gen := scram.SHA256
	if hash == stream.ScramSHA1 {
		gen = scram.SHA1
	}
	c, err := gen.NewClient(local, "secret", "")
	if err != nil {
		return stream.ScramKeys{}, err
	}
	k, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: 4096})
	if err != nil {
		return stream.ScramKeys{}, err
	}
	return stream.ScramKeys{Salt: []byte(k.Salt), Iterations: k.Iters, StoredKey: k.StoredKey, ServerKey: k.ServerKey,
		Disabled: local == "mallory"}, nil
}

func (accounts) Plain(_ context.Context, domain, local, password string) error {
	switch {
	case domain != "example.org" || password != "secret" || local != "alice" && local != "mallory":
		return stream.ErrNoAccount
	case local == "mallory":
		return stream.ErrDisabled
	}
	return nil
}

// listen serves f on a loopback port until the test ends.
func listen(t testing.TB, f func(ctx context.Context, ln net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx, ln); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return ln.Addr().String()
}

// peer is the other side, written by hand, so that it can do everything wrong.
type peer struct {
	t testing.TB
	c net.Conn
	r *element.Reader
	// content is the default namespace of its streams.
	content string
	from    string
}

func dialPeer(t testing.TB, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // no test waits this long unless it fails
	return &peer{t: t, c: c, r: element.NewReader(c, element.DefaultLimits), content: stream.NSClient}
}

func (p *peer) write(s string) {
	p.t.Helper()
	if _, err := p.c.Write([]byte(s)); err != nil {
		p.t.Fatalf("writing %.80q: %v", s, err)
	}
}

// open exchanges headers and returns ours and the features.
func (p *peer) open(to string) (header, features *element.Element) {
	p.t.Helper()
	from := ""
	if p.from != "" {
		from = " from='" + p.from + "'"
	}
	p.write("<?xml version='1.0'?><stream:stream xmlns='" + p.content + "' xmlns:stream='http://etherx.jabber.org/streams' " +
		"xmlns:db='jabber:server:dialback' to='" + to + "'" + from + " version='1.0'>")
	h := p.header()
	return h, p.next()
}

func (p *peer) header() *element.Element {
	p.t.Helper()
	h, err := p.r.Header()
	if err != nil {
		p.t.Fatalf("reading the header: %v", err)
	}
	return h
}

func (p *peer) next() *element.Element {
	p.t.Helper()
	el, err := p.r.Next()
	if err != nil {
		p.t.Fatalf("reading: %v", err)
	}
	if el.Is(stream.NSSASL, "success") {
		p.r.Restart()
	}
	return el
}

// wantError reads a stream error with this condition and then the end.
func (p *peer) wantError(c stream.Condition) {
	p.t.Helper()
	el := p.next()
	if !el.Is(stream.NSStream, "error") || el.Child(stream.NSStreams, string(c)) == nil {
		p.t.Fatalf("got %s, want the stream error %s", el, c)
	}
	if el, err := p.r.Next(); err == nil {
		p.t.Fatalf("after a stream error: %s", el)
	}
}

func (p *peer) startTLS(cfg *tls.Config) {
	p.t.Helper()
	p.write("<starttls xmlns='" + stream.NSTLS + "'/>")
	if el := p.next(); !el.Is(stream.NSTLS, "proceed") {
		p.t.Fatalf("got %s, want proceed", el)
	}
	p.handshake(cfg)
}

func (p *peer) handshake(cfg *tls.Config) {
	p.t.Helper()
	c := tls.Client(p.c, cfg)
	if err := c.Handshake(); err != nil {
		p.t.Fatalf("TLS: %v", err)
	}
	p.c = c
	p.r.Reset(c)
}

func (p *peer) tlsState() *tls.ConnectionState {
	s := p.c.(*tls.Conn).ConnectionState()
	return &s
}
