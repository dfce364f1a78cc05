package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/certs/certstest"
	"parley/matrix/federation/discovery"
	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

var authority = certstest.New()

// internet is a network in which names lead to listeners.
type internet struct {
	mu        sync.Mutex
	hosts     map[string]string // HOST:PORT to a listener's address
	wellKnown map[string]string
	srv       map[string][]*net.SRV
}

func (n *internet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	to, ok := n.hosts[address]
	n.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("connection to %s refused", address)
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

func (n *internet) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if records := n.srv["_"+service+"._"+proto+"."+name]; records != nil {
		return name, records, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (n *internet) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := n.wellKnown[r.URL.Host]
	if !ok {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// peer is one server of the test.
type peer struct {
	name   string
	key    *wire.SigningKey
	client *Client
	keys   *keyring.Keyring
	api    *Server
	at     string // address of its listener
	got    chan *Request
}

// start makes a server with a certificate for certName.
func (n *internet) start(t *testing.T, name, certName string, notaries ...string) *peer {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p := &peer{name: name, key: newKey(t), got: make(chan *Request, 16)}
	db := storetest.Open(t, storetest.SQLite(t), store.Options{})
	if err := keyring.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	resolver := discovery.New(discovery.Config{SRV: n, WellKnown: &http.Client{Transport: n}, Log: log})
	transport := NewTransport(resolver, Dialer{Dial: n.dial, DialRoute: n.dial, TLS: func(string) *tls.Config {
		return &tls.Config{RootCAs: authority.Pool, MinVersion: tls.VersionTLS12}
	}})
	t.Cleanup(transport.Close)
	p.client = NewClient(ClientConfig{
		Transport: transport, Keys: map[string]*wire.SigningKey{name: p.key}, Agent: "test", Timeout: time.Minute, MaxAnswer: 1 << 20, Log: log,
	})
	p.keys = keyring.New(keyring.Config{DB: db, Fetch: p.client, Own: []keyring.Own{{Domain: name, Key: p.key}}, Notaries: notaries, Log: log})
	p.api = NewServer(ServerConfig{
		Domains: []string{name}, Keys: p.keys, Heard: p.client.Heard, MaxBody: 4096, Version: "1", Log: log,
		Refuses: func(s string) bool { return s == "refused.test" },
	})
	p.api.Add(Route{Method: "PUT", Path: "/_matrix/federation/v1/echo/{word}", Handler: func(r *Request) (any, error) {
		p.got <- r
		switch r.Var("word") {
		case "busy":
			return nil, tooMany(time.Hour)
		case "no":
			return nil, Errorf(http.StatusForbidden, "M_FORBIDDEN", "no")
		case "mistake":
			return nil, errors.New("secret reason")
		}
		return map[string]string{"from": r.Origin, "word": r.Var("word"), "host": r.HTTP.Host, "sni": r.HTTP.TLS.ServerName}, nil
	}})
	srv := httptest.NewUnstartedServer(p.api)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{*authority.Issue(t, certName)}, NextProtos: []string{"h2", "http/1.1"}}
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	p.at = srv.Listener.Addr().String()
	return p
}

func (p *peer) echo(t *testing.T, to, word string) (map[string]string, error) {
	t.Helper()
	raw, err := p.client.Do(t.Context(), Call{
		Origin: p.name, Destination: to, Method: "PUT", URI: URI(nil, "_matrix", "federation", "v1", "echo", word), Body: []byte(`{"x": "é"}`),
	})
	if err != nil {
		return nil, err
	}
	var out map[string]string
	return out, json.Unmarshal(raw, &out)
}

// TestTwoServers lets two servers find each other, one by well-known and SRV,
// the other by its plain name, and check each other's requests.
//
// spec: MX 1.19 SS §2.1
// spec: MX 1.19 SS §3.1
func TestTwoServers(t *testing.T) {
	n := &internet{
		hosts:     map[string]string{},
		wellKnown: map[string]string{"b.test": `{"m.server":"matrix.b.test"}`},
		srv:       map[string][]*net.SRV{"_matrix-fed._tcp.matrix.b.test": {{Target: "down.b.test.", Port: 1}, {Target: "box.b.test.", Port: 4433}}},
	}
	a, b := n.start(t, "a.test", "a.test"), n.start(t, "b.test", "matrix.b.test")
	n.hosts["a.test:8448"], n.hosts["box.b.test:4433"] = a.at, b.at
	for _, word := range []string{"hello", "$id/with:all@ +%?#"} {
		got, err := a.echo(t, "b.test", word)
		if err != nil || got["from"] != "a.test" || got["word"] != word || got["host"] != "matrix.b.test" || got["sni"] != "matrix.b.test" {
			t.Fatalf("%v, %v", got, err)
		}
		if r := <-b.got; r.Origin != "a.test" || r.Destination != "b.test" || !bytes.Contains(r.Body, []byte("é")) {
			t.Errorf("%+v", r)
		}
	}
	if got, err := b.echo(t, "a.test", "back"); err != nil || got["from"] != "b.test" || got["host"] != "a.test" {
		t.Fatalf("%v, %v", got, err)
	}
	for word, code := range map[string]int{"no": 403, "mistake": 500} {
		_, err := a.echo(t, "b.test", word)
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != code || strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: %v", word, err)
		}
		if !a.client.Until("b.test").IsZero() {
			t.Errorf("%s: a refusal is no reason to let a server alone", word)
		}
	}
	// One that asks to be let alone is, until it calls.
	if _, err := a.echo(t, "b.test", "busy"); err == nil {
		t.Error("no refusal")
	}
	_, err := a.echo(t, "b.test", "again")
	if e, ok := errors.AsType[*BackoffError](err); !ok || time.Until(e.Until) < 50*time.Minute {
		t.Error(err)
	}
	if _, err := b.echo(t, "a.test", "here I am"); err != nil {
		t.Error(err)
	}
	if _, err := a.echo(t, "b.test", "again"); err != nil {
		t.Error(err)
	}
}

// TestImpostors are servers that are not who they say they are.
func TestImpostors(t *testing.T) {
	n := &internet{hosts: map[string]string{}, wellKnown: map[string]string{"named.test": `{"m.server":"b.test:8448"}`}}
	a, b := n.start(t, "a.test", "a.test"), n.start(t, "b.test", "b.test")
	n.hosts["a.test:8448"], n.hosts["b.test:8448"] = a.at, b.at
	// A machine with another's certificate.
	n.hosts["c.test:8448"] = b.at
	if _, err := a.echo(t, "c.test", "x"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another's certificate: %v", err)
	}
	if _, err := a.echo(t, "c.test", "x"); err == nil || !strings.Contains(err.Error(), "not tried before") {
		t.Errorf("and at once again: %v", err)
	}
	// A server that answers with the keys of another name.
	if _, err := a.keys.Key(t.Context(), "named.test", b.key.ID(), time.Now()); !errors.Is(err, keyring.ErrUnknownKey) || !errors.Is(err, keyring.ErrAnswer) {
		t.Errorf("another's keys: %v", err)
	}
	// A request in a's name that a has not signed, and one that a signed for
	// somebody else.
	thief := newKey(t)
	for name, auth := range map[string]func() (Authorization, error){
		"another key": func() (Authorization, error) {
			return Sign(wire.Signer{Server: "a.test", Key: thief}, "b.test", "PUT", "/_matrix/federation/v1/echo/x", []byte("{}"))
		},
		"another destination": func() (Authorization, error) {
			return Sign(wire.Signer{Server: "a.test", Key: a.key}, "c.test", "PUT", "/_matrix/federation/v1/echo/x", []byte("{}"))
		},
		"none": func() (Authorization, error) { return Authorization{}, nil },
	} {
		signed, err := auth()
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("PUT", "/_matrix/federation/v1/echo/x", strings.NewReader("{}"))
		r.Header.Set("Authorization", signed.String())
		w := httptest.NewRecorder()
		b.api.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "M_UNAUTHORIZED") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if len(b.got) != 0 {
		t.Error("a handler saw a forged request")
	}
}

// TestNotaryBetweenServers: c asks b about a, which is down.
//
// spec: MX 1.19 SS §2.3.2
func TestNotaryBetweenServers(t *testing.T) {
	n := &internet{hosts: map[string]string{}}
	a, b, c := n.start(t, "a.test", "a.test"), n.start(t, "b.test", "b.test"), n.start(t, "c.test", "c.test", "b.test")
	n.hosts["a.test:8448"], n.hosts["b.test:8448"] = a.at, b.at
	if _, err := b.keys.Key(t.Context(), "a.test", a.key.ID(), time.Now()); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	delete(n.hosts, "a.test:8448")
	n.mu.Unlock()
	public, err := c.keys.Key(t.Context(), "a.test", a.key.ID(), time.Now())
	if err != nil || !public.Equal(a.key.Public()) {
		t.Errorf("%x, %v", public, err)
	}
	raw, err := c.client.Do(t.Context(), Call{Destination: "b.test", Method: "GET", URI: "/_matrix/key/v2/query/a.test?minimum_valid_until_ts=1"})
	if err != nil || !bytes.Contains(raw, []byte(a.key.PublicBase64())) {
		t.Errorf("%s, %v", raw, err)
	}
}

// TestEndpoints is what strangers get.
//
// spec: MX 1.19 SS §1.2
func TestEndpoints(t *testing.T) {
	n := &internet{hosts: map[string]string{}}
	p := n.start(t, "a.test", "a.test")
	many := map[string]any{}
	for i := range maxServers + 1 {
		many[fmt.Sprintf("s%d.test", i)] = map[string]any{}
	}
	flood, err := json.Marshal(map[string]any{"server_keys": many})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		has                string
	}{
		{"GET", "/_matrix/federation/v1/version", "", 200, `"name":"Parley"`},
		{"GET", "/_matrix/key/v2/server", "", 200, p.key.PublicBase64()},
		{"GET", "/_matrix/key/v2/query/a.test", "", 200, p.key.PublicBase64()},
		{"GET", "/_matrix/key/v2/query/gone.test", "", 200, `{"server_keys":[]}`},
		{"GET", "/_matrix/key/v2/query/refused.test", "", 200, `{"server_keys":[]}`},
		{"GET", "/_matrix/key/v2/query/a%2Fb", "", 400, "M_INVALID_PARAM"},
		{"GET", "/_matrix/key/v2/query/a.test?minimum_valid_until_ts=x", "", 400, "M_INVALID_PARAM"},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{"a.test":{"ed25519:x":{"minimum_valid_until_ts":5}}}}`, 200, p.key.PublicBase64()},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{}}`, 200, `{"server_keys":[]}`},
		{"POST", "/_matrix/key/v2/query", `{`, 400, "M_NOT_JSON"},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":[]}`, 400, "M_BAD_JSON"},
		{"POST", "/_matrix/key/v2/query", string(flood), 400, "M_INVALID_PARAM"},
		{"POST", "/_matrix/key/v2/query", strings.Repeat(" ", maxQuery+1), 413, "M_TOO_LARGE"},
		{"POST", "/_matrix/key/v2/server", "", 405, "M_UNRECOGNIZED"},
		{"GET", "/_matrix/federation/v1/nothing", "", 404, "M_UNRECOGNIZED"},
		{"GET", "/_matrix/federation/v1/../v1/version", "", 404, "M_UNRECOGNIZED"},
		{"PUT", "/_matrix/federation/v1/echo/x", strings.Repeat(" ", 4097), 413, "M_TOO_LARGE"},
		{"PUT", "/_matrix/federation/v1/echo/x", "{}", 401, "M_UNAUTHORIZED"},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.Host = "a.test"
		w := httptest.NewRecorder()
		p.api.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	// Questions about many servers are counted by server.
	delete(many, "s0.test")
	flood, err = json.Marshal(map[string]any{"server_keys": many})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/_matrix/key/v2/query", bytes.NewReader(flood))
	w := httptest.NewRecorder()
	p.api.ServeHTTP(w, r)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestBackoffDoubles(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := backoff{now: func() time.Time { return now }}
	want := firstPause
	for range 30 {
		b.failed("a.test", 0)
		b.failed("a.test", 0) // at the same time: counts once
		e, ok := errors.AsType[*BackoffError](b.check("a.test"))
		if !ok || e.Until.Sub(now) != want {
			t.Fatalf("%v, want %v", e, want)
		}
		now = e.Until
		if err := b.check("a.test"); err != nil {
			t.Error(err)
		}
		want = min(2*want, maxPause)
	}
	b.forgive("a.test")
	if b.failed("a.test", 0); b.failing["a.test"].until.Sub(now) != firstPause {
		t.Error("not forgiven")
	}
	for i := range maxFailing + 10 {
		b.failed(fmt.Sprint(i), 0)
	}
	if len(b.failing) > maxFailing {
		t.Errorf("%d remembered", len(b.failing))
	}
}
