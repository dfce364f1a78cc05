package c2s_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/storetest"
	"parley/xmpp/element"
	"parley/xmpp/xmpptest"
)

func find(attr, value string) func(*element.Element) bool {
	return func(el *element.Element) bool { return el.Attr(attr) == value }
}

func named(local string) func(*element.Element) bool {
	return func(el *element.Element) bool { return el.Name.Local == local }
}

// What Matrix's clients say of the same account and of others appears on XMPP.
func TestOtherNetworks(t *testing.T) {
	s := xmpptest.New(t)
	alice, bob := s.Account("alice"), s.Account("bob")
	a, b := s.Connect("alice", ""), s.Connect("bob", "")
	for _, c := range []*xmpptest.Client{a, b} {
		c.SendRaw("<presence/><iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
		c.Receive(find("id", "c"))
	}
	ctx := context.Background()
	for _, x := range [][2]core.Address{{alice, bob}, {bob, alice}} {
		if err := s.Hub.SetContact(ctx, x[0], x[1], "", nil); err != nil {
			t.Fatal(err)
		}
	}
	body := core.HTMLBody("**hello**", "<b>hello</b>")
	e, err := s.Hub.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, From: "DEVICE", Content: core.Message{Body: body}})
	if err != nil {
		t.Fatal(err)
	}
	got := b.Receive(named("message"))
	if got.ChildText("", "body") != "*hello*" || got.Attr("id") != string(e.ID) || got.Attr("from") != "alice@example.org" {
		t.Errorf("bob received %v", got)
	}
	got = a.Receive(named("message"))
	if m := got.Child("urn:xmpp:carbons:2", "sent").First().First(); m.ChildText("", "body") != "*hello*" {
		t.Errorf("alice received %v", got)
	}
	// Bob's XMPP client reacts to what it knows by the EventID only, and corrects nothing of hers.
	b.SendRaw(fmt.Sprintf("<message to='alice@example.org' type='chat' id='reaction-id-1'><reactions xmlns='urn:xmpp:reactions:0' id='%s'><reaction>🐢</reaction></reactions></message>", e.ID))
	b.SendRaw(fmt.Sprintf("<message to='alice@example.org' type='chat' id='edit-id-1-1-1'><body>forged</body><replace xmlns='urn:xmpp:message-correct:0' id='%s'/></message>", e.ID))
	got = b.Receive(func(el *element.Element) bool { return el.Attr("type") == "error" })
	if got.Attr("id") != "edit-id-1-1-1" || got.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", "forbidden") == nil {
		t.Errorf("bob's forged edit was answered by %v", got)
	}
	got = a.Receive(func(el *element.Element) bool { return el.Child("urn:xmpp:reactions:0", "reactions") != nil })
	if r := got.Child("urn:xmpp:reactions:0", "reactions"); r.Attr("id") != string(e.ID) || r.ChildText("", "reaction") != "🐢" {
		t.Errorf("alice received %v", got)
	}
	// A failure that comes late.
	if err := s.Hub.Report(ctx, hub.Report{Event: e.ID, To: bob, Stage: core.StageFailed, Reason: "item-not-found (nobody)"}); err != nil {
		t.Fatal(err)
	}
	got = a.Receive(func(el *element.Element) bool { return el.Attr("type") == "error" })
	if got.Attr("id") != string(e.ID) || got.Attr("from") != "bob@example.org" || got.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", "item-not-found") == nil {
		t.Errorf("alice received %v", got)
	}
}

func TestArchivePages(t *testing.T) {
	s := xmpptest.New(t)
	alice, bob := s.Account("alice"), s.Account("bob")
	ctx := context.Background()
	if err := s.Hub.SetContact(ctx, bob, alice, "", nil); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 25 {
		e, err := s.Hub.SubmitDirect(ctx, bob, hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody(fmt.Sprint("message ", i))}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(e.ID))
	}
	// What is said in rooms is in the rooms' archives.
	room, err := s.Hub.Open(ctx, hub.Opening{Creator: alice, Shape: core.Group})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Hub.Submit(ctx, hub.Draft{Conv: room.ID, Sender: alice, Content: core.Message{Body: core.TextBody("in the room")}}); err != nil {
		t.Fatal(err)
	}
	c := s.Connect("alice", "")
	ask := func(fields, set string) (got []string, complete bool, errName string) {
		t.Helper()
		c.SendRaw("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>" +
			fields + "</x><set xmlns='http://jabber.org/protocol/rsm'>" + set + "</set></query></iq>")
		fin := c.Receive(find("id", "q"))
		for m := c.Has(named("message")); m != nil; m = c.Has(named("message")) {
			got = append(got, m.Child("urn:xmpp:mam:2", "result").Attr("id"))
		}
		if e := fin.Child("", "error"); e != nil {
			return got, false, e.First().Name.Local
		}
		return got, fin.Child("urn:xmpp:mam:2", "fin").Attr("complete") == "true", ""
	}
	check := func(name string, want []string, wantComplete bool) func([]string, bool, string) {
		return func(got []string, complete bool, e string) {
			t.Helper()
			if strings.Join(got, " ") != strings.Join(want, " ") || complete != wantComplete || e != "" {
				t.Errorf("%s: got %d results, complete %v, %s\n%v\n%v", name, len(got), complete, e, got, want)
			}
		}
	}
	check("first page", ids[:10], false)(ask("", "<max>10</max>"))
	check("second page", ids[10:20], false)(ask("", "<max>10</max><after>"+ids[9]+"</after>"))
	check("last page", ids[20:], true)(ask("", "<max>10</max><after>"+ids[19]+"</after>"))
	check("exactly the rest", ids[20:], true)(ask("", "<max>5</max><after>"+ids[19]+"</after>"))
	check("newest page", ids[20:], false)(ask("", "<max>5</max><before/>"))
	check("page before", ids[10:20], false)(ask("", "<max>10</max><before>"+ids[20]+"</before>"))
	check("all back", ids[:10], true)(ask("", "<max>10</max><before>"+ids[10]+"</before>"))
	check("with", ids[:3], false)(ask("<field var='with'><value>bob@example.org</value></field>", "<max>3</max>"))
	check("with nobody", nil, true)(ask("<field var='with'><value>carol@a.net</value></field>", "<max>3</max>"))
	check("ids", []string{ids[1], ids[3]}, true)(ask("<field var='ids'><value>"+ids[3]+"</value><value>"+ids[1]+"</value></field>", ""))
	check("after-id", ids[23:], true)(ask("<field var='after-id'><value>"+ids[22]+"</value></field>", ""))
	check("since the future", nil, true)(ask("<field var='start'><value>2999-01-01T00:00:00Z</value></field>", ""))
	if _, _, e := ask("", "<after>no-such-id</after>"); e != "item-not-found" {
		t.Errorf("an unknown id was answered with %q", e)
	}
	c.SendRaw("<iq type='get' id='m'><metadata xmlns='urn:xmpp:mam:2'/></iq>")
	meta := c.Receive(find("id", "m")).Child("urn:xmpp:mam:2", "metadata")
	if meta.Child("", "start").Attr("id") != ids[0] || meta.Child("", "end").Attr("id") != ids[24] {
		t.Errorf("metadata: %v", meta)
	}
}

func TestStreamManagement(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends, nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	bob.SendRaw("<presence/><enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	id := bob.Receive(named("enabled")).Attr("id")
	alice.SendRaw("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	aliceID := alice.Receive(named("enabled")).Attr("id")
	say := func(n int) {
		alice.SendRaw(fmt.Sprintf("<message to='bob@example.org' type='chat' id='sm-message-%d'><body>%d</body></message>", n, n))
	}
	say(1)
	bob.Receive(find("id", "sm-message-1"))
	bob.Sync()
	h := bob.Counted()
	bob.Drop()
	say(2)
	say(3)
	alice.SendRaw("<r xmlns='urn:xmpp:sm:3'/>")
	// At once what is on disk by then, and in the end that all is.
	alice.Receive(func(el *element.Element) bool { return named("a")(el) && el.Attr("h") == "3" })
	again := s.Dial("bob")
	again.SendRaw(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", id, h))
	if r := again.Receive(named("resumed")); r.Attr("h") != "1" { // the ping of Sync
		t.Errorf("bob was told %v", r)
	}
	again.Receive(find("id", "sm-message-2"))
	again.Receive(find("id", "sm-message-3"))
	again.Sync()
	if again.Has(find("id", "sm-message-1")) != nil {
		t.Error("what was acknowledged was sent again")
	}
	// After a restart nothing can be resumed, but the count is right.
	s.Restart()
	alice = s.Dial("alice")
	alice.SendRaw(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", aliceID))
	if f := alice.Receive(named("failed")); f.Attr("h") != "3" {
		t.Errorf("after the restart alice was told %v", f)
	}
	mallory := s.Dial("mallory")
	mallory.SendRaw(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", aliceID))
	if f := mallory.Receive(named("failed")); f.Attr("h") != "" {
		t.Errorf("another account was told %v", f)
	}
}

// A client that comes back just when its session ends is told so, and not kept waiting.
//
// spec: XEP-0198 §5
func TestResumedAtTheEnd(t *testing.T) {
	s := xmpptest.New(t)
	alice := s.Connect("alice", "phone")
	alice.SendRaw("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	id := alice.Receive(named("enabled")).Attr("id")
	again := s.Dial("alice")
	s.C2S.EndWhile(t, s.Account("alice"), "phone", func() {
		again.SendRaw("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='0'/>")
	})
	again.Receive(named("failed"))
}

// A client that lost its connection before it was told says the same again: it is said once.
func TestResentMessageIsOnce(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends, nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	bob.SendRaw("<presence/>")
	bob.Sync()
	const m = "<message to='bob@example.org' type='chat' id='resent-message'><body>once</body><origin-id xmlns='urn:xmpp:sid:0' id='resent-message'/></message>"
	alice.SendRaw(m)
	alice.Sync()
	alice.Drop()
	alice = s.Connect("alice", "")
	alice.SendRaw(m)
	alice.SendRaw(strings.ReplaceAll(m, "once", "another"))
	alice.Sync()
	bob.Sync()
	var got []string
	for el := bob.Has(named("message")); el != nil; el = bob.Has(named("message")) {
		got = append(got, el.ChildText("", "body"))
	}
	if strings.Join(got, ",") != "once,another" {
		t.Errorf("bob received %q", got)
	}
}

func TestBlocking(t *testing.T) {
	xmpptest.New(t).Run(friends+`
bob sends:
  <iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='alice@example.org'/></block></iq>
bob receives:
  <iq type='set'><block xmlns='urn:xmpp:blocking'><item jid='alice@example.org'/></block></iq>
  <iq type='result' id='b'/>
alice receives:
  <presence type='unavailable' from='bob@example.org/*'/>
alice sends:
  <message to='bob@example.org' type='chat' id='blocked-1-1-1'><body>hello?</body></message>
  <iq type='get' id='v' to='bob@example.org'><vCard xmlns='vcard-temp'/></iq>
alice receives:
  <iq type='error' id='v'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
bob does not receive:
  <message/>
bob sends:
  <iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'/></iq>
bob receives:
  <iq type='result' id='u'/>
alice receives:
  <presence from='bob@example.org/*'/>
`, nil)
}

func TestEventing(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice/omemo connects
alice/omemo sends:
  <presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='abc'/></presence>
alice/omemo receives:
  <iq type='get' id='{caps}'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:x#abc'/></iq>
alice/omemo sends:
  <iq type='result' id='{caps}' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'><feature var='urn:devices+notify'/><feature var='urn:xmpp:bookmarks:1+notify'/></query></iq>
bob sends:
  <iq type='set' id='p1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:devices'><item id='current'><list xmlns='urn:devices'><device id='1'/></list></item></publish>
    <publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='pubsub#access_model'><value>open</value></field></x></publish-options></pubsub></iq>
bob receives:
  <iq type='result' id='p1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:devices'><item id='current'/></publish></pubsub></iq>
alice/omemo receives:
  <message type='headline' from='bob@example.org' to='alice@example.org/omemo'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:devices'><item id='current'><list xmlns='urn:devices'><device id='1'/></list></item></items></event></message>
alice does not receive:
  <message/>
bob sends:
  <iq type='set' id='p2'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:devices'><item/></publish>
    <publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='pubsub#access_model'><value>whitelist</value></field></x></publish-options></pubsub></iq>
bob receives:
  <iq type='error' id='p2'><error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><precondition-not-met xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>
alice sends:
  <iq type='get' id='i1' to='bob@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:devices'/></pubsub></iq>
alice receives:
  <iq type='result' id='i1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:devices'><item id='current'><list xmlns='urn:devices'/></item></items></pubsub></iq>
carol connects
carol sends:
  <iq type='get' id='i2' to='bob@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:devices'/></pubsub></iq>
carol receives:
  <iq type='result' id='i2'/>
bob sends:
  <iq type='set' id='p3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:friends-only'><item><list xmlns='urn:devices'/></item></publish></pubsub></iq>
bob receives:
  <iq type='result' id='p3'/>
carol sends:
  <iq type='get' id='i3' to='bob@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:friends-only'/></pubsub></iq>
carol receives:
  <iq type='error' id='i3'><error><presence-subscription-required xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>
bob sends:
  <iq type='set' id='p4'><pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='urn:devices' notify='1'><item id='current'/></retract></pubsub></iq>
bob receives:
  <iq type='result' id='p4'/>
alice/omemo receives:
  <message><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:devices'><retract id='current'/></items></event></message>
`, nil)
}

func TestBookmarksAreMemberships(t *testing.T) {
	s := xmpptest.New(t)
	alice := s.Account("alice")
	ctx := context.Background()
	room, err := s.Hub.Open(ctx, hub.Opening{Creator: alice, Shape: core.Group, Address: core.LocalAddress("garden", "example.org"),
		Initial: []hub.Draft{{Content: core.Change{Aspect: core.AspectName, Text: "The garden"}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Run(`
alice connects
alice sends:
  <iq type='get' id='b1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub></iq>
alice receives:
  <iq type='result' id='b1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'>
    <item id='garden@rooms.example.org'><conference xmlns='urn:xmpp:bookmarks:1' autojoin='true' name='The garden'><nick>alice</nick></conference></item></items></pubsub></iq>
alice sends:
  <iq type='set' id='b2'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:bookmarks:1'><item id='garden@rooms.example.org'>
    <conference xmlns='urn:xmpp:bookmarks:1' autojoin='false' name='Mine'/></item></publish></pubsub></iq>
alice receives:
  <iq type='result' id='b2'/>
alice sends:
  <iq type='get' id='b3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub></iq>
alice receives:
  <iq type='result' id='b3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'>
    <item id='garden@rooms.example.org'><conference xmlns='urn:xmpp:bookmarks:1' autojoin='false' name='Mine'/></item></items></pubsub></iq>
`, nil)
	err = s.Hub.Read(ctx, func(v hub.View) error {
		st, err := v.State(room.ID)
		if err == nil && st.Standing(alice) != core.Left {
			t.Errorf("alice's standing is %q", st.Standing(alice))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPrivateDataAndProfile(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends+`
alice sends:
  <iq type='set' id='1'><query xmlns='jabber:iq:private'><storage xmlns='storage:x'><a/></storage></query></iq>
  <iq type='get' id='2'><query xmlns='jabber:iq:private'><storage xmlns='storage:x'/></query></iq>
  <iq type='get' id='3'><query xmlns='jabber:iq:private'><storage xmlns='storage:y'/></query></iq>
  <iq type='set' id='4'><vCard xmlns='vcard-temp'><FN>Alice Liddell</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==</BINVAL></PHOTO></vCard></iq>
alice receives:
  <iq type='result' id='1'/>
  <iq type='result' id='2'><query xmlns='jabber:iq:private'><storage xmlns='storage:x'><a/></storage></query></iq>
  <iq type='result' id='3'><query xmlns='jabber:iq:private'><storage xmlns='storage:y'/></query></iq>
  <iq type='result' id='4'/>
bob sends:
  <iq type='get' id='5' to='alice@example.org'><vCard xmlns='vcard-temp'/></iq>
  <iq type='get' id='6' to='alice@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:metadata'/></pubsub></iq>
bob receives:
  <iq type='result' id='5'><vCard xmlns='vcard-temp'><FN>Alice Liddell</FN></vCard></iq>
  <iq type='result' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:metadata'><item id='{sha}'>
    <metadata xmlns='urn:xmpp:avatar:metadata'><info id='{sha}' type='image/png' width='1' height='1'/></metadata></item></items></pubsub></iq>
`, nil)
	p, err := s.Hub.Profile(context.Background(), s.Account("alice"))
	if err != nil || p.Name != "Alice Liddell" || p.Avatar == nil || p.Avatar.Type != "image/png" {
		t.Errorf("profile: %+v, %v", p, err)
	}
}

func TestUpload(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends, nil)
	srv := httptest.NewServer(http.HandlerFunc(s.C2S.Upload))
	defer srv.Close()
	c, bob := s.Connect("alice", ""), s.Connect("bob", "")
	bob.SendRaw("<presence/>")
	const content = "a file of some bytes"
	slot := func(size int) *element.Element {
		c.SendRaw(fmt.Sprintf("<iq type='get' id='s' to='upload.example.org'><request xmlns='urn:xmpp:http:upload:0' filename='a b.txt' size='%d' content-type='text/plain'/></iq>", size))
		return c.Receive(find("id", "s"))
	}
	put := func(link, body string) int {
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+u.EscapedPath(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/plain")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	el := slot(len(content)).Child("urn:xmpp:http:upload:0", "slot")
	target, link := el.Child("", "put").Attr("url"), el.Child("", "get").Attr("url")
	for _, try := range []struct {
		url, body string
		want      int
	}{
		{"https://example.org/_parley/upload/nothing/x", content, 404},
		{target, content + "!", 413},
		{target, content[1:], 413},
		{target, content, 201},
		{target, content, 404},
	} {
		if got := put(try.url, try.body); got != try.want {
			t.Errorf("PUT of %d bytes was answered with %d, want %d", len(try.body), got, try.want)
		}
	}
	if e := slot(1<<40).Child("", "error").Child("urn:xmpp:http:upload:0", "file-too-large"); e == nil {
		t.Error("a slot for a terabyte was given")
	}
	// The link in a message is known to be the file.
	c.SendRaw("<message to='bob@example.org' type='chat' id='file-message-1'><body>" + link + "</body><x xmlns='jabber:x:oob'><url>" + link + "</url></x></message>")
	bob.Receive(find("id", "file-message-1"))
	events, err := s.Hub.History(t.Context(), s.Account("bob"), hub.Query{For: s.Account("bob"), Directs: true, Kinds: []core.Kind{core.KindMessage}})
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	body, _ := core.BodyOf(events[0].Content)
	sum := sha256.Sum256([]byte(content))
	if f := body.Files(); len(f) != 1 || f[0].Media == "" || f[0].SHA256 != hex.EncodeToString(sum[:]) || f[0].Name != "a b.txt" {
		t.Errorf("the message shares %+v", f)
	}
}

func TestErrorsAndRouting(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <iq type='get' id='1'><thing xmlns='urn:unknown'/></iq>
  <iq type='get' id='2' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='3' to='nobody@example.org'><vCard xmlns='vcard-temp'/></iq>
  <iq type='get' id='4' to='@@'><vCard xmlns='vcard-temp'/></iq>
  <message id='to-nobody-at-all' to='nobody@example.org' type='chat'><body>x</body></message>
  <message id='to-elsewhere-12' to='carol@a.net' type='chat'><body>x</body></message>
  <presence to='example.org' type='nonsense' id='6'/>
alice receives:
  <iq type='error' id='1'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='2'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='server' type='im'/><feature var='urn:xmpp:carbons:2'/></query></iq>
  <iq type='error' id='3'/>
  <iq type='error' id='4'><error type='modify'><jid-malformed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <message type='error' id='to-nobody-at-all'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
  <message type='error' id='to-elsewhere-12'/>
  <presence type='error' id='6'/>
bob/direct connects
alice sends:
  <iq type='get' id='7' to='bob@example.org/direct'><query xmlns='jabber:iq:last'/></iq>
bob/direct receives:
  <iq type='get' id='7' from='alice@example.org/*'><query xmlns='jabber:iq:last'/></iq>
bob/direct sends:
  <iq type='result' id='7' to='bob@example.org'/>
alice sends:
  <message to='bob@example.org' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='call'/></message>
bob receives:
  <message from='alice@example.org/*'><propose xmlns='urn:xmpp:jingle-message:0' id='call'/></message>
`, nil)
}

func TestClientStateHoldsPresence(t *testing.T) {
	xmpptest.New(t).Run(friends+`
alice sends:
  <inactive xmlns='urn:xmpp:csi:0'/>
  <iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>
alice receives:
  <iq type='result' id='1'/>
# A message cannot wait; what was held goes before it, of two presences the newer.
bob sends:
  <presence><status>one</status></presence>
  <presence><status>two</status></presence>
  <message to='alice@example.org' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>
  <message to='alice@example.org' type='chat' id='important-1'><body>now</body></message>
alice receives:
  <presence><status>two</status></presence>
  <message id='important-1'/>
alice does not receive:
  <presence><status>one</status></presence>
`, nil)
}

// A stranger who only writes is to XMPP clients one who asks to subscribe.
func TestStrangersMessageIsARequest(t *testing.T) {
	xmpptest.New(t).Run(`
alice connects
bob connects
bob is available
alice sends:
  <message to='bob@example.org' type='chat' id='stranger-one-1'><body>hello stranger</body></message>
bob receives:
  <presence type='subscribe' from='alice@example.org'/>
bob does not receive:
  <message/>
bob closes
bob connects
bob is available
bob receives:
  <presence type='subscribe' from='alice@example.org'/>
bob does not receive:
  <message/>
bob sends:
  <message to='alice@example.org' type='chat' id='an-answer-1'><body>who is it?</body></message>
bob receives:
  <message id='stranger-one-1'><body>hello stranger</body></message>
carol connects
carol sends:
  <message to='bob@example.org' type='chat' id='stranger-two-2'><body>buy this</body></message>
bob receives:
  <presence type='subscribe' from='carol@example.org'/>
bob sends:
  <presence type='unsubscribed' to='carol@example.org'/>
bob does not receive:
  <message/>
bob closes
bob connects
bob is available
bob does not receive:
  <presence type='subscribe'/>
  <message/>
`, nil)
}

func TestOldBookmarks(t *testing.T) {
	s := xmpptest.New(t)
	if _, err := s.Hub.Open(context.Background(), hub.Opening{Creator: s.Account("alice"), Shape: core.Group,
		Address: core.LocalAddress("garden", "example.org")}); err != nil {
		t.Fatal(err)
	}
	s.Run(`
alice connects
alice sends:
  <iq type='set' id='1'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><conference jid='club@muc.a.net' autojoin='true' name='Club'><nick>al</nick></conference></storage></query></iq>
  <iq type='get' id='2'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query></iq>
  <iq type='get' id='3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub></iq>
alice receives:
  <iq type='result' id='1'/>
  <iq type='result' id='2'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>
    <conference jid='club@muc.a.net' autojoin='true' name='Club'><nick>al</nick></conference>
    <conference jid='garden@rooms.example.org' autojoin='true'/></storage></query></iq>
  <iq type='result' id='3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'>
    <item id='club@muc.a.net'><conference xmlns='urn:xmpp:bookmarks:1' autojoin='true' name='Club'><nick>al</nick></conference></item></items></pubsub></iq>
`, nil)
}

// The sessions' own rows are the same on PostgreSQL: requests, eventing,
// bookmarks, archives, uploads and the counts of streams.
func TestOnPostgres(t *testing.T) {
	db := storetest.Open(t, storetest.Postgres(t), store.Options{})
	s := xmpptest.New(t, xmpptest.On(db))
	s.Run(friends+`
alice sends:
  <enable xmlns='urn:xmpp:sm:3' resume='true'/>
  <message to='bob@example.org' type='chat' id='message-one'><body>hello</body></message>
  <r xmlns='urn:xmpp:sm:3'/>
alice receives:
  <enabled xmlns='urn:xmpp:sm:3' id='*'/>
  <a xmlns='urn:xmpp:sm:3' h='1'/>
bob receives:
  <message id='message-one'><stanza-id xmlns='urn:xmpp:sid:0' id='{sid}'/></message>
bob sends:
  <iq type='set' id='q1'><query xmlns='urn:xmpp:mam:2' queryid='q'/></iq>
bob receives:
  <message><result xmlns='urn:xmpp:mam:2' queryid='q' id='{sid}'/></message>
  <iq type='result' id='q1'/>
bob sends:
  <iq type='set' id='p1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:example:node'><item id='i'><thing xmlns='urn:example'/></item></publish></pubsub></iq>
  <iq type='get' id='p2'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:example:node'/></pubsub></iq>
  <iq type='set' id='v1'><vCard xmlns='vcard-temp'><FN>Bob</FN></vCard></iq>
  <iq type='get' id='s1' to='upload.example.org'><request xmlns='urn:xmpp:http:upload:0' filename='a.txt' size='3'/></iq>
bob receives:
  <iq type='result' id='p1'/>
  <iq type='result' id='p2'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:example:node'><item id='i'/></items></pubsub></iq>
  <iq type='result' id='v1'/>
  <iq type='result' id='s1'><slot xmlns='urn:xmpp:http:upload:0'/></iq>
`, nil)
}
