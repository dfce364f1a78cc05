// Package bosh is the door for XMPP clients that have only HTTP: streams in the bodies of requests, of which one is always open for
// what the server has to say.
//
// A [Server] takes the requests of all clients and finds their sessions. A session brings what the client sends, in the order of its
// request IDs, to a [stream.Exchange], which package stream treats as any other stream, and answers requests with what it fetches from
// there. Answers are kept until the client can no longer ask for them again, so that a connection that broke loses nothing.
package bosh

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// Path is where clients send their requests.
const Path = "/_parley/http-bind"

// Relation is the type of the link to it in host-meta.
//
// spec: XEP-0156 §2.1
const Relation = "urn:xmpp:alt-connections:xbosh"

// The namespaces of the wrapper.
const (
	nsBind  = "http://jabber.org/protocol/httpbind" // XEP-0124
	nsXBosh = "urn:xmpp:xbosh"                      // XEP-0206
)

// Config is what a Server is made of. Zero durations and numbers get the defaults named with them.
type Config struct {
	// Streams serves the streams.
	Streams *stream.Clients
	// Origin says where a client is, and whether nobody can read along between it and us.
	Origin func(*http.Request) (net.Addr, bool)
	// Log gets what operators want to know. It never sees content.
	Log *slog.Logger
	// Wait is the longest that a request is held: 60 s. Inactivity is how long a client may be without a request before it is taken
	// for lost: 60 s. Pause is the longest that it may announce to be so: 120 s.
	Wait, Inactivity, Pause time.Duration
	// Sessions and SessionsPerIP are how many there may be, in all and from one IPv4 address or IPv6 /64: 10,000 and 100.
	Sessions, SessionsPerIP int
}

// Server serves the sessions of all clients.
type Server struct {
	cfg    Config
	ctx    context.Context // of the streams
	cancel context.CancelFunc

	mu       sync.Mutex
	ended    bool
	sessions map[string]*session
	perIP    map[netip.Prefix]int
	streams  sync.WaitGroup // grows only while ended is false
}

// New makes a Server. Its sessions last until [Server.Run] ends.
func New(cfg Config) *Server {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&cfg.Wait, time.Minute)
	set(&cfg.Inactivity, time.Minute)
	set(&cfg.Pause, 2*time.Minute)
	if cfg.Sessions == 0 {
		cfg.Sessions = 10_000
	}
	if cfg.SessionsPerIP == 0 {
		cfg.SessionsPerIP = 100
	}
	s := &Server{cfg: cfg, sessions: map[string]*session{}, perIP: map[netip.Prefix]int{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Register adds the path to the mux of the HTTP listeners.
func (s *Server) Register(mux *http.ServeMux) { mux.Handle(Path, s) }

// Run waits until ctx ends, and then for the end of all streams.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cancel()
	s.streams.Wait()
	return nil
}

// ServeHTTP takes one request. Clients of any site may send one: no cookie or other authority comes with it.
//
// spec: XEP-0124 §5
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodPost:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Content-Type")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", "POST, OPTIONS")
		http.Error(w, "this is for XMPP clients, by XEP-0124", http.StatusMethodNotAllowed)
		return
	}
	addr, private := s.cfg.Origin(r)
	if !private {
		http.Error(w, "passwords go over https:// only", http.StatusForbidden)
		return
	}
	answer, err := s.take(r, addr)
	switch {
	case errors.Is(err, errGone):
		panic(http.ErrAbortHandler) // nobody is there to be answered
	case errors.Is(err, stream.ErrTooMany):
		h.Set("Retry-After", "30")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		s.cfg.Log.Debug("BOSH request refused", "addr", addr, "err", err)
		answer = terminated(err, nil)
	}
	h.Set("Content-Type", "text/xml; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer) // if it fails, the client asks for it again
}

// errGone says that the client has given up a request.
var errGone = errors.New("the client has gone")

// take finds or makes the session of a request, and returns the answer.
func (s *Server) take(r *http.Request, addr net.Addr) ([]byte, error) {
	limits := element.DefaultLimits
	if set := s.cfg.Streams.Settings.Limits; set.Bytes > 0 {
		limits = set
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, int64(limits.Bytes)+1))
	if err != nil {
		return nil, errGone
	}
	if len(raw) > limits.Bytes {
		return nil, policy
	}
	// Until there is a session, and until it has authenticated, a body may be as large as one element may.
	sid := sidOf(raw)
	ses := s.find(sid)
	switch {
	case ses != nil:
		limits = wider(ses.ex.Limits())
	default:
		limits = wider(element.NegotiationLimits)
	}
	q, err := parse(raw, limits)
	if err != nil {
		if ses != nil {
			ses.broken(err)
		}
		return nil, err
	}
	if q.sid != "" && q.sid != sid { // another than parsing says, and so not the one that the limits are of
		return nil, bad
	}
	if q.sid == "" {
		if ses, err = s.create(q, addr); err != nil {
			return nil, err
		}
	} else if ses == nil {
		return nil, unknown
	}
	return ses.exchange(r.Context(), q)
}

func (s *Server) find(sid string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[sid]
}

// create makes a session and begins to serve its stream.
//
// spec: XEP-0124 §7.1
func (s *Server) create(q *request, addr net.Addr) (*session, error) {
	to := q.body.Attr("to")
	switch {
	case to == "":
		return nil, fault("improper-addressing")
	case !s.cfg.Streams.Hosted(to):
		return nil, fault("host-unknown")
	}
	ses := newSession(s, q)
	ses.ex = stream.NewExchange(addr, ses.ready)
	key := prefix(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, fault("system-shutdown")
	}
	if len(s.sessions) >= s.cfg.Sessions || s.perIP[key] >= s.cfg.SessionsPerIP {
		return nil, stream.ErrTooMany
	}
	serve, err := s.cfg.Streams.Exchange(s.ctx, ses.ex)
	if err != nil {
		return nil, err
	}
	s.perIP[key]++
	s.sessions[ses.sid] = ses
	ses.forget = sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, ses.sid)
		if s.perIP[key]--; s.perIP[key] <= 0 {
			delete(s.perIP, key)
		}
	})
	s.streams.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				s.cfg.Log.Error("panic while serving a stream", "panic", p)
				_ = ses.ex.Close()
			}
		}()
		serve()
	})
	return ses, nil
}

// prefix is the IPv4 address or the IPv6 /64.
func prefix(addr net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// newSID makes a name that nobody can guess.
//
// spec: XEP-0124 §17.3
func newSID() string { return core.NewToken() }
