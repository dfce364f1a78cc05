package c2s_test

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what TURN servers take
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/xmpptest"
)

// TestExternalServices has a client ask for TURN, with credentials that the TURN server can check.
//
// spec: XEP-0215 §3.1
func TestExternalServices(t *testing.T) {
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.External = []c2s.ExternalService{
			{Type: "stun", Host: "stun.example.org", Port: 3478, Transport: "udp"},
			{Type: "turn", Host: "turn.example.org", Port: 3478, Transport: "udp", Secret: "shared", TTL: time.Hour},
		}
	}))
	s.Run(`
		alice connects
		alice sends:
		  <iq type='get' id='d' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
		alice receives:
		  <iq type='result' id='d'><query xmlns='http://jabber.org/protocol/disco#info'><feature var='urn:xmpp:extdisco:2'/></query></iq>
		alice sends:
		  <iq type='get' id='s' to='example.org'><services xmlns='urn:xmpp:extdisco:2'/></iq>
		alice receives:
		  <iq type='result' id='s'><services xmlns='urn:xmpp:extdisco:2'>
		    <service type='stun' host='stun.example.org' port='3478' transport='udp'/>
		    <service type='turn' host='turn.example.org' restricted='true' expires='*' username='{user}' password='{password}'/>
		  </services></iq>
		alice sends:
		  <iq type='get' id='c' to='example.org'><credentials xmlns='urn:xmpp:extdisco:2'><service type='turn' host='turn.example.org'/></credentials></iq>
		  <iq type='get' id='n' to='example.org'><credentials xmlns='urn:xmpp:extdisco:2'><service type='turn' host='other.example.org'/></credentials></iq>
		alice receives:
		  <iq type='result' id='c'><credentials xmlns='urn:xmpp:extdisco:2'><service type='turn' password='*'/></credentials></iq>
		  <iq type='error' id='n'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
	`, nil)
	c := s.Connect("bob", "x")
	c.SendRaw("<iq type='get' id='t' to='example.org'><services xmlns='urn:xmpp:extdisco:2' type='turn'/></iq>")
	all := c.Receive(func(el *element.Element) bool { return el.Attr("id") == "t" }).First().Elements()
	if len(all) != 1 {
		t.Fatalf("got %v", all)
	}
	user := all[0].Attr("username")
	mac := hmac.New(sha1.New, []byte("shared"))
	mac.Write([]byte(user))
	if base64.StdEncoding.EncodeToString(mac.Sum(nil)) != all[0].Attr("password") || !strings.HasSuffix(user, ":bob") {
		t.Errorf("got %s", all[0])
	}
}

// TestContactAddresses asks where the operator is reached.
//
// spec: XEP-0157 §2
func TestContactAddresses(t *testing.T) {
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.Contact = map[string][]string{"abuse": {"mailto:abuse@example.org", "xmpp:abuse@example.org"}, "support": {"https://example.org/help"}}
	}))
	s.Run(`
		alice connects
		alice sends:
		  <iq type='get' id='d' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
		alice receives:
		  <iq type='result' id='d'><query xmlns='http://jabber.org/protocol/disco#info'><x xmlns='jabber:x:data' type='result'>
		    <field var='FORM_TYPE' type='hidden'><value>http://jabber.org/network/serverinfo</value></field>
		    <field var='abuse-addresses' type='list-multi'><value>mailto:abuse@example.org</value><value>xmpp:abuse@example.org</value></field>
		    <field var='support-addresses' type='list-multi'><value>https://example.org/help</value></field>
		  </x></query></iq>
	`, nil)
}
