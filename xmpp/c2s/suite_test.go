package c2s_test

import (
	"testing"

	"parley/xmpp/xmpptest"
)

// What the server and the account are, do and offer, as clients ask for it first.
//
// spec: XEP-0030 §3
// spec: XEP-0030 §4
// spec: XEP-0082 §3
// spec: XEP-0092 §2
// spec: XEP-0199 §4
// spec: XEP-0202 §2
func TestServerAnswers(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <iq type='get' id='1' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='2' to='example.org'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
  <iq type='get' id='3' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='no-such-node'/></iq>
  <iq type='get' id='4' to='alice@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='5' to='bob@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='6' to='carol@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='7' to='example.org'><query xmlns='jabber:iq:version'/></iq>
  <iq type='get' id='8' to='example.org'><time xmlns='urn:xmpp:time'/></iq>
  <iq type='get' id='9' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>
alice receives:
  <iq type='result' id='1' from='example.org'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='server' type='im'/><feature var='http://jabber.org/protocol/disco#info'/><feature var='http://jabber.org/protocol/disco#items'/><feature var='jabber:iq:version'/><feature var='urn:xmpp:time'/><feature var='urn:xmpp:ping'/></query></iq>
  <iq type='result' id='2' from='example.org'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='upload.example.org'/></query></iq>
  <iq type='error' id='3'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='4'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='account' type='registered'/><identity category='pubsub' type='pep'/><feature var='urn:xmpp:mam:2'/></query></iq>
  <iq type='result' id='5'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='account' type='registered'/></query></iq>
  <iq type='error' id='6'/>
  <iq type='result' id='7'><query xmlns='jabber:iq:version'><name>Parley</name><version>*</version></query></iq>
  <iq type='result' id='8'><time xmlns='urn:xmpp:time'><tzo>Z</tzo><utc>20*</utc></time></iq>
  <iq type='result' id='9'/>
`, nil)
}

// spec: XEP-0245 §2
func TestMeCommand(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <message to='bob@example.org' type='chat' id='me-1'><body>/me waves</body></message>
bob receives:
  <message id='me-1'><body>/me waves</body></message>
`, nil)
}

// An invitation to a room elsewhere reaches the invited as it was written.
//
// spec: XEP-0249 §2
func TestDirectInvitationPasses(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <message to='bob@example.org' id='invited-1'><x xmlns='jabber:x:conference' jid='room@rooms.a.net' reason='do come' password='rose'/></message>
bob receives:
  <message from='alice@example.org/*' id='invited-1'><x xmlns='jabber:x:conference' jid='room@rooms.a.net' reason='do come' password='rose'/></message>
`, nil)
}
