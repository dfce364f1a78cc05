package c2s_test

import (
	"testing"

	"parley/hub"
	"parley/xmpp/xmpptest"
)

// A client that asks while the disk is busy is answered with what is on disk
// by then, and again when the rest is.
//
// spec: XEP-0198 §4
func TestAskedAtOnce(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends+`
alice sends:
  <enable xmlns='urn:xmpp:sm:3'/>
alice receives:
  <enabled xmlns='urn:xmpp:sm:3'/>
`, nil)
	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Hub.Write(t.Context(), func(hub.Tx) error {
			close(held)
			<-release // the one writer waits, as for a slow disk
			return nil
		})
	}()
	<-held
	s.Run(`
alice sends:
  <message to='bob@example.org' type='chat' id='waits-for-the-disk'><body>hello</body></message>
  <r xmlns='urn:xmpp:sm:3'/>
alice receives:
  <a xmlns='urn:xmpp:sm:3' h='0'/>
`, nil)
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.Run(`
alice receives:
  <a xmlns='urn:xmpp:sm:3' h='1'/>
bob receives:
  <message id='waits-for-the-disk'/>
`, nil)
}
