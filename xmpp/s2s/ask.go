package s2s

import (
	"context"
	"sync"

	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// questions are iqs of ours on behalf of accounts that wait for an answer, by id.
type questions struct {
	mu sync.Mutex
	m  map[string]asked
}

type asked struct {
	from, to translate.JID // who asks whom
	answer   chan *element.Element
}

// answer takes a stanza that answers a question. It must come from whom was asked.
func (q *questions) answer(st *element.Element, from, to translate.JID) bool {
	if t := st.Attr("type"); st.Name.Local != "iq" || t != "result" && t != "error" {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	w, ok := q.m[st.Attr("id")]
	if !ok || from != w.to || to != w.from {
		return false
	}
	delete(q.m, st.Attr("id"))
	w.answer <- st
	return true
}

// Ask sends an iq to another server on behalf of an account and returns the answer, which may be an error stanza. It must not be called
// where stanzas of other servers are dealt with: the answer may be behind the one that is being dealt with.
//
// spec: RFC 6120 §8.2.3
func (c *Carrier) Ask(ctx context.Context, iq *element.Element) (*element.Element, error) {
	from, err := translate.ParseJID(iq.Attr("from"))
	if err != nil {
		return nil, err
	}
	to, err := translate.ParseJID(iq.Attr("to"))
	if err != nil {
		return nil, err
	}
	id, w := iq.Attr("id"), asked{from: from, to: to, answer: make(chan *element.Element, 1)}
	c.asked.mu.Lock()
	if c.asked.m == nil {
		c.asked.m = map[string]asked{}
	}
	c.asked.m[id] = w
	c.asked.mu.Unlock()
	defer func() {
		c.asked.mu.Lock()
		defer c.asked.mu.Unlock()
		delete(c.asked.m, id)
	}()
	failed := make(chan error, 1)
	c.send(cargo{stanzas: []*element.Element{iq}, report: func(_ *line, err error) {
		if err != nil {
			failed <- err
		}
	}})
	select {
	case st := <-w.answer:
		return st, nil
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ctx.Done():
		return nil, errClosing
	}
}
