package receiving

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"parley/matrix/federation"
)

// pair is a server and the domain of ours to which it sends.
type pair struct{ origin, dest string }

// name is what tells one transaction from another: its ID, and what is in it,
// because an ID that was used before for something else names another.
type name struct {
	id  string
	sum [sha256.Size]byte
}

func nameOf(id string, t *transaction) name {
	h := sha256.New()
	part := func(list []json.RawMessage) {
		var n [8]byte
		put := func(v int) {
			binary.BigEndian.PutUint64(n[:], uint64(v))
			h.Write(n[:])
		}
		put(len(list))
		for _, raw := range list {
			put(len(raw))
			h.Write(raw)
		}
	}
	part(t.PDUs)
	part(t.EDUs)
	return name{id, [sha256.Size]byte(h.Sum(nil))}
}

// flight is one transaction that is being done.
type flight struct {
	done   chan struct{}
	answer json.RawMessage
	err    error
}

// lane is where one server's transactions are done, one after another.
type lane struct {
	turn    chan struct{} // holds a token while one is being done
	flights map[name]*flight
	answers []answered // the last few
	used    time.Time
}

type answered struct {
	name
	answer json.RawMessage
	at     time.Time
}

// lanes are those of all servers.
type lanes struct {
	mu    sync.Mutex
	m     map[pair]*lane
	bytes int // of answers
}

// Bounds of what is remembered and of what waits.
const (
	maxLanes   = 20_000
	maxAnswers = 8        // of one lane
	maxBytes   = 32 << 20 // of all answers
	keptFor    = time.Hour
	// maxUnderWay is how many transactions of one server may be here at a
	// time. It is to send one, and may have given up waiting for others.
	maxUnderWay = 4
	// maxTime is for one transaction. Its sender may have gone long before:
	// when it sends it again, there is the answer.
	maxTime = 5 * time.Minute
)

// send takes a transaction.
//
// spec: MX 1.19 SS §4
func (r *Receiver) send(req *federation.Request) (any, error) {
	t, err := read(req)
	if err != nil {
		return nil, err
	}
	n := nameOf(req.Var("txnId"), t)
	l, f, first, err := r.lanes.enter(pair{req.Origin, req.Destination}, n)
	if err != nil {
		return nil, err
	}
	if first {
		r.fly(req, l, n, f, t)
	}
	select {
	case <-f.done:
		return f.answer, f.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// fly does a transaction when it is its turn. It is done to its end, even if the
// other server does not wait for it.
func (r *Receiver) fly(req *federation.Request, l *lane, n name, f *flight, t *transaction) {
	f.err = errLater
	defer func() { r.lanes.leave(l, n, f) }()
	for _, gate := range []chan struct{}{l.turn, r.slots} {
		select {
		case gate <- struct{}{}:
			defer func() { <-gate }()
		case <-req.Context().Done():
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), maxTime)
	defer cancel()
	f.answer, f.err = r.do(ctx, req.Origin, t)
	if f.err != nil {
		if _, told := errors.AsType[*federation.Error](f.err); !told {
			f.err = fmt.Errorf("doing a transaction of %s: %w", req.Origin, f.err)
		}
	}
}

// enter finds the transaction among those that were done or are being done, or
// else makes room for it; first says that the caller is to do it.
func (a *lanes) enter(p pair, n name) (l *lane, f *flight, first bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	l = a.m[p]
	if l == nil {
		if len(a.m) >= maxLanes {
			a.sweep(now, nil)
		}
		l = &lane{turn: make(chan struct{}, 1), flights: map[name]*flight{}}
		a.m[p] = l
	}
	l.used = now
	for _, old := range l.answers {
		if old.name == n && now.Sub(old.at) < keptFor {
			f := &flight{done: make(chan struct{}), answer: old.answer}
			close(f.done)
			return l, f, false, nil
		}
	}
	if f := l.flights[n]; f != nil {
		return l, f, false, nil
	}
	if len(l.flights) >= maxUnderWay {
		e := federation.Errorf(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Other transactions of yours are being done.")
		e.RetryAfter = 5 * time.Second
		return nil, nil, false, e
	}
	f = &flight{done: make(chan struct{})}
	l.flights[n] = f
	return l, f, true, nil
}

// leave ends a transaction; the answer of one that was done is kept.
func (a *lanes) leave(l *lane, n name, f *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(l.flights, n)
	if f.err == nil {
		now := time.Now()
		if len(l.answers) == maxAnswers {
			a.bytes -= len(l.answers[0].answer)
			l.answers = append(l.answers[:0], l.answers[1:]...)
		}
		if a.bytes += len(f.answer); a.bytes > maxBytes {
			a.sweep(now, l)
		}
		l.answers = append(l.answers, answered{n, f.answer, now})
	}
	close(f.done)
}

// sweep forgets the lanes in which nothing has gone on for the longest time:
// the older half, but not keep.
func (a *lanes) sweep(now time.Time, keep *lane) {
	var total time.Duration
	for _, l := range a.m {
		total += now.Sub(l.used)
	}
	average := total / time.Duration(max(len(a.m), 1))
	for p, l := range a.m {
		if l == keep || len(l.flights) > 0 || now.Sub(l.used) < average {
			continue
		}
		for _, old := range l.answers {
			a.bytes -= len(old.answer)
		}
		delete(a.m, p)
	}
}
