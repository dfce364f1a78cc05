package s2s_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// binder is a component that binds its domains, written by hand.
type binder struct {
	t testing.TB
	c net.Conn
	r *element.Reader
	n int
}

func dialBinder(t testing.TB, addr, server, domain string) *binder {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(patience)))
	b := &binder{t: t, c: c, r: element.NewReader(c, element.DefaultLimits)}
	if f := b.open(server, domain); f.Child(stream.NSTLS, "starttls") == nil || f.Child(stream.NSSASL, "mechanisms") != nil {
		t.Fatalf("features in the clear: %s", f)
	}
	b.write("<starttls xmlns='%s'/>", stream.NSTLS)
	b.want(stream.NSTLS, "proceed")
	secure := tls.Client(c, &tls.Config{RootCAs: ca.Pool, ServerName: server})
	must(t, secure.Handshake())
	b.c = secure
	b.r.Reset(secure)
	if f := b.open(server, domain); f.Child(stream.NSSASL, "mechanisms") == nil {
		t.Fatalf("features within TLS: %s", f)
	}
	return b
}

func (b *binder) write(format string, args ...any) {
	b.t.Helper()
	_, err := fmt.Fprintf(b.c, format, args...)
	must(b.t, err)
}

func (b *binder) next() *element.Element {
	b.t.Helper()
	el, err := b.r.Next()
	must(b.t, err)
	return el
}

func (b *binder) want(space, local string) *element.Element {
	b.t.Helper()
	el := b.next()
	if !el.Is(space, local) {
		b.t.Fatalf("got %s, want %s", el, local)
	}
	return el
}

// open exchanges headers and returns the features.
func (b *binder) open(server, domain string) *element.Element {
	b.t.Helper()
	b.write("<stream:stream xmlns='jabber:client' xmlns:stream='%s' from='%s' to='%s' version='1.0'>", stream.NSStream, domain, server)
	_, err := b.r.Header()
	must(b.t, err)
	return b.want(stream.NSStream, "features")
}

// plain authenticates with PLAIN, and returns what the server says.
func (b *binder) plain(authzid, name, secret string) *element.Element {
	b.write("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", stream.NSSASL,
		base64.StdEncoding.EncodeToString([]byte(authzid+"\x00"+name+"\x00"+secret)))
	return b.next()
}

// scram authenticates with SCRAM-SHA-256.
func (b *binder) scram(name, secret string) *element.Element {
	client, err := scram.SHA256.NewClient(name, secret, "")
	must(b.t, err)
	conv := client.NewConversation()
	out, err := conv.Step("")
	must(b.t, err)
	b.write("<auth xmlns='%s' mechanism='SCRAM-SHA-256'>%s</auth>", stream.NSSASL, base64.StdEncoding.EncodeToString([]byte(out)))
	for {
		el := b.next()
		if el.Name.Local == "failure" {
			return el
		}
		in, err := base64.StdEncoding.DecodeString(el.Text())
		must(b.t, err)
		out, err := conv.Step(string(in))
		must(b.t, err)
		if el.Name.Local == "success" {
			return el
		}
		b.write("<response xmlns='%s'>%s</response>", stream.NSSASL, base64.StdEncoding.EncodeToString([]byte(out)))
	}
}

// begin restarts the stream after authentication.
func (b *binder) begin(server, domain string) *binder {
	b.t.Helper()
	b.r.Restart()
	if f := b.open(server, domain); f.Child(stream.NSComponentBind, "bind").Child("", "required") == nil {
		b.t.Fatalf("features: %s", f)
	}
	return b
}

// ask sends an iq that binds or unbinds; it returns "" or the condition of the error.
func (b *binder) ask(what, domain string) string {
	b.t.Helper()
	b.n++
	b.write("<iq type='set' id='b%d'><%s xmlns='%s'><hostname>%s</hostname></%[2]s></iq>", b.n, what, stream.NSComponentBind, domain)
	el := b.want(stream.NSClient, "iq")
	if el.Attr("id") != fmt.Sprintf("b%d", b.n) {
		b.t.Fatalf("got %s", el)
	}
	if el.Attr("type") == "error" {
		return el.Child("", "error").First().Name.Local
	}
	if got := el.Child(stream.NSComponentBind, "bind").ChildText(stream.NSComponentBind, "hostname"); what == "bind" && got != domain {
		b.t.Errorf("bound %q, want %q", got, domain)
	}
	return ""
}

// message waits for a message with a body.
func (b *binder) message(to, body string) {
	b.t.Helper()
	for {
		if el := b.next(); el.Name.Local == "message" && el.Attr("to") == to && el.ChildText("", "body") == body {
			return
		}
	}
}

// ended waits for a stream error.
func (b *binder) ended(condition string) {
	b.t.Helper()
	for {
		el, err := b.r.Next()
		if err != nil {
			b.t.Fatalf("the stream ended with %v, want %s", err, condition)
		}
		if el.Is(stream.NSStream, "error") {
			if el.Child(stream.NSStreams, condition) == nil {
				b.t.Errorf("got %s, want %s", el, condition)
			}
			return
		}
	}
}

// A component that authenticates with SASL binds several domains and gives one up.
//
// spec: XEP-0225 §4
func TestComponentBind(t *testing.T) {
	a, addr := withComponents(t, newWorld(), "a.test")
	alice := a.connect("alice")
	b := dialBinder(t, addr, "a.test", "echo.a.test")
	if el := b.scram("echo.a.test", "a secret"); el.Name.Local != "success" {
		t.Fatalf("got %s", el)
	}
	b.begin("a.test", "echo.a.test")
	for _, x := range []struct{ what, domain, want string }{
		{"unbind", "echo.a.test", "item-not-found"},
		{"bind", "echo.a.test", ""},
		{"bind", "echo.a.test", "conflict"},
		{"bind", "second.a.test", ""},
		{"bind", "third.a.test", "not-allowed"},
		{"bind", "a.test", "not-allowed"},
		{"bind", "echo.a.test/one", "not-allowed"},
		{"bind", "user@echo.a.test", "bad-request"},
		{"bind", "", "bad-request"},
		{"rebind", "echo.a.test", "bad-request"},
	} {
		if got := b.ask(x.what, x.domain); got != x.want {
			t.Errorf("%s %q: %q, want %q", x.what, x.domain, got, x.want)
		}
	}
	for _, from := range []string{"user@echo.a.test", "user@second.a.test"} {
		alice.Send(parse(t, `<presence type='subscribe' to='`+from+`'/>`))
		for el := b.next(); el.Attr("type") != "subscribe" || el.Attr("to") != from; el = b.next() {
		}
		b.write("<presence type='subscribed' from='%s' to='alice@a.test'/>", from)
		stanza(alice, "presence", "subscribed", from, "", "")
		b.write("<message type='chat' from='%s' to='alice@a.test'><body>from %[1]s</body></message>", from)
		body(alice, from, "from "+from)
		alice.Send(parse(t, `<message type='chat' to='`+from+`'><body>to `+from+`</body></message>`))
		b.message(from, "to "+from)
	}
	// What is said to a domain that was given up waits until it is bound again.
	if got := b.ask("unbind", "second.a.test"); got != "" {
		t.Fatalf("unbinding: %s", got)
	}
	alice.Send(parse(t, `<message type='chat' to='user@second.a.test'><body>later</body></message>`))
	alice.Sync()
	alice.Send(parse(t, `<message type='chat' to='user@echo.a.test'><body>now</body></message>`))
	for {
		if el := b.next(); el.ChildText("", "body") == "later" {
			t.Fatalf("the component was sent %s", el)
		} else if el.ChildText("", "body") == "now" {
			break
		}
	}
	b.write("<iq type='set' id='again'><bind xmlns='%s'><hostname>second.a.test</hostname></bind></iq>", stream.NSComponentBind)
	b.message("user@second.a.test", "later")
	b.write("<message type='chat' from='user@third.a.test' to='alice@a.test'><body>forged</body></message>")
	b.ended("invalid-from")
}

// Who has not the secret is sent away, and so is who speaks before a domain is bound; of two the newer is taken.
//
// spec: XEP-0225 §3
func TestComponentBindHostile(t *testing.T) {
	_, addr := withComponents(t, newWorld(), "a.test")
	b := dialBinder(t, addr, "a.test", "echo.a.test")
	for _, x := range []struct{ authzid, name, secret, want string }{
		{"", "echo.a.test", "a guess", "not-authorized"},
		{"", "a.test", "", "malformed-request"},
		{"second.a.test", "echo.a.test", "a secret", "invalid-authzid"},
		{"", "alice@echo.a.test", "a secret", "not-authorized"},
	} {
		if el := b.plain(x.authzid, x.name, x.secret); el.First().Name.Local != x.want {
			t.Errorf("%v: got %s", x, el)
		}
	}
	if el := b.plain("echo.a.test", "echo.a.test", "a secret"); el.Name.Local != "success" {
		t.Fatalf("got %s", el)
	}
	b.begin("a.test", "echo.a.test")
	b.write("<presence from='echo.a.test' to='alice@a.test'/>")
	b.ended("invalid-from")
	if el := dialBinder(t, addr, "a.test", "echo.a.test").scram("echo.a.test", "a guess"); el.First().Name.Local != "not-authorized" {
		t.Errorf("got %s", el)
	}

	connect := func() *binder {
		b := dialBinder(t, addr, "a.test", "echo.a.test")
		b.plain("", "echo.a.test", "a secret")
		b.begin("a.test", "echo.a.test")
		if got := b.ask("bind", "echo.a.test"); got != "" {
			t.Fatal(got)
		}
		return b
	}
	first := connect()
	if got := first.ask("bind", "second.a.test"); got != "" {
		t.Fatal(got)
	}
	second := connect()
	first.ended("conflict")
	// The domain that only the first had is free.
	if got := second.ask("unbind", "second.a.test"); got != "item-not-found" {
		t.Error(got)
	}
	if _, _, err := shake(t, addr, "echo.a.test", "a secret"); err != nil && err != io.EOF {
		t.Errorf("a component of the other kind: %v", err)
	}
	second.ended("conflict")
}
