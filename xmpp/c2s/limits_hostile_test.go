package c2s_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/guard/guardtest"
	"parley/xmpp/stream"
	"parley/xmpp/xmpptest"
)

// limited is a server with these limits and no others.
func limited(t *testing.T, rates map[guard.Limit]guard.Rate, change func(*c2s.Config)) (*xmpptest.Server, *guardtest.Counts) {
	g, n := guardtest.New(rates)
	return xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.Guard = g
		if change != nil {
			change(c)
		}
	})), n
}

// refused sends a stanza with the id "x" and expects an error with words.
func refused(t *testing.T, c *xmpptest.Client, stanza, condition string) {
	t.Helper()
	c.SendRaw(stanza)
	e := c.Receive(func(el *element.Element) bool { return el.Attr("id") == "x" }).Child("", "error")
	if e == nil || e.First().Name.Local != condition || e.ChildText("urn:ietf:params:xml:ns:xmpp-stanzas", "text") == "" {
		t.Errorf("%.200s\nwas answered by %v, want %s with words", stanza, e, condition)
	}
}

// hourly allows n, and no more before the test is long over.
func hourly(n int) guard.Rate { return guard.Rate{N: n, Per: 1000 * time.Hour} }

// A flood of stanzas is read slowly, from one client and from all of an account, and nothing of it is lost.
//
// spec: XEP-0205 §4
func TestFloodIsReadSlowly(t *testing.T) {
	for l, sessions := range map[guard.Limit]int{guard.Stanzas: 1, guard.AccountStanzas: 3} {
		s, n := limited(t, map[guard.Limit]guard.Rate{l: {N: 2000, Per: time.Second, Burst: 20}}, nil)
		s.Run("bob connects\nbob is available\nalice connects", nil)
		bob := s.Connect("bob", "inbox")
		bob.SendRaw("<presence/>")
		bob.Sync()
		var flood []*xmpptest.Client
		for range sessions {
			flood = append(flood, s.Connect("alice", ""))
		}
		const each = 100
		for i, c := range flood {
			var b strings.Builder
			for j := range each {
				fmt.Fprintf(&b, "<message to='bob@example.org/inbox' type='headline' id='%d of %d'><body>x</body></message>", j, i)
			}
			c.SendRaw(b.String())
		}
		for i := range flood {
			for j := range each {
				bob.Receive(find("id", fmt.Sprintf("%d of %d", j, i)))
			}
		}
		if n.Limited(l) == 0 {
			t.Errorf("%s: nothing had to wait", l)
		}
	}
}

func TestSessionsPerAccount(t *testing.T) {
	s, n := limited(t, nil, func(c *c2s.Config) { c.MaxSessions = 3 })
	first := s.Connect("alice", "first")
	second := s.Connect("alice", "second")
	third := s.Connect("alice", "third")
	s.Connect("bob", "other")
	full := s.Dial("alice")
	refused(t, full, "<iq type='set' id='x'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>fourth</resource></bind></iq>", "resource-constraint")
	if n.Limited(guard.Sessions) != 1 {
		t.Error("it is not counted")
	}
	first.Sync() // all others stay

	// A client that has lost its connection keeps no place from one that is there: the one that waits longest goes.
	lose := func(c *xmpptest.Client) (id string) {
		c.SendRaw("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		id = c.Receive(named("enabled")).Attr("id")
		c.Drop()
		return id
	}
	gone := lose(second)
	waitAway(t, s, "second")
	kept := lose(third)
	waitAway(t, s, "third")
	full.Bind("fourth")
	back := s.Dial("alice")
	back.SendRaw("<resume xmlns='urn:xmpp:sm:3' previd='" + gone + "' h='0'/>")
	back.Receive(named("failed"))
	back.SendRaw("<resume xmlns='urn:xmpp:sm:3' previd='" + kept + "' h='0'/>")
	back.Receive(named("resumed"))
	first.Sync()
}

// waitAway waits until the server knows that a client has lost its connection.
func waitAway(t *testing.T, s *xmpptest.Server, resource string) {
	t.Helper()
	for !s.C2S.Away(s.Account("alice"), resource) {
		time.Sleep(time.Millisecond)
		if t.Context().Err() != nil {
			t.Fatal("it never does")
		}
	}
}

func TestPresenceStorm(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.Presences: hourly(3)}, func(c *c2s.Config) { c.MaxDirected = 2 })
	s.Run(friends, nil)
	alice, bob := s.Connect("alice", "storm"), s.Connect("bob", "calm")
	bob.SendRaw("<presence/>")
	for i := range 3 {
		alice.SendRaw(fmt.Sprintf("<presence><status>%d</status></presence>", i))
	}
	refused(t, alice, "<presence id='x'><status>too often</status></presence>", "resource-constraint")
	alice.Sync()
	bob.Sync()
	if p := bob.Has(func(el *element.Element) bool { return el.ChildText("", "status") == "too often" }); p != nil {
		t.Errorf("bob saw %v", p)
	}
	for i := range 2 {
		alice.SendRaw(fmt.Sprintf("<presence to='x%d@example.org'/>", i))
	}
	refused(t, alice, "<presence id='x' to='bob@example.org'/>", "resource-constraint")
	alice.SendRaw("<presence to='x1@example.org' type='unavailable'/><presence to='bob@example.org'><status>only one</status></presence>")
	bob.Receive(func(el *element.Element) bool { return el.ChildText("", "status") == "only one" })
	if n.Limited(guard.Presences) != 1 || n.Limited(guard.DirectedPresences) != 1 {
		t.Error("they are not counted")
	}
}

func TestRosterBomb(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.Asks: hourly(2)}, func(c *c2s.Config) { c.MaxGroups = 3 })
	alice := s.Connect("alice", "")
	item := func(name string, groups int) string {
		g := ""
		for i := range groups {
			g += fmt.Sprintf("<group>%d</group>", i)
		}
		return "<iq type='set' id='x'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='" + name + "'>" + g + "</item></query></iq>"
	}
	refused(t, alice, item("Bob", 4), "not-acceptable")
	refused(t, alice, item(strings.Repeat("B", 1024), 1), "not-acceptable")
	if n.Limited(guard.RosterGroups) != 1 {
		t.Error("it is not counted")
	}
	alice.SendRaw(strings.Replace(item("Bob", 3), "'x'", "'fits'", 1))
	if r := alice.Receive(find("id", "fits")); r.Attr("type") != "result" {
		t.Errorf("what fits is answered by %v", r)
	}
	for _, who := range []string{"bob", "carol"} {
		alice.SendRaw("<presence type='subscribe' to='" + who + "@example.org'/>")
	}
	refused(t, alice, "<presence id='x' type='subscribe' to='dora@example.org'/>", "resource-constraint")
	if n.Limited(guard.Asks) != 1 {
		t.Error("requests are not counted")
	}
}

func TestArchiveScraping(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.ArchivePages: hourly(2)}, func(c *c2s.Config) { c.MaxPage = 3 })
	s.Run(friends, nil)
	alice := s.Connect("alice", "")
	for i := range 5 {
		alice.SendRaw(fmt.Sprintf("<message to='bob@example.org' type='chat' id='message-number-%d'><body>%d</body></message>", i, i))
	}
	alice.Sync()
	const query = "<iq type='set' id='x'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>100</max></set></query></iq>"
	for range 2 {
		alice.SendRaw(query)
		fin := alice.Receive(find("id", "x")).Child("urn:xmpp:mam:2", "fin")
		if fin == nil || fin.Attr("complete") == "true" {
			t.Errorf("a page ends with %v", fin)
		}
		results := 0
		for alice.Has(func(el *element.Element) bool { return el.Child("urn:xmpp:mam:2", "result") != nil }) != nil {
			results++
		}
		if results != 3 {
			t.Errorf("a page has %d messages", results)
		}
	}
	refused(t, alice, query, "resource-constraint")
	if n.Limited(guard.ArchivePages) != 1 {
		t.Error("it is not counted")
	}
}

// Guessing passwords is stopped for the account, and who knows the password has to wait too; other accounts do not.
func TestGuessedPasswords(t *testing.T) {
	g, n := guardtest.New(map[guard.Limit]guard.Rate{guard.Logins: hourly(3)})
	s := xmpptest.New(t, xmpptest.Streams(func(c *stream.Clients) { c.Logins = guard.FailedLogins{Guard: g} }))
	s.Account("alice")
	s.Account("bob")
	for range 3 {
		if got := s.Login("alice", "a guess"); got != "not-authorized" {
			t.Fatalf("a guess is answered by %s", got)
		}
	}
	for _, password := range []string{"a guess", xmpptest.Password} {
		if got := s.Login("alice", password); got != "temporary-auth-failure" {
			t.Errorf("after three failures comes %s", got)
		}
	}
	if got := s.Login("bob", xmpptest.Password); got != "success" {
		t.Errorf("bob gets %s", got)
	}
	if n.Limited(guard.Logins) == 0 {
		t.Error("it is not counted")
	}
}

// Stream management can be abused by nobody: not by acknowledging what was never sent, not by going on where another has left, and not
// by counting backwards.
//
// spec: XEP-0198 §4
func TestManagementAbuse(t *testing.T) {
	s := xmpptest.New(t)
	for _, a := range []string{"<a xmlns='urn:xmpp:sm:3' h='1'/>", "<a xmlns='urn:xmpp:sm:3' h='4294967295'/>"} {
		c := s.Connect("alice", "")
		c.SendRaw("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		id := c.Receive(named("enabled")).Attr("id")
		c.SendRaw(a)
		e := c.Receive(named("error"))
		if e.Child("urn:xmpp:sm:3", "handled-count-too-high") == nil {
			t.Errorf("%s is answered by %v", a, e)
		}
		c.Ended()
		eve := s.Dial("eve")
		eve.SendRaw("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='0'/>")
		if f := eve.Receive(named("failed")); f.Attr("h") != "" || f.Child("urn:ietf:params:xml:ns:xmpp-stanzas", "item-not-found") == nil {
			t.Errorf("eve is told %v", f)
		}
	}
	alice := s.Connect("alice", "phone")
	alice.SendRaw("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	id := alice.Receive(named("enabled")).Attr("id")
	back := s.Dial("alice")
	back.SendRaw("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='7'/>")
	back.Receive(named("failed"))
	alice.Ended()
}

// A client cannot answer for another: what the server asks of one is answered by nobody else, and a description that does not fit its
// hash is remembered for nobody.
//
// spec: RFC 6120 §8.2.3
// spec: XEP-0115 §5.4
func TestSpoofedAnswers(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends, nil)
	alice, eve := s.Connect("alice", "x"), s.Connect("eve", "x")
	const ver = "wQvAgJ8qJy5E3AtRuM9QXrL5B0g=" // of something else than what eve says
	caps := "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://client.example' ver='" + ver + "'/></presence>"
	asked := func(el *element.Element) bool {
		return el.Attr("type") == "get" && el.Child("http://jabber.org/protocol/disco#info", "query") != nil
	}
	lie := func(to, id string) string {
		return "<iq type='result' id='" + id + "' to='" + to + "'><query xmlns='http://jabber.org/protocol/disco#info'>" +
			"<identity category='client' type='pc'/><feature var='urn:example:lie+notify'/></query></iq>"
	}
	alice.SendRaw(caps)
	question := alice.Receive(asked)
	eve.SendRaw(lie("example.org", question.Attr("id")) + lie("alice@example.org/x", question.Attr("id")))
	eve.Sync()
	eve.SendRaw(caps)
	own := eve.Receive(asked) // the server has not learnt it from the lie
	eve.SendRaw(lie("example.org", own.Attr("id")))
	eve.Sync()
	again := s.Connect("alice", "y")
	again.SendRaw(caps)
	again.Receive(asked) // nor from a description that does not fit
	if alice.Has(func(el *element.Element) bool { return el.Name.Local == "presence" && el.Attr("type") == "error" }) != nil {
		t.Error("alice was told of it")
	}
}

// Slots for files count as the files that they are for: many of them are no way around the quota.
func TestUploadQuota(t *testing.T) {
	s, n := limited(t, nil, func(c *c2s.Config) { c.Quota, c.MaxUpload = 1000, 600 })
	alice := s.Connect("alice", "")
	slot := func(size int) string {
		return fmt.Sprintf("<iq type='get' id='x' to='upload.example.org'><request xmlns='urn:xmpp:http:upload:0' filename='f' size='%d'/></iq>", size)
	}
	alice.SendRaw(slot(600))
	if r := alice.Receive(find("id", "x")); r.Attr("type") != "result" {
		t.Fatal(r)
	}
	refused(t, alice, slot(601), "not-acceptable")
	refused(t, alice, slot(401), "resource-constraint")
	if n.Limited(guard.UploadQuota) != 1 {
		t.Error("it is not counted")
	}
	alice.SendRaw(slot(400))
	if r := alice.Receive(find("id", "x")); r.Attr("type") != "result" {
		t.Error(r)
	}
}

func TestHugeResource(t *testing.T) {
	s := xmpptest.New(t)
	c := s.Dial("alice")
	c.SendRaw("<iq type='set' id='x'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + strings.Repeat("r", 1024) + "</resource></bind></iq>")
	if e := c.Receive(find("id", "x")).Child("", "error"); e == nil || e.First().Name.Local != "bad-request" {
		t.Errorf("it is answered by %v", e)
	}
	c.Bind(strings.Repeat("r", 1023))
}

// Blocking and reporting somebody on another server spoils that server's name, once for each account.
//
// spec: XEP-0377 §6
func TestReportsSpoilNames(t *testing.T) {
	g, _ := guardtest.New(nil)
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) { c.Guard = g }))
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	alice.SendRaw("<iq type='get' id='d' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	if !strings.Contains(alice.Receive(find("id", "d")).String(), "'urn:xmpp:reporting:1'") {
		t.Error("nobody can know that reports are taken")
	}
	block := func(c *xmpptest.Client, item string) {
		c.SendRaw("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>" + item + "</block></iq>")
		if r := c.Receive(find("id", "b")); r.Attr("type") != "result" {
			t.Fatalf("blocking is answered by %v", r)
		}
	}
	block(alice, "<item jid='spam@b.test'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'/></item>")
	block(alice, "<item jid='spam2@b.test'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'/></item>")
	block(bob, "<item jid='alice@example.org'/><item jid='dull@c.test'/>")
	for domain, want := range map[string]int{"b.test": guard.ScoreReported, "c.test": guard.ScoreBlocked, "example.org": 0} {
		if got := g.Score(domain); int(got+0.5) != want {
			t.Errorf("the score of %s is %v, want %d", domain, got, want)
		}
	}
}
