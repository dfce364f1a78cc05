// Package component is the XMPP house's side door, for programs that serve a domain of their own: gateways to other networks, bots,
// services.
//
// A [Server] keeps which component is connected, and reads what it sends. All else is package s2s's, to which a component is another
// server of which the one stream is always open while it is there: what accounts say to the users of a gateway goes through the hub,
// so that every protocol's clients see it, and waits there while the gateway is away.
package component

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// Carrier brings stanzas on: [parley/xmpp/s2s.Carrier].
type Carrier interface {
	// Take takes a stanza of the component of a domain. An error ends the component's stream.
	Take(ctx context.Context, domain string, st *element.Element) error
	// Here is told that the component of a domain is there.
	Here(domain string)
}

// Config is what a Server is made of.
type Config struct {
	// Secrets are those of the components, by their domains, which are normalised.
	Secrets  map[string]string
	Settings stream.Settings
	Log      *slog.Logger
}

// Server has the components' streams.
type Server struct {
	cfg     Config
	carrier Carrier
	streams stream.Components

	mu    sync.Mutex
	conns map[string]*stream.Conn
}

// New makes a Server. A carrier must be attached before it serves.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, conns: map[string]*stream.Conn{}}
	// Whether a component is alive is seen when it is written to: it need say nothing by itself.
	cfg.Settings.IdleTimeout = 0
	s.streams = stream.Components{Secret: s.secret, Handle: s.handle, Settings: cfg.Settings, Log: cfg.Log}
	return s
}

// Attach tells the server who brings stanzas on. It is called once, before Serve.
func (s *Server) Attach(c Carrier) { s.carrier = c }

// Serve accepts components until ctx ends; it closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error { return s.streams.Serve(ctx, ln) }

// Has says whether a domain is a component's.
func (s *Server) Has(domain string) bool {
	_, ok := s.cfg.Secrets[domain]
	return ok
}

// Stream is the stream of the component of a domain, if it is there.
func (s *Server) Stream(domain string) (*stream.Conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.conns[domain]
	return c, ok
}

// Below lists the components whose domains are below another, which shows them to its users.
//
// spec: XEP-0030 §4.1
func (s *Server) Below(domain string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.cfg.Secrets)), func(d string) bool {
		return !strings.HasSuffix(d, "."+domain)
	})
}

func (s *Server) secret(domain string) (string, bool) {
	secret, ok := s.cfg.Secrets[domain]
	return secret, ok
}

// handle reads one component's stream. Each stanza is dealt with before the next one is read. Of two that say to be the same one the
// newer is taken: the other has most likely lost its connection without knowing.
func (s *Server) handle(ctx context.Context, c *stream.Conn) {
	domain := c.RemoteDomain()
	s.mu.Lock()
	old := s.conns[domain]
	s.conns[domain] = c
	s.mu.Unlock()
	if old != nil {
		go old.Close(stream.Errorf(stream.Conflict, "the component has connected again"))
	}
	s.cfg.Log.Info("component connected", "component", domain, "addr", c.RemoteAddr())
	s.carrier.Here(domain)
	err := s.read(ctx, c, domain)
	s.mu.Lock()
	if s.conns[domain] == c {
		delete(s.conns, domain)
	}
	s.mu.Unlock()
	s.cfg.Log.Info("component disconnected", "component", domain, "err", err)
	c.Close(err)
}

func (s *Server) read(ctx context.Context, c *stream.Conn, domain string) error {
	for {
		st, err := c.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return stream.Errorf(stream.SystemShutdown, "")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := s.carrier.Take(ctx, domain, st); err != nil {
			return err
		}
	}
}
