package together_test

import "testing"

// Who goes back through a room's archive finds what was said before anybody of
// ours came, also from where she has got to.
func TestArchiveElsewhere(t *testing.T) {
	w := newWorld(t)
	room := w.garden(nil)
	w.dave.Say(room, "first of all")
	w.dave.Say(room, "hello from before")
	w.run(enters)
	w.dave.Say(room, "hi alice")
	w.run(`
alice receives:
  <message from='` + gardenJID + `/dave' type='groupchat'><body>hi alice</body><stanza-id xmlns='urn:xmpp:sid:0' id='{hi}'/></message>
alice sends:
  ` + query("a1", "{hi}") + `
alice receives:
  <message from='` + gardenJID + `'><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='` + gardenJID + `/dave'><body>first of all</body></message></forwarded></result></message>
  <message from='` + gardenJID + `'><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='` + gardenJID + `/dave'><body>hello from before</body></message></forwarded></result></message>
  <iq type='result' id='a1'><fin xmlns='urn:xmpp:mam:2' complete='true'/></iq>
alice sends:
  ` + query("a2", "nowhere") + `
alice receives:
  <iq type='error' id='a2'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
`)
	// Of what is known the page is as good where nobody else can be asked.
	w.Cut("b.test", true)
	w.run(`
alice sends:
  ` + query("a3", "") + `
alice receives:
  <message from='` + gardenJID + `'><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>hi alice</body></message></forwarded></result></message>
  <iq type='result' id='a3'/>
`)
}

// query asks the garden for the page of its archive before a message.
func query(id, before string) string {
	return `<iq type='set' id='` + id + `' to='` + gardenJID + `'><query xmlns='urn:xmpp:mam:2'>` +
		`<set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before>` + before + `</before></set></query></iq>`
}
