package s2s_test

import (
	"testing"

	"parley/xmpp/element"
	"parley/xmpp/xmpptest"
)

// states publishes on an account that its owner has moved.
func states(t testing.TB, c *xmpptest.Client, to string) {
	t.Helper()
	c.Send(parse(t, `<iq type='set' id='pub1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:moved:1'>`+
		`<item id='current'><moved xmlns='urn:xmpp:moved:1'><new-jid>`+to+`</new-jid></moved></item></publish></pubsub></iq>`))
	c.Receive(func(el *element.Element) bool { return el.Attr("id") == "pub1" && el.Attr("type") == "result" })
}

func asksMoved(t testing.TB, c *xmpptest.Client, to, old string) {
	c.Send(parse(t, `<presence type='subscribe' to='`+to+`'><moved xmlns='urn:xmpp:moved:1'><old-jid>`+old+`</old-jid></moved></presence>`))
}

// pushed waits for a roster push.
func pushed(c *xmpptest.Client, jid, subscription string) *element.Element {
	return c.Receive(func(el *element.Element) bool {
		it := el.Child("jabber:iq:roster", "query").Child("", "item")
		return el.Attr("type") == "set" && it.Attr("jid") == jid && it.Attr("subscription") == subscription
	}).First().First()
}

// roster has a client hear of changes to the account's list.
func roster(t testing.TB, c *xmpptest.Client) {
	c.Send(parse(t, `<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>`))
	c.Receive(func(el *element.Element) bool { return el.Attr("id") == "roster" })
}

// Juliet moves from b.test to c.test. Alice's server finds out whether that is true, and her contact carries over.
//
// spec: XEP-0283 §4.4
func TestMoved(t *testing.T) {
	w := newWorld()
	a, b, c := newNode(t, w, "a.test", nil), newNode(t, w, "b.test", nil), newNode(t, w, "c.test", nil)
	for i, x := range []struct {
		name   string
		on, at *node // the old account, the new
	}{{"between servers", b, c}, {"to our server", b, a}, {"from our server", a, b}, {"on our server", a, a}} {
		t.Run(x.name, func(t *testing.T) {
			id := string(rune('1' + i))
			alice, old, now := a.connect("alice"+id), x.on.connect("old"+id), x.at.connect("new"+id)
			mallory := x.at.connect("mallory" + id)
			me, before, after := "alice"+id+"@a.test", "old"+id+"@"+x.on.domain, "new"+id+"@"+x.at.domain
			forger := "mallory" + id + "@" + x.at.domain
			roster(t, alice)
			befriend(t, alice, old)
			alice.Send(parse(t, `<iq type='set' id='name'><query xmlns='jabber:iq:roster'><item jid='`+before+
				`' name='Juliet'><group>Verona</group></item></query></iq>`))
			alice.Receive(func(el *element.Element) bool { return el.Attr("id") == "name" })

			// Without a statement, and with one that names somebody else, it is a request like any other, with what it says.
			states(t, old, after)
			asksMoved(t, mallory, me, before)
			if el := stanza(alice, "presence", "subscribe", forger, "", ""); el.Child("urn:xmpp:moved:1", "moved") == nil {
				t.Errorf("got %s", el)
			}

			asksMoved(t, now, me, before)
			stanza(now, "presence", "subscribed", me, "", "")
			stanza(now, "presence", "subscribe", me, "", "")
			stanza(old, "presence", "unsubscribed", me, "", "")
			if it := pushed(alice, after, "from"); it.Attr("name") != "Juliet" || it.ChildText("jabber:iq:roster", "group") != "Verona" {
				t.Errorf("carried over: %s", it)
			}
			pushed(alice, before, "to")
			now.Send(parse(t, `<presence type='subscribed' to='`+me+`'/>`))
			pushed(alice, after, "both")
			alice.Sync()
			if el := alice.Has(func(el *element.Element) bool { return el.Attr("type") == "subscribe" && el.Attr("from") == after }); el != nil {
				t.Errorf("alice was asked: %s", el)
			}

			// Each address is good for one move.
			asksMoved(t, mallory, me, after)
			asksMoved(t, mallory, me, before)
			mallory.Sync()
			if el := mallory.Has(func(el *element.Element) bool { return el.Attr("type") == "subscribed" }); el != nil {
				t.Errorf("mallory received %s", el)
			}
		})
	}
}
