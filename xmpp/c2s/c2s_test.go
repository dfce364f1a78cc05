package c2s_test

import (
	"testing"

	"parley/xmpp/xmpptest"
)

// friends makes alice and bob contacts of each other.
const friends = `
alice connects
bob connects
alice is available
bob is available
alice sends:
  <presence type='subscribe' to='bob@example.org'/>
bob receives:
  <presence type='subscribe' from='alice@example.org'/>
bob sends:
  <presence type='subscribed' to='alice@example.org'/>
  <presence type='subscribe' to='alice@example.org'/>
alice receives:
  <presence type='subscribed' from='bob@example.org'/>
  <presence type='subscribe' from='bob@example.org'/>
alice sends:
  <presence type='subscribed' to='bob@example.org'/>
bob receives:
  <presence type='subscribed' from='alice@example.org'/>
`

func TestRosterAndPresence(t *testing.T) {
	xmpptest.New(t).Run(`
alice connects
bob connects
alice sends:
  <iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>
alice receives:
  <iq type='result' id='r1'><query xmlns='jabber:iq:roster'/></iq>
bob sends:
  <iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>
bob receives:
  <iq type='result' id='r1'/>
alice is available
bob is available
alice sends:
  <iq type='set' id='r2'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='Bobby'><group>Friends</group></item></query></iq>
alice receives:
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='Bobby' subscription='none'><group>Friends</group></item></query></iq>
  <iq type='result' id='r2'/>
alice sends:
  <presence type='subscribe' to='bob@example.org'/>
alice receives:
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='Bobby' subscription='none' ask='subscribe'/></query></iq>
bob receives:
  <presence type='subscribe' from='alice@example.org'/>
bob sends:
  <presence type='subscribed' to='alice@example.org'/>
alice receives:
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='to'/></query></iq>
  <presence type='subscribed' from='bob@example.org'/>
  <presence from='bob@example.org/*'/>
bob receives:
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='alice@example.org' subscription='from'/></query></iq>
bob does not receive:
  <presence from='alice@example.org/*'/>
bob sends:
  <presence><show>away</show><status>out</status><x xmlns='urn:x'/></presence>
alice receives:
  <presence from='bob@example.org/*'><show>away</show><status>out</status><x xmlns='urn:x'/></presence>
bob disconnects
alice receives:
  <presence from='bob@example.org/*' type='unavailable'/>
alice sends:
  <iq type='set' id='r3'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='remove'/></query></iq>
alice receives:
  <iq type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='remove'/></query></iq>
  <iq type='result' id='r3'/>
`, nil)
}

func TestRequestWaitsForLogin(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("bob")
	s.Run(`
alice connects
alice is available
alice sends:
  <presence type='subscribe' to='bob@example.org'><status>It is me</status></presence>
  <message to='bob@example.org' type='chat' id='held-message-1'><body>are you there?</body></message>
alice does not receive:
  <message type='error'/>
bob connects
bob is available
bob receives:
  <presence type='subscribe' from='alice@example.org'><status>It is me</status></presence>
bob does not receive:
  <message/>
bob sends:
  <presence type='subscribed' to='alice@example.org'/>
bob receives:
  <message from='alice@example.org/*' id='held-message-1'><body>are you there?</body><delay xmlns='urn:xmpp:delay'/></message>
`, nil)
}

func TestMessagesAndCarbons(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice/phone connects
alice/phone sends:
  <iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>
alice/phone receives:
  <iq type='result' id='c'/>
alice/phone is available
alice sends:
  <message to='bob@example.org' type='chat' id='message-one'><body>hello</body><odd xmlns='urn:x'/>
    <origin-id xmlns='urn:xmpp:sid:0' id='message-one'/><stanza-id xmlns='urn:xmpp:sid:0' by='bob@example.org' id='forged'/></message>
bob receives:
  <message from='alice@example.org/*' to='bob@example.org' type='chat' id='message-one'><body>hello</body><odd xmlns='urn:x'/>
    <stanza-id xmlns='urn:xmpp:sid:0' by='bob@example.org' id='{sid}'/></message>
alice/phone receives:
  <message from='alice@example.org'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>
    <message xmlns='jabber:client' from='alice@example.org/*' to='bob@example.org' id='message-one'><body>hello</body></message>
  </forwarded></sent></message>
alice does not receive:
  <message/>
bob sends:
  <message to='alice@example.org' type='chat' id='message-two'><body>hi</body></message>
alice receives:
  <message from='bob@example.org/*' id='message-two'/>
alice/phone receives:
  <message from='bob@example.org/*' id='message-two'/>
bob sends:
  <message to='alice@example.org/phone' type='chat' id='message-three'><body>to the phone</body></message>
alice/phone receives:
  <message to='alice@example.org/phone' id='message-three'/>
alice does not receive:
  <message/>
alice sends:
  <message to='bob@example.org' type='chat' id='message-four'><body>off the record</body><private xmlns='urn:xmpp:carbons:2'/></message>
bob receives:
  <message id='message-four'/>
alice/phone does not receive:
  <message/>
`, nil)
}

func TestEditReactReplyRetract(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <message to='bob@example.org' type='chat' id='original-1'><body>helo</body></message>
bob receives:
  <message id='original-1'><stanza-id xmlns='urn:xmpp:sid:0' id='{sid}'/></message>
alice sends:
  <message to='bob@example.org' type='chat' id='correction-1'><body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='original-1'/></message>
bob receives:
  <message id='correction-1'><body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='original-1'/></message>
bob sends:
  <message to='alice@example.org' type='chat' id='reaction-1'><reactions xmlns='urn:xmpp:reactions:0' id='original-1'><reaction>👍</reaction></reactions></message>
alice receives:
  <message from='bob@example.org'><reactions xmlns='urn:xmpp:reactions:0' id='original-1'><reaction>👍</reaction></reactions></message>
bob sends:
  <message to='alice@example.org' type='chat' id='reaction-2'><reactions xmlns='urn:xmpp:reactions:0' id='original-1'/></message>
alice receives:
  <message from='bob@example.org'><reactions xmlns='urn:xmpp:reactions:0' id='original-1'/></message>
bob sends:
  <message to='alice@example.org' type='chat' id='reply-one-1'><body>hi!</body><reply xmlns='urn:xmpp:reply:0' id='original-1'/></message>
alice receives:
  <message id='reply-one-1'><reply xmlns='urn:xmpp:reply:0' id='original-1'/></message>
bob sends:
  <message to='alice@example.org' type='chat' id='not-yours-1'><body>I correct you</body><replace xmlns='urn:xmpp:message-correct:0' id='original-1'/></message>
alice receives:
  <message id='not-yours-1'/>
alice sends:
  <message to='bob@example.org' type='chat' id='retraction-1'><retract xmlns='urn:xmpp:message-retract:1' id='original-1'/></message>
bob receives:
  <message id='retraction-1'><retract xmlns='urn:xmpp:message-retract:1' id='original-1'/></message>
alice sends:
  <iq type='set' id='m'><query xmlns='urn:xmpp:mam:2' queryid='q'><x xmlns='jabber:x:data' type='submit'>
    <field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='with'><value>bob@example.org</value></field></x></query></iq>
alice receives:
  <message><result xmlns='urn:xmpp:mam:2' queryid='q' id='{sid}'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay'/>
    <message xmlns='jabber:client' id='original-1'><retracted xmlns='urn:xmpp:message-retract:1' id='retraction-1'/></message></forwarded></result></message>
  <iq type='result' id='m'><fin xmlns='urn:xmpp:mam:2' complete='true'/></iq>
`, nil)
}

func TestReceiptsMarkersAndTyping(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <message to='bob@example.org' type='chat' id='question-1'><body>hm?</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>
bob receives:
  <message id='question-1'><request xmlns='urn:xmpp:receipts'/></message>
bob sends:
  <message to='alice@example.org' id='r1'><received xmlns='urn:xmpp:receipts' id='question-1'/></message>
alice receives:
  <message from='bob@example.org'><received xmlns='urn:xmpp:receipts' id='question-1'/></message>
bob sends:
  <message to='alice@example.org' type='chat' id='r2'><displayed xmlns='urn:xmpp:chat-markers:0' id='question-1'/></message>
alice receives:
  <message from='bob@example.org'><displayed xmlns='urn:xmpp:chat-markers:0' id='question-1'/></message>
bob sends:
  <message to='alice@example.org' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>
alice receives:
  <message from='bob@example.org'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>
bob sends:
  <message to='alice@example.org' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>
alice receives:
  <message from='bob@example.org'><paused xmlns='http://jabber.org/protocol/chatstates'/></message>
`, nil)
}

func TestOfflineMessages(t *testing.T) {
	xmpptest.New(t).Run(friends+`
bob closes
alice sends:
  <message to='bob@example.org' type='chat' id='missed-one-1'><body>one</body></message>
  <message to='bob@example.org' type='headline' id='headline-1'><body>news</body></message>
  <message to='bob@example.org' type='chat' id='missed-two-2'><body>two</body></message>
alice does not receive:
  <message type='error'/>
bob connects
bob is available
bob receives:
  <message id='missed-one-1'><body>one</body><delay xmlns='urn:xmpp:delay'/></message>
  <message id='missed-two-2'><body>two</body><delay xmlns='urn:xmpp:delay'/></message>
bob does not receive:
  <message/>
bob closes
bob connects
bob is available
bob does not receive:
  <message/>
`, nil)
}
