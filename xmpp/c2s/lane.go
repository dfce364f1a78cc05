package c2s

import (
	"context"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream/sm"
	"parley/xmpp/translate"
)

// The measures of what is done beside a session.
const (
	maxBeside  = 50 // at a time
	maxParked  = 200
	besideTime = 5 * time.Minute
)

// parked is a stanza of the client that waits for another one, which takes long.
type parked struct {
	st *element.Element
	n  sm.Counter
}

// lanes are what one session does beside itself.
type lanes struct {
	busy   int // how much
	parked int // in all queues
	// queues are of messages and presence that wait for something to the same bare JID.
	queues map[translate.JID][]parked
}

// Beside deals with the stanza at hand in two steps, because other servers have to be asked: work is done by a goroutine of its own, and
// then, by the session's, the rest. Its error is told as that of the stanza. Meanwhile the session goes on with other stanzas, but for
// messages and presence to the same bare JID, which wait; the zero JID has nothing wait. The client's count stops before the stanza until
// it is dealt with.
func (s *Session) Beside(to translate.JID, work func(context.Context) error, then func(context.Context, error) error) error {
	st, n := s.current, s.handling
	if s.beside.busy >= maxBeside {
		return translate.Fail(translate.ResourceConstraint, "your client asks too much of other servers at a time")
	}
	if !s.srv.joins(&s.srv.errands) {
		return errOver
	}
	s.beside.busy++
	s.open(to)
	s.later = true
	go func() {
		defer s.srv.errands.Done()
		ctx, cancel := s.srv.untilStopped(besideTime)
		defer cancel()
		err := s.srv.keep.Do(func() error { return work(ctx) })
		s.call(func(ctx context.Context) {
			s.beside.busy--
			s.deal(ctx, parked{st, n}, func() error { return then(ctx, err) })
			s.drain(ctx, to)
		})
	}()
	return nil
}

// untilStopped is a context that ends with the server.
func (srv *Server) untilStopped(most time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	stop := make(chan struct{})
	go func() {
		select {
		case <-srv.stopping:
			cancel()
		case <-stop:
		}
	}()
	return ctx, func() { close(stop); cancel() }
}

// open has further stanzas to a JID wait.
func (s *Session) open(to translate.JID) {
	if to.IsZero() {
		return
	}
	if s.beside.queues == nil {
		s.beside.queues = map[translate.JID][]parked{}
	}
	if _, ok := s.beside.queues[to]; !ok {
		s.beside.queues[to] = nil
	}
}

// park has a stanza wait if it is to a JID to which something is under way.
func (s *Session) park(st *element.Element) (waits bool, err error) {
	if len(s.beside.queues) == 0 || st.Name.Local == "iq" {
		return false, nil
	}
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil {
		return false, nil //nolint:nilerr // who deals with it says so
	}
	queue, waits := s.beside.queues[to.Bare()]
	if !waits {
		return false, nil
	}
	if s.beside.parked >= maxParked {
		return true, translate.Fail(translate.ResourceConstraint, "too much waits for an answer of another server")
	}
	s.beside.parked++
	s.beside.queues[to.Bare()] = append(queue, parked{st, s.handling})
	s.later = true
	return true, nil
}

// drain deals with what has waited, up to something for which the rest has to wait again.
func (s *Session) drain(ctx context.Context, to translate.JID) {
	queue := s.beside.queues[to]
	delete(s.beside.queues, to)
	for i, p := range queue {
		s.beside.parked--
		s.deal(ctx, p, func() error { return s.dispatch(ctx, p.st) })
		if again, ok := s.beside.queues[to]; ok {
			s.beside.queues[to] = append(again, queue[i+1:]...)
			return
		}
	}
}

// Room is how many stanzas the client can be sent before it has to acknowledge some: half of them are for whoever asks, and the rest for
// what comes meanwhile. Zero is any number.
func (s *Session) Room() int {
	if s.out == nil {
		return 0
	}
	return max(1, (s.srv.MaxUnacked-s.out.Len())/2)
}

// deal deals with one stanza, and counts it unless it waits.
func (s *Session) deal(ctx context.Context, p parked, f func() error) {
	s.current, s.handling, s.later = p.st, p.n, false
	s.answered(ctx, p.st, s.srv.keep.Do(f))
	s.current = nil
	if s.in != nil && !s.later {
		s.in.Done(p.n)
		s.state.durable.Store(int64(s.in.H()) + 1)
	}
}
