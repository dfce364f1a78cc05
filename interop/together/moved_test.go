package together_test

import (
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/rooms/roomstest"
)

// successor is the JID of the room that is known here by a room ID.
func (w *world) successor(room string) string {
	w.t.Helper()
	w.eventually("the new room is known", func() bool { return w.here.Standing(room, "@alice:example.org") == core.Joined })
	var a core.Address
	conv := w.here.Conv(room)
	err := w.here.Hub.Read(w.t.Context(), func(v hub.View) error {
		c, err := v.Conversation(conv)
		a = c.Address
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.xmpp.C2S.Names().RoomJID(a).String()
}

const askBookmarks = `
alice sends:
  <iq type='get' id='bm'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub></iq>
`

// A room of another server is upgraded: who is in it with a client of XMPP is told
// where it went on, is in there already, and has its bookmark.
func TestUpgradedElsewhere(t *testing.T) {
	w := newWorld(t)
	room := w.garden(nil)
	w.run(enters)
	next := w.dave.Do("POST", roomstest.Room(room, "/upgrade"), object{"new_version": "12"}).Text("replacement_room")
	jid := w.successor(next)
	w.run(`
alice receives:
  <presence type='unavailable' from='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><destroy jid='` + jid + `'><reason>*</reason></destroy><status code='110'/></x></presence>
` + askBookmarks + `
alice receives:
  <iq type='result' id='bm'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items><item id='` + jid + `'><conference xmlns='urn:xmpp:bookmarks:1' autojoin='true' name='The Garden'/></item></items></pubsub></iq>
alice sends:
  <presence to='` + gardenJID + `/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence type='error' from='` + gardenJID + `/Alice'><error><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>xmpp:` + jid + `?join</gone></error></presence>
alice sends:
  <presence to='` + jid + `/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='` + jid + `/dave'><x xmlns='http://jabber.org/protocol/muc#user'/></presence>
  <message from='` + jid + `/dave'><subject>plants</subject></message>
`)
	w.dave.Say(next, "here we are")
	w.run(`
alice receives:
  <message from='` + jid + `/dave'><body>here we are</body></message>
`)
}

// A room of ours with members of XMPP, and of Matrix elsewhere, is upgraded by a
// Matrix client here.
func TestUpgradedHere(t *testing.T) {
	w := newWorld(t)
	carol := w.here.User("carol")
	room := carol.Create(object{"preset": "public_chat", "room_alias_name": "shed", "name": "Shed"})
	w.dave.Do("POST", "/v3/join/"+room+"?via=example.org", object{})
	w.run(`
alice connects
alice is available
alice sends:
  <presence to='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='shed@rooms.example.org/dave'/>
  <presence from='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
`)
	next := carol.Do("POST", roomstest.Room(room, "/upgrade"), object{"new_version": "12"}).Text("replacement_room")
	jid := w.successor(next)
	w.run(`
alice receives:
  <presence type='unavailable' from='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><destroy jid='` + jid + `'/></x></presence>
`)
	w.eventually("dave is there too", func() bool { return w.b.Standing(next, w.dave.ID) == core.Joined })
}

// An owner who destroys a shared room by a client of XMPP says to all where to go
// on.
func TestDestroyedShared(t *testing.T) {
	w := newWorld(t)
	w.run(`
alice connects
alice is available
alice sends:
  <presence to='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
  <presence to='barn@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <message from='shed@rooms.example.org'><subject/></message>
  <message from='barn@rooms.example.org'><subject/></message>
`)
	w.dave.Do("POST", "/v3/join/%23shed:example.org", object{})
	w.run(`
alice receives:
  <presence from='shed@rooms.example.org/dave'/>
alice sends:
  <iq type='set' id='x1' to='shed@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy jid='barn@rooms.example.org'><reason>rain</reason></destroy></query></iq>
alice receives:
  <iq type='result' id='x1'/>
  <presence type='unavailable' from='shed@rooms.example.org/Alice'><x xmlns='http://jabber.org/protocol/muc#user'><destroy jid='barn@rooms.example.org'><reason>rain</reason></destroy></x></presence>
`)
	var barn string
	err := w.here.Hub.Read(t.Context(), func(v hub.View) error {
		id, err := v.ConversationAt(core.LocalAddress("barn", "example.org"))
		if err != nil {
			return err
		}
		c, err := v.Conversation(id)
		barn = c.Native[core.Matrix]
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("dave is told", func() bool {
		return strings.Contains(string(w.dave.Do("GET", "/v3/sync", nil).Raw), `"replacement_room":"`+barn+`"`)
	})
}
