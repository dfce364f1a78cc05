package muc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/store/storetest"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/guard/guardtest"
	"parley/xmpp/muc"
	"parley/xmpp/xmpptest"
)

// limited is a server with rooms that have these limits and no others.
func limited(t *testing.T, rates map[guard.Limit]guard.Rate, change func(*muc.Config)) (*xmpptest.Server, *guardtest.Counts) {
	g, n := guardtest.New(rates)
	return xmpptest.New(t, xmpptest.Setup(func(s *xmpptest.Server) {
		if err := muc.Migrate(context.Background(), s.DB); err != nil {
			t.Fatal(err)
		}
		cfg := muc.Config{
			Hub: s.Hub, Names: s.C2S.Names(), Base: "https://example.org", Secret: []byte("secret"), Log: storetest.Log(t),
			Route: func(el *element.Element) { s.C2S.Deliver(context.Background(), el) }, Guard: g,
		}
		if change != nil {
			change(&cfg)
		}
		s.C2S.AddService("rooms", muc.Local{Service: muc.New(cfg)})
	})), n
}

// hourly allows n, and no more before the test is long over.
func hourly(n int) guard.Rate { return guard.Rate{N: n, Per: 1000 * time.Hour} }

const mucUser = "http://jabber.org/protocol/muc#user"

// enter sends the presence that enters a room, and returns what comes of it: "" or the condition of the error.
func enter(t *testing.T, c *xmpptest.Client, room, nick string) string {
	t.Helper()
	c.SendRaw("<presence id='enter' to='" + room + "@rooms.example.org/" + nick + "'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>")
	p := c.Receive(func(el *element.Element) bool {
		return el.Name.Local == "presence" && strings.HasPrefix(el.Attr("from"), room+"@") && (el.Attr("type") == "error" || has(el, "110"))
	})
	return condition(t, p)
}

// has says whether a presence carries a status code.
func has(el *element.Element, code string) bool {
	for _, s := range el.Child(mucUser, "x").ChildrenNamed("", "status") {
		if s.Attr("code") == code {
			return true
		}
	}
	return false
}

// condition is that of an error, which must have words; "" for what is none.
func condition(t *testing.T, el *element.Element) string {
	t.Helper()
	e := el.Child("", "error")
	if e == nil {
		return ""
	}
	if e.ChildText("urn:ietf:params:xml:ns:xmpp-stanzas", "text") == "" {
		t.Errorf("there are no words in %s", el)
	}
	return e.First().Name.Local
}

func TestJoinsAndRooms(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.Rooms: hourly(2), guard.Joins: hourly(5)}, nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	for i, want := range []string{"", "", "resource-constraint", "resource-constraint"} {
		if got := enter(t, alice, fmt.Sprint("room", i), "a"); got != want {
			t.Errorf("making room %d: %q", i, got)
		}
	}
	for i, want := range []string{"", "", "", "", "", "resource-constraint"} {
		if got := enter(t, bob, fmt.Sprint("room", i%2), "b"); got != want {
			t.Errorf("bob entering for time %d: %q", i, got)
		}
	}
	if n.Limited(guard.Rooms) != 2 || n.Limited(guard.Joins) != 1 {
		t.Errorf("counted are %d rooms and %d joins", n.Limited(guard.Rooms), n.Limited(guard.Joins))
	}
}

func TestOccupants(t *testing.T) {
	s, n := limited(t, nil, func(c *muc.Config) { c.MaxOccupants = 2 })
	alice, bob, carol := s.Connect("alice", ""), s.Connect("bob", ""), s.Connect("carol", "")
	if enter(t, alice, "garden", "a") != "" || enter(t, bob, "garden", "b") != "" {
		t.Fatal("the room is full too soon")
	}
	if got := enter(t, carol, "garden", "c"); got != "service-unavailable" || n.Limited(guard.RoomOccupants) != 1 {
		t.Errorf("entering a full room: %q", got)
	}
}

// Presence and nicks in a room may change only so often, and the others are spared.
func TestRoomPresenceStorm(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.RoomPresences: hourly(6), guard.Nicks: hourly(2)}, nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	enter(t, alice, "garden", "alice")
	enter(t, bob, "garden", "bob") // bob's first
	var got []string
	for i := range 4 {
		bob.SendRaw(fmt.Sprintf("<presence to='garden@rooms.example.org/bob%d'/>", i))
		p := bob.Receive(func(el *element.Element) bool {
			return el.Name.Local == "presence" && (el.Attr("type") == "error" || has(el, "110") && el.Attr("type") == "")
		})
		got = append(got, condition(t, p))
	}
	if want := []string{"", "", "resource-constraint", "resource-constraint"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("changing the nick is answered by %q", got)
	}
	for i, want := range []string{"", "resource-constraint"} {
		bob.SendRaw(fmt.Sprintf("<presence to='garden@rooms.example.org/bob1'><status>%d</status></presence>", i))
		p := bob.Receive(func(el *element.Element) bool {
			return el.Name.Local == "presence" && (el.Attr("type") == "error" || el.ChildText("", "status") == fmt.Sprint(i))
		})
		if c := condition(t, p); c != want {
			t.Errorf("status %d is answered by %q", i, c)
		}
	}
	alice.Sync()
	if alice.Has(func(el *element.Element) bool { return el.ChildText("", "status") == "1" }) != nil {
		t.Error("alice saw one too many")
	}
	bob.SendRaw("<presence type='unavailable' to='garden@rooms.example.org/bob1'/>") // one can always leave
	bob.Receive(func(el *element.Element) bool {
		return el.Attr("type") == "unavailable" && has(el, "110") && !has(el, "303")
	})
	if n.Limited(guard.RoomPresences) != 1 || n.Limited(guard.Nicks) != 2 {
		t.Errorf("counted are %d presences and %d nicks", n.Limited(guard.RoomPresences), n.Limited(guard.Nicks))
	}
}

func TestWhatIsSaidIsNotTooLong(t *testing.T) {
	s, n := limited(t, nil, func(c *muc.Config) { c.MaxStanza = 2000 })
	alice := s.Connect("alice", "")
	enter(t, alice, "garden", "alice")
	for _, to := range []string{"garden@rooms.example.org' type='groupchat", "garden@rooms.example.org/alice' type='chat"} {
		alice.SendRaw("<message id='long' to='" + to + "'><body>" + strings.Repeat("x", 2000) + "</body></message>")
		e := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "long" })
		if condition(t, e) != "policy-violation" {
			t.Errorf("it is answered by %s", e)
		}
	}
	alice.SendRaw("<message id='short' to='garden@rooms.example.org' type='groupchat'><body>" + strings.Repeat("x", 1000) + "</body></message>")
	if e := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "short" }); e.Attr("type") != "groupchat" {
		t.Errorf("what fits is answered by %s", e)
	}
	if n.Limited(guard.RoomStanza) != 2 {
		t.Error("they are not counted")
	}
}

// Each message in a room costs as many as there are occupants: one may say so much, in all rooms together.
func TestRoomMessageFlood(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.RoomMessages: hourly(3)}, nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	for _, room := range []string{"garden", "park"} {
		enter(t, alice, room, "alice")
		enter(t, bob, room, "bob")
	}
	var got []string
	for i, to := range []string{"garden", "park", "garden", "park", "garden"} {
		id := fmt.Sprint("said-by-alice-", i)
		alice.SendRaw("<message id='" + id + "' to='" + to + "@rooms.example.org' type='groupchat'><body>x</body></message>")
		got = append(got, condition(t, alice.Receive(func(el *element.Element) bool { return el.Attr("id") == id })))
	}
	if want := []string{"", "", "", "resource-constraint", "resource-constraint"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("messages are answered by %q", got)
	}
	bob.SendRaw("<message id='said-by-bob' to='garden@rooms.example.org' type='groupchat'><body>y</body></message>")
	alice.Receive(func(el *element.Element) bool { return el.ChildText("", "body") == "y" })
	if n.Limited(guard.RoomMessages) != 2 {
		t.Error("they are not counted")
	}
}

// However much history is asked for, on entering or of the archive, there is a limit.
func TestHistoryIsBounded(t *testing.T) {
	s, n := limited(t, map[guard.Limit]guard.Rate{guard.ArchivePages: hourly(1)}, func(c *muc.Config) { c.MaxHistory, c.MaxPage = 4, 3 })
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	enter(t, alice, "garden", "alice")
	for i := range 9 {
		alice.SendRaw(fmt.Sprintf("<message id='message-number-%d' to='garden@rooms.example.org' type='groupchat'><body>%d</body></message>", i, i))
	}
	alice.Sync()
	for _, wish := range []string{"<history maxstanzas='1000000'/>", "<history maxstanzas='99999999999999999999'/>", "<history/>", "<history seconds='100000000'/>"} {
		bob.SendRaw("<presence to='garden@rooms.example.org/bob'><x xmlns='http://jabber.org/protocol/muc'>" + wish + "</x></presence>")
		bob.Receive(func(el *element.Element) bool { return el.Child("", "subject") != nil })
		got := 0
		for bob.Has(func(el *element.Element) bool { return el.Child("", "body") != nil }) != nil {
			got++
		}
		if got != 4 {
			t.Errorf("%s brings %d messages", wish, got)
		}
	}
	const query = "<iq type='set' id='q' to='garden@rooms.example.org'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>500</max></set></query></iq>"
	bob.SendRaw(query)
	bob.Receive(func(el *element.Element) bool { return el.Attr("id") == "q" && el.Attr("type") == "result" })
	got := 0
	for bob.Has(func(el *element.Element) bool { return el.Child("urn:xmpp:mam:2", "result") != nil }) != nil {
		got++
	}
	if got != 3 {
		t.Errorf("a page has %d messages", got)
	}
	bob.SendRaw(query)
	if e := bob.Receive(func(el *element.Element) bool { return el.Attr("id") == "q" }); condition(t, e) != "resource-constraint" {
		t.Errorf("a page too many is answered by %s", e)
	}
	if n.Limited(guard.ArchivePages) != 1 {
		t.Error("it is not counted")
	}
}

// The list of rooms comes in pages, also to those who did not ask for pages.
//
// spec: XEP-0059 §2
func TestRoomListIsBounded(t *testing.T) {
	s, _ := limited(t, nil, func(c *muc.Config) { c.MaxItems = 3 })
	alice := s.Connect("alice", "")
	for i := range 7 {
		room := fmt.Sprint("room", i)
		enter(t, alice, room, "alice")
		alice.SendRaw("<iq type='set' id='" + room + "' to='" + room + "@rooms.example.org'><query xmlns='http://jabber.org/protocol/muc#owner'>" +
			"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>" +
			"<field var='muc#roomconfig_publicroom'><value>1</value></field></x></query></iq>")
		if r := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == room }); r.Attr("type") != "result" {
			t.Fatal(r)
		}
	}
	list := func(set string) (rooms []string, rsm *element.Element) {
		alice.SendRaw("<iq type='get' id='l' to='rooms.example.org'><query xmlns='http://jabber.org/protocol/disco#items'>" + set + "</query></iq>")
		q := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "l" }).Child("http://jabber.org/protocol/disco#items", "query")
		for _, it := range q.ChildrenNamed("", "item") {
			name, _, _ := strings.Cut(it.Attr("jid"), "@")
			rooms = append(rooms, name)
		}
		return rooms, q.Child("http://jabber.org/protocol/rsm", "set")
	}
	page := func(s string) string { return "<set xmlns='http://jabber.org/protocol/rsm'>" + s + "</set>" }
	for _, c := range []struct{ set, rooms, first string }{
		{"", "[room0 room1 room2]", "0"},
		{page("<max>1000</max>"), "[room0 room1 room2]", "0"},
		{page("<max>2</max>"), "[room0 room1]", "0"},
		{page("<max>2</max><after>room1@rooms.example.org</after>"), "[room2 room3]", "2"},
		{page("<after>room4@rooms.example.org</after>"), "[room5 room6]", "5"},
		{page("<after>room4x@rooms.example.org</after>"), "[room5 room6]", "5"}, // which has gone meanwhile
		{page("<before/>"), "[room4 room5 room6]", "4"},
		{page("<max>2</max><before>room4@rooms.example.org</before>"), "[room2 room3]", "2"},
		{page("<max>0</max>"), "[]", ""},
	} {
		rooms, rsm := list(c.set)
		if fmt.Sprint(rooms) != c.rooms || rsm.ChildText("", "count") != "7" || rsm.Child("", "first").Attr("index") != c.first {
			t.Errorf("%s brings %v and %v", c.set, rooms, rsm)
		}
	}
	alice.SendRaw("<iq type='get' id='l' to='rooms.example.org'><query xmlns='http://jabber.org/protocol/disco#items'>" + page("<max>x</max>") + "</query></iq>")
	if e := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "l" }); condition(t, e) != "bad-request" {
		t.Errorf("a page of no size is answered by %s", e)
	}
}

// Of many who want one nick at the same moment, one gets it.
func TestNickRace(t *testing.T) {
	s, _ := limited(t, nil, nil)
	alice := s.Connect("alice", "")
	enter(t, alice, "garden", "alice")
	const many = 8
	var racers []*xmpptest.Client
	for i := range many {
		c := s.Connect(fmt.Sprint("racer", i), "")
		enter(t, c, "garden", fmt.Sprint("racer", i))
		racers = append(racers, c)
	}
	for range 3 {
		for _, c := range racers {
			c.SendRaw("<presence to='garden@rooms.example.org/rose'/>")
		}
		for _, c := range racers {
			c.SendRaw("<presence to='garden@rooms.example.org/thorn'/>")
		}
	}
	for _, c := range racers {
		c.Sync()
	}
	holders := map[string][]string{}
	st := state(t, s.Hub, conversation(t, s.Hub, "garden"))
	for _, m := range st.Joined() {
		holders[m.Nick] = append(holders[m.Nick], m.Address.Bare())
	}
	for nick, who := range holders {
		if len(who) != 1 {
			t.Errorf("%s is the nick of %v", nick, who)
		}
	}
	if len(holders) != many+1 || holders["rose"] == nil && holders["thorn"] == nil {
		t.Errorf("the nicks are %v", holders)
	}
}
