// Package component is the XMPP house's side door, for programs that serve domains of their own: gateways to other networks, bots,
// services.
//
// A [Server] keeps which component is connected, and reads what it sends. All else is package s2s's, to which a component is another
// server of which the one stream is always open while it is there: what accounts say to the users of a gateway goes through the hub,
// so that every protocol's clients see it, and waits there while the gateway is away.
package component

import (
	"context"
	"crypto/tls"
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
	"parley/xmpp/translate"
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
	// Secrets are those of the components, by their domains, which are normalised. Who has authenticated with one may serve every
	// domain that has the same.
	Secrets map[string]string
	// Hosted says for which domains components may open streams on which they bind theirs, and GetCertificate picks a certificate
	// for those: see [stream.Components]. Both may be nil.
	Hosted         func(domain string) bool
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Settings       stream.Settings
	Log            *slog.Logger
}

// Server has the components' streams.
type Server struct {
	cfg     Config
	carrier Carrier
	streams stream.Components

	mu    sync.Mutex
	bound map[string]*binding // by domain
}

// binding is that a domain is served on a stream.
type binding struct {
	on   *session
	gone chan struct{} // closed at its end
}

// session is one component's stream.
type session struct {
	*stream.Conn
	domain string // for which it has authenticated
	binds  bool   // it says itself which domains it serves
}

// New makes a Server. A carrier must be attached before it serves.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, bound: map[string]*binding{}}
	// Whether a component is alive is seen when it is written to: it need say nothing by itself.
	cfg.Settings.IdleTimeout = 0
	s.streams = stream.Components{Secret: s.secret, Hosted: cfg.Hosted, GetCertificate: cfg.GetCertificate, Handle: s.handle,
		Settings: cfg.Settings, Log: cfg.Log}
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

// Stream is the stream of the component of a domain, if it is there. gone is closed when it no longer serves that domain.
func (s *Server) Stream(domain string) (c *stream.Conn, gone <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.bound[domain]
	if !ok {
		return nil, nil, false
	}
	return b.on.Conn, b.gone, true
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

// handle reads one component's stream. Each stanza is dealt with before the next one is read.
func (s *Server) handle(ctx context.Context, c *stream.Conn, binds bool) {
	ss := &session{Conn: c, domain: c.RemoteDomain(), binds: binds}
	s.cfg.Log.Info("component connected", "component", ss.domain, "addr", c.RemoteAddr())
	if !binds {
		s.serve(ss, ss.domain, nil)
	}
	err := s.read(ctx, ss)
	s.forget(ss)
	s.cfg.Log.Info("component disconnected", "component", ss.domain, "err", err)
	c.Close(err)
}

func (s *Server) read(ctx context.Context, ss *session) error {
	for {
		st, err := ss.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return stream.Errorf(stream.SystemShutdown, "")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if ss.binds && s.request(ss, st) {
			continue
		}
		from := ss.domain
		if ss.binds {
			if from = s.sender(ss, st); from == "" {
				return stream.Errorf(stream.InvalidFrom, "a component has addresses of the domains only that it has bound")
			}
		}
		if err := s.carrier.Take(ctx, from, st); err != nil {
			return err
		}
	}
}

// sender is the domain of a stanza's sender if it is bound to the stream it came on, and "" if not.
func (s *Server) sender(ss *session, st *element.Element) string {
	from, err := translate.ParseJID(st.Attr("from"))
	if err != nil || !s.serves(ss, from.Domain) {
		return ""
	}
	return from.Domain
}

func (s *Server) serves(ss *session, domain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bound[domain]
	return b != nil && b.on == ss
}

// serve notes that a domain is served on a stream, after it has sent the answer to who asked for that, if there is one: what is for the
// domain comes behind it. Of two that say to be the same component the newer is taken: the other has most likely lost its connection
// without knowing.
func (s *Server) serve(ss *session, domain string, answer *element.Element) {
	s.mu.Lock()
	var old *session
	if b := s.bound[domain]; b != nil {
		old = b.on
		s.drop(old)
	}
	if answer != nil {
		_ = ss.Send(answer) // if it fails, reading does
	}
	s.bound[domain] = &binding{on: ss, gone: make(chan struct{})}
	s.mu.Unlock()
	if old != nil {
		go old.Close(stream.Errorf(stream.Conflict, "the component has connected again"))
	}
	s.carrier.Here(domain)
}

// forget ends all that a stream serves.
func (s *Server) forget(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(ss)
}

// drop is forget with s.mu held.
func (s *Server) drop(ss *session) {
	for domain, b := range s.bound {
		if b.on == ss {
			close(b.gone)
			delete(s.bound, domain)
		}
	}
}
