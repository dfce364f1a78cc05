package stream

import (
	"context"
	"net"
	"os"
	"sync"
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
}

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
	if err := w.arm(); err != nil {
		return 0, err
	}
	n, err := w.Conn.Read(p)
	if terr := w.throttle(n); terr != nil {
		return n, terr
	}
	return n, err
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
