package muc_test

import (
	"context"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/store/storetest"
	"parley/xmpp/element"
	"parley/xmpp/muc"
	"parley/xmpp/xmpptest"
)

// withRooms adds the room service to a test server.
func withRooms(t *testing.T) func(*xmpptest.Server) {
	return xmpptest.Setup(func(s *xmpptest.Server) {
		if err := muc.Migrate(context.Background(), s.DB); err != nil {
			t.Fatal(err)
		}
		rooms := muc.New(muc.Config{
			Hub: s.Hub, Names: s.C2S.Names(), Base: "https://example.org", Secret: []byte("secret"), Log: storetest.Log(t),
			Route: func(el *element.Element) { s.C2S.Deliver(context.Background(), el) },
		})
		s.C2S.AddService("rooms", muc.Local{Service: rooms})
	})
}

// garden is how most scripts begin: alice has made a room and bob is in it.
const garden = `
alice connects
alice is available
bob connects
bob is available
alice sends:
  <presence to='garden@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='garden@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='owner' role='moderator' jid='alice@example.org'/><status code='100'/><status code='110'/><status code='201'/></x></presence>
  <message type='groupchat' from='garden@rooms.example.org'><subject/></message>
bob sends:
  <presence to='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc'/></presence>
bob receives:
  <presence from='garden@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='owner'/></x></presence>
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x></presence>
  <message type='groupchat'><subject/></message>
alice receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'/></presence>
`

func play(t *testing.T, scripts ...string) *xmpptest.Server {
	t.Helper()
	s := xmpptest.New(t, withRooms(t))
	for _, script := range scripts {
		s.Run(script, nil)
	}
	return s
}

// spec: XEP-0045 §7
func TestEnterAndSpeak(t *testing.T) {
	play(t, garden, `
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='m1-of-bob-here'><body>hello</body><x xmlns='urn:example:extra'/></message>
bob receives:
  <message from='garden@rooms.example.org/Bob' type='groupchat' id='m1-of-bob-here'><body>hello</body><stanza-id xmlns='urn:xmpp:sid:0' by='garden@rooms.example.org' id='{m1}'/></message>
alice receives:
  <message from='garden@rooms.example.org/Bob' type='groupchat' id='m1-of-bob-here'><body>hello</body><x xmlns='urn:example:extra'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='*'/><stanza-id xmlns='urn:xmpp:sid:0' id='{m1}'/></message>
`, `
# another client of bob's has his nick, the history and no second arrival
bob/desk connects
bob/desk is available
bob/desk sends:
  <presence to='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc'/></presence>
bob/desk receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/><status code='210'/></x></presence>
  <message from='garden@rooms.example.org/Bob' type='groupchat'><body>hello</body><delay xmlns='urn:xmpp:delay'/></message>
alice does not receive:
  <presence from='garden@rooms.example.org/Bob'/>
`)
}

// Corrections, reactions, retractions and replies refer to stanza-ids.
func TestWhatIsSaidOfMessages(t *testing.T) {
	play(t, garden, `
alice sends:
  <message to='garden@rooms.example.org' type='groupchat' id='first-of-alice'><body>helo</body></message>
alice receives:
  <message id='first-of-alice'><stanza-id xmlns='urn:xmpp:sid:0' id='{first}'/></message>
alice sends:
  <message to='garden@rooms.example.org' type='groupchat' id='second-of-alice'><body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='first-of-alice'/></message>
bob receives:
  <message from='garden@rooms.example.org/Alice'><body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='first-of-alice'/></message>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='reaction-of-bob'><reactions xmlns='urn:xmpp:reactions:0' id='{first}'><reaction>👍</reaction><reaction>🎉</reaction></reactions></message>
alice receives:
  <message from='garden@rooms.example.org/Bob' id='reaction-of-bob'><reactions xmlns='urn:xmpp:reactions:0' id='{first}'><reaction>*</reaction></reactions></message>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='retraction-of-bob'><retract xmlns='urn:xmpp:message-retract:1' id='{first}'/></message>
bob receives:
  <message type='error'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice sends:
  <message to='garden@rooms.example.org' type='groupchat' id='retraction-of-alice'><retract xmlns='urn:xmpp:message-retract:1' id='{first}'/></message>
bob receives:
  <message from='garden@rooms.example.org/Alice'><retract xmlns='urn:xmpp:message-retract:1' id='{first}'/></message>
`)
}

// Some clients name their own message by its id where the stanza-id is due.
func TestRetractionByOwnID(t *testing.T) {
	play(t, garden, `
alice sends:
  <message to='garden@rooms.example.org' type='groupchat' id='a-slip-of-alice'><body>oops</body></message>
alice receives:
  <message id='a-slip-of-alice'><body>oops</body></message>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='retraction-of-bob'><retract xmlns='urn:xmpp:message-retract:1' id='a-slip-of-alice'/></message>
bob receives:
  <message type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice sends:
  <message to='garden@rooms.example.org' type='groupchat' id='retraction-of-alice'><retract xmlns='urn:xmpp:message-retract:1' id='a-slip-of-alice'/></message>
bob receives:
  <message from='garden@rooms.example.org/Alice'><retract xmlns='urn:xmpp:message-retract:1' id='a-slip-of-alice'/></message>
`)
}

// spec: XEP-0045 §8
// spec: XEP-0045 §9
func TestModeration(t *testing.T) {
	play(t, garden, `
bob sends:
  <iq type='set' id='k0' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='Alice' role='none'/></query></iq>
bob receives:
  <iq type='error' id='k0'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
alice sends:
  <iq type='set' id='k1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='Bob' role='none'><reason>enough</reason></item></query></iq>
bob receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item role='none'><reason>enough</reason></item><status code='307'/></x></presence>
alice receives:
  <iq type='result' id='k1'/>
  <presence type='unavailable' from='garden@rooms.example.org/Bob'/>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='too-late-for-bob'><body>but</body></message>
bob receives:
  <message type='error' id='too-late-for-bob'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice sends:
  <iq type='set' id='b1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#admin'><item jid='bob@example.org' affiliation='outcast'/></query></iq>
alice receives:
  <iq type='result' id='b1'/>
bob sends:
  <presence to='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc'/></presence>
bob receives:
  <presence type='error'><x xmlns='http://jabber.org/protocol/muc'/><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
alice sends:
  <iq type='get' id='l1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='outcast'/></query></iq>
alice receives:
  <iq type='result' id='l1'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='outcast' jid='bob@example.org'/></query></iq>
`)
}

// spec: XEP-0045 §7.6
// spec: XEP-0045 §7.2.8
func TestNicks(t *testing.T) {
	play(t, garden, `
bob sends:
  <presence to='garden@rooms.example.org/Alice'/>
bob receives:
  <presence type='error'><error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
bob sends:
  <presence to='garden@rooms.example.org/Robert'/>
alice receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item nick='Robert'/><status code='303'/></x></presence>
  <presence from='garden@rooms.example.org/Robert'/>
bob receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><status code='303'/></x></presence>
  <presence from='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
`)
}

// Membership outlives the session; being in the room does not.
func TestLeavingIsOfTheSession(t *testing.T) {
	s := play(t, garden, `
bob sends:
  <presence type='unavailable' to='garden@rooms.example.org/Bob'/>
bob receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
alice does not receive:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'/>
bob sends:
  <iq type='get' id='p1' to='garden@rooms.example.org/Bob'><ping xmlns='urn:xmpp:ping'/></iq>
bob receives:
  <iq type='error' id='p1'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
`)
	conv := conversation(t, s.Hub, "garden")
	if st := state(t, s.Hub, conv).Standing(s.Account("bob")); st != core.Joined {
		t.Errorf("bob is %s after his client left", st)
	}
}

// spec: XEP-0045 §10
func TestConfiguration(t *testing.T) {
	s := play(t, garden, `
bob sends:
  <iq type='get' id='c0' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'/></iq>
bob receives:
  <iq type='error' id='c0'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
alice sends:
  <iq type='set' id='c1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field><field var='muc#roomconfig_roomname'><value>The Garden</value></field><field var='muc#roomconfig_moderatedroom'><value>1</value></field><field var='muc#roomconfig_membersonly'><value>1</value></field><field var='muc#roomconfig_publicroom'><value>1</value></field></x></query></iq>
alice receives:
  <iq type='result' id='c1'/>
bob receives:
  <message type='groupchat'><x xmlns='http://jabber.org/protocol/muc#user'><status code='104'/></x></message>
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item role='visitor'/></x></presence>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='no-voice-for-bob'><body>hello</body></message>
bob receives:
  <message type='error' id='no-voice-for-bob'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice sends:
  <iq type='set' id='v1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='Bob' role='participant'/></query></iq>
bob receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item role='participant'/></x></presence>
alice sends:
  <iq type='get' id='d1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
alice receives:
  <iq type='result' id='d1'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' name='The Garden'/><feature var='muc_membersonly'/><feature var='muc_moderated'/><feature var='muc_public'/><feature var='muc_nonanonymous'/></query></iq>
alice sends:
  <iq type='get' id='d2' to='rooms.example.org'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
alice receives:
  <iq type='result' id='d2'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='garden@rooms.example.org' name='The Garden'/></query></iq>
carol connects
carol is available
carol sends:
  <presence to='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc'/></presence>
carol receives:
  <presence type='error'><error><registration-required xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
alice sends:
  <message to='garden@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='carol@example.org'><reason>do come</reason></invite></x></message>
carol receives:
  <message from='garden@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='alice@example.org'><reason>do come</reason></invite></x></message>
carol sends:
  <presence to='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='garden@rooms.example.org/Carol'/>
alice sends:
  <iq type='set' id='x1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy jid='park@rooms.example.org'><reason>winter</reason></destroy></query></iq>
bob receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><destroy jid='park@rooms.example.org'><reason>winter</reason></destroy></x></presence>
`)
	err := s.Hub.Read(t.Context(), func(v hub.View) error {
		_, err := v.ConversationAt(core.LocalAddress("garden", "example.org"))
		return err
	})
	if err == nil {
		t.Error("the address of a destroyed room still leads to it")
	}
}

// What is said from a client of another protocol arrives as from any occupant.
func TestOtherProtocols(t *testing.T) {
	s := play(t, garden)
	conv := conversation(t, s.Hub, "garden")
	dora := s.Account("dora")
	if _, err := s.Hub.Join(t.Context(), hub.JoinRequest{Conv: conv, Who: dora, Name: "Dora"}); err != nil {
		t.Fatal(err)
	}
	s.Run(`
bob receives:
  <presence from='garden@rooms.example.org/Dora'><x xmlns='http://jabber.org/protocol/muc#user'><item jid='dora@example.org' role='participant'/></x></presence>
`, nil)
	e, err := s.Hub.Submit(t.Context(), hub.Draft{Conv: conv, Sender: dora, Content: core.Message{Body: core.HTMLBody("good day", "<b>good</b> day")}})
	if err != nil {
		t.Fatal(err)
	}
	s.Run(`
bob receives:
  <message from='garden@rooms.example.org/Dora' type='groupchat' id='{id}'><body>*</body><markable xmlns='urn:xmpp:chat-markers:0'/></message>
bob sends:
  <iq type='set' id='a1' to='garden@rooms.example.org'><query xmlns='urn:xmpp:mam:2' queryid='q'/></iq>
bob receives:
  <message from='garden@rooms.example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='{id}'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='garden@rooms.example.org/Dora'/></forwarded></result></message>
  <iq type='result' id='a1'><fin xmlns='urn:xmpp:mam:2' complete='true'/></iq>
eve connects
eve is available
eve sends:
  <iq type='set' id='a2' to='garden@rooms.example.org'><query xmlns='urn:xmpp:mam:2'/></iq>
eve receives:
  <iq type='error' id='a2'/>
`, map[string]string{"id": string(e.ID)})
}

// A topic is a subject, from either side.
func TestSubject(t *testing.T) {
	s := play(t, garden, `
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='subject-of-bob'><subject>weeds</subject></message>
bob receives:
  <message type='error' id='subject-of-bob'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice sends:
  <message to='garden@rooms.example.org' type='groupchat' id='subject-of-alice'><subject>roses</subject></message>
bob receives:
  <message from='garden@rooms.example.org/Alice' type='groupchat'><subject>roses</subject></message>
`)
	if st := state(t, s.Hub, conversation(t, s.Hub, "garden")); st.Topic != "roses" {
		t.Errorf("the topic is %q", st.Topic)
	}
}

func conversation(t *testing.T, h *hub.Hub, name string) (id core.ConvID) {
	t.Helper()
	err := h.Read(t.Context(), func(v hub.View) (err error) {
		id, err = v.ConversationAt(core.LocalAddress(name, "example.org"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func state(t *testing.T, h *hub.Hub, id core.ConvID) (st *core.State) {
	t.Helper()
	err := h.Read(t.Context(), func(v hub.View) (err error) {
		st, err = v.State(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
