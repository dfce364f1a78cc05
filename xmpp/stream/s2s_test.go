package stream_test

import (
	"context"
	"crypto/tls"
	"encoding/asn1"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// world is a DNS in which each domain has servers, all on loopback.
type world map[string][]*net.SRV // "_service._proto.name"

func (w world) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if recs := w["_"+service+"._"+proto+"."+name]; recs != nil {
		return name, recs, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (w world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if !strings.HasSuffix(host, ".test") {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (w world) add(service, domain, addr string) {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.ParseUint(port, 10, 16)
	w["_"+service+"._tcp."+domain] = append(w["_"+service+"._tcp."+domain], &net.SRV{Target: "host.test.", Port: uint16(n)})
}

// server is one side of a federation; what arrives goes to got.
type server struct {
	*stream.Federation
	got chan *element.Element
}

func newServer(t testing.TB, w world, domain string, cert *tls.Certificate, change func(*stream.Federation)) *server {
	t.Helper()
	s := &server{got: make(chan *element.Element, 16)}
	s.Federation = &stream.Federation{
		Hosted:         func(d string) bool { return d == domain || d == "rooms."+domain },
		GetCertificate: always(cert), Roots: ca.Pool, Secret: []byte("secret of " + domain), Resolver: w, Log: quiet(),
		Settings: stream.Settings{CloseTimeout: 200 * time.Millisecond},
		Handle: func(ctx context.Context, c *stream.Conn) {
			for {
				el, err := c.Next(ctx)
				if err != nil {
					c.Close(err)
					return
				}
				s.got <- el
			}
		},
	}
	if change != nil {
		change(s.Federation)
	}
	return s
}

// serve listens for STARTTLS and puts that into the DNS.
func (s *server) serve(t testing.TB, w world, domains ...string) string {
	addr := listen(t, s.Federation.Serve)
	for _, d := range domains {
		w.add("xmpp-server", d, addr)
	}
	return addr
}

// pump reads an outbound stream until it ends.
func pump(t testing.TB, c *stream.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := c.Next(context.Background()); err != nil {
				c.Close(err)
				return
			}
		}
	}()
	t.Cleanup(func() {
		c.Close(nil)
		<-done
	})
}

func (s *server) want(t testing.TB, from string) {
	t.Helper()
	select {
	case el := <-s.got:
		if el.Attr("from") != from || !el.Is(stream.NSClient, "message") || el.Child("", "body") == nil {
			t.Fatalf("got %s, want a message from %s", el, from)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no stanza arrived")
	}
}

func message(from, to string) *element.Element {
	m := element.New(stream.NSClient, "message").SetAttr("from", from).SetAttr("to", to)
	m.Add("", "body").SetText("hi")
	return m
}

func dial(t testing.TB, s *server, local, remote string) (*stream.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.Dial(ctx, local, remote)
}

func TestFederation(t *testing.T) {
	for _, c := range []struct {
		name                  string
		trustedA, trustedB    bool // whether the certificates of a (who dials) and b can be trusted
		dialbackA, dialbackB  bool
		direct                bool
		mechanism             string
		fails                 error
		failsDialback, failed bool
	}{
		{name: "certificates", trustedA: true, trustedB: true, mechanism: "EXTERNAL"},
		{name: "certificates, direct TLS", trustedA: true, trustedB: true, direct: true, mechanism: "EXTERNAL"},
		{name: "dialback for the one who dials", trustedB: true, dialbackA: true, dialbackB: true},
		{name: "dialback both ways", dialbackA: true, dialbackB: true},
		{name: "dialback, direct TLS", dialbackA: true, dialbackB: true, direct: true},
		{name: "certificate against dialback", trustedA: true, dialbackA: true, mechanism: "EXTERNAL"},
		{name: "untrusted server", trustedA: true, fails: stream.ErrUntrusted},
		{name: "untrusted server, which allows dialback", trustedA: true, dialbackB: true, fails: stream.ErrUntrusted},
		{name: "untrusted initiator", trustedB: true, failsDialback: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := world{}
			cert := func(trusted bool, name string) *tls.Certificate {
				if trusted {
					return ca.Issue(t, name)
				}
				return otherCA.Issue(t, name)
			}
			a := newServer(t, w, "a.test", cert(c.trustedA, "a.test"), func(f *stream.Federation) { f.AllowDialback = c.dialbackA })
			b := newServer(t, w, "b.test", cert(c.trustedB, "b.test"), func(f *stream.Federation) { f.AllowDialback = c.dialbackB })
			if c.direct {
				w.add("xmpps-server", "a.test", listen(t, a.ServeTLS))
				w.add("xmpps-server", "b.test", listen(t, b.ServeTLS))
			} else {
				a.serve(t, w, "a.test")
				b.serve(t, w, "b.test")
			}
			conn, err := dial(t, a, "a.test", "b.test")
			switch {
			case c.fails != nil:
				if !errors.Is(err, c.fails) {
					t.Fatalf("Dial: %v, want %v", err, c.fails)
				}
				return
			case c.failsDialback:
				if de, ok := errors.AsType[*stream.DialbackError](err); !ok || de.Condition != "not-authorized" {
					t.Fatalf("Dial: %v", err)
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			pump(t, conn)
			if conn.Mechanism() != c.mechanism {
				t.Errorf("mechanism %q, want %q", conn.Mechanism(), c.mechanism)
			}
			if !conn.Authorized(stream.Pair{Local: "a.test", Remote: "b.test"}) {
				t.Error("the pair is not authorised")
			}
			if err := conn.Send(message("alice@a.test", "bob@b.test")); err != nil {
				t.Fatal(err)
			}
			b.want(t, "alice@a.test")
		})
	}
}

func TestMultiplexing(t *testing.T) {
	w := world{}
	a := newServer(t, w, "a.test", otherCA.Issue(t, "a.test"), func(f *stream.Federation) { f.AllowDialback = true })
	b := newServer(t, w, "b.test", ca.Issue(t, "b.test"), func(f *stream.Federation) { f.AllowDialback = true })
	a.serve(t, w, "a.test", "rooms.a.test")
	b.serve(t, w, "b.test")
	conn, err := dial(t, a, "a.test", "b.test")
	if err != nil {
		t.Fatal(err)
	}
	pump(t, conn)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, p := range []stream.Pair{{Local: "rooms.a.test", Remote: "b.test"}, {Local: "a.test", Remote: "rooms.b.test"}} {
		if err := conn.AddPair(ctx, p); err != nil || !conn.Authorized(p) {
			t.Fatalf("%v: %v", p, err)
		}
	}
	if de, ok := errors.AsType[*stream.DialbackError](conn.AddPair(ctx, stream.Pair{Local: "a.test", Remote: "nothere.test"})); !ok || de.Condition != "item-not-found" {
		t.Fatalf("a domain that is not there: %v", de)
	}
	if err := conn.Send(message("garden@rooms.a.test/alice", "bob@b.test")); err != nil {
		t.Fatal(err)
	}
	b.want(t, "garden@rooms.a.test/alice")
	if err := conn.Send(message("alice@a.test", "x@rooms.b.test")); err != nil {
		t.Fatal(err)
	}
	b.want(t, "alice@a.test")
	// This pair nobody has authorised, though each of its domains is on the stream.
	if err := conn.Send(message("garden@rooms.a.test", "x@rooms.b.test")); err != nil {
		t.Fatal(err)
	}
	<-conn.Done()
	select {
	case el := <-b.got:
		t.Fatalf("got %s", el)
	default:
	}
}

// inboundPeer is a hand-written server that has TLS to b.test.
func inboundPeer(t testing.TB, addr, from string, cert *tls.Certificate) (p *peer, header, features *element.Element) {
	t.Helper()
	p = dialPeer(t, addr)
	p.content, p.from = stream.NSServer, from
	p.open("b.test")
	cfg := &tls.Config{ServerName: "b.test", RootCAs: ca.Pool}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	p.startTLS(cfg)
	header, features = p.open("b.test")
	return p, header, features
}

func (p *peer) external(authzid string) *element.Element { return p.auth("EXTERNAL", authzid) }

func TestCertificatesOfServers(t *testing.T) {
	w := world{}
	b := newServer(t, w, "b.test", ca.Issue(t, "b.test"), nil)
	addr := b.serve(t, w, "b.test")
	xmppAddr := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 5}
	srvName := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7}
	for _, c := range []struct {
		name string
		from string
		cert *tls.Certificate
		ok   bool
	}{
		{"DNS name", "a.test", ca.Issue(t, "a.test"), true},
		{"one of several", "a.test", ca.Issue(t, "x.test", "a.test"), true},
		{"wildcard", "chat.a.test", ca.Issue(t, "*.a.test"), true},
		{"wildcard is one label", "x.chat.a.test", ca.Issue(t, "*.a.test"), false},
		{"internationalised", "bücher.test", ca.Issue(t, "xn--bcher-kva.test"), true},
		{"xmppAddr", "a.test", issueOther(t, otherName{xmppAddr, 12, "a.test"}), true},
		{"xmppAddr of an account", "a.test", issueOther(t, otherName{xmppAddr, 12, "admin@a.test"}), false},
		{"xmppAddr of the wrong type", "a.test", issueOther(t, otherName{xmppAddr, 22, "a.test"}), false},
		{"SRVName", "a.test", issueOther(t, otherName{srvName, 22, "_xmpp-server.a.test"}), true},
		{"SRVName of clients", "a.test", issueOther(t, otherName{srvName, 22, "_xmpp-client.a.test"}), false},
		{"SRVName without service", "a.test", issueOther(t, otherName{srvName, 22, "a.test"}), false},
		{"another domain", "a.test", ca.Issue(t, "c.test"), false},
		{"another authority", "a.test", otherCA.Issue(t, "a.test"), false},
		{"our own domain", "rooms.b.test", ca.Issue(t, "rooms.b.test"), false},
		{"none", "a.test", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _, f := inboundPeer(t, addr, c.from, c.cert)
			if got := offersExternal(f); got != c.ok && c.from != "rooms.b.test" {
				t.Fatalf("EXTERNAL offered: %v", got)
			}
			el := p.external(c.from) // whether it was offered or not
			if !c.ok {
				if el.Child("", "not-authorized") == nil {
					t.Fatalf("got %s", el)
				}
				p.write("<message from='x@" + c.from + "' to='bob@b.test'/>")
				p.wantError(stream.InvalidFrom)
				return
			}
			if !el.Is(stream.NSSASL, "success") {
				t.Fatalf("got %s", el)
			}
			p.open("b.test")
			p.write("<message from='x@" + c.from + "' to='bob@b.test'><body/></message>")
			b.want(t, "x@"+c.from)
		})
	}
}

func offersExternal(f *element.Element) bool {
	return f.Child(stream.NSSASL, "mechanisms").ChildText("", "mechanism") == "EXTERNAL"
}

func TestAddressesOfStanzas(t *testing.T) {
	w := world{}
	b := newServer(t, w, "b.test", ca.Issue(t, "b.test"), nil)
	addr := b.serve(t, w, "b.test")
	cert := ca.Issue(t, "a.test", "chat.a.test")
	for _, c := range []struct {
		in   string
		want stream.Condition
	}{
		{"<message from='x@c.test' to='bob@b.test'/>", stream.InvalidFrom},
		{"<message from='x@chat.a.test' to='bob@b.test'/>", stream.InvalidFrom}, // in the certificate, but not asked for
		{"<message from='x@a.test' to='bob@rooms.b.test'/>", stream.InvalidFrom},
		{"<message from='x@a.test' to='bob@c.test'/>", stream.HostUnknown},
		{"<message to='bob@b.test'/>", stream.ImproperAddressing},
		{"<message from='x@a.test'/>", stream.ImproperAddressing},
		{"<message from='@a.test' to='bob@b.test'/>", stream.ImproperAddressing},
		{"<message from='x@a.test' to='b.test/" + strings.Repeat("x", 1100) + "'/>", stream.ImproperAddressing},
		{"<message xmlns='jabber:client' from='x@a.test' to='bob@b.test'/>", stream.InvalidNamespace},
		{"<letter from='x@a.test' to='bob@b.test'/>", stream.UnsupportedStanzaType},
		{"<db:result from='b.test' to='a.test' type='valid'/>", stream.PolicyViolation},
		{"<db:verify from='b.test' to='a.test' id='x' type='valid'/>", stream.PolicyViolation},
		{"<db:result from='x@c.test' to='b.test'>k</db:result>", stream.ImproperAddressing},
		{"<auth xmlns='" + stream.NSSASL + "' mechanism='EXTERNAL'>=</auth>", stream.PolicyViolation},
		{"<starttls xmlns='" + stream.NSTLS + "'/>", stream.PolicyViolation},
	} {
		t.Run(c.in[:min(len(c.in), 60)], func(t *testing.T) {
			p, _, _ := inboundPeer(t, addr, "a.test", cert)
			p.external("")
			p.open("b.test")
			p.write(c.in)
			p.wantError(c.want)
		})
	}
	t.Run("further domain of the certificate", func(t *testing.T) {
		p, _, _ := inboundPeer(t, addr, "a.test", cert)
		p.external("")
		p.open("b.test")
		p.write("<db:result from='chat.a.test' to='b.test'>any</db:result>")
		if el := p.next(); el.Attr("type") != "valid" {
			t.Fatalf("got %s", el)
		}
		p.write("<db:result from='c.test' to='b.test'>any</db:result>")
		if el := p.next(); el.Attr("type") != "error" { // dialback itself is not allowed
			t.Fatalf("got %s", el)
		}
		p.write("<message from='x@chat.a.test' to='bob@b.test'><body/></message>")
		b.want(t, "x@chat.a.test")
	})
	t.Run("authzid", func(t *testing.T) {
		p, _, _ := inboundPeer(t, addr, "a.test", cert)
		if el := p.external("c.test"); el.Child("", "invalid-authzid") == nil {
			t.Fatalf("got %s", el)
		}
	})
	t.Run("stanza before authentication", func(t *testing.T) {
		p := dialPeer(t, addr)
		p.content = stream.NSServer
		p.open("b.test")
		p.write("<message from='x@a.test' to='bob@b.test'/>")
		p.wantError(stream.InvalidFrom)
	})
	t.Run("dialback in the clear", func(t *testing.T) {
		p := dialPeer(t, addr)
		p.content = stream.NSServer
		p.open("b.test")
		p.write("<db:result from='a.test' to='b.test'>k</db:result>")
		if el := p.next(); el.Attr("type") != "error" {
			t.Fatalf("got %s", el)
		}
	})
}

func TestDialbackAttacks(t *testing.T) {
	w := world{}
	a := newServer(t, w, "a.test", ca.Issue(t, "a.test"), nil)
	a.serve(t, w, "a.test")
	b := newServer(t, w, "b.test", ca.Issue(t, "b.test"), func(f *stream.Federation) { f.AllowDialback = true })
	addr := b.serve(t, w, "b.test")
	key := func(id string) string { return stream.DialbackKey([]byte("secret of a.test"), "b.test", "a.test", id) }

	p, _, f := inboundPeer(t, addr, "a.test", nil)
	if f.Child("urn:xmpp:features:dialback", "dialback") == nil || offersExternal(f) {
		t.Fatalf("features %s", f)
	}
	p.write("<db:result from='a.test' to='b.test'>" + key("another stream") + "</db:result>") // replayed
	if el := p.next(); el.Attr("type") != "invalid" {
		t.Fatalf("replayed key: %s", el)
	}
	if el, err := p.r.Next(); err == nil {
		t.Fatalf("the stream went on: %s", el)
	}

	p, h, _ := inboundPeer(t, addr, "a.test", nil)
	p.write("<db:result from='a.test' to='b.test'>" + key(h.Attr("id")) + "</db:result>")
	if el := p.next(); el.Attr("type") != "valid" || el.Attr("from") != "b.test" || el.Attr("to") != "a.test" {
		t.Fatalf("right key: %s", el)
	}
	p.write("<db:result from='rooms.a.test' to='b.test'>" + key(h.Attr("id")) + "</db:result>") // which has no server
	if el := p.next(); stanzaError(el) != "remote-connection-failed" {
		t.Fatalf("domain without a server: %s", el)
	}
	p.write("<db:result from='b.test' to='b.test'>k</db:result>")
	if el := p.next(); stanzaError(el) != "not-acceptable" {
		t.Fatalf("our own domain: %s", el)
	}
	p.write("<db:result from='a.test' to='c.test'>k</db:result>")
	if el := p.next(); stanzaError(el) != "item-not-found" {
		t.Fatalf("not our domain: %s", el)
	}
	p.write("<message from='x@a.test' to='bob@b.test'><body/></message>")
	b.want(t, "x@a.test")

	// The authoritative server says what is right, to anyone.
	good := stream.DialbackKey([]byte("secret of b.test"), "c.test", "b.test", "id1")
	for _, c := range []struct{ to, id, key, want string }{
		{"b.test", "id1", good, "valid"}, {"b.test", "id2", good, "invalid"}, {"b.test", "id1", "", "invalid"},
		{"rooms.b.test", "id1", good, "invalid"}, {"c.test", "id1", good, "error"},
	} {
		p.write("<db:verify from='c.test' to='" + c.to + "' id='" + c.id + "'>" + c.key + "</db:verify>")
		if el := p.next(); el.Attr("type") != c.want || el.Attr("id") != c.id || el.Attr("from") != c.to {
			t.Errorf("%v: %s", c, el)
		}
	}
}

func stanzaError(el *element.Element) string {
	if e := el.Child(stream.NSServer, "error").First(); e != nil {
		return e.Name.Local
	}
	return ""
}

// An authoritative server that answers for another key, and one that a peer which was dialled sends unasked.
func TestUnsolicitedAnswers(t *testing.T) {
	w := world{}
	cert := ca.Issue(t, "b.test")
	answers := make(chan string, 1)
	evil := listen(t, func(ctx context.Context, ln net.Listener) error {
		defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
		for {
			c, err := ln.Accept()
			if err != nil {
				return nil
			}
			go serveEvil(t, c, cert, answers)
		}
	})
	w.add("xmpps-server", "b.test", evil)
	a := newServer(t, w, "a.test", ca.Issue(t, "a.test"), nil)
	for _, c := range []struct {
		answer string
		want   stream.Condition
	}{
		{"<db:result from='c.test' to='a.test' type='valid'/>", stream.InvalidFrom},
		{"<db:result from='b.test' to='c.test' type='valid'/>", stream.InvalidFrom},
		{"<db:verify from='b.test' to='a.test' id='i' type='valid'/>", stream.PolicyViolation},
		{"<message from='x@b.test' to='alice@a.test'/>", stream.NotAuthorized},
		{"<db:result from='b.test' to='a.test' type='valid'/><db:result from='b.test' to='rooms.a.test' type='valid'/>", stream.InvalidFrom},
	} {
		answers <- c.answer
		conn, err := dial(t, a, "a.test", "b.test")
		if err == nil { // the first answer was the right one
			_, err = conn.Next(context.Background())
			conn.Close(err)
		}
		if se, ok := errors.AsType[*stream.Error](err); !ok || se.Condition != c.want {
			t.Errorf("%s: %v", c.answer, err)
		}
	}
	if err := func() error { _, err := dial(t, a, "a.test", "nowhere.example"); return err }(); err == nil {
		t.Error("dialled a domain that is not there")
	}
}

// serveEvil is a server that offers dialback and answers a key with whatever the test says.
func serveEvil(t testing.TB, c net.Conn, cert *tls.Certificate, answers <-chan string) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"xmpp-server"}})
	r := element.NewReader(s, element.DefaultLimits)
	if _, err := r.Header(); err != nil {
		t.Errorf("evil server: %v", err)
		return
	}
	_, _ = s.Write([]byte("<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' " +
		"xmlns:stream='http://etherx.jabber.org/streams' id='i' version='1.0'><stream:features/>"))
	if _, err := r.Next(); err != nil {
		t.Errorf("evil server: %v", err)
		return
	}
	_, _ = s.Write([]byte(<-answers))
	for {
		if _, err := r.Next(); err != nil {
			return
		}
	}
}

func TestDialbackKeyOfTheSpecification(t *testing.T) {
	// spec: XEP-0220 §2.1.1
	got := stream.DialbackKey([]byte("s3cr3tf0rd14lb4ck"), "montague.example", "capulet.example", "D60000229F")
	if want := "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func TestGuardedDial(t *testing.T) {
	w := world{}
	w.add("xmpp-server", "b.test", "127.0.0.1:1")
	guarded := errors.New("private network")
	a := newServer(t, w, "a.test", ca.Issue(t, "a.test"), func(f *stream.Federation) {
		f.Dialer = func(_ context.Context, _, addr string) (net.Conn, error) {
			if addr != "127.0.0.1:1" {
				t.Errorf("address %s", addr)
			}
			return nil, guarded
		}
	})
	if _, err := dial(t, a, "a.test", "b.test"); !errors.Is(err, guarded) {
		t.Errorf("Dial: %v", err)
	}
	w["_xmpp-server._tcp.b.test"] = []*net.SRV{{Target: "."}}
	if _, err := dial(t, a, "a.test", "b.test"); !errors.Is(err, stream.ErrNoService) {
		t.Errorf("Dial: %v", err)
	}
}
