package federationtest

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/federation/directory"
	"parley/matrix/federation/incoming"
	"parley/matrix/federation/joining"
	"parley/matrix/federation/keyring"
	"parley/matrix/federation/sending"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/shared"
	"parley/matrix/sync"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// Server is one server. What it consists of is made anew by [Server.Restart].
type Server struct {
	T      testing.TB
	World  *World
	Domain string
	Key    *wire.SigningKey

	DB        *store.DB
	Hub       *hub.Hub
	Mirror    *mirror.Mirror
	Shared    *shared.Rooms
	Sender    *sending.Sender
	Directory *directory.Directory
	// Joining is the door. History, if it is set, fetches what was said before.
	Joining *joining.Joining
	History joining.History
	// Incoming takes events, fills gaps and fetches history.
	Incoming *incoming.Incoming
	Keys     *keyring.Keyring
	// Client calls other servers, API answers them.
	Client *federation.Client
	API    *federation.Server
	// Clients answers Matrix clients, at the URL of Room.
	Clients *client.API
	Rooms   *rooms.Rooms
	Room    *roomstest.Server

	file   string
	parts  []Part
	starts []func() error
	stops  []func()
	http   *httptest.Server
	sync   *sync.Syncer
	off    bool
}

func (w *World) add(domain string, parts []Part) {
	w.T.Helper()
	_, key := NewKey(w.T)
	s := &Server{
		T: w.T, World: w, Domain: domain, Key: key, parts: parts,
		file: "sqlite:" + filepath.Join(w.T.TempDir(), "parley.db"), off: true,
	}
	w.mu.Lock()
	w.servers[domain] = s
	w.mu.Unlock()
	s.start()
	w.T.Cleanup(s.Stop)
}

// OnStart has f run when the server begins, after all its parts were added.
func (s *Server) OnStart(f func() error) { s.starts = append(s.starts, f) }

// OnStop has f run when it ends, before what was added earlier ends.
func (s *Server) OnStop(f func()) { s.stops = append(s.stops, f) }

// handler answers other servers; nil while the server is stopped.
func (s *Server) handler() http.Handler {
	if s.off {
		return nil
	}
	return s.API
}

// Restart stops the server and starts another one on its database. Between is
// run while it is off.
func (s *Server) Restart(between ...func()) {
	s.T.Helper()
	s.Stop()
	for _, f := range between {
		f()
	}
	s.start()
}

func (s *Server) must(err error) {
	if err != nil {
		s.T.Helper()
		s.T.Fatal(err)
	}
}

// start builds the server as cmd/parley does.
func (s *Server) start() {
	s.T.Helper()
	ctx, log := background(), storetest.Log(s.T).With("server", s.Domain)
	keys := map[string]*wire.SigningKey{s.Domain: s.Key}
	s.starts, s.stops = nil, nil
	db, err := store.Open(ctx, s.file, log)
	s.must(err)
	s.DB = db
	s.Hub = hubtest.On(s.T, db, func(c *hub.Config) {
		c.Domains, c.Strangers, c.RetryMax = []string{s.Domain}, core.Hold, 50*time.Millisecond
	})
	s.Mirror, err = mirror.New(ctx, db, mirror.Config{Domains: []string{s.Domain}, Keys: keys})
	s.must(err)
	s.Hub.AddMirror(s.Mirror)
	s.must(keyring.Migrate(ctx, db))
	s.must(shared.Migrate(ctx, db))
	s.Client = federation.NewClient(federation.ClientConfig{
		Transport: s.World, Keys: keys, Agent: "test", Timeout: time.Minute, MaxAnswer: 16 << 20, Log: log,
	})
	s.Keys = keyring.New(keyring.Config{DB: db, Fetch: s.Client, Own: []keyring.Own{{Domain: s.Domain, Key: s.Key}}, Log: log})
	s.Sender, err = sending.New(ctx, db, sending.Config{
		Hub: s.Hub, Mirror: s.Mirror, Client: s.Client, Domains: []string{s.Domain}, Log: log,
		FirstRetry: 10 * time.Millisecond, MaxRetry: 50 * time.Millisecond, AckEvery: 10 * time.Millisecond,
	})
	s.must(err)
	s.API = federation.NewServer(federation.ServerConfig{
		Domains: []string{s.Domain}, Keys: s.Keys, Heard: s.heard, MaxBody: 1 << 20, Version: "1", Log: log,
	})
	s.Shared = shared.New(shared.Config{Hub: s.Hub, Mirror: s.Mirror, Outbox: s.Sender, Domains: []string{s.Domain}, Log: log})
	s.addClients()
	for _, p := range slices.Concat(s.parts, own()) {
		p(s)
	}
	s.must(s.Hub.Start(ctx))
	s.must(s.Sender.Start(ctx))
	for _, f := range s.starts {
		s.must(f())
	}
	s.World.mu.Lock()
	s.off = false
	s.World.mu.Unlock()
}

// heard is told of every request of another server.
func (s *Server) heard(server string) {
	s.Client.Heard(server)
	s.Sender.Heard(server)
}

// addClients adds what answers Matrix clients.
func (s *Server) addClients() {
	s.T.Helper()
	s.must(s.DB.Migrate(background(), client.Owner, client.Migrations()))
	log := storetest.Log(s.T).With("server", s.Domain)
	s.Room = &roomstest.Server{T: s.T, Hub: s.Hub, Mirror: s.Mirror}
	s.Clients = client.New(s.Hub, nil, client.Config{
		BaseURL: func(string) string { return s.Room.URL }, Registration: "open", RoomVersion: "12",
		SyncFeed: rooms.Feed, CheckFilter: rooms.CheckFilter,
	}, log)
	s.Rooms = rooms.New(s.Hub, s.Mirror, rooms.Config{Version: "12", Server: s.Domain}, log)
	s.sync = sync.New(s.Hub, s.Mirror, s.Rooms, s.Clients, log)
	s.Clients.Add(s.Rooms.Routes(), s.sync.Routes())
	s.http = httptest.NewServer(s.Clients)
	s.Room.URL = s.http.URL
}

// Stop ends the server; it does nothing at the second time.
func (s *Server) Stop() {
	s.T.Helper()
	s.World.mu.Lock()
	was := s.off
	s.off = true
	s.World.mu.Unlock()
	if was {
		return
	}
	s.Hub.Stop()
	s.http.Close()
	s.sync.Close()
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
	s.Sender.Stop()
	if err := s.DB.Close(); err != nil {
		s.T.Error(err)
	}
}

// Account makes an account.
func (s *Server) Account(name string) core.Address {
	s.T.Helper()
	a := core.LocalAddress(name, s.Domain)
	s.must(s.Hub.CreateAccount(background(), a, hubtest.Password))
	return a
}

// User makes an account and logs a Matrix client in.
func (s *Server) User(name string) *roomstest.User {
	s.T.Helper()
	s.Account(name)
	return s.LogIn(name)
}

// LogIn logs a Matrix client in.
func (s *Server) LogIn(name string) *roomstest.User {
	s.T.Helper()
	u := &roomstest.User{
		Server: s.Room, Address: core.LocalAddress(name, s.Domain), ID: "@" + name + ":" + s.Domain, Device: strings.ToUpper(name),
	}
	got := u.Do("POST", "/v3/login", roomstest.Object{
		"type": "m.login.password", "identifier": roomstest.Object{"type": "m.id.user", "user": name},
		"password": hubtest.Password, "device_id": u.Device,
	})
	u.Token = got.Text("access_token")
	return u
}

// On is the user after a restart.
func (s *Server) On(u *roomstest.User) *roomstest.User {
	again := *u
	again.Server = s.Room
	return &again
}
