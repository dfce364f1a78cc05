package s2s_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/s2s"
	"parley/xmpp/stream"
)

// hourly allows n, and no more before the test is long over.
func hourly(n int) guard.Rate { return guard.Rate{N: n, Per: 1000 * time.Hour} }

// guarded is a server with these limits and no others.
func guarded(t *testing.T, w *world, servers guard.Servers, rates map[guard.Limit]guard.Rate) *node {
	return newNode(t, w, "a.test", func(c *s2s.Config) {
		c.Guard = guard.New(guard.Config{Rates: rates, Servers: servers, Count: c.Count, Contact: "mailto:abuse@a.test"})
	})
}

// stranger is a server that answers pings, with a stream to a.test.
func stranger(t *testing.T, w *world, domain string) *peer {
	return newPeer(t, w, domain, func(p *peer, st *element.Element) bool { p.pong(st); return true }).open("a.test")
}

// told is the condition of the error that comes for an id, which must have words, or "" for another answer.
func (p *peer) told(id string) string {
	p.t.Helper()
	st := p.next(func(st *element.Element) bool { return st.Attr("id") == id })
	e := st.Child("", "error")
	if e == nil {
		return ""
	}
	if e.ChildText("urn:ietf:params:xml:ns:xmpp-stanzas", "text") == "" {
		p.t.Errorf("there are no words in %s", st)
	}
	return e.First().Name.Local
}

// One of another server may approach so many strangers, and her neighbours are not held for it. Where nobody here has a contact on a
// server, less is taken of it; a contact there changes that, and a mere request does not.
func TestStrangersAreHeld(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{}, map[guard.Limit]guard.Rate{guard.StrangerSender: hourly(2), guard.UnknownServer: hourly(4), guard.Strangers: hourly(1000)})
	alice := a.account("alice")
	p := stranger(t, w, "b.test")
	said := func(who string, n int) {
		p.send(fmt.Sprintf(`<message from='%s@b.test/x' to='alice@a.test' type='chat' id='%s-message-%d'><body>buy</body></message>`, who, who, n))
	}
	for i := range 3 {
		said("spam", i)
	}
	if got := p.told("spam-message-2"); got != "resource-constraint" || a.counts.get("limited stranger_sender_per_hour") != 1 {
		t.Errorf("a third message is answered by %s", got)
	}
	p.send(`<presence type='subscribe' from='ask@b.test' to='alice@a.test' id='ask'/>`)
	said("other", 0)
	said("third", 0)
	if got := p.told("third-message-0"); got != "resource-constraint" || a.counts.get("limited unknown_server_per_hour") != 1 {
		t.Errorf("the fifth approach of an unknown server is answered by %s", got)
	}
	// The answer that it is unknown is remembered for a little; another server shows the difference.
	q := stranger(t, w, "c.test")
	must(t, a.hub.SetContact(context.Background(), alice, foreign("friend", "c.test"), "", nil))
	for i := range 6 {
		q.send(fmt.Sprintf(`<message from='s%d@c.test/x' to='alice@a.test' type='chat' id='message-of-s%d'><body>hello</body></message>`, i, i))
	}
	q.sync("a.test")
	if a.counts.get("limited unknown_server_per_hour") != 1 {
		t.Error("a server on which alice has a contact is taken for unknown")
	}
}

// Invitations, to rooms elsewhere and by subscribing, are approaches as messages are.
func TestInvitationsAreApproaches(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{}, map[guard.Limit]guard.Rate{guard.StrangerSender: hourly(1)})
	a.account("alice")
	p := stranger(t, w, "b.test")
	invite := `<message from='room@b.test' to='alice@a.test' id='%s'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='eve@b.test/x'/></x></message>`
	p.send(fmt.Sprintf(invite, "first-invitation"))
	p.send(fmt.Sprintf(invite, "second-invitation"))
	if got := p.told("second-invitation"); got != "resource-constraint" {
		t.Errorf("it is answered by %s", got)
	}
	for i := range 2 {
		p.send(fmt.Sprintf(`<presence type='subscribe' from='eve@b.test' to='alice@a.test' id='ask-%d'/>`, i))
	}
	if got := p.told("ask-1"); got != "resource-constraint" {
		t.Errorf("a second request is answered by %s", got)
	}
}

// A server of bad name is refused with words that say where to appeal; those whom an account knows come through.
func TestBadNameIsRefused(t *testing.T) {
	w := newWorld()
	var g *guard.Guard
	a := newNode(t, w, "a.test", func(c *s2s.Config) {
		g = guard.New(guard.Config{Servers: guard.Servers{RefuseAt: 20}, Count: c.Count, Contact: "mailto:abuse@a.test"})
		c.Guard = g
	})
	alice := a.account("alice")
	must(t, a.hub.SetContact(context.Background(), alice, foreign("friend", "b.test"), "", nil))
	p := stranger(t, w, "b.test")
	for _, who := range []string{"alice", "bob", "carol"} {
		g.Blame(who, "b.test", guard.ScoreReported)
	}
	p.send(`<message from='spam@b.test/x' to='alice@a.test' type='chat' id='spam-message'><body>buy</body></message>`)
	st := p.next(func(st *element.Element) bool { return st.Attr("id") == "spam-message" })
	text := st.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", "text")
	if translate := st.Child("", "error").First().Name.Local; translate != "policy-violation" || !strings.Contains(text.Text(), "mailto:abuse@a.test") || text.Lang() != "en" {
		t.Errorf("it is answered by %s", st)
	}
	p.send(`<message from='friend@b.test/x' to='alice@a.test' type='chat' id='friendly-message'><body>hello</body></message>`)
	p.sync("a.test")
	events, err := a.hub.History(context.Background(), alice, hub.Query{Directs: true, Kinds: []core.Kind{core.KindMessage}, ByFeed: true})
	must(t, err)
	if len(events) != 1 || a.counts.get("limited reputation_refuse") != 1 {
		t.Errorf("alice has %d messages", len(events))
	}
}

// With a server that the operator refuses nothing is exchanged, either way, and both sides are told.
func TestRefusedServer(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{Refuse: []string{"b.test", "*.c.test"}}, nil)
	alice := a.connect("alice")
	for _, domain := range []string{"b.test", "x.c.test"} {
		p := newPeer(t, w, domain, func(*peer, *element.Element) bool { return true })
		var err error
		p.out, err = p.fed.Dial(context.Background(), domain, "a.test")
		must(t, err)
		p.send(`<message from='eve@` + domain + `/x' to='alice@a.test' type='chat' id='refused-message'><body>buy</body></message>`)
		_, err = p.out.Next(context.Background())
		se, ok := errors.AsType[*stream.Error](err)
		if !ok || se.Condition != stream.PolicyViolation || !strings.Contains(se.Text, "mailto:abuse@a.test") {
			t.Errorf("the stream of %s ends with %v", domain, err)
		}
		p.out.Close(err)
		alice.Send(parse(t, `<iq type='get' id='of `+domain+`' to='`+domain+`'><ping xmlns='urn:xmpp:ping'/></iq>`))
		iq := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "of "+domain })
		if e := iq.Child("", "error"); e == nil || e.First().Name.Local != "not-allowed" {
			t.Errorf("alice is told %s", iq)
		}
	}
	d := parcel(a, "hello")
	r := a.carrier.Deliver(context.Background(), "b.test", []hub.Delivery{d})
	if len(r) != 1 || r[0].Outcome != hub.Failed || !strings.HasPrefix(r[0].Reason, "not-allowed") {
		t.Errorf("what is owed there: %+v", r)
	}
	if p := stranger(t, w, "c.test"); p != nil { // is not below itself
		p.sync("a.test")
	}
}

// A contact's presence is taken only so often, and that she has gone always is.
func TestForeignPresenceStorm(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{}, map[guard.Limit]guard.Rate{guard.ContactPresences: hourly(3)})
	client := a.connect("alice")
	p := stranger(t, w, "b.test")
	client.Send(parse(t, `<presence type='subscribe' to='eve@b.test'/>`))
	p.next(func(st *element.Element) bool { return st.Attr("type") == "subscribe" })
	p.send(`<presence type='subscribed' from='eve@b.test' to='alice@a.test'/>`)
	for i := range 6 {
		p.send(fmt.Sprintf(`<presence from='eve@b.test/x' to='alice@a.test'><status>%d</status></presence>`, i))
	}
	p.send(`<presence from='eve@b.test/x' to='alice@a.test' type='unavailable'/>`)
	stanza(client, "presence", "unavailable", "eve@b.test", "", "")
	var seen []string
	for {
		st := client.Has(func(el *element.Element) bool { return el.Name.Local == "presence" && el.ChildText("", "status") != "" })
		if st == nil {
			break
		}
		seen = append(seen, st.ChildText("", "status"))
	}
	if fmt.Sprint(seen) != "[0 1 2]" || a.counts.get("limited contact_presences_per_minute") != 3 {
		t.Errorf("alice saw %v", seen)
	}
}

// A server's questions, its people's pages of archives, and their entering rooms are counted for all of it together.
func TestServerAsksTooMuch(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{}, map[guard.Limit]guard.Rate{guard.ServerRequests: hourly(4)})
	a.account("alice")
	p := stranger(t, w, "b.test")
	var got []string
	for i := range 6 {
		id := fmt.Sprint("question-", i)
		p.send(fmt.Sprintf(`<iq type='get' id='%s' from='s%d@b.test/x' to='a.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`, id, i))
		got = append(got, p.told(id))
	}
	if want := []string{"", "", "", "", "resource-constraint", "resource-constraint"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("questions are answered by %q", got)
	}
	// Nobody is answered who has not asked: answers to nothing make no answers.
	p.send(`<iq type='result' id='spoofed' from='s@b.test/x' to='a.test'/>`)
	p.send(`<iq type='error' id='spoofed' from='s@b.test/x' to='alice@a.test'/>`)
	if n := a.counts.get("limited server_iqs_per_minute"); n != 2 {
		t.Errorf("%d are counted", n)
	}
}

// All of a server's people together may enter rooms and read archives so often, under however many names they come.
func TestServerInRooms(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{}, map[guard.Limit]guard.Rate{guard.ServerJoins: hourly(3), guard.ServerArchivePages: hourly(2)})
	alice := a.connect("alice")
	alice.Send(parse(t, `<presence to='garden@rooms.a.test/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>`))
	stanza(alice, "message", "groupchat", "garden@rooms.a.test", "", "")
	p := newPeer(t, w, "b.test", func(p *peer, st *element.Element) bool { p.pong(st); return true }).open("rooms.a.test")
	for i := range 5 {
		p.send(fmt.Sprintf(`<presence id='join' from='s%d@b.test/x' to='garden@rooms.a.test/s%d'><x xmlns='http://jabber.org/protocol/muc'/></presence>`, i, i))
		st := p.next(func(st *element.Element) bool {
			return st.Attr("to") == fmt.Sprintf("s%d@b.test/x", i) && (st.Attr("type") == "error" || st.Child("", "subject") != nil)
		})
		if (st.Attr("type") == "error") != (i >= 3) {
			t.Errorf("joining as number %d is answered by %s", i, st)
		}
	}
	for i := range 3 {
		id := fmt.Sprint("page-", i)
		p.send(fmt.Sprintf(`<iq type='set' id='%s' from='s%d@b.test/x' to='garden@rooms.a.test'><query xmlns='urn:xmpp:mam:2'/></iq>`, id, i))
		if got := p.told(id); (got == "resource-constraint") != (i == 2) {
			t.Errorf("page %d is answered by %q", i, got)
		}
	}
	if a.counts.get("limited server_joins_per_minute") != 2 || a.counts.get("limited server_archive_pages_per_minute") != 1 {
		t.Error("they are not counted")
	}
}

// A flood of stanzas of one server is read slowly and not lost.
func TestServerFloodIsReadSlowly(t *testing.T) {
	w := newWorld()
	a := guarded(t, w, guard.Servers{}, map[guard.Limit]guard.Rate{guard.ServerStanzas: {N: 2000, Per: time.Second, Burst: 10}})
	p := stranger(t, w, "b.test")
	for i := range 100 {
		p.send(fmt.Sprintf(`<iq type='get' id='flood-%d' from='b.test' to='a.test'><ping xmlns='urn:xmpp:ping'/></iq>`, i))
	}
	for i := range 100 {
		if got := p.told(fmt.Sprint("flood-", i)); got != "" {
			t.Fatalf("ping %d is answered by %s", i, got)
		}
	}
	if a.counts.get("limited server_stanzas_per_second") == 0 {
		t.Error("nothing had to wait")
	}
}

// Requests that wait for one account are bounded, whoever makes them.
func TestPendingRequestsAreBounded(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	a.hubChange = func(c *hub.Config) { c.MaxAsks = 2 }
	a.stop(false)
	a.start()
	alice := a.account("alice")
	p := stranger(t, w, "b.test")
	for i := range 4 {
		p.send(fmt.Sprintf(`<presence type='subscribe' from='s%d@b.test' to='alice@a.test' id='ask-%d'/>`, i, i))
	}
	for _, id := range []string{"ask-2", "ask-3"} {
		if got := p.told(id); got != "resource-constraint" {
			t.Errorf("%s is answered by %s", id, got)
		}
	}
	contacts, _, err := a.hub.Contacts(context.Background(), alice)
	must(t, err)
	if len(contacts) != 2 {
		t.Errorf("%d requests wait", len(contacts))
	}
}
