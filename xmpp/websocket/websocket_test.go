package websocket_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ws "github.com/coder/websocket"

	"parley/hub/hubtest"
	"parley/xmpp/stream"
	"parley/xmpp/websocket"
)

func TestOffer(t *testing.T) {
	s := open(t, nil)
	c := s.dial(t)
	f := c.open()
	var offered []string
	for _, m := range f.Child(stream.NSSASL, "mechanisms").Elements() {
		offered = append(offered, m.Text())
	}
	// There is no TLS that the stream could be bound to, nor any to begin.
	//
	// spec: RFC 7395 §3.9
	if got := strings.Join(offered, " "); got != "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN" ||
		f.Child(stream.NSTLS, "starttls") != nil || f.Child("urn:xmpp:sasl-cb:0", "sasl-channel-binding") != nil {
		t.Errorf("offered %s in %s", got, f)
	}
	c.send("<starttls xmlns='%s'/>", stream.NSTLS)
	c.wantError(stream.PolicyViolation)
}

// What one says on a WebSocket is heard on TCP, and the other way round.
func TestConversation(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	c := s.dial(t)
	if f := c.login("alice"); f.Child("urn:xmpp:sm:3", "sm") == nil {
		t.Fatalf("features %s", f)
	}
	if jid := c.bind("web"); jid != "alice@example.org/web" {
		t.Fatalf("bound %s", jid)
	}
	bob := s.Connect("bob", "tcp")
	bob.SendRaw("<presence to='alice@example.org' type='subscribe'/>")
	c.send("<presence xmlns='jabber:client'/>")
	c.wait("presence", "type", "subscribe")
	c.send("<presence xmlns='jabber:client' to='bob@example.org' type='subscribed'/>")
	c.send("<presence xmlns='jabber:client' to='bob@example.org' type='subscribe'/>")
	bob.SendRaw("<presence/><presence to='alice@example.org' type='subscribed'/>")
	bob.Sync()
	c.wait("presence", "type", "subscribed")
	bob.SendRaw("<message to='alice@example.org' type='chat' id='m1'><body>über &lt;TCP&gt;</body></message>")
	if m := c.wait("message", "id", "m1"); m.ChildText("", "body") != "über <TCP>" || m.Name.Space != stream.NSClient {
		t.Errorf("got %s", m)
	}
	c.send("<message xmlns='jabber:client' to='bob@example.org' type='chat' id='m2'><body>über WebSocket</body></message>")
	c.send("<close %s/>", framing)
	if el := c.wait("close"); !el.Is(stream.NSFraming, "close") {
		t.Errorf("got %s", el)
	}
	c.wantEnd()
}

// A WebSocket that ends without <close/> leaves a session that can be resumed, on another one.
//
// spec: RFC 7395 §3.6
func TestResumption(t *testing.T) {
	for name, end := range map[string]func(*client){
		"connection lost":  func(c *client) { _ = c.c.CloseNow() },
		"WebSocket closed": func(c *client) { _ = c.c.Close(ws.StatusGoingAway, "tab closed") },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil)
			s.Account("alice")
			c := s.dial(t)
			c.login("alice")
			c.bind("web")
			c.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
			id := c.wait("enabled").Attr("id")
			c.send("<iq xmlns='jabber:client' type='get' id='r' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
			c.wait("iq", "id", "r")
			end(c)

			c = s.dial(t)
			c.login("alice")
			c.send("<resume xmlns='urn:xmpp:sm:3' h='0' previd='%s'/>", id)
			if el := c.wait("resumed"); el.Attr("h") != "1" || el.Attr("previd") != id {
				t.Errorf("got %s", el)
			}
			c.wait("iq", "id", "r") // which was not acknowledged
		})
	}
}

// When the server stops, clients are told, and nobody comes in any more.
func TestStop(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	waiting, c := s.dial(t), s.dial(t)
	waiting.open()
	c.login("alice")
	c.bind("web")
	s.end()
	c.wantError(stream.SystemShutdown)
	if _, b, err := waiting.c.Read(waiting.ctx); err == nil {
		t.Errorf("who had not authenticated got %s", b)
	}
	_, res, err := ws.Dial(c.ctx, s.url(), &ws.DialOptions{Subprotocols: []string{stream.Subprotocol}})
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end: %v %v", res, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	s := open(t, nil)
	handshake := func(change func(*http.Request)) *http.Request {
		r, err := http.NewRequest(http.MethodGet, s.http.URL+websocket.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "xmpp"} {
			r.Header.Set(k, v)
		}
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"good":                     {func(*http.Request) {}, http.StatusSwitchingProtocols},
		"among others":             {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "chat, xmpp") }, http.StatusSwitchingProtocols},
		"no subprotocol":           {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Protocol") }, http.StatusBadRequest},
		"other subprotocol":        {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "xmpp2") }, http.StatusBadRequest},
		"not a WebSocket":          {func(r *http.Request) { r.Header.Del("Upgrade") }, http.StatusUpgradeRequired},
		"old version":              {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, http.StatusBadRequest},
		"bad key":                  {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "x") }, http.StatusBadRequest},
		"body":                     {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(bytes.NewReader([]byte("x"))), 1 }, http.StatusBadRequest},
		"proxied, in the clear":    {func(r *http.Request) { proxied(r, "192.0.2.1", "http") }, http.StatusForbidden},
		"proxied, over TLS":        {func(r *http.Request) { proxied(r, "192.0.2.1", "https") }, http.StatusSwitchingProtocols},
		"proxied, on this host":    {func(r *http.Request) { proxied(r, "127.0.0.1", "http") }, http.StatusSwitchingProtocols},
		"proxied, no more is said": {func(r *http.Request) { proxied(r, "192.0.2.1", "") }, http.StatusSwitchingProtocols},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := http.DefaultTransport.RoundTrip(handshake(c.change))
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("status %d, want %d", res.StatusCode, c.want)
			}
		})
	}
}

func proxied(r *http.Request, addr, proto string) {
	r.Header.Set("X-Forwarded-For", "203.0.113.9, "+addr)
	if proto != "" {
		r.Header.Set("X-Forwarded-Proto", proto)
	}
}

// Without TLS nobody but this machine may connect.
func TestPlainFromElsewhere(t *testing.T) {
	door := websocket.New(websocket.Config{Streams: &stream.Clients{}, Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	door.Register(mux)
	r := httptest.NewRequest(http.MethodGet, websocket.Path, nil)
	r.RemoteAddr = "192.0.2.1:1234"
	r.Header.Set("X-Forwarded-For", "127.0.0.1") // is not believed
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestHostMeta(t *testing.T) {
	bases := map[string]string{"example.org": "https://chat.example.org:8448", "localhost": "http://localhost:8008", "example.net": "http://example.net"}
	door := websocket.New(websocket.Config{Home: "example.org", Log: slog.New(slog.DiscardHandler),
		Streams: &stream.Clients{Hosted: func(d string) bool { return bases[d] != "" }},
		BaseURL: func(d string) string { return bases[d] }})
	mux := http.NewServeMux()
	door.Register(mux)
	get := func(method, host, path string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
		r.Host = host
		mux.ServeHTTP(w, r)
		if w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s: no CORS", method, path)
		}
		return w
	}
	for host, want := range map[string]string{
		"example.org":      "wss://chat.example.org:8448/_parley/xmpp-websocket",
		"Example.ORG:443":  "wss://chat.example.org:8448/_parley/xmpp-websocket",
		"chat.example.org": "wss://chat.example.org:8448/_parley/xmpp-websocket",
		"localhost:8008":   "ws://localhost:8008/_parley/xmpp-websocket",
		"example.net":      "", // there is no TLS, and so no link
	} {
		w := get(http.MethodGet, host, "/.well-known/host-meta")
		var x struct {
			XMLName xml.Name `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD"`
			Links   []struct {
				Rel  string `xml:"rel,attr"`
				Href string `xml:"href,attr"`
			} `xml:"Link"`
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &x); err != nil || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/xrd+xml") {
			t.Fatalf("%v: %s %v", err, w.Body, w.Header())
		}
		var j struct {
			Links []struct{ Rel, Href string } `json:"links"`
		}
		w = get(http.MethodGet, host, "/.well-known/host-meta.json")
		if err := json.Unmarshal(w.Body.Bytes(), &j); err != nil || w.Header().Get("Content-Type") != "application/json" || j.Links == nil {
			t.Fatalf("%v: %s %v", err, w.Body, w.Header())
		}
		if want == "" {
			if len(x.Links) != 0 || len(j.Links) != 0 {
				t.Errorf("%s: %v %v", host, x, j)
			}
			continue
		}
		if len(x.Links) != 1 || x.Links[0].Href != want || x.Links[0].Rel != "urn:xmpp:alt-connections:websocket" {
			t.Errorf("%s: %v, want %s", host, x, want)
		}
		if len(j.Links) != 1 || j.Links[0].Href != want || j.Links[0].Rel != "urn:xmpp:alt-connections:websocket" {
			t.Errorf("%s: %v, want %s", host, j, want)
		}
	}
	if w := get(http.MethodOptions, "example.org", "/.well-known/host-meta"); w.Code != http.StatusNoContent {
		t.Errorf("OPTIONS: %d", w.Code)
	}
	if w := get(http.MethodPost, "example.org", "/.well-known/host-meta"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// SASL2 and Bind 2 on a WebSocket: no new <open/> after authentication, and tokens without channel binding only.
func TestSASL2(t *testing.T) {
	s := open(t, nil)
	s.Account("alice")
	c := s.dial(t)
	f := c.open()
	var mechanisms []string
	for _, m := range f.Child(stream.NSSASL2, "authentication").Child("", "inline").Child("urn:xmpp:fast:0", "fast").ChildrenNamed("", "mechanism") {
		mechanisms = append(mechanisms, m.Text())
	}
	if len(mechanisms) != 1 || mechanisms[0] != "HT-SHA-256-NONE" {
		t.Errorf("tokens for %q", mechanisms)
	}
	c.send("<authenticate xmlns='%s' mechanism='PLAIN'><initial-response>%s</initial-response><user-agent id='d4565fa7'/>"+
		"<bind xmlns='urn:xmpp:bind:0'><tag>web</tag></bind><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/></authenticate>",
		stream.NSSASL2, base64.StdEncoding.EncodeToString([]byte("\x00alice\x00"+hubtest.Password)))
	ok := c.wait("success")
	if ok.Child("urn:xmpp:bind:0", "bound") == nil || ok.Child("urn:xmpp:fast:0", "token").Attr("token") == "" ||
		!strings.HasPrefix(ok.ChildText("", "authorization-identifier"), "alice@example.org/web/") {
		t.Fatalf("got %s", ok)
	}
	c.wait("features")
	c.send("<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.wait("iq", "id", "p", "type", "result")
}
