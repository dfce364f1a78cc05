package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
)

// ServerConfig is what a [Server] stands on.
type ServerConfig struct {
	// Domains are at home here; the first is meant where a request names none.
	Domains []string
	Keys    *keyring.Keyring
	// Heard is told of every server that has signed a request; nil for nobody.
	Heard func(server string)
	// Refuses says that nothing is exchanged with a server; nil refuses none.
	Refuses func(server string) bool
	// MaxBody bounds a body, in bytes, where a [Route] does not.
	MaxBody int64
	// Version is what GET /_matrix/federation/v1/version tells.
	Version string
	Log     *slog.Logger
	// PerAddress and PerServer are how many requests a second one IP address and
	// one server may make, ten seconds' worth at once; 0 is without end.
	PerAddress, PerServer float64
}

// Server answers other servers. Routes are added before it serves.
type Server struct {
	cfg   ServerConfig
	hosts map[string]bool
	mux   *http.ServeMux // patterns with methods
	known *http.ServeMux // the same without
	paths map[string]bool
	addrs *pace
	peers *pace
}

// Request is a request of another server.
type Request struct {
	HTTP *http.Request
	// Origin is who asks, and has proven it; empty on a route that is [Route.Open].
	Origin string
	// Destination is which of our domains is asked.
	Destination string
	// Body is the JSON object that came, nil if there was none.
	Body []byte
}

// Context ends when the other server goes away.
func (r *Request) Context() context.Context { return r.HTTP.Context() }

// Var is a variable of the route's path, unescaped.
func (r *Request) Var(name string) string { return r.HTTP.PathValue(name) }

// Handler does a request. What it returns is the JSON of a 200 answer, nil
// being {} and [json.RawMessage] itself; a [Reply] answers for itself; an
// [*Error] is told as it is, any other error is our own failure.
type Handler func(*Request) (any, error)

// Reply is an answer that is not JSON.
type Reply interface {
	WriteReply(w http.ResponseWriter, r *http.Request)
}

// Route is one line of a table: what answers to a method on a path.
type Route struct {
	Method string
	// Path is one of [http.ServeMux], "/_matrix/federation/v1/event/{eventId}".
	Path string
	// Open lets in requests that nobody has signed.
	Open    bool
	Handler Handler
	// MaxBody is the most bytes of a body, zero for the configured limit.
	MaxBody int64
}

// Prefixes are the paths that are for a [Server].
func Prefixes() []string { return []string{"/_matrix/federation/", "/_matrix/key/"} }

// NewServer makes a server with the routes of this package.
func NewServer(c ServerConfig) *Server {
	s := &Server{
		cfg: c, hosts: map[string]bool{}, paths: map[string]bool{}, mux: http.NewServeMux(), known: http.NewServeMux(),
		addrs: newPace(c.PerAddress), peers: newPace(c.PerServer),
	}
	for _, d := range c.Domains {
		s.hosts[d] = true
	}
	s.Add(s.routes()...)
	return s
}

// Add adds a table of routes.
func (s *Server) Add(table ...Route) {
	for _, r := range table {
		s.mux.Handle(r.Method+" "+r.Path, s.endpoint(r))
		if !s.paths[r.Path] {
			s.paths[r.Path] = true
			s.known.Handle(r.Path, http.NotFoundHandler())
		}
	}
}

// ServeHTTP implements [http.Handler] for [Prefixes].
//
// spec: MX 1.19 SS §1.2
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("panic in a request of a Matrix server", "panic", p, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler)
		}
	}()
	if wait := s.addrs.take(remoteIP(r).String(), time.Now()); wait > 0 {
		s.answer(w, r, nil, tooMany(wait))
		return
	}
	// A path that could be written shorter would be redirected, and what was
	// signed with it.
	if p := r.URL.EscapedPath(); path.Clean(p) != strings.TrimSuffix(p, "/") {
		s.answer(w, r, nil, errNoEndpoint)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	if _, pattern := s.known.Handler(r); pattern != "" {
		s.answer(w, r, nil, Errorf(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "This method is not for this path."))
		return
	}
	s.answer(w, r, nil, errNoEndpoint)
}

var errNoEndpoint = Errorf(http.StatusNotFound, "M_UNRECOGNIZED", "There is no such endpoint.")

func tooMany(wait time.Duration) *Error {
	e := Errorf(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too many requests; wait a little.")
	e.RetryAfter = wait
	return e
}

// endpoint is a route as an [http.Handler].
func (s *Server) endpoint(route Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := s.admit(w, r, route)
		if err != nil {
			s.answer(w, r, nil, err)
			return
		}
		result, err := route.Handler(req)
		if reply, ok := result.(Reply); ok && err == nil {
			reply.WriteReply(w, r)
			return
		}
		s.answer(w, r, result, err)
	})
}

// admit reads the body and finds out who asks.
//
// spec: MX 1.19 SS §3.1
func (s *Server) admit(w http.ResponseWriter, r *http.Request, route Route) (*Request, error) {
	limit := route.MaxBody
	if limit == 0 {
		limit = s.cfg.MaxBody
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, Errorf(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "A body for this endpoint has at most %d bytes.", limit)
	}
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, "M_UNKNOWN", "The body did not come whole.")
	}
	req := &Request{HTTP: r, Destination: s.domain(r), Body: body}
	if len(body) == 0 {
		req.Body = nil
	}
	if route.Open {
		return req, nil
	}
	auth, err := Verify(r.Context(), s.cfg.Keys, r, body, req.Destination, func(d string) bool { return s.hosts[d] })
	switch {
	case errors.Is(err, wire.ErrJSON):
		return nil, Errorf(http.StatusBadRequest, "M_NOT_JSON", "The body is no JSON that could have been signed: %v", err)
	case err != nil:
		s.cfg.Log.Debug("a request of a Matrix server is not authentic", "ip", remoteIP(r), "err", err)
		return nil, errUnauthorized(shown(err))
	}
	req.Origin, req.Destination = auth.Origin, auth.Destination
	if s.cfg.Refuses != nil && s.cfg.Refuses(req.Origin) {
		return nil, Errorf(http.StatusForbidden, "M_FORBIDDEN", "This server does not exchange anything with yours.")
	}
	if s.cfg.Heard != nil {
		s.cfg.Heard(req.Origin)
	}
	if wait := s.peers.take(req.Origin, time.Now()); wait > 0 {
		return nil, tooMany(wait)
	}
	return req, nil
}

// shown is what a stranger is told of an error: not what our network looks like.
func shown(err error) error {
	for _, known := range []error{ErrHeader, keyring.ErrUnknownKey, keyring.ErrExpired, wire.ErrSignature} {
		if errors.Is(err, known) {
			if known == ErrHeader {
				return err
			}
			return known
		}
	}
	return errors.New("its keys could not be got")
}

// domain is which of our domains a request is for, as far as it is not signed:
// by the Host header, or the name that TLS was set up for.
func (s *Server) domain(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host = strings.ToLower(strings.TrimSuffix(host, ".")); s.hosts[host] {
		return host
	}
	if r.TLS != nil && s.hosts[strings.ToLower(r.TLS.ServerName)] {
		return strings.ToLower(r.TLS.ServerName)
	}
	return s.cfg.Domains[0]
}

// answer writes what came of a request.
//
// spec: MX 1.19 SS §1
func (s *Server) answer(w http.ResponseWriter, r *http.Request, result any, err error) {
	status := http.StatusOK
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		switch {
		case r.Context().Err() != nil:
			return // nobody waits for it
		case !ok || e.Server != "":
			s.cfg.Log.Error("a request of a Matrix server failed", "route", r.Pattern, "err", err)
			e = Errorf(http.StatusInternalServerError, "M_UNKNOWN", "Internal server error.")
		}
		body := map[string]any{}
		for k, v := range e.Fields {
			body[k] = v
		}
		body["errcode"], body["error"] = e.Errcode, e.Text
		if e.RetryAfter > 0 {
			body["retry_after_ms"] = e.RetryAfter.Milliseconds()
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
		}
		status, result = e.Status, body
	}
	if result == nil {
		result = struct{}{}
	}
	raw, merr := json.Marshal(result)
	if merr != nil {
		panic(fmt.Errorf("an answer that has no JSON: %w", merr))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the other end may be gone
}

// remoteIP is who asks. A proxy on this machine is believed about for whom.
func remoteIP(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if all := r.Header.Values("X-Forwarded-For"); ip.IsLoopback() && len(all) > 0 {
		last := all[len(all)-1]
		if from, err := netip.ParseAddr(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])); err == nil {
			ip = from.Unmap().WithZone("")
		}
	}
	if ip.Is6() {
		// One subscriber has a whole /64.
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}
