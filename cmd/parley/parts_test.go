package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/config"
)

// pipeListener hands out connections whose remote address the test chooses.
type pipeListener struct {
	conns chan net.Conn
}

func (l *pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *pipeListener) Close() error   { close(l.conns); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

type fromConn struct {
	net.Conn
	from   string
	closed chan struct{}
	once   sync.Once
}

func (c *fromConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fromConn) Close() error { c.once.Do(func() { close(c.closed) }); return nil }

func TestLimitPerIP(t *testing.T) {
	var open float64
	var denied int
	inner := &pipeListener{conns: make(chan net.Conn, 20)}
	ln := limitPerIP(inner, 2, func(d float64) { open += d }, func() { denied++ })
	dial := func(from string) *fromConn {
		c := &fromConn{from: from, closed: make(chan struct{})}
		inner.conns <- c
		return c
	}
	accept := func() net.Conn {
		t.Helper()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	dial("198.51.100.1:1")
	dial("198.51.100.1:2")
	third := dial("198.51.100.1:3")
	dial("198.51.100.2:1")
	first := accept()
	accept()
	if got := accept().RemoteAddr().String(); got != "198.51.100.2:1" {
		t.Errorf("after two of one address came %s", got)
	}
	<-third.closed
	if open != 3 || denied != 1 {
		t.Errorf("%v open, %d denied", open, denied)
	}
	first.Close()
	first.Close() // a second time counts nothing
	dial("198.51.100.1:4")
	dial("198.51.100.1:5")
	dial("198.51.100.3:1")
	accept()
	if got := accept().RemoteAddr().String(); got != "198.51.100.3:1" {
		t.Errorf("a place that was left let two in: %s", got)
	}

	// One subscriber of IPv6 is a /64; loopback is not limited.
	for _, from := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "[2001:db8:0:1::1]:1"} {
		dial(from)
	}
	accept()
	accept()
	if got := accept().RemoteAddr().String(); got != "[2001:db8:0:1::1]:1" {
		t.Errorf("a third of one /64 is let in: %s", got)
	}
	for range 5 {
		dial("127.0.0.1:1")
		accept()
	}
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestSteadyBody(t *testing.T) {
	r := &steadyReader{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 8192))), deadline: time.Unix(0, 0), ctl: http.NewResponseController(&deadlines{})}
	if _, err := io.ReadFull(r, make([]byte, 8192)); err != nil {
		t.Fatal(err)
	}
	if got := r.deadline.Sub(time.Unix(0, 0)).Round(time.Millisecond); got != 2*time.Second {
		t.Errorf("8,192 bytes moved the deadline by %v", got)
	}
	w := &deadlines{}
	r = &steadyReader{ReadCloser: io.NopCloser(strings.NewReader("")), deadline: time.Unix(9, 0), ctl: http.NewResponseController(w)}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if len(w.set) != 2 || !w.set[0].Equal(time.Unix(9, 0)) || !w.set[1].IsZero() {
		t.Errorf("the deadlines were %v", w.set)
	}
}

// deadlines is a ResponseWriter that notes the read deadlines.
type deadlines struct {
	httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

// A client whose body stops coming is let go; the handler sees an error.
func TestStalledBody(t *testing.T) {
	failed := make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := r.Body.(*steadyReader)
		if !ok {
			t.Errorf("the body is a %T", r.Body)
			return
		}
		b.deadline = time.Now().Add(-time.Second) // as if the grace were over
		_, err := io.ReadAll(r.Body)
		failed <- err
	})
	srv := httptest.NewServer(steadyBody(h))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
	if err := <-failed; err == nil {
		t.Error("the body was read to its end")
	}
}

func TestMetrics(t *testing.T) {
	var log strings.Builder
	m := newMetrics(slog.New(slog.NewTextHandler(&log, nil)))
	m.Count("losses", "reaction", "xmpp")
	m.Count("losses", "reaction", "xmpp")
	m.Count("losses", "too few")
	m.Count("losses", "too few")
	m.Count("unheard_of")
	w := httptest.NewRecorder()
	m.handler(false).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	found := false
	for s := bufio.NewScanner(w.Body); s.Scan(); {
		found = found || s.Text() == `parley_losses_total{feature="reaction",network="xmpp"} 2`
	}
	if !found {
		t.Errorf("the count is not there:\n%s", w.Body)
	}
	if n := strings.Count(log.String(), "not in the table"); n != 2 {
		t.Errorf("mistakes were logged %d times:\n%s", n, log.String())
	}
}

func TestLogger(t *testing.T) {
	var b strings.Builder
	log := newLogger(&b, config.Log{Level: config.LogWarn, Format: config.LogJSON})
	log.Info("quiet")
	log.Warn("loud")
	if s := b.String(); strings.Contains(s, "quiet") || !strings.HasPrefix(s, "{") || !strings.Contains(s, `"msg":"loud"`) {
		t.Errorf("log is %s", s)
	}
}

func TestPasswordsAreComparedPrepared(t *testing.T) {
	a, err := preparePassword("caf\u00e9 secret")
	if err != nil {
		t.Fatal(err)
	}
	b, err := preparePassword("cafe\u0301\u00a0secret")
	if err != nil || a != b {
		t.Errorf("%q and %q, %v", a, b, err)
	}
	if _, err := preparePassword("bell\a"); err == nil {
		t.Error("a control character is taken")
	}
}
