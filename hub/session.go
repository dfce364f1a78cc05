package hub

import (
	"context"
	"errors"
	"sync"

	"parley/core"
)

// SessionSpec says who attaches a session and how.
type SessionSpec struct {
	Account  core.Address
	Protocol core.Network
	// ID names the session among the account's: a resource, a device.
	ID string
	// Bound is how much news may wait; zero is [DefaultBound].
	Bound int
}

// DefaultBound is how much news waits for a session before it is behind.
const DefaultBound = 1024

// ErrClosed is what Next returns when the session or the hub has ended.
var ErrClosed = errors.New("session closed")

// Session hears of what happens to one account. Its queue is bounded: one that
// is too slow loses the queue and finds a [BehindNews] in its place, so that
// nobody waits for it and it loses nothing, because it reads the store.
//
// Attach first and read the store then: what is in both has the same feed
// number, and nothing is in neither.
type Session struct {
	spec  SessionSpec
	reg   *registry
	ready chan struct{} // holds one token while there is something

	mu     sync.Mutex
	queue  []News
	behind bool // the queue overflowed; its first element says so
	last   core.Feed
	closed bool
}

// ID returns the session's name among the account's.
func (s *Session) ID() string { return s.spec.ID }

// Account returns whose session it is.
func (s *Session) Account() core.Address { return s.spec.Account }

// Protocol returns which protocol it speaks.
func (s *Session) Protocol() core.Network { return s.spec.Protocol }

// Ready receives when there may be news. After it, call TryNext until false.
func (s *Session) Ready() <-chan struct{} { return s.ready }

// Next waits for news.
func (s *Session) Next(ctx context.Context) (News, error) {
	for {
		if n, ok := s.TryNext(); ok {
			return n, nil
		}
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return nil, ErrClosed
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// TryNext returns news if there is any.
func (s *Session) TryNext() (News, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, false
	}
	n := s.queue[0]
	s.queue[0] = nil
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil // an idle session holds no queue
	}
	s.behind = s.behind && len(s.queue) > 0
	if f := FeedOf(n); f > s.last {
		s.last = f
	}
	if len(s.queue) > 0 || s.closed {
		s.wake()
	}
	return n, true
}

// Closed reports whether the session has ended.
func (s *Session) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close ends the session. It may be called again.
func (s *Session) Close() {
	s.reg.remove(s)
	s.shut()
}

func (s *Session) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake()
}

func (s *Session) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// push never blocks.
func (s *Session) push(n News) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	bound := s.spec.Bound
	if bound == 0 {
		bound = DefaultBound
	}
	if len(s.queue) >= bound {
		s.queue, s.behind = []News{BehindNews{Feed: s.last}}, true
	}
	s.queue = append(s.queue, n)
	s.wake()
}

// registry knows every session of every account.
type registry struct {
	mu     sync.RWMutex
	m      map[core.Address][]*Session
	most   int
	closed bool
}

func newRegistry(most int) *registry {
	return &registry{m: map[core.Address][]*Session{}, most: most}
}

// Attach begins a session. A session of the same protocol and ID is closed.
// The error is a Refusal when the account has too many.
func (h *Hub) Attach(spec SessionSpec) (*Session, error) {
	s := &Session{spec: spec, reg: h.sessions, ready: make(chan struct{}, 1)}
	old, err := h.sessions.add(s)
	if old != nil {
		old.shut()
	}
	return s, err
}

func (r *registry) add(s *Session) (old *Session, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.m[s.spec.Account]
	switch {
	case r.closed:
		return nil, ErrClosed
	case len(list) >= r.most:
		return nil, Refuse(TooMany, "this account has too many sessions")
	}
	for i, o := range list {
		if s.spec.ID != "" && o.spec.ID == s.spec.ID && o.spec.Protocol == s.spec.Protocol {
			list = append(append([]*Session{}, list[:i]...), list[i+1:]...)
			old = o
			break
		}
	}
	r.m[s.spec.Account] = append(list[:len(list):len(list)], s)
	return old, nil
}

func (r *registry) remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.m[s.spec.Account]
	for i, o := range list {
		if o == s {
			rest := append(append([]*Session{}, list[:i]...), list[i+1:]...)
			if len(rest) == 0 {
				delete(r.m, s.spec.Account)
			} else {
				r.m[s.spec.Account] = rest
			}
			return
		}
	}
}

func (r *registry) of(account core.Address) []*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.m[account] // never changed in place
}

func (r *registry) tell(n News, accounts ...core.Address) {
	for _, a := range accounts {
		for _, s := range r.of(a) {
			s.push(n)
		}
	}
}

func (r *registry) closeAll() {
	r.mu.Lock()
	all := r.m
	r.m, r.closed = map[core.Address][]*Session{}, true
	r.mu.Unlock()
	for _, list := range all {
		for _, s := range list {
			s.shut()
		}
	}
}

// closeOf ends every session of an account.
func (r *registry) closeOf(account core.Address) {
	for _, s := range r.of(account) {
		s.Close()
	}
}

// Sessions returns the account's sessions.
func (h *Hub) Sessions(account core.Address) []*Session { return h.sessions.of(account) }

// Poke tells accounts' sessions of what a protocol keeps for itself. Call it
// after the commit.
func (h *Hub) Poke(accounts []core.Address, n PokeNews) { h.tell(n, accounts...) }
