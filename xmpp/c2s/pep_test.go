package c2s_test

import (
	"context"
	"crypto/sha1" //nolint:gosec // the hash that names avatars
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/storetest"
	"parley/xmpp/c2s"
	"parley/xmpp/pep"
	"parley/xmpp/xmpptest"
)

// wanting is a script in which a client comes that wants to hear of nodes.
func wanting(who string, nodes ...string) string {
	features := ""
	for _, n := range nodes {
		features += "<feature var='" + n + "+notify'/>"
	}
	id := "caps" + strings.NewReplacer("/", "", "@", "").Replace(who)
	return who + " connects\n" + who + " sends:\n  <presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='of " + who + "'/></presence>\n" +
		who + " receives:\n  <iq type='get' id='{" + id + "}'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:x#of " + who + "'/></iq>\n" +
		who + " sends:\n  <iq type='result' id='{" + id + "}' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'>" + features + "</query></iq>\n"
}

func pubsub(typ, id, to, what string) string {
	if to != "" {
		to = " to='" + to + "'"
	}
	return "  <iq type='" + typ + "' id='" + id + "'" + to + "><pubsub xmlns='http://jabber.org/protocol/pubsub'>" + what + "</pubsub></iq>\n"
}

func owner(typ, id, to, what string) string {
	return strings.Replace(pubsub(typ, id, to, what), "pubsub'>", "pubsub#owner'>", 1)
}

// options is a form of the type with fields and their values in turn.
func options(formType string, fields ...string) string {
	x := "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#" + formType + "</value></field>"
	for i := 0; i < len(fields); i += 2 {
		x += "<field var='pubsub#" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
	}
	return x + "</x>"
}

func failing(id, condition, own string) string {
	extra := ""
	if own != "" {
		extra = "<" + own + " xmlns='http://jabber.org/protocol/pubsub#errors'/>"
	}
	return "  <iq type='error' id='" + id + "'><error><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>" + extra + "</error></iq>\n"
}

func item(id string) string {
	return "<item id='" + id + "'><thing xmlns='urn:t'>" + id + "</thing></item>"
}

// Nodes are created, configured, filled, paged through, emptied and deleted.
func TestNodes(t *testing.T) {
	s := xmpptest.New(t)
	publish := func(id, node, items string) string {
		return pubsub("set", id, "", "<publish node='"+node+"'>"+items+"</publish>")
	}
	s.Run(friends+`
alice sends:
`+pubsub("set", "1", "", "<create node='urn:n'/><configure>"+options("node_config", "max_items", "3", "title", "A node")+"</configure>")+
		pubsub("set", "2", "", "<create node='urn:n'/>")+
		publish("3", "urn:n", item("a"))+publish("4", "urn:n", item("b")+item("c"))+publish("5", "urn:n", item("d"))+
		pubsub("get", "6", "", "<items node='urn:n'/>")+
		pubsub("get", "7", "", "<items node='urn:n' max_items='1'/>")+
		pubsub("get", "8", "", "<items node='urn:n'/><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><after>b</after></set>")+
		pubsub("get", "9", "", "<items node='urn:n'><item id='c'/></items>")+
		pubsub("get", "10", "", "<items/>")+
		pubsub("get", "11", "", "<items node='urn:none'/>")+
		publish("12", "urn:n", "")+publish("13", "urn:n", "<item/>")+publish("14", "urn:n", "<item><a xmlns='x'/><b xmlns='x'/></item>")+
		`alice receives:
  <iq type='result' id='1'/>
`+failing("2", "conflict", "")+`
  <iq type='result' id='5'/>
  <iq type='result' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'>`+item("b")+item("c")+item("d")+`</items></pubsub></iq>
  <iq type='result' id='7'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'>`+item("d")+`</items></pubsub></iq>
  <iq type='result' id='8'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'>`+item("c")+`</items>
    <set xmlns='http://jabber.org/protocol/rsm'><first index='1'>c</first><last>c</last><count>3</count></set></pubsub></iq>
  <iq type='result' id='9'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'>`+item("c")+`</items></pubsub></iq>
`+failing("10", "bad-request", "nodeid-required")+failing("11", "item-not-found", "")+failing("12", "bad-request", "item-required")+
		failing("13", "bad-request", "payload-required")+failing("14", "bad-request", "invalid-payload")+`
bob sends:
  <iq type='get' id='d1' to='alice@example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:n'/></iq>
  <iq type='get' id='d2' to='alice@example.org'><query xmlns='http://jabber.org/protocol/disco#items' node='urn:n'/></iq>
  <iq type='get' id='d3' to='alice@example.org'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
`+owner("set", "d4", "alice@example.org", "<delete node='urn:n'/>")+pubsub("set", "d5", "alice@example.org", "<publish node='urn:n'>"+item("x")+"</publish>")+`
bob receives:
  <iq type='result' id='d1'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:n'><identity category='pubsub' type='leaf' name='A node'/>
    <x xmlns='jabber:x:data' type='result'><field var='pubsub#owner'><value>alice@example.org</value></field><field var='pubsub#max_items'><value>3</value></field></x></query></iq>
  <iq type='result' id='d2'><query xmlns='http://jabber.org/protocol/disco#items' node='urn:n'><item jid='alice@example.org' name='d'/></query></iq>
  <iq type='result' id='d3'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='alice@example.org' node='urn:n' name='A node'/></query></iq>
`+failing("d4", "forbidden", "")+failing("d5", "forbidden", "")+`
alice sends:
`+owner("get", "o1", "", "<configure node='urn:n'/>")+
		owner("set", "o2", "", "<configure node='urn:n'>"+options("node_config", "max_items", "1", "access_model", "whitelist")+"</configure>")+
		owner("set", "o3", "", "<configure node='urn:n'>"+options("node_config", "access_model", "nobody")+"</configure>")+
		pubsub("get", "o4", "", "<items node='urn:n'/>")+owner("set", "o5", "", "<purge node='urn:n'/>")+pubsub("get", "o6", "", "<items node='urn:n'/>")+
		owner("set", "o7", "", "<delete node='urn:n'/>")+owner("set", "o8", "", "<delete node='urn:n'/>")+owner("get", "o9", "", "<default/>")+
		pubsub("get", "o10", "", "<options node='urn:n' jid='alice@example.org'/>")+`
alice receives:
  <iq type='result' id='o1'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='urn:n'><x xmlns='jabber:x:data' type='form'>
    <field var='pubsub#max_items'><value>3</value></field><field var='pubsub#access_model'><value>presence</value><option><value>roster</value></option></field></x></configure></pubsub></iq>
  <iq type='result' id='o2'/>
`+failing("o3", "not-acceptable", "unsupported-access-model")+`
  <iq type='result' id='o4'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'>`+item("d")+`</items></pubsub></iq>
  <iq type='result' id='o5'/>
  <iq type='result' id='o6'/>
  <iq type='result' id='o7'/>
`+failing("o8", "item-not-found", "")+`
  <iq type='result' id='o9'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><default><x xmlns='jabber:x:data'/></default></pubsub></iq>
  <iq type='error' id='o10'><error><feature-not-implemented xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><unsupported xmlns='http://jabber.org/protocol/pubsub#errors' feature='subscription-options'/></error></iq>
`, nil)
}

// Who may read is what the node's access model says, and publishers may publish.
func TestAccessModels(t *testing.T) {
	s := xmpptest.New(t)
	set := func(id, model string, more ...string) string {
		return owner("set", id, "", "<configure node='urn:n'>"+options("node_config", append([]string{"access_model", model}, more...)...)+"</configure>")
	}
	read := func(id string) string { return pubsub("get", id, "alice@example.org", "<items node='urn:n'/>") }
	affiliate := func(id, as string) string {
		return owner("set", id, "", "<affiliations node='urn:n'><affiliation jid='carol@example.org' affiliation='"+as+"'/></affiliations>")
	}
	s.Run(friends+`
carol connects
carol is available
alice sends:
`+pubsub("set", "1", "", "<publish node='urn:n'>"+item("a")+"</publish>")+set("2", "open")+`
alice receives:
  <iq type='result' id='2'/>
carol sends:
`+read("c1")+`
carol receives:
  <iq type='result' id='c1'/>
alice sends:
`+set("3", "presence")+`
alice receives:
  <iq type='result' id='3'/>
carol sends:
`+read("c2")+`
carol receives:
`+failing("c2", "not-authorized", "presence-subscription-required")+`
bob sends:
`+read("b1")+`
bob receives:
  <iq type='result' id='b1'/>
alice sends:
`+set("4", "roster", "roster_groups_allowed", "friends")+`
alice receives:
  <iq type='result' id='4'/>
bob sends:
`+read("b2")+`
bob receives:
`+failing("b2", "not-authorized", "not-in-roster-group")+`
alice sends:
  <iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='bob@example.org'><group>friends</group></item></query></iq>
alice receives:
  <iq type='result' id='r'/>
bob sends:
`+read("b3")+`
bob receives:
  <iq type='result' id='b3'/>
alice sends:
`+set("5", "whitelist")+`
alice receives:
  <iq type='result' id='5'/>
carol sends:
`+read("c3")+`
carol receives:
`+failing("c3", "not-allowed", "closed-node")+`
alice sends:
`+affiliate("6", "member")+`
alice receives:
  <iq type='result' id='6'/>
carol sends:
`+read("c4")+pubsub("set", "c5", "alice@example.org", "<publish node='urn:n'>"+item("c")+"</publish>")+pubsub("get", "c6", "alice@example.org", "<affiliations/>")+`
carol receives:
  <iq type='result' id='c4'/>
`+failing("c5", "forbidden", "")+`
  <iq type='result' id='c6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><affiliations><affiliation node='urn:n' affiliation='member'/></affiliations></pubsub></iq>
alice sends:
`+affiliate("7", "publisher")+owner("get", "8", "", "<affiliations node='urn:n'/>")+`
alice receives:
  <iq type='result' id='7'/>
  <iq type='result' id='8'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='urn:n'><affiliation jid='alice@example.org' affiliation='owner'/>
    <affiliation jid='carol@example.org' affiliation='publisher'/></affiliations></pubsub></iq>
carol sends:
`+pubsub("set", "c7", "alice@example.org", "<publish node='urn:n'>"+item("c")+"</publish>")+
		pubsub("set", "c8", "alice@example.org", "<retract node='urn:n'><item id='c'/></retract>")+
		owner("get", "c9", "alice@example.org", "<configure node='urn:n'/>")+`
carol receives:
  <iq type='result' id='c7'/>
  <iq type='result' id='c8'/>
`+failing("c9", "forbidden", "")+`
alice sends:
`+affiliate("9", "outcast")+set("10", "open")+`
alice receives:
  <iq type='result' id='10'/>
carol sends:
`+read("c10")+pubsub("set", "c11", "alice@example.org", "<subscribe node='urn:n' jid='carol@example.org'/>")+`
carol receives:
`+failing("c10", "forbidden", "")+failing("c11", "forbidden", ""), nil)
}

// One who subscribes expressly hears whatever its capabilities, when an owner has approved where one must.
func TestSubscriptions(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(friends+`
carol connects
carol is available
alice sends:
`+pubsub("set", "1", "", "<create node='urn:n'/><configure>"+options("node_config", "access_model", "authorize")+"</configure>")+
		pubsub("set", "2", "", "<publish node='urn:n'>"+item("a")+"</publish>")+`
alice receives:
  <iq type='result' id='2'/>
carol sends:
`+pubsub("set", "c1", "alice@example.org", "<subscribe node='urn:n' jid='bob@example.org'/>")+
		pubsub("set", "c2", "alice@example.org", "<subscribe node='urn:n' jid='carol@example.org'/>")+
		pubsub("set", "c3", "alice@example.org", "<subscribe node='urn:n' jid='carol@example.org'/>")+
		pubsub("get", "c4", "alice@example.org", "<items node='urn:n'/>")+`
carol receives:
`+failing("c1", "bad-request", "invalid-jid")+`
  <iq type='result' id='c2'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscription node='urn:n' jid='carol@example.org' subscription='pending'/></pubsub></iq>
`+failing("c3", "not-authorized", "pending-subscription")+failing("c4", "not-authorized", "not-subscribed")+`
alice receives:
  <message from='alice@example.org'><x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#subscribe_authorization</value></field>
    <field var='pubsub#subscriber_jid'><value>carol@example.org</value></field></x></message>
alice sends:
  <message to='alice@example.org'>`+options("subscribe_authorization", "node", "urn:n", "subscriber_jid", "carol@example.org", "allow", "true")+`</message>
carol receives:
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><subscription node='urn:n' jid='carol@example.org' subscription='subscribed'/></event></message>
alice sends:
`+pubsub("set", "3", "", "<publish node='urn:n'>"+item("b")+"</publish>")+`
carol receives:
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:n'>`+item("b")+`</items></event></message>
bob does not receive:
  <message/>
carol sends:
`+pubsub("get", "c5", "alice@example.org", "<subscriptions/>")+pubsub("set", "c6", "alice@example.org", "<unsubscribe node='urn:n' jid='carol@example.org'/>")+
		pubsub("set", "c7", "alice@example.org", "<unsubscribe node='urn:n' jid='carol@example.org'/>")+`
carol receives:
  <iq type='result' id='c5'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscriptions><subscription node='urn:n' jid='carol@example.org' subscription='subscribed'/></subscriptions></pubsub></iq>
  <iq type='result' id='c6'/>
`+failing("c7", "unexpected-request", "not-subscribed")+`
alice sends:
`+pubsub("set", "4", "", "<publish node='urn:n'>"+item("c")+"</publish>")+
		owner("set", "5", "", "<configure node='urn:n'>"+options("node_config", "access_model", "open")+"</configure>")+`
alice receives:
  <iq type='result' id='5'/>
carol does not receive:
  <message/>
carol sends:
`+pubsub("set", "c8", "alice@example.org", "<subscribe node='urn:n' jid='carol@example.org'/>")+`
carol receives:
  <iq type='result' id='c8'/>
  <message><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:n'>`+item("c")+`</items></event></message>
alice sends:
`+owner("get", "6", "", "<subscriptions node='urn:n'/>")+owner("set", "7", "", "<delete node='urn:n'/>")+`
alice receives:
  <iq type='result' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><subscriptions node='urn:n'><subscription jid='carol@example.org' subscription='subscribed'/></subscriptions></pubsub></iq>
carol receives:
  <message><event xmlns='http://jabber.org/protocol/pubsub#event'><delete node='urn:n'/></event></message>
`, nil)
}

// What publish-options take for granted is what the node is made with, and refused where it is otherwise.
func TestPublishOptions(t *testing.T) {
	s := xmpptest.New(t)
	publish := func(id, node string, fields ...string) string {
		return pubsub("set", id, "", "<publish node='"+node+"'>"+item(id)+"</publish><publish-options>"+options("publish-options", fields...)+"</publish-options>")
	}
	s.Run(`alice connects
alice sends:
`+publish("1", "urn:secret", "persist_items", "true", "max_items", "max", "send_last_published_item", "never", "access_model", "whitelist")+
		publish("2", "urn:secret", "persist_items", "true", "max_items", "max", "send_last_published_item", "never", "access_model", "whitelist")+
		publish("3", "urn:secret", "access_model", "open")+publish("4", "urn:secret", "send_last_published_item", "on_sub")+
		publish("5", "urn:secret", "no_such_thing", "x")+publish("6", "urn:passing", "persist_items", "false")+
		pubsub("get", "7", "", "<items node='urn:passing'/>")+pubsub("get", "8", "", "<items node='urn:secret'/>")+
		publish("9", "urn:xmpp:bookmarks:1", "access_model", "open")+`
alice receives:
  <iq type='result' id='1'/>
  <iq type='result' id='2'/>
`+failing("3", "conflict", "precondition-not-met")+failing("4", "conflict", "precondition-not-met")+failing("5", "conflict", "precondition-not-met")+`
  <iq type='result' id='6'/>
  <iq type='result' id='7'/>
  <iq type='result' id='8'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:secret'>`+item("1")+item("2")+`</items></pubsub></iq>
`+failing("9", "not-acceptable", "unsupported-access-model"), nil)
}

// Nobody fills the disk with nodes and items.
func TestEventingBounds(t *testing.T) {
	s := xmpptest.New(t)
	a := s.Connect("alice", "")
	publish := func(node, id, text string) string {
		a.SendRaw("<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + node + "'><item id='" + id + "'><t xmlns='urn:t'>" + text +
			"</t></item></publish><publish-options>" + options("publish-options", "max_items", "max") + "</publish-options></pubsub></iq>")
		res := a.Receive(find("id", "p"))
		if e := res.Child("", "error"); e != nil {
			return e.First().Name.Local
		}
		return ""
	}
	if got := publish("urn:n", "big", strings.Repeat("x", pep.MaxPayload)); got != "not-acceptable" {
		t.Errorf("a large payload was answered with %q", got)
	}
	if got := publish(strings.Repeat("n", pep.MaxNodeName+1), "a", ""); got != "not-acceptable" {
		t.Errorf("a long name was answered with %q", got)
	}
	if got := publish("urn:n", strings.Repeat("i", pep.MaxItemID+1), ""); got != "bad-request" {
		t.Errorf("a long id was answered with %q", got)
	}
	full := ""
	for i := 0; i*200<<10 <= pep.MaxBytes && full == ""; i++ {
		full = publish("urn:n", fmt.Sprint(i), strings.Repeat("x", 200<<10))
	}
	if full != "resource-constraint" {
		t.Errorf("more bytes than allowed were answered with %q", full)
	}
	full = ""
	for i := 0; i <= pep.MaxNodes && full == ""; i++ {
		full = publish(fmt.Sprint("urn:node:", i), "a", "")
	}
	if full != "conflict" {
		t.Errorf("more nodes than allowed were answered with %q", full)
	}
}

// OMEMO's keys are published, and its messages, envelopes of stanza content encryption and trust messages pass whole, to a client and
// from the archive.
func TestEndToEndEncryptionPasses(t *testing.T) {
	s := xmpptest.New(t)
	const (
		list1  = `<list xmlns='eu.siacs.conversations.axolotl'><device id='12345'/></list>`
		list2  = `<devices xmlns='urn:xmpp:omemo:2'><device id='12345' label='phone'/></devices>`
		bundle = `<bundle xmlns='urn:xmpp:omemo:2'><spk id='0'>c3Br</spk><spks>c3Brcw==</spks><ik>aWs=</ik><prekeys><pk id='0'>cGs=</pk></prekeys></bundle>`
		// An envelope, and trust messages in one.
		omemo1   = `<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='12345'><key rid='678' prekey='true'>S0VZ</key><iv>SVY=</iv></header><payload>UEFZTE9BRA==</payload></encrypted>`
		omemo2   = `<encrypted xmlns='urn:xmpp:omemo:2'><header sid='12345'><keys jid='bob@example.org'><key rid='678' kex='true'>S0VZ</key></keys></header><payload>UEFZTE9BRA==</payload></encrypted>`
		envelope = `<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>hi</body></content><rpad>x</rpad><from jid='alice@example.org'/></envelope>`
		trust    = `<trust-message xmlns='urn:xmpp:tm:1' usage='urn:xmpp:atm:1' encryption='urn:xmpp:omemo:2'><key-owner jid='bob@example.org'><trust>aWs=</trust></key-owner></trust-message>`
	)
	open := "<publish-options>" + options("publish-options", "access_model", "open") + "</publish-options>"
	many := "<publish-options>" + options("publish-options", "access_model", "open", "max_items", "max") + "</publish-options>"
	script := wanting("bob/omemo", "eu.siacs.conversations.axolotl.devicelist", "urn:xmpp:omemo:2:devices") + `
alice sends:
` + pubsub("set", "1", "", "<publish node='eu.siacs.conversations.axolotl.devicelist'><item id='current'>"+list1+"</item></publish>"+open) +
		pubsub("set", "2", "", "<publish node='urn:xmpp:omemo:2:devices'><item id='current'>"+list2+"</item></publish>"+open) +
		pubsub("set", "3", "", "<publish node='urn:xmpp:omemo:2:bundles'><item id='12345'>"+bundle+"</item></publish>"+many) +
		pubsub("set", "4", "", "<publish node='urn:xmpp:omemo:2:bundles'><item id='2'>"+bundle+"</item></publish>"+many) + `
alice receives:
  <iq type='result' id='4'/>
bob/omemo receives:
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='eu.siacs.conversations.axolotl.devicelist'><item id='current'>` + list1 + `</item></items></event></message>
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:omemo:2:devices'><item id='current'>` + list2 + `</item></items></event></message>
bob sends:
` + pubsub("get", "b", "alice@example.org", "<items node='urn:xmpp:omemo:2:bundles'><item id='12345'/></items>") + `
bob receives:
  <iq type='result' id='b'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:omemo:2:bundles'><item id='12345'>` + bundle + `</item></items></pubsub></iq>
`
	s.Run(friends+script, nil)
	a, b := s.Connect("alice", "sender"), s.Connect("bob", "reader")
	b.SendRaw("<presence/>")
	b.Sync()
	for i, enc := range []string{omemo1, omemo2, envelope, trust} {
		id := fmt.Sprintf("secret-message-%d", i)
		a.SendRaw(`<message to='bob@example.org' type='chat' id='` + id + `'>` + enc + `<encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:omemo:2'/><store xmlns='urn:xmpp:hints'/></message>`)
		want := stanza(t, enc)
		got := b.Receive(find("id", id))
		if el := got.Child(want.Name.Space, want.Name.Local); el == nil || el.String() != want.String() {
			t.Errorf("bob received\n%v\nwhere alice sent\n%v", el, want)
		}
	}
	b.SendRaw("<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>")
	b.Receive(find("id", "mam"))
	for i, enc := range []string{omemo1, omemo2, envelope, trust} {
		want, found := stanza(t, enc), false
		for m := b.Has(named("message")); m != nil; m = b.Has(named("message")) {
			inner := m.Child("urn:xmpp:mam:2", "result").Child("urn:xmpp:forward:0", "forwarded").Child("jabber:client", "message")
			if el := inner.Child(want.Name.Space, want.Name.Local); el != nil && el.String() == want.String() {
				found = true
				break
			}
		}
		if !found {
			t.Errorf("the archive does not hold message %d as it was", i)
		}
	}
}

// The one list of bookmarks is the same in its three forms, and clients of each hear of a change in another.
func TestBookmarksInThreeForms(t *testing.T) {
	s := xmpptest.New(t)
	storage := func(typ, id, bookmarks string) string {
		return "  <iq type='" + typ + "' id='" + id + "'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>" + bookmarks + "</storage></query></iq>\n"
	}
	conference := func(jid, name string) string {
		return "<conference jid='" + jid + "' name='" + name + "' autojoin='false'/>"
	}
	native := func(id, jid string) string {
		return pubsub("set", id, "", "<publish node='urn:xmpp:bookmarks:1'><item id='"+jid+"'><conference xmlns='urn:xmpp:bookmarks:1' name='N' autojoin='false'><extensions>"+
			"<pinned xmlns='urn:xmpp:bookmarks-pinning:0'/><notify xmlns='urn:xmpp:notification-settings:1'><never/></notify></extensions></conference></item></publish>")
	}
	event := func(node, inner string) string {
		return "  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='" + node + "'>" + inner + "</items></event></message>\n"
	}
	s.Run(wanting("alice/new", "urn:xmpp:bookmarks:1")+wanting("alice/old", "storage:bookmarks")+`
alice/oldest connects
alice/new sends:
`+native("1", "one@muc.a.net")+`
alice/old receives:
`+event("storage:bookmarks", "<item id='current'><storage xmlns='storage:bookmarks'>"+conference("one@muc.a.net", "N")+"</storage></item>")+`
alice/oldest sends:
`+storage("get", "2", "")+storage("set", "3", conference("one@muc.a.net", "N")+conference("two@muc.a.net", "Two")+"<url name='web' url='https://a.net'/>")+`
alice/oldest receives:
  <iq type='result' id='2'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>`+conference("one@muc.a.net", "N")+`</storage></query></iq>
  <iq type='result' id='3'/>
alice/new receives:
`+event("urn:xmpp:bookmarks:1", "<item id='two@muc.a.net'><conference xmlns='urn:xmpp:bookmarks:1' name='Two'/></item>")+`
alice/old receives:
`+event("storage:bookmarks", "<item id='current'><storage xmlns='storage:bookmarks'>"+conference("two@muc.a.net", "Two")+"</storage></item>")+`
alice/new sends:
`+native("4", "three@muc.a.net")+`
alice/new receives:
  <iq type='result' id='4'/>
alice/oldest sends:
`+storage("set", "5", conference("one@muc.a.net", "Renamed"))+`
alice/oldest receives:
  <iq type='result' id='5'/>
alice/new receives:
`+event("urn:xmpp:bookmarks:1", "<retract id='two@muc.a.net'/>")+`
alice/new sends:
`+pubsub("get", "6", "", "<items node='urn:xmpp:bookmarks:1'/>")+pubsub("get", "7", "", "<items node='storage:bookmarks'/>")+`
alice/new receives:
  <iq type='result' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'>
    <item id='one@muc.a.net'><conference xmlns='urn:xmpp:bookmarks:1' name='Renamed'><extensions><pinned xmlns='urn:xmpp:bookmarks-pinning:0'/>
      <notify xmlns='urn:xmpp:notification-settings:1'><never/></notify></extensions></conference></item>
    <item id='three@muc.a.net'/></items></pubsub></iq>
  <iq type='result' id='7'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='storage:bookmarks'><item id='current'><storage xmlns='storage:bookmarks'>`+
		conference("one@muc.a.net", "Renamed")+conference("three@muc.a.net", "N")+`</storage></item></items></pubsub></iq>
alice/old sends:
`+pubsub("set", "8", "", "<publish node='storage:bookmarks'><item id='current'><storage xmlns='storage:bookmarks'>"+conference("three@muc.a.net", "Third")+"</storage></item></publish>")+`
alice/new receives:
`+event("urn:xmpp:bookmarks:1", "<item id='three@muc.a.net'><conference xmlns='urn:xmpp:bookmarks:1' name='Third'/></item>")+
		event("urn:xmpp:bookmarks:1", "<retract id='one@muc.a.net'/>"), nil)
}

// A person's name, card and picture are one, in every form and on every network.
func TestOneProfile(t *testing.T) {
	s := xmpptest.New(t)
	const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	s.Run(friends+wanting("bob/new", "http://jabber.org/protocol/nick", "urn:xmpp:avatar:metadata")+`
alice sends:
`+pubsub("set", "1", "", "<publish node='urn:xmpp:vcard4'><item id='x'><vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>Alice L.</text></fn><nickname><text>Ali</text></nickname>"+
		"<email><text>a@b.c</text></email><photo><uri>data:image/png;base64,"+png+"</uri></photo></vcard></item></publish>")+`
alice receives:
  <iq type='result' id='1'/>
bob/new receives:
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/nick'><item id='current'><nick xmlns='http://jabber.org/protocol/nick'>Ali</nick></item></items></event></message>
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:avatar:metadata'><item id='{sha}'/></items></event></message>
  <presence from='alice@example.org/*'><x xmlns='vcard-temp:x:update'><photo>{sha}</photo></x></presence>
bob sends:
  <iq type='get' id='2' to='alice@example.org'><vCard xmlns='vcard-temp'/></iq>
`+pubsub("get", "3", "alice@example.org", "<items node='urn:xmpp:avatar:data'><item id='{sha}'/></items>")+`
bob receives:
  <iq type='result' id='2'><vCard xmlns='vcard-temp'><FN>Alice L.</FN><NICKNAME>Ali</NICKNAME><EMAIL><USERID>a@b.c</USERID></EMAIL><PHOTO><TYPE>image/png</TYPE><BINVAL>`+png+`</BINVAL></PHOTO></vCard></iq>
  <iq type='result' id='3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:data'><item id='{sha}'><data xmlns='urn:xmpp:avatar:data'>`+png+`</data></item></items></pubsub></iq>
`, nil)
	alice, ctx := s.Account("alice"), context.Background()
	p, err := s.Hub.Profile(ctx, alice)
	if err != nil || p.Name != "Ali" || p.Avatar == nil {
		t.Fatalf("the profile is %+v, %v", p, err)
	}
	p.Name = "Al"
	if err := s.Hub.SetProfile(ctx, alice, p); err != nil { // as a Matrix client does
		t.Fatal(err)
	}
	s.Run(`
bob/new receives:
  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/nick'><item><nick xmlns='http://jabber.org/protocol/nick'>Al</nick></item></items></event></message>
bob sends:
`+pubsub("get", "4", "alice@example.org", "<items node='urn:xmpp:vcard4'/>")+`
bob receives:
  <iq type='result' id='4'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:vcard4'><item><vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'>
    <nickname><text>Al</text></nickname><email><text>a@b.c</text></email><photo><uri>data:image/png;base64,`+png+`</uri></photo></vcard></item></items></pubsub></iq>
alice sends:
  <iq type='set' id='5'><vCard xmlns='vcard-temp'><FN>Alice again</FN><TITLE>Queen</TITLE></vCard></iq>
`+pubsub("get", "6", "", "<items node='urn:xmpp:vcard4'/>")+`
alice receives:
  <iq type='result' id='5'/>
  <iq type='result' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:vcard4'><item><vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'>
    <title><text>Queen</text></title></vcard></item></items></pubsub></iq>
`, nil)
	if p, err := s.Hub.Profile(ctx, alice); err != nil || p.Name != "Alice again" || p.Avatar != nil {
		t.Errorf("the profile is %+v, %v", p, err)
	}
}

// How a contact on another server appears is learnt from its presence, its card and what it publishes.
func TestContactsProfileElsewhere(t *testing.T) {
	out := make(elsewhere, 100)
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) { c.Router = out }), xmpptest.Setup(func(s *xmpptest.Server) { s.Hub.AddCarrier(out) }))
	alice, carol := s.Account("alice"), core.Address{Network: core.XMPP, Name: "carol", Domain: "a.net"}
	ctx := context.Background()
	presence := stanza(t, "<presence xmlns='jabber:client' from='carol@a.net/phone' to='alice@example.org'><x xmlns='vcard-temp:x:update'><photo>15f98b4eee9aadd6a4a4fb4b6a5ee7cc1edd2f6e</photo></x></presence>")
	s.C2S.ForeignPresence(ctx, presence) // of a stranger: nobody asks
	for _, n := range []hub.ContactNotice{{Kind: hub.Ask, From: alice, To: carol}, {Kind: hub.Approve, From: carol, To: alice}} {
		if err := s.Hub.Consent(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Hub.SubmitDirect(ctx, carol, hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody("hello")}}); err != nil {
		t.Fatal(err)
	}
	s.C2S.ForeignPresence(ctx, presence)
	ask := out.next(t, named("iq"))
	if ask.Child("vcard-temp", "vCard") == nil || ask.Attr("to") != "carol@a.net" || ask.Attr("from") != "alice@example.org" {
		t.Fatalf("asked %v", ask)
	}
	s.C2S.ForeignPresence(ctx, presence) // is not asked twice
	answer := func(from, name, photo string) {
		s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='result' id='"+ask.Attr("id")+"' from='"+from+"' to='alice@example.org'><vCard xmlns='vcard-temp'><FN>"+name+"</FN>"+photo+"</vCard></iq>"))
	}
	answer("mallory@evil.net", "Mallory", "")
	answer("carol@a.net", "Carol C.", "<PHOTO><BINVAL>bm8gcGljdHVyZQ==</BINVAL></PHOTO>")
	p, err := s.Hub.Profile(ctx, carol)
	if err != nil || p.Name != "Carol C." || p.Avatar != nil {
		t.Errorf("carol's profile is %+v, %v", p, err)
	}
	s.C2S.Deliver(ctx, stanza(t, "<message xmlns='jabber:client' type='headline' from='carol@a.net' to='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'>"+
		"<items node='http://jabber.org/protocol/nick'><item id='x'><nick xmlns='http://jabber.org/protocol/nick'>Caz</nick></item></items></event></message>"))
	const sha, png = "{sha}", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	hash := sha1Of(t, png)
	s.C2S.Deliver(ctx, stanza(t, strings.ReplaceAll("<message xmlns='jabber:client' type='headline' from='carol@a.net' to='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'>"+
		"<items node='urn:xmpp:avatar:metadata'><item id='{sha}'><metadata xmlns='urn:xmpp:avatar:metadata'><info id='{sha}' bytes='70' type='image/png'/></metadata></item></items></event></message>", sha, hash)))
	ask = out.next(t, named("iq"))
	s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='result' id='"+ask.Attr("id")+"' from='carol@a.net' to='alice@example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'>"+
		"<items node='urn:xmpp:avatar:data'><item id='"+hash+"'><data xmlns='urn:xmpp:avatar:data'>"+png+"</data></item></items></pubsub></iq>"))
	if p, err = s.Hub.Profile(ctx, carol); err != nil || p.Name != "Caz" || p.Avatar == nil {
		t.Errorf("carol's profile is %+v, %v", p, err)
	}
	err = s.Hub.Read(ctx, func(v hub.View) error {
		directs, err := v.Directs(alice, carol)
		if err != nil {
			return err
		}
		st, err := v.State(directs[0])
		if m := st.Members[carol]; err == nil && st.Standing(carol) == core.Joined && m.Name != "Caz" {
			t.Errorf("carol appears in the direct as %+v", m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// How far an account has read is the same on every client, of every network.
func TestDisplayedSync(t *testing.T) {
	s := xmpptest.New(t)
	displayed := func(by, id string) string {
		return "<displayed xmlns='urn:xmpp:mds:displayed:0'><stanza-id xmlns='urn:xmpp:sid:0' by='" + by + "' id='" + id + "'/></displayed>"
	}
	news := func(jid, by, id string) string {
		return "  <message from='alice@example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:mds:displayed:0'><item id='" + jid + "'>" + displayed(by, id) + "</item></items></event></message>\n"
	}
	publish := func(id, jid, by, sid string) string {
		return pubsub("set", id, "", "<publish node='urn:xmpp:mds:displayed:0'><item id='"+jid+"'>"+displayed(by, sid)+"</item></publish><publish-options>"+
			options("publish-options", "persist_items", "true", "max_items", "max", "send_last_published_item", "never", "access_model", "whitelist")+"</publish-options>")
	}
	s.Run(friends, nil)
	ctx, alice, bob := context.Background(), s.Account("alice"), s.Account("bob")
	var ids []string
	for i := range 3 {
		e, err := s.Hub.SubmitDirect(ctx, alice, hub.Draft{Sender: bob, Content: core.Message{Body: core.TextBody(fmt.Sprint("message ", i))}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(e.ID))
	}
	s.Run(wanting("alice/phone", "urn:xmpp:mds:displayed:0")+wanting("alice/desk", "urn:xmpp:mds:displayed:0")+`
alice/phone sends:
`+publish("1", "bob@example.org", "alice@example.org", ids[0])+publish("2", "room@muc.a.net", "room@muc.a.net", "opaque")+`
alice/phone receives:
  <iq type='result' id='1'/>
  <iq type='result' id='2'/>
alice/desk receives:
`+news("bob@example.org", "alice@example.org", ids[0])+news("room@muc.a.net", "room@muc.a.net", "opaque")+`
bob does not receive:
  <message><displayed xmlns='urn:xmpp:chat-markers:0'/></message>
`, nil)
	var at core.EventID
	position := func() core.EventID {
		t.Helper()
		err := s.Hub.Read(ctx, func(v hub.View) error {
			directs, err := v.Directs(alice, bob)
			if err != nil {
				return err
			}
			for _, private := range []bool{true, false} {
				if r, err := v.Reading(directs[0], alice, core.StageDisplayed, "", private); err == nil {
					at = r.Event
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	if got := position(); string(got) != ids[0] {
		t.Errorf("the read marker is at %q", got)
	}
	err := s.Hub.Read(ctx, func(v hub.View) error {
		e, err := v.Event(core.EventID(ids[1]))
		if err == nil { // as a Matrix client does
			go func() {
				if err := s.Hub.MarkDisplayed(ctx, hub.ReadingRequest{Conv: e.Conv, Who: alice, Event: e.ID, From: "DEVICE"}); err != nil {
					t.Error(err)
				}
			}()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Run(`
alice/desk receives:
`+news("bob@example.org", "alice@example.org", ids[1])+`
alice/phone sends:
  <message to='bob@example.org'><displayed xmlns='urn:xmpp:chat-markers:0' id='`+ids[2]+`'/>`+displayed("alice@example.org", ids[2])+`</message>
alice/desk receives:
`+news("bob@example.org", "alice@example.org", ids[2])+`
bob receives:
  <message from='alice@example.org*'><displayed xmlns='urn:xmpp:chat-markers:0' id='`+ids[2]+`'/></message>
bob does not receive:
  <message><displayed xmlns='urn:xmpp:mds:displayed:0'/></message>
alice/desk sends:
`+pubsub("get", "3", "", "<items node='urn:xmpp:mds:displayed:0'/>")+publish("4", "bob@example.org", "alice@example.org", ids[0])+`
alice/desk receives:
  <iq type='result' id='3'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:mds:displayed:0'>
    <item id='bob@example.org'>`+displayed("alice@example.org", ids[2])+`</item><item id='room@muc.a.net'>`+displayed("room@muc.a.net", "opaque")+`</item></items></pubsub></iq>
  <iq type='result' id='4'/>
bob sends:
`+pubsub("get", "5", "alice@example.org", "<items node='urn:xmpp:mds:displayed:0'/>")+`
bob receives:
`+failing("5", "not-allowed", "closed-node"), nil)
	if got := position(); string(got) != ids[2] {
		t.Errorf("the read marker is at %q", got)
	}
}

// Nodes, affiliations and subscriptions are kept alike on PostgreSQL.
func TestEventingOnPostgres(t *testing.T) {
	s := xmpptest.New(t, xmpptest.On(storetest.Open(t, storetest.Postgres(t), store.Options{})))
	s.Run(friends+`
carol connects
alice sends:
`+pubsub("set", "1", "", "<publish node='urn:n'>"+item("a")+"</publish>")+
		owner("set", "2", "", "<affiliations node='urn:n'><affiliation jid='carol@example.org' affiliation='member'/></affiliations>")+`
alice receives:
  <iq type='result' id='2'/>
carol sends:
`+pubsub("set", "3", "alice@example.org", "<subscribe node='urn:n' jid='carol@example.org'/>")+pubsub("get", "4", "alice@example.org", "<subscriptions/>")+
		pubsub("get", "5", "alice@example.org", "<affiliations node='urn:n'/>")+`
carol receives:
  <iq type='result' id='3'/>
  <iq type='result' id='4'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscriptions><subscription node='urn:n'/></subscriptions></pubsub></iq>
  <iq type='result' id='5'><pubsub xmlns='http://jabber.org/protocol/pubsub'><affiliations><affiliation node='urn:n' affiliation='member'/></affiliations></pubsub></iq>
`, nil)
}

// Nobody fills the disk with private data.
func TestPrivateBounds(t *testing.T) {
	s := xmpptest.New(t)
	a := s.Connect("alice", "")
	put := func(name string) string {
		a.SendRaw("<iq type='set' id='p'><query xmlns='jabber:iq:private'><" + name + " xmlns='urn:x'/></query></iq>")
		if e := a.Receive(find("id", "p")).Child("", "error"); e != nil {
			return e.First().Name.Local
		}
		return ""
	}
	refused := ""
	for i := 0; i <= 300 && refused == ""; i++ {
		refused = put(fmt.Sprint("n", i))
	}
	if refused != "resource-constraint" {
		t.Errorf("one piece too many was answered with %q", refused)
	}
	if again := put("n0"); again != "" {
		t.Errorf("changing one that is there was answered with %q", again)
	}
}

// What clients keep here bears the name of the network, so that Matrix clients, whose account data
// lies beside it, are not given it.
func TestPrivateTypes(t *testing.T) {
	s := xmpptest.New(t)
	s.Run(`
alice connects
alice sends:
  <iq type='set' id='1'><vCard xmlns='vcard-temp'><FN>Alice</FN></vCard></iq>
  <iq type='set' id='2'><query xmlns='jabber:iq:private'><own xmlns='urn:x'/></query></iq>
  <iq type='set' id='3'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><url name='A' url='https://a.example/'/></storage></query></iq>
alice receives:
  <iq type='result' id='1'/>
  <iq type='result' id='2'/>
  <iq type='result' id='3'/>
`, nil)
	var types []string
	if err := s.Hub.Read(context.Background(), func(v hub.View) error {
		kept, err := v.Data(s.Account("alice"), 0)
		for _, d := range kept {
			types = append(types, d.Type)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(types) != 3 {
		t.Errorf("kept are %q", types)
	}
	for _, typ := range types {
		if !strings.HasPrefix(typ, "xmpp:") {
			t.Errorf("kept is %q", typ)
		}
	}
}

func sha1Of(t *testing.T, data string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha1.Sum(b)) //nolint:gosec // the hash that names avatars
}
