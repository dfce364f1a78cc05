package c2s_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"parley/core"
	"parley/hub/hubtest"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/stream"
	"parley/xmpp/xmpptest"
)

const (
	sasl2 = "urn:xmpp:sasl:2"
	fast  = "urn:xmpp:fast:0"
	bind2 = "urn:xmpp:bind:0"
	nsSM  = "urn:xmpp:sm:3"
	agent = `<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>test</software></user-agent>`
)

// raw is a client that speaks for itself.
type raw struct {
	t        *testing.T
	conn     *tls.Conn
	rd       *element.Reader
	features *element.Element
}

func dialRaw(t *testing.T, s *xmpptest.Server, from string) *raw {
	t.Helper()
	//nolint:gosec // the certificate is one of the test's own
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", s.Addr,
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // no test waits so long unless it fails
	r := &raw{t: t, conn: conn, rd: element.NewReader(conn, element.DefaultLimits)}
	if from != "" {
		from = " from='" + from + "'"
	}
	r.write("<stream:stream to='example.org'%s version='1.0' xmlns='jabber:client' xmlns:stream='%s'>", from, stream.NSStream)
	if _, err := r.rd.Header(); err != nil {
		t.Fatal(err)
	}
	r.features = r.next()
	return r
}

func (r *raw) write(format string, args ...any) {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.conn, format, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) next() *element.Element {
	r.t.Helper()
	el, err := r.rd.Next()
	if err != nil {
		r.t.Fatal(err)
	}
	return el
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// plain authenticates with the password, and with what else is in the request.
func (r *raw) plain(name, password, inline string) *element.Element {
	r.t.Helper()
	r.write("<authenticate xmlns='%s' mechanism='PLAIN'><initial-response>%s</initial-response>%s%s</authenticate>",
		sasl2, b64("\x00"+name+"\x00"+password), agent, inline)
	return r.next()
}

// token authenticates with a token.
func (r *raw) token(name, token, mechanism, attrs, inline string) *element.Element {
	r.t.Helper()
	var binding []byte
	state := r.conn.ConnectionState()
	switch mechanism {
	case "HT-SHA-256-EXPR":
		b, err := scram.NewTLSExporterBinding(&state)
		if err != nil {
			r.t.Fatal(err)
		}
		binding = b.Data
	case "HT-SHA-256-ENDP":
		b, err := scram.NewTLSServerEndpointBinding(&state)
		if err != nil {
			r.t.Fatal(err)
		}
		binding = b.Data
	}
	mac := func(who string) string {
		m := hmac.New(sha256.New, []byte(token))
		m.Write([]byte(who))
		m.Write(binding)
		return string(m.Sum(nil))
	}
	r.write("<authenticate xmlns='%s' mechanism='%s'><initial-response>%s</initial-response>%s<fast xmlns='%s' %s/>%s</authenticate>",
		sasl2, mechanism, b64(name+"\x00"+mac("Initiator")), agent, fast, attrs, inline)
	el := r.next()
	if el.Is(sasl2, "success") && el.ChildText("", "additional-data") != b64(mac("Responder")) {
		r.t.Fatalf("the server does not prove to know the token: %s", el)
	}
	return el
}

func wantSuccess(t *testing.T, el *element.Element, identifier string) {
	t.Helper()
	if got := el.ChildText("", "authorization-identifier"); !el.Is(sasl2, "success") || !strings.HasPrefix(got, identifier) {
		t.Fatalf("got %s, want the success of %s", el, identifier)
	}
}

func wantFailure(t *testing.T, el *element.Element, condition string) {
	t.Helper()
	if !el.Is(sasl2, "failure") || el.Child(stream.NSSASL, condition) == nil {
		t.Fatalf("got %s, want the failure %s", el, condition)
	}
}

// One round trip logs in: a resource is bound, carbons, stream management and client state are as asked, and the archive's ends known.
func TestBind2(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("alice")
	r := dialRaw(t, s, "")
	offer := r.features.Child(sasl2, "authentication")
	for _, v := range []string{"urn:xmpp:carbons:2", "urn:xmpp:csi:0", nsSM} {
		found := false
		for _, f := range offer.Child("", "inline").Child(bind2, "bind").Child("", "inline").ChildrenNamed("", "feature") {
			found = found || f.Attr("var") == v
		}
		if !found {
			t.Errorf("%s is not offered inline: %s", v, offer)
		}
	}
	ask := `<bind xmlns='` + bind2 + `'><tag>Test</tag><enable xmlns='urn:xmpp:carbons:2'/>
		<enable xmlns='urn:xmpp:sm:3' resume='true'/><inactive xmlns='urn:xmpp:csi:0'/></bind>`
	ok := r.plain("alice", hubtest.Password, ask)
	wantSuccess(t, ok, "alice@example.org/Test/")
	bound := ok.Child(bind2, "bound")
	if bound.Child("urn:xmpp:mam:2", "metadata") == nil || bound.Child(nsSM, "enabled").Attr("id") == "" {
		t.Fatalf("bound: %s", bound)
	}
	if f := r.next(); !f.Is(stream.NSStream, "features") || f.Child("urn:ietf:params:xml:ns:xmpp-bind", "bind") != nil {
		t.Fatalf("features: %s", f)
	}
	me := ok.ChildText("", "authorization-identifier")
	if strings.Contains(me, "d4565fa7") {
		t.Errorf("the resource %s tells which installation it is", me)
	}
	// Presence waits, because the client is inactive; carbons come.
	r.write("<presence/>")
	other := s.Connect("alice", "other")
	s.Account("bob")
	other.SendRaw("<message to='bob@example.org' type='chat' id='m1'><body>hi</body></message>")
	for {
		el := r.next()
		if el.Name.Local == "presence" {
			continue // what came before the message
		}
		if el.Child("urn:xmpp:carbons:2", "sent") != nil {
			break
		}
		if el.Name.Local == "message" {
			t.Fatalf("got %s, want a carbon", el)
		}
	}
	// The same client, come back: the same resource, and the old session ends.
	again := dialRaw(t, s, "alice@example.org")
	ok = again.plain("alice", hubtest.Password, `<bind xmlns='`+bind2+`'><tag>Test</tag></bind>`)
	wantSuccess(t, ok, me)
	for {
		el, err := r.rd.Next()
		if err != nil {
			t.Fatalf("the old session ended without a word: %v", err)
		}
		if el.Is(stream.NSStream, "error") {
			if el.Child(stream.NSStreams, "conflict") == nil {
				t.Errorf("the old session ended with %s", el)
			}
			break
		}
	}
}

// A stream is resumed within the authentication; what cannot be resumed is said, and a resource is bound.
func TestInlineResumption(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("alice")
	s.Account("bob")
	r := dialRaw(t, s, "")
	ok := r.plain("alice", hubtest.Password, `<bind xmlns='`+bind2+`'><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>`)
	wantSuccess(t, ok, "alice@example.org/")
	me, id := ok.ChildText("", "authorization-identifier"), ok.Child(bind2, "bound").Child(nsSM, "enabled").Attr("id")
	r.next()
	r.write("<presence/>")
	_ = r.conn.NetConn().Close()

	r = dialRaw(t, s, "")
	ok = r.plain("alice", hubtest.Password, `<resume xmlns='urn:xmpp:sm:3' h='0' previd='`+id+`'/><bind xmlns='`+bind2+`'/>`)
	wantSuccess(t, ok, me)
	if ok.Child(nsSM, "resumed").Attr("previd") != id || ok.Child(bind2, "bound") != nil {
		t.Fatalf("got %s", ok)
	}
	r.write("<iq type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>")
	for el := r.next(); el.Attr("id") != "p1"; el = r.next() {
		if el.Is(stream.NSStream, "features") {
			t.Fatal("features follow a resumption")
		}
	}

	r = dialRaw(t, s, "")
	ok = r.plain("alice", hubtest.Password, `<resume xmlns='urn:xmpp:sm:3' h='0' previd='nothing'/><bind xmlns='`+bind2+`'/>`)
	wantSuccess(t, ok, "alice@example.org/")
	if ok.Child(nsSM, "failed") == nil || ok.Child(bind2, "bound") == nil {
		t.Fatalf("got %s", ok)
	}
}

// A token logs in until it is older than one that was used, invalidated, expired or made void by another password; for nobody else.
func TestFast(t *testing.T) {
	now := time.Now()
	s := xmpptest.New(t, xmpptest.Streams(func(c *stream.Clients) {
		tokens := c.Tokens.(c2s.Tokens)
		tokens.Now = func() time.Time { return now }
		c.Tokens = tokens
	}))
	s.Account("alice")
	s.Account("bob")
	issue := func(mechanism string) string {
		t.Helper()
		ok := dialRaw(t, s, "").plain("alice", hubtest.Password, `<request-token xmlns='`+fast+`' mechanism='`+mechanism+`'/>`)
		wantSuccess(t, ok, "alice@example.org")
		token := ok.Child(fast, "token")
		if _, err := time.Parse(time.RFC3339, token.Attr("expiry")); err != nil || len(token.Attr("token")) < 40 {
			t.Fatalf("no token: %s", ok)
		}
		return token.Attr("token")
	}
	for _, mechanism := range []string{"HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"} {
		token := issue(mechanism)
		ok := dialRaw(t, s, "alice@example.org").token("alice", token, mechanism, "count='1'", `<bind xmlns='`+bind2+`'/>`)
		wantSuccess(t, ok, "alice@example.org/")
		if ok.Child(fast, "token") != nil {
			t.Errorf("a new token was given at once: %s", ok)
		}
	}
	token := issue("HT-SHA-256-EXPR")
	try := func(who, mechanism, attrs string) *element.Element {
		t.Helper()
		return dialRaw(t, s, "").token(who, token, mechanism, attrs, "")
	}
	wantFailure(t, try("alice", "HT-SHA-256-NONE", ""), "not-authorized") // bound to its mechanism
	wantFailure(t, try("bob", "HT-SHA-256-EXPR", ""), "not-authorized")
	wantFailure(t, try("nobody", "HT-SHA-256-EXPR", ""), "not-authorized")
	wantFailure(t, try("alice", "HT-SHA-256-UNIQ", ""), "invalid-mechanism")
	wantFailure(t, try("alice", "HT-SHA-256-EXPR", "count='x'"), "malformed-request")
	wantSuccess(t, try("alice", "HT-SHA-256-EXPR", "count='7'"), "alice@example.org")
	wantFailure(t, try("alice", "HT-SHA-256-EXPR", "count='7'"), "not-authorized") // replayed
	wantSuccess(t, try("alice", "HT-SHA-256-EXPR", "count='8'"), "alice@example.org")

	// When it has grown old, there is a new one; the old one is good until that is used.
	old := token
	now = now.Add(25 * time.Hour)
	ok := try("alice", "HT-SHA-256-EXPR", "")
	wantSuccess(t, ok, "alice@example.org")
	renewed := ok.Child(fast, "token").Attr("token")
	if renewed == "" || renewed == old {
		t.Fatalf("the token was not renewed: %s", ok)
	}
	s.Restart()
	wantSuccess(t, try("alice", "HT-SHA-256-EXPR", "count='9'"), "alice@example.org")
	token = dialRaw(t, s, "").token("alice", old, "HT-SHA-256-EXPR", "", "").Child(fast, "token").Attr("token")
	wantSuccess(t, try("alice", "HT-SHA-256-EXPR", ""), "alice@example.org")
	used := token
	for _, gone := range []string{old, renewed} {
		token = gone
		wantFailure(t, try("alice", "HT-SHA-256-EXPR", ""), "not-authorized")
	}
	token = used
	wantSuccess(t, try("alice", "HT-SHA-256-EXPR", "invalidate='true'"), "alice@example.org")
	wantFailure(t, try("alice", "HT-SHA-256-EXPR", ""), "not-authorized")

	// Another password, set from wherever.
	token = issue("HT-SHA-256-NONE")
	if err := s.Hub.SetPassword(t.Context(), core.LocalAddress("alice", hubtest.Domain), "another password"); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, try("alice", "HT-SHA-256-NONE", ""), "not-authorized")
	if err := s.Hub.SetPassword(t.Context(), core.LocalAddress("alice", hubtest.Domain), hubtest.Password); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, try("alice", "HT-SHA-256-NONE", ""), "not-authorized")

	// One that expired long ago; the streams' clock is the real one.
	now = time.Now().Add(-31 * 24 * time.Hour)
	token = issue("HT-SHA-256-NONE")
	wantFailure(t, try("alice", "HT-SHA-256-NONE", ""), "credentials-expired")
}

// Failures leave the stream as it was; what is not offered is refused.
func TestSASL2(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("alice")
	r := dialRaw(t, s, "")
	wantFailure(t, r.plain("alice", "wrong password", `<bind xmlns='`+bind2+`'/>`), "not-authorized")
	r.write("<authenticate xmlns='%s' mechanism='EXTERNAL'/>", sasl2)
	wantFailure(t, r.next(), "invalid-mechanism")
	r.write("<authenticate xmlns='%s' mechanism='SCRAM-SHA-256'><initial-response>%s</initial-response></authenticate>", sasl2, b64("n,,n=alice,r=abc"))
	if el := r.next(); !el.Is(sasl2, "challenge") {
		t.Fatalf("got %s", el)
	}
	r.write("<abort xmlns='%s'/>", sasl2)
	wantFailure(t, r.next(), "aborted")
	wantSuccess(t, r.plain("alice", hubtest.Password, ""), "alice@example.org")
	if f := r.next(); f.Child("urn:ietf:params:xml:ns:xmpp-bind", "bind") == nil {
		t.Fatalf("features: %s", f)
	}
	r.write("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
	if el := r.next(); el.Attr("type") != "result" {
		t.Fatalf("got %s", el)
	}
	// The stream header said somebody else.
	wantFailure(t, dialRaw(t, s, "bob@example.org").plain("alice", hubtest.Password, ""), "invalid-authzid")
	// A task, when there is none.
	r = dialRaw(t, s, "")
	r.write("<next xmlns='%s' task='TOTP-EXAMPLE'/>", sasl2)
	if el := r.next(); !el.Is(stream.NSStream, "error") {
		t.Fatalf("got %s", el)
	}
}

// SCRAM tells the digest of what was offered, within what it proves.
func TestDowngradeProtection(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("alice")
	r := dialRaw(t, s, "")
	var mechanisms, bindings []string
	for _, m := range r.features.Child(sasl2, "authentication").ChildrenNamed("", "mechanism") {
		mechanisms = append(mechanisms, m.Text())
	}
	for _, b := range r.features.Child("urn:xmpp:sasl-cb:0", "sasl-channel-binding").ChildrenNamed("", "channel-binding") {
		bindings = append(bindings, b.Attr("type"))
	}
	want := digest(mechanisms, bindings)
	r.write("<authenticate xmlns='%s' mechanism='SCRAM-SHA-256'><initial-response>%s</initial-response></authenticate>", sasl2, b64("n,,n=alice,r=abc"))
	msg, err := base64.StdEncoding.DecodeString(r.next().Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, h, _ := strings.Cut(string(msg), ",h="); h != want {
		t.Fatalf("the challenge %s has not the digest %s", msg, want)
	}
}

// Passwords can be changed and accounts removed by their clients.
func TestPasswordAndRemoval(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("alice")
	token := dialRaw(t, s, "").plain("alice", hubtest.Password, `<request-token xmlns='`+fast+`' mechanism='HT-SHA-256-NONE'/>`).
		Child(fast, "token").Attr("token")
	s.Run(`
alice/one connects
alice/two connects
alice/one sends:
  <iq type='get' id='r0'><query xmlns='jabber:iq:register'/></iq>
alice/one receives:
  <iq type='result' id='r0'><query xmlns='jabber:iq:register'><registered/><username>alice</username></query></iq>
alice/one sends:
  <iq type='set' id='r1'><query xmlns='jabber:iq:register'><username>bob</username><password>something new</password></query></iq>
  <iq type='set' id='r2'><query xmlns='jabber:iq:register'><username>alice</username><password/></query></iq>
  <iq type='set' id='r3'><query xmlns='jabber:iq:register'><username>alice</username><password>short</password></query></iq>
  <iq type='set' id='r4' to='example.org'><query xmlns='jabber:iq:register'><username>alice</username><password>something new</password></query></iq>
alice/one receives:
  <iq type='error' id='r1'><error><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='r2'><error><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='error' id='r3'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='r4'/>
alice/two receives:
  <error xmlns='http://etherx.jabber.org/streams'><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>
`, nil)
	wantFailure(t, dialRaw(t, s, "").plain("alice", hubtest.Password, ""), "not-authorized")
	wantFailure(t, dialRaw(t, s, "").token("alice", token, "HT-SHA-256-NONE", "", ""), "not-authorized")
	ok := dialRaw(t, s, "").plain("alice", "something new", `<request-token xmlns='`+fast+`' mechanism='HT-SHA-256-NONE'/>`)
	wantSuccess(t, ok, "alice@example.org")
	s.Run(`
alice/one sends:
  <iq type='set' id='r5'><query xmlns='jabber:iq:register'><remove/><username>alice</username></query></iq>
  <iq type='set' id='r6'><query xmlns='jabber:iq:register'><remove/></query></iq>
alice/one receives:
  <iq type='error' id='r5'><error><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
  <iq type='result' id='r6'/>
  <error xmlns='http://etherx.jabber.org/streams'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>
`, nil)
	wantFailure(t, dialRaw(t, s, "").plain("alice", "something new", ""), "not-authorized")
	wantFailure(t, dialRaw(t, s, "").token("alice", ok.Child(fast, "token").Attr("token"), "HT-SHA-256-NONE", "", ""), "not-authorized")
	r := dialRaw(t, s, "")
	r.write(registration, "alice", "mine now then")
	if el := r.next(); el.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", "conflict") == nil {
		t.Fatalf("the name of a removed account: %s", el)
	}
}

const registration = "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>%s</username><password>%s</password></query></iq>"

// Where registration is open, a client makes an account and logs in on the same stream, but not many from one address.
func TestRegistration(t *testing.T) {
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.Guard = guard.New(guard.Config{Rates: map[guard.Limit]guard.Rate{guard.Registrations: {N: 3, Per: time.Hour}}})
	}))
	r := dialRaw(t, s, "")
	if r.features.Child("http://jabber.org/features/iq-register", "register") == nil {
		t.Fatalf("not offered: %s", r.features)
	}
	r.write("<iq type='get' id='f' to='example.org'><query xmlns='jabber:iq:register'/></iq>")
	if q := r.next().Child("jabber:iq:register", "query"); q.Child("", "username") == nil || q.Child("", "password") == nil {
		t.Fatalf("form: %s", q)
	}
	for _, c := range []struct{ name, password, want string }{
		{"", "correct horse", "not-acceptable"}, {"carol", "", "not-acceptable"}, {"a b", "correct horse", "not-acceptable"},
		{"admin", "correct horse", "not-acceptable"}, {"Carol", "correct horse", ""}, {"carol", "correct horse", "conflict"},
		{"dave", "correct horse", "resource-constraint"},
	} {
		r.write(registration, c.name, c.password)
		el := r.next()
		if got := el.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", c.want); c.want == "" && el.Attr("type") != "result" || c.want != "" && got == nil {
			t.Fatalf("%s %q: %s", c.name, c.password, el)
		}
	}
	wantSuccess(t, r.plain("carol", "correct horse", ""), "carol@example.org")
}

// digest is what XEP-0474 says, written once more.
func digest(mechanisms, bindings []string) string {
	join := func(s []string) string {
		s = slices.Clone(s)
		slices.Sort(s)
		return strings.Join(s, "\x1e")
	}
	sum := sha256.Sum256([]byte(join(mechanisms) + "\x1f" + join(bindings)))
	return base64.StdEncoding.EncodeToString(sum[:])
}
