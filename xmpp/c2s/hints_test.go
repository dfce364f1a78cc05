package c2s_test

import (
	"testing"

	"parley/xmpp/element"
	"parley/xmpp/xmpptest"
)

// What waited while nobody looked comes before the message that ends the wait, in the order in which it happened.
//
// spec: XEP-0352 §5
func TestClientStateKeepsOrder(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(`
alice connects
bob connects
alice is available
bob is available
alice sends:
  <presence type='subscribe' to='bob@example.org'/>
bob receives:
  <presence type='subscribe'/>
bob sends:
  <presence type='subscribed' to='alice@example.org'/>
alice receives:
  <presence type='subscribed'/>
  <presence from='bob@example.org/*'/>
`, nil)
	c := s.Connect("alice", "second")
	c.Send(element.New("jabber:client", "presence"))
	c.Sync()
	for c.Has(func(*element.Element) bool { return true }) != nil {
	}
	c.Send(element.New("urn:xmpp:csi:0", "inactive"))
	c.Sync()
	s.Run(`
bob sends:
  <presence><status>away</status></presence>
  <message to='alice@example.org' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>
  <message to='alice@example.org' type='chat' id='m1'><body>now</body></message>
alice receives:
  <message id='m1'/>
`, nil)
	c.Receive(func(el *element.Element) bool {
		if el.Attr("id") == "m1" {
			t.Fatal("the message has overtaken the presence")
		}
		return el.ChildText("", "status") == "away"
	})
	c.Receive(func(el *element.Element) bool {
		if el.Attr("id") == "m1" {
			t.Fatal("the message has overtaken the chat state")
		}
		return el.Name.Local == "message" && el.Child("http://jabber.org/protocol/chatstates", "composing") != nil
	})
	c.Receive(func(el *element.Element) bool { return el.Attr("id") == "m1" })
}

// spec: XEP-0334 §3
func TestHints(t *testing.T) {
	xmpptest.New(t).Run(friends+`
bob/copies connects
bob/copies is available
bob/copies sends:
  <iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>
bob/copies receives:
  <iq type='result' id='c'/>
bob sends:
  <message to='alice@example.org' type='chat' id='h1'><body>not copied</body><no-copy xmlns='urn:xmpp:hints'/></message>
  <message to='alice@example.org' type='chat' id='h2'><body>copied</body></message>
alice receives:
  <message id='h1'><body>not copied</body><no-copy xmlns='urn:xmpp:hints'/></message>
  <message id='h2'/>
bob/copies receives:
  <message><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' id='h2'/></forwarded></sent></message>
bob/copies does not receive:
  <message><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' id='h1'/></forwarded></sent></message>
alice closes
bob sends:
  <message to='alice@example.org' type='chat' id='h3'><body>for now only</body><no-store xmlns='urn:xmpp:hints'/></message>
  <message to='alice@example.org' type='chat' id='h4'><body>not for ever</body><no-permanent-store xmlns='urn:xmpp:hints'/></message>
  <message to='alice@example.org' type='chat' id='h5'><store xmlns='urn:xmpp:hints'/><body>kept</body></message>
  <iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>
bob receives:
  <iq type='result' id='p'/>
alice connects
alice is available
alice receives:
  <message id='h4'><delay xmlns='urn:xmpp:delay'/></message>
  <message id='h5'><delay xmlns='urn:xmpp:delay'/></message>
alice does not receive:
  <message id='h3'/>
alice sends:
  <iq type='set' id='a'><query xmlns='urn:xmpp:mam:2'/></iq>
alice receives:
  <message><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' id='h5'/></forwarded></result></message>
  <iq type='result' id='a'/>
alice does not receive:
  <message><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' id='h3'/></forwarded></result></message>
  <message><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' id='h4'/></forwarded></result></message>
`, nil)
}

// A client that asks the archive before it is available is not given what waited a second time.
//
// spec: XEP-0160 §3
func TestOfflineMessagesNotTwice(t *testing.T) {
	xmpptest.New(t).Run(friends+`
bob closes
alice sends:
  <message to='bob@example.org' type='chat' id='m1'><body>one</body></message>
  <iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>
alice receives:
  <iq type='result' id='p'/>
bob connects
bob sends:
  <iq type='set' id='a'><query xmlns='urn:xmpp:mam:2'/></iq>
bob receives:
  <message><result xmlns='urn:xmpp:mam:2'/></message>
  <iq type='result' id='a'/>
bob is available
bob does not receive:
  <message id='m1'/>
`, nil)
}

// spec: XEP-0441 §2
func TestArchivePreferences(t *testing.T) {
	xmpptest.New(t).Run(`
bob connects
bob sends:
  <iq type='get' id='g'><prefs xmlns='urn:xmpp:mam:2'/></iq>
  <iq type='set' id='s1'><prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs></iq>
  <iq type='set' id='s2'><prefs xmlns='urn:xmpp:mam:2' default='roster'><always/><never/></prefs></iq>
  <iq type='set' id='s3'><prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never><jid>alice@example.org</jid></never></prefs></iq>
  <iq type='set' id='s4'><prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs></iq>
bob receives:
  <iq type='result' id='g'><prefs xmlns='urn:xmpp:mam:2' default='always'/></iq>
  <iq type='error' id='s1'><error><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='s2'><error><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='s3'><error><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='s4'><prefs xmlns='urn:xmpp:mam:2' default='always'/></iq>
`, nil)
}

// What marks encryption, fallbacks and plain text passes as it was written.
//
// spec: XEP-0380 §3
// spec: XEP-0393 §6
// spec: XEP-0428 §3
func TestMarksPass(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <message to='bob@example.org' type='chat' id='e1'><body>you cannot read this</body><sealed xmlns='urn:x'>AAAA</sealed>
    <encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='X'/></message>
  <message to='bob@example.org' type='chat' id='e2'><body>*bold* _not_</body><unstyled xmlns='urn:xmpp:styling:0'/></message>
  <message to='bob@example.org' type='chat' id='e3'><body>instead</body><thing xmlns='urn:y'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:y'><body/></fallback></message>
bob receives:
  <message id='e1'><body>you cannot read this</body><sealed xmlns='urn:x'>AAAA</sealed><encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='X'/></message>
  <message id='e2'><body>*bold* _not_</body><unstyled xmlns='urn:xmpp:styling:0'/></message>
  <message id='e3'><body>instead</body><thing xmlns='urn:y'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:y'><body/></fallback></message>
`, nil)
}
