package c2s_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/xmpptest"
)

// A client that breaks the rules of the stream is told which one, and the server goes on.
func TestStreamErrors(t *testing.T) {
	s := xmpptest.New(t)
	for _, c := range []struct{ send, condition string }{
		{"<message from='bob@example.org/x' to='bob@example.org'/>", "invalid-from"},
		{"<what xmlns='urn:x'/>", "unsupported-stanza-type"},
		{"<nonsense/>", "unsupported-stanza-type"},
		{"<message><body>&lol;</body></message>", "restricted-xml"},
		{"<message><!-- x --></message>", "restricted-xml"},
		{"<message></iq>", "not-well-formed"},
		{"<message><body>" + strings.Repeat("x", 1<<20) + "</body></message>", "policy-violation"},
		{strings.Repeat("<message>", 200), "policy-violation"},
		{"<enable xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='7'/>", "undefined-condition"},
		{"<enable xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='x'/>", "bad-format"},
	} {
		a := s.Connect("alice", "")
		a.SendRaw(c.send)
		e := a.Receive(func(el *element.Element) bool { return el.Name.Local == "error" && el.Name.Space != "jabber:client" })
		if e.First().Name.Local != c.condition {
			t.Errorf("%.60q was answered by %v, want %s", c.send, e, c.condition)
		}
		a.Ended()
	}
}

// What is wrong with a stanza is told to its sender, and nothing of it is done.
func TestStanzaErrors(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("bob")
	a := s.Connect("alice", "")
	for _, c := range []struct{ send, condition string }{
		{"<iq id='x' type='get'/>", "bad-request"},
		{"<iq id='x' type='get'><a xmlns='urn:x'/><b xmlns='urn:x'/></iq>", "bad-request"},
		{"<iq id='x' type='what'><a xmlns='urn:x'/></iq>", "bad-request"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:roster'/></iq>", "bad-request"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:roster'><item jid='alice@example.org'/></query></iq>", "not-allowed"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org/x'/></query></iq>", "bad-request"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org'><group/></item></query></iq>", "not-acceptable"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org'><group>g</group><group>g</group></item></query></iq>", "bad-request"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='remove'/></query></iq>", "item-not-found"},
		{"<iq id='x' type='set' to='bob@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item/></publish></pubsub></iq>", "service-unavailable"},
		{"<iq id='x' type='set'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish><item/></publish></pubsub></iq>", "bad-request"},
		{"<iq id='x' type='set'><pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='n'><item id='i'/></retract></pubsub></iq>", "item-not-found"},
		{"<iq id='x' type='get'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='nothing'/></pubsub></iq>", "item-not-found"},
		{"<iq id='x' type='set'><query xmlns='jabber:iq:private'/></iq>", "bad-request"},
		{"<iq id='x' type='set'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='start'><value>x</value></field></x></query></iq>", "bad-request"},
		{"<iq id='x' type='set'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>x</max></set></query></iq>", "bad-request"},
		{"<iq id='x' type='set' to='bob@example.org'><query xmlns='urn:xmpp:mam:2'/></iq>", "service-unavailable"},
		{"<iq id='x' type='get' to='bob@example.org'><query xmlns='jabber:iq:roster'/></iq>", "service-unavailable"},
		{"<iq id='x' type='get' to='upload.example.org'><request xmlns='urn:xmpp:http:upload:0' filename='x' size='-1'/></iq>", "bad-request"},
		{"<iq id='x' type='set'><block xmlns='urn:xmpp:blocking'/></iq>", "bad-request"},
		{"<iq id='x' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "service-unavailable"},
		{"<presence id='x' type='probe' to='bob@example.org'/>", "not-allowed"},
		{"<presence id='x' type='subscribe'/>", "bad-request"},
		{"<presence id='x' type='subscribe' to='alice@example.org'/>", "not-allowed"},
		{"<message id='x' to='example.org'><body>x</body></message>", "service-unavailable"},
		{"<message id='x' type='groupchat' to='bob@example.org'><body>x</body></message>", "service-unavailable"},
		{"<message id='x' to='_xmpp_a=40b@example.org'><body>x</body></message>", "item-not-found"},
		{"<message id='x' to='_matrix_+zzzz@example.org'><body>x</body></message>", "item-not-found"},
	} {
		a.SendRaw(c.send)
		e := a.Receive(func(el *element.Element) bool { return el.Attr("id") == "x" })
		if got := e.Child("", "error"); got == nil || got.First().Name.Local != c.condition {
			t.Errorf("%s\nwas answered by %v, want %s", c.send, e, c.condition)
		}
	}
}

// A new session takes the resource of an old one, and its presence does not end with that of the old one.
func TestResourceConflict(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends, nil)
	old, bob := s.Connect("alice", "phone"), s.Connect("bob", "")
	bob.SendRaw("<presence/>")
	bob.Sync()
	old.SendRaw("<presence/>")
	old.Sync()
	again := s.Connect("alice", "phone")
	e := old.Receive(func(el *element.Element) bool { return el.Name.Local == "error" })
	if e.First().Name.Local != "conflict" {
		t.Errorf("the old session was told %v", e)
	}
	again.SendRaw("<presence/>")
	again.Sync()
	bob.Sync()
	last := ""
	for p := bob.Has(find("from", "alice@example.org/phone")); p != nil; p = bob.Has(find("from", "alice@example.org/phone")) {
		last += p.Attr("type") + ";"
	}
	if last != ";unavailable;;" {
		t.Errorf("bob saw presence of the types %q", last)
	}
}

// One that does not acknowledge costs no more than its bound, stops nobody, and loses nothing.
func TestSlowClientLosesNothing(t *testing.T) {
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) { c.MaxUnacked = 20 }))
	s.Run(friends+"bob closes\nalice closes", nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	bob.Quiet(true)
	bob.SendRaw("<presence/><enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	bob.Receive(named("enabled"))
	bob.Drop()
	const n = 60
	for i := range n {
		alice.SendRaw(fmt.Sprintf("<message to='bob@example.org' type='chat' id='slow-message-%d'><body>%d</body></message>", i, i))
	}
	alice.Sync()
	bob = s.Connect("bob", "")
	bob.SendRaw("<presence/>")
	for i := range n {
		bob.Receive(find("id", fmt.Sprint("slow-message-", i)))
	}
}

func TestRosterVersions(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <iq type='get' id='1'><query xmlns='jabber:iq:roster' ver=''/></iq>
alice receives:
  <iq type='result' id='1'><query xmlns='jabber:iq:roster' ver='{v1}'><item jid='bob@example.org' subscription='both'/></query></iq>
alice sends:
  <iq type='set' id='2'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='B'/></query></iq>
alice receives:
  <iq type='set'><query xmlns='jabber:iq:roster' ver='{v2}'><item jid='bob@example.org' name='B' subscription='both'/></query></iq>
alice sends:
  <iq type='get' id='3'><query xmlns='jabber:iq:roster' ver='{v1}'/></iq>
  <iq type='get' id='4'><query xmlns='jabber:iq:roster' ver='{v2}'/></iq>
alice receives:
  <iq type='result' id='3'><query xmlns='jabber:iq:roster' ver='{v2}'/></iq>
  <iq type='result' id='4'/>
alice does not receive:
  <iq type='result' id='4'><query xmlns='jabber:iq:roster'/></iq>
`, nil)
}

func TestDirectedPresence(t *testing.T) {
	xmpptest.New(t).Run(`
alice connects
bob connects
bob is available
alice sends:
  <presence to='bob@example.org'><status>just you</status></presence>
bob receives:
  <presence from='alice@example.org/*'><status>just you</status></presence>
alice closes
bob receives:
  <presence from='alice@example.org/*' type='unavailable'/>
`, nil)
}

// A client that says nothing is asked whether it is there; one that answers stays, and one that does not is given up.
func TestSilentClient(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Streams(func(c *stream.Clients) { c.Settings.IdleTimeout = 100 * time.Millisecond }))
	a := s.Connect("alice", "")
	for range 3 {
		ping := a.Receive(func(el *element.Element) bool { return el.Child("urn:xmpp:ping", "ping") != nil })
		a.SendRaw("<iq type='result' to='example.org' id='" + ping.Attr("id") + "'/>")
	}
	a.Ended()
}

// FuzzClient: whatever a client says, the server stays up and answers others.
func FuzzClient(f *testing.F) {
	for _, seed := range []string{
		"<message to='bob@example.org'><body>x</body></message>",
		"<message to='bob@example.org/x' type='error'/>",
		"<message to='@'><body/></message>",
		"<presence type='subscribe' to='bob@example.org'/>",
		"<presence><priority>-129</priority><show>what</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' ver='' node=''/></presence>",
		"<presence to='garden@rooms.example.org/nick'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
		"<iq type='set' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:avatar:metadata'><item><metadata xmlns='urn:xmpp:avatar:metadata'><info/></metadata></item></publish></pubsub></iq>",
		"<iq type='set' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='http://jabber.org/protocol/nick'><item/></publish></pubsub></iq>",
		"<iq type='set' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:bookmarks:1'><item id='@@'/></publish></pubsub></iq>",
		"<iq type='set' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><configure/></pubsub></iq>",
		"<iq type='get' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'/></iq>",
		"<iq type='set' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node=''/></pubsub></iq>",
		"<iq type='set' id='1'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data'/><set xmlns='http://jabber.org/protocol/rsm'><before/><after/><max>-1</max></set></query></iq>",
		"<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item/></query></iq>",
		"<iq type='set' id='1'><vCard xmlns='vcard-temp'><PHOTO><BINVAL>====</BINVAL></PHOTO></vCard></iq>",
		"<iq type='get' id='1' to='upload.example.org'><request xmlns='urn:xmpp:http:upload:0'/></iq>",
		"<iq type='result' id='1'/><iq type='error' id='2' to='bob@example.org/x'/>",
		"<enable xmlns='urn:xmpp:sm:3' resume='1'/><r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3'/>",
		"<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
		"<inactive xmlns='urn:xmpp:csi:0'/><gone xmlns='urn:xmpp:csi:0'/>",
	} {
		f.Add(seed)
	}
	all := xmpptest.New(f)
	f.Fuzz(func(t *testing.T, stanzas string) {
		s := all.In(t)
		other := s.Connect("bob", "")
		other.SendRaw("<presence/>")
		c := s.Connect("alice", "fuzz")
		c.SendRaw("<presence/>" + stanzas)
		c.Finish()
		c.Ended()
		other.Sync()
		other.Drop()
	})
}
