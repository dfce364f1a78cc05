// Package roomstest makes whole Matrix servers for clients, on a real hub and
// database, for the tests of packages rooms and sync.
package roomstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	"parley/matrix/sync"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// Server is a server for Matrix clients.
type Server struct {
	T      testing.TB
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	URL    string

	file string
	key  []byte
	http *httptest.Server
	db   *store.DB
	sync *sync.Syncer
}

// New starts a server on a fresh database.
func New(t testing.TB) *Server {
	t.Helper()
	key, _, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{T: t, file: "sqlite:" + filepath.Join(t.TempDir(), "parley.db"), key: key}
	t.Cleanup(s.stop)
	s.start()
	return s
}

// Restart stops the server and starts another one on its database. Users of
// the old one go on with [User.On].
func (s *Server) Restart() {
	s.T.Helper()
	s.stop()
	s.start()
}

func (s *Server) start() {
	s.T.Helper()
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			s.T.Helper()
			s.T.Fatal(err)
		}
	}
	db, err := store.Open(ctx, s.file, storetest.Log(s.T))
	fail(err)
	s.db = db
	s.Hub = hubtest.On(s.T, db, func(c *hub.Config) { c.Strangers = core.Hold })
	key, err := wire.ParseSigningKey(s.key)
	fail(err)
	s.Mirror, err = mirror.New(ctx, db, mirror.Config{
		Domains: []string{hubtest.Domain}, Keys: map[string]*wire.SigningKey{hubtest.Domain: key},
	})
	fail(err)
	s.Hub.AddMirror(s.Mirror)
	s.Hub.AddCarrier(Carrier{})
	fail(db.Migrate(ctx, client.Owner, client.Migrations()))
	log := storetest.Log(s.T)
	api := client.New(s.Hub, nil, client.Config{
		BaseURL: func(string) string { return s.URL }, Registration: "open", RoomVersion: "12",
		SyncFeed: rooms.Feed, CheckFilter: rooms.CheckFilter,
	}, log)
	r := rooms.New(s.Hub, s.Mirror, rooms.Config{Version: "12", Server: hubtest.Domain}, log)
	s.sync = sync.New(s.Hub, s.Mirror, r, api, log)
	api.Add(r.Routes(), s.sync.Routes())
	fail(s.Hub.Start(ctx))
	s.http = httptest.NewServer(api)
	s.URL = s.http.URL
}

func (s *Server) stop() {
	s.T.Helper()
	s.Hub.Stop()
	s.http.Close()
	s.sync.Close()
	if err := s.db.Close(); err != nil {
		s.T.Error(err)
	}
}

// Carrier is a network that takes everything and delivers nothing, so that
// people on it can be invited.
type Carrier struct{}

// Network implements [hub.Carrier].
func (Carrier) Network() core.Network { return core.XMPP }

// Capabilities implements [hub.Carrier].
func (Carrier) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }

// Deliver implements [hub.Carrier].
func (Carrier) Deliver(_ context.Context, _ string, p []hub.Delivery) []hub.Result {
	return make([]hub.Result, len(p))
}

// Whisper implements [hub.Carrier].
func (Carrier) Whisper(hub.Whisper) {}

// User is a client of an account.
type User struct {
	Server  *Server
	Address core.Address
	ID      string
	Device  string
	Token   string
	txns    int
}

// User makes an account and logs it in.
func (s *Server) User(name string) *User {
	s.T.Helper()
	hubtest.Account(s.T, s.Hub, name)
	return s.LogIn(name, strings.ToUpper(name))
}

// LogIn logs an account in on a device.
func (s *Server) LogIn(name, device string) *User {
	s.T.Helper()
	u := &User{Server: s, Address: core.LocalAddress(name, hubtest.Domain), Device: device}
	u.ID = "@" + name + ":" + hubtest.Domain
	got := u.Do("POST", "/v3/login", Object{
		"type": "m.login.password", "identifier": Object{"type": "m.id.user", "user": name},
		"password": hubtest.Password, "device_id": device,
	})
	u.Token = got.Text("access_token")
	return u
}

// Object is a JSON object.
type Object map[string]any

// Get follows a path of keys; nil where there is nothing.
func (o Object) Get(path ...string) any {
	var at any = map[string]any(o)
	for _, p := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[p]
	}
	return at
}

// Text is [Object.Get] for a string.
func (o Object) Text(path ...string) string {
	s, _ := o.Get(path...).(string)
	return s
}

// Obj is [Object.Get] for an object.
func (o Object) Obj(path ...string) Object {
	m, _ := o.Get(path...).(map[string]any)
	return m
}

// List is [Object.Get] for a list of objects.
func (o Object) List(path ...string) []Object {
	l, _ := o.Get(path...).([]any)
	var out []Object
	for _, v := range l {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// Answer is what came of a request.
type Answer struct {
	Status int
	Object
	Raw []byte
}

// Code is the error code of an answer.
func (a Answer) Code() string { return a.Text("errcode") }

// Try does a request below /_matrix/client.
func (u *User) Try(method, path string, body any) Answer {
	u.Server.T.Helper()
	for {
		a, wait := u.once(method, path, body)
		if a.Status != http.StatusTooManyRequests {
			return a
		}
		time.Sleep(wait)
	}
}

func (u *User) once(method, path string, body any) (Answer, time.Duration) {
	t := u.Server.T
	t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, u.Server.URL+"/_matrix/client"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if u.Token != "" {
		req.Header.Set("Authorization", "Bearer "+u.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return Answer{}, 0
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode}
	if a.Raw, err = io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	// Some answers are lists; those who ask for them read Raw.
	_ = json.Unmarshal(a.Raw, &a.Object)
	ms, _ := a.Get("retry_after_ms").(float64)
	return a, time.Duration(ms) * time.Millisecond
}

// Do is Try for what must be done.
func (u *User) Do(method, path string, body any) Answer {
	u.Server.T.Helper()
	a := u.Try(method, path, body)
	if a.Status != http.StatusOK {
		u.Server.T.Fatalf("%s: %s %s: %d %s", u.ID, method, path, a.Status, a.Raw)
	}
	return a
}

// Create makes a room and returns its ID.
func (u *User) Create(body Object) string {
	u.Server.T.Helper()
	return u.Do("POST", "/v3/createRoom", body).Text("room_id")
}

// Room is a path below a room.
func Room(id, format string, args ...any) string {
	for i, a := range args {
		args[i] = url.PathEscape(fmt.Sprint(a))
	}
	return "/v3/rooms/" + url.PathEscape(id) + fmt.Sprintf(format, args...)
}

// Send sends an event and returns its ID.
func (u *User) Send(room, typ string, content Object) string {
	u.Server.T.Helper()
	u.txns++
	return u.Do("PUT", Room(room, "/send/%s/%s", typ, fmt.Sprintf("txn%d", u.txns)), content).Text("event_id")
}

// Say sends a text and returns the event's ID.
func (u *User) Say(room, text string) string {
	u.Server.T.Helper()
	return u.Send(room, "m.room.message", Object{"msgtype": "m.text", "body": text})
}

// SetState sets a piece of state and returns the event's ID.
func (u *User) SetState(room, typ, key string, content Object) string {
	u.Server.T.Helper()
	return u.Do("PUT", Room(room, "/state/%s/%s", typ, key), content).Text("event_id")
}

// Join joins a room.
func (u *User) Join(room string) {
	u.Server.T.Helper()
	u.Do("POST", Room(room, "/join"), Object{})
}

// Invite invites another.
func (u *User) Invite(room string, other *User) {
	u.Server.T.Helper()
	u.Do("POST", Room(room, "/invite"), Object{"user_id": other.ID})
}

// Sync asks for what is new since a token; query may be empty.
func (u *User) Sync(since, query string) Answer {
	u.Server.T.Helper()
	q := "/v3/sync?set_presence=offline&since=" + url.QueryEscape(since)
	if query != "" {
		q += "&" + query
	}
	return u.Do("GET", q, nil)
}
