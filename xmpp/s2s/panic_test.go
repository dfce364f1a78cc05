package s2s_test

import (
	"sync/atomic"
	"testing"

	"parley/xmpp/s2s"
	"parley/xmpp/stream"
)

// mistaken are components of which a question for the domain of rooms panics, once it is armed.
type mistaken struct{ armed *atomic.Bool }

func (m mistaken) Has(domain string) bool {
	if domain == "rooms.a.test" && m.armed.Swap(false) {
		panic("a mistake")
	}
	return false
}

func (mistaken) Stream(string) (*stream.Conn, <-chan struct{}, bool) { return nil, nil, false }

// A panic where a stanza of another server is dealt with is an error for who sent it; the stream goes on.
func TestPanic(t *testing.T) {
	w := newWorld()
	var armed atomic.Bool
	a := newNode(t, w, "a.test", func(c *s2s.Config) { c.Components = mistaken{&armed} })
	bob := newNode(t, w, "b.test", nil).connect("bob")
	ask := func(id, want string) {
		bob.Send(parse(t, `<iq type='get' id='`+id+`' to='rooms.a.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`))
		stanza(bob, "iq", want, "rooms.a.test", "", "")
	}
	ask("i1", "result")
	armed.Store(true)
	ask("i2", "error")
	ask("i3", "result")
	if got := a.counts.get("panics s2s"); got != 1 {
		t.Errorf("counted %d", got)
	}
}
