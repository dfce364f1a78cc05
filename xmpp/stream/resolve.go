package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Resolver is the part of *net.Resolver that finding a server needs.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ErrNoService says that a domain has announced that it has no XMPP server.
var ErrNoService = errors.New("domain has no XMPP service")

// target is one place where a domain's server may listen.
type target struct {
	host             string
	port             uint16
	priority, weight uint16
	direct           bool // TLS begins before the stream
}

// resolve finds where the server of a domain listens, in the order in which to try.
//
// spec: RFC 6120 §3.2
// spec: XEP-0368 §3
func resolve(ctx context.Context, r Resolver, domain string) ([]target, error) {
	ascii, err := toASCII(domain)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(ascii); err == nil {
		return []target{{host: ascii, port: 5269}}, nil
	}
	var all []target
	announced := false
	for _, service := range []struct {
		name   string
		direct bool
	}{{"xmpps-server", true}, {"xmpp-server", false}} {
		_, records, err := r.LookupSRV(ctx, service.name, "tcp", ascii)
		if err != nil {
			if d, ok := errors.AsType[*net.DNSError](err); ok && d.IsNotFound {
				continue
			}
			return nil, fmt.Errorf("looking up %s of %s: %w", service.name, domain, err)
		}
		for _, rec := range records {
			announced = true
			if host := strings.TrimSuffix(rec.Target, "."); host != "" {
				all = append(all, target{host: host, port: rec.Port, priority: rec.Priority, weight: rec.Weight, direct: service.direct})
			}
		}
	}
	switch {
	case len(all) > 0:
		return order(all, rand.IntN), nil
	case announced:
		return nil, fmt.Errorf("%s: %w", domain, ErrNoService)
	}
	return []target{{host: ascii, port: 5269}}, nil
}

// order sorts by priority and, where these are the same, draws by weight.
//
// spec: RFC 2782
func order(all []target, intN func(int) int) []target {
	slices.SortStableFunc(all, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.weight, b.weight))
	})
	for i := range all {
		sum, end := 0, i
		for ; end < len(all) && all[end].priority == all[i].priority; end++ {
			sum += int(all[end].weight)
		}
		draw := intN(sum + 1)
		for j := i; j < end; j++ {
			if draw -= int(all[j].weight); draw <= 0 {
				chosen := all[j]
				copy(all[i+1:j+1], all[i:j])
				all[i] = chosen
				break
			}
		}
	}
	return all
}
