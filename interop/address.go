package interop

import (
	"fmt"
	"strconv"
	"strings"
)

// Network is the protocol family that a client speaks.
type Network string

// The networks of the clients that are driven.
const (
	Matrix Network = "matrix"
	XMPP   Network = "xmpp"
)

// Address is an account's one address, local@domain, however a network spells it.
type Address struct{ Local, Domain string }

func (a Address) String() string { return a.Local + "@" + a.Domain }

// ghostPrefix begins the Matrix spelling of an XMPP address that is not Parley's own.
const ghostPrefix = "_xmpp_"

// Spell returns the address as a client of the network names it, when that client's own
// server is home.
func (a Address) Spell(n Network, home string) string {
	switch {
	case n == XMPP:
		return a.String()
	case a.Domain == home:
		return "@" + a.Local + ":" + home
	default:
		return "@" + ghostPrefix + escape(a.String()) + ":" + home
	}
}

// ParseAddress is the reverse of Spell.
func ParseAddress(s string, n Network) (Address, error) {
	if n == XMPP {
		local, domain, ok := strings.Cut(s, "@")
		if !ok {
			return Address{}, fmt.Errorf("%q is no XMPP address of an account", s)
		}
		return Address{local, domain}, nil
	}
	local, domain, ok := strings.Cut(strings.TrimPrefix(s, "@"), ":")
	if !ok || !strings.HasPrefix(s, "@") {
		return Address{}, fmt.Errorf("%q is no Matrix user ID", s)
	}
	if ghost, isGhost := strings.CutPrefix(local, ghostPrefix); isGhost {
		return ParseAddress(unescape(ghost), XMPP)
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

// Spell returns the address as a client of the network names it.
func (r RoomAddress) Spell(n Network) string {
	switch {
	case n == XMPP:
		return r.Local + "@" + r.Service
	case r.Domain != ParleyDomain: // whose clients the only ones of Matrix are
		return "#" + ghostPrefix + escape(r.Local+"@"+r.Service) + ":" + ParleyDomain
	}
	return "#" + r.Local + ":" + r.Domain
}
