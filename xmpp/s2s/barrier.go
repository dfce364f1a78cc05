package s2s

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

const nsPing = "urn:xmpp:ping" // XEP-0199

// errNoAnswer is for a server that took a stream but answered no ping on it.
var errNoAnswer = errors.New("no answer to a ping")

// pings are those that wait for an answer, by id.
type pings struct {
	mu sync.Mutex
	m  map[string]ping
}

type ping struct {
	pair     stream.Pair
	answered chan struct{}
}

// new makes a ping from one of our domains to another server's.
//
// spec: XEP-0199 §4.3
func (p *pings) new(pair stream.Pair) (iq *element.Element, answered <-chan struct{}, forget func()) {
	id, ch := core.NewToken(), make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		p.m = map[string]ping{}
	}
	p.m[id] = ping{pair, ch}
	iq = element.New(translate.NSClient, "iq").SetAttr("type", "get").SetAttr("id", id)
	iq.SetAttr("from", pair.Local).SetAttr("to", pair.Remote)
	iq.Add(nsPing, "ping")
	return iq, ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.m, id)
	}
}

// answer takes a stanza that answers a ping: a result or an error is all one.
func (p *pings) answer(st *element.Element, from, to translate.JID) bool {
	if t := st.Attr("type"); st.Name.Local != "iq" || t != "result" && t != "error" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.m[st.Attr("id")]
	if !ok || from != (translate.JID{Domain: w.pair.Remote}) || to != (translate.JID{Domain: w.pair.Local}) {
		return false
	}
	delete(p.m, st.Attr("id"))
	close(w.answered)
	return true
}

// silence remembers servers that answer no pings.
type silence struct {
	mu sync.Mutex
	m  map[string]silent
}

type silent struct {
	misses int
	until  time.Time // that it is not asked
}

// silentFor is for how long a server is not asked that does not answer.
const silentFor = time.Hour

// asks says whether a server is to be asked.
func (s *silence) asks(remote string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !time.Now().Before(s.m[remote].until)
}

func (s *silence) heard(remote string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, remote)
}

// missed notes that a server did not answer; it says whether that happened before, so that it is not asked for a while.
func (s *silence) missed(remote string) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]silent{}
	}
	was := s.m[remote]
	was.misses++
	if again = was.misses > 1; again {
		was.until = time.Now().Add(silentFor)
	}
	s.m[remote] = was
	return again
}

// hand gives stanzas over to the other server and returns nil when it has taken them.
func (c *Carrier) hand(ctx context.Context, pair stream.Pair, stanzas []*element.Element) error {
	// Components answer no pings, most of them, and are near: that the stream took it must do.
	asks := !c.component(pair.Remote) && c.silence.asks(pair.Remote)
	var answered <-chan struct{}
	if asks {
		iq, ch, forget := c.pings.new(pair)
		defer forget()
		answered, stanzas = ch, append(stanzas, iq)
	}
	type outcome struct {
		ln  *line
		err error
	}
	sent := make(chan outcome, 1)
	c.send(cargo{stanzas: stanzas, owed: true, report: func(ln *line, err error) { sent <- outcome{ln, err} }})
	var o outcome
	select {
	case o = <-sent:
	case <-ctx.Done():
		return ctx.Err()
	}
	if o.err != nil {
		return o.err
	}
	if !asks {
		return c.unconfirmed(o.ln)
	}
	late := time.NewTimer(c.cfg.Answer)
	defer late.Stop()
	select {
	case <-answered:
		c.silence.heard(pair.Remote)
		return nil
	case <-o.ln.ended:
		return o.ln.why
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
	}
	if c.silence.missed(pair.Remote) {
		c.log.Warn("a server answers no pings; for an hour it is taken at its word that it takes what it is sent", "remote", pair.Remote)
		return c.unconfirmed(o.ln)
	}
	o.ln.Abort() // perhaps nobody is there any more: what comes next finds out
	return errNoAnswer
}

// unconfirmed is as much as can be known of a server that says nothing.
func (c *Carrier) unconfirmed(ln *line) error {
	if err := ln.Flush(); err != nil {
		return err
	}
	if !ln.up() {
		<-ln.ended
		return ln.why
	}
	c.cfg.Count.Count("s2s_unconfirmed")
	return nil
}
