package durability

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

const header = `<?xml version='1.0'?><stream:stream to='` + domain + `' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`

// raw connects, upgrades to TLS if asked to, says something and returns all that the server says until it hangs up.
func (s *scene) raw(t *testing.T, secure bool, text string) string {
	t.Helper()
	var conn net.Conn
	conn, err := net.Dial("tcp", s.target.xmpp)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Close() }()
	if secure {
		if _, err := io.WriteString(conn, header+`<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for !strings.Contains(got.String(), "<proceed") {
			b := make([]byte, 1)
			if _, err := conn.Read(b); err != nil {
				t.Fatalf("%v after %s", err, &got)
			}
			got.Write(b)
		}
		for b := make([]byte, 1); b[0] != '>'; { // the rest of <proceed/>
			if _, err := conn.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		conn = tls.Client(conn, s.target.tls)
	}
	go func() { _, _ = io.WriteString(conn, text) }() // the server may hang up before all of it is written
	b, _ := io.ReadAll(conn)                          // a reset may follow the answer
	return string(b)
}

// Hostile streams that have not logged in each get the stream error or SASL failure that is for them, and no more room than that.
func TestHostileXMPP(t *testing.T) {
	s := newScene(t)
	before := s.state(t)
	slow := s.slowStreams(t)
	t.Run("before login", s.strangers)
	t.Run("SASL", s.sasl)
	t.Run("streams", s.badStreams)
	t.Run("stanzas", s.badStanzas)
	if after := s.state(t); after != before {
		t.Errorf("the state has changed:\n%s\n%s", before, after)
	}
	t.Run("forgery", s.forgery)
	t.Run("management", s.management)
	t.Run("floods", s.floods)
	slow()
	s.well(t)
}

func (s *scene) strangers(t *testing.T) {
	for _, c := range []struct {
		name   string
		secure bool
		say    string
		want   []string // any of these
	}{
		{"HTTP", false, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", []string{"not-well-formed", "bad-format"}},
		{"DTD", false, `<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a "aaaa">]>` + header, []string{"restricted-xml"}},
		{"billion laughs", true, `<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY c "&b;&b;">]>` + header, []string{"restricted-xml"}},
		{"instruction", false, `<?xml version='1.0'?><?php x ?>` + header[21:], []string{"restricted-xml"}},
		{"comment", true, `<!-- x -->` + header, []string{"restricted-xml"}},
		{"UTF-16", false, `<?xml version='1.0' encoding='UTF-16'?>` + header[21:], []string{"unsupported-encoding"}},
		{"invalid UTF-8", false, "<stream:stream to='\xff\xfe'>", []string{"not-well-formed", "unsupported-encoding", "bad-format"}},
		{"NUL", false, "<stream:stream to='\x00'>", []string{"not-well-formed"}},
		{"no stream", false, `<message xmlns='jabber:client'/>`, []string{"invalid-namespace", "bad-format", "not-well-formed"}},
		{"wrong stream namespace", false, strings.Replace(header, "etherx", "aetherx", 1), []string{"invalid-namespace"}},
		{"wrong content namespace", false, strings.Replace(header, "jabber:client", "jabber:nonsense", 1), []string{"invalid-namespace"}},
		{"prefix of nothing", false, `<x:stream>`, []string{"not-well-formed", "bad-namespace-prefix", "invalid-namespace"}},
		{"unknown host", false, strings.Replace(header, domain, "nobody.example", 1), []string{"host-unknown"}},
		{"stanza before TLS", false, header + `<message to='mona@` + domain + `'><body>x</body></message>`, []string{"not-authorized", "policy-violation"}},
		{"SASL before TLS", false, header + `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>`, []string{"encryption-required", "policy-violation", "not-authorized"}},
		{"stanza before login", true, header + `<message to='mona@` + domain + `'><body>x</body></message>`, []string{"not-authorized"}},
		{"bind before login", true, header + `<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>`, []string{"not-authorized"}},
		{"deep", true, header + strings.Repeat("<a>", 10_000), []string{"policy-violation"}},
		{"huge", true, header + `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>` + strings.Repeat("A", 1<<20), []string{"policy-violation"}},
		{"huge name", true, header + "<" + strings.Repeat("a", 1<<20), []string{"policy-violation"}},
		{"many attributes", true, header + "<a" + strings.Repeat(" x='y'", 100_000), []string{"policy-violation", "not-well-formed"}},
		{"huge header", false, header[:len(header)-1] + " x='" + strings.Repeat("y", 1<<20), []string{"policy-violation"}},
		{"white space without end", false, strings.Repeat(" ", 1<<20) + "x", []string{"not-well-formed", "policy-violation", "bad-format", "connection-timeout"}},
		{"twice attribute", true, header + `<a x='1' x='2'/>`, []string{"not-well-formed"}},
		{"end of nothing", true, header + `</a>`, []string{"not-well-formed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.raw(t, c.secure, c.say)
			if !containsAny(got, c.want) {
				t.Errorf("%.600q, want one of %v", got, c.want)
			}
			s.well(t)
		})
	}
	t.Run("bad TLS", func(t *testing.T) {
		for _, junk := range []string{"\x16\x03\x01\xff\xff\x01", strings.Repeat("\x00", 5000), header} {
			conn, err := net.Dial("tcp", s.target.xmpp)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, header+`<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`+junk)
			_, _ = io.ReadAll(conn) // until the server hangs up
			conn.Close()
			web, err := net.Dial("tcp", s.target.https)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(web, junk+"\r\n\r\n")
			_ = web.(*net.TCPConn).CloseWrite()
			_, _ = io.ReadAll(web)
			web.Close()
			s.well(t)
		}
		old := s.target.tls.Clone()
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if conn, err := tls.Dial("tcp", s.target.https, old); err == nil {
			conn.Close()
			t.Error("TLS 1.1 is spoken")
		}
	})
}

func containsAny(s string, of []string) bool {
	for _, o := range of {
		if strings.Contains(s, "<"+o) {
			return true
		}
	}
	return false
}

func (s *scene) sasl(t *testing.T) {
	auth := func(mechanism, data string) string {
		return header + `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='` + mechanism + `'>` + data + `</auth></stream:stream>`
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, c := range map[string]struct {
		say  string
		want []string
	}{
		"unknown mechanism": {auth("NONSENSE", "="), []string{"invalid-mechanism"}},
		"no base64":         {auth("PLAIN", "!!!"), []string{"incorrect-encoding", "malformed-request"}},
		"PLAIN of nothing":  {auth("PLAIN", "="), []string{"malformed-request", "not-authorized"}},
		"PLAIN of NULs":     {auth("PLAIN", b64("\x00\x00\x00\x00\x00")), []string{"malformed-request", "not-authorized"}},
		"PLAIN wrong":       {auth("PLAIN", b64("\x00mona\x00guess")), []string{"not-authorized"}},
		"PLAIN as another":  {auth("PLAIN", b64("mona@"+domain+"\x00milo\x00"+password)), []string{"invalid-authzid", "not-authorized"}},
		"PLAIN not UTF-8":   {auth("PLAIN", b64("\x00\xff\xfe\x00x")), []string{"malformed-request", "not-authorized"}},
		"SCRAM nonsense":    {auth("SCRAM-SHA-256", b64("nonsense")), []string{"malformed-request", "not-authorized"}},
		"SCRAM NUL":         {auth("SCRAM-SHA-256", b64("n,,n=mo\x00na,r=abcdefgh")), []string{"malformed-request", "not-authorized", "challenge"}},
		"SCRAM as another":  {auth("SCRAM-SHA-256", b64("n,a=mona,n=milo,r=abcdefgh")), []string{"invalid-authzid", "not-authorized", "challenge"}},
		"SCRAM extension":   {auth("SCRAM-SHA-256", b64("n,,m=x,n=mona,r=abcdefgh")), []string{"malformed-request", "not-authorized"}},
		"abort":             {header + `<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></stream:stream>`, []string{"aborted", "not-authorized", "malformed-request"}},
		"response first":    {header + `<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></stream:stream>`, []string{"malformed-request", "not-authorized"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.raw(t, true, c.say)
			if !containsAny(got, c.want) || strings.Contains(got, "<success") {
				t.Errorf("%.900q, want one of %v", got, c.want)
			}
			s.well(t)
		})
	}
}

// login is a hostile client that has logged in.
func (s *scene) login(t *testing.T, who string) *stream {
	t.Helper()
	c, err := dialXMPP(t.Context(), &s.target, who, "hostile", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.drop)
	return c
}

// badStreams are what ends the stream of a client that has logged in.
func (s *scene) badStreams(t *testing.T) {
	for name, c := range map[string]struct{ say, want string }{
		"DTD":                {`<!DOCTYPE x>`, "restricted-xml"},
		"comment":            {`<message><!-- x --></message>`, "restricted-xml"},
		"instruction":        {`<message><?x y?></message>`, "restricted-xml"},
		"entity":             {`<message><body>&lol;</body></message>`, "restricted-xml"},
		"character":          {`<message><body>&#0;</body></message>`, "not-well-formed"},
		"mismatch":           {`<message></iq>`, "not-well-formed"},
		"prefix":             {`<x:message/>`, "not-well-formed"},
		"invalid UTF-8":      {"<message><body>\xff</body></message>", "not-well-formed"},
		"deep":               {`<message to='mona@` + domain + `'>` + strings.Repeat("<a>", 5000), "policy-violation"},
		"huge":               {`<message to='mona@` + domain + `'><body>` + strings.Repeat("x", 2<<20), "policy-violation"},
		"many elements":      {`<message to='mona@` + domain + `'>` + strings.Repeat("<a/>", 20_000), "policy-violation"},
		"many namespaces":    {`<message` + strings.Repeat(` xmlns:a='b'`, 5000), "not-well-formed policy-violation"},
		"unknown stanza":     {`<nonsense/>`, "unsupported-stanza-type"},
		"server's namespace": {`<message xmlns='jabber:server'/>`, "unsupported-stanza-type invalid-namespace"},
		"spoofed from":       {`<message from='mona@` + domain + `/x' to='xena@` + domain + `'><body>spoofed</body></message>`, "invalid-from"},
		"spoofed resource":   {`<message from='xavi@` + domain + `/else' to='xena@` + domain + `'><body>spoofed</body></message>`, "invalid-from"},
		"acknowledges more":  {`<enable xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='4000000000'/>`, "stream.Error"},
		"text":               {`nonsense`, "not-well-formed bad-format"},
	} {
		t.Run(name, func(t *testing.T) {
			x := s.login(t, "xavi")
			got := make(chan string)
			go func() {
				n, err := x.until(func(n *node) bool { return n.attr("id") == "still here" })
				if err == nil {
					err = fmt.Errorf("the stream goes on: %s", n.XMLName.Local)
				}
				got <- err.Error()
			}()
			_, _ = io.WriteString(x.wire(), c.say+`<iq type='get' id='still here'><ping xmlns='urn:xmpp:ping'/></iq>`) // the server may hang up before all of it is written
			answer := <-got
			found := false
			for _, w := range strings.Fields(c.want) {
				found = found || strings.Contains(answer, w)
			}
			if !found {
				t.Errorf("%s; want %s", answer, c.want)
			}
			s.well(t)
		})
	}
}

// badStanzas are what a client is told about by an error stanza, and nothing is done.
func (s *scene) badStanzas(t *testing.T) {
	x := s.login(t, "xavi")
	const mam, muc = `<query xmlns='` + nsMAM + `'>`, `<query xmlns='http://jabber.org/protocol/muc#`
	form := func(field, value string) string {
		return mam + `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>` + nsMAM +
			`</value></field><field var='` + field + `'><value>` + value + `</value></field></x></query>`
	}
	page := func(rsm string) string { return mam + `<set xmlns='` + nsRSM + `'>` + rsm + `</set></query>` }
	const pep = `<pubsub xmlns='http://jabber.org/protocol/pubsub'>`
	mona, rooms := "mona@"+domain, "secret@rooms."+domain
	for _, c := range []struct{ name, typ, to, payload, want string }{
		{"nothing", "get", "", ``, "bad-request"},
		{"two things", "get", "", `<a xmlns='x'/><b xmlns='y'/>`, "bad-request"},
		{"unknown", "get", "", `<a xmlns='x'/>`, "service-unavailable feature-not-implemented"},
		{"bad address", "get", "@@@", `<ping xmlns='urn:xmpp:ping'/>`, "jid-malformed"},
		{"nobody", "get", "nobody@" + domain, `<vCard xmlns='vcard-temp'/>`, "service-unavailable item-not-found"},
		{"client of another", "get", mona + "/x", `<query xmlns='jabber:iq:version'/>`, "service-unavailable"},
		{"roster of another", "get", mona, `<query xmlns='jabber:iq:roster'/>`, "service-unavailable forbidden not-allowed"},
		{"roster set for another", "set", mona, `<query xmlns='jabber:iq:roster'><item jid='a@b'/></query>`, "service-unavailable forbidden not-allowed"},
		{"roster of two", "set", "", `<query xmlns='jabber:iq:roster'><item jid='a@` + domain + `'/><item jid='b@` + domain + `'/></query>`, "bad-request"},
		{"roster name", "set", "", `<query xmlns='jabber:iq:roster'><item jid='a@` + domain + `' name='` + strings.Repeat("x", 20_000) + `'/></query>`, "not-acceptable bad-request resource-constraint policy-violation"},
		{"roster groups", "set", "", `<query xmlns='jabber:iq:roster'><item jid='a@` + domain + `'>` + groups(2000) + `</item></query>`, "not-acceptable bad-request resource-constraint policy-violation"},
		{"private data of another", "get", mona, `<query xmlns='jabber:iq:private'><a xmlns='b'/></query>`, "service-unavailable forbidden"},
		{"blocklist of another", "get", mona, `<blocklist xmlns='urn:xmpp:blocking'/>`, "service-unavailable forbidden"},
		{"blocks nobody", "set", "", `<block xmlns='urn:xmpp:blocking'><item jid='@'/></block>`, "bad-request jid-malformed"},
		{"publishes for another", "set", mona, pep + `<publish node='n'><item><a xmlns='b'/></item></publish></pubsub>`, "forbidden service-unavailable"},
		{"PEP bomb", "set", "", pep + `<publish node='n'>` + strings.Repeat(`<item><a xmlns='b'/></item>`, 500) + `</publish></pubsub>`, "bad-request not-allowed resource-constraint not-acceptable"},
		{"PEP large item", "set", "", pep + `<publish node='n'><item><a xmlns='b'>` + strings.Repeat("x", 240_000) + `</a></item></publish></pubsub>`, "not-acceptable resource-constraint policy-violation"},
		{"PEP node name", "set", "", pep + `<publish node='` + strings.Repeat("n", 100_000) + `'><item><a xmlns='b'/></item></publish></pubsub>`, "bad-request not-acceptable resource-constraint policy-violation"},
		{"archive of another", "set", mona, mam + `</query>`, "forbidden service-unavailable item-not-found"},
		{"archive of a room", "set", rooms, mam + `</query>`, "forbidden item-not-found not-acceptable"},
		{"archive of no room", "set", "nothing@rooms." + domain, mam + `</query>`, "item-not-found"},
		{"archive/max", "set", "", page(`<max>-1</max>`), "bad-request"},
		{"archive/max word", "set", "", page(`<max>all</max>`), "bad-request"},
		{"archive/max overflow", "set", "", page(`<max>99999999999999999999</max>`), "bad-request"},
		{"archive/after", "set", "", page(`<after>nonsense</after>`), "item-not-found"},
		{"archive/before", "set", "", page(`<before>nonsense</before>`), "item-not-found"},
		{"archive/index", "set", "", page(`<index>7</index>`), "feature-not-implemented"},
		{"archive/start", "set", "", form("start", "yesterday"), "bad-request"},
		{"archive/with", "set", "", form("with", "@@@"), "bad-request jid-malformed"},
		{"archive/field", "set", "", form("nonsense", "x"), "feature-not-implemented"},
		{"archive/ids", "set", "", form("ids", "nonsense"), "item-not-found"},
		{"room/affiliation", "set", rooms, muc + `admin'><item jid='xavi@` + domain + `' affiliation='owner'/></query>`, "forbidden not-allowed item-not-found not-acceptable"},
		{"room/kick", "set", garden, muc + `admin'><item nick='xena' role='none'/></query>`, "forbidden not-allowed not-acceptable"},
		{"room/ban list", "get", garden, muc + `admin'><item affiliation='outcast'/></query>`, "forbidden not-allowed"},
		{"room/destroy", "set", garden, muc + `owner'><destroy/></query>`, "forbidden not-allowed"},
		{"room/configuration", "get", garden, muc + `owner'/>`, "forbidden not-allowed"},
		{"room/nonsense", "set", garden, muc + `admin'><item affiliation='king' jid='xavi@` + domain + `'/></query>`, "bad-request forbidden not-allowed"},
		{"room/ping of one who is not there", "get", garden + "/nobody", `<ping xmlns='urn:xmpp:ping'/>`, "not-acceptable item-not-found"},
		{"upload/huge", "get", "upload." + domain, `<request xmlns='urn:xmpp:http:upload:0' filename='x' size='99999999999'/>`, "not-acceptable"},
		{"upload/negative", "get", "upload." + domain, `<request xmlns='urn:xmpp:http:upload:0' filename='x' size='-1'/>`, "bad-request not-acceptable"},
		{"bind again", "set", "", `<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>`, "not-allowed service-unavailable feature-not-implemented bad-request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := x.ask(t.Context(), c.typ, c.to, c.payload, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.condition(); got == "" || !strings.Contains(" "+c.want+" ", " "+got+" ") {
				t.Errorf("%s %q; want %s", n.attr("type"), got, c.want)
			}
			s.well(t)
		})
	}
	for _, c := range []struct{ name, stanza, want string }{
		{"says without joining", `<message xmlns='jabber:client' id='m' to='` + garden + `' type='groupchat'><body>intruder</body></message>`, "not-acceptable"},
		{"says to a room that is closed", `<message xmlns='jabber:client' id='m' to='` + rooms + `' type='groupchat'><body>intruder</body></message>`, "not-acceptable item-not-found forbidden"},
		{"changes the subject", `<message xmlns='jabber:client' id='m' to='` + garden + `' type='groupchat'><subject>intruder</subject></message>`, "not-acceptable"},
		{"invites", `<message xmlns='jabber:client' id='m' to='` + rooms + `'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='xavi@` + domain + `'/></x></message>`, "not-acceptable item-not-found forbidden"},
		{"enters a closed room", `<presence xmlns='jabber:client' id='m' to='` + rooms + `/x'><x xmlns='http://jabber.org/protocol/muc'/></presence>`, "registration-required forbidden item-not-found"},
		{"enters without a nick", `<presence xmlns='jabber:client' id='m' to='` + garden + `'><x xmlns='http://jabber.org/protocol/muc'/></presence>`, "jid-malformed"},
		{"takes a nick", `<presence xmlns='jabber:client' id='m' to='` + garden + `/xena'><x xmlns='http://jabber.org/protocol/muc'/></presence>`, "conflict"},
		{"writes to nobody", `<message xmlns='jabber:client' id='m' to='nobody@` + domain + `' type='chat'><body>x</body></message>`, "service-unavailable item-not-found"},
		{"writes to a bad address", `<message xmlns='jabber:client' id='m' to='a b@@c' type='chat'><body>x</body></message>`, "jid-malformed"},
		{"groupchat to a person", `<message xmlns='jabber:client' id='m' to='` + mona + `' type='groupchat'><body>x</body></message>`, "service-unavailable bad-request"},
		{"corrects another's", `<message xmlns='jabber:client' id='m' to='` + garden + `' type='groupchat'><body>x</body><replace xmlns='urn:xmpp:message-correct:0' id='` + s.event + `'/></message>`, "not-acceptable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := x.put(t.Context(), "%s", c.stanza); err != nil {
				t.Fatal(err)
			}
			n, err := x.until(func(n *node) bool { return n.attr("id") == "m" })
			if err != nil {
				t.Fatal(err)
			}
			if got := n.condition(); n.attr("type") != "error" || !strings.Contains(" "+c.want+" ", " "+got+" ") {
				t.Errorf("%s %q; want %s", n.attr("type"), got, c.want)
			}
			s.well(t)
		})
	}
	lines, err := s.mona.history(t.Context(), s.open, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.body == "intruder" {
			t.Error("one who is not in the room has said something in it")
		}
	}
}

func groups(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<group>g%d</group>", i)
	}
	return b.String()
}

// What a client says of IDs that are the server's to give, and of who it is, is not believed.
func (s *scene) forgery(t *testing.T) {
	x := s.login(t, "xavi")
	if err := x.enter(t.Context(), "forger"); err != nil {
		t.Fatal(err)
	}
	forged := `<stanza-id xmlns='` + nsSID + `' by='` + garden + `' id='forged'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='forged'/>` +
		`<delay xmlns='urn:xmpp:delay' from='` + garden + `' stamp='2001-01-01T00:00:00Z'/><x xmlns='http://jabber.org/protocol/muc#user'><status code='100'/></x>`
	if err := x.put(t.Context(), `<message xmlns='jabber:client' to='%s' type='groupchat'><body>a forgery</body>%s</message>`, garden, forged); err != nil {
		t.Fatal(err)
	}
	n, err := s.watch.until(func(n *node) bool { b := n.one(name("body")); return b != nil && b.Text == "a forgery" })
	if err != nil {
		t.Fatal(err)
	}
	if from := n.attr("from"); from != garden+"/forger" {
		t.Errorf("from %q", from)
	}
	if text := fmt.Sprintf("%+v", n); strings.Contains(text, "forged") || strings.Contains(text, "2001") {
		t.Errorf("what was forged is passed on: %s", text)
	}
	lines, err := s.watch.archive(t.Context(), garden, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.id == "forged" {
			t.Error("the archive has the forged ID")
		}
	}
	// A carbon copy that is none.
	if err := x.put(t.Context(), `<message xmlns='jabber:client' to='xena@%s/watch' type='chat'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='%s'><message xmlns='jabber:client' from='mona@%s/x'><body>not mona</body></message></forwarded></received><body>carbon</body></message>`, domain, nsForward, domain); err != nil {
		t.Fatal(err)
	}
	s.well(t)
}

// management is what stream management owes: the count is that of what is on disk, also of a stream that cannot be resumed, also after
// the server was killed; and nobody hears of another's.
func (s *scene) management(t *testing.T) {
	ctx := t.Context()
	x := s.login(t, "xavi")
	if err := x.put(ctx, `<enable xmlns='%s' resume='true'/>`, nsSM); err != nil {
		t.Fatal(err)
	}
	enabled, err := x.until(func(n *node) bool { return n.is(nsSM, "enabled") })
	if err != nil {
		t.Fatal(err)
	}
	const many = 60
	for i := range many {
		if err := x.put(ctx, `<message xmlns='jabber:client' to='xena@%s' type='chat'><body>counted %d</body></message>`, domain, i); err != nil {
			t.Fatal(err)
		}
		if i == many/2 {
			if err := x.put(ctx, `<r xmlns='%s'/>`, nsSM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := x.put(ctx, `<r xmlns='%s'/>`, nsSM); err != nil {
		t.Fatal(err)
	}
	last := -1
	for last < many { // however many answers it takes, they come without more questions
		a, err := x.until(func(n *node) bool { return n.is(nsSM, "a") })
		if err != nil {
			t.Fatal(err)
		}
		var h int
		if _, err := fmt.Sscan(a.attr("h"), &h); err != nil || h < last || h > many {
			t.Fatalf("h=%q after %d", a.attr("h"), last)
		}
		last = h
	}
	s.resumes(t, "xena", enabled.attr("id"), "item-not-found", "") // not hers
	s.resumes(t, "xavi", "nonsense", "item-not-found", "")
	x.drop()
	s.process.kill()
	s.process.start()
	s.resumes(t, "xavi", enabled.attr("id"), "item-not-found", fmt.Sprint(many))
	s.resumes(t, "xavi", enabled.attr("id"), "item-not-found", fmt.Sprint(many)) // as often as one asks
	if s.watch, err = dialXMPP(ctx, &s.target, "xena", "watch", nil); err != nil {
		t.Fatal(err)
	}
	s.t.Cleanup(s.watch.drop)
	if err := s.watch.enter(ctx, "xena"); err != nil {
		t.Fatal(err)
	}
	lines, err := s.login(t, "xavi").archive(ctx, "", "xena@"+domain)
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	for _, l := range lines {
		if strings.HasPrefix(l.body, "counted ") {
			counted++
		}
	}
	if counted != many {
		t.Errorf("%d of %d messages are there", counted, many)
	}
	s.well(t)
}

// resumes fails the test unless a resumption fails in this way.
func (s *scene) resumes(t *testing.T, who, id, condition, h string) {
	t.Helper()
	r := &resumption{id: id}
	c, err := dialXMPP(t.Context(), &s.target, who, "", r)
	if err != nil {
		t.Fatal(err)
	}
	defer c.drop()
	if r.resumed || r.answer.child(name(condition)) == nil || r.answer.attr("h") != h {
		t.Errorf("resuming %s as %s: %+v", id, who, r.answer)
	}
}

// floods are clients that ask much and read nothing. The server makes them wait.
func (s *scene) floods(t *testing.T) {
	for flood, stanza := range map[string]string{
		"IQs":       `<iq type='get' id='f' to='` + domain + `'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`,
		"archives":  `<iq type='set' id='f'><query xmlns='` + nsMAM + `'/></iq>`,
		"presence":  `<presence><status>x</status></presence>`,
		"rosters":   `<iq type='get' id='f'><query xmlns='jabber:iq:roster'/></iq>`,
		"no answer": `<message to='nobody@` + domain + `' type='chat'><body>x</body></message>`,
	} {
		t.Run(flood, func(t *testing.T) {
			var all []*stream
			for i := range 4 {
				c, err := dialXMPP(t.Context(), &s.target, "xavi", fmt.Sprintf("flood%d", i), nil)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, c)
				go func() { _, _ = io.WriteString(c.wire(), strings.Repeat(stanza, 20_000)) }() // it ends when the connection does
			}
			for range 5 {
				s.well(t)
			}
			for _, c := range all {
				c.drop()
			}
		})
	}
}

// slowStreams opens connections that never finish what they begin to say, before and after TLS; the function that it returns waits
// until the server has hung up on all of them.
func (s *scene) slowStreams(t *testing.T) (wait func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 60 {
		begin := []string{"", "<stream:stream", header, header + `<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`}[i%4]
		wg.Go(func() {
			conn, err := net.Dial("tcp", s.target.xmpp)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, begin); err != nil {
				t.Error(err)
				return
			}
			go func() {
				for pause(ctx) {
					if _, err := io.WriteString(conn, " "); err != nil {
						return
					}
				}
			}()
			_, _ = io.ReadAll(conn) // until the server hangs up
		})
	}
	return func() { wg.Wait(); cancel() }
}
