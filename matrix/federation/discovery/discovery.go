// Package discovery finds the machine behind a Matrix server name: by the
// operator's static routes, by what the name itself says, by
// /.well-known/matrix/server, and by SRV records, in that order.
//
// It has two halves. [Resolver.Locate] says what the server is called on the
// wire: the Host header, and the name that its certificate must have. That can
// be remembered. [Resolver.Endpoints] says where to connect, and asks DNS each
// time: a connection lives longer than the answer.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"parley/matrix/wire"
)

// DefaultPort is where servers are that say nothing else.
//
// spec: MX 1.19 SS §2.1
const DefaultPort = 8448

// maxSRV is how many SRV records of a name are tried.
const maxSRV = 8

// Endpoint is a host, which is a name or an IP address, with a port.
type Endpoint struct {
	Host string
	Port uint16
}

func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// Place is what a server is called on the wire.
type Place struct {
	// Server is the server name that was asked for.
	Server string
	// Host is for the Host header: the server name, or the name to which it
	// delegates.
	Host string
	// TLSName is the DNS name, or the IP address without brackets, that the
	// server's certificate must be for.
	TLSName string

	port   uint16     // 0: SRV records of TLSName, then DefaultPort
	routes []Endpoint // of the operator; nil: none
}

// Static reports whether the operator wrote down where this server is.
func (p Place) Static() bool { return p.routes != nil }

// SRV looks up SRV records. *[net.Resolver] is one; it sorts by priority and
// shuffles by weight.
//
// spec: RFC 2782
type SRV interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// Config is what a [Resolver] stands on.
type Config struct {
	SRV SRV
	// WellKnown fetches /.well-known/matrix/server. It bounds time and size,
	// follows few redirects and none to plain HTTP, and reaches no address that
	// must not be reached.
	WellKnown *http.Client
	// Routes are the operator's endpoints of a server name; nil for none.
	Routes func(server string) []Endpoint
	Log    *slog.Logger
	// Now is for tests; nil is time.Now.
	Now func() time.Time
}

// Resolver finds servers. It is safe for concurrent use.
type Resolver struct {
	cfg     Config
	flights singleflight.Group
	cache   cache
}

// New makes a resolver.
func New(c Config) *Resolver {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Routes == nil {
		c.Routes = func(string) []Endpoint { return nil }
	}
	return &Resolver{cfg: c}
}

// Locate says what a server is called on the wire. Its errors are a malformed
// name and the end of the context: a well-known that cannot be had is no error,
// but as if there were none.
//
// spec: MX 1.19 SS §2.1
func (r *Resolver) Locate(ctx context.Context, server string) (Place, error) {
	host, port, literal, err := split(server)
	if err != nil {
		return Place{}, err
	}
	p := Place{Server: server, Host: server, TLSName: host, port: port}
	if p.routes = r.cfg.Routes(server); len(p.routes) > 0 {
		return p, nil
	}
	p.routes = nil
	switch {
	case literal && port == 0: // step 1
		p.port = DefaultPort
		return p, nil
	case port != 0: // steps 1 and 2
		return p, nil
	}
	delegated, err := r.wellKnown(ctx, host)
	if err != nil || delegated == "" { // steps 4 to 6
		return p, err
	}
	if p.TLSName, p.port, literal, err = split(delegated); err != nil {
		return Place{}, err // was checked when it came
	}
	p.Host = delegated // step 3
	if literal && p.port == 0 {
		p.port = DefaultPort // step 3.1
	}
	return p, nil
}

// split takes apart a server name; port is 0 where it has none. A literal's
// host is without brackets. Names are lower case, as certificates and DNS take
// them.
//
// spec: MX 1.19 AP §4.2
func split(name string) (host string, port uint16, literal bool, err error) {
	if err := wire.ParseServerName(name); err != nil {
		return "", 0, false, err
	}
	host = name
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		n, _ := strconv.ParseUint(name[i+1:], 10, 16) // ParseServerName has read it
		host, port = name[:i], uint16(n)
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	_, err = netip.ParseAddr(host)
	return host, port, err == nil, nil
}

// Endpoints says where to connect, in the order in which to try. Hosts that are
// names have yet to be looked up.
//
// spec: MX 1.19 SS §2.1
func (r *Resolver) Endpoints(ctx context.Context, p Place) ([]Endpoint, error) {
	switch {
	case p.routes != nil:
		return p.routes, nil
	case p.port != 0:
		return []Endpoint{{p.TLSName, p.port}}, nil
	}
	// Step 3.3 or 4; then what is deprecated: step 3.4 or 5.
	for _, service := range []string{"matrix-fed", "matrix"} {
		_, records, err := r.cfg.SRV.LookupSRV(ctx, service, "tcp", p.TLSName)
		if err != nil {
			if d, ok := errors.AsType[*net.DNSError](err); ok && d.IsNotFound {
				continue
			}
			return nil, fmt.Errorf("looking up the SRV records of %s: %w", p.TLSName, err)
		}
		// One record with the target "." says that there is no such service.
		// spec: RFC 2782
		if len(records) == 1 && records[0].Target == "." {
			return nil, fmt.Errorf("%s says that it has no Matrix server", p.TLSName)
		}
		if out := targets(records); len(out) > 0 {
			return out, nil
		}
	}
	return []Endpoint{{p.TLSName, DefaultPort}}, nil // step 3.5 or 6
}

func targets(records []*net.SRV) (out []Endpoint) {
	for _, s := range records {
		host := strings.TrimSuffix(s.Target, ".")
		if host == "" || s.Port == 0 || len(out) == maxSRV {
			continue
		}
		out = append(out, Endpoint{host, s.Port})
	}
	return out
}
