package c2s_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/xmpptest"
)

// mistaken is a service that has a mistake: it panics, for any stanza, and for the end of sessions.
type mistaken struct{}

func (mistaken) Stanza(context.Context, *c2s.Session, *element.Element) error { panic("a mistake") }

func (mistaken) News(context.Context, *c2s.Session, hub.News) error { return nil }

func (mistaken) Gone(*c2s.Session) { panic("another mistake") }

// panics counts them.
type panics struct {
	mu sync.Mutex
	n  int
}

func (p *panics) Count(name string, labels ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name == "panics" && strings.Join(labels, " ") == "c2s" {
		p.n++
	}
}

// A panic where a stanza is dealt with is an error for who sent it, and nothing to anybody else.
func TestPanic(t *testing.T) {
	counted := &panics{}
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) { c.Count, c.Log = counted, slog.New(slog.DiscardHandler) }),
		xmpptest.Setup(func(s *xmpptest.Server) { s.C2S.AddService("mistaken", mistaken{}) }))
	s.Run(`
		alice connects
		alice sends:
		  <iq type='get' id='p' to='mistaken.example.org'><ping xmlns='urn:xmpp:ping'/></iq>
		  <message id='m' to='someone@mistaken.example.org'><body>hello</body></message>
		alice receives:
		  <iq type='error' id='p' from='mistaken.example.org'><error type='cancel'>
		    <internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
		alice receives:
		  <message type='error' id='m'><error><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
		alice sends:
		  <iq type='get' id='still' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>
		alice receives:
		  <iq type='result' id='still'/>
	`, nil)
	// Nor does one keep a session from ending.
	s.Run(`
		alice disconnects
		alice connects
		alice sends:
		  <iq type='get' id='again' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>
		alice receives:
		  <iq type='result' id='again'/>
	`, nil)
	counted.mu.Lock()
	defer counted.mu.Unlock()
	if counted.n < 2 {
		t.Errorf("counted %d", counted.n)
	}
}
