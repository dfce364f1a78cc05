package s2s_test

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // the hash of the handshake
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"testing"
	"time"

	"parley/xmpp/component"
	"parley/xmpp/element"
	"parley/xmpp/s2s"
	"parley/xmpp/stream"
)

// withComponents is a node with the components echo.DOMAIN and second.DOMAIN, which have one secret, and third.DOMAIN, and where they
// connect.
func withComponents(t testing.TB, w *world, domain string) (*node, string) {
	t.Helper()
	host := "echo." + domain
	own := ca.Issue(t, domain)
	attached := component.New(component.Config{
		Secrets: map[string]string{host: "a secret", "second." + domain: "a secret", "third." + domain: "another secret"},
		Hosted:  func(d string) bool { return d == domain }, Log: slog.New(slog.DiscardHandler),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil },
		Settings:       stream.Settings{CloseTimeout: 200 * time.Millisecond}})
	n := newNode(t, w, domain, func(c *s2s.Config) {
		cert := ca.Issue(t, domain, "rooms."+domain, host)
		c.Federation.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
		c.Components = attached
	})
	attached.Attach(n.carrier)
	w.set(n.peers.Addr().String(), host)
	ln := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = attached.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return n, ln.Addr().String()
}

// echo runs the component of testdata/echo.py; the function returned ends it.
func echo(t testing.TB, domain, addr string) (stop func()) {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("/usr/bin/python3", "testdata/echo.py", domain, "a secret", port)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(stop)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("slixmpp's component did not connect (python3-slixmpp is needed): %q %v", line, err)
	}
	return stop
}

// A component that slixmpp made echoes what clients here and on other servers say.
func TestComponent(t *testing.T) {
	w := newWorld()
	a, addr := withComponents(t, w, "a.test")
	b := newNode(t, w, "b.test", nil)
	alice, bob := a.connect("alice"), b.connect("bob")

	// While it is away, who asks is told so.
	alice.Send(parse(t, `<iq type='get' id='i0' to='echo.a.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`))
	if el := stanza(alice, "iq", "error", "echo.a.test", "", ""); el.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas",
		"remote-server-timeout") == nil {
		t.Errorf("got %s", el)
	}
	stop := echo(t, "echo.a.test", addr)
	alice.Send(parse(t, `<iq type='get' id='i1' to='echo.a.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`))
	stanza(alice, "iq", "result", "echo.a.test", "http://jabber.org/protocol/disco#info", "query")
	alice.Send(parse(t, `<presence type='subscribe' to='user@echo.a.test'/>`))
	stanza(alice, "presence", "subscribed", "user@echo.a.test", "", "")
	alice.Send(parse(t, `<presence type='subscribed' to='user@echo.a.test'/>`))
	alice.Send(parse(t, `<message type='chat' id='m1' to='user@echo.a.test'><body>hello</body></message>`))
	body(alice, "user@echo.a.test", "echo: hello")

	// It is reached from other servers, and reaches them.
	bob.Send(parse(t, `<presence type='subscribe' to='user@echo.a.test'/>`))
	stanza(bob, "presence", "subscribed", "user@echo.a.test", "", "")
	bob.Send(parse(t, `<presence type='subscribed' to='user@echo.a.test'/>`))
	bob.Send(parse(t, `<message type='chat' id='m2' to='user@echo.a.test'><body>from afar</body></message>`))
	body(bob, "user@echo.a.test", "echo: from afar")

	// What is said while it is away waits for it.
	stop()
	alice.Send(parse(t, `<message type='chat' id='m3' to='user@echo.a.test'><body>are you there?</body></message>`))
	alice.Sync()
	echo(t, "echo.a.test", addr)
	body(alice, "user@echo.a.test", "echo: are you there?")
}

// shake connects as a component and answers with a secret.
func shake(t testing.TB, addr, domain, secret string) (net.Conn, *element.Reader, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(patience)))
	fmt.Fprintf(c, "<stream:stream xmlns='jabber:component:accept' xmlns:stream='%s' to='%s'>", stream.NSStream, domain)
	r := element.NewReader(c, element.DefaultLimits)
	h, err := r.Header()
	must(t, err)
	sum := sha1.Sum([]byte(h.Attr("id") + secret)) //nolint:gosec // see the import
	fmt.Fprintf(c, "<handshake>%s</handshake>", hex.EncodeToString(sum[:]))
	el, err := r.Next()
	if err == nil && !el.Is("jabber:component:accept", "handshake") {
		err = fmt.Errorf("%s", el.First().Name.Local)
	}
	return c, r, err
}

// Who has not the secret, or says to be another, is sent away.
//
// spec: XEP-0114 §3
func TestComponentHostile(t *testing.T) {
	w := newWorld()
	a, addr := withComponents(t, w, "a.test")
	alice := a.connect("alice")
	for domain, secret := range map[string]string{"echo.a.test": "a guess", "other.a.test": "", "a.test": ""} {
		want := "not-authorized"
		if domain != "echo.a.test" {
			want = "host-unknown"
		}
		if _, _, err := shake(t, addr, domain, secret); err == nil || err.Error() != want {
			t.Errorf("%s: %v", domain, err)
		}
	}
	for _, from := range []string{"alice@a.test", "user@b.test", "user@x.echo.a.test", ""} {
		c, r, err := shake(t, addr, "echo.a.test", "a secret")
		must(t, err)
		fmt.Fprintf(c, "<message from='%s' to='alice@a.test' type='chat'><body>forged</body></message>", from)
		for el, err := r.Next(); ; el, err = r.Next() {
			if err != nil {
				t.Fatalf("from %q: %v", from, err)
			}
			if el.Is(stream.NSStream, "error") {
				if el.First().Name.Local != "invalid-from" {
					t.Errorf("from %q: %s", from, el)
				}
				break
			}
		}
	}
	alice.Sync()
	if el := alice.Has(func(el *element.Element) bool { return el.ChildText("", "body") == "forged" }); el != nil {
		t.Errorf("received %s", el)
	}
	// One that connects again takes the place of the first.
	_, first, err := shake(t, addr, "echo.a.test", "a secret")
	must(t, err)
	_, _, err = shake(t, addr, "echo.a.test", "a secret")
	must(t, err)
	if el, err := first.Next(); err != nil && err != io.EOF || el != nil && el.First().Name.Local != "conflict" {
		t.Errorf("got %v %v", el, err)
	}
}
