package federation

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"parley/matrix/federation/discovery"
)

// MatrixURL is the scheme of the URLs that a [Transport] takes: the host is a
// server name.
const MatrixURL = "matrix"

// Bounds of connections to one server, and to all.
const (
	maxConns         = 8
	maxIdle          = 2
	maxIdleAll       = 300
	idleTimeout      = 90 * time.Second
	handshakeTimeout = 15 * time.Second
	maxHeaders       = 64 << 10 // bytes of an answer
	// maxDials is how many endpoints of a server are tried.
	maxDials = 6
)

// Dialer opens connections, past whatever guards them.
type Dialer struct {
	// Dial connects to HOST:PORT of a server that was looked up.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialRoute connects to HOST:PORT that the operator wrote down.
	DialRoute func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS makes the configuration for a server with a certificate for the name.
	TLS func(name string) *tls.Config
}

// Transport is an [http.RoundTripper] for URLs like "matrix://example.org/path".
// It finds the server, checks its certificate, and keeps connections for a
// while, by server name: two names that lead to one machine share none.
type Transport struct {
	resolver *discovery.Resolver
	dialer   Dialer
	base     *http.Transport
}

// NewTransport makes a transport.
func NewTransport(r *discovery.Resolver, d Dialer) *Transport {
	t := &Transport{resolver: r, dialer: d}
	t.base = &http.Transport{
		DialTLSContext:         t.dial,
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    maxIdle,
		MaxIdleConns:           maxIdleAll,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaders,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("servers are reached over TLS only")
		},
	}
	return t
}

// Close drops the connections that nobody uses.
func (t *Transport) Close() { t.base.CloseIdleConnections() }

// RoundTrip implements [http.RoundTripper].
//
// spec: MX 1.19 SS §2.1
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != MatrixURL {
		return nil, fmt.Errorf("scheme %q is not for federation", r.URL.Scheme)
	}
	place, err := t.resolver.Locate(r.Context(), r.URL.Host)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = "https", poolKey(place.Server), place.Host
	return t.base.RoundTrip(r)
}

// poolKey names a server to the pool of connections, in letters that no part of
// net/http reads anything into.
func poolKey(server string) string { return hex.EncodeToString([]byte(server)) + ":1" }

func fromPoolKey(addr string) (string, error) {
	name, _, _ := strings.Cut(addr, ":")
	b, err := hex.DecodeString(name)
	return string(b), err
}

// dial opens a connection for the pool.
//
// spec: MX 1.19 SS §1.1
// spec: MX 1.19 SS §2.1
func (t *Transport) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	server, err := fromPoolKey(addr)
	if err != nil {
		return nil, err
	}
	place, err := t.resolver.Locate(ctx, server)
	if err != nil {
		return nil, err
	}
	endpoints, err := t.resolver.Endpoints(ctx, place)
	if err != nil {
		return nil, err
	}
	connect := t.dialer.Dial
	if place.Static() {
		connect = t.dialer.DialRoute
	}
	var errs error
	for i, e := range endpoints {
		if i == maxDials {
			break
		}
		conn, err := connect(ctx, network, e.String())
		if err == nil {
			conn, err = t.secure(ctx, conn, place.TLSName)
		}
		if err == nil {
			return conn, nil
		}
		errs = errors.Join(errs, fmt.Errorf("%s: %w", e, err))
	}
	return nil, fmt.Errorf("connecting to %s: %w", server, errs)
}

// secure shakes hands. To a name that is an address no SNI is sent: crypto/tls
// sees to it.
//
// spec: MX 1.19 SS §1.1
func (t *Transport) secure(ctx context.Context, conn net.Conn, name string) (net.Conn, error) {
	cfg := t.dialer.TLS(name)
	cfg.ServerName, cfg.NextProtos = name, []string{"h2", "http/1.1"}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}
