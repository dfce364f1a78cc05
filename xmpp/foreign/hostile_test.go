package foreign_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/translate"
)

// An occupant can say nothing by which it becomes us, another occupant, or the room.
func TestForgedByOccupants(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	r.say("bob", "<body>mine</body>")
	w.until("it is heard", func() bool { return len(w.texts("alice", r)) == 1 })
	// A presence that claims to be ours, and one that claims to take us out.
	r.enter(guest{nick: "mallory", more: `<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='owner' role='moderator'/><status code='110'/></x>`})
	r.raw(`<presence from='garden@rooms.test/mallory' type='unavailable'><x xmlns='http://jabber.org/protocol/muc#user'><item role='none'/><status code='110'/><status code='301'/></x></presence>`)
	// A retraction and an edit of what bob has said, and a room's word in an occupant's mouth.
	bobs := w.events("alice", r, core.KindMessage)[0]
	sid := bobs.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(bobs.Conv))
	r.enter(guest{nick: "mallory"})
	r.say("mallory", "<retract xmlns='urn:xmpp:message-retract:1' id='"+sid+"'/>")
	r.say("mallory", "<retract xmlns='urn:xmpp:message-retract:1' id='"+sid+"'><moderated xmlns='urn:xmpp:message-moderate:1' by='garden@rooms.test/bob'/></retract>")
	r.say("mallory", "<body>not his</body><replace xmlns='urn:xmpp:message-correct:0' id='"+sid+"'/>")
	// What the room would say about her address, and an occupant-id of another.
	r.say("mallory", `<x xmlns='http://jabber.org/protocol/muc#user'><item jid='alice@example.org'/></x><body>I am alice</body>`)
	r.raw(`<message type='groupchat' from='kitchen@rooms.test/bob'><body>from another room</body></message>`)
	r.raw(`<message from='garden@rooms.test'><result xmlns='urn:xmpp:mam:2' queryid='x' id='y'><forwarded xmlns='urn:xmpp:forward:0'><message type='groupchat' from='garden@rooms.test/bob'><body>nobody asked</body></message></forwarded></result></message>`)
	r.say("bob", "<body>last</body>")
	w.until("all is heard", func() bool { return slices.Contains(w.texts("alice", r), "last") })
	for _, e := range w.events("alice", r, core.KindMessage) {
		text := e.Content.(core.Message).Body.Plain()
		_, nick, _ := e.Sender.Occupant()
		switch text {
		case "mine":
			if e.Retracted != "" || nick != "bob" {
				t.Errorf("bob's message: retracted %q, by %v", e.Retracted, e.Sender)
			}
		case "not his", "I am alice":
			if nick != "mallory" {
				t.Errorf("%q is said by %v", text, e.Sender)
			}
		case "last":
		default:
			t.Errorf("%q was heard of %v", text, e.Sender)
		}
	}
	if n := len(w.events("alice", r, core.KindEdit)); n != 0 {
		t.Errorf("%d edits of others' messages", n)
	}
	if m := w.member(r, "alice"); m.Address != alice || m.Standing != core.Joined {
		t.Errorf("alice is %+v", m)
	}
}

// Where the room does not say that it does, nobody takes out what occupants claim.
func TestNamesThatNobodyVouchesFor(t *testing.T) {
	w := newWorld(t)
	r := w.room("garden@rooms.test", translate.NSMUC)
	r.enter(guest{nick: "bob"})
	r.enter(guest{nick: "mallory"})
	w.Run("alice connects\nalice is available"+enters("alice", "alice"), nil)
	claim := `<stanza-id xmlns='urn:xmpp:sid:0' by='garden@rooms.test' id='the-first'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='one'/>`
	r.raw(`<presence from='garden@rooms.test/bob'><occupant-id xmlns='urn:xmpp:occupant-id:0' id='one'/><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/></x></presence>`)
	r.say("mallory", claim+"<body>claimed</body>")
	r.say("bob", `<stanza-id xmlns='urn:xmpp:sid:0' by='garden@rooms.test' id='the-first'/><body>what bob says</body>`)
	w.until("both are heard", func() bool { return len(w.texts("alice", r)) == 2 })
	e := w.events("alice", r, core.KindMessage)[0]
	if _, nick, _ := e.Sender.Occupant(); nick != "mallory" || e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(e.Conv)) != "" {
		t.Errorf("said by %v, with the aliases %v", e.Sender, e.Aliases)
	}
}

// Whatever real address an occupant has or claims, in this room or to us alone, she is no other outside of it.
func TestRealAddressesStayInTheRoom(t *testing.T) {
	w := newWorld(t)
	r := w.room("garden@rooms.test", translate.NSMUC, translate.NSMAM, translate.NSSID, "muc_nonanonymous")
	r.shows = true
	victim := w.Account("victim")
	r.enter(guest{nick: "mallory", jid: "victim@example.org/x"})
	r.enter(guest{nick: "eve", jid: "friend@far.test/x"})
	w.Run("alice connects\nalice is available"+enters("alice", "alice"), nil)
	r.say("mallory", "<body>as the victim</body>")
	r.raw(`<message type='chat' from='garden@rooms.test/mallory' id='pm1'><body>psst</body></message>`)
	r.raw(`<message type='chat' from='garden@rooms.test/eve' id='pm2'><body>hi</body></message>`)
	w.Run(`
		alice receives:
		  <message type='groupchat' from='garden@rooms.test/mallory'><body>as the victim</body></message>
		  <message type='chat' from='garden@rooms.test/mallory'><body>psst</body></message>
		  <message type='chat' from='garden@rooms.test/eve'><body>hi</body></message>
	`, nil)
	for _, e := range w.events("alice", r, core.KindMessage) {
		if e.Sender == victim {
			t.Errorf("an account of ours speaks in a room in which it is not")
		}
	}
	for _, who := range []core.Address{victim, {Network: core.XMPP, Name: "friend", Domain: "far.test"}} {
		err := w.Hub.Read(t.Context(), func(v hub.View) error {
			directs, err := v.Directs(alice, who)
			if len(directs) != 0 {
				t.Errorf("there is a direct with %v", who)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// An occupant who is blocked is not heard.
	if err := w.Hub.Block(t.Context(), alice, core.OccupantAddress(r.address(), "eve")); err != nil {
		t.Fatal(err)
	}
	r.raw(`<message type='chat' from='garden@rooms.test/eve' id='pm3'><body>again</body></message>`)
	r.say("mallory", "<body>end</body>")
	w.Run(`
		alice receives:
		  <message type='groupchat' from='garden@rooms.test/mallory'><body>end</body></message>
		alice does not receive:
		  <message type='chat' from='garden@rooms.test/eve'><body>again</body></message>
	`, nil)
}

func TestFloods(t *testing.T) {
	w := newWorld(t, func(c *foreign.Config) { c.MaxOccupants, c.MaxRooms, c.MaxLooked = 20, 1, 2 })
	r := w.room("garden@rooms.test")
	for i := range 50 {
		r.enter(guest{nick: fmt.Sprintf("o%d", i), more: "<status>" + strings.Repeat("x", 20_000) + "</status>"})
	}
	w.Run("alice connects\nalice is available"+enters("alice", "alice"), nil)
	_, st, _ := w.conv("alice", r)
	if n := len(st.Members); n > 21 {
		t.Errorf("%d members are shown", n)
	}
	if !w.until0(func() bool { return r.ours("alice") != nil }) {
		t.Error("she is not in the room")
	}
	huge := strings.Repeat("n", 900)
	r.goes("o3", "", "")
	r.enter(guest{nick: huge})
	r.say("", "<subject>"+strings.Repeat("s", 100_000)+"</subject>")
	r.say("o1", "<body>still here</body>")
	w.until("the room is alive", func() bool { return slices.Contains(w.texts("alice", r), "still here") })
	if _, st, _ := w.conv("alice", r); len(st.Topic) > 10_000 {
		t.Errorf("a topic of %d bytes", len(st.Topic))
	}
	w.Run(`
		alice sends:
		  <presence to='kitchen@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>
		alice receives:
		  <presence type='error' from='kitchen@rooms.test/alice'><error><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>
	`, nil)
	carol := w.Account("carol")
	for i, want := range []hub.Code{"", "", hub.TooMany} {
		l := w.room(fmt.Sprintf("look%d@rooms.test", i))
		w.config.MaxRooms = 1
		_, err := w.Hub.Look(t.Context(), carol, l.address())
		if i > 0 { // the first takes the only place
			want = hub.TooMany
		}
		if hub.CodeOf(err) != want {
			t.Errorf("look %d: %v", i, err)
		}
	}
}

func (w *world) until0(is func() bool) bool { return is() }

// That somebody writes or has read something goes once in each direction.
func TestSignsDoNotLoop(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	sid := r.say("bob", "<body>read me</body><markable xmlns='urn:xmpp:chat-markers:0'/>")
	w.Run(`
		alice receives:
		  <message type='groupchat' from='garden@rooms.test/bob'><body>read me</body></message>
		alice sends:
		  <message type='groupchat' to='garden@rooms.test'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>
		  <message type='groupchat' to='garden@rooms.test'><displayed xmlns='urn:xmpp:chat-markers:0' id='{sid}'/></message>
	`, map[string]string{"sid": sid})
	composing := func(st *element.Element) bool { return st.Child(translate.NSChatStates, "composing") != nil }
	read := func(st *element.Element) bool {
		return st.Child(translate.NSMarkers, "displayed").Attr("id") == sid
	}
	w.until("the room hears both", func() bool { return r.count(composing) > 0 && r.count(read) > 0 })
	r.raw(`<message type='groupchat' from='garden@rooms.test/bob'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`)
	r.raw(`<message type='groupchat' from='garden@rooms.test/bob'><displayed xmlns='urn:xmpp:chat-markers:0' id='%s'/></message>`, sid)
	w.Run(`
		alice sends:
		  <message type='groupchat' to='garden@rooms.test' id='what-alice-says'><body>done</body></message>
		alice receives:
		  <message type='groupchat' id='what-alice-says' from='garden@rooms.test/alice'/>
	`, nil)
	if a, b := r.count(composing), r.count(read); a != 1 || b != 1 {
		t.Errorf("the room was told %d times that she writes, %d times that she has read", a, b)
	}
	if got := w.texts("alice", r); !slices.Equal(got, []string{"read me", "done"}) {
		t.Errorf("known are %q", got)
	}
}

// A room of a thousand is entered, and those in it come and go, while others are served.
func TestThousandOccupants(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand occupants take a while")
	}
	w := newWorld(t)
	r := w.room("garden@rooms.test")
	for i := range 1000 {
		r.enter(guest{nick: fmt.Sprintf("o%d", i)})
	}
	w.Run("alice connects\nalice is available\nbob connects\nbob is available"+enters("alice", "alice"), nil)
	if err := w.Hub.SetContact(t.Context(), alice, core.LocalAddress("bob", "example.org"), "", nil); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			if i%2 == 0 {
				r.becomes(fmt.Sprintf("o%d", i), "none", "participant")
			} else {
				r.goes(fmt.Sprintf("o%d", i), "", "")
			}
		}
	}()
	for i := range 20 { // others are heard while the storm lasts
		w.Run(fmt.Sprintf(`
			bob sends:
			  <message type='chat' to='alice@example.org' id='of-bob-to-alice-%d'><body>%d</body></message>
			alice receives:
			  <message type='chat' id='of-bob-to-alice-%d'><body>%d</body></message>
		`, i, i, i, i), nil)
	}
	<-done
	r.say("o0", "<body>after the storm</body>")
	w.Run(`
		alice receives:
		  <message type='groupchat' from='garden@rooms.test/o0'><body>after the storm</body></message>
	`, nil)
	if _, st, _ := w.conv("alice", r); len(st.Members) != 1001 {
		t.Errorf("%d members are shown", len(st.Members))
	}
}

// BenchmarkEnterThousand is how long it takes to enter a room of a thousand.
func BenchmarkEnterThousand(b *testing.B) {
	w := newWorld(b)
	for n := range b.N {
		b.StopTimer()
		r := w.room(fmt.Sprintf("garden%d@rooms.test", n))
		for i := range 1000 {
			r.enter(guest{nick: fmt.Sprintf("o%d", i)})
		}
		who := w.Account(fmt.Sprintf("account%d", n))
		b.StartTimer()
		if _, err := w.Hub.EnterAt(b.Context(), r.address(), hub.JoinRequest{Who: who}); err != nil {
			b.Fatal(err)
		}
	}
}
