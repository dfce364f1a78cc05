package c2s

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/stream/sm"
	"parley/xmpp/translate"
)

// Session is one client of a local account, from its binding to its end, over one stream or, by resumption, several. All of it but
// what is said otherwise belongs to its own goroutine.
type Session struct {
	srv     *Server
	account core.Address
	jid     translate.JID // full
	client  string        // the installation, as it named itself with SASL2
	hub     *hub.Session

	// What other goroutines may use.
	inbox chan inbound
	mail  *mailbox // stanzas routed by other sessions
	calls chan func(ctx context.Context)
	done  chan struct{} // closed at the end
	state sharedState
	away  atomic.Int64 // since when it waits for its client to come back, in Unix nanoseconds; 0 while it does not

	link    *link // nil while it waits for resumption
	drained chan *link
	waiting []*element.Element // not yet on the stream, because the client reads slowly

	smID     string // empty if the stream cannot be resumed
	in       *sm.Inbound
	handling sm.Counter // number of the stanza being dealt with
	current  *element.Element
	later    bool // it is not dealt with yet: see Beside
	beside   lanes
	out      *sm.Outbound[sent]
	asked    bool // <r/> was sent and not answered
	probed   bool // the client was asked whether it is still there
	expiry   *time.Timer

	interest bool // in roster pushes
	versions bool // roster pushes have a version
	presence *element.Element
	directed map[translate.JID]bool
	inactive bool // spec: XEP-0352 §4.2
	held     []*element.Element
	notify   map[string]bool       // PEP nodes of which the client wants to hear
	lastSent map[core.Address]bool // whose last items were sent
	capsVer  string
	pending  map[string]func(*element.Element) // our own requests to the client, by id
	values   map[any]any                       // of services
	replayed core.Feed                         // up to which messages were given to the client when it came
	sawMAM   bool
	ended    error // why; errBye where the client closed the stream
}

// sharedState is what other sessions ask of this one.
type sharedState struct {
	available atomic.Bool
	carbons   atomic.Bool
	away      atomic.Bool // nobody looks at the client, or it waits for resumption
	priority  atomic.Int32
	// durable is how many of the client's stanzas are on disk, plus one; zero without stream management.
	durable atomic.Int64
	telling sync.Mutex // held while the count is told
}

func (st *sharedState) takesBare() bool { return st.available.Load() && st.priority.Load() >= 0 }

// link is one stream of a session.
type link struct {
	conn     *stream.Conn
	released chan struct{} // closed when the session has done with it
	// welcome puts the answer to a resumption into the one that the stream waits for; nil if it stands by itself.
	welcome func(s *Session, resumed *element.Element) *element.Element
}

// inbound is what a reader read.
type inbound struct {
	l   *link
	el  *element.Element
	err error
	// told is the count that the reader has answered an <r/> with; -1 for none.
	told int64
}

// sent is a stanza on its way to the client.
type sent struct {
	el   *element.Element
	feed core.Feed // of the message in it, else zero
}

// Why a session ends.
var (
	errBye      = errors.New("the client closed its stream")
	errReplaced = stream.Errorf(stream.Conflict, "another client took the resource")
	errBehind   = stream.Errorf(stream.Reset, "too much has happened meanwhile: connect again")
	errOver     = stream.Errorf(stream.SystemShutdown, "")
)

// Account is whose session it is.
func (s *Session) Account() core.Address { return s.account }

// JID is the client's full JID.
func (s *Session) JID() translate.JID { return s.jid }

// ID names the session among those of the account in the hub: [hub.Draft.From].
func (s *Session) ID() string { return s.hub.ID() }

// Server returns the server that holds the session.
func (s *Session) Server() *Server { return s.srv }

// Log is for what concerns the session. It is made when it is needed, which is seldom.
func (s *Session) Log() *slog.Logger {
	return s.srv.Log.With("account", s.account.Bare(), "resource", s.jid.Resource)
}

// Available says whether the client has sent initial presence. Any goroutine may ask.
func (s *Session) Available() bool { return s.state.available.Load() }

// Presence is the client's last presence, nil before the first.
func (s *Session) Presence() *element.Element { return s.presence }

// Value and SetValue keep what a service needs to know of the session.
func (s *Session) Value(key any) any { return s.values[key] }

// SetValue keeps a value until the session ends; nil deletes it.
func (s *Session) SetValue(key, value any) {
	if value == nil {
		delete(s.values, key)
		return
	}
	s.values[key] = value
}

// run is the session's goroutine.
func (s *Session) run(ctx context.Context) {
	defer s.srv.wg.Done()
	for s.ended == nil {
		if s.srv.keep.Do(func() error { s.step(ctx); return nil }) != nil {
			s.fail(stream.Errorf(stream.InternalServerError, ""))
		}
		s.askAck()
	}
	s.end(context.WithoutCancel(ctx))
}

// step waits for one thing to do and does it. While the client reads too slowly, it does nothing but wait for it.
func (s *Session) step(ctx context.Context) {
	inbox, mail, news := s.inbox, s.mail.ready, s.hub.Ready()
	if len(s.waiting) > 0 {
		inbox, mail, news = nil, nil, nil
	}
	var expiry <-chan time.Time
	if s.expiry != nil {
		expiry = s.expiry.C
	}
	select {
	case m := <-inbox:
		s.fromClient(ctx, m)
	case <-mail:
		if st := s.mail.take(); st != nil {
			s.SendAway(st)
		}
	case <-news:
		s.readNews(ctx)
	case f := <-s.calls:
		f(ctx)
	case l := <-s.drained:
		if l == s.link {
			waiting := s.waiting
			s.waiting = nil
			s.write(waiting...)
		}
	case <-expiry:
		s.fail(errBye)
	case <-ctx.Done():
		s.fail(errOver)
	}
}

// readNews takes what the hub has to tell, but no more than the client reads.
func (s *Session) readNews(ctx context.Context) {
	for s.ended == nil && len(s.waiting) == 0 {
		n, ok := s.hub.TryNext()
		if !ok {
			if s.hub.Closed() {
				s.fail(stream.Errorf(stream.NotAuthorized, "the session was ended"))
			}
			return
		}
		if err := s.news(ctx, n); err != nil {
			s.Log().Error("telling a client", "err", err)
			s.fail(stream.Errorf(stream.InternalServerError, ""))
		}
	}
}

// call has f called by the session's goroutine; false if the session is over. It may end before it comes to f: who waits for f waits
// for the end as well.
func (s *Session) call(f func(context.Context)) bool {
	select {
	case s.calls <- f:
		return true
	case <-s.done:
		return false
	}
}

// outcome waits for the answer of what was called, which has room for it; false if the session ended first.
func (s *Session) outcome(ok <-chan bool) bool {
	select {
	case is := <-ok:
		return is
	case <-s.done:
	}
	select {
	case is := <-ok:
		return is
	default:
		return false
	}
}

// post gives the session a stanza for its client; false if it is over or has too many waiting. Any goroutine may call it.
func (s *Session) post(st *element.Element) bool {
	select {
	case <-s.done:
		return false
	default:
	}
	return s.mail.put(st)
}

// fail ends the session.
func (s *Session) fail(why error) {
	if s.ended == nil {
		s.ended = why
	}
}

// fromClient deals with what a reader read. The client is first told what has happened before.
func (s *Session) fromClient(ctx context.Context, m inbound) {
	s.readNews(ctx)
	if m.l != s.link {
		return // a stream that was replaced
	}
	if m.err != nil {
		s.lost(ctx, m.err)
		return
	}
	s.probed = false
	if m.el.Name.Space == nsSM {
		s.management(ctx, m)
		return
	}
	if m.el.Name.Space != translate.NSClient {
		if !s.clientState(m.el) {
			s.fail(stream.Errorf(stream.UnsupportedStanzaType, "no such element"))
		}
		return
	}
	p := parked{st: m.el}
	if s.in != nil {
		p.n = s.in.Receive()
	}
	if s.stamp(m.el) {
		s.deal(ctx, p, func() error { return s.stanza(ctx, m.el) })
	}
}

// lost is what becomes of the session when its stream ends: closed in good order it is over, else it waits.
//
// spec: XEP-0198 §5
func (s *Session) lost(ctx context.Context, err error) {
	var se *stream.Error
	switch {
	case errors.Is(err, stream.ErrIdle) && !s.probed:
		s.probe()
	case errors.Is(err, io.EOF):
		s.fail(errBye)
	case errors.As(err, &se) && !se.FromPeer:
		s.fail(err)
	case s.smID == "" || s.in == nil:
		s.fail(errBye)
	default:
		s.unlink(nil)
		s.pushUnacked()
		s.keepCount(ctx)
		s.expiry = time.NewTimer(s.srv.Resume)
		s.away.Store(time.Now().UnixNano())
	}
}

// probe asks a client that has said nothing for long whether it is still there: any answer will do.
//
// spec: XEP-0199 §4.1
func (s *Session) probe() {
	s.probed = true
	if s.out != nil {
		s.asked = true
		s.write(element.New(nsSM, "r"))
		return
	}
	ping := element.New(translate.NSClient, "iq").SetAttr("type", "get").SetAttr("from", s.jid.Domain)
	ping.Add(nsPing, "ping")
	s.request(ping, func(*element.Element) {})
}

// unlink lets go of the stream; why, if not nil, is told to the client.
func (s *Session) unlink(why error) {
	if s.link == nil {
		return
	}
	s.link.close(why)
	s.link, s.waiting, s.asked = nil, nil, false
	s.noteAway()
}

// close ends the stream without waiting for the client; why, if not nil, is told.
func (l *link) close(why error) {
	go func() {
		l.conn.Close(why)
		close(l.released)
	}()
}

// end does what is to be done when a session is over. ctx does not end with the server.
func (s *Session) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, f := range []func(context.Context){s.gone, s.keepCount} {
		_ = s.srv.keep.Do(func() error { f(ctx); return nil })
	}
	s.srv.remove(s)
	s.hub.Close()
	close(s.done)
	why := s.ended
	if errors.Is(why, errBye) {
		why = nil
	}
	s.unlink(why)
	s.Log().Debug("session ended", "why", s.ended)
}

// Send sends a stanza to the client.
func (s *Session) Send(el *element.Element) { s.send(el, 0) }

// SendAway sends a stanza that can wait while the client is inactive, or be dropped for a newer one.
func (s *Session) SendAway(el *element.Element) {
	if s.hold(el) {
		return
	}
	s.send(el, 0)
}

// send sends a stanza. One that carries a message of the feed number counts for what the account has received.
func (s *Session) send(el *element.Element, feed core.Feed) {
	if s.ended != nil {
		return
	}
	if el.Name.Local == "message" && s.link != nil {
		s.release() // the radio is on now, and nothing is to overtake what it answers
	}
	s.emit(el, feed)
}

func (s *Session) emit(el *element.Element, feed core.Feed) {
	if s.out != nil {
		if _, err := s.out.Push(sent{el, feed}); err != nil {
			s.fail(errBehind)
			return
		}
	} else {
		s.srv.cursors.seen(s.account, feed)
	}
	s.write(el)
}

// write puts elements on the stream, or lets them wait for it.
func (s *Session) write(els ...*element.Element) {
	for i, el := range els {
		if s.link == nil {
			return
		}
		if len(s.waiting) > 0 {
			s.waiting = append(s.waiting, el)
			continue
		}
		err := s.link.conn.Send(el)
		if !errors.Is(err, stream.ErrQueueFull) {
			continue // other errors the reader hears of too
		}
		s.waiting = append(s.waiting, els[i])
		l := s.link
		go func() {
			_ = l.conn.Flush() // if it fails, so does the reader
			select {
			case s.drained <- l:
			case <-s.done:
			}
		}()
	}
}
