// Package sm is the arithmetic of XEP-0198 Stream Management without any stream: what was received and made durable, what was sent
// and not acknowledged, and what is to be sent again when a stream is resumed. It does no I/O and keeps no time.
//
// A value belongs to one session and is not safe for use by several goroutines at once.
package sm

import (
	"errors"
	"fmt"
)

// Counter counts stanzas; after 2^32-1 comes 0.
//
// spec: XEP-0198 §4
type Counter uint32

// Since is how many stanzas c is ahead of an earlier count.
func (c Counter) Since(earlier Counter) uint32 { return uint32(c - earlier) }

// Inbound counts what was received. An acknowledgement means that a stanza is on disk, so two counts are kept: received, which
// numbers the stanzas, and durable, up to which all are safe. Stanzas may become durable in any order.
type Inbound struct {
	received, durable Counter
	ahead             map[Counter]struct{} // durable already, though one before them is not
}

// NewInbound continues at h, the count that the peer was or will be told on resumption; 0 for a new session.
func NewInbound(h Counter) *Inbound { return &Inbound{received: h, durable: h} }

// Receive numbers the stanza that has just arrived.
func (in *Inbound) Receive() Counter {
	in.received++
	return in.received
}

// Done says that the stanza which Receive gave this number needs no more care: it is on disk, or was refused with an answer. It
// returns whether H has moved, so that the peer is to be told. A number that is not outstanding changes nothing.
func (in *Inbound) Done(n Counter) (moved bool) {
	if d := n.Since(in.durable); d == 0 || d > in.received.Since(in.durable) {
		return false
	}
	if n != in.durable+1 {
		if in.ahead == nil {
			in.ahead = make(map[Counter]struct{})
		}
		in.ahead[n] = struct{}{}
		return false
	}
	in.durable = n
	for {
		if _, ok := in.ahead[in.durable+1]; !ok {
			return true
		}
		in.durable++
		delete(in.ahead, in.durable)
	}
}

// H is the count to tell the peer, in <a/>, <resume/>, <resumed/> and <failed/>.
func (in *Inbound) H() Counter { return in.durable }

// Pending is how many stanzas were received and are not yet durable.
func (in *Inbound) Pending() int { return int(in.received.Since(in.durable)) }

// Errors of an Outbound.
var (
	// ErrFull says that as much is unacknowledged as may be: the session must wait, or hibernate.
	ErrFull = errors.New("sm: too many stanzas are unacknowledged")
)

// HandledTooManyError says that the peer has acknowledged more than was sent, which ends its stream.
//
// spec: XEP-0198 §4
type HandledTooManyError struct {
	H, SendCount Counter
}

func (e *HandledTooManyError) Error() string {
	return fmt.Sprintf("sm: peer acknowledged %d stanzas, but %d were sent", e.H, e.SendCount)
}

// Outbound keeps what was sent until the peer acknowledges it. T is whatever the session needs to send it again.
type Outbound[T any] struct {
	queue []T
	sent  Counter // number of the last in queue, or of the last ever sent
	max   int
}

// NewOutbound continues at sent, the number of stanzas that the peer has acknowledged in the session before; 0 for a new session.
// At most max stanzas may be unacknowledged.
func NewOutbound[T any](sent Counter, max int) *Outbound[T] {
	return &Outbound[T]{sent: sent, max: max}
}

// Push keeps a stanza that is about to be sent and returns its number.
func (o *Outbound[T]) Push(item T) (Counter, error) {
	if len(o.queue) >= o.max {
		return 0, ErrFull
	}
	o.queue = append(o.queue, item)
	o.sent++
	return o.sent, nil
}

// Ack takes the peer's h and returns the stanzas that it acknowledges for the first time, oldest first. An h that was told before
// acknowledges nothing; one beyond what was sent, or behind what was acknowledged, is a *HandledTooManyError, since modulo 2^32 the
// two are the same.
func (o *Outbound[T]) Ack(h Counter) ([]T, error) {
	n := h.Since(o.acked())
	if uint64(n) > uint64(len(o.queue)) {
		return nil, &HandledTooManyError{H: h, SendCount: o.sent}
	}
	done := o.queue[:n:n]
	if o.queue = o.queue[n:]; len(o.queue) == 0 {
		o.queue = nil
	}
	return done, nil
}

// Resume is Ack for the h in <resume/> or <resumed/>; again is what must be sent again, oldest first. It stays unacknowledged, with
// the numbers it had.
//
// spec: XEP-0198 §5
func (o *Outbound[T]) Resume(h Counter) (done, again []T, err error) {
	if done, err = o.Ack(h); err != nil {
		return nil, nil, err
	}
	return done, append([]T(nil), o.queue...), nil
}

// Unacked returns what the peer has not acknowledged, oldest first: what must find another way when the session ends.
func (o *Outbound[T]) Unacked() []T { return append([]T(nil), o.queue...) }

// Len is how many stanzas are unacknowledged.
func (o *Outbound[T]) Len() int { return len(o.queue) }

// Sent is the number of the last stanza sent.
func (o *Outbound[T]) Sent() Counter { return o.sent }

func (o *Outbound[T]) acked() Counter { return o.sent - Counter(len(o.queue)) }
