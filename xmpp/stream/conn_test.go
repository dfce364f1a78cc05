package stream_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// loggedIn gives the server's end of a stream and the client's. The server's lasts until the test ends.
func loggedIn(t testing.TB, change func(*stream.Clients)) (*stream.Conn, *peer) {
	t.Helper()
	conns := make(chan *stream.Conn, 1)
	addr := listen(t, clients(t, func(s *stream.Clients) {
		if change != nil {
			change(s)
		}
		s.Handle = func(ctx context.Context, c *stream.Conn) {
			conns <- c
			<-ctx.Done()
		}
	}).Serve)
	p, _ := secured(t, addr)
	if el := p.auth("PLAIN", "\x00alice\x00secret"); !el.Is(stream.NSSASL, "success") {
		t.Fatalf("got %s", el)
	}
	p.open("example.org")
	return <-conns, p
}

// A client that does not read costs a bounded queue, and the sender never waits.
func TestSlowReader(t *testing.T) {
	c, p := loggedIn(t, func(s *stream.Clients) { s.Settings.QueueBytes = 64 << 10 })
	m := element.NewText(stream.NSClient, "message", strings.Repeat("x", 4000))
	sent := 0
	var err error
	for ; sent < 1<<20 && err == nil; sent++ {
		err = c.Send(m.SetAttr("id", "m"))
	}
	if !errors.Is(err, stream.ErrQueueFull) {
		t.Fatalf("after %d: %v", sent, err)
	}
	if q := c.Queued(); q > 64<<10 {
		t.Errorf("%d bytes queued", q)
	}
	for range sent - 1 { // what was accepted arrives, whole and in order
		if el := p.next(); el.Attr("id") != "m" || len(el.Text()) != 4000 {
			t.Fatalf("got %s", el)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(m); err != nil {
		t.Errorf("after the client has caught up: %v", err)
	}
	p.next()
}

func TestNextObeysItsContext(t *testing.T) {
	c, p := loggedIn(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("Next: %v", err)
	}
	p.write("<presence/>")
	if el, err := c.Next(context.Background()); err != nil || el.Name.Local != "presence" {
		t.Fatalf("after a cancelled Next: %v, %v", el, err)
	}
	c.SetIdleTimeout(time.Millisecond)
	if _, err := c.Next(context.Background()); !errors.Is(err, stream.ErrIdle) {
		t.Fatalf("idle: %v", err)
	}
	c.Close(stream.ErrIdle)
	p.wantError(stream.ConnectionTimeout)
	if err := c.Send(element.New(stream.NSClient, "presence")); err == nil {
		t.Error("Send on a closed stream")
	}
	<-c.Done()
}

func TestCloseDeliversWhatWasQueued(t *testing.T) {
	c, p := loggedIn(t, nil)
	for range 100 {
		if err := c.Send(element.NewText(stream.NSClient, "message", strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	go c.Close(stream.Errorf(stream.Conflict, "replaced"))
	for range 100 {
		p.next()
	}
	p.wantError(stream.Conflict)
}

func TestErrorsFromThePeer(t *testing.T) {
	c, p := loggedIn(t, nil)
	p.write("<stream:error><conflict xmlns='" + stream.NSStreams + "'/><text xmlns='" + stream.NSStreams + "'>x</text></stream:error>")
	_, err := c.Next(context.Background())
	if se, ok := errors.AsType[*stream.Error](err); !ok || !se.FromPeer || se.Condition != stream.Conflict || se.Text != "x" {
		t.Fatalf("Next: %v", err)
	}
	c.Close(err)
	if el, err := p.r.Next(); err != io.EOF {
		t.Fatalf("an error was answered with %v, %v", el, err)
	}
}

func TestLostConnection(t *testing.T) {
	c, p := loggedIn(t, nil)
	_ = p.c.Close()
	if _, err := c.Next(context.Background()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("Next: %v", err)
	}
}

func FuzzNegotiation(f *testing.F) {
	addr := listen(f, clients(f, func(s *stream.Clients) {
		s.Settings.NegotiationTimeout = time.Second
		s.Settings.CloseTimeout = time.Millisecond
		s.Settings.MaxPendingPerIP = 1000
	}).Serve)
	const head = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>"
	f.Add(head)
	f.Add(head + "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	f.Add(head + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth></stream:stream>")
	f.Add("<stream:stream xmlns:stream='u'/>")
	f.Add("\x16\x03\x01")
	f.Fuzz(func(t *testing.T, in string) {
		p := dialPeer(t, addr)
		_, _ = p.c.Write([]byte(in))
		_ = p.c.(interface{ CloseWrite() error }).CloseWrite()
		h, err := p.r.Header() // the answer is well-formed, whatever was asked
		if err != nil {
			if pe, ok := errors.AsType[*element.ParseError](err); ok {
				t.Fatalf("ill-formed answer: %v", pe)
			}
			return
		}
		if !h.Is(stream.NSStream, "stream") {
			t.Fatalf("answer %s", h)
		}
		for err == nil {
			var el *element.Element
			if el, err = p.r.Next(); el.Is(stream.NSTLS, "proceed") {
				return
			}
			if el.Is(stream.NSSASL, "success") {
				t.Fatal("authenticated in the clear")
			}
		}
		if pe, ok := errors.AsType[*element.ParseError](err); ok {
			t.Fatalf("ill-formed answer: %v", pe)
		}
	})
}

// BenchmarkIdle measures what an idle stream holds on the server's side, TLS and the client's own share included. Run it with -benchtime=200x.
func BenchmarkIdle(b *testing.B) {
	conns := make(chan *stream.Conn, 1)
	addr := listen(b, clients(b, func(s *stream.Clients) {
		s.Handle = func(ctx context.Context, c *stream.Conn) {
			conns <- c
			_, _ = c.Next(ctx)
		}
	}).Serve)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range b.N {
		p, _ := secured(b, addr)
		p.auth("PLAIN", "\x00alice\x00secret")
		p.open("example.org")
		<-conns
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "heap-B/stream")
	b.ReportMetric(float64(after.StackInuse-before.StackInuse)/float64(b.N), "stack-B/stream")
}
