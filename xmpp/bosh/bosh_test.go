package bosh_test

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // the hash that key sequences are made with
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/hub/hubtest"
	"parley/xmpp/bosh"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/websocket"
	"parley/xmpp/xmpptest"
)

// site is a whole server with its BOSH.
type site struct {
	*xmpptest.Server
	http *httptest.Server
}

func open(t testing.TB, change func(*bosh.Config)) *site {
	t.Helper()
	var streams *stream.Clients
	s := &site{Server: xmpptest.New(t, xmpptest.Streams(func(c *stream.Clients) {
		c.Settings.CloseTimeout = time.Second
		streams = c
	}))}
	mux := http.NewServeMux()
	s.http = httptest.NewServer(mux)
	log := slog.New(slog.DiscardHandler)
	cfg := bosh.Config{Streams: streams, Origin: websocket.Origin, Log: log}
	if change != nil {
		change(&cfg)
	}
	door := bosh.New(cfg)
	door.Register(mux)
	meta := websocket.New(websocket.Config{Streams: streams, Home: hubtest.Domain, Log: log,
		BaseURL: func(string) string { return s.http.URL }, Others: map[string]string{bosh.Relation: bosh.Path}})
	meta.Register(mux)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 2)
	go func() { ran <- door.Run(ctx) }()
	go func() { ran <- meta.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ran; err != nil {
				t.Error(err)
			}
		}
		s.http.Close()
	})
	return s
}

// client sends what the test says, right or wrong.
type client struct {
	t    testing.TB
	url  string
	sid  string
	rid  int64
	more string // further attributes
	got  []*element.Element
}

func (s *site) client(t testing.TB) *client {
	return &client{t: t, url: s.http.URL + bosh.Path, rid: 7_000_000}
}

// post sends one request as it is.
func (c *client) post(body string) *element.Element {
	c.t.Helper()
	res, err := http.Post(c.url, "text/xml; charset=utf-8", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %v\n%s", res.Status, err, raw)
	}
	el, err := element.Parse(raw, element.DefaultLimits)
	if err != nil || !el.Is("http://jabber.org/protocol/httpbind", "body") {
		c.t.Fatalf("%v in %s", err, raw)
	}
	return el
}

// at writes a request with a request ID.
func (c *client) at(rid int64, attrs, payload string) string {
	return fmt.Sprintf("<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' rid='%d' sid='%s' %s%s>%s</body>",
		rid, c.sid, attrs, c.more, payload)
}

// send sends the next request and keeps what comes.
func (c *client) send(attrs, payload string) *element.Element {
	c.t.Helper()
	c.rid++
	el := c.post(c.at(c.rid, attrs, payload))
	c.got = append(c.got, el.Elements()...)
	return el
}

// begin makes the session.
func (c *client) begin(attrs string) *element.Element {
	c.t.Helper()
	el := c.post(fmt.Sprintf("<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' xml:lang='en' rid='%d' "+
		"to='%s' ver='1.6' xmpp:version='1.0' %s/>", c.rid, hubtest.Domain, attrs))
	c.sid = el.Attr("sid")
	return el
}

// wait polls until an element has come.
func (c *client) wait(is func(*element.Element) bool) *element.Element {
	c.t.Helper()
	for range 100 {
		for i, el := range c.got {
			if is(el) {
				c.got = append(c.got[:i], c.got[i+1:]...)
				return el
			}
		}
		if el := c.send("", ""); el.Attr("type") == "terminate" {
			c.t.Fatalf("terminated: %s", el)
		}
	}
	c.t.Fatalf("it did not come; came %v", c.got)
	return nil
}

func named(name string) func(*element.Element) bool {
	return func(el *element.Element) bool { return el.Name.Local == name }
}

func (c *client) login(name, resource string) {
	c.t.Helper()
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + hubtest.Password))
	c.send("", "<auth xmlns='"+stream.NSSASL+"' mechanism='PLAIN'>"+secret+"</auth>")
	c.wait(named("success"))
	c.send("xmpp:restart='true' to='"+hubtest.Domain+"'", "")
	c.wait(named("features"))
	c.send("", "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"+resource+
		"</resource></bind></iq>")
	c.wait(named("iq"))
}

// What one says over BOSH is heard on TCP, and the other way round, while a request is held.
func TestConversation(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	tcp := s.Connect("alice", "tcp")
	tcp.SendRaw("<presence/>")
	c := s.client(t)
	el := c.begin("wait='5' hold='1' ack='1'")
	for k, v := range map[string]string{"wait": "5", "hold": "1", "requests": "2", "inactivity": "60", "maxpause": "120",
		"from": hubtest.Domain, "ack": strconv.FormatInt(c.rid, 10)} {
		if el.Attr(k) != v {
			t.Errorf("%s is %q", k, el.Attr(k))
		}
	}
	if len(c.sid) < 16 || el.Attr("authid") == "" || el.Child(stream.NSStream, "features").Child(stream.NSSASL, "mechanisms") == nil {
		t.Fatalf("begun with %s", el)
	}
	c.login("alice", "web")
	c.send("", "<presence xmlns='jabber:client'/><message xmlns='jabber:client' to='alice@example.org/tcp' type='chat' id='m1'><body>BOSH</body></message>")
	tcp.Receive(func(el *element.Element) bool { return el.Attr("id") == "m1" && el.ChildText("", "body") == "BOSH" })
	tcp.SendRaw("<message to='alice@example.org/web' type='chat' id='m2'><body>TCP</body></message>")
	if m := c.wait(func(el *element.Element) bool { return el.Attr("id") == "m2" }); m.Name.Space != stream.NSClient {
		t.Errorf("got %s", m)
	}
	if el := c.send("type='terminate'", "<presence xmlns='jabber:client' type='unavailable'/>"); el.Attr("type") != "terminate" ||
		el.Attr("condition") != "" {
		t.Errorf("ended with %s", el)
	}
}

// A request that is sent again is answered as before, and its content is taken once; one out of the window ends the session.
//
// spec: XEP-0124 §14.3
func TestBrokenConnection(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	c := s.client(t)
	c.begin("wait='5' hold='1'")
	c.login("alice", "web")
	ping := "<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"
	first := c.send("", ping)
	again := c.post(c.at(c.rid, "", ping))
	if first.String() != again.String() || first.Child("jabber:client", "iq") == nil {
		t.Errorf("first %s\nthen %s", first, again)
	}
	// A held request is sent again while the first is still there: the new one gets the answer.
	c.rid++
	old := make(chan *element.Element, 1)
	body := c.at(c.rid, "", "")
	go func() { old <- c.post(body) }()
	c.rid++
	held := c.post(c.at(c.rid, "", ping)) // answers one of the two
	_ = held
	if el := <-old; el.Attr("type") == "terminate" {
		t.Errorf("ended with %s", el)
	}
	if el := c.post(c.at(c.rid+10, "", "")); el.Attr("type") != "terminate" || el.Attr("condition") != "item-not-found" {
		t.Errorf("got %s", el)
	}
	if el := c.post(c.at(c.rid+1, "", "")); el.Attr("condition") != "item-not-found" {
		t.Errorf("got %s", el)
	}
}

// Requests that overtake each other are put in order.
//
// spec: XEP-0124 §14.2
func TestOrder(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	c := s.client(t)
	c.begin("wait='5' hold='1'")
	c.login("alice", "web")
	message := func(id string) string {
		return "<message xmlns='jabber:client' to='alice@example.org/web' type='chat' id='" + id + "'><body>" + id + "</body></message>"
	}
	second := make(chan *element.Element, 1)
	body := c.at(c.rid+2, "", message("two"))
	go func() { second <- c.post(body) }()
	c.send("", message("one"))
	c.rid++
	c.got = append(c.got, (<-second).Elements()...)
	var got []string
	for range 2 {
		m := c.wait(named("message"))
		got = append(got, m.Attr("id"))
	}
	if got[0] != "one" || got[1] != "two" {
		t.Errorf("got %v", got)
	}
}

// Who has not the next key of the sequence is not the client.
//
// spec: XEP-0124 §15.4
func TestKeys(t *testing.T) {
	s := open(t, nil)
	keys := []string{"seed"}
	for range 3 {
		sum := sha1.Sum([]byte(keys[len(keys)-1])) //nolint:gosec // see the import
		keys = append(keys, hex.EncodeToString(sum[:]))
	}
	c := s.client(t)
	c.begin("wait='1' hold='1' newkey='" + keys[3] + "'")
	if el := c.send("key='"+keys[2]+"'", ""); el.Attr("type") != "" {
		t.Fatalf("got %s", el)
	}
	if el := c.send("key='"+keys[0]+"'", ""); el.Attr("condition") != "item-not-found" {
		t.Errorf("got %s", el)
	}
}

// A pause has what is held answered; when it is over, or when a client without one has gone, its session is forgotten.
//
// spec: XEP-0124 §10
func TestInactivity(t *testing.T) {
	s := open(t, func(c *bosh.Config) { c.Inactivity = 100 * time.Millisecond })
	c := s.client(t)
	c.begin("wait='30' hold='1'")
	if el := c.send("pause='60'", ""); el.Attr("type") != "" || len(el.Elements()) != 0 {
		t.Fatalf("got %s", el)
	}
	time.Sleep(300 * time.Millisecond) // longer than it may be silent without the pause
	if el := c.send("pause='1'", ""); el.Attr("type") != "" {
		t.Fatalf("got %s", el)
	}
	time.Sleep(1500 * time.Millisecond)
	if el := c.send("", ""); el.Attr("condition") != "item-not-found" {
		t.Errorf("got %s", el)
	}
}

// What is wrong is refused in the terms of the binding, and does not reach a stream.
func TestRefusals(t *testing.T) {
	s := open(t, func(c *bosh.Config) { c.SessionsPerIP = 3 })
	c := s.client(t)
	for body, condition := range map[string]string{
		"":        "bad-request",
		"<body/>": "bad-request",
		"<!DOCTYPE a [<!ENTITY b 'c'>]><body>&b;</body>":                                                        "bad-request",
		"<body xmlns='http://jabber.org/protocol/httpbind' rid='1'/>":                                           "improper-addressing",
		"<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='other.example'/>":                        "host-unknown",
		"<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='x'/>":                                   "item-not-found",
		"<body xmlns='http://jabber.org/protocol/httpbind' rid='99007199254740991' sid='x'/>":                   "bad-request",
		"<body xmlns='http://jabber.org/protocol/httpbind' rid='1'>" + strings.Repeat("a", 300<<10) + "</body>": "policy-violation",
	} {
		if el := c.post(body); el.Attr("type") != "terminate" || el.Attr("condition") != condition {
			t.Errorf("%.80s: %s", body, el)
		}
	}
	c.begin("wait='5' hold='1'")
	if el := c.send("", "<message xmlns='jabber:client'/>"); el.Attr("condition") != "remote-stream-error" ||
		el.Child(stream.NSStream, "error").Child("urn:ietf:params:xml:ns:xmpp-streams", "not-authorized") == nil {
		t.Errorf("got %s", el)
	}
	var last int
	for range 3 {
		res, err := http.Post(c.url, "text/xml", strings.NewReader("<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='"+hubtest.Domain+"'/>"))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		last = res.StatusCode
	}
	if last != http.StatusServiceUnavailable {
		t.Errorf("a session too many: %d", last)
	}
	for method, status := range map[string]int{http.MethodGet: 405, http.MethodOptions: 204} {
		req, _ := http.NewRequest(method, c.url, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != status || res.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %v %v", method, res.Status, res.Header)
		}
	}
}

// TestStanza lets a library that web clients are made of log in and talk.
func TestStanza(t *testing.T) {
	dir := filepath.Join("..", "websocket", "testdata", "js")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // nothing takes as long but a registry that does not answer
	defer cancel()
	run := func(name string, args ...string) []byte {
		t.Helper()
		var errs bytes.Buffer
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Stderr = dir, &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s (Node.js 20 with npm is needed): %v\n%s%s", name, err, out, errs.String())
		}
		return out
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "stanza", "package.json")); err != nil {
		run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	}
	s := open(t, nil)
	s.Account("alice")
	s.Account("bob")
	var got struct {
		From, Body, Answer, JID string
		Ordered                 bool
	}
	if err := json.Unmarshal(run("node", "bosh.mjs", s.http.URL, hubtest.Domain, hubtest.Password), &got); err != nil {
		t.Fatal(err)
	}
	if got.From != "alice@example.org/web" || got.JID != "bob@example.org/web" || got.Body != "hello <over> BOSH ☎" ||
		got.Answer != "heard you" || !got.Ordered {
		t.Errorf("got %+v", got)
	}
}
