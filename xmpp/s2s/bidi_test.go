package s2s_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// TestBidi has a server that cannot be dialled answer on the stream that it opened.
//
// spec: XEP-0288 §2.2
func TestBidi(t *testing.T) {
	w := newWorld()
	a, b := newNode(t, w, "a.test", nil), newNode(t, w, "b.test", nil)
	alice, bob := a.connect("alice"), b.connect("bob")
	w.fail("b.test", errors.New("nobody may look this up"))
	bob.Send(parse(t, `<iq type='get' id='d' to='a.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`))
	stanza(bob, "iq", "result", "a.test", "http://jabber.org/protocol/disco#info", "query")
	befriend(t, bob, alice)
	alice.Send(parse(t, `<message type='chat' id='m1' to='bob@b.test'><body>on your stream</body></message>`))
	body(bob, "alice@a.test", "on your stream")
	bob.Send(parse(t, `<message type='chat' id='m2' to='alice@a.test'><body>heard</body></message>`))
	body(alice, "bob@b.test", "heard")
}

// TestBidiProsody is the same with Prosody at the other end, each side having opened the stream once.
func TestBidiProsody(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	p := newProsody(t, w)
	p.account("bob")
	bob := p.connect("bob")
	alice := a.connect("alice")
	befriend(t, bob, alice)
	alice.Send(parse(t, `<message type='chat' id='m1' to='bob@b.test'><body>hello</body></message>`))
	body(bob, "alice@a.test", "hello")
	bob.Send(parse(t, `<message type='chat' id='m2' to='alice@a.test'><body>hello yourself</body></message>`))
	body(alice, "bob@b.test", "hello yourself")
	log, err := os.ReadFile(filepath.Join(p.dir, "log"))
	must(t, err)
	if !strings.Contains(string(log), "bidirectional stream") {
		t.Error("Prosody made no stream bidirectional")
	}
}

// TestBidiHostile: what comes back on a stream is from the domain that it was opened to, or ends it; and one who has not said that it
// takes stanzas gets none.
func TestBidiHostile(t *testing.T) {
	for from, passes := range map[string]bool{"bob@b.test": true, "bob@c.test": false, "alice@a.test": false} {
		t.Run(from, func(t *testing.T) {
			w := newWorld()
			a := newNode(t, w, "a.test", nil)
			alice := a.connect("alice")
			ln := listen(t)
			t.Cleanup(func() { _ = ln.Close() })
			w.set(ln.Addr().String(), "b.test")
			outcome := make(chan string, 1)
			go func() { outcome <- returner(t, ln, from) }()
			alice.Send(parse(t, `<iq type='get' id='d' to='b.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`))
			if passes {
				stanza(alice, "message", "headline", from, "", "")
				return
			}
			if got := <-outcome; got != "invalid-from" {
				t.Errorf("the stream went on: %s", got)
			}
			alice.Sync()
			if el := alice.Has(func(el *element.Element) bool { return el.Attr("id") == "forged" }); el != nil {
				t.Errorf("received %s", el)
			}
		})
	}
}

// returner is a server b.test that offers bidi, authenticates who comes, and sends one message back; it returns the error that it gets.
func returner(t testing.TB, ln net.Listener, from string) string {
	raw, err := ln.Accept()
	if err != nil {
		return err.Error()
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(patience))
	cert := ca.Issue(t, "b.test")
	c, open := raw, "<stream:stream xmlns='jabber:server' xmlns:stream='"+stream.NSStream+"' xmlns:db='jabber:server:dialback' "+
		"from='b.test' to='a.test' id='x' version='1.0'><stream:features>%s</stream:features>"
	for _, step := range []string{
		"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>",
		"<bidi xmlns='urn:xmpp:features:bidi'/><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>",
		"",
	} {
		r := element.NewReader(c, element.DefaultLimits)
		if _, err := r.Header(); err != nil {
			return err.Error()
		}
		fmt.Fprintf(c, open, step)
		for step != "" {
			el, err := r.Next()
			if err != nil {
				return err.Error()
			}
			if el.Name.Local == "starttls" {
				fmt.Fprint(c, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
				c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
				break
			}
			if el.Name.Local == "auth" {
				fmt.Fprint(c, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
				break
			}
		}
		if step != "" {
			continue
		}
		fmt.Fprintf(c, "<message from='%s' to='alice@a.test/here' type='headline' id='forged'><body>back</body></message>", from)
		for {
			el, err := r.Next()
			if err != nil {
				return err.Error()
			}
			if el.Is(stream.NSStream, "error") {
				return el.First().Name.Local
			}
		}
	}
	return ""
}
