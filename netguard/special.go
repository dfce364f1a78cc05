package netguard

import (
	"fmt"
	"net/netip"
)

// special lists the address blocks that are not the public Internet, each with
// what to call it.
//
// spec: RFC 6890 §2.2
var special = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"}, // spec: RFC 6598 §7
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "AS112"},
	{netip.MustParsePrefix("192.52.193.0/24"), "AMT"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("192.175.48.0/24"), "AS112"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	// Of IPv6, only 2000::/3 is public; what is special inside it follows.
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("100::/64"), "discard-only"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignments"}, // Teredo, ORCHID and others
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "AS112"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing"},
}

// global is the block of IPv6 from which public addresses are given.
//
// spec: RFC 4291 §2.4
var global = netip.MustParsePrefix("2000::/3")

// Blocks whose addresses carry an IPv4 address, to which the network may pass
// the packets on; at is the byte where it begins.
var carriers = []struct {
	prefix netip.Prefix
	at     int
	name   string
}{
	{netip.MustParsePrefix("::/96"), 12, "IPv4-compatible"},           // spec: RFC 4291 §2.5.5.1
	{netip.MustParsePrefix("64:ff9b::/96"), 12, "NAT64"},              // spec: RFC 6052 §2.1
	{netip.MustParsePrefix("64:ff9b:1::/48"), -1, "NAT64"},            // spec: RFC 8215 §5
	{netip.MustParsePrefix("2002::/16"), 2, "6to4"},                   // spec: RFC 3056 §2
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, "IPv4-translated"}, // spec: RFC 2765 §2.1
}

// BlockedError says that an address may not be connected to.
type BlockedError struct {
	Addr netip.Addr
	Kind string // "private", "loopback", …
}

func (e *BlockedError) Error() string {
	return fmt.Sprintf("%v is a %s address and not in [limits] private_networks", e.Addr, e.Kind)
}

// classify returns what is special about an address, or "" for a public one.
func classify(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return "invalid"
	}
	for _, s := range special {
		if s.prefix.Contains(a) {
			return s.name
		}
	}
	if a.Is4() {
		return ""
	}
	for _, c := range carriers {
		if !c.prefix.Contains(a) {
			continue
		}
		if c.at < 0 {
			return c.name // for use inside a network, wherever the IPv4 part is
		}
		b := a.As16()
		v4, _ := netip.AddrFromSlice(b[c.at : c.at+4])
		if kind := classify(v4); kind != "" {
			return c.name + " " + kind
		}
		if c.name == "NAT64" || c.name == "6to4" {
			return "" // a public IPv4 address
		}
		return c.name
	}
	if !global.Contains(a) {
		return "reserved"
	}
	return ""
}
