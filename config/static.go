package config

import (
	"fmt"
	"iter"
	"net/netip"
	"strings"
)

// Service is what a static route is for.
type Service string

// The services that can be given static routes.
const (
	ServiceXMPP  Service = "xmpp"  // the XMPP server of a domain, STARTTLS
	ServiceXMPPS Service = "xmpps" // the XMPP server of a domain, direct TLS
	ServiceHost  Service = "host"  // the addresses of a host name

	ServiceMatrix Service = "matrix" // the Matrix server of a domain
)

// RouteKey names the service of a domain.
type RouteKey struct {
	Service Service
	Domain  string
}

// Routes are the static routes of a closed network. A domain that has one for
// a service is not looked up in DNS for it.
type Routes struct {
	services map[RouteKey][]Endpoint
	hosts    map[string][]netip.Addr
}

// Lookup returns the endpoints of a service of a domain in the order in which
// to try them; nil: ask DNS.
func (r Routes) Lookup(s Service, domain string) []Endpoint {
	return r.services[RouteKey{s, domain}]
}

// Endpoints are the endpoints of all services of all domains.
func (r Routes) Endpoints() iter.Seq[Endpoint] {
	return func(yield func(Endpoint) bool) {
		for _, all := range r.services {
			for _, e := range all {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Hosts has the addresses of host names that have static ones.
func (r Routes) Hosts() map[string][]netip.Addr { return r.hosts }

// add reads one line of [dns.static]: "xmpp:prosody.test" = "10.0.0.2:5269",
// several endpoints separated by commas; for hosts, IP addresses.
func (r *Routes) add(key, value string) error {
	service, domain, ok := strings.Cut(key, ":")
	if !ok {
		return fmt.Errorf("%q is not a route; write \"xmpp:DOMAIN\", \"xmpps:DOMAIN\", \"matrix:DOMAIN\" or \"host:NAME\"", key)
	}
	s := Service(service)
	if err := choice(s, ServiceXMPP, ServiceXMPPS, ServiceMatrix, ServiceHost); err != nil {
		return err
	}
	domain, err := CheckDomain(domain)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(value, ",") {
		if err := r.addOne(RouteKey{s, domain}, strings.TrimSpace(part)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Routes) addOne(key RouteKey, target string) error {
	if key.Service == ServiceHost {
		addr, err := netip.ParseAddr(target)
		if err != nil {
			return fmt.Errorf("%q is not an IP address", target)
		}
		if r.hosts == nil {
			r.hosts = make(map[string][]netip.Addr)
		}
		r.hosts[key.Domain] = append(r.hosts[key.Domain], addr)
		return nil
	}
	e, err := parseEndpoint(target)
	if err != nil {
		return err
	}
	if r.services == nil {
		r.services = make(map[RouteKey][]Endpoint)
	}
	r.services[key] = append(r.services[key], e)
	return nil
}
