package c2s_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
	"parley/xmpp/xmpptest"
)

// pushService is a push service of a test, on another server (as the sessions' router) or on this one (as a service of its own domain).
type pushService struct {
	t   *testing.T
	mu  sync.Mutex
	srv *c2s.Server
	got chan *element.Element
	// refuse is what it answers, nil for a result.
	refuse error
}

func newPushService(t *testing.T) *pushService {
	return &pushService{t: t, got: make(chan *element.Element, 100)}
}

// Route takes what is sent to it, and answers.
func (p *pushService) Route(st *element.Element) {
	if st.Name.Local != "iq" || st.Attr("type") != "set" {
		return
	}
	p.mu.Lock()
	srv, refuse := p.srv, p.refuse
	p.mu.Unlock()
	p.got <- st
	answer := element.New(stream.NSClient, "iq").SetAttr("type", "result").SetAttr("id", st.Attr("id")).
		SetAttr("from", st.Attr("to")).SetAttr("to", st.Attr("from"))
	if refuse != nil {
		answer = translate.Bounce(st, refuse)
	}
	go srv.Deliver(p.t.Context(), answer)
}

func (p *pushService) Stanza(context.Context, *c2s.Session, *element.Element) error { return nil }
func (p *pushService) News(context.Context, *c2s.Session, hub.News) error           { return nil }
func (p *pushService) Gone(*c2s.Session)                                            {}

func (p *pushService) answers(with error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = with
}

// next waits for the next publication, and returns it with the fields of its summary.
func (p *pushService) next() (*element.Element, map[string]string) {
	p.t.Helper()
	select {
	case st := <-p.got:
		ps := st.Child("http://jabber.org/protocol/pubsub", "pubsub")
		n := ps.Child("", "publish").Child("", "item").Child("urn:xmpp:push:0", "notification")
		if n == nil {
			p.t.Fatalf("this is no notification: %s", st)
		}
		return st, fields(n.Child("jabber:x:data", "x"))
	case <-time.After(30 * time.Second):
		p.t.Fatal("nothing was pushed")
		return nil, nil
	}
}

func fields(x *element.Element) map[string]string {
	out := map[string]string{}
	for _, f := range x.ChildrenNamed("", "field") {
		var values []string
		for _, v := range f.ChildrenNamed("", "value") {
			values = append(values, v.Text())
		}
		out[f.Attr("var")] = strings.Join(values, "\n")
	}
	return out
}

func (p *pushService) none(why string) {
	p.t.Helper()
	select {
	case st := <-p.got:
		p.t.Fatalf("%s: pushed %s", why, st)
	default:
	}
}

// pushing starts a server with a push service that is reached as the JIDs push.example.org, here, and push.example.net, elsewhere.
func pushing(t *testing.T, told c2s.PushSummary) (*xmpptest.Server, *pushService) {
	p := newPushService(t)
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.Router, c.PushSummary, c.PushGap = p, told, time.Nanosecond
	}), xmpptest.Setup(func(s *xmpptest.Server) {
		p.mu.Lock()
		p.srv = s.C2S
		p.mu.Unlock()
		s.C2S.AddService("push", p)
	}))
	return s, p
}

const enablePush = `
bob/phone sends:
  <iq type='set' id='enable'><enable xmlns='urn:xmpp:push:0' jid='push.example.net' node='n1'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='secret'><value>s3cret</value></field>
    </x>
  </enable></iq>
bob/phone receives:
  <iq type='result' id='enable'/>
`

// asFriends makes alice, who is connected, and bob's phone contacts of each other.
const asFriends = `
alice connects
bob/phone connects
alice is available
bob/phone is available
alice sends:
  <presence type='subscribe' to='bob@example.org'/>
bob/phone receives:
  <presence type='subscribe' from='alice@example.org'/>
bob/phone sends:
  <presence type='subscribed' to='alice@example.org'/>
alice receives:
  <presence type='subscribed' from='bob@example.org'/>
`

// spec: XEP-0357 §5
// spec: XEP-0357 §7
func TestPush(t *testing.T) {
	s, p := pushing(t, c2s.PushCount)
	s.Run(asFriends+enablePush+`
bob/phone sends:
  <iq type='get' id='disco' to='bob@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
bob/phone receives:
  <iq type='result' id='disco'><query xmlns='http://jabber.org/protocol/disco#info'><feature var='urn:xmpp:push:0'/></query></iq>
alice sends:
  <message to='bob@example.org' type='chat'><body>while you look</body></message>
bob/phone receives:
  <message><body>while you look</body></message>
alice sends:
  <iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>
alice receives:
  <iq type='result' id='p'/>
`, nil)
	s.C2S.PushDealt() // what was not pushed yet would be once he has gone
	s.Run(`
bob/phone closes
alice sends:
  <message to='bob@example.org' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>
  <message to='bob@example.org' type='chat' id='m1'><body>are you there?</body></message>
`, nil)
	st, f := p.next()
	if st.Attr("from") != "bob@example.org" || st.Attr("to") != "push.example.net" {
		t.Errorf("it is from %s to %s", st.Attr("from"), st.Attr("to"))
	}
	ps := st.Child("http://jabber.org/protocol/pubsub", "pubsub")
	if ps.Child("", "publish").Attr("node") != "n1" {
		t.Errorf("it is for another node: %s", st)
	}
	if o := fields(ps.Child("", "publish-options").Child("jabber:x:data", "x")); o["secret"] != "s3cret" {
		t.Errorf("the options are %v", o)
	}
	if len(f) != 2 || f["FORM_TYPE"] != "urn:xmpp:push:summary" || f["message-count"] != "1" {
		t.Errorf("the summary is %v", f)
	}
	s.Run(`
alice sends:
  <message to='bob@example.org' type='chat'><body>hello?</body></message>
`, nil)
	if _, f := p.next(); f["message-count"] != "2" {
		t.Errorf("the second summary is %v", f)
	}
	// It is remembered over a restart.
	s.Restart()
	s.Run(`
alice connects
alice is available
alice sends:
  <message to='bob@example.org' type='chat'><body>and now?</body></message>
`, nil)
	if _, f := p.next(); f["message-count"] != "1" {
		t.Errorf("the summary after the restart is %v", f)
	}
	// Disabled, it is told no more: what is pushed next is another service's.
	s.Run(`
bob/desk connects
bob/desk sends:
  <iq type='set' id='off'><disable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>
  <iq type='set' id='on'><enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='here'/></iq>
bob/desk receives:
  <iq type='result' id='off'/>
  <iq type='result' id='on'/>
bob/desk closes
alice sends:
  <message to='bob@example.org' type='chat'><body>once more</body></message>
`, nil)
	if st, _ := p.next(); st.Attr("to") != "push.example.org" {
		t.Errorf("it was pushed to %s", st.Attr("to"))
	}
	p.none("one message, one service")
}

// spec: XEP-0357 §7
func TestPushWhileNobodyLooks(t *testing.T) {
	s, p := pushing(t, c2s.PushBody)
	s.Run(asFriends+enablePush+`
bob/phone sends:
  <enable xmlns='urn:xmpp:sm:3' resume='true'/>
bob/phone receives:
  <enabled xmlns='urn:xmpp:sm:3' id='{sm}'/>
bob/phone sends:
  <inactive xmlns='urn:xmpp:csi:0'/>
  <iq type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>
bob/phone receives:
  <iq type='result' id='p1'/>
alice sends:
  <message to='bob@example.org' type='chat'><body>nobody looks</body></message>
bob/phone receives:
  <message><body>nobody looks</body></message>
`, nil)
	if _, f := p.next(); f["message-count"] != "1" || f["last-message-body"] != "nobody looks" || f["last-message-sender"] != "alice@example.org" {
		t.Errorf("the summary is %v", f)
	}
	s.Run(`
bob/phone sends:
  <active xmlns='urn:xmpp:csi:0'/>
  <iq type='get' id='p2'><ping xmlns='urn:xmpp:ping'/></iq>
bob/phone receives:
  <iq type='result' id='p2'/>
alice sends:
  <message to='bob@example.org' type='chat'><body>somebody looks</body></message>
bob/phone receives:
  <message><body>somebody looks</body></message>
bob/phone disconnects
alice receives:
  <presence from='bob@example.org/phone'/>
alice sends:
  <message to='bob@example.org' type='chat'><body>hibernating</body></message>
  <message to='bob@example.org' type='chat'><body>omemo says you cannot read this</body>
    <encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>AAAA</payload></encrypted>
    <encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl' name='OMEMO'/></message>
`, nil)
	// Whether the break of the stream is noticed before the messages or after them, in the end all that is not acknowledged was told.
	for {
		if _, f := p.next(); f["last-message-body"] == "" && f["message-count"] >= "2" {
			break
		}
	}
}

// spec: XEP-0357 §7.1
// spec: XEP-0357 §8
func TestPushRefused(t *testing.T) {
	s, p := pushing(t, c2s.PushCount)
	p.answers(&translate.Error{Condition: translate.ResourceConstraint})
	s.Run(asFriends+enablePush+`
bob/phone closes
alice sends:
  <message to='bob@example.org' type='chat'><body>1</body></message>
`, nil)
	p.next()
	p.answers(&translate.Error{Condition: translate.ItemNotFound})
	s.Run(`
alice sends:
  <message to='bob@example.org' type='chat'><body>2</body></message>
`, nil)
	p.next()
	for s.C2S.PushTargets(t, "bob") > 0 { // until the answer was dealt with
		time.Sleep(time.Millisecond)
	}
	p.answers(nil)
	s.Run(`
bob/phone connects
`+enablePush+`
bob/phone closes
`, nil)
	m := element.New(stream.NSClient, "message").SetAttr("from", "push.example.net").SetAttr("to", "bob@example.org")
	m.Add("http://jabber.org/protocol/pubsub", "pubsub").SetAttr("node", "n1").
		Add("", "affiliation").SetAttr("jid", "bob@example.org").SetAttr("affiliation", "none")
	forged := m.Copy().SetAttr("from", "other.example.net")
	s.C2S.Deliver(t.Context(), forged)
	s.C2S.PushDealt()
	if s.C2S.PushTargets(t, "bob") != 1 {
		t.Error("a stranger disabled it")
	}
	s.C2S.Deliver(t.Context(), m)
	s.C2S.PushDealt()
	if s.C2S.PushTargets(t, "bob") != 0 {
		t.Error("the service could not disable it")
	}
}

func TestPushEnableIsHeldToLimits(t *testing.T) {
	s, _ := pushing(t, c2s.PushCount)
	s.Run(`
bob connects
bob sends:
  <iq type='set' id='e1'><enable xmlns='urn:xmpp:push:0' node='n1'/></iq>
  <iq type='set' id='e2'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'><x xmlns='jabber:x:data' type='submit'>
    <field var='FORM_TYPE'><value>other</value></field></x></enable></iq>
  <iq type='set' id='e3'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'><x xmlns='jabber:x:data' type='submit'>
    <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
    <field var='secret'><value>{long}</value></field></x></enable></iq>
bob receives:
  <iq type='error' id='e1'><error><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='e2'><error><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='e3'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
`, map[string]string{"long": strings.Repeat("x", 9000)})
	for i := range 20 {
		s.Run(`
bob sends:
  <iq type='set' id='{id}'><enable xmlns='urn:xmpp:push:0' jid='push.example.net' node='{id}'/></iq>
bob receives:
  <iq type='result' id='{id}'/>
`, map[string]string{"id": "n" + string(rune('a'+i))})
	}
	s.Run(`
bob sends:
  <iq type='set' id='more'><enable xmlns='urn:xmpp:push:0' jid='push.example.net' node='more'/></iq>
  <iq type='set' id='again'><enable xmlns='urn:xmpp:push:0' jid='push.example.net' node='na'/></iq>
bob receives:
  <iq type='error' id='more'><error><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='again'/>
`, nil)
}

// What a stranger writes waits for an answer: a request is pushed, not a message.
func TestPushOfRequests(t *testing.T) {
	s, p := pushing(t, c2s.PushBody)
	if err := s.Hub.SetStrangers(t.Context(), s.Account("bob"), core.Hold); err != nil {
		t.Fatal(err)
	}
	s.Run(`
carol connects
bob/phone connects
`+enablePush+`
bob/phone closes
carol sends:
  <presence type='subscribe' to='bob@example.org'/>
`, nil)
	if _, f := p.next(); f["pending-subscription-count"] != "1" || f["message-count"] != "0" {
		t.Errorf("the summary is %v", f)
	}
}

// spec: XEP-0492 §3
func TestPushAsBookmarksSay(t *testing.T) {
	for name, c := range map[string]struct{ notify, want string }{
		"nothing":     {``, ""},
		"fallback":    {`<never/>`, "never"},
		"phone":       {`<never/><on-mention identity-category='client' identity-type='phone'/>`, "on-mention"},
		"category":    {`<always identity-category='client'/><never/>`, "always"},
		"other":       {`<never identity-category='client' identity-type='pc'/><always/>`, "always"},
		"not a word":  {`<sometimes/>`, ""},
		"other space": {`<never xmlns='urn:x'/>`, ""},
	} {
		b := stanza(t, `<conference xmlns='urn:xmpp:bookmarks:1'><extensions><notify xmlns='urn:xmpp:notification-settings:1'>`+
			c.notify+`</notify></extensions></conference>`)
		if got := c2s.NotifyWish(b); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
