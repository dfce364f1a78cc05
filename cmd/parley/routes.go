package main

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"parley/config"
	"parley/netguard"
)

// xmppRoutes finds XMPP servers: by the configuration's static routes, which
// look like DNS records to the one who asks, and by DNS for all other domains.
type xmppRoutes struct {
	*netguard.Guard
	routes config.Routes
}

// LookupSRV implements stream.Resolver.
func (r xmppRoutes) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	plain, direct := r.routes.Lookup(config.ServiceXMPP, name), r.routes.Lookup(config.ServiceXMPPS, name)
	if plain == nil && direct == nil {
		return r.Resolver().LookupSRV(ctx, service, proto, name)
	}
	endpoints := plain
	if service == "xmpps-server" {
		endpoints = direct
	}
	if endpoints == nil {
		return "", nil, &net.DNSError{Err: "no static route", Name: name, IsNotFound: true}
	}
	var out []*net.SRV
	for i, e := range endpoints {
		out = append(out, &net.SRV{Target: e.Host, Port: e.Port, Priority: uint16(i)})
	}
	return name, out, nil
}

// LookupNetIP implements stream.Resolver.
func (r xmppRoutes) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return r.LookupHost(ctx, host)
}

// dial connects to an address and port: freely to those of static routes, and
// past the guard to all others.
func (r xmppRoutes) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if r.isRoute(addr) {
		return r.DialRoute(ctx, network, addr)
	}
	return r.DialContext(ctx, network, addr)
}

func (r xmppRoutes) isRoute(addr string) bool {
	for e := range r.routes.Endpoints() {
		if net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) == addr {
			return true
		}
	}
	return false
}
