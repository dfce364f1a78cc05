package c2s_test

import (
	"testing"

	"parley/core"
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

// What a network could not carry of a message is told to its sender.
func TestLossIsTold(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends+`
alice sends:
  <message to='bob@example.org' type='chat' id='a-bold-message'><body>bold</body></message>
bob receives:
  <message id='a-bold-message'><stanza-id xmlns='urn:xmpp:sid:0' id='{sid}'/></message>
bob sends:
  <iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>
bob receives:
  <iq type='result' id='q'/>
`, nil)
	var id core.EventID
	err := s.Hub.Read(t.Context(), func(v hub.View) error {
		events, err := v.Page(hub.Query{For: s.Account("alice"), Directs: true, Kinds: []core.Kind{core.KindMessage}})
		if err == nil {
			id = events[0].ID
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	lost := []core.Loss{{Feature: core.FeatureFormatting, Fallback: "plain text"}}
	if err := s.Hub.Report(t.Context(), hub.Report{Event: id, To: s.Account("bob"), Stage: core.StageThere, Losses: lost}); err != nil {
		t.Fatal(err)
	}
	s.Run(`
alice receives:
  <message type='headline' from='example.org'><body>bob@example.org gets your message without: formatting (as plain text)</body></message>
`, nil)
}

// What a stranger says while she is let in comes once: what she said before, when she is, and what she says then as it happens.
func TestLettingInWhileItIsSaid(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(`
alice connects
bob connects
bob is available
alice sends:
  <message to='bob@example.org' type='chat' id='before-it-1'><body>are you there?</body></message>
bob receives:
  <presence type='subscribe' from='alice@example.org'/>
`, nil)
	alice, bob := s.Account("alice"), s.Account("bob")
	var direct core.ConvID
	err := s.Hub.Read(t.Context(), func(v hub.View) error {
		all, err := v.Directs(alice, bob)
		if err == nil {
			direct = all[0]
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	held, release := make(chan struct{}), make(chan struct{})
	go func() {
		_ = s.Hub.Write(t.Context(), func(hub.Tx) error {
			close(held)
			<-release // so that both of what follows are on disk before anybody hears of either
			return nil
		})
	}()
	<-held
	done := make(chan error, 2)
	go func() {
		_, err := s.Hub.Accept(t.Context(), hub.JoinRequest{Conv: direct, Who: bob})
		done <- err
	}()
	go func() {
		_, err := s.Hub.SubmitDirect(t.Context(), bob, hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody("meanwhile")}})
		done <- err
	}()
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	s.Run(`
bob receives:
  <message id='before-it-1'/>
alice sends:
  <message to='bob@example.org' type='chat' id='after-it-1'><body>the last</body></message>
bob receives:
  <message id='after-it-1'/>
bob receives:
  <message><body>meanwhile</body></message>
bob does not receive:
  <message><body>meanwhile</body></message>
`, nil)
}
