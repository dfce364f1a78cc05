package stream_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// echo is a session that sends every stanza back, with who sent it.
func echo(ctx context.Context, c *stream.Conn) {
	for {
		el, err := c.Next(ctx)
		if err != nil {
			c.Close(err)
			return
		}
		el.SetAttr("from", c.Account()+"@"+c.LocalDomain())
		if err := c.Send(el); err != nil {
			c.Close(err)
			return
		}
	}
}

func clients(t testing.TB, change func(*stream.Clients)) *stream.Clients {
	s := &stream.Clients{
		Hosted:         func(d string) bool { return d == "example.org" || d == "example.net" },
		GetCertificate: always(ca.Issue(t, "example.org")),
		Authenticator:  accounts{}, Secret: []byte("0123456789abcdef0123456789abcdef"), ScramIterations: 4096,
		Features: func(*stream.Conn) []*element.Element {
			return []*element.Element{element.New("urn:ietf:params:xml:ns:xmpp-bind", "bind")}
		},
		Handle: echo, Log: quiet(),
		Settings: stream.Settings{CloseTimeout: 200 * time.Millisecond},
	}
	if change != nil {
		change(s)
	}
	return s
}

func clientTLS() *tls.Config { return &tls.Config{ServerName: "example.org", RootCAs: ca.Pool} }

// secured is a client that has TLS and the offer of mechanisms.
func secured(t testing.TB, addr string) (*peer, *element.Element) {
	t.Helper()
	p := dialPeer(t, addr)
	if _, f := p.open("example.org"); f.Child(stream.NSTLS, "starttls").Child("", "required") == nil || len(f.Elements()) != 1 {
		t.Fatalf("features in the clear: %s", f)
	}
	p.startTLS(clientTLS())
	_, f := p.open("Example.ORG")
	return p, f
}

func (p *peer) auth(mechanism string, msg string) *element.Element {
	p.t.Helper()
	text := base64.StdEncoding.EncodeToString([]byte(msg))
	if msg == "" {
		text = "="
	}
	p.write(fmt.Sprintf("<auth xmlns='%s' mechanism='%s'>%s</auth>", stream.NSSASL, mechanism, text))
	return p.next()
}

// scram does the whole exchange and returns what the server said last.
func (p *peer) scram(mechanism, user, password string, binding scram.ChannelBinding) *element.Element {
	p.t.Helper()
	gen := scram.SHA256
	if strings.HasPrefix(mechanism, "SCRAM-SHA-1") && !strings.HasPrefix(mechanism, "SCRAM-SHA-256") {
		gen = scram.SHA1
	}
	client, err := gen.NewClient(user, password, "")
	if err != nil {
		p.t.Fatal(err)
	}
	conv := client.NewConversation()
	if binding.IsSupported() {
		conv = client.NewConversationWithChannelBinding(binding)
	}
	first, err := conv.Step("")
	if err != nil {
		p.t.Fatal(err)
	}
	el := p.auth(mechanism, first)
	if !el.Is(stream.NSSASL, "challenge") {
		return el
	}
	challenge, err := base64.StdEncoding.DecodeString(el.Text())
	if err != nil {
		p.t.Fatal(err)
	}
	final, err := conv.Step(string(challenge))
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(fmt.Sprintf("<response xmlns='%s'>%s</response>", stream.NSSASL, base64.StdEncoding.EncodeToString([]byte(final))))
	if el = p.next(); el.Is(stream.NSSASL, "success") {
		verifier, err := base64.StdEncoding.DecodeString(el.Text())
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := conv.Step(string(verifier)); err != nil {
			p.t.Fatalf("server's proof: %v", err)
		}
	}
	return el
}

// talk opens the last stream and exchanges a stanza.
func (p *peer) talk() {
	p.t.Helper()
	if _, f := p.open("example.org"); f.Child("urn:ietf:params:xml:ns:xmpp-bind", "bind") == nil {
		p.t.Fatalf("features: %s", f)
	}
	p.write(" <message to='bob@example.org'><body>hi</body></message>")
	if el := p.next(); el.Attr("from") != "alice@example.org" || el.ChildText("", "body") != "hi" {
		p.t.Fatalf("got %s", el)
	}
	p.write("</stream:stream>")
	if _, err := p.r.Next(); err != io.EOF {
		p.t.Fatalf("closing: %v", err)
	}
}

func TestClientMechanisms(t *testing.T) {
	addr := listen(t, clients(t, nil).Serve)
	for _, mechanism := range []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"} {
		for _, kind := range []scram.ChannelBindingType{scram.ChannelBindingTLSExporter, scram.ChannelBindingTLSServerEndpoint} {
			plus := strings.HasSuffix(mechanism, "-PLUS")
			if !plus && kind != scram.ChannelBindingTLSExporter {
				continue
			}
			t.Run(mechanism+" "+string(kind), func(t *testing.T) {
				p, f := secured(t, addr)
				if !offers(f, mechanism) {
					t.Fatalf("not offered: %s", f)
				}
				var binding scram.ChannelBinding
				if plus {
					binding = bind(t, p, kind)
				}
				if el := p.scram(mechanism, "Alice", "secret", binding); !el.Is(stream.NSSASL, "success") {
					t.Fatalf("got %s", el)
				}
				p.talk()
			})
		}
	}
	t.Run("PLAIN", func(t *testing.T) {
		p, _ := secured(t, addr)
		if el := p.auth("PLAIN", "\x00alice\x00secret"); !el.Is(stream.NSSASL, "success") {
			t.Fatalf("got %s", el)
		}
		p.talk()
	})
}

func offers(f *element.Element, mechanism string) bool {
	for _, m := range f.Child(stream.NSSASL, "mechanisms").ChildrenNamed("", "mechanism") {
		if m.Text() == mechanism {
			return true
		}
	}
	return false
}

func bind(t testing.TB, p *peer, kind scram.ChannelBindingType) scram.ChannelBinding {
	t.Helper()
	newBinding := scram.NewTLSExporterBinding
	if kind == scram.ChannelBindingTLSServerEndpoint {
		newBinding = scram.NewTLSServerEndpointBinding
	}
	b, err := newBinding(p.tlsState())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClientDirectTLS(t *testing.T) {
	addr := listen(t, clients(t, nil).ServeTLS)
	p := dialPeer(t, addr)
	cfg := clientTLS()
	cfg.NextProtos = []string{"xmpp-client"}
	p.handshake(cfg)
	if got := p.tlsState().NegotiatedProtocol; got != "xmpp-client" {
		t.Errorf("ALPN %q", got)
	}
	_, f := p.open("example.org")
	if f.Child(stream.NSTLS, "starttls") != nil || f.Child("urn:xmpp:sasl-cb:0", "sasl-channel-binding") == nil {
		t.Errorf("features: %s", f)
	}
	if el := p.scram("SCRAM-SHA-256", "alice", "secret", scram.ChannelBinding{}); !el.Is(stream.NSSASL, "success") {
		t.Fatalf("got %s", el)
	}
	p.talk()

	p = dialPeer(t, addr)
	cfg.NextProtos = []string{"xmpp-server"}
	if err := tls.Client(p.c, cfg).Handshake(); err == nil {
		t.Error("ALPN of another protocol was accepted")
	}
}

func TestClientAuthenticationFailures(t *testing.T) {
	addr := listen(t, clients(t, nil).Serve)
	exporter := func(t *testing.T, p *peer) scram.ChannelBinding { return bind(t, p, scram.ChannelBindingTLSExporter) }
	for _, c := range []struct {
		name, want string
		do         func(t *testing.T, p *peer) *element.Element
	}{
		{"wrong password", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256", "alice", "wrong", scram.ChannelBinding{})
		}},
		{"no such account", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256", "nobody", "secret", scram.ChannelBinding{})
		}},
		{"impossible account", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-1", "a b@c", "secret", scram.ChannelBinding{})
		}},
		{"disabled", "account-disabled", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256", "mallory", "secret", scram.ChannelBinding{})
		}},
		{"disabled, wrong password", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256", "mallory", "wrong", scram.ChannelBinding{})
		}},
		{"database away", "temporary-auth-failure", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256", "broken", "secret", scram.ChannelBinding{})
		}},
		{"PLAIN wrong password", "not-authorized", func(_ *testing.T, p *peer) *element.Element { return p.auth("PLAIN", "\x00alice\x00wrong") }},
		{"PLAIN no such account", "not-authorized", func(_ *testing.T, p *peer) *element.Element { return p.auth("PLAIN", "\x00bob\x00wrong") }},
		{"PLAIN disabled", "account-disabled", func(_ *testing.T, p *peer) *element.Element { return p.auth("PLAIN", "\x00mallory\x00secret") }},
		{"PLAIN malformed", "malformed-request", func(_ *testing.T, p *peer) *element.Element { return p.auth("PLAIN", "alice\x00secret") }},
		{"PLAIN for another", "invalid-authzid", func(_ *testing.T, p *peer) *element.Element {
			return p.auth("PLAIN", "bob@example.org\x00alice\x00secret")
		}},
		{"mechanism", "invalid-mechanism", func(_ *testing.T, p *peer) *element.Element { return p.auth("EXTERNAL", "") }},
		{"not base64", "incorrect-encoding", func(_ *testing.T, p *peer) *element.Element {
			p.write("<auth xmlns='" + stream.NSSASL + "' mechanism='PLAIN'>!!!</auth>")
			return p.next()
		}},
		{"oversized", "incorrect-encoding", func(_ *testing.T, p *peer) *element.Element {
			return p.auth("PLAIN", "\x00alice\x00"+strings.Repeat("x", 5000))
		}},
		{"binding for another connection", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256-PLUS", "alice", "secret",
				scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: make([]byte, 32)})
		}},
		{"binding without PLUS", "malformed-request", func(t *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256", "alice", "secret", exporter(t, p))
		}},
		{"PLUS without binding", "malformed-request", func(_ *testing.T, p *peer) *element.Element {
			return p.scram("SCRAM-SHA-256-PLUS", "alice", "secret", scram.ChannelBinding{})
		}},
		{"binding not announced", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.auth("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=alice,r=abcdefgh")
		}},
		{"downgrade", "not-authorized", func(_ *testing.T, p *peer) *element.Element {
			return p.auth("SCRAM-SHA-256", "y,,n=alice,r=abcdefgh")
		}},
		{"aborted", "aborted", func(_ *testing.T, p *peer) *element.Element {
			if el := p.auth("SCRAM-SHA-256", "n,,n=alice,r=abcdefgh"); !el.Is(stream.NSSASL, "challenge") {
				return el
			}
			p.write("<abort xmlns='" + stream.NSSASL + "'/>")
			return p.next()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := secured(t, addr)
			if el := c.do(t, p); !el.Is(stream.NSSASL, "failure") || el.Child("", c.want) == nil || len(el.Elements()) != 1 {
				t.Fatalf("got %s, want %s", el, c.want)
			}
			// One failure is not the end.
			if el := p.auth("PLAIN", "\x00alice\x00secret"); !el.Is(stream.NSSASL, "success") {
				t.Fatalf("second attempt: %s", el)
			}
			p.talk()
		})
	}
}

// The salts of unknown accounts must look like those of known ones, be the same each time, and differ between accounts.
func TestUnknownAccountsLookLikeKnownOnes(t *testing.T) {
	addr := listen(t, clients(t, nil).Serve)
	salt := func(user string) string {
		p, _ := secured(t, addr)
		el := p.auth("SCRAM-SHA-256", "n,,n="+user+",r=abcdefgh")
		msg, err := base64.StdEncoding.DecodeString(el.Text())
		if err != nil || !el.Is(stream.NSSASL, "challenge") {
			t.Fatalf("%s, %v", el, err)
		}
		_, rest, _ := strings.Cut(string(msg), ",")
		rest, digest, _ := strings.Cut(rest, ",h=")
		if len(digest) != 44 {
			t.Errorf("no digest of what was offered: %s", msg)
		}
		return rest
	}
	alice, nobody, other := salt("alice"), salt("nobody"), salt("other")
	if nobody != salt("nobody") || nobody != salt("NoBody") {
		t.Error("made-up salts change")
	}
	if nobody == other {
		t.Error("made-up salts are all the same")
	}
	if len(alice) != len(nobody) || !strings.HasSuffix(nobody, ",i=4096") {
		t.Errorf("%q does not look like %q", nobody, alice)
	}
}

func TestClientTooManyAttempts(t *testing.T) {
	addr := listen(t, clients(t, nil).Serve)
	p, _ := secured(t, addr)
	for range 5 {
		if el := p.auth("PLAIN", "\x00alice\x00wrong"); !el.Is(stream.NSSASL, "failure") {
			t.Fatalf("got %s", el)
		}
	}
	p.wantError(stream.PolicyViolation)
}

func TestClientStreamErrors(t *testing.T) {
	addr := listen(t, clients(t, nil).Serve)
	const ok = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>"
	for _, c := range []struct {
		name, in string
		want     stream.Condition
		header   bool // features come first
	}{
		{"host", strings.Replace(ok, "example.org", "example.com", 1), stream.HostUnknown, false},
		{"no host", strings.Replace(ok, " to='example.org'", "", 1), stream.HostUnknown, false},
		{"host is an account", strings.Replace(ok, "example.org", "a@example.org", 1), stream.HostUnknown, false},
		{"version", strings.Replace(ok, " version='1.0'", "", 1), stream.UnsupportedVersion, false},
		{"content namespace", strings.Replace(ok, "jabber:client", "jabber:server", 1), stream.InvalidNamespace, false},
		{"stream namespace", strings.Replace(ok, "http://etherx.jabber.org/streams", "urn:x", 1), stream.InvalidNamespace, false},
		{"stream name", strings.Replace(ok, "stream:stream ", "stream:other ", 1), stream.BadFormat, false},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", stream.NotWellFormed, false},
		{"huge header", strings.Replace(ok, " to=", " x='"+strings.Repeat("x", 20<<10)+"' to=", 1), stream.PolicyViolation, false},
		{"encoding", "<?xml version='1.0' encoding='UTF-16'?>" + ok, stream.UnsupportedEncoding, false},
		{"entity bomb", `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>` + ok, stream.RestrictedXML, false},
		{"comment", ok + "<!-- x -->", stream.RestrictedXML, true},
		{"entity", ok + "<a>&lol;</a>", stream.RestrictedXML, true},
		{"broken", ok + "<a></b>", stream.NotWellFormed, true},
		{"huge", ok + "<a>" + strings.Repeat("x", 20<<10), stream.PolicyViolation, true},
		{"deep", ok + strings.Repeat("<a>", 20), stream.PolicyViolation, true},
		{"stanza before authentication", ok + "<message/>", stream.NotAuthorized, true},
		{"text", ok + "hello", stream.BadFormat, true},
		{"injection behind starttls", ok + "<starttls xmlns='" + stream.NSTLS + "'/><auth/>", stream.PolicyViolation, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := dialPeer(t, addr)
			p.write(c.in)
			p.header()
			if c.header {
				p.next()
			}
			p.wantError(c.want)
		})
	}
	t.Run("SASL in the clear", func(t *testing.T) {
		p := dialPeer(t, addr)
		p.open("example.org")
		if el := p.auth("PLAIN", "\x00alice\x00secret"); el.Child("", "encryption-required") == nil {
			t.Fatalf("got %s", el)
		}
	})
	t.Run("another host after TLS and SASL", func(t *testing.T) {
		p, _ := secured(t, addr)
		p.auth("PLAIN", "\x00alice\x00secret")
		p.write(strings.Replace(ok, "example.org", "example.net", 1))
		p.header()
		p.wantError(stream.HostUnknown)
	})
	for in, want := range map[string]stream.Condition{
		"<message xmlns='jabber:server'/>": stream.InvalidNamespace, "<letter/>": stream.UnsupportedStanzaType,
		"<message xmlns=''/>": stream.InvalidNamespace, "<message><body>" + strings.Repeat("x", 300<<10): stream.PolicyViolation,
	} {
		t.Run("after authentication "+string(want)+in[:9], func(t *testing.T) {
			p, _ := secured(t, addr)
			p.auth("PLAIN", "\x00alice\x00secret")
			p.open("example.org")
			go func() { _, _ = p.c.Write([]byte(in)) }()
			p.wantError(want)
		})
	}
}

// A client that keeps sending, but too slowly, is cut off in time.
func TestSlowLoris(t *testing.T) {
	addr := listen(t, clients(t, func(s *stream.Clients) { s.Settings.NegotiationTimeout = 300 * time.Millisecond }).Serve)
	p := dialPeer(t, addr)
	p.open("example.org")
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				if _, err := p.c.Write([]byte(" ")); err != nil {
					return
				}
			}
		}
	}()
	p.wantError(stream.ConnectionTimeout)

	silent := dialPeer(t, addr) // not even a header
	silent.header()
	silent.wantError(stream.ConnectionTimeout)
}

func TestPendingLimit(t *testing.T) {
	addr := listen(t, clients(t, func(s *stream.Clients) { s.Settings.MaxPendingPerIP = 2 }).Serve)
	first, _ := secured(t, addr)
	second := dialPeer(t, addr)
	second.open("example.org")
	third := dialPeer(t, addr)
	if _, err := third.c.Read(make([]byte, 1)); err == nil {
		t.Fatal("third unauthenticated connection was served")
	}
	first.auth("PLAIN", "\x00alice\x00secret")
	first.open("example.org")
	fourth := dialPeer(t, addr) // the first counts no more
	fourth.open("example.org")
	first.write("<message/>")
	first.next()
}

func TestServerShutdown(t *testing.T) {
	s := clients(t, func(s *stream.Clients) {
		s.Handle = func(ctx context.Context, c *stream.Conn) {
			if _, err := c.Next(ctx); err != context.Canceled {
				t.Errorf("Next: %v", err)
			}
			c.Close(stream.Errorf(stream.SystemShutdown, "bye"))
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	p, _ := secured(t, ln.Addr().String())
	p.auth("PLAIN", "\x00alice\x00secret")
	p.open("example.org")
	cancel()
	p.wantError(stream.SystemShutdown)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
