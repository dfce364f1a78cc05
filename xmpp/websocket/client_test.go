package websocket_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"

	"parley/hub/hubtest"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/websocket"
	"parley/xmpp/xmpptest"
)

const framing = "xmlns='" + stream.NSFraming + "'"

// patience is how long a test waits for what must come before it fails: no assertion depends on it.
const patience = 30 * time.Second

// site is a whole server with its WebSocket.
type site struct {
	*xmpptest.Server
	http *httptest.Server
	end  func() // the streams
}

// open starts a server; change is applied to its streams.
func open(t testing.TB, change func(*stream.Clients)) *site {
	t.Helper()
	var streams *stream.Clients
	s := &site{Server: xmpptest.New(t, xmpptest.Streams(func(c *stream.Clients) {
		c.Settings.CloseTimeout = time.Second
		if change != nil {
			change(c)
		}
		streams = c
	}))}
	mux := http.NewServeMux()
	s.http = httptest.NewServer(mux)
	door := websocket.New(websocket.Config{Streams: streams, Home: hubtest.Domain, Log: slog.New(slog.DiscardHandler),
		BaseURL: func(string) string { return s.http.URL }})
	door.Register(mux)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- door.Run(ctx) }()
	s.end = cancel
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		s.http.Close()
	})
	return s
}

func (s *site) url() string { return "ws" + strings.TrimPrefix(s.http.URL, "http") + websocket.Path }

// client is a WebSocket client that writes what the test says, right or wrong.
type client struct {
	t   testing.TB
	c   *ws.Conn
	ctx context.Context
}

func (s *site) dial(t testing.TB) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c, _, err := ws.Dial(ctx, s.url(), &ws.DialOptions{
		Subprotocols: []string{stream.Subprotocol},
		HTTPHeader:   http.Header{"Origin": {"https://client.example.com"}}, // any site's
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() })
	if c.Subprotocol() != stream.Subprotocol {
		t.Fatalf("subprotocol %q", c.Subprotocol())
	}
	return &client{t: t, c: c, ctx: ctx}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if err := c.c.Write(c.ctx, ws.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

// next reads one message, which must be a document that stands alone.
func (c *client) next() *element.Element {
	c.t.Helper()
	typ, b, err := c.c.Read(c.ctx)
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	if typ != ws.MessageText || len(b) == 0 || b[0] != '<' {
		c.t.Fatalf("message of type %v: %q", typ, b)
	}
	el, err := element.Parse(b, element.DefaultLimits)
	if err != nil {
		c.t.Fatalf("%v: %s", err, b)
	}
	return el
}

// wait reads until an element comes that has the name, in any namespace, and the attributes.
func (c *client) wait(name string, attrs ...string) *element.Element {
	c.t.Helper()
	for {
		el := c.next()
		ok := el.Name.Local == name
		for i := 0; i+1 < len(attrs); i += 2 {
			ok = ok && el.Attr(attrs[i]) == attrs[i+1]
		}
		if ok {
			return el
		}
		if el.Is(stream.NSFraming, "close") {
			c.t.Fatalf("the stream was closed before <%s/> came", name)
		}
	}
}

// open opens a stream and returns the features.
func (c *client) open() *element.Element {
	c.t.Helper()
	c.send("<open %s to='example.org' version='1.0'/>", framing)
	if h := c.next(); !h.Is(stream.NSFraming, "open") || h.Attr("from") != "example.org" || h.Attr("id") == "" || h.Attr("version") != "1.0" {
		c.t.Fatalf("header %s", h)
	}
	f := c.next()
	if !f.Is(stream.NSStream, "features") {
		c.t.Fatalf("features %s", f)
	}
	return f
}

// login authenticates and returns the features that follow.
func (c *client) login(name string) *element.Element {
	c.t.Helper()
	c.open()
	c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", stream.NSSASL,
		base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+hubtest.Password)))
	if el := c.next(); !el.Is(stream.NSSASL, "success") {
		c.t.Fatalf("got %s", el)
	}
	return c.open()
}

func (c *client) bind(resource string) string {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>",
		resource)
	return c.wait("iq", "id", "b", "type", "result").Child("urn:ietf:params:xml:ns:xmpp-bind", "bind").ChildText("", "jid")
}

// wantError reads a stream error, the end of the stream and that of the WebSocket, each in its order.
func (c *client) wantError(condition stream.Condition) {
	c.t.Helper()
	el := c.wait("error")
	if !el.Is(stream.NSStream, "error") || el.Child(stream.NSStreams, string(condition)) == nil {
		c.t.Fatalf("got %s, want the stream error %s", el, condition)
	}
	if el := c.next(); !el.Is(stream.NSFraming, "close") {
		c.t.Fatalf("after an error: %s", el)
	}
	_ = c.c.Write(c.ctx, ws.MessageText, []byte("<close "+framing+"/>")) // for which the server waits, but not for ever
	c.wantEnd()
}

func (c *client) wantEnd() {
	c.t.Helper()
	if _, b, err := c.c.Read(c.ctx); ws.CloseStatus(err) != ws.StatusNormalClosure {
		c.t.Fatalf("after <close/>: %q, %v", b, err)
	}
}
