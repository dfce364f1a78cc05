package c2s_test

import (
	"context"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/xmpptest"
)

// elsewhere stands for all other servers: it takes everything, and shows what clients' stanzas reach it.
type elsewhere chan *element.Element

func (e elsewhere) Route(st *element.Element)                   { e <- st }
func (e elsewhere) Network() core.Network                       { return core.XMPP }
func (e elsewhere) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (e elsewhere) Whisper(hub.Whisper)                         {}
func (e elsewhere) Deliver(_ context.Context, _ string, p []hub.Delivery) []hub.Result {
	return make([]hub.Result, len(p))
}

func (e elsewhere) next(t *testing.T, is func(*element.Element) bool) *element.Element {
	t.Helper()
	for {
		select {
		case st := <-e:
			if is(st) {
				return st
			}
		case <-time.After(30 * time.Second):
			t.Fatal("nothing came")
		}
	}
}

func stanza(t *testing.T, s string) *element.Element {
	t.Helper()
	el, err := element.Parse([]byte(s), element.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return el
}

// A contact's client on another server hears of what an account publishes if its capabilities say that it wants to, and only then.
func TestEventingReachesOtherServers(t *testing.T) {
	out := make(elsewhere, 100)
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) { c.Router = out }), xmpptest.Setup(func(s *xmpptest.Server) { s.Hub.AddCarrier(out) }))
	alice, carol := s.Account("alice"), core.Address{Network: core.XMPP, Name: "carol", Domain: "a.net"}
	ctx := context.Background()
	for _, n := range []hub.ContactNotice{
		{Kind: hub.Ask, From: carol, To: alice}, {Kind: hub.Approve, From: alice, To: carol},
		{Kind: hub.Ask, From: alice, To: carol}, {Kind: hub.Approve, From: carol, To: alice},
	} {
		if err := s.Hub.Consent(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	a := s.Connect("alice", "")
	publish := func(id string) {
		a.SendRaw("<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:devices'><item id='" + id + "'><list xmlns='urn:devices'/></item></publish></pubsub></iq>")
		a.Receive(find("id", "p"))
	}
	publish("one")
	// The hash is that of the description which follows.
	const ver = "j/dOZVOU8KkAVqYbNUUYbdsjo7w="
	caps := "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:client' ver='" + ver + "'/>"
	presence := stanza(t, "<presence xmlns='jabber:client' from='carol@a.net/phone' to='alice@example.org'>"+caps+"</presence>")
	arrive := func() {
		if err := s.Hub.RemotePresence(ctx, carol, alice, core.Presence{Show: core.ShowOnline, Session: "phone",
			Native: &core.Native{Network: core.XMPP, Type: "presence", Data: element.Marshal(presence)}}); err != nil {
			t.Fatal(err)
		}
		s.C2S.ForeignPresence(ctx, presence)
	}
	arrive()
	asked := out.next(t, func(st *element.Element) bool {
		return st.Child("http://jabber.org/protocol/disco#info", "query") != nil
	})
	answer := func(from string) {
		s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='result' id='"+asked.Attr("id")+"' from='"+from+"' to='alice@example.org'>"+
			"<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='phone'/><feature var='urn:devices+notify'/></query></iq>"))
	}
	answer("mallory@evil.net/x") // says it for another, in vain
	answer("carol@a.net/phone")
	item := func(id string) func(*element.Element) bool {
		return func(st *element.Element) bool {
			items := st.Child("http://jabber.org/protocol/pubsub#event", "event").Child("", "items")
			return st.Attr("to") == "carol@a.net/phone" && items.Child("", "item").Attr("id") == id
		}
	}
	out.next(t, item("one"))
	publish("two")
	out.next(t, item("two"))
	// What the account keeps to itself stays here.
	a.SendRaw("<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:bookmarks:1'><item id='x@y.net'><conference xmlns='urn:xmpp:bookmarks:1' autojoin='true'/></item></publish></pubsub></iq>")
	a.Receive(find("id", "p"))
	s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='get' id='b' from='carol@a.net/phone' to='alice@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub></iq>"))
	if e := out.next(t, find("id", "b")); e.Attr("type") != "error" {
		t.Errorf("carol was answered %v", e)
	}
	s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='get' id='d' from='carol@a.net/phone' to='alice@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:devices'/></pubsub></iq>"))
	if r := out.next(t, find("id", "d")); r.Attr("type") != "result" {
		t.Errorf("carol was answered %v", r)
	}
	s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='get' id='m' from='mallory@evil.net/x' to='alice@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:devices'/></pubsub></iq>"))
	if e := out.next(t, find("id", "m")); e.Attr("type") != "error" {
		t.Errorf("mallory was answered %v", e)
	}
	// A client's own stanzas go out as they stand.
	a.SendRaw("<iq type='get' id='out' to='carol@a.net/phone'><query xmlns='jabber:iq:last'/></iq>")
	if st := out.next(t, find("id", "out")); st.Attr("from") != a.JID {
		t.Errorf("sent out: %v", st)
	}
}
