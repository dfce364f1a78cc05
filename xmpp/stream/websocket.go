package stream

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"parley/xmpp/element"
)

// Subprotocol is the name of XMPP among the subprotocols of WebSocket.
//
// spec: RFC 7395 §3.1
const Subprotocol = "xmpp"

// ErrTooMany says that too many streams have yet to authenticate.
var ErrTooMany = errors.New("too many unauthenticated connections")

// ServeWebSocket answers a WebSocket handshake and serves the stream of a client until it ends, as Serve does those on TCP: with the
// same authentication, features and bounds. It is for the caller to know that the connection is private, by the TLS of the HTTP
// server or by being local; there is no TLS above it, and so no channel binding. Where the client really is, behind a proxy, says
// addr. If an error is returned, the request has been answered with it. It may be called before or after Serve.
//
// spec: RFC 7395 §3.1
// spec: RFC 7395 §3.9
func (s *Clients) ServeWebSocket(ctx context.Context, w http.ResponseWriter, r *http.Request, addr net.Addr) error {
	if err := checkHandshake(r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return err
	}
	set := s.Settings.withDefaults()
	leave, ok := s.pending.enter(addr, set)
	if !ok {
		w.Header().Set("Retry-After", "30")
		http.Error(w, ErrTooMany.Error(), http.StatusServiceUnavailable)
		return ErrTooMany
	}
	defer leave()
	tap := &tapped{ResponseWriter: w}
	ws, err := websocket.Accept(tap, r, &websocket.AcceptOptions{
		Subprotocols: []string{Subprotocol},
		// Any site's client may connect: no cookie or other authority comes with the connection.
		InsecureSkipVerify: true,
	})
	if err != nil {
		return err
	}
	f := newFrames(ws, tap.conn, addr)
	c := newMessageConn(ctx, f, set)
	c.release = leave
	defer f.wait()
	defer c.Abort()
	s.serve(ctx, c, false)
	return nil
}

// checkHandshake refuses what the library lets pass.
func checkHandshake(r *http.Request) error {
	if r.ContentLength != 0 || len(r.TransferEncoding) != 0 {
		return errors.New("a WebSocket handshake has no body")
	}
	for _, v := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(p), Subprotocol) {
				return nil
			}
		}
	}
	return errors.New("this is for WebSockets with the subprotocol xmpp")
}

// newMessageConn is newConn for messages.
func newMessageConn(ctx context.Context, f *frames, set Settings) *Conn {
	c := bareConn(ctx, f, set, messages{})
	c.private = true
	c.reader = newMessageReader(c.wire, f, element.NegotiationLimits)
	f.start(c)
	return c
}

// tapped gives the WebSocket library a connection that we can watch.
type tapped struct {
	http.ResponseWriter
	conn *tappedConn
}

// Hijack implements http.Hijacker.
func (t *tapped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.conn = &tappedConn{Conn: nc}
	return t.conn, rw, nil
}

// tappedConn is the connection below the WebSocket. It keeps the rate, so that pings and empty frames count too.
type tappedConn struct {
	net.Conn
	throttle func(n int) error // set before the first Read
	heard    atomic.Int64      // when something was read last, in Unix nanoseconds
}

func (t *tappedConn) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.heard.Store(time.Now().UnixNano())
		if terr := t.throttle(n); terr != nil {
			return n, terr
		}
	}
	return n, err
}

// frames is a WebSocket as a net.Conn whose writes are messages, for the writer and the wire of a Conn; a messageReader takes what
// was received with next. A goroutine of its own reads, since the library answers pings only then and ends the connection when a
// read is interrupted. It reads one message ahead at most.
type frames struct {
	ws    *websocket.Conn
	raw   *tappedConn
	addr  net.Addr
	limit atomic.Int64 // bytes of a message

	in   chan []byte
	err  error         // why reading ended; readable once done is closed
	done chan struct{} // closed when the goroutine that reads ends
	quit chan struct{} // closed by Close
	once sync.Once
	all  sync.WaitGroup

	handing atomic.Bool // a message waits for next: it is not the peer who is silent

	mu      sync.Mutex
	until   time.Time     // deadline of next, or zero
	changed chan struct{} // closed when until changes
}

func newFrames(ws *websocket.Conn, raw *tappedConn, addr net.Addr) *frames {
	ws.SetReadLimit(-1) // is ours, so that the error can be told in XMPP's terms
	return &frames{ws: ws, raw: raw, addr: addr, in: make(chan []byte), done: make(chan struct{}), quit: make(chan struct{}),
		changed: make(chan struct{})}
}

// start begins to read.
func (f *frames) start(c *Conn) {
	f.raw.throttle = c.wire.throttle
	f.all.Go(f.pump)
	f.all.Go(func() { f.keepAlive(c) })
}

// wait waits for the goroutines, after Close.
func (f *frames) wait() { f.all.Wait() }

func (f *frames) pump() {
	defer close(f.done)
	for {
		b, err := f.receive()
		if err != nil {
			f.err = err
			return
		}
		f.handing.Store(true)
		select {
		case f.in <- b:
			f.handing.Store(false)
		case <-f.quit:
			f.err = net.ErrClosed
			return
		}
	}
}

// receive reads one message whole. That the peer closed the WebSocket without closing the stream is an unclean end, after which the
// session may be resumed.
//
// spec: RFC 7395 §3.2
// spec: RFC 7395 §3.6
func (f *frames) receive() ([]byte, error) {
	typ, r, err := f.ws.Reader(context.Background())
	if err != nil {
		return nil, lost(err)
	}
	if typ != websocket.MessageText {
		return nil, Errorf(BadFormat, "messages must be text")
	}
	limit := f.limit.Load()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, lost(err)
	}
	if int64(len(b)) > limit {
		return nil, &element.ParseError{Condition: PolicyViolation, Limit: element.LimitBytes}
	}
	return b, nil
}

// lost is the error of a connection that ended without the stream being closed.
func lost(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) // the cause may be io.EOF, which would be a good end
}

// next gives the next message, or os.ErrDeadlineExceeded, after which it may be called again.
func (f *frames) next() ([]byte, error) {
	for {
		f.mu.Lock()
		until, changed := f.until, f.changed
		f.mu.Unlock()
		var late <-chan time.Time
		if !until.IsZero() {
			late = time.After(time.Until(until))
		}
		select {
		case b := <-f.in:
			return b, nil
		case <-f.done:
			return nil, f.err
		case <-late:
			return nil, os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

// keepAlive pings, and ends the connection if nothing at all, not even a pong, comes within the time that a write may take.
//
// spec: RFC 6455 §5.5.2
func (f *frames) keepAlive(c *Conn) {
	for f.pause(c.set.PingInterval) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(c.wire.ctx, c.set.WriteTimeout)
		err := f.ws.Ping(ctx)
		cancel()
		if err == nil {
			continue
		}
		if !f.pause(time.Until(began.Add(c.set.WriteTimeout))) {
			return
		}
		if f.raw.heard.Load() < began.UnixNano() && !f.handing.Load() {
			c.Abort()
			return
		}
	}
}

// pause waits, and says whether the connection is still there.
func (f *frames) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.quit:
	case <-f.done:
	case <-t.C:
		return true
	}
	return false
}

// goodbye closes the WebSocket by the closing handshake, for which the peer has as long as limit.
//
// spec: RFC 6455 §7.1.2
// spec: RFC 7395 §3.6
func (f *frames) goodbye(limit time.Duration) {
	stop := time.AfterFunc(limit, func() { _ = f.raw.Close() })
	defer stop.Stop()
	_ = f.raw.SetWriteDeadline(time.Time{}) // that of the last words may have passed
	_ = f.ws.Close(websocket.StatusNormalClosure, "")
}

// Write sends the messages in p, which are as [messages] puts them.
func (f *frames) Write(p []byte) (int, error) {
	// The library's answers to pings must not inherit the deadline.
	defer f.raw.SetWriteDeadline(time.Time{})
	for n := 0; n < len(p); {
		end := n + messageHead + int(binary.BigEndian.Uint32(p[n:]))
		if err := f.ws.Write(context.Background(), websocket.MessageText, p[n+messageHead:end]); err != nil {
			return n, err
		}
		n = end
	}
	return len(p), nil
}

// Read passes over messages. It is for who no longer cares what is in them.
func (f *frames) Read(p []byte) (int, error) {
	b, err := f.next()
	return min(len(b), len(p)), err
}

// Close ends the connection without a word.
func (f *frames) Close() error {
	var err error
	f.once.Do(func() {
		close(f.quit)
		err = f.raw.Close()
		_ = f.ws.CloseNow()
	})
	return err
}

// LocalAddr implements net.Conn.
func (f *frames) LocalAddr() net.Addr { return f.raw.LocalAddr() }

// RemoteAddr implements net.Conn.
func (f *frames) RemoteAddr() net.Addr { return f.addr }

// SetDeadline implements net.Conn.
func (f *frames) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}

// SetReadDeadline is for next and Read.
func (f *frames) SetReadDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !t.Equal(f.until) {
		f.until = t
		close(f.changed)
		f.changed = make(chan struct{})
	}
	return nil
}

// SetWriteDeadline is for a Write that is under way or comes next.
func (f *frames) SetWriteDeadline(t time.Time) error { return f.raw.SetWriteDeadline(t) }
