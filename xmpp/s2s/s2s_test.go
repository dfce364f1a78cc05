package s2s_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/s2s"
	"parley/xmpp/translate"
)

func pair(t *testing.T, change func(*s2s.Config)) (a, b *node) {
	w := newWorld()
	return newNode(t, w, "a.test", change), newNode(t, w, "b.test", change)
}

// Two people on two servers: consent, presence with what the clients put into it, messages, receipts, and all that refers to messages.
func TestConversation(t *testing.T) {
	a, b := pair(t, nil)
	alice, bob := a.connect("alice"), b.connect("bob")
	befriend(t, alice, bob)
	bob.Send(parse(t, `<presence><show>away</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://test' ver='other'/></presence>`))
	p := alice.Receive(func(el *element.Element) bool {
		return el.Name.Local == "presence" && el.ChildText("", "show") == "away"
	})
	if p.Attr("from") != "bob@b.test/here" || p.Child("http://jabber.org/protocol/caps", "c").Attr("ver") != "other" {
		t.Errorf("bob's presence came as %s", p)
	}

	alice.Send(parse(t, `<message to='bob@b.test' type='chat' id='message-of-alice-1'><body>hello</body><request xmlns='urn:xmpp:receipts'/>
		<markable xmlns='urn:xmpp:chat-markers:0'/><origin-id xmlns='urn:xmpp:sid:0' id='message-of-alice-1'/></message>`))
	m := body(bob, "alice@a.test", "hello")
	if m.Attr("id") != "message-of-alice-1" || m.Attr("from") != "alice@a.test/here" || m.Child(translate.NSReceipts, "request") == nil {
		t.Errorf("the message came as %s", m)
	}
	bob.Send(parse(t, `<message to='alice@a.test' type='chat'><received xmlns='urn:xmpp:receipts' id='message-of-alice-1'/></message>`))
	stanza(alice, "message", "chat", "bob@b.test", translate.NSReceipts, "received")
	bob.Send(parse(t, `<message to='alice@a.test' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='message-of-alice-1'/></message>`))
	stanza(alice, "message", "chat", "bob@b.test", translate.NSMarkers, "displayed")
	bob.Send(parse(t, `<message to='alice@a.test' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`))
	stanza(alice, "message", "chat", "bob@b.test", translate.NSChatStates, "composing")

	bob.Send(parse(t, `<message to='alice@a.test' type='chat' id='reaction-of-bob-1'><reactions xmlns='urn:xmpp:reactions:0' id='message-of-alice-1'>
		<reaction>👍</reaction></reactions></message>`))
	r := stanza(alice, "message", "chat", "bob@b.test", translate.NSReactions, "reactions").Child(translate.NSReactions, "reactions")
	if r.Attr("id") != "message-of-alice-1" || r.ChildText("", "reaction") != "👍" {
		t.Errorf("the reaction came as %s", r)
	}
	alice.Send(parse(t, `<message to='bob@b.test' type='chat' id='message-of-alice-2'><body>hello, Bob</body>
		<replace xmlns='urn:xmpp:message-correct:0' id='message-of-alice-1'/></message>`))
	if m := body(bob, "alice@a.test", "hello, Bob"); m.Child(translate.NSCorrect, "replace").Attr("id") != "message-of-alice-1" {
		t.Errorf("the correction came as %s", m)
	}
	alice.Send(parse(t, `<message to='bob@b.test' type='chat' id='message-of-alice-3'><retract xmlns='urn:xmpp:message-retract:1' id='message-of-alice-1'/></message>`))
	stanza(bob, "message", "chat", "alice@a.test", translate.NSRetract, "retract")

	// What only the two clients understand goes whole.
	alice.Send(parse(t, `<message to='bob@b.test' type='chat' id='message-of-alice-4'><encrypted xmlns='eu.siacs.conversations.axolotl'>
		<payload>abc</payload></encrypted><encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl' name='OMEMO'/>
		<store xmlns='urn:xmpp:hints'/><body>[encrypted]</body></message>`))
	if m := body(bob, "alice@a.test", "[encrypted]"); m.Child("eu.siacs.conversations.axolotl", "encrypted").ChildText("", "payload") != "abc" {
		t.Errorf("the encrypted message came as %s", m)
	}
	alice.Send(parse(t, `<message to='bob@b.test' type='chat' id='message-of-alice-5'><game xmlns='urn:example:game'>e4</game>
		<store xmlns='urn:xmpp:hints'/></message>`))
	stanza(bob, "message", "chat", "alice@a.test", "urn:example:game", "game")

	alice.Send(parse(t, `<presence type='unavailable'/>`))
	stanza(bob, "presence", "unavailable", "alice@a.test", "", "")
	alice.Send(parse(t, `<presence type='unsubscribed' to='bob@b.test'/>`))
	stanza(bob, "presence", "unsubscribed", "alice@a.test", "", "")
}

// What another network's client writes reaches a server of XMPP, with ids by which it can be answered.
func TestMessageFromAnotherNetwork(t *testing.T) {
	a, b := pair(t, nil)
	bob := b.connect("bob")
	alice := a.account("alice")
	ctx := context.Background()
	must(t, b.hub.SetContact(ctx, b.account("bob"), foreign("alice", "a.test"), "", nil))
	e, err := a.hub.SubmitDirect(ctx, foreign("bob", "b.test"), hub.Draft{Sender: alice,
		Content: core.Message{Body: core.HTMLBody("hello", "<b>hello</b>")}, Native: &core.Native{Network: core.Matrix, Type: "m.room.message", Data: []byte("{}")}})
	must(t, err)
	m := body(bob, "alice@a.test", "*hello*")
	if m.Attr("id") != string(e.ID) || m.Child(translate.NSReceipts, "request") == nil || m.Child(translate.NSMarkers, "markable") == nil {
		t.Errorf("the message came as %s", m)
	}
	ears, err := a.hub.Attach(hub.SessionSpec{Account: alice})
	must(t, err)
	bob.Send(parse(t, `<message to='alice@a.test' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='`+m.Attr("id")+`'/></message>`))
	wait(t, ears, func(n hub.News) bool {
		r, ok := n.(hub.ReadingNews)
		return ok && r.Reading.Event == e.ID && r.Reading.Who == foreign("bob", "b.test") && r.Reading.Stage == core.StageDisplayed
	})
	reports := reportsOn(t, a.hub, e.ID)
	if len(reports) != 1 || reports[0].Stage != core.StageThere || len(reports[0].Losses) != 1 || reports[0].Losses[0].Feature != core.FeatureFormatting {
		t.Errorf("alice is told %+v", reports)
	}
}

func wait(t testing.TB, s *hub.Session, is func(hub.News) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		n, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for news: %v", err)
		}
		if is(n) {
			return
		}
	}
}

func reportsOn(t testing.TB, h *hub.Hub, id core.EventID) (out []hub.Report) {
	t.Helper()
	must(t, h.Read(context.Background(), func(v hub.View) (err error) {
		out, err = v.ReportsOn(id)
		return err
	}))
	return out
}

// Who cannot be reached is told of to the sender, at once or later.
func TestErrors(t *testing.T) {
	a, _ := pair(t, func(c *s2s.Config) { c.Missing = 1 })
	alice := a.connect("alice")
	fails := func(to, condition string) {
		t.Helper()
		alice.Send(parse(t, `<message to='`+to+`' type='chat' id='to `+to+`'><body>hello</body></message>`))
		m := alice.Receive(func(el *element.Element) bool { return el.Attr("type") == "error" && el.Attr("id") == "to "+to })
		if e := translate.ReadError(m); e.Name != condition || m.Attr("from") != to {
			t.Errorf("of a message to %s comes back %s", to, m)
		}
	}
	fails("nobody@b.test", "service-unavailable")
	fails("carol@nowhere.test", "remote-server-not-found")

	ask := func(to, condition string) {
		t.Helper()
		alice.Send(parse(t, `<iq type='get' to='`+to+`' id='of `+to+`'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`))
		iq := alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "of "+to })
		if condition == "" && iq.Attr("type") != "result" || condition != "" && translate.ReadError(iq).Name != condition {
			t.Errorf("%s answers %s", to, iq)
		}
	}
	ask("b.test", "")
	ask("rooms.b.test", "")
	ask("nobody@b.test", "service-unavailable")
	ask("nobody@b.test/client", "service-unavailable")
	ask("nowhere.test", "remote-server-not-found")
	alice.Send(parse(t, `<presence to='room@conference.nowhere.test/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>`))
	stanza(alice, "presence", "error", "room@conference.nowhere.test", "", "")
}

// A visitor of another server in a room here: she enters, hears, speaks, is addressed, and leaves.
func TestVisit(t *testing.T) {
	a, b := pair(t, nil)
	alice, bob := a.connect("alice"), b.connect("bob")
	join := func(nick string) *element.Element {
		return parse(t, `<presence to='garden@rooms.a.test/`+nick+`'><x xmlns='http://jabber.org/protocol/muc'/></presence>`)
	}
	const room = "garden@rooms.a.test"
	alice.Send(join("alice"))
	stanza(alice, "message", "groupchat", room, "", "")
	bob.Send(join("bob"))
	stanza(bob, "message", "groupchat", room, "", "")
	if p := stanza(alice, "presence", "", room, translate.NSMUCUser, "x"); p.Attr("from") == room+"/alice" {
		stanza(alice, "presence", "", room, translate.NSMUCUser, "x")
	}
	for i, who := range []string{"alice", "bob", "alice"} {
		speaker, text := alice, fmt.Sprintf("%d from %s", i, who)
		if who == "bob" {
			speaker = bob
		}
		speaker.Send(parse(t, `<message to='`+room+`' type='groupchat' id='groupchat-`+fmt.Sprint(i)+`'><body>`+text+`</body></message>`))
		for _, c := range []*element.Element{body(alice, room, text), body(bob, room, text)} {
			if c.Attr("from") != room+"/"+who {
				t.Errorf("%s said %s", who, c)
			}
		}
	}
	bob.Send(parse(t, `<message to='`+room+`' type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`))
	stanza(alice, "message", "groupchat", room, translate.NSChatStates, "composing")
	alice.Send(parse(t, `<message to='`+room+`' type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`))
	stanza(bob, "message", "groupchat", room, translate.NSChatStates, "composing")

	bob.Send(parse(t, `<message to='nobody@rooms.a.test' type='groupchat' id='lost'><body>?</body></message>`))
	stanza(bob, "message", "error", "nobody@rooms.a.test", "", "")
	bob.Send(parse(t, `<presence to='`+room+`/bob' type='unavailable'/>`))
	stanza(bob, "presence", "unavailable", room, "", "")
	stanza(alice, "presence", "unavailable", room, "", "")
}

// The other server loses its power again and again while messages go to it, and nothing is lost, doubled or out of order.
func TestPeerIsCutOff(t *testing.T) {
	a, b := pair(t, nil)
	alice, bob := a.account("alice"), b.account("bob")
	ctx := context.Background()
	must(t, b.hub.SetContact(ctx, bob, foreign("alice", "a.test"), "", nil))
	must(t, a.hub.SetContact(ctx, alice, foreign("bob", "b.test"), "", nil))
	var want []string
	say := func() {
		text := fmt.Sprintf("message %d", len(want))
		want = append(want, text)
		// Clients that count from one: only what the server adds tells a message that comes twice.
		st := parse(t, `<message to='bob@b.test' type='chat' id='`+fmt.Sprint(len(want)%3)+`'><body>`+text+`</body></message>`)
		_, err := a.hub.SubmitDirect(ctx, foreign("bob", "b.test"), hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody(text)},
			Native: &core.Native{Network: core.XMPP, Type: "message", Data: element.Marshal(st)}})
		must(t, err)
	}
	for round := range 4 {
		for range 30 {
			say()
		}
		if round%2 == 0 {
			b.peers.cut() // in the middle
		}
		b.stop(true)
		for range 10 {
			say()
		}
		b.start()
		// A word from the other server makes the outbox try again.
		_, err := b.hub.SubmitDirect(ctx, foreign("alice", "a.test"), hub.Draft{Sender: bob, Content: core.Message{Body: core.TextBody("back")}})
		must(t, err)
	}
	ears, err := b.hub.Attach(hub.SessionSpec{Account: bob})
	must(t, err)
	say()
	arrived := func() []string {
		events, err := b.hub.History(ctx, bob, hub.Query{Directs: true, Kinds: []core.Kind{core.KindMessage}, ByFeed: true, Limit: 1000})
		must(t, err)
		var got []string
		for _, e := range events {
			if body, _ := core.BodyOf(e.Content); e.Sender.Name == "alice" {
				got = append(got, body.Plain())
			}
		}
		return got
	}
	if got := arrived(); !slices.Contains(got, want[len(want)-1]) {
		wait(t, ears, func(n hub.News) bool {
			e, ok := n.(hub.EventNews)
			b, _ := core.BodyOf(e.Event.Content)
			return ok && b.Plain() == want[len(want)-1]
		})
	}
	if got := arrived(); !slices.Equal(got, want) {
		t.Errorf("bob got %d messages:\n%s\nof %d", len(got), strings.Join(got, ", "), len(want))
	}
}
