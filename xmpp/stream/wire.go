package stream

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// wire is the TCP connection below TLS. It holds the time-outs and the rate, so that TLS handshakes obey them too.
type wire struct {
	net.Conn
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	mu          sync.Mutex
	deadline    time.Time     // for all reading, or zero: until when the peer must have authenticated
	idle        time.Duration // for each read, or 0
	interrupted bool          // reads fail until it is taken back
	limiter     *rate.Limiter // of bytes read per second, or nil

	// What follows is of the goroutine that negotiates and then reads.
	host string // stands in when a client asks for no domain in TLS
	leaf []byte // DER of the certificate we showed as a server, for channel binding
	// See await.
	raw    syscall.RawConn // or nil: Read waits itself
	take   func(fd uintptr) bool
	glance bool    // Read takes only what has come already
	early  *[]byte // from arrivals, or nil
	rest   []byte  // the part of early that is still to be read
}

// arrivals are buffers for what a connection has when it has been waited for: one that is idle has none.
var arrivals = sync.Pool{New: func() any { b := make([]byte, 4096); return &b }}

// nothing is the error of a glance at a connection on which nothing has come. TLS takes it for a time-out, after which it may go on.
type nothing struct{}

func (nothing) Error() string   { return "nothing has come yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

func newWire(ctx context.Context, c net.Conn) *wire {
	w := &wire{Conn: c}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w
}

// Close ends the connection without a word.
func (w *wire) Close() error {
	w.cancel()
	return w.Conn.Close()
}

// Read reads within the time-outs and then waits as long as the rate asks for; meanwhile TCP makes the peer wait.
func (w *wire) Read(p []byte) (int, error) {
	if w.early != nil {
		return w.readEarly(p), nil
	}
	if w.glance {
		return 0, nothing{}
	}
	if err := w.arm(); err != nil {
		return 0, err
	}
	n, err := w.Conn.Read(p)
	if terr := w.throttle(n); terr != nil {
		return n, terr
	}
	return n, err
}

// readEarly reads what await has taken.
func (w *wire) readEarly(p []byte) int {
	n := copy(p, w.rest)
	if w.rest = w.rest[n:]; len(w.rest) == 0 {
		arrivals.Put(w.early)
		w.early, w.rest = nil, nil
	}
	return n
}

// awaitable lets await be used from now on, if the connection is one of the system's.
func (w *wire) awaitable() {
	c, ok := w.Conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	w.raw = raw
	w.take = func(fd uintptr) bool {
		buf := arrivals.Get().(*[]byte)
		n, err := syscall.Read(int(fd), *buf)
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), *buf)
		}
		if n > 0 {
			w.early, w.rest = buf, (*buf)[:n]
			return true
		}
		arrivals.Put(buf)
		if err == syscall.EAGAIN {
			return false
		}
		w.raw = nil // Read meets the same end, and tells it
		return true
	}
}

// await waits until something has come, within the time-outs. A goroutine that waits here and not in Read needs a quarter of the
// stack, for nothing of TLS is on it, and it is the stacks that most of an idle stream's memory is.
func (w *wire) await() error {
	if err := w.arm(); err != nil {
		return err
	}
	if err := w.raw.Read(w.take); err != nil {
		return err
	}
	return w.throttle(len(w.rest))
}

// arm sets the time-outs of one read, or says that reading is interrupted.
func (w *wire) arm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.interrupted {
		return os.ErrDeadlineExceeded
	}
	return w.Conn.SetReadDeadline(w.until())
}

// throttle waits as long as the rate asks for after n bytes. It fails when the connection has ended.
func (w *wire) throttle(n int) error {
	w.mu.Lock()
	limiter := w.limiter
	w.mu.Unlock()
	if limiter == nil {
		return nil
	}
	for left := n; left > 0; {
		part := min(left, limiter.Burst())
		if limiter.WaitN(w.ctx, part) != nil {
			return net.ErrClosed
		}
		left -= part
	}
	return nil
}

// until is when a read that begins now must have ended.
func (w *wire) until() time.Time {
	t := w.deadline
	if w.idle > 0 {
		if i := time.Now().Add(w.idle); t.IsZero() || i.Before(t) {
			t = i
		}
	}
	return t
}

// setDeadline bounds all reading and writing, whatever arrives meanwhile; zero takes the bound away.
func (w *wire) setDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	if !w.interrupted {
		_ = w.Conn.SetReadDeadline(w.until())
	}
	_ = w.Conn.SetWriteDeadline(t)
}

func (w *wire) setIdle(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = d
	if !w.interrupted {
		_ = w.Conn.SetReadDeadline(w.until())
	}
}

func (w *wire) setRate(bytesPerSecond, burst int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limiter = nil
	if bytesPerSecond > 0 {
		w.limiter = rate.NewLimiter(rate.Limit(bytesPerSecond), max(burst, 1))
	}
}

// interrupt makes the read that is under way, and those after it, fail; resume takes it back.
func (w *wire) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interrupted = true
	_ = w.Conn.SetReadDeadline(time.Unix(1, 0))
}

func (w *wire) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interrupted = false
}

// expired says whether the time to authenticate is over.
func (w *wire) expired() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.deadline.IsZero() && !time.Now().Before(w.deadline)
}
