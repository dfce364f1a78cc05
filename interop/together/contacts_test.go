package together_test

import (
	"testing"

	"parley/core"
	"parley/matrix/rooms/roomstest"
)

// A user of another Matrix server is asked to be a contact, agrees by joining, and
// is talked with.
func TestContactElsewhere(t *testing.T) {
	w := newWorld(t)
	w.run(`
alice connects
alice is available
alice sends:
  <iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>
  <presence type='subscribe' to='` + daveJID + `'/>
alice receives:
  <iq type='result' id='r1'/>
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='` + daveJID + `' subscription='none' ask='subscribe'/></query></iq>
`)
	room := w.accept(w.dave)
	w.run(`
alice receives:
  <presence type='subscribed' from='` + daveJID + `'/>
  <presence type='subscribe' from='` + daveJID + `'/>
alice sends:
  <presence type='subscribed' to='` + daveJID + `'/>
alice receives:
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='` + daveJID + `' subscription='both'/></query></iq>
alice sends:
  <iq type='get' id='d1' to='` + daveJID + `'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <message to='` + daveJID + `' type='chat' id='first-of-alice'><body>helo dave</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>
alice receives:
  <iq type='result' id='d1' from='` + daveJID + `'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='account' type='registered' name='Matrix: dave@b.test'/></query></iq>
`)
	w.eventually("dave reads it", func() bool { return w.reads(w.dave, room, "helo dave") })
	w.run(`
alice sends:
  <message to='` + daveJID + `' type='chat' id='second-of-alice'><body>hello dave</body><replace xmlns='urn:xmpp:message-correct:0' id='first-of-alice'/></message>
  <message to='` + daveJID + `' type='chat' id='secret-of-alice'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>x</payload></encrypted><encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl' name='OMEMO'/><body>I sent you an OMEMO message</body></message>
alice receives:
  <message type='headline' from='example.org'><body>` + daveJID + ` gets your message without: encrypted (as a notice)*</body></message>
`)
	w.eventually("dave reads the correction", func() bool { return w.reads(w.dave, room, "* hello dave") || w.reads(w.dave, room, "hello dave") })
	said := w.dave.Say(room, "hi alice")
	w.run(`
alice receives:
  <message from='` + daveJID + `' type='chat'><body>hi alice</body><stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='{hi}'/></message>
alice sends:
  <message to='` + daveJID + `' type='chat' id='reaction-of-alice'><reactions xmlns='urn:xmpp:reactions:0' id='{hi}'><reaction>👍</reaction></reactions></message>
  <message to='` + daveJID + `' type='chat' id='reply-of-alice'><body>so what?</body><reply xmlns='urn:xmpp:reply:0' id='{hi}' to='` + daveJID + `'/></message>
`)
	w.eventually("dave reads the reply", func() bool { return w.reads(w.dave, room, "so what?") })
	w.dave.Send(room, "m.room.message", object{"msgtype": "m.text", "body": "* hello alice",
		"m.new_content": object{"msgtype": "m.text", "body": "hello alice"}, "m.relates_to": object{"rel_type": "m.replace", "event_id": said}})
	w.dave.Send(room, "m.room.encrypted", object{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "s", "sender_key": "k", "device_id": "D"})
	w.dave.Send(room, "m.room.message", object{"msgtype": "m.image", "body": "cat.png", "url": "mxc://b.test/cat", "info": object{"mimetype": "image/png"}})
	w.run(`
alice receives:
  <message from='` + daveJID + `'><body>hello alice</body><replace xmlns='urn:xmpp:message-correct:0' id='*'/></message>
  <message from='` + daveJID + `'><encryption xmlns='urn:xmpp:eme:0' namespace='m.megolm.v1.aes-sha2'/><body>*</body></message>
  <message from='` + daveJID + `'><x xmlns='jabber:x:oob'><url>https://example.org/*</url></x></message>
alice sends:
  <iq type='set' id='rm'><query xmlns='jabber:iq:roster'><item jid='` + daveJID + `' subscription='remove'/></query></iq>
alice receives:
  <iq type='result' id='rm'/>
`)
}

// A user of another server opens a direct conversation: to a client of XMPP that
// is a request, with what was said; it is approved or denied.
func TestAskedFromElsewhere(t *testing.T) {
	w := newWorld(t)
	w.run("alice connects\nalice is available\nbob connects\nbob is available")
	open := func(who string) string {
		return w.dave.Create(object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{"@" + who + ":example.org"}})
	}
	room := open("alice")
	w.dave.Say(room, "hello alice")
	w.run(`
alice receives:
  <presence type='subscribe' from='` + daveJID + `'/>
alice does not receive:
  <message from='` + daveJID + `'/>
alice sends:
  <presence type='subscribed' to='` + daveJID + `'/>
`)
	w.eventually("alice is in", func() bool { return w.b.Standing(room, "@alice:example.org") == core.Joined })
	w.dave.Say(room, "there you are")
	w.run(`
alice receives:
  <message from='` + daveJID + `'><body>hello alice</body><delay xmlns='urn:xmpp:delay'/></message>
  <message from='` + daveJID + `'><body>there you are</body></message>
alice sends:
  <message to='` + daveJID + `' type='chat' id='answer-of-alice'><body>here I am</body></message>
`)
	w.eventually("dave reads it", func() bool { return w.reads(w.dave, room, "here I am") })

	second := open("bob")
	w.run(`
bob receives:
  <presence type='subscribe' from='` + daveJID + `'/>
bob sends:
  <presence type='unsubscribed' to='` + daveJID + `'/>
`)
	w.eventually("bob has declined", func() bool { return w.b.Standing(second, "@bob:example.org") == core.Left })

	// who answers at once lets in too, and what she says waits for that
	carols := w.xmpp.Account("carol")
	third := open("carol")
	w.eventually("carol is invited", func() bool { return w.here.Standing(third, "@carol:example.org") == core.Invited })
	w.run(`
carol connects
carol is available
carol receives:
  <presence type='subscribe' from='` + daveJID + `'/>
carol sends:
  <message to='` + daveJID + `' type='chat' id='one-of-carol'><body>who are you?</body></message>
  <message to='` + daveJID + `' type='chat' id='two-of-carol'><body>hm?</body></message>
`)
	w.eventually("dave reads both", func() bool { return w.reads(w.dave, third, "who are you?") && w.reads(w.dave, third, "hm?") })
	contacts, _, err := w.here.Hub.Contacts(t.Context(), carols)
	if err != nil || len(contacts) != 1 || !contacts[0].Sees || !contacts[0].Seen {
		t.Errorf("carol has answered, and her contacts are %+v, %v", contacts, err)
	}
	if got := w.dave.Do("GET", roomstest.Room(third, "/joined_members"), nil).Obj("joined"); len(got) != 2 {
		t.Errorf("%v are in it, and not %v", got, carols)
	}
}
