package serving

import (
	"context"
	"net/http"
	"sync"
	"time"

	"parley/matrix/federation"
)

// Bounds of what is answered at once: the questions of one server come one after
// another, because each may take as long as a large room is large.
const (
	maxAtOnce  = 4  // servers
	maxWaiting = 20 // questions of one server
)

// gate lets questions in.
type gate struct {
	all chan struct{}

	mu  *sync.Mutex
	own map[string]*queue
}

type queue struct {
	turn    chan struct{}
	waiting int // and the one whose turn it is
}

func newGate() gate {
	return gate{all: make(chan struct{}, maxAtOnce), mu: new(sync.Mutex), own: map[string]*queue{}}
}

// through has a handler wait for its turn.
func (g gate) through(f federation.Handler) federation.Handler {
	return func(r *federation.Request) (any, error) {
		leave, err := g.enter(r.Context(), r.Origin)
		if err != nil {
			return nil, err
		}
		defer leave()
		return f(r)
	}
}

func (g gate) enter(ctx context.Context, server string) (leave func(), err error) {
	g.mu.Lock()
	q := g.own[server]
	if q == nil {
		q = &queue{turn: make(chan struct{}, 1)}
		g.own[server] = q
	}
	if q.waiting >= maxWaiting {
		g.mu.Unlock()
		e := federation.Errorf(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Your server asks too much at once; wait a little.")
		e.RetryAfter = time.Second
		return nil, e
	}
	q.waiting++
	g.mu.Unlock()
	out := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if q.waiting--; q.waiting == 0 {
			delete(g.own, server)
		}
	}
	for i, c := range []chan struct{}{q.turn, g.all} {
		select {
		case c <- struct{}{}:
		case <-ctx.Done():
			if i == 1 {
				<-q.turn
			}
			out()
			return nil, ctx.Err()
		}
	}
	return func() {
		<-g.all
		<-q.turn
		out()
	}, nil
}
