package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"parley/xmpp/element"
)

// Exchange is the transport of a stream that has no connection: others bring the client's elements to it and fetch what is for the
// client, as package bosh does with HTTP requests. It is framed as on a WebSocket: <open/> begins and restarts the stream and <close/>
// ends it, in both directions.
//
// Its zero value is not usable; see [NewExchange].
type Exchange struct {
	addr   net.Addr
	ready  func()
	limits atomic.Pointer[element.Limits]
	wire   *wire // set by Clients.Exchange, before anything is read

	in     chan *element.Element
	quit   chan struct{} // closed by Close
	once   sync.Once
	parted atomic.Bool // our <close/> has been written: the client need say no more

	mu      sync.Mutex
	read    time.Time     // deadline of next, or zero
	write   time.Time     // deadline of Write, or zero
	changed chan struct{} // closed when a deadline changes
	out     [][]byte
	bytes   int
	room    chan struct{} // closed when out has been taken
}

// exchangeBuffer is how many bytes may wait to be fetched before Write blocks.
const exchangeBuffer = 256 << 10

// NewExchange makes an Exchange for a client at addr. ready is called, by any goroutine and without a lock, when there is something
// to fetch and when the stream has ended.
func NewExchange(addr net.Addr, ready func()) *Exchange {
	e := &Exchange{addr: addr, ready: ready, in: make(chan *element.Element), quit: make(chan struct{}),
		changed: make(chan struct{}), room: make(chan struct{})}
	limits := element.NegotiationLimits
	e.limits.Store(&limits)
	return e
}

// Exchange makes the stream of a client ready on e; serve, which must be called, serves it until it ends. As with a WebSocket it is
// for the caller to know that the way to the client is private.
func (s *Clients) Exchange(ctx context.Context, e *Exchange) (serve func(), err error) {
	set := s.Settings.withDefaults()
	leave, ok := s.pending.enter(e.addr, set)
	if !ok {
		return nil, ErrTooMany
	}
	c := bareConn(ctx, e, set, messages{})
	c.private, c.release = true, leave
	c.reader = exchangeReader{e}
	e.wire = c.wire
	return func() {
		defer leave()
		defer c.Abort()
		s.serve(ctx, c, false)
	}, nil
}

// Limits are those for the client's next element.
func (e *Exchange) Limits() element.Limits { return *e.limits.Load() }

// Charge waits as long as the rate asks for after so many bytes from the client.
func (e *Exchange) Charge(bytes int) error { return e.wire.throttle(bytes) }

// Put gives one element of the client to the stream, and waits until that takes it.
func (e *Exchange) Put(ctx context.Context, el *element.Element) error {
	select {
	case e.in <- el:
		return nil
	case <-e.quit:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fetch takes the messages that wait for the client. ended says that there will be no more.
func (e *Exchange) Fetch() (out [][]byte, ended bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out, e.out, e.bytes = e.out, nil, 0
	close(e.room)
	e.room = make(chan struct{})
	select {
	case <-e.quit:
		return out, true
	default:
		return out, false
	}
}

// next gives the next element, or os.ErrDeadlineExceeded, after which it may be called again.
func (e *Exchange) next() (*element.Element, error) {
	if err := e.wire.arm(); err != nil {
		return nil, err
	}
	for {
		if e.parted.Load() {
			return nil, io.EOF
		}
		e.mu.Lock()
		until, changed := e.read, e.changed
		e.mu.Unlock()
		late, stop := timer(until)
		select {
		case el := <-e.in:
			stop()
			return el, nil
		case <-e.quit:
			stop()
			return nil, io.ErrUnexpectedEOF
		case <-late:
			return nil, os.ErrDeadlineExceeded
		case <-changed:
			stop()
		}
	}
}

// timer fires at t, or never if t is zero.
func timer(t time.Time) (fires <-chan time.Time, stop func()) {
	if t.IsZero() {
		return nil, func() {}
	}
	tm := time.NewTimer(time.Until(t))
	return tm.C, func() { tm.Stop() }
}

// Write puts the messages in p, which are as [messages] puts them, where Fetch finds them. It waits while much is there.
func (e *Exchange) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		end := n + messageHead + int(binary.BigEndian.Uint32(p[n:]))
		if err := e.put(append([]byte(nil), p[n+messageHead:end]...)); err != nil {
			return n, err
		}
		n = end
	}
	e.ready()
	return len(p), nil
}

func (e *Exchange) put(message []byte) error {
	for {
		e.mu.Lock()
		if e.bytes < exchangeBuffer {
			e.out, e.bytes = append(e.out, message), e.bytes+len(message)
			if IsClose(message) && !e.parted.Swap(true) {
				e.wake()
			}
			e.mu.Unlock()
			return nil
		}
		until, changed, room := e.write, e.changed, e.room
		e.mu.Unlock()
		e.ready()
		late, stop := timer(until)
		select {
		case <-room:
		case <-changed:
		case <-late:
			return os.ErrDeadlineExceeded
		case <-e.quit:
			stop()
			return net.ErrClosed
		}
		stop()
	}
}

// IsOpen says whether a message to a client opens or restarts the stream, and gives the stream's id.
func IsOpen(message []byte) (id string, ok bool) {
	if len(message) < 6 || string(message[:6]) != "<open " {
		return "", false
	}
	el, err := element.Parse(message, element.NegotiationLimits)
	return el.Attr("id"), err == nil
}

// IsClose says whether a message to a client closes the stream.
func IsClose(message []byte) bool { return len(message) > 7 && string(message[:7]) == "<close " }

// Close ends the stream without a word. What was written may still be fetched.
func (e *Exchange) Close() error {
	e.once.Do(func() {
		close(e.quit)
		e.ready()
	})
	return nil
}

// Read is for who no longer cares what is in the elements.
func (e *Exchange) Read([]byte) (int, error) {
	if e.wire == nil {
		return 0, net.ErrClosed
	}
	_, err := e.next()
	return 0, err
}

// LocalAddr implements net.Conn: there is none.
func (e *Exchange) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr implements net.Conn.
func (e *Exchange) RemoteAddr() net.Addr { return e.addr }

// SetDeadline implements net.Conn.
func (e *Exchange) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (e *Exchange) SetReadDeadline(t time.Time) error { return e.set(&e.read, t) }

// SetWriteDeadline implements net.Conn.
func (e *Exchange) SetWriteDeadline(t time.Time) error { return e.set(&e.write, t) }

func (e *Exchange) set(deadline *time.Time, t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !t.Equal(*deadline) {
		*deadline = t
		e.wake()
	}
	return nil
}

// wake lets those who wait look again; e.mu is held.
func (e *Exchange) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// exchangeReader reads a stream from an Exchange.
type exchangeReader struct{ e *Exchange }

func (r exchangeReader) Header() (*element.Element, error) { return r.e.next() }

func (r exchangeReader) Next() (*element.Element, error) {
	el, err := r.e.next()
	switch {
	case err != nil:
		return nil, err
	case el.Is(NSFraming, "close"):
		return nil, io.EOF
	case el.Name.Space == NSFraming:
		return nil, Errorf(BadFormat, "the stream is open")
	}
	return el, nil
}

func (exchangeReader) Namespace(string) string { return "" }

func (exchangeReader) Restart() {}

func (r exchangeReader) SetLimits(l element.Limits) { r.e.limits.Store(&l) }
