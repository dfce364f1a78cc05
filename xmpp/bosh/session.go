package bosh

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // the hash that key sequences are made with
	"encoding/hex"
	"strconv"
	"sync"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// maxHold is how many requests are held at most; a client may have one more under way.
//
// spec: XEP-0124 §7.2
const maxHold = 1

// session is one client's.
type session struct {
	srv    *Server
	ex     *stream.Exchange
	forget func() // takes the session off the server's list
	sid    string
	home   string // the domain that the client asked for

	// What was agreed when it began.
	wait    time.Duration
	hold    int
	window  int64 // how many requests the client may have under way
	acks    bool
	polling time.Duration // the least time between empty requests, if none is held
	first   int64         // the first request ID

	mu      sync.Mutex
	last    int64 // the highest request ID up to which all were dealt with
	waiting map[int64]*request
	feeding bool       // a goroutine gives requests to the stream
	held    []*request // dealt with and not answered, in their order
	answers map[int64][]byte
	authid  string   // the stream's id
	out     [][]byte // for the client
	ended   bool     // nothing more comes from the stream
	parted  bool     // the stream was closed in good order
	reason  error    // a fault, if it was not
	closed  bool     // the client was told of the end, or will not ask any more
	key     string   // the key before the next one, or "" if there are none
	polled  time.Time
	quiet   *time.Timer // runs while nothing is held
	pause   time.Duration
}

// newSession reads what the client would like.
//
// spec: XEP-0124 §7.1
func newSession(srv *Server, q *request) *session {
	s := &session{srv: srv, sid: newSID(), home: q.body.Attr("to"), last: q.rid - 1, first: q.rid, waiting: map[int64]*request{},
		answers: map[int64][]byte{}, key: q.body.Attr("newkey"), acks: q.body.Attr("ack") != ""}
	most := int(srv.cfg.Wait / time.Second)
	s.wait = time.Duration(q.number("wait", most, most)) * time.Second
	s.hold = q.number("hold", maxHold, maxHold)
	s.window = int64(s.hold) + 1
	if s.hold == 0 || s.wait == 0 { // spec: XEP-0124 §12
		s.hold, s.wait, s.window, s.polling = 0, 0, 1, 2*time.Second
	}
	return s
}

// exchange takes a request and waits for its answer.
func (s *session) exchange(ctx context.Context, q *request) ([]byte, error) {
	if answer, err := s.admit(q); answer != nil || err != nil {
		return answer, err
	}
	s.feed(ctx)
	wait := time.NewTimer(max(s.wait, time.Second))
	defer wait.Stop()
	for {
		select {
		case b := <-q.done:
			return b, nil
		case <-wait.C:
			s.expire(q)
		case <-ctx.Done():
			s.leave(q)
			return nil, errGone
		}
	}
}

// admit queues a request, or gives the answer that it has already. One that is repeated takes the place of the first.
//
// spec: XEP-0124 §14.2
// spec: XEP-0124 §14.3
func (s *session) admit(q *request) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer, ok := s.answers[q.rid]; ok {
		return answer, nil
	}
	if s.closed {
		return nil, unknown
	}
	defer s.rest()
	if old := s.waiting[q.rid]; old != nil {
		old.done <- recoverable
		s.waiting[q.rid] = q
		return nil, nil
	}
	for i, old := range s.held {
		if old.rid == q.rid {
			old.done <- recoverable
			s.held[i] = q
			return nil, nil
		}
	}
	if q.rid <= s.last || q.rid > s.last+s.window {
		s.fail(unknown)
		return nil, unknown
	}
	s.waiting[q.rid] = q
	return nil, nil
}

// recoverable tells the one who sent a request first that it was sent again.
//
// spec: XEP-0124 §16.3
var recoverable = writeBody([][2]string{{"type", "error"}}, nil)

// feed gives to the stream what is next, and all that waited for it.
func (s *session) feed(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feeding {
		return
	}
	s.feeding = true
	defer func() { s.feeding = false }()
	for q := s.waiting[s.last+1]; q != nil; q = s.waiting[s.last+1] {
		err := s.check(q)
		if err == nil {
			s.mu.Unlock()
			err = s.give(context.WithoutCancel(ctx), q) // all of it, even if the client hangs up meanwhile
			s.mu.Lock()
		}
		if s.closed {
			return
		}
		s.last++
		q = s.waiting[s.last] // perhaps it was sent again
		delete(s.waiting, s.last)
		delete(s.answers, s.last-s.window-1)
		s.held = append(s.held, q)
		if s.fetch(); err != nil && !s.ended {
			s.fail(err)
			return
		}
		s.heed(q)
		s.settle()
	}
}

// check holds a request to the key sequence, and to the pace of those who poll.
//
// spec: XEP-0124 §15.4
// spec: XEP-0124 §11
func (s *session) check(q *request) error {
	if q.rid == s.first {
		return nil
	}
	if s.key != "" {
		sum := sha1.Sum([]byte(q.body.Attr("key"))) //nolint:gosec // see the import
		if hex.EncodeToString(sum[:]) != s.key {
			return unknown
		}
		if s.key = q.body.Attr("key"); q.body.Attr("newkey") != "" { // spec: XEP-0124 §15.5
			s.key = q.body.Attr("newkey")
		}
	}
	empty := len(q.body.Elements()) == 0 && len(q.body.Attrs) <= 4 // xmlns is none of them
	if s.polling > 0 && empty {
		now, before := time.Now(), s.polled
		if s.polled = now; now.Sub(before) < s.polling && len(s.out) == 0 {
			return policy
		}
	}
	return nil
}

// give brings the content of one request to the stream.
//
// spec: XEP-0206 §5
func (s *session) give(ctx context.Context, q *request) error {
	lost := fault("remote-connection-failed")
	if s.ex.Charge(q.size) != nil {
		return lost
	}
	if q.rid == s.first || q.body.AttrNS(nsXBosh, "restart") == "true" {
		open := element.New(stream.NSFraming, "open").SetAttr("to", s.home).SetAttr("version", "1.0")
		if lang := q.body.Lang(); lang != "" {
			open.SetLang(lang)
		}
		if s.ex.Put(ctx, open) != nil {
			return lost
		}
	}
	for _, el := range q.body.Elements() {
		if el.Name.Space == nsBind { // some clients leave out the namespace of stanzas
			el = el.Rename(nsBind, stream.NSClient)
		}
		if el.Name.Space == stream.NSFraming {
			return bad
		}
		if s.ex.Put(ctx, el) != nil {
			return lost
		}
	}
	if q.body.Attr("type") == "terminate" && s.ex.Put(ctx, element.New(stream.NSFraming, "close")) != nil {
		return lost
	}
	return nil
}

// heed does what a request says of the session itself.
//
// spec: XEP-0124 §10
func (s *session) heed(q *request) {
	s.pause = 0
	if n := time.Duration(q.number("pause", 0, int(s.srv.cfg.Pause/time.Second))) * time.Second; n > 0 {
		s.pause = n
		for _, h := range s.held {
			h.due = true
		}
	}
}

// ready is told that there is something to fetch.
func (s *session) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 {
		s.fetch()
		s.settle()
	}
}

// fetch takes what the stream has for the client. It is called only when a request is there to answer, so that a client that does
// not ask makes the stream wait.
func (s *session) fetch() {
	out, ended := s.ex.Fetch()
	for _, m := range out {
		if id, ok := stream.IsOpen(m); ok {
			s.authid = id
			continue
		}
		if stream.IsClose(m) {
			s.parted = true
			continue
		}
		if bytes.HasPrefix(m, []byte("<stream:error")) {
			s.reason = fault("remote-stream-error") // spec: XEP-0206 §6
		}
		s.out = append(s.out, m)
	}
	if s.ended = ended; ended && !s.parted && s.reason == nil {
		s.reason = fault("remote-connection-failed")
	}
}

// settle answers the requests that are due, the oldest first.
//
// spec: XEP-0124 §8
func (s *session) settle() {
	for len(s.held) > 0 && !s.closed {
		q := s.held[0]
		if s.reason != nil && !s.ended {
			break // an error of the stream is told with its end, which follows at once
		}
		// The first is answered with what the stream begins with, and the last when it has ended.
		patient := q.rid == s.first || q.body.Attr("type") == "terminate"
		if !q.due && len(s.out) == 0 && !s.ended && (patient || len(s.held) <= s.hold) {
			break
		}
		s.held = s.held[1:]
		s.answer(q)
	}
	s.rest()
}

// answer answers one request with all that waits.
func (s *session) answer(q *request) {
	var b []byte
	switch {
	case s.ended:
		b, s.closed = terminated(s.reason, s.out), true
	case q.rid == s.first:
		b = writeBody(s.terms(), s.out)
	case s.acks && s.last != q.rid: // spec: XEP-0124 §9.1
		b = writeBody([][2]string{{"ack", strconv.FormatInt(s.last, 10)}}, s.out)
	default:
		b = writeBody(nil, s.out)
	}
	s.out = nil
	s.answers[q.rid] = b
	q.done <- b
	if s.closed {
		s.release(terminated(s.reason, nil))
	}
}

// terms is what was agreed.
//
// spec: XEP-0124 §7.2
// spec: XEP-0206 §4
func (s *session) terms() [][2]string {
	attrs := [][2]string{
		{"sid", s.sid}, {"wait", seconds(s.wait)}, {"requests", strconv.FormatInt(s.window, 10)}, {"hold", strconv.Itoa(s.hold)},
		{"inactivity", seconds(s.srv.cfg.Inactivity)}, {"maxpause", seconds(s.srv.cfg.Pause)}, {"ver", "1.11"}, {"charsets", "UTF-8"},
		{"from", s.home}, {"authid", s.authid}, {"xmlns:xmpp", nsXBosh}, {"xmlns:stream", stream.NSStream}, {"xmpp:version", "1.0"},
		{"xmpp:restartlogic", "true"},
	}
	if s.polling > 0 {
		attrs = append(attrs, [2]string{"polling", seconds(s.polling)})
	}
	if s.acks {
		attrs = append(attrs, [2]string{"ack", strconv.FormatInt(s.last, 10)})
	}
	return attrs
}

// expire answers a request that was held as long as it may. What waits for one before it that never came ends the session.
func (s *session) expire(q *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[q.rid] == q && !s.feeding {
		s.fail(unknown)
		return
	}
	q.due = true
	for _, h := range s.held {
		h.due = h.due || h.rid < q.rid
	}
	if len(s.held) > 0 {
		s.fetch()
		s.settle()
	}
}

// leave notes that nobody waits for the answer to a request any more. It is kept all the same, for when the request is sent again.
func (s *session) leave(q *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.gone = true
	s.rest()
}

// broken ends the session for what the client did wrong.
func (s *session) broken(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(why)
}

// fail is broken with the lock held. The stream ends without a word, so that its session can be resumed on another.
func (s *session) fail(why error) {
	if s.closed {
		return
	}
	s.closed, s.reason = true, why
	go func() { _ = s.ex.Close() }() // which takes the lock
	s.release(terminated(why, nil))
}

// release answers all that waits, and has the session forgotten when the client can no longer ask for an answer again.
func (s *session) release(b []byte) {
	for _, q := range s.held {
		q.done <- b
	}
	for _, q := range s.waiting {
		q.done <- b
	}
	s.held, s.waiting = nil, map[int64]*request{}
	s.rest()
}

// rest sets the clock that ends the session if nothing is heard of the client.
//
// spec: XEP-0124 §10
func (s *session) rest() {
	busy := len(s.waiting) > 0
	for _, q := range s.held {
		busy = busy || !q.gone
	}
	if s.quiet != nil {
		s.quiet.Stop()
		s.quiet = nil
	}
	if busy {
		return
	}
	limit := s.srv.cfg.Inactivity
	if s.pause > 0 {
		limit = s.pause
	}
	var t *time.Timer
	t = time.AfterFunc(limit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.quiet == t {
			s.fail(unknown)
			s.quiet.Stop()
			s.forget()
		}
	})
	s.quiet = t
}
