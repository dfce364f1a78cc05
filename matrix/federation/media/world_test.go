package media_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/federation/keyring"
	"parley/matrix/federation/media"
	"parley/matrix/wire"
	files "parley/media"
	"parley/media/fetch"
	"parley/netguard"
	"parley/store"
	"parley/store/storetest"
)

const maxSize = 100_000

// world is some servers, by name, and what connects them.
type world struct {
	mu    sync.Mutex
	at    map[string]string
	calls []string
}

// RoundTrip implements [http.RoundTripper] for server names.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	at, ok := w.at[r.URL.Host]
	w.calls = append(w.calls, r.URL.Host+" "+r.URL.Path)
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%s cannot be reached", r.URL.Host)
	}
	r = r.Clone(r.Context())
	r.Host, r.URL.Scheme, r.URL.Host = r.URL.Host, "http", at
	return http.DefaultTransport.RoundTrip(r)
}

// called are the calls since it was last asked.
func (w *world) called() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.calls
	w.calls = nil
	return out
}

// serve puts a server up under a name.
func (w *world) serve(t *testing.T, name string, h http.Handler) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[name] = srv.Listener.Addr().String()
}

// house is one server of ours.
type house struct {
	t      *testing.T
	hub    *hub.Hub
	api    *client.API
	client *federation.Client
	tokens map[string]string
	url    string
}

// build puts up a server with an account alice.
func (w *world) build(t *testing.T, domain string) *house {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db := storetest.Open(t, storetest.SQLite(t), store.Options{})
	h := &house{t: t, tokens: map[string]string{}}
	h.hub = hubtest.On(t, db, func(c *hub.Config) { c.Domains = []string{domain} })
	must(db.Migrate(t.Context(), client.Owner, client.Migrations()))
	must(keyring.Migrate(t.Context(), db))
	must(h.hub.Start(t.Context()))
	disk, err := files.Open(t.TempDir(), files.Limits{})
	must(err)
	t.Cleanup(func() { disk.Close() })
	_, key, err := wire.NewSigningKey()
	must(err)
	log := storetest.Log(t)
	h.client = federation.NewClient(federation.ClientConfig{
		Transport: w, Keys: map[string]*wire.SigningKey{domain: key}, Agent: "test", Timeout: time.Minute, MaxAnswer: 1 << 20, Log: log,
	})
	guard, err := netguard.New(netguard.Options{})
	must(err)
	remote := fetch.New(fetch.Config{Hub: h.hub, Files: disk, MaxSize: maxSize, Timeout: time.Minute, Log: log})
	t.Cleanup(remote.Close)
	web := fetch.Web{Client: guard.Client(netguard.ClientOptions{Timeout: time.Minute, MaxBytes: maxSize})}
	remote.Add("https", web, false)
	remote.Add("mxc", media.NewSource(media.SourceConfig{Client: h.client, Origin: domain, Web: web, MaxSize: maxSize, Timeout: time.Minute}), true)
	h.api = client.New(h.hub, disk, client.Config{
		BaseURL: func(string) string { return h.url }, Registration: "open", RoomVersion: "12", UploadSize: 1 << 20, Remote: remote,
	}, log)
	srv := httptest.NewServer(h.api)
	t.Cleanup(srv.Close)
	h.url = srv.URL
	keys := keyring.New(keyring.Config{DB: db, Fetch: h.client, Own: []keyring.Own{{Domain: domain, Key: key}}, Log: log})
	others := federation.NewServer(federation.ServerConfig{Domains: []string{domain}, Keys: keys, MaxBody: 1 << 20, Version: "1", Log: log})
	others.Add(media.Routes(h.api)...)
	w.serve(t, domain, others)
	must(h.hub.CreateAccount(t.Context(), core.LocalAddress("alice", domain), hubtest.Password))
	h.logIn("alice")
	return h
}

func (h *house) logIn(name string) {
	h.t.Helper()
	a := h.do("", "POST", "/_matrix/client/v3/login", strings.NewReader(
		`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"`+name+`"},"password":"`+hubtest.Password+`"}`))
	_, rest, ok := strings.Cut(a.body, `"access_token":"`)
	if h.tokens[name], _, _ = strings.Cut(rest, `"`); !ok {
		h.t.Fatal(a)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %.200s", a.status, a.body) }

// do makes a request as somebody, "" for one who has not logged in.
func (h *house) do(who, method, path string, body io.Reader) answer {
	h.t.Helper()
	req, err := http.NewRequest(method, h.url+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+h.tokens[who])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// download asks for a file, "server/id", as alice.
func (h *house) download(file string) answer {
	h.t.Helper()
	return h.do("alice", "GET", "/_matrix/client/v1/media/download/"+file, nil)
}

// upload puts a file up as alice, and returns "server/id".
func (h *house) upload(content, name string) string {
	h.t.Helper()
	a := h.do("alice", "POST", "/_matrix/media/v3/upload?filename="+url.QueryEscape(name), strings.NewReader(content))
	_, rest, ok := strings.Cut(a.body, "mxc://")
	file, _, _ := strings.Cut(rest, `"`)
	if !ok {
		h.t.Fatal(a)
	}
	return file
}

// ask calls another server for one of its files.
func (h *house) ask(origin, dest, path string) (http.Header, string, error) {
	header, body, err := h.client.Stream(context.Background(), federation.Call{
		Origin: origin, Destination: dest, Method: "GET", URI: "/_matrix/federation/v1/media/" + path, Insist: true,
	})
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return header, string(b), err
}
