package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/client"
	"parley/media"
	"parley/store"
	"parley/store/storetest"
)

// server is the API on a real hub and store, behind HTTP.
type server struct {
	t   testing.TB
	hub *hub.Hub
	api *client.API
	url string
}

// serve starts a server whose limits do not get in a test's way, unless change
// makes them.
func serve(t testing.TB, change ...func(*client.Config)) *server {
	t.Helper()
	return serveOn(t, storetest.Open(t, storetest.SQLite(t), store.Options{}), change...)
}

// each runs a test on both databases.
func each(t *testing.T, f func(*testing.T, *server)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { f(t, serveOn(t, db)) })
}

func serveOn(t testing.TB, db *store.DB, change ...func(*client.Config)) *server {
	t.Helper()
	h := hubtest.On(t, db)
	if err := db.Migrate(context.Background(), client.Owner, client.Migrations()); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	files, err := media.Open(t.TempDir(), media.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	config := client.Config{
		BaseURL:      func(domain string) string { return "https://matrix." + domain },
		Registration: "open", RoomVersion: "12", UploadSize: 1 << 20,
		SyncFeed: func(token string) (core.Feed, error) {
			n, err := strconv.ParseInt(token, 10, 64)
			return core.Feed(n), err
		},
	}
	for _, f := range change {
		f(&config)
	}
	s := &server{t: t, hub: h, api: client.New(h, files, config, storetest.Log(t))}
	srv := httptest.NewServer(s.api)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// user is a client that has logged in; the zero token is one that has not.
type user struct {
	*server
	token, id, device string
}

type object = map[string]any

// answer is what came back.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   []byte
	object object
}

func (s *server) nobody() *user { return &user{server: s} }

// raw sends bytes.
func (u *user) raw(method, path string, body io.Reader, header ...string) *answer {
	u.t.Helper()
	req, err := http.NewRequest(method, u.url+path, body)
	if err != nil {
		u.t.Fatal(err)
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	a := &answer{t: u.t, what: method + " " + path, status: resp.StatusCode, header: resp.Header, body: b}
	_ = json.Unmarshal(b, &a.object) // what is not an object stays in body
	return a
}

// do sends an object, or nothing for nil.
func (u *user) do(method, path string, body any) *answer {
	u.t.Helper()
	if body == nil {
		return u.raw(method, path, nil)
	}
	b, err := json.Marshal(body)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.raw(method, path, bytes.NewReader(b))
}

const v3 = "/_matrix/client/v3"

func (u *user) get(path string) *answer            { u.t.Helper(); return u.do("GET", v3+path, nil) }
func (u *user) put(path string, body any) *answer  { u.t.Helper(); return u.do("PUT", v3+path, body) }
func (u *user) post(path string, body any) *answer { u.t.Helper(); return u.do("POST", v3+path, body) }
func (u *user) del(path string) *answer            { u.t.Helper(); return u.do("DELETE", v3+path, nil) }

// ok asserts that the request was done.
func (a *answer) ok() object {
	a.t.Helper()
	if a.status != http.StatusOK {
		a.t.Fatalf("%s: %d %s", a.what, a.status, a.body)
	}
	return a.object
}

// fails asserts an error.
func (a *answer) fails(status int, code client.Errcode) object {
	a.t.Helper()
	got, _ := a.object["errcode"].(string)
	if a.status != status || got != string(code) {
		a.t.Fatalf("%s: %d %s, want %d %s", a.what, a.status, a.body, status, code)
	}
	return a.object
}

// at is a member of an object, by its path.
func at(o object, path ...string) any {
	var v any = o
	for _, p := range path {
		m, _ := v.(object)
		v = m[p]
	}
	return v
}

// want asserts that a member of the answer has the JSON text.
func (a *answer) want(text string, path ...string) {
	a.t.Helper()
	b, err := json.Marshal(at(a.object, path...))
	if err != nil {
		a.t.Fatal(err)
	}
	if string(b) != text {
		a.t.Errorf("%s: %s is %s, want %s", a.what, strings.Join(path, "."), b, text)
	}
}

// login makes an account, if there is none, and logs a device in.
func (s *server) login(name, device string) *user {
	s.t.Helper()
	err := s.hub.CreateAccount(context.Background(), core.LocalAddress(name, hubtest.Domain), hubtest.Password)
	if err != nil && hub.CodeOf(err) != hub.Conflict {
		s.t.Fatal(err)
	}
	a := s.nobody().post("/login", object{
		"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": name},
		"password": hubtest.Password, "device_id": device,
	}).ok()
	return &user{s, a["access_token"].(string), a["user_id"].(string), a["device_id"].(string)}
}

// account is the user's address.
func (u *user) account() core.Address {
	u.t.Helper()
	a, err := u.api.Address(u.id)
	if err != nil {
		u.t.Fatal(err)
	}
	return a
}

// password is the stage that confirms with the password.
func password(u *user, session string) object {
	return object{
		"type": "m.login.password", "session": session, "password": hubtest.Password,
		"identifier": object{"type": "m.id.user", "user": u.id},
	}
}

func esc(s string) string { return url.PathEscape(s) }

// direct makes the two be in a conversation together.
func (s *server) direct(a, b *user) core.ConvID {
	s.t.Helper()
	ctx := context.Background()
	if err := s.hub.SetStrangers(ctx, b.account(), core.Deliver); err != nil {
		s.t.Fatal(err)
	}
	conv, err := s.hub.DirectWith(ctx, a.account(), b.account())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.hub.Join(ctx, hub.JoinRequest{Conv: conv, Who: b.account()}); err != nil {
		s.t.Fatal(err)
	}
	return conv
}
