package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"parley/xmpp/element"
)

// Settings bound what one stream may cost. Zero fields get the defaults named with them.
type Settings struct {
	// NegotiationTimeout is from the TCP connection until the peer has authenticated, however busy it is: 30 s.
	NegotiationTimeout time.Duration
	// IdleTimeout ends an authenticated stream on which nothing has arrived, not even white space: 0, never.
	IdleTimeout time.Duration
	// WriteTimeout is for one write to the network: 60 s.
	WriteTimeout time.Duration
	// PingInterval is how often a WebSocket is pinged, which keeps proxies from ending it: 30 s. If nothing at all, not even a pong,
	// comes within WriteTimeout after that, the connection is taken for lost.
	//
	// spec: RFC 7395 §3.8
	PingInterval time.Duration
	// CloseTimeout is for the peer to close its side after we closed ours: 2 s.
	CloseTimeout time.Duration
	// Limits are for elements after authentication: element.DefaultLimits.
	Limits element.Limits
	// QueueBytes may wait to be written before Send fails with ErrQueueFull: 1 MiB.
	QueueBytes int
	// BytesPerSecond and Burst limit what is read after authentication, before TLS is taken off: 0, no limit. Until a peer has
	// authenticated, it has 64 KiB and then 64 KiB/s.
	//
	// spec: XEP-0205 §4
	BytesPerSecond, Burst int
	// MaxPending and MaxPendingPerIP are how many accepted connections may be unauthenticated at once, in all and from one IPv4
	// address or IPv6 /64: 1000 and 20.
	MaxPending, MaxPendingPerIP int
}

func (s Settings) withDefaults() Settings {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	count := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&s.NegotiationTimeout, 30*time.Second)
	def(&s.WriteTimeout, time.Minute)
	def(&s.PingInterval, 30*time.Second)
	def(&s.CloseTimeout, 2*time.Second)
	count(&s.QueueBytes, 1<<20)
	count(&s.MaxPending, 1000)
	count(&s.MaxPendingPerIP, 20)
	if s.Limits == (element.Limits{}) {
		s.Limits = element.DefaultLimits
	}
	return s
}

// The rate before authentication, which a handshake with large certificates stays below.
const (
	negotiationRate  = 64 << 10
	negotiationBurst = 64 << 10
)

// Conn is one XMPP stream. Next is for one goroutine at a time; all else may be called by any, at any time.
type Conn struct {
	set  Settings
	wire *wire
	w    writer
	// framing and reader are how the stream stands on its transport.
	framing framing
	private bool // the transport keeps others from reading along, without our TLS

	readMu  sync.Mutex // held by Next
	reader  reader
	doc     *element.Reader                                  // is reader, or nil if that reads messages
	pushed  *element.Element                                 // read already, for Next to give
	inspect func(*element.Element) (*element.Element, error) // nil element: it was dealt with

	closeOnce sync.Once
	done      chan struct{} // closed with the connection

	mu        sync.Mutex
	tls       *tls.Conn
	id        string
	lang      string
	local     string
	remote    string
	account   string
	mechanism string
	login     *Login // nil but for SASL2
	opened    bool   // our header was written
	release   func()
	s2s       *s2sState // nil on streams of clients
}

// newConn does not end with ctx: who has a stream closes it in good order when ctx ends.
func newConn(ctx context.Context, c net.Conn, set Settings, enc element.Encoder) *Conn {
	conn := bareConn(ctx, c, set, document{enc})
	conn.doc = element.NewReader(conn.wire, element.NegotiationLimits)
	conn.reader = conn.doc
	return conn
}

// bareConn makes a Conn without a reader.
func bareConn(ctx context.Context, c net.Conn, set Settings, fr framing) *Conn {
	w := newWire(context.WithoutCancel(ctx), c)
	w.setDeadline(time.Now().Add(set.NegotiationTimeout))
	w.setRate(negotiationRate, negotiationBurst)
	conn := &Conn{set: set, wire: w, framing: fr, done: make(chan struct{}), release: func() {}}
	conn.w = writer{timeout: set.WriteTimeout, max: set.QueueBytes, conn: w, failed: func(error) { conn.Abort() }}
	return conn
}

// ID is the stream's identifier: ours on streams that we accepted, the peer's on those that we opened.
//
// spec: RFC 6120 §4.7.3
func (c *Conn) ID() string { return locked(c, &c.id) }

// Lang is the language that the peer prefers, or "".
//
// spec: RFC 6120 §4.7.4
func (c *Conn) Lang() string { return locked(c, &c.lang) }

// LocalDomain is the domain of ours for which the stream was opened.
func (c *Conn) LocalDomain() string { return locked(c, &c.local) }

// RemoteDomain is the domain of the peer for which a stream between servers was opened; it may be "" on one that we accepted. That
// it is set proves nothing: see Authorized.
func (c *Conn) RemoteDomain() string { return locked(c, &c.remote) }

// Account is the local part for which a client has authenticated, normalised as RFC 7622 says.
func (c *Conn) Account() string { return locked(c, &c.account) }

// Mechanism is the SASL mechanism which was used, "" for none.
func (c *Conn) Mechanism() string { return locked(c, &c.mechanism) }

func locked(c *Conn, s *string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *s
}

// RemoteAddr is the peer's network address.
func (c *Conn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// TLS returns the state of TLS, or false if the stream has none of its own: if it is in the clear or on a WebSocket.
func (c *Conn) TLS() (tls.ConnectionState, bool) {
	c.mu.Lock()
	t := c.tls
	c.mu.Unlock()
	if t == nil {
		return tls.ConnectionState{}, false
	}
	return t.ConnectionState(), true
}

// Done is closed when the connection has ended for whatever reason.
func (c *Conn) Done() <-chan struct{} { return c.wire.ctx.Done() }

// SetIdleTimeout changes Settings.IdleTimeout for this stream.
func (c *Conn) SetIdleTimeout(d time.Duration) { c.wire.setIdle(d) }

// Queued is how many bytes wait to be written.
func (c *Conn) Queued() int { return c.w.queued() }

// Send queues an element and returns at once. A nil error means no more than that. ErrQueueFull means that nothing was queued and
// that the peer is slow; the stream remains as it was.
func (c *Conn) Send(el *element.Element) error {
	return c.w.add(func(b []byte) []byte { return c.framing.element(b, el) }, false)
}

// Flush waits until what was queued has left for the network.
func (c *Conn) Flush() error { return c.w.drain() }

// Next reads one element. It returns io.EOF when the peer has closed the stream in good order, io.ErrUnexpectedEOF when the
// connection was lost, *Error for what the peer did wrong (to be passed to Close) or says that we did, ErrIdle, or ctx.Err(). When
// ctx ends between two elements nothing is lost and Next may be called again; in the middle of one, the stream is lost.
func (c *Conn) Next(ctx context.Context) (*element.Element, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if el := c.pushed; el != nil {
		c.pushed = nil
		return el, nil
	}
	defer c.interruptible(ctx)()
	for {
		if err := c.await(); err != nil {
			return nil, c.explain(ctx, err)
		}
		el, err := c.read(ctx)
		if err != nil {
			return nil, err
		}
		if c.inspect == nil {
			return el, nil
		}
		if el, err = c.inspect(el); el != nil || err != nil {
			return el, err
		}
	}
}

// await waits for an element to begin. It waits below TLS, see wire.await, and has a glance through TLS at what has come.
func (c *Conn) await() error {
	for c.wire.raw != nil && c.doc.Buffered() == 0 {
		c.wire.glance = true
		err := c.doc.Await()
		c.wire.glance = false
		if _, none := errors.AsType[nothing](err); !none {
			return err
		}
		if err := c.wire.await(); err != nil {
			return err
		}
	}
	return nil
}

// interruptible lets the end of ctx interrupt reading until the function returned is called.
func (c *Conn) interruptible(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	ran := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		c.wire.interrupt()
		close(ran)
	})
	return func() {
		if !cancel() {
			<-ran
			c.wire.resume()
		}
	}
}

// read reads one element and explains errors.
func (c *Conn) read(ctx context.Context) (*element.Element, error) {
	el, err := c.reader.Next()
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if el.Is(NSStream, "error") {
		return nil, parseError(el)
	}
	return el, nil
}

// explain tells the reasons apart for which reading can fail.
func (c *Conn) explain(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case c.wire.expired():
			return Errorf(ConnectionTimeout, "negotiation took too long")
		}
		return ErrIdle
	}
	if _, ok := errors.AsType[*element.ParseError](err); ok {
		return asStreamError(err)
	}
	if errors.Is(err, net.ErrClosed) {
		return ErrClosed
	}
	return err
}

// checkStanza refuses elements at the top level of a client's stream that are no stanza though they look like one.
//
// spec: RFC 6120 §4.9.3.10
// spec: RFC 6120 §4.9.3.24
func checkStanza(el *element.Element) (*element.Element, error) {
	switch el.Name.Space {
	case NSClient:
		if !isStanza(el) {
			return nil, Errorf(UnsupportedStanzaType, "no such stanza")
		}
	case "", NSServer, NSStream, NSDialback:
		return nil, Errorf(InvalidNamespace, "not a namespace for this stream")
	}
	return el, nil
}

func isStanza(el *element.Element) bool {
	switch el.Name.Local {
	case "message", "presence", "iq":
		return true
	}
	return false
}

// Close ends the stream in good order: what was queued is written, then the stream error in err if there is one to tell, then the
// closing tag; then the peer has CloseTimeout to close its side. A goroutine that is in Next meanwhile still gets what arrives.
// Close returns when the connection is closed; the error passed decides only what the peer is told.
//
// spec: RFC 6120 §4.4
func (c *Conn) Close(err error) {
	c.closeOnce.Do(func() {
		defer close(c.done)
		defer c.Abort()
		tell := asStreamError(err)
		c.mu.Lock()
		opened := c.opened
		c.mu.Unlock()
		seal := func(b []byte) []byte {
			if !opened {
				return b
			}
			if tell != nil {
				b = c.framing.element(b, tell.element())
			}
			return c.framing.close(b)
		}
		if c.w.add(seal, true) != nil {
			return
		}
		c.wire.setDeadline(time.Now().Add(c.set.CloseTimeout))
		if c.w.drain() != nil {
			return
		}
		if opened {
			c.halfClose()
			if err != io.EOF {
				c.linger()
			}
		}
		if f, ok := c.wire.Conn.(*frames); ok {
			f.goodbye(c.set.CloseTimeout)
		}
	})
	<-c.done
}

// halfClose tells the peer, below XMPP, that nothing more will come.
func (c *Conn) halfClose() {
	if t := c.tlsConn(); t != nil {
		_ = t.CloseWrite()
	} else if t, ok := c.wire.Conn.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}

// linger waits for the peer's closing tag, so that the last that we wrote is not lost to a TCP reset.
func (c *Conn) linger() {
	c.readMu.Lock() // Next, if it runs, ends at the deadline at the latest
	defer c.readMu.Unlock()
	for left := 64; left > 0; left-- {
		if _, err := c.reader.Next(); err == nil {
			continue
		} else if _, ok := errors.AsType[*element.ParseError](err); ok {
			break
		}
		return
	}
	_, _ = io.CopyN(io.Discard, c.wire, 256<<10)
}

// Abort ends the connection at once, without a word.
func (c *Conn) Abort() {
	c.mu.Lock()
	release := c.release
	c.release = func() {}
	c.mu.Unlock()
	release()
	_ = c.wire.Close()
	_ = c.w.add(func(b []byte) []byte { return b }, true)
}

// secured says whether passwords may be sent.
func (c *Conn) secured() bool { return c.private || c.tlsConn() != nil }

func (c *Conn) tlsConn() *tls.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tls
}

// authenticated changes from the bounds for strangers to those for peers.
func (c *Conn) authenticated() {
	c.mu.Lock()
	release := c.release
	c.release = func() {}
	c.mu.Unlock()
	release()
	c.reader.SetLimits(c.set.Limits)
	c.wire.setDeadline(time.Time{})
	c.wire.setIdle(c.set.IdleTimeout)
	c.wire.setRate(c.set.BytesPerSecond, c.set.Burst)
}
