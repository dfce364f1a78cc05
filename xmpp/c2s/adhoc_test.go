package c2s_test

import (
	"strings"
	"testing"

	"parley/core"
	"parley/hub/hubtest"
	"parley/xmpp/c2s"
	"parley/xmpp/xmpptest"
)

func withOperator(t *testing.T) *xmpptest.Server {
	return xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.Operators = []core.Address{core.LocalAddress("olga", "example.org")}
	}))
}

// run counts the sessions of commands, each of which has a name in scripts.
var run int

// admin has a client run a command for operators with its form, and checks the result's fields, given as XML.
func admin(t *testing.T, s *xmpptest.Server, node, fields, want string) {
	t.Helper()
	run++
	s.Run(strings.NewReplacer("NODE", "http://jabber.org/protocol/admin#"+node, "FIELDS", fields, "WANT", want, "NAME",
		"run"+strings.Repeat("x", run)).Replace(`
olga sends:
  <iq type='set' id='1-NODE' to='example.org'><command xmlns='http://jabber.org/protocol/commands' node='NODE' action='execute'/></iq>
olga receives:
  <iq type='result' id='1-NODE'><command xmlns='http://jabber.org/protocol/commands' node='NODE' status='executing' sessionid='{NAME}'><x xmlns='jabber:x:data' type='form'>
    <field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/admin</value></field></x></command></iq>
olga sends:
  <iq type='set' id='2-NODE' to='example.org'><command xmlns='http://jabber.org/protocol/commands' node='NODE' sessionid='{NAME}'>
    <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/admin</value></field>FIELDS</x></command></iq>
olga receives:
  <iq type='result' id='2-NODE'><command xmlns='http://jabber.org/protocol/commands' status='completed'>WANT</command></iq>
`), nil)
}

// atOnce has a client run a command for operators that has no form.
func atOnce(s *xmpptest.Server, node, want string) {
	s.Run(strings.NewReplacer("NODE", "http://jabber.org/protocol/admin#"+node, "WANT", want).Replace(`
olga sends:
  <iq type='set' id='NODE' to='example.org'><command xmlns='http://jabber.org/protocol/commands' node='NODE'/></iq>
olga receives:
  <iq type='result' id='NODE'><command xmlns='http://jabber.org/protocol/commands' status='completed'>WANT</command></iq>
`), nil)
}

func field(name string, values ...string) string {
	out := "<field var='" + name + "'>"
	for _, v := range values {
		out += "<value>" + v + "</value>"
	}
	return out + "</field>"
}

func form(fields ...string) string {
	return "<x xmlns='jabber:x:data' type='result'>" + strings.Join(fields, "") + "</x>"
}

// spec: XEP-0050 §2
func TestCommandsAreFound(t *testing.T) {
	withOperator(t).Run(`
olga connects
bob connects
bob sends:
  <iq type='get' id='d1' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
  <iq type='get' id='d2' to='example.org'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>
  <iq type='get' id='d3' to='bob@example.org'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>
  <iq type='get' id='d4' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='change-password'/></iq>
  <iq type='get' id='d5' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='http://jabber.org/protocol/admin#announce'/></iq>
  <iq type='set' id='d6' to='example.org'><command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#announce'/></iq>
bob receives:
  <iq type='result' id='d1'><query xmlns='http://jabber.org/protocol/disco#info'><feature var='http://jabber.org/protocol/commands'/></query></iq>
  <iq type='result' id='d2'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='example.org' node='change-password' name='*'/></query></iq>
  <iq type='result' id='d3'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='bob@example.org' node='end-session'/></query></iq>
  <iq type='result' id='d4'><query xmlns='http://jabber.org/protocol/disco#info' node='change-password'>
    <identity category='automation' type='command-node'/><feature var='http://jabber.org/protocol/commands'/><feature var='jabber:x:data'/></query></iq>
  <iq type='error' id='d5'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='d6'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
olga sends:
  <iq type='get' id='r1' to='example.org'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>
  <iq type='set' id='r2' to='olga@example.org'><command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#announce'/></iq>
  <iq type='get' id='r3' to='bob@example.org'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>
olga receives:
  <iq type='result' id='r1'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='example.org' node='http://jabber.org/protocol/admin#announce'/></query></iq>
  <iq type='error' id='r2'><error><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
olga does not receive:
  <iq id='r3'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='bob@example.org' node='end-session'/></query></iq>
`, nil)
}

func TestUserCommands(t *testing.T) {
	s := withOperator(t)
	s.Run(`
bob/phone connects
bob/desk connects
bob/phone sends:
  <iq type='set' id='c1'><command xmlns='http://jabber.org/protocol/commands' node='change-password'/></iq>
bob/phone receives:
  <iq type='result' id='c1'><command xmlns='http://jabber.org/protocol/commands' sessionid='{s1}' status='executing'>
    <actions execute='complete'><complete/></actions><x xmlns='jabber:x:data' type='form'><field var='old' type='text-private'><required/></field></x></command></iq>
bob/phone sends:
  <iq type='set' id='c2'><command xmlns='http://jabber.org/protocol/commands' node='change-password' sessionid='{s1}'><x xmlns='jabber:x:data' type='submit'>
    <field var='old'><value>a wrong one</value></field><field var='password'><value>correct horse</value></field><field var='password-verify'><value>incorrect horse</value></field></x></command></iq>
bob/phone receives:
  <iq type='error' id='c2'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
bob/phone sends:
  <iq type='set' id='c3'><command xmlns='http://jabber.org/protocol/commands' node='change-password' sessionid='{s1}'><x xmlns='jabber:x:data' type='submit'>
    <field var='old'><value>a wrong one</value></field><field var='password'><value>correct horse</value></field><field var='password-verify'><value>correct horse</value></field></x></command></iq>
bob/phone receives:
  <iq type='result' id='c3'><command xmlns='http://jabber.org/protocol/commands' status='completed'><note type='error'/></command></iq>
bob/phone sends:
  <iq type='set' id='c4'><command xmlns='http://jabber.org/protocol/commands' node='change-password'/></iq>
bob/phone receives:
  <iq type='result' id='c4'><command xmlns='http://jabber.org/protocol/commands' sessionid='{s2}'/></iq>
bob/phone sends:
  <iq type='set' id='c5'><command xmlns='http://jabber.org/protocol/commands' node='change-password' sessionid='{s2}'><x xmlns='jabber:x:data' type='submit'>
    <field var='old'><value>{password}</value></field><field var='password'><value>correct horse</value></field><field var='password-verify'><value>correct horse</value></field></x></command></iq>
bob/phone receives:
  <iq type='result' id='c5'><command xmlns='http://jabber.org/protocol/commands' status='completed'><note type='info'/></command></iq>
`, map[string]string{"password": hubtest.Password})
	if err := s.Hub.CheckPassword(t.Context(), s.Account("bob"), "correct horse"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	s.Run(`
bob/phone sends:
  <iq type='set' id='l1'><command xmlns='http://jabber.org/protocol/commands' node='sessions'/></iq>
  <iq type='set' id='e1'><command xmlns='http://jabber.org/protocol/commands' node='end-session'/></iq>
bob/phone receives:
  <iq type='result' id='l1'><command xmlns='http://jabber.org/protocol/commands' status='completed'><x xmlns='jabber:x:data' type='result'>
    <item><field var='resource'><value>desk</value></field></item><item><field var='resource'><value>phone</value></field></item></x></command></iq>
  <iq type='result' id='e1'><command xmlns='http://jabber.org/protocol/commands' status='executing' sessionid='{s3}'><actions execute='next'><next/></actions>
    <x xmlns='jabber:x:data' type='form'><field var='resource' type='list-single'><option><value>desk</value></option><option><value>phone</value></option></field></x></command></iq>
bob/phone sends:
  <iq type='set' id='e2'><command xmlns='http://jabber.org/protocol/commands' node='end-session' sessionid='{s3}' action='next'>
    <x xmlns='jabber:x:data' type='submit'><field var='resource'><value>phone</value></field></x></command></iq>
  <iq type='set' id='e3'><command xmlns='http://jabber.org/protocol/commands' node='end-session' sessionid='{s3}' action='prev'/></iq>
  <iq type='set' id='e4'><command xmlns='http://jabber.org/protocol/commands' node='end-session' sessionid='{s3}' action='next'>
    <x xmlns='jabber:x:data' type='submit'><field var='resource'><value>desk</value></field></x></command></iq>
  <iq type='set' id='e5'><command xmlns='http://jabber.org/protocol/commands' node='end-session' sessionid='{s3}' action='complete'>
    <x xmlns='jabber:x:data' type='submit'><field var='sure'><value>1</value></field></x></command></iq>
bob/phone receives:
  <iq type='result' id='e3'><command xmlns='http://jabber.org/protocol/commands' status='executing'><actions execute='next'><next/></actions></command></iq>
  <iq type='result' id='e5'><command xmlns='http://jabber.org/protocol/commands' status='completed'><note type='info'>The session was ended.</note></command></iq>
bob/desk receives:
  <error xmlns='http://etherx.jabber.org/streams'><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>
`, nil)
}

// spec: XEP-0133 §4
func TestOperatorCommands(t *testing.T) {
	s := withOperator(t)
	s.Run(`
olga connects
bob/phone connects
olga is available
bob/phone is available
`, nil)
	carol := core.LocalAddress("carol", "example.org")
	info, failed := "<note type='info'/>", "<note type='error'/>"
	admin(t, s, "add-user", field("accountjid", "carol@example.org")+field("password", "secret words")+field("password-verify", "secret words"), info)
	admin(t, s, "add-user", field("accountjid", "carol@example.org")+field("password", "secret words")+field("password-verify", "secret words"), failed)
	admin(t, s, "add-user", field("accountjid", "carol@example.net")+field("password", "secret words")+field("password-verify", "secret words"), failed)
	if err := s.Hub.CheckPassword(t.Context(), carol, "secret words"); err != nil {
		t.Errorf("carol's password: %v", err)
	}
	admin(t, s, "change-user-password", field("accountjid", "carol@example.org")+field("password", "other words"), info)
	if err := s.Hub.CheckPassword(t.Context(), carol, "other words"); err != nil {
		t.Errorf("carol's other password: %v", err)
	}
	admin(t, s, "disable-user", field("accountjids", "carol@example.org"), info)
	if acc, err := s.Hub.Account(t.Context(), carol); err != nil || !acc.Disabled {
		t.Errorf("carol is not disabled: %v", err)
	}
	admin(t, s, "disable-user", field("accountjids", "olga@example.org"), failed)
	admin(t, s, "disable-user", field("accountjids", "nobody@example.org"), failed)
	atOnce(s, "get-registered-users-num", form(field("registeredusersnum", "3")))
	atOnce(s, "get-disabled-users-num", form(field("disabledusersnum", "1")))
	atOnce(s, "get-online-users-num", form(field("onlineusersnum", "2")))
	s.Run(`
bob/phone sends:
  <inactive xmlns='urn:xmpp:csi:0'/>
  <iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>
bob/phone receives:
  <iq type='result' id='p'/>
`, nil)
	atOnce(s, "get-active-users-num", form(field("activeusersnum", "1")))
	atOnce(s, "get-idle-users-num", form(field("idleusersnum", "1")))
	admin(t, s, "get-registered-users-list", field("max_items", "25"), form(field("registereduserjids", "bob@example.org", "carol@example.org", "olga@example.org")))
	admin(t, s, "get-disabled-users-list", "", form(field("disableduserjids", "carol@example.org")))
	admin(t, s, "get-online-users-list", field("max_items", "none"), form(field("onlineuserjids", "bob@example.org", "olga@example.org")))
	admin(t, s, "get-active-users", "", form(field("activeuserjids", "olga@example.org")))
	admin(t, s, "get-idle-users", "", form(field("activeuserjids", "bob@example.org")))
	admin(t, s, "reenable-user", field("accountjids", "carol@example.org"), info)
	if acc, err := s.Hub.Account(t.Context(), carol); err != nil || acc.Disabled {
		t.Errorf("carol is still disabled: %v", err)
	}
	s.Run(`
bob/phone sends:
  <iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='carol@example.org' name='Carol'/></query></iq>
bob/phone receives:
  <iq type='result' id='r'/>
`, nil)
	admin(t, s, "get-user-roster", field("accountjids", "bob@example.org"),
		form(field("accountjids", "bob@example.org"), "<query xmlns='jabber:iq:roster'><item jid='carol@example.org' name='Carol'/></query>"))
	admin(t, s, "user-stats", field("accountjid", "bob@example.org"), form(field("rostersize", "1"), field("onlineresources", "phone")))
	admin(t, s, "delete-user", field("accountjids", "carol@example.org"), info)
	if _, err := s.Hub.Account(t.Context(), carol); err == nil {
		t.Error("carol is still there")
	}
	admin(t, s, "end-user-session", field("accountjids", "bob@example.org/phone"), "<note type='info'>1 sessions were ended.</note>")
	s.Run(`
bob/phone receives:
  <error xmlns='http://etherx.jabber.org/streams'><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>
`, nil)
}

// spec: XEP-0133 §4.23
// spec: XEP-0133 §4.24
func TestAnnouncements(t *testing.T) {
	s := withOperator(t)
	s.Run("olga connects\nbob connects\n", nil)
	admin(t, s, "announce", field("announcement", "line one", "line two"), "<note type='info'>2 clients were told.</note>")
	admin(t, s, "set-motd", field("motd", "be kind"), "<note type='info'/>")
	s.Run(`
bob receives:
  <message type='headline' from='example.org'><subject>Announcement</subject></message>
  <message type='headline' from='example.org'><body>be kind</body></message>
carol connects
carol is available
carol receives:
  <message type='headline' from='example.org'><body>be kind</body></message>
`, nil)
	admin(t, s, "edit-motd", field("motd", "be kinder"), "<note type='info'/>")
	s.Run(`
carol receives:
  <message type='headline' from='example.org'><body>be kinder</body></message>
`, nil)
	atOnce(s, "delete-motd", "<note type='info'/>")
	s.Run(`
dave connects
dave is available
dave does not receive:
  <message type='headline'/>
`, nil)
}
