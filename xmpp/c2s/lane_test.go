package c2s_test

import (
	"context"
	"testing"

	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/translate"
	"parley/xmpp/xmpptest"
)

// slow is a service that deals with messages when it is told to, beside the session.
type slow struct{ may chan bool }

func (w slow) Stanza(_ context.Context, s *c2s.Session, st *element.Element) error {
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil || st.Attr("type") == "fast" {
		s.Send(element.New(translate.NSClient, "message").SetAttr("id", "done-"+st.Attr("id")))
		return err
	}
	return s.Beside(to.Bare(), func(ctx context.Context) error {
		select {
		case ok := <-w.may:
			if !ok {
				return hub.Refuse(hub.Unreachable, "it is not there")
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, func(_ context.Context, err error) error {
		if err == nil {
			s.Send(element.New(translate.NSClient, "message").SetAttr("id", "done-"+st.Attr("id")))
		}
		return err
	})
}

func (slow) News(context.Context, *c2s.Session, hub.News) error { return nil }
func (slow) Gone(*c2s.Session)                                  {}

// What takes other servers holds up what goes to the same place, in order, and nothing else. The client's count goes no further than that.
//
// spec: XEP-0198 §4
func TestBeside(t *testing.T) {
	w := slow{make(chan bool)}
	s := xmpptest.New(t, xmpptest.Setup(func(s *xmpptest.Server) { s.C2S.AddService("slow", w) }))
	s.Run(`
alice connects
alice sends:
  <enable xmlns='urn:xmpp:sm:3' resume='true'/>
alice receives:
  <enabled xmlns='urn:xmpp:sm:3'/>
alice sends:
  <message to='a@slow.example.org/x' id='one'/>
  <message to='a@slow.example.org/y' id='two' type='fast'/>
  <message to='b@slow.example.org' id='other' type='fast'/>
  <iq type='get' id='ping' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>
  <r xmlns='urn:xmpp:sm:3'/>
alice receives:
  <message id='done-other'/>
  <iq type='result' id='ping'/>
  <a xmlns='urn:xmpp:sm:3' h='0'/>
alice does not receive:
  <message id='done-two'/>
`, nil)
	w.may <- true
	s.Run(`
alice receives:
  <message id='done-one'/>
  <message id='done-two'/>
alice sends:
  <message to='a@slow.example.org' id='three'/>
  <message to='a@slow.example.org' id='four'/>
`, nil)
	w.may <- false
	s.Run(`
alice receives:
  <message type='error' id='three' from='a@slow.example.org'><error type='wait'><remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
`, nil)
	w.may <- true
	s.Run(`
alice receives:
  <message id='done-four'/>
alice sends:
  <r xmlns='urn:xmpp:sm:3'/>
alice receives:
  <a xmlns='urn:xmpp:sm:3' h='8'/>
`, nil)
}
