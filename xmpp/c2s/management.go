package c2s

import (
	"context"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/stream/sm"
	"parley/xmpp/translate"
)

// maxStreams is how many resumable streams of one account are remembered, and keepStreams for how long.
const (
	maxStreams  = 50
	keepStreams = 14 * 24 * time.Hour
)

// management deals with the elements of stream management.
//
// spec: XEP-0198 §3
// spec: XEP-0198 §4
func (s *Session) management(ctx context.Context, m inbound) {
	el := m.el
	switch el.Name.Local {
	case "enable":
		s.enable(ctx, el)
	case "r":
		if s.in != nil && m.told != int64(s.in.H()) {
			s.tellDurable(m.l)
		}
	case "a":
		if s.out != nil {
			s.acknowledged(el)
		}
	default:
		s.write(smFailed(translate.UnexpectedRequest.Name))
	}
}

// answerAtOnce answers a client that asks how much of what it sent is on disk, with what is by now: the session may be waiting for
// the disk. When it comes to the question itself, all that the client sent before is on disk, and it tells if that is more. Called by
// the reader.
func (s *Session) answerAtOnce(l *link, el *element.Element) (told int64) {
	if !el.Is(nsSM, "r") {
		return -1
	}
	return s.tellDurable(l)
}

// tellDurable tells the client how many of its stanzas are on disk, and returns that; -1 if it could not. The count never goes down
// from one time to the next, whichever goroutine tells it. To a client that reads nothing, nothing is told: it asks again.
func (s *Session) tellDurable(l *link) int64 {
	s.state.telling.Lock()
	defer s.state.telling.Unlock()
	h := s.state.durable.Load() - 1
	if h < 0 || l.conn.Send(element.New(nsSM, "a").SetAttr("h", count(sm.Counter(h)))) != nil {
		return -1
	}
	return h
}

func (s *Session) enable(ctx context.Context, el *element.Element) { s.write(s.enabled(ctx, el)) }

// enabled enables stream management and returns what to tell the client.
func (s *Session) enabled(ctx context.Context, el *element.Element) *element.Element {
	if s.in != nil {
		return smFailed(translate.UnexpectedRequest.Name)
	}
	answer := element.New(nsSM, "enabled")
	if r := el.Attr("resume"); r == "true" || r == "1" {
		id := core.NewToken()
		if err := s.srv.Hub.Write(ctx, func(tx hub.Tx) error { return newStream(tx, id, s.account) }); err != nil {
			s.Log().Error("enabling stream management", "err", err)
			return smFailed(translate.InternalServerError.Name)
		}
		s.smID = id
		s.srv.mu.Lock()
		s.srv.streams[id] = s
		s.srv.mu.Unlock()
		answer.SetAttr("id", id).SetAttr("resume", "true").SetAttr("max", strconv.Itoa(int(s.srv.Resume.Seconds())))
	}
	s.in, s.out = sm.NewInbound(0), sm.NewOutbound[sent](0, s.srv.MaxUnacked)
	s.state.durable.Store(1)
	return answer
}

// acknowledged takes the client's count: what it has, the account has received.
func (s *Session) acknowledged(el *element.Element) {
	s.asked = false
	h, err := strconv.ParseUint(el.Attr("h"), 10, 32)
	if err != nil {
		s.fail(stream.Errorf(stream.BadFormat, "h is a number"))
		return
	}
	done, err := s.out.Ack(sm.Counter(h))
	if err != nil {
		s.fail(tooMany(err))
		return
	}
	s.received(done)
}

func (s *Session) received(done []sent) {
	var feed core.Feed
	for _, d := range done {
		feed = max(feed, d.feed)
	}
	s.srv.cursors.seen(s.account, feed)
}

// tooMany is the stream error for a client that has acknowledged more than there was.
//
// spec: XEP-0198 §4
func tooMany(err error) error {
	e := &stream.Error{Condition: stream.UndefinedCondition, Text: "more was acknowledged than sent", Err: err}
	if h, ok := err.(*sm.HandledTooManyError); ok {
		e.Extra = element.New(nsSM, "handled-count-too-high").SetAttr("h", count(h.H)).SetAttr("send-count", count(h.SendCount))
	}
	return e
}

// askAck asks the client for its count when there is something that it has not acknowledged.
func (s *Session) askAck() {
	if s.out != nil && s.link != nil && !s.asked && s.out.Len() > 0 {
		s.asked = true
		s.write(element.New(nsSM, "r"))
	}
}

// resume takes a session up again on a new stream, or tells the client why not.
//
// spec: XEP-0198 §5
func (srv *Server) resume(ctx context.Context, conn *stream.Conn, account core.Address, el *element.Element) (*Session, *link) {
	l := &link{conn: conn, released: make(chan struct{})}
	s, failed := srv.take(ctx, l, account, el)
	if s == nil {
		_ = conn.Send(failed)
		return nil, nil
	}
	return s, l
}

// take has a session that waits for its client go on with l, or says how many stanzas of the old stream are on disk.
func (srv *Server) take(ctx context.Context, l *link, account core.Address, el *element.Element) (s *Session, failed *element.Element) {
	id := el.Attr("previd")
	h, err := strconv.ParseUint(el.Attr("h"), 10, 32)
	if err != nil {
		return nil, smFailed(translate.BadRequest.Name)
	}
	srv.mu.Lock()
	s = srv.streams[id]
	srv.mu.Unlock()
	if s != nil && s.account == account {
		ok := make(chan bool, 1)
		if s.call(func(context.Context) { ok <- s.resumed(l, sm.Counter(h)) }) && s.outcome(ok) {
			return s, nil
		}
	}
	failed = smFailed(translate.ItemNotFound.Name)
	var handled int64
	err = srv.Hub.Read(ctx, func(v hub.View) error {
		return hubstore.Querier(v).QueryRow(`SELECT handled FROM xmpp_streams WHERE id = $1 AND account = $2`,
			id, account.String()).Scan(&handled)
	})
	if err == nil {
		failed.SetAttr("h", strconv.FormatInt(handled, 10))
	} else if !store.NotFound(err) {
		srv.Log.Error("reading the count of a stream", "err", err)
	}
	return nil, failed
}

// resumed gives the session its new stream and sends again what the old one may have lost.
func (s *Session) resumed(l *link, h sm.Counter) bool {
	done, again, err := s.out.Resume(h)
	if err != nil {
		s.fail(tooMany(err))
		return false
	}
	s.unlink(stream.Errorf(stream.Conflict, "resumed elsewhere"))
	s.received(done)
	s.link, s.asked, s.probed = l, false, false
	s.away.Store(0)
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	answer := element.New(nsSM, "resumed").SetAttr("previd", s.smID).SetAttr("h", count(s.in.H()))
	if l.welcome != nil {
		answer = l.welcome(s, answer)
	}
	s.write(answer)
	for _, d := range again {
		s.write(d.el)
	}
	s.inactive = false // spec: XEP-0352 §5.2
	s.noteAway()
	s.release()
	return true
}

func smFailed(condition string) *element.Element {
	return element.New(nsSM, "failed").Append(element.New(translate.NSStanzas, condition))
}

func count(c sm.Counter) string { return strconv.FormatUint(uint64(c), 10) }

// Counted puts the count of the stanza being dealt with on disk in the turn of what it does: for [hub.Draft.With] and its like. It does
// not go beyond one that is not dealt with yet.
func (s *Session) Counted(tx hub.Tx) error {
	if s.smID == "" || s.in == nil {
		return nil
	}
	n := s.handling
	if n != s.in.H()+1 {
		n = s.in.H()
	}
	return putCount(tx, s.smID, n)
}

// keepCount puts on disk how many stanzas were dealt with, those without a turn of their own too.
func (s *Session) keepCount(ctx context.Context) {
	if s.smID == "" || s.in == nil {
		return
	}
	id, h := s.smID, s.in.H()
	if err := s.srv.Hub.Write(ctx, func(tx hub.Tx) error { return putCount(tx, id, h) }); err != nil {
		s.Log().Error("keeping the count of a stream", "err", err)
	}
}

func putCount(tx hub.Tx, id string, h sm.Counter) error {
	_, err := hubstore.Tx(tx).Exec(`UPDATE xmpp_streams SET handled = $1, changed = $2 WHERE id = $3`,
		int64(h), time.Now().UnixMilli(), id)
	return err
}

// newStream makes the row of a stream and deletes the oldest of an account that makes too many.
func newStream(tx hub.Tx, id string, account core.Address) error {
	q := hubstore.Tx(tx)
	_, err := q.Exec(`DELETE FROM xmpp_streams WHERE account = $1 AND id NOT IN
		(SELECT id FROM xmpp_streams WHERE account = $1 ORDER BY changed DESC LIMIT $2)`, account.String(), int64(maxStreams))
	if err == nil {
		_, err = q.Exec(`INSERT INTO xmpp_streams (id, account, handled, changed) VALUES ($1, $2, 0, $3)`,
			id, account.String(), time.Now().UnixMilli())
	}
	return err
}

func cleanStreams(tx hub.Tx) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_streams WHERE changed < $1`, time.Now().Add(-keepStreams).UnixMilli())
	return err
}
