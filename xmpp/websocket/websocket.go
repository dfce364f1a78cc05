// Package websocket is the door for XMPP clients in browsers: streams over WebSocket on the HTTP listeners, and the documents by
// which they are found.
//
// What a stream is on a WebSocket is in package stream, which treats it as any other; here is what HTTP adds: who may come in, and
// that streams end with the server.
package websocket

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"parley/xmpp/stream"
)

// Path is where clients connect.
const Path = "/_parley/xmpp-websocket"

// Config is what a server of WebSockets needs.
type Config struct {
	// Streams serves them.
	Streams *stream.Clients
	// Home is the domain of which host-meta speaks when it is asked under a name that is not hosted.
	Home string
	// BaseURL is the address, without a final slash, at which clients of a domain reach the HTTP listeners.
	BaseURL func(domain string) string
	// Others are further ways to connect, as host-meta names them: paths of HTTP, by relation.
	Others map[string]string
	// Log gets what operators want to know.
	Log *slog.Logger
}

// Server serves WebSockets and host-meta.
type Server struct {
	cfg    Config
	ctx    context.Context // of the streams
	cancel context.CancelFunc

	mu      sync.Mutex
	ended   bool
	streams sync.WaitGroup // grows only while ended is false
}

// New makes a Server. Its streams last until [Server.Run] ends.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Register adds the paths to the mux of the HTTP listeners.
func (s *Server) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+Path, s.connect)
	mux.HandleFunc("/.well-known/host-meta", s.hostMeta(xrd))
	mux.HandleFunc("/.well-known/host-meta.json", s.hostMeta(jrd))
}

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

// connect serves one stream.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	peer, private := Origin(r)
	if !private {
		http.Error(w, "passwords go over wss:// only", http.StatusForbidden)
		return
	}
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
		return
	}
	s.streams.Add(1)
	s.mu.Unlock()
	defer s.streams.Done()
	if err := s.cfg.Streams.ServeWebSocket(s.ctx, w, r, peer); err != nil {
		s.cfg.Log.Debug("WebSocket refused", "addr", peer, "err", err)
	}
}

// Origin finds out where a client is, and whether nobody can read along between it and us: by TLS or because it is on this machine,
// which a reverse proxy is that says for whom it speaks. A proxy that says that it was itself reached in the clear is believed.
//
// spec: RFC 7395 §3.9
func Origin(r *http.Request) (addr net.Addr, private bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return &net.TCPAddr{}, r.TLS != nil
	}
	ip := peer.Addr().Unmap().WithZone("")
	if !ip.IsLoopback() {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, peer.Port())), r.TLS != nil
	}
	client, err := netip.ParseAddr(last(r.Header.Values("X-Forwarded-For")))
	if err != nil {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, peer.Port())), true
	}
	client = client.Unmap().WithZone("")
	clear := strings.EqualFold(last(r.Header.Values("X-Forwarded-Proto")), "http")
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)), client.IsLoopback() || !clear
}

// last is what the nearest proxy wrote into a header that is a list.
func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
}
