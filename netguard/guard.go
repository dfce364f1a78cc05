package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// dialTimeout bounds one try to connect.
const dialTimeout = 15 * time.Second

// Options are what the operator configured.
type Options struct {
	// Allow are the special networks that may be reached all the same.
	Allow []netip.Prefix
	// Resolver is the IP:PORT of the DNS server to ask; empty: the system's.
	Resolver string
	// Hosts has the addresses of host names that are not to be looked up.
	// They are checked like all others.
	Hosts map[string][]netip.Addr
}

// Guard dials out. It is safe for concurrent use.
type Guard struct {
	allow    []netip.Prefix
	hosts    map[string][]netip.Addr
	resolver *net.Resolver
}

// New makes a guard. Its only error is a resolver that is not IP:PORT.
func New(o Options) (*Guard, error) {
	g := &Guard{allow: o.Allow, hosts: o.Hosts, resolver: &net.Resolver{}}
	if o.Resolver == "" {
		return g, nil
	}
	if _, err := netip.ParseAddrPort(o.Resolver); err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	g.resolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: dialTimeout}
			return d.DialContext(ctx, network, o.Resolver)
		},
	}
	return g, nil
}

// Check returns a [*BlockedError] for an address that may not be reached.
func (g *Guard) Check(a netip.Addr) error {
	kind := classify(a)
	if kind == "" {
		return nil
	}
	plain := a.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(plain) {
			return nil
		}
	}
	return &BlockedError{Addr: a, Kind: kind}
}

// Resolver is the DNS resolver of the configuration. It does not know the
// static hosts; [Guard.LookupHost] does.
func (g *Guard) Resolver() *net.Resolver { return g.resolver }

// LookupHost returns the addresses of a host name, the static ones if it has
// some.
func (g *Guard) LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if addrs, ok := g.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]; ok {
		return addrs, nil
	}
	addrs, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("looking up %s: %w", host, err)
	}
	return addrs, nil
}

// dialer checks each address right before it is connected to, so that a name
// that resolves otherwise a second time gains nothing.
func (g *Guard) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:  dialTimeout,
		Resolver: g.resolver,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") && !strings.HasPrefix(network, "udp") {
				return fmt.Errorf("network %q is not dialled", network)
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("checking %s: %w", address, err)
			}
			return g.Check(ap.Addr())
		},
	}
}

// DialContext connects to HOST:PORT as [net.Dialer.DialContext] does, if the
// address may be reached.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", address, err)
	}
	addrs, static := g.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]
	if !static {
		return g.dialer().DialContext(ctx, network, address)
	}
	var errs []error
	for _, a := range addrs {
		conn, err := g.dialer().DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("dialling %s: %w", address, errors.Join(errs...))
}

// DialRoute connects to an endpoint that the operator wrote down in
// [dns.static] for a service: naming it there is leave to reach it. It must
// not be given an address that came from anywhere else.
func (g *Guard) DialRoute(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", address, err)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		// A name: what it resolves to is not the operator's word.
		return g.DialContext(ctx, network, address)
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, network, net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("dialling the route %s: %w", address, err)
	}
	return conn, nil
}
