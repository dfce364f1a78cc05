package foreign_test

import (
	"fmt"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/translate"
)

var alice = core.LocalAddress("alice", "example.org")

// member is what a projection says of an occupant, by nick.
func (w *world) member(r *room, nick string) (m core.Member) {
	_, st, ok := w.conv("alice", r)
	if !ok {
		return m
	}
	for _, c := range st.Members {
		if c.Nick == nick && (m.Standing != core.Joined) {
			m = c
		}
	}
	return m
}

// Whom the room has made moderator moderates from clients of any protocol; what the room refuses is refused with its words.
func TestModerating(t *testing.T) {
	w, r := garden(t)
	r.enter(guest{nick: "carol"})
	r.enter(guest{nick: "dave"})
	w.Run(enters("alice", "alice"), nil)
	said := r.say("carol", "<body>buy this</body>")
	w.until("it is heard", func() bool { return len(w.texts("alice", r)) == 1 })
	spam := w.events("alice", r, core.KindMessage)[0]
	carol, dave := w.member(r, "carol").Address, w.member(r, "dave").Address
	kick := core.Membership{Target: carol, Standing: core.Left, Reason: "enough"}
	for _, c := range []core.Content{
		kick, core.Change{Aspect: core.AspectTopic, Text: "lilies"}, core.Retract{Target: spam.ID}, core.Change{Aspect: core.AspectName, Text: "x"},
	} {
		if err := w.submit(r, c); hub.CodeOf(err) != hub.Outcast && hub.CodeOf(err) != hub.Forbidden || !strings.Contains(fmt.Sprint(err), "the room says") {
			t.Errorf("one who is no moderator: %#v: %v", c, err)
		}
	}
	r.becomes("alice", "owner", "moderator")
	w.until("she is shown as an owner", func() bool {
		_, st, _ := w.conv("alice", r)
		return st.Level(alice) == 100
	})
	do := func(c core.Content) {
		t.Helper()
		if err := w.submit(r, c); err != nil {
			t.Errorf("%#v: %v", c, err)
		}
	}
	do(core.Change{Aspect: core.AspectTopic, Text: "lilies"})
	do(core.Change{Aspect: core.AspectName, Text: "The new name"})
	do(core.Retract{Target: spam.ID, Reason: "spam"})
	if e := w.events("alice", r, core.KindMessage)[0]; e.Retracted == "" {
		t.Error("what the room retracted is still there")
	}
	if r.count(func(st *element.Element) bool {
		return st.First().Is(translate.NSModerate, "moderate") && st.First().Attr("id") == said
	}) != 2 {
		t.Error("the room was not asked by its own name of the message")
	}
	do(kick)
	if m := w.member(r, "carol"); m.Standing != core.Left || m.By != alice {
		t.Errorf("kicked: %+v", m)
	}
	do(core.Membership{Target: dave, Standing: core.Banned, Reason: "enough"})
	if m := w.member(r, "dave"); m.Standing != core.Banned {
		t.Errorf("banned: %+v", m)
	}
	r.mu.Lock()
	if !r.banned["dave@far.test"] {
		t.Errorf("the room has banned %v", r.banned)
	}
	r.mu.Unlock()
	_, st, _ := w.conv("alice", r)
	if st.Topic != "lilies" || st.Name != "The new name" {
		t.Errorf("topic %q, name %q", st.Topic, st.Name)
	}
	levels := st.Levels.Clone()
	levels.Users[w.member(r, "bob").Address] = 50
	do(core.Change{Aspect: core.AspectLevels, Levels: &levels})
	r.mu.Lock()
	if g := r.at("bob"); g.affiliation != "admin" {
		t.Errorf("a level of 50 made bob %s", g.affiliation)
	}
	r.mu.Unlock()
}

func TestSentAway(t *testing.T) {
	for code, want := range map[string]core.Standing{"307": core.Left, "301": core.Banned, "321": core.Left, "322": core.Left} {
		t.Run(code, func(t *testing.T) {
			w, r := garden(t)
			w.Run(enters("alice", "alice"), nil)
			r.goes("alice", code, "<actor nick='bob'/><reason>be off</reason>")
			w.Run(fmt.Sprintf(`
				alice receives:
				  <presence type='unavailable' from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><item role='none'><reason>be off</reason></item><status code='110'/><status code='%s'/></x></presence>
			`, code), nil)
			w.until("she is out", func() bool { _, st, _ := w.conv("alice", r); return st.Standing(alice) == want })
			all := w.events("alice", r, core.KindMembership)
			m := all[len(all)-1].Content.(core.Membership)
			if m.Reason != "be off" || all[len(all)-1].Sender != w.member(r, "bob").Address {
				t.Errorf("it was by %v because of %q", all[len(all)-1].Sender, m.Reason)
			}
			if err := w.submit(r, core.Message{Body: core.TextBody("hello?")}); hub.CodeOf(err) != hub.NotMember && hub.CodeOf(err) != hub.Outcast {
				t.Errorf("one who was sent away speaks: %v", err)
			}
		})
	}
}

func TestRefusedEntry(t *testing.T) {
	w, r := garden(t)
	try := func(nick, inner, condition string) {
		t.Helper()
		w.Run(fmt.Sprintf(`
			alice sends:
			  <presence to='garden@rooms.test/%s'><x xmlns='http://jabber.org/protocol/muc'>%s</x></presence>
			alice receives:
			  <presence type='error' from='garden@rooms.test/%s'><error><%s xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
		`, nick, inner, nick, condition), nil)
	}
	enter := func(j hub.JoinRequest) error {
		j.Who = alice
		_, err := w.Hub.EnterAt(t.Context(), r.address(), j)
		return err
	}
	set := func(f func()) { r.mu.Lock(); defer r.mu.Unlock(); f() }
	try("bob", "", "conflict")
	set(func() { r.onlyFor = map[string]bool{} })
	try("alice", "", "registration-required")
	if err := enter(hub.JoinRequest{}); hub.CodeOf(err) != hub.MembersOnly {
		t.Errorf("members only: %v", err)
	}
	set(func() { r.onlyFor = nil; r.banned["alice@example.org"] = true })
	try("alice", "", "forbidden")
	set(func() { r.banned = map[string]bool{}; r.password = "sesame" })
	try("alice", "<password>open</password>", "not-authorized")
	if err := enter(hub.JoinRequest{Reason: "open"}); hub.CodeOf(err) != hub.Forbidden {
		t.Errorf("a wrong password: %v", err)
	}
	if err := enter(hub.JoinRequest{Reason: "sesame", Nick: "bob"}); err != nil { // bob's nick is taken: another will do
		t.Errorf("the right password: %v", err)
	}
	if r.ours("bob_") == nil {
		t.Error("she is not in the room under another nick")
	}
	// The password is kept for when we come back.
	w.restart()
	w.until("we are in the room again", func() bool { return r.ours("bob_") != nil })
	if err := enter(hub.JoinRequest{Who: alice}); err != nil {
		t.Errorf("one who is in the room: %v", err)
	}
	if _, err := w.Hub.EnterAt(t.Context(), core.Address{Network: core.XMPP, Name: "x", Domain: "nowhere.test"}, hub.JoinRequest{Who: alice}); err == nil {
		t.Error("a room on no server was entered")
	}
}

// An invitation of a room with a password carries it.
func TestInvitedWithPassword(t *testing.T) {
	w, r := garden(t)
	r.mu.Lock()
	r.password = "sesame"
	r.mu.Unlock()
	room, _ := translate.ParseJID(r.jid)
	bob := core.Address{Network: core.XMPP, Name: "bob", Domain: "far.test"}
	if err := w.svc.Invited(t.Context(), alice, bob, translate.Invitation{Room: room, Reason: "come", Password: "sesame"}); err != nil {
		t.Fatal(err)
	}
	w.Run(`
		alice receives:
		  <message from='garden@rooms.test'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='bob@far.test'><reason>come</reason></invite></x></message>
	`, nil)
	conv, st, _ := w.conv("alice", r)
	if m := st.Members[alice]; m.Standing != core.Invited || m.By != bob {
		t.Errorf("she is %+v", m)
	}
	if _, err := w.Hub.Accept(t.Context(), hub.JoinRequest{Conv: conv.ID, Who: alice}); err != nil {
		t.Fatal(err)
	}
	if r.ours("alice") == nil {
		t.Error("she is not in the room")
	}
}

// An invitation waits for a client, and is declined by one.
func TestInvitationWaits(t *testing.T) {
	w := newWorld(t)
	r := w.room("garden@rooms.test")
	w.Account("alice")
	room, _ := translate.ParseJID(r.jid)
	bob := core.Address{Network: core.XMPP, Name: "bob", Domain: "far.test"}
	if err := w.svc.Invited(t.Context(), alice, bob, translate.Invitation{Room: room, Reason: "come"}); err != nil {
		t.Fatal(err)
	}
	w.until("the invitation is kept", func() bool {
		_, st, ok := w.conv("alice", r)
		return ok && st.Standing(alice) == core.Invited
	})
	w.Run(`
		alice connects
		alice is available
		alice receives:
		  <message from='garden@rooms.test'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='bob@far.test'><reason>come</reason></invite></x></message>
		alice sends:
		  <message to='garden@rooms.test'><x xmlns='http://jabber.org/protocol/muc#user'><decline to='bob@far.test'/></x></message>
	`, nil)
	w.until("it is declined", func() bool { _, st, _ := w.conv("alice", r); return st.Standing(alice) == core.Left })
	w.until("the room hears of it", func() bool {
		return r.count(func(st *element.Element) bool { return st.Child(translate.NSMUCUser, "x").Child("", "decline") != nil }) == 1
	})
	w.Run("alice disconnects\nalice connects\nalice is available"+`
		alice does not receive:
		  <message from='garden@rooms.test'/>
	`, nil)
}

func TestTooManyInvitations(t *testing.T) {
	w := newWorld(t, func(c *foreign.Config) { c.MaxInvited = 3 })
	w.Account("alice")
	refused := 0
	for i := range 6 {
		r := w.room(fmt.Sprintf("room%d@rooms.test", i))
		room, _ := translate.ParseJID(r.jid)
		err := w.svc.Invited(t.Context(), alice, core.Address{Network: core.XMPP, Name: "bob", Domain: "far.test"}, translate.Invitation{Room: room})
		if err != nil {
			refused++
			continue
		}
		w.until("it is kept", func() bool { _, _, ok := w.conv("alice", r); return ok })
	}
	if refused != 3 {
		t.Errorf("%d of 6 were refused", refused)
	}
}

func TestModeratedRoom(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	r.becomes("alice", "none", "visitor")
	w.until("she is a visitor", func() bool { _, st, _ := w.conv("alice", r); return st.Level(alice) < 0 })
	w.Run(`
		alice sends:
		  <message type='groupchat' to='garden@rooms.test' id='unheard-of-her'><body>psst</body></message>
		alice receives:
		  <message type='error' id='unheard-of-her' from='garden@rooms.test'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
	`, nil)
	r.becomes("alice", "none", "participant")
	w.until("she has a voice", func() bool { _, st, _ := w.conv("alice", r); return st.Level(alice) == 0 })
	w.Run(`
		alice sends:
		  <message type='groupchat' to='garden@rooms.test' id='heard-of-her'><body>hey</body></message>
		alice receives:
		  <message type='groupchat' id='heard-of-her' from='garden@rooms.test/alice'><body>hey</body></message>
	`, nil)
}

// What the room refuses late is an error from the room.
func TestLateRefusal(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	r.mu.Lock()
	r.hook = func(st *element.Element) bool {
		if st.ChildText("", "body") != "a bad word" {
			return false
		}
		r.fail(st, translate.NotAcceptable, "mind your words") // as if we were not there, which we look into once
		return true
	}
	r.mu.Unlock()
	w.Run(`
		alice sends:
		  <message type='groupchat' to='garden@rooms.test' id='bad-word-of-hers'><body>a bad word</body></message>
		alice receives:
		  <message type='error' id='bad-word-of-hers' from='garden@rooms.test'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
		alice sends:
		  <message type='groupchat' to='garden@rooms.test' id='good-word-of-hers'><body>a good word</body></message>
		alice receives:
		  <message type='groupchat' id='good-word-of-hers' from='garden@rooms.test/alice'/>
	`, nil)
}

func TestNicks(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	bob := w.member(r, "bob").Address
	r.calls("bob", "robert")
	w.Run(`
		alice receives:
		  <presence type='unavailable' from='garden@rooms.test/bob'><x xmlns='http://jabber.org/protocol/muc#user'><item nick='robert'/><status code='303'/></x></presence>
		  <presence from='garden@rooms.test/robert'/>
		alice sends:
		  <presence to='garden@rooms.test/robert'/>
		alice receives:
		  <presence type='error' from='garden@rooms.test/robert'><error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
		alice sends:
		  <presence to='garden@rooms.test/alicia'/>
		alice receives:
		  <presence type='unavailable' from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='303'/><status code='110'/></x></presence>
		  <presence from='garden@rooms.test/alicia'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
	`, nil)
	w.until("both are known anew", func() bool { return w.member(r, "robert").Address == bob && w.member(r, "alicia").Address == alice })
	r.say("robert", "<body>me again</body>")
	w.until("he is heard", func() bool { return len(w.texts("alice", r)) == 1 })
	if e := w.events("alice", r, core.KindMessage)[0]; e.Sender != bob {
		t.Errorf("under another nick he is %v, not %v", e.Sender, bob)
	}
	// A client of another protocol changes how it is called in the room.
	if err := w.submit(r, core.Membership{Target: alice, Standing: core.Joined, Name: "Al"}); err != nil || r.ours("Al") == nil {
		t.Errorf("another nick: %v", err)
	}
	if err := w.submit(r, core.Membership{Target: alice, Standing: core.Joined, Name: "robert"}); hub.CodeOf(err) != hub.Conflict {
		t.Errorf("a nick that is taken: %v", err)
	}
	if m := w.member(r, "Al"); m.Address != alice {
		t.Errorf("she is not called so: %+v", m)
	}
}

func TestRoomDestroyed(t *testing.T) {
	w, r := garden(t)
	next := w.room("orchard@rooms.test")
	next.enter(guest{nick: "bob", role: "moderator"})
	w.Run(enters("alice", "alice"), nil)
	r.raw(`<presence type='unavailable' from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='none'/>
		<destroy jid='orchard@rooms.test'><reason>moved</reason></destroy><status code='110'/></x></presence>`)
	w.Run(`
		alice receives:
		  <presence type='unavailable' from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><destroy jid='orchard@rooms.test'><reason>moved</reason></destroy></x></presence>
	`, nil)
	w.until("she is in the new room", func() bool { return next.ours("alice") != nil })
	w.until("the old one is left", func() bool { _, st, _ := w.conv("alice", r); return st.Standing(alice) == core.Left })
	moved := false
	for _, e := range w.events("alice", r, core.KindChange) {
		if c := e.Content.(core.Change); c.Aspect == core.AspectMovedTo && c.MovedTo.Address == next.address() {
			moved = true
		}
	}
	if !moved {
		t.Error("where the room has gone is not said")
	}
	next.raw(`<presence type='unavailable' from='orchard@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='none'/>
		<destroy/><status code='110'/></x></presence>`)
	w.until("that is no more either", func() bool { _, st, _ := w.conv("alice", next); return st != nil && st.Standing(alice) == core.Left })
}

func TestRelay(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	asked := r.count(func(st *element.Element) bool { return st.First().Is(nsDisco, "query") })
	w.Run(`
		alice sends:
		  <iq type='get' id='1' to='garden@rooms.test/bob'><vCard xmlns='vcard-temp'/></iq>
		  <iq type='get' id='2' to='garden@rooms.test/nobody'><vCard xmlns='vcard-temp'/></iq>
		  <iq type='get' id='3' to='garden@rooms.test/alice'><ping xmlns='urn:xmpp:ping'/></iq>
		  <iq type='get' id='4' to='garden@rooms.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
		  <iq type='get' id='5' to='garden@rooms.test'><query xmlns='http://jabber.org/protocol/muc#owner'/></iq>
		alice receives:
		  <iq type='result' id='1' from='garden@rooms.test/bob'><vCard xmlns='vcard-temp'><FN>bob</FN></vCard></iq>
		  <iq type='error' id='2' from='garden@rooms.test/nobody'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
		  <iq type='result' id='3' from='garden@rooms.test/alice'/>
		  <iq type='result' id='4' from='garden@rooms.test'><query xmlns='http://jabber.org/protocol/disco#info'><feature var='urn:xmpp:mam:2'/></query></iq>
		  <iq type='error' id='5' from='garden@rooms.test'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
	`, nil)
	if n := r.count(func(st *element.Element) bool { return st.First().Is(nsDisco, "query") }); n != asked {
		t.Error("the room was asked what is known of it")
	}
	if n := r.count(func(st *element.Element) bool { return st.Name.Local == "iq" && st.Attr("id") == "1" }); n != 0 {
		t.Error("a client's id was shown to the room")
	}
}
