// Package xmpptest is for tests of the XMPP server with clients in the same process: a server on the loopback interface, clients that
// speak real streams over TLS, and scripts in which a conversation reads as one:
//
//	alice connects
//	bob connects
//	alice sends:
//	  <message to='bob@example.org' type='chat'><body>hello</body></message>
//	bob receives:
//	  <message from='alice@example.org/*' type='chat'><body>hello</body></message>
//
// See [Server.Run] for the language.
package xmpptest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"

	"parley/certs/certstest"
	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/media"
	"parley/store"
	"parley/store/storetest"
	"parley/xmpp/c2s"
	"parley/xmpp/stream"
)

// Server is a server for tests, of the domain example.org.
type Server struct {
	Hub     *hub.Hub
	DB      *store.DB
	C2S     *c2s.Server
	Addr    string
	made    map[string]bool
	t       testing.TB
	stop    func()
	options []func(*c2s.Config)
	streams func(*stream.Clients)
	setup   func(*Server)
	around  bool
	// clients and values are those of the scripts so far.
	clients map[string]*Client
	values  map[string]string
}

// Setup adds what a test needs before the server starts: services, mirrors, carriers.
func Setup(f func(*Server)) func(*Server) { return func(s *Server) { s.setup = f } }

// With changes the configuration of the sessions.
func With(f func(*c2s.Config)) func(*Server) {
	return func(s *Server) { s.options = append(s.options, f) }
}

// Streams changes the bounds of streams and the like.
func Streams(f func(*stream.Clients)) func(*Server) { return func(s *Server) { s.streams = f } }

// On has the server use another database than a fresh SQLite one.
func On(db *store.DB) func(*Server) { return func(s *Server) { s.DB = db } }

// Around has the server serve a hub that runs already, for a test that has more than XMPP on it. Its domain is example.org.
func Around(h *hub.Hub, db *store.DB) func(*Server) {
	return func(s *Server) { s.Hub, s.DB, s.around = h, db, true }
}

// New starts a server, which ends with the test.
func New(t testing.TB, options ...func(*Server)) *Server {
	t.Helper()
	s := &Server{t: t, made: map[string]bool{}}
	for _, o := range options {
		o(s)
	}
	if s.DB == nil {
		s.DB = storetest.Open(t, storetest.SQLite(t), store.Options{})
	}
	s.Start()
	t.Cleanup(func() { s.stop() })
	return s
}

// Restart ends the server and starts another on the same database, as after a crash but for what was being written.
func (s *Server) Restart() {
	s.t.Helper()
	s.stop()
	s.Start()
}

// Start is for [New] and [Server.Restart].
func (s *Server) Start() {
	t := s.t
	t.Helper()
	if !s.around {
		s.Hub = hubtest.On(t, s.DB)
	}
	must(t, c2s.Migrate(t.Context(), s.DB))
	files, err := media.Open(t.TempDir(), media.Limits{})
	must(t, err)
	cfg := c2s.Config{Hub: s.Hub, Log: storetest.Log(t), Files: files, Base: "https://example.org", Version: "test"}
	for _, o := range s.options {
		o(&cfg)
	}
	s.C2S = c2s.New(cfg)
	if s.setup != nil {
		s.setup(s)
	}
	if !s.around {
		must(t, s.Hub.Start(t.Context()))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.Addr = ln.Addr().String()
	cert := certstest.New().Issue(t, hubtest.Domain)
	clients := &stream.Clients{
		Hosted: s.Hub.Hosts, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		Authenticator: c2s.Accounts{Hub: s.Hub}, Secret: make([]byte, 32), ScramIterations: 4096,
		Inline: s.C2S.Inline, Tokens: c2s.Tokens{Hub: s.Hub, Secret: make([]byte, 32)},
		Register: s.C2S.Register, RegisterFeatures: s.C2S.RegisterFeatures,
		Features: s.C2S.Features, Handle: s.C2S.Handle, Log: slog.New(slog.DiscardHandler),
	}
	if s.streams != nil {
		s.streams(clients)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served, ran := make(chan struct{}), make(chan struct{})
	go func() { _ = clients.ServeTLS(ctx, ln); close(served) }()
	go func() { _ = s.C2S.Run(ctx); close(ran) }()
	s.stop = func() {
		cancel()
		<-served
		<-ran
		if !s.around {
			s.Hub.Stop()
		}
		_ = files.Close()
		s.stop = func() {}
	}
}

// In is the server for another test, or for one input of a fuzz target.
func (s *Server) In(t testing.TB) *Server {
	c := *s
	c.t = t
	return &c
}

// Account returns the address of an account, which is made if there is none.
func (s *Server) Account(name string) core.Address {
	s.t.Helper()
	if !s.made[name] {
		s.made[name] = true
		return hubtest.Account(s.t, s.Hub, name)
	}
	return core.LocalAddress(name, hubtest.Domain)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
