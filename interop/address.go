package interop

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Network is the protocol family that a client speaks, or that servers exchange.
type Network string

// The networks of the clients that are driven.
const (
	Matrix Network = "matrix"
	XMPP   Network = "xmpp"
)

// federates are the networks that the servers of the lab exchange with others, those first
// by which two of them talk if they have a choice.
var federates = map[string][]Network{
	ParleyDomain:   {Matrix, XMPP},
	SecondDomain:   {Matrix, XMPP},
	ThirdDomain:    {Matrix, XMPP},
	ProsodyDomain:  {XMPP},
	EjabberdDomain: {XMPP},
	DendriteDomain: {Matrix},
	OtherDomain:    {Matrix},
}

// networksOf are the networks of a server. Services with a domain of their own, such as
// rooms, are known to XMPP alone.
func networksOf(domain string) []Network {
	if networks, ok := federates[domain]; ok {
		return networks
	}
	return []Network{XMPP}
}

// between is the network by which the servers of two domains talk; empty if there is none.
func between(a, b string) Network {
	theirs := networksOf(b)
	for _, n := range networksOf(a) {
		if slices.Contains(theirs, n) {
			return n
		}
	}
	return ""
}

// Address is an account's one address, local@domain, however a network spells it.
type Address struct{ Local, Domain string }

func (a Address) String() string { return a.Local + "@" + a.Domain }

// Spell returns the address as a client of the network names it, when that client's own
// server is home. Whom home does not talk with it knows by way of Parley.
func (a Address) Spell(n Network, home string) string {
	server, _, _ := strings.Cut(a.Domain, "/") // an occupant's domain may have a nick
	by := between(home, server)
	switch {
	case a.Domain == home || by == n:
		return native(n, a.Local, a.Domain)
	case by == "":
		by, home = networksOf(server)[0], ParleyDomain
	}
	return native(n, ghost(by, a.String()), home)
}

func native(n Network, local, domain string) string {
	if n == XMPP {
		return local + "@" + domain
	}
	return "@" + local + ":" + domain
}

// ghost is the local part by which a Parley spells an address of another network.
func ghost(n Network, address string) string { return "_" + string(n) + "_" + escape(address) }

// ParseAddress is the reverse of Spell.
func ParseAddress(s string, n Network) (Address, error) {
	local, domain, ok := strings.Cut(s, "@")
	if n == Matrix {
		local, domain, ok = strings.Cut(strings.TrimPrefix(s, "@"), ":")
		ok = ok && strings.HasPrefix(s, "@")
	}
	if !ok {
		return Address{}, fmt.Errorf("%q is no %s address of an account", s, n)
	}
	for _, foreign := range []Network{Matrix, XMPP} {
		if inner, is := strings.CutPrefix(local, "_"+string(foreign)+"_"); is {
			return ParseAddress(unescape(inner), XMPP) // whose form is that of all addresses
		}
	}
	return Address{local, domain}, nil
}

// escape writes every byte outside [a-z0-9._-] as =xx.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("._-", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '=' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// RoomAddress is a room's one address: garden at parley.test.
type RoomAddress struct {
	Local   string
	Domain  string // the server's
	Service string // the XMPP domain of its rooms, e.g. rooms.parley.test
}

// Spell returns the address as a client of the network names it, when that client's own
// server is home.
func (r RoomAddress) Spell(n Network, home string) string {
	by := between(home, r.Domain)
	inXMPP := r.Local + "@" + r.Service
	switch {
	case n == XMPP && (r.Domain == home || by == XMPP):
		return inXMPP
	case n == XMPP:
		return ghost(by, r.Local+"@"+r.Domain) + "@" + roomsOf(home)
	case r.Domain == home || by == Matrix:
		return "#" + r.Local + ":" + r.Domain
	}
	return "#" + ghost(by, inXMPP) + ":" + home
}

// roomsOf is the XMPP domain of the rooms of a Parley.
func roomsOf(domain string) string { return "rooms." + domain }
