package stream

import (
	"net"
	"sync"
	"time"
)

// writer is the queue between those who send and the connection. At most one goroutine writes, and it lives only as long as there
// is something to write, so that an idle stream costs none. All that has gathered while one write was under way leaves in the next
// one, in one TLS record if it fits.
type writer struct {
	timeout time.Duration // for one write of the connection
	max     int           // bytes that may wait, or none at all waited: see add

	mu      sync.Mutex
	conn    net.Conn // changes when TLS begins, at which time nothing is queued
	queue   []byte
	running bool
	sealed  bool          // nothing more may be added
	err     error         // why writing ended
	drained chan struct{} // closed when running ends, if someone waits
	failed  func(error)   // called once, without the lock
}

// queues are emptied queues: an idle stream has none.
var queues = sync.Pool{New: func() any { return new([]byte) }}

// keepBuffer is how large a queue may have grown that is used again.
const keepBuffer = 16 << 10

// add queues what put appends, whole or not at all. An element larger than the queue may wait alone: the limits for elements are
// the caller's.
func (w *writer) add(put func([]byte) []byte, seal bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.sealed {
		return ErrClosed
	}
	if w.queue == nil {
		w.queue = *queues.Get().(*[]byte)
	}
	before := len(w.queue)
	queue := put(w.queue)
	if len(queue) > w.max && before > 0 && !seal {
		w.queue = queue[:before]
		return ErrQueueFull
	}
	w.queue, w.sealed = queue, seal
	if !w.running && len(queue) > 0 {
		w.running = true
		go w.run()
	}
	return nil
}

// run writes until there is nothing left.
func (w *writer) run() {
	var buf []byte
	w.mu.Lock()
	for w.err == nil && len(w.queue) > 0 {
		buf, w.queue = w.queue, buf[:0]
		conn := w.conn
		w.mu.Unlock()
		if w.timeout > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(w.timeout))
		}
		_, err := conn.Write(buf)
		w.mu.Lock()
		if err != nil {
			w.err = err
		}
	}
	w.running = false
	for _, b := range [][]byte{buf, w.queue} {
		if b = b[:0]; cap(b) > 0 && cap(b) <= keepBuffer {
			queues.Put(&b)
		}
	}
	w.queue = nil
	if w.drained != nil {
		close(w.drained)
		w.drained = nil
	}
	err, failed := w.err, w.failed
	w.mu.Unlock()
	if err != nil && failed != nil {
		failed(err)
	}
}

// drain waits until all that was queued has been written or writing has failed.
func (w *writer) drain() error {
	w.mu.Lock()
	for w.running {
		if w.drained == nil {
			w.drained = make(chan struct{})
		}
		done := w.drained
		w.mu.Unlock()
		<-done
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	return w.err
}

// queued is the number of bytes that wait.
func (w *writer) queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

func (w *writer) setConn(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = c
}
