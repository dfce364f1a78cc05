package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"parley/config"
	"parley/netguard"
)

// dns looks up for one domain what others will look up.
func (c *checker) dns(ctx context.Context, domain string) {
	for _, r := range records(c.cfg) {
		if r.domain == domain || r.domain == config.RoomsPrefix+domain {
			c.srv(ctx, r)
		}
	}
	c.address(ctx, domain)
}

// srv checks one record as those who use it do: a record that points
// elsewhere misleads them, and one that is missing matters unless the usual
// port on the domain's own address is ours.
//
// spec: RFC 6120 §3.2.1
// spec: RFC 6120 §3.2.2
func (c *checker) srv(ctx context.Context, r record) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	publish := fmt.Sprintf("publish: %s. IN SRV 5 0 %d HOST. (HOST is this server's name)", r.name(), r.port)
	_, targets, err := c.guard.Resolver().LookupSRV(ctx, "", "", r.name()+".")
	var notFound *net.DNSError
	switch {
	case errors.As(err, &notFound) && notFound.IsNotFound:
		c.noSRV(ctx, r, publish)
		return
	case err != nil:
		c.fail("DNS", "see that the resolver works ([dns] resolver)", "looking up %s: %v", r.name(), err)
		return
	}
	var wrong []string
	for _, t := range targets {
		if int(t.Port) != r.port {
			wrong = append(wrong, fmt.Sprintf("%s port %d", t.Target, t.Port))
			continue
		}
		if _, err := c.guard.LookupHost(ctx, t.Target); err != nil {
			c.fail("DNS", "publish A or AAAA records of "+t.Target, "%s leads to %s, which has no address: %v", r.name(), t.Target, err)
			return
		}
	}
	switch {
	case len(wrong) == len(targets):
		c.fail("DNS", publish, "%s leads to %s; this server listens on port %d", r.name(), strings.Join(wrong, ", "), r.port)
	case len(wrong) > 0:
		c.warn("DNS", "", "%s leads also to %s: another server?", r.name(), strings.Join(wrong, ", "))
	default:
		c.ok("DNS", "%s", r.name())
	}
}

func (c *checker) noSRV(ctx context.Context, r record, publish string) {
	if r.standard == 0 {
		c.warn("DNS", publish, "%s is not published: %s will not be found", r.name(), r.what)
		return
	}
	addrs, err := c.guard.LookupHost(ctx, r.domain)
	switch {
	case err != nil || len(addrs) == 0:
		c.fail("DNS", publish, "%s is not published and %s has no address: %s find nothing", r.name(), r.domain, r.what)
	case r.standard != r.port:
		c.fail("DNS", publish, "%s is not published: %s try port %d, and this server listens on %d", r.name(), r.what, r.standard, r.port)
	default:
		c.ok("DNS", "%s is not published; %s use port %d of %s itself", r.name(), r.what, r.port, r.domain)
	}
}

// address checks the domain's own address, where Matrix clients start.
func (c *checker) address(ctx context.Context, domain string) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	addrs, err := c.guard.LookupHost(ctx, domain)
	if err != nil {
		c.fail("DNS", "publish A or AAAA records of "+domain, "%v", err)
		return
	}
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.Unmap().String()
	}
	c.ok("DNS", "%s has %s", domain, strings.Join(text, ", "))
	if !ours(addrs) {
		c.ok("DNS", "%s is the address of another machine or of a router: see that it passes connections on", domain)
	}
}

// ours reports whether one of the addresses is on an interface of this machine.
func ours(addrs []netip.Addr) bool {
	local, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, l := range local {
		p, err := netip.ParsePrefix(l.String())
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p.Addr() == a.Unmap() {
				return true
			}
		}
	}
	return false
}

// wellKnown asks for what Matrix clients ask for first. It can answer only
// while the server runs.
//
// spec: MX 1.19 CS §3.1
func (c *checker) wellKnown(ctx context.Context, domain string) {
	if !c.running || c.certs == nil || (c.cfg.Listen.HTTP.Off() && c.cfg.Listen.HTTPS.Off()) {
		return
	}
	url := "https://" + domain + "/.well-known/matrix/client"
	client := c.guard.Client(netguard.ClientOptions{Timeout: checkTimeout, MaxBytes: 64 << 10, TLS: c.certs.Client("")})
	defer client.CloseIdleConnections()
	_, _, err := netguard.Get(ctx, client, url)
	if err != nil {
		c.warn("discovery", fmt.Sprintf("let %s be answered (listen on :443, or have the web server pass it on), or have users type %s", url, c.cfg.BaseURL(domain)),
			"Matrix clients cannot find the server from %s alone: %v", domain, err)
		return
	}
	c.ok("discovery", "%s", url)
}
