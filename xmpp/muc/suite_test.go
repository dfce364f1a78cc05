package muc_test

import "testing"

// spec: XEP-0410 §3
func TestSelfPing(t *testing.T) {
	play(t, garden, `
bob sends:
  <iq type='get' id='p1' to='garden@rooms.example.org/Bob'><ping xmlns='urn:xmpp:ping'/></iq>
  <iq type='get' id='p2' to='garden@rooms.example.org/Nobody'><ping xmlns='urn:xmpp:ping'/></iq>
bob receives:
  <iq type='result' id='p1'/>
  <iq type='error' id='p2'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
bob/desk connects
bob/desk sends:
  <iq type='get' id='p3' to='garden@rooms.example.org/Bob'><ping xmlns='urn:xmpp:ping'/></iq>
bob/desk receives:
  <iq type='error' id='p3'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
`)
}

// An occupant's identifier stays with her under another nick, and what an occupant claims to have is not passed on.
//
// spec: XEP-0421 §3
func TestOccupantIDStays(t *testing.T) {
	play(t, garden, `
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='said-as-bob'><body>one</body><occupant-id xmlns='urn:xmpp:occupant-id:0' id='forged'/></message>
alice receives:
  <message id='said-as-bob'><occupant-id xmlns='urn:xmpp:occupant-id:0' id='{bob}'/></message>
bob sends:
  <presence to='garden@rooms.example.org/Robert'/>
alice receives:
  <presence from='garden@rooms.example.org/Robert'><occupant-id xmlns='urn:xmpp:occupant-id:0' id='{bob}'/></presence>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='said-as-robert'><body>two</body></message>
alice receives:
  <message id='said-as-robert'><occupant-id xmlns='urn:xmpp:occupant-id:0' id='{bob}'/></message>
alice does not receive:
  <message><occupant-id xmlns='urn:xmpp:occupant-id:0' id='forged'/></message>
`)
}

// A direct invitation lets the invited into a room for members only.
//
// spec: XEP-0249 §2
func TestDirectInvitation(t *testing.T) {
	play(t, garden, `
alice sends:
  <iq type='set' id='c1' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field><field var='muc#roomconfig_membersonly'><value>1</value></field></x></query></iq>
alice receives:
  <iq type='result' id='c1'/>
carol connects
carol is available
carol sends:
  <presence to='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc'/></presence>
carol receives:
  <presence type='error'><error><registration-required xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
alice sends:
  <message to='carol@example.org' id='come-carol'><x xmlns='jabber:x:conference' jid='garden@rooms.example.org' reason='do come'/></message>
carol receives:
  <message><x xmlns='jabber:x:conference' jid='garden@rooms.example.org' reason='do come'/></message>
carol sends:
  <presence to='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='garden@rooms.example.org/Carol'/>
`)
}

// closed makes the garden one for members only, where speaking needs permission.
const closed = `
alice sends:
  <iq type='set' id='closed' to='garden@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field><field var='muc#roomconfig_membersonly'><value>1</value></field><field var='muc#roomconfig_moderatedroom'><value>1</value></field></x></query></iq>
alice receives:
  <iq type='result' id='closed'/>
bob receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item role='visitor'/></x></presence>
`

// spec: XEP-0045 §7.13
// spec: XEP-0045 §8.6
func TestVoiceRequests(t *testing.T) {
	play(t, garden, closed, `
bob sends:
  <message to='garden@rooms.example.org' id='grab'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='muc#role'><value>participant</value></field><field var='muc#jid'><value>bob@example.org</value></field><field var='muc#request_allow'><value>true</value></field></x></message>
bob receives:
  <message type='error' id='grab'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
bob sends:
  <message to='garden@rooms.example.org' id='ask'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='muc#role'><value>participant</value></field></x></message>
alice receives:
  <message from='garden@rooms.example.org'><x xmlns='jabber:x:data' type='form'><field var='muc#jid'><value>bob@example.org</value></field><field var='muc#roomnick'><value>Bob</value></field></x></message>
alice sends:
  <message to='garden@rooms.example.org' id='grant'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='muc#role'><value>participant</value></field><field var='muc#jid'><value>bob@example.org</value></field><field var='muc#request_allow'><value>true</value></field></x></message>
bob receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item role='participant'/></x></presence>
`)
}

// spec: XEP-0045 §7.8.2
func TestDeclinedInvitation(t *testing.T) {
	play(t, garden, closed, `
carol connects
carol is available
carol sends:
  <message to='garden@rooms.example.org' id='no-0'><x xmlns='http://jabber.org/protocol/muc#user'><decline to='alice@example.org'/></x></message>
carol receives:
  <message type='error' id='no-0'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice sends:
  <message to='garden@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='carol@example.org'/></x></message>
carol receives:
  <message from='garden@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='alice@example.org'/></x></message>
carol sends:
  <message to='garden@rooms.example.org' id='no-1'><x xmlns='http://jabber.org/protocol/muc#user'><decline to='alice@example.org'><reason>busy</reason></decline></x></message>
alice receives:
  <message from='garden@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><decline from='carol@example.org'><reason>busy</reason></decline></x></message>
carol sends:
  <presence to='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc'/></presence>
carol receives:
  <presence type='error'><error><registration-required xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
`)
}
