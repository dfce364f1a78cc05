package websocket_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ws "github.com/coder/websocket"

	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/websocket"
)

// What is wrong with a message is told in a stream error, before authentication and after it, and the server stays up.
func TestHostileMessages(t *testing.T) {
	s := open(t, func(c *stream.Clients) {
		c.Settings.Limits = element.DefaultLimits
		c.Settings.Limits.Bytes = 64 << 10
	})
	s.Account("alice")
	big := strings.Repeat("x", 80<<10)
	deep := strings.Repeat("<x xmlns='urn:x'>", 100) + strings.Repeat("</x>", 100)
	many := "<m xmlns='urn:x'>" + strings.Repeat("<x/>", 5000) + "</m>"
	for name, c := range map[string]struct {
		message string
		want    stream.Condition
	}{
		"huge":                  {"<message xmlns='jabber:client'><body>" + big + "</body></message>", stream.PolicyViolation},
		"huge and unfinished":   {"<message xmlns='jabber:client'><body>" + big, stream.PolicyViolation},
		"deep":                  {deep, stream.PolicyViolation},
		"many":                  {many, stream.PolicyViolation},
		"empty":                 {"", stream.BadFormat},
		"white space":           {" ", stream.BadFormat},
		"white space before":    {" <presence xmlns='jabber:client'/>", stream.BadFormat},
		"text":                  {"hello", stream.BadFormat},
		"two elements":          {"<presence xmlns='jabber:client'/><presence xmlns='jabber:client'/>", stream.NotWellFormed},
		"half an element":       {"<presence xmlns='jabber:client'", stream.NotWellFormed},
		"open tag only":         {"<presence xmlns='jabber:client'>", stream.NotWellFormed},
		"end tag only":          {"</presence>", stream.NotWellFormed},
		"stream tag of TCP":     {"<stream:stream xmlns='jabber:client' xmlns:stream='" + stream.NSStream + "' to='example.org' version='1.0'>", stream.NotWellFormed},
		"end tag of TCP":        {"</stream:stream>", stream.NotWellFormed},
		"unbound prefix":        {"<stream:features/>", stream.NotWellFormed},
		"bytes that are no UTF": {"<presence xmlns='jabber:client' id='\xff\xfe'/>", stream.NotWellFormed},
		"comment":               {"<!-- x --><presence xmlns='jabber:client'/>", stream.RestrictedXML},
		"processing":            {"<?x y?><presence xmlns='jabber:client'/>", stream.RestrictedXML},
		"document type":         {"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><presence xmlns='jabber:client'/>", stream.RestrictedXML},
		"entity":                {"<presence xmlns='jabber:client'>&a;</presence>", stream.RestrictedXML},
		"unknown framing":       {"<reopen " + framing + "/>", stream.BadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := s.dial(t)
			a.open()
			a.send("%s", c.message)
			a.wantError(c.want)

			a = s.dial(t)
			a.login("alice")
			a.send("%s", c.message)
			a.wantError(c.want)
		})
	}
}

func TestHostileStanzas(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	for name, c := range map[string]struct {
		message string
		want    stream.Condition
	}{
		// No namespace is inherited from an element that opened the stream.
		//
		// spec: RFC 7395 §3.3.3
		"no namespace":       {"<presence/>", stream.InvalidNamespace},
		"of servers":         {"<presence xmlns='jabber:server'/>", stream.InvalidNamespace},
		"no stanza":          {"<speech xmlns='jabber:client'/>", stream.UnsupportedStanzaType},
		"a stream once more": {"<open " + framing + " to='example.org' version='1.0'/>", stream.BadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := s.dial(t)
			a.login("alice")
			a.bind("")
			a.send("%s", c.message)
			a.wantError(c.want)
		})
	}
}

// Errors in what opens the stream come after the server's own header.
//
// spec: RFC 7395 §3.5
func TestHostileOpening(t *testing.T) {
	s := open(t, nil)
	for name, c := range map[string]struct {
		message string
		want    stream.Condition
	}{
		"other host":         {"<open " + framing + " to='example.com' version='1.0'/>", stream.HostUnknown},
		"no host":            {"<open " + framing + " version='1.0'/>", stream.HostUnknown},
		"no version":         {"<open " + framing + " to='example.org'/>", stream.UnsupportedVersion},
		"other namespace":    {"<open xmlns='urn:x' to='example.org' version='1.0'/>", stream.InvalidNamespace},
		"no namespace":       {"<open to='example.org' version='1.0'/>", stream.InvalidNamespace},
		"stanza":             {"<presence xmlns='jabber:client'/>", stream.InvalidNamespace},
		"not an opening":     {"<x " + framing + "/>", stream.BadFormat},
		"with a declaration": {"<?xml version='1.0'?><open " + framing + " to='example.com' version='1.0'/>", stream.HostUnknown},
		"unfinished":         {"<open " + framing + " to='example.org' version='1.0'>", stream.NotWellFormed},
		"huge":               {"<open " + framing + " to='" + strings.Repeat("x", 20<<10) + "' version='1.0'/>", stream.PolicyViolation},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := s.dial(t)
			a.send("%s", c.message)
			if h := a.next(); !h.Is(stream.NSFraming, "open") || h.Attr("id") == "" || h.Attr("from") != "" {
				t.Fatalf("header %s", h)
			}
			a.wantError(c.want)
		})
	}
	t.Run("closed at once", func(t *testing.T) {
		a := s.dial(t)
		a.send("<close %s/>", framing)
		a.wantEnd()
	})
	t.Run("stanza before authentication", func(t *testing.T) {
		a := s.dial(t)
		a.open()
		a.send("<message xmlns='jabber:client' to='alice@example.org'><body>x</body></message>")
		a.wantError(stream.NotAuthorized)
	})
	t.Run("opened twice", func(t *testing.T) {
		a := s.dial(t)
		a.open()
		a.send("<auth xmlns='%s' mechanism='PLAIN'>AGFsaWNlAHdyb25n</auth>", stream.NSSASL)
		if el := a.next(); !el.Is(stream.NSSASL, "failure") {
			t.Fatalf("a wrong password: %s", el)
		}
		a.send("<open %s to='example.org' version='1.0'/>", framing)
		a.wantError(stream.BadFormat)
	})
}

// Messages may come in fragments with pings in between; binary ones may not come at all.
func TestFrames(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	c := s.dial(t)
	c.login("alice")
	c.bind("web")
	w, err := c.c.Writer(c.ctx, ws.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []byte("<iq xmlns='jabber:client' type='get' id='f' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>") {
		if _, err := w.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	ping := make(chan error, 1)
	go func() { ping <- c.c.Ping(c.ctx) }()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.wait("iq", "id", "f", "type", "result")
	go func() { _, _, _ = c.c.Reader(c.ctx) }() // takes the pong
	if err := <-ping; err != nil {
		t.Errorf("ping: %v", err)
	}

	b := s.dial(t)
	b.login("alice")
	if err := b.c.Write(b.ctx, ws.MessageBinary, []byte("<presence xmlns='jabber:client'/>")); err != nil {
		t.Fatal(err)
	}
	b.wantError(stream.BadFormat)
}

// raw is a connection after the handshake, on which anything may be written.
func (s *site) raw(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", websocket.Path)
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", res, err)
	}
	return c, r
}

// frame is one as a client writes it, with a mask of zeros; length is what it says, which may be a lie.
func frame(first byte, length uint64, payload string) []byte {
	b := []byte{first}
	switch {
	case length < 126:
		b = append(b, 0x80|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), length)
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// Frames that WebSocket forbids end the connection, and no other.
//
// spec: RFC 6455 §5.1
// spec: RFC 6455 §5.5
func TestFramingErrors(t *testing.T) {
	s := open(t, nil)
	other := s.dial(t)
	const hello = "<open " + framing + " to='example.org' version='1.0'/>"
	for name, b := range map[string][]byte{
		"without a mask":           append([]byte{0x81, byte(len(hello))}, hello...),
		"reserved bits":            frame(0xC1, uint64(len(hello)), hello),
		"unknown operation":        frame(0x83, 0, ""),
		"unknown control":          frame(0x8B, 0, ""),
		"continuation of nothing":  frame(0x80, uint64(len(hello)), hello),
		"text within fragments":    append(frame(0x01, 5, "<open"), frame(0x81, 3, "<x>")...),
		"fragmented ping":          frame(0x09, 1, "x"),
		"long ping":                frame(0x89, 200, strings.Repeat("x", 200)),
		"close of one byte":        frame(0x88, 1, "x"),
		"close with a bad code":    frame(0x88, 2, "\x00\x01"),
		"length of 2^63":           frame(0x81, 1<<63, "<"),
		"length beyond all":        append(frame(0x81, 1<<62, "<"), bytes.Repeat([]byte("x"), 64<<10)...),
		"fragments without end":    append(frame(0x01, 1, "<"), bytes.Repeat(frame(0x00, 1, "x"), 20<<10)...),
		"empty fragments, a close": append(frame(0x01, 0, ""), append(bytes.Repeat(frame(0x00, 0, ""), 1000), frame(0x88, 0, "")...)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, r := s.raw(t)
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil && isTimeout(err) {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
	t.Run("others", func(t *testing.T) { other.open() })
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// Who does not authenticate in time is cut off, whatever keeps the connection busy meanwhile.
func TestTimeToAuthenticate(t *testing.T) {
	s := open(t, func(c *stream.Clients) { c.Settings.NegotiationTimeout = 300 * time.Millisecond })
	t.Run("silent", func(t *testing.T) {
		c := s.dial(t)
		c.open()
		c.wantError(stream.ConnectionTimeout)
	})
	t.Run("half a message", func(t *testing.T) {
		c, r := s.raw(t)
		_, _ = c.Write(frame(0x01, 1, "<"))
		if _, err := io.Copy(io.Discard, r); err != nil && isTimeout(err) {
			t.Error("the connection is still open")
		}
	})
	t.Run("pings", func(t *testing.T) {
		c, r := s.raw(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := c.Write(frame(0x89, 0, "")); err != nil {
					return
				}
			}
		}()
		if _, err := io.Copy(io.Discard, r); err != nil && isTimeout(err) {
			t.Error("the connection is still open")
		}
		_ = c.Close()
		<-done
	})
}

// Who is pinged and answers stays; who has gone without a word is noticed, and its session waits for it.
func TestKeepAlive(t *testing.T) {
	handled := make(chan error, 1)
	s := open(t, func(c *stream.Clients) {
		c.Settings.PingInterval, c.Settings.WriteTimeout = 20*time.Millisecond, 5*time.Second
		c.Handle = func(ctx context.Context, c *stream.Conn) {
			_, err := c.Next(ctx)
			handled <- err
		}
	})
	s.Account("alice")
	pings := make(chan bool, 100)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var silent atomic.Bool
	conn, _, err := ws.Dial(ctx, s.url(), &ws.DialOptions{Subprotocols: []string{stream.Subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			select {
			case pings <- true:
			default:
			}
			return !silent.Load()
		}})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, c: conn, ctx: ctx}
	c.login("alice")
	go func() { _, _, _ = conn.Reader(ctx) }() // answers pings
	for range 10 {                             // each comes when the one before was answered
		<-pings
	}
	select {
	case err := <-handled:
		t.Fatalf("who answers was cut off: %v", err)
	default:
	}
	silent.Store(true)
	select {
	case err := <-handled:
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("who does not answer: %v", err)
		}
	case <-ctx.Done():
		t.Error("nobody noticed the silence")
	}
}

// One address has only so many connections that have yet to authenticate; TCP counts too.
func TestTooManyUnauthenticated(t *testing.T) {
	s := open(t, func(c *stream.Clients) { c.Settings.MaxPendingPerIP = 3 })
	s.Account("alice")
	var some []*client
	for range 3 {
		some = append(some, s.dial(t))
	}
	_, res, err := ws.Dial(some[0].ctx, s.url(), &ws.DialOptions{Subprotocols: []string{stream.Subprotocol}})
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Fatalf("the fourth: %v %v", res, err)
	}
	proxied := http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Proto": {"https"}}
	c, _, err := ws.Dial(some[0].ctx, s.url(), &ws.DialOptions{Subprotocols: []string{stream.Subprotocol}, HTTPHeader: proxied})
	if err != nil {
		t.Fatalf("by a proxy, from elsewhere: %v", err)
	}
	_ = c.CloseNow()
	some[0].login("alice")
	s.dial(t).open()
}
