package together_test

import (
	"net"
	"net/http"
	"net/url"
	"testing"

	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

// A room of a Matrix server is looked at and entered by its alias, talked in and
// moderated.
func TestRoomElsewhere(t *testing.T) {
	w := newWorld(t)
	room := w.garden(nil)
	w.dave.Say(room, "hello from before")
	w.run(`
alice connects
alice is available
alice sends:
  <iq type='get' id='d1' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='d2' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
  <iq type='get' id='d3' to='` + gardenJID + `/alice'><ping xmlns='urn:xmpp:ping'/></iq>
  <iq type='get' id='d4' to='_matrix_nowhere=40b.test@rooms.example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
alice receives:
  <iq type='result' id='d1' from='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' type='text' name='The Garden'/><feature var='http://jabber.org/protocol/muc'/><feature var='muc_open'/>
    <x xmlns='jabber:x:data'><field var='muc#roominfo_subject'><value>plants</value></field><field var='muc#roominfo_occupants'><value>1</value></field></x></query></iq>
  <iq type='result' id='d2'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
  <iq type='error' id='d3'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='d4'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
alice sends:
  <presence to='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='` + gardenJID + `/dave'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='owner' role='moderator' jid='` + daveJID + `'/></x></presence>
  <presence from='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x></presence>
  <message type='groupchat' from='` + gardenJID + `/dave'><subject>plants</subject></message>
alice sends:
  <message to='` + gardenJID + `' type='groupchat' id='hello-of-alice'><body>hello</body></message>
alice receives:
  <message from='` + gardenJID + `/Alice' id='hello-of-alice'><body>hello</body></message>
`)
	w.dave.Say(room, "hi alice")
	w.run(`
alice receives:
  <message from='` + gardenJID + `/dave' type='groupchat'><body>hi alice</body><stanza-id xmlns='urn:xmpp:sid:0' id='{hi}'/></message>
`)
}

// enters is alice going into the garden.
const enters = `
alice connects
alice is available
alice sends:
  <presence to='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
  <message type='groupchat'><subject/></message>
`

// A moderator of ours kicks, bans, sets the subject, takes back what others said,
// changes roles and gets the room's errors.
func TestModerationElsewhere(t *testing.T) {
	w := newWorld(t)
	room := w.garden(object{"power_level_content_override": object{"users": object{"@alice:example.org": 50}}})
	eve := w.b.User("eve")
	eve.Join(room)
	w.dave.Say(room, "mine")
	w.run(enters)
	said := eve.Say(room, "spam")
	w.run(`
alice receives:
  <message from='` + gardenJID + `/eve'><body>spam</body><stanza-id xmlns='urn:xmpp:sid:0' id='{spam}'/></message>
alice sends:
  <iq type='set' id='m1' to='` + gardenJID + `'><moderate xmlns='urn:xmpp:message-moderate:1' id='{spam}'><retract xmlns='urn:xmpp:message-retract:1'/><reason>spam</reason></moderate></iq>
  <message to='` + gardenJID + `' type='groupchat' id='subject-of-alice'><subject>weeds</subject></message>
  <iq type='set' id='k1' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='dave' role='none'/></query></iq>
  <iq type='set' id='k2' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='eve' role='visitor'/></query></iq>
  <iq type='set' id='k3' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='eve' role='none'><reason>enough</reason></item></query></iq>
alice receives:
  <iq type='result' id='m1'/>
  <message type='groupchat' from='` + gardenJID + `'><retract xmlns='urn:xmpp:message-retract:1' id='{spam}'/></message>
  <message type='groupchat' from='` + gardenJID + `/Alice'><subject>weeds</subject></message>
  <iq type='error' id='k1'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='k2'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='k3'/>
  <presence type='unavailable' from='` + gardenJID + `/eve'><x xmlns='http://jabber.org/protocol/muc#user'><item role='none'><actor nick='Alice'/><reason>enough</reason></item><status code='307'/></x></presence>
`)
	w.eventually("eve was kicked at home", func() bool { return w.b.Standing(room, eve.ID) == "leave" })
	w.eventually("the spam is gone at home", func() bool {
		e, ok := w.b.Event(said)
		return ok && e.RedactedBy != ""
	})
	if got := w.dave.Do("GET", roomstest.Room(room, "/state/m.room.topic/"), nil); got.Text("topic") != "weeds" {
		t.Errorf("the topic at home is %s", got.Raw)
	}
	w.run(`
alice sends:
  <iq type='set' id='b1' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/muc#admin'><item jid='_matrix_eve=40b.test@example.org' affiliation='outcast'/></query></iq>
  <iq type='get' id='l1' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='outcast'/></query></iq>
alice receives:
  <iq type='result' id='b1'/>
  <iq type='result' id='l1'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='outcast' jid='_matrix_eve=40b.test@example.org'/></query></iq>
`)
	w.eventually("eve is banned at home", func() bool { return w.b.Standing(room, eve.ID) == "ban" })
	if got := eve.Try("POST", roomstest.Room(room, "/join"), object{}); got.Status != 403 {
		t.Errorf("banned, and joins: %s", got.Raw)
	}
	w.run(`
alice sends:
  <presence to='` + gardenJID + `/Alicia'/>
alice receives:
  <presence type='unavailable' from='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><item nick='Alicia'/><status code='303'/><status code='110'/></x></presence>
  <presence from='` + gardenJID + `/Alicia'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
alice sends:
  <presence to='` + gardenJID + `/dave'/>
alice receives:
  <presence type='error' from='` + gardenJID + `/dave'><error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
`)
	w.eventually("alice is called Alicia at home", func() bool {
		got := w.dave.Do("GET", roomstest.Room(room, "/state/m.room.member/@alice:example.org"), nil)
		return got.Text("displayname") == "Alicia"
	})
	w.dave.Do("POST", roomstest.Room(room, "/ban"), object{"user_id": "@alice:example.org", "reason": "coup"})
	w.run(`
alice receives:
  <presence type='unavailable' from='` + gardenJID + `/Alicia'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='outcast' role='none'><reason>coup</reason></item><status code='301'/><status code='110'/></x></presence>
alice sends:
  <presence to='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence type='error' from='` + gardenJID + `/Alice'><error type='auth'/></presence>
`)
}

// Rooms that let nobody in, that are not there or on servers that are not say so
// in the end, and hold nothing else up.
func TestNotEntered(t *testing.T) {
	w := newWorld(t)
	closed := w.garden(object{"preset": "private_chat"})
	held := make(chan struct{})
	w.Watch(func(dest string, r *http.Request, next federationtest.Next) (*http.Response, error) {
		switch dest {
		case "slow.test":
			<-held
			return nil, federationtest.ErrCut
		case "none.test":
			return nil, &net.DNSError{Err: "no such host", Name: dest, IsNotFound: true}
		}
		return next(r)
	})
	w.run(`
alice connects
alice is available
alice sends:
  <presence to='_matrix_x=40slow.test@rooms.example.org/A'><x xmlns='http://jabber.org/protocol/muc'/></presence>
  <presence to='_matrix_x=40none.test@rooms.example.org/A'><x xmlns='http://jabber.org/protocol/muc'/></presence>
  <presence to='_matrix_x=40b.test@rooms.example.org/A'><x xmlns='http://jabber.org/protocol/muc'/></presence>
  <presence to='` + gardenJID + `/A'><x xmlns='http://jabber.org/protocol/muc'/></presence>
  <iq type='get' id='d1' to='` + gardenJID + `'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
alice receives:
  <presence type='error' from='_matrix_x=40none.test@rooms.example.org/A'><error><remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
  <presence type='error' from='_matrix_x=40b.test@rooms.example.org/A'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
  <presence type='error' from='` + gardenJID + `/A'><error><registration-required xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
  <iq type='result' id='d1'><query xmlns='http://jabber.org/protocol/disco#info'><feature var='http://jabber.org/protocol/muc'/><feature var='muc_membersonly'/></query></iq>
`)
	close(held)
	w.run(`
alice receives:
  <presence type='error' from='_matrix_x=40slow.test@rooms.example.org/A'><error><remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
`)
	if got := w.here.Standing(closed, "@alice:example.org"); got != "none" {
		t.Errorf("alice is %s in a room that let her not in", got)
	}
}

// Invitations go both ways, mediated and direct, and are declined.
func TestInvitedElsewhere(t *testing.T) {
	w := newWorld(t)
	room := w.garden(object{"preset": "private_chat", "room_alias_name": "closed"})
	w.run("alice connects\nalice is available")
	invite := object{"user_id": "@alice:example.org", "reason": "do come"}
	w.dave.Do("POST", roomstest.Room(room, "/invite"), invite)
	w.run(`
alice receives:
  <message from='{room}'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='` + daveJID + `'><reason>The Garden: do come</reason></invite></x></message>
alice sends:
  <iq type='get' id='d1' to='{room}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <message to='{room}'><x xmlns='http://jabber.org/protocol/muc#user'><decline to='` + daveJID + `'><reason>busy</reason></decline></x></message>
alice receives:
  <iq type='result' id='d1'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' name='The Garden'/><feature var='muc_membersonly'/></query></iq>
`)
	w.eventually("alice has declined", func() bool { return w.b.Standing(room, "@alice:example.org") == "leave" })
	w.dave.Do("POST", roomstest.Room(room, "/invite"), invite)
	jid := string(w.here.Conv(room)) + "@rooms.example.org"
	w.run(`
alice receives:
  <message from='{room}'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='` + daveJID + `'/></x></message>
alice sends:
  <presence to='` + jid + `/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='` + jid + `/dave'><x xmlns='http://jabber.org/protocol/muc#user'><item jid='` + daveJID + `'/></x></presence>
  <presence from='` + jid + `/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/><status code='210'/></x></presence>
`)
	// now into a room here
	w.run(`
alice sends:
  <presence to='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='201'/></x></presence>
  <message from='shed@rooms.example.org'><subject/></message>
alice sends:
  <message to='shed@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='` + daveJID + `'><reason>tools</reason></invite></x></message>
  <message to='_matrix_nobody=40b.test@example.org'><x xmlns='jabber:x:conference' jid='shed@rooms.example.org'/></message>
alice receives:
  <message type='error' from='_matrix_nobody=40b.test@example.org'/>
`)
	var shed string
	w.eventually("dave is invited", func() bool {
		for id := range w.dave.Do("GET", "/v3/sync", nil).Obj("rooms", "invite") {
			shed = id
		}
		return shed != ""
	})
	w.dave.Do("POST", "/v3/join/"+url.PathEscape(shed)+"?via=example.org", object{})
	w.run(`
alice receives:
  <presence from='shed@rooms.example.org/dave'><x xmlns='http://jabber.org/protocol/muc#user'><item jid='` + daveJID + `'/></x></presence>
`)
	w.dave.Say(shed, "nice shed")
	w.run(`
alice receives:
  <message from='shed@rooms.example.org/dave'><body>nice shed</body></message>
`)
}

// What is said to an occupant who has no client of XMPP is said to her person.
func TestPrivatelyToMatrix(t *testing.T) {
	w := newWorld(t)
	w.garden(nil)
	w.run(enters + `
alice sends:
  <message to='` + gardenJID + `/dave' type='chat' id='psst-of-alice'><body>psst</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>
`)
	direct := w.accept(w.dave)
	w.run(`
alice sends:
  <message to='` + gardenJID + `/dave' type='chat' id='again-of-alice'><body>psst again</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>
`)
	w.eventually("dave reads both", func() bool { return w.reads(w.dave, direct, "psst") && w.reads(w.dave, direct, "psst again") })
	w.dave.Say(direct, "what is it?")
	w.run(`
alice receives:
  <message from='` + daveJID + `' type='chat'><body>what is it?</body></message>
`)
}
