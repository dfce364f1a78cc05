package sending

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"parley/internal/contain"
)

// Bounds of what waits in memory for one destination.
const (
	maxQueue = 500 // events; the rest is read from the store
	maxSaid  = 100 // things that are not owed; the oldest go
	// maxSaying is for all destinations, in bytes.
	maxSaying = 64 << 20
	// catchUp is how many events of a room a server that was away is owed
	// before it gets only the newest of them.
	catchUp = 50
	newest  = 10
	// patience is how often a server is tried for which only what is not owed
	// waits.
	patience = 5
)

// Where a queue stands.
const (
	idle = iota
	ready
	running
)

// outage is a time in which a server does not answer.
type outage struct {
	since, last, next time.Time // last: when it was tried
	tries             int
}

// peer is the queue for one destination. It is there while something waits.
type peer struct {
	route

	// All below is held by Sender.mu.
	state int
	queue []*event
	// more says that the store holds events beyond the queue, or instead of it;
	// singles and edus, that it may hold those. stirred counts what comes, so
	// that who looks into the store knows whether more came meanwhile.
	more, singles, edus bool
	stirred             int
	// behind says that the server was away and has not yet had everything.
	behind bool
	outage outage
	// until is when it is tried again; zero is now.
	until time.Time
	timer *time.Timer // set for due
	due   time.Time
	said  map[string]EDU
	order []string // keys of said

	// stumbles counts failures of our own.
	stumbles int

	// What follows belongs to who runs it.

	// last is what was sent and not answered.
	last *transaction
	// limit is how many things go into a transaction, after one was refused as
	// a whole; zero is all.
	limit                 int
	singlesDone, edusDone int64 // up to which the store's were taken
}

// peer returns a queue. Call it with mu held.
func (s *Sender) peer(r route) *peer {
	p := s.peers[r]
	if p == nil {
		p = &peer{route: r, singlesDone: s.news.singles[r], edusDone: s.news.edus[r]}
		s.peers[r] = p
	}
	return p
}

// enqueue adds an event that was just committed.
func (p *peer) enqueue(e *event) {
	p.stirred++
	switch {
	case p.more:
	case p.behind && len(p.queue) >= catchUp:
		p.queue, p.more = nil, true
	case len(p.queue) >= maxQueue:
		p.more = true
	default:
		p.queue = append(p.queue, e)
	}
}

// waiting says whether there is something to send.
func (p *peer) waiting() bool { return p.owed() || len(p.said) > 0 }

func (p *peer) owed() bool {
	return p.last != nil || len(p.queue) > 0 || p.more || p.singles || p.edus
}

func (p *peer) stopTimer() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// Say sends what is worth nothing later, if the server can be reached. Of what
// is said under the same key only the last is sent. It does not block.
func (s *Sender) Say(origin, dest, key string, e EDU) {
	if e.check() != nil || !s.ours(origin) || s.ours(dest) {
		s.cfg.Count.Count("matrix_sent", "said", "malformed")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return
	}
	p := s.peer(route{origin, dest})
	if !s.say(p, key, e, true) {
		s.cfg.Count.Count("matrix_sent", "said", "dropped")
	}
	s.kick(p)
}

// say keeps what is said; newer says whether it takes the place of what is
// there.
func (s *Sender) say(p *peer, key string, e EDU, newer bool) bool {
	old, has := p.said[key]
	if has && !newer {
		return true
	}
	if s.saying+len(e.Content)-len(old.Content) > maxSaying {
		return false
	}
	if !has {
		if len(p.order) >= maxSaid {
			s.unsay(p, p.order[0])
			s.cfg.Count.Count("matrix_sent", "said", "dropped")
		}
		p.order = append(p.order, key)
	}
	if p.said == nil {
		p.said = map[string]EDU{}
	}
	s.saying += len(e.Content) - len(old.Content)
	p.said[key] = e
	return true
}

// unsay takes away the first of what is said.
func (s *Sender) unsay(p *peer, key string) EDU {
	e := p.said[key]
	s.saying -= len(e.Content)
	delete(p.said, key)
	p.order = slices.DeleteFunc(p.order, func(k string) bool { return k == key })
	return e
}

// kick has a queue looked at, as soon as it may be. Call it with mu held.
func (s *Sender) kick(p *peer) {
	if !s.open || p.state != idle {
		return
	}
	if !p.until.IsZero() {
		if p.timer != nil && p.due.Equal(p.until) {
			return
		}
		p.stopTimer()
		p.due = p.until
		p.timer = time.AfterFunc(time.Until(p.until), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.peers[p.route] != p {
				return
			}
			p.timer = nil
			if !p.until.After(time.Now()) {
				p.until = time.Time{}
			}
			s.kick(p)
		})
		return
	}
	p.stopTimer()
	p.state = ready
	s.ready = append(s.ready, p)
	if s.running < s.cfg.Workers {
		s.running++
		s.wg.Add(1)
		go s.work(s.ctx)
	}
}

// work sends one transaction of one queue after another, in turn, until none
// has anything to send.
func (s *Sender) work(ctx context.Context) {
	defer s.wg.Done()
	for p := s.pick(ctx); p != nil; p = s.pick(ctx) {
		err := s.keep.Do(func() error { return s.step(ctx, p) })
		s.mu.Lock()
		if p.state = idle; err == nil {
			p.stumbles = 0
		}
		switch {
		case ctx.Err() != nil:
		case err != nil: // ours, not the other server's
			if !contain.Contained(err) {
				s.cfg.Log.Error("sending to a Matrix server", "dest", p.dest, "err", err)
			}
			p.stumbles++
			p.until = later(p.until, time.Now().Add(s.backoff(p.stumbles)))
			s.kick(p)
		case p.waiting():
			s.kick(p)
		default:
			p.stopTimer()
			delete(s.peers, p.route)
		}
		s.mu.Unlock()
	}
}

// pick takes the next queue; where there is none, the worker has ended.
func (s *Sender) pick(ctx context.Context) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 || ctx.Err() != nil {
		s.running--
		return nil
	}
	p := s.ready[0]
	s.ready[0] = nil
	s.ready = s.ready[1:]
	p.state = running
	return p
}

// step sends one transaction.
func (s *Sender) step(ctx context.Context, p *peer) error {
	t, err := s.compose(ctx, p)
	if err != nil || t == nil {
		return err
	}
	if len(t.pdus)+len(t.edus)+len(t.said) == 0 { // nothing is left that this server has not
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settle(p, t)
		return nil
	}
	answer, err := s.cfg.Client.Do(ctx, t.call(p.route, s.cfg.Timeout))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return s.failed(ctx, p, t, err)
	}
	return s.taken(ctx, p, t, answer)
}

// backoff is how long to wait after a number of failures, with some chance in
// it so that servers which failed together do not come back together.
func (s *Sender) backoff(tries int) time.Duration {
	d := s.cfg.MaxRetry
	if tries < 22 {
		d = min(s.cfg.FirstRetry<<max(tries-1, 0), d)
	}
	return d*3/4 + rand.N(d/2+1)
}
