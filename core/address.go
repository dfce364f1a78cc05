package core

import (
	"errors"
	"fmt"
	"strings"
)

// Network names the network that an address lives on.
type Network string

// The networks that Parley knows. Local is this server itself: a local
// account is one and the same on every network.
const (
	Local       Network = "local"
	Matrix      Network = "matrix"
	XMPP        Network = "xmpp"
	Mail        Network = "mail"
	ActivityPub Network = "activitypub"
	IRC         Network = "irc"
)

// Networks lists every network, for tables and tests.
var Networks = []Network{Local, Matrix, XMPP, Mail, ActivityPub, IRC}

// Address names a person, a room or (with an empty Name) a whole server. Two
// addresses are the same if and only if they are equal, so whoever makes one
// from the wire normalises it first, by the rules of its network.
//
// Domain never contains '@'; Name may contain anything.
type Address struct {
	Network Network
	Name    string
	Domain  string
}

// LocalAddress is the address of an account or room hosted here.
func LocalAddress(name, domain string) Address {
	return Address{Network: Local, Name: name, Domain: domain}
}

// IsZero reports whether a names nothing at all.
func (a Address) IsZero() bool { return a == Address{} }

// IsLocal reports whether a is hosted here.
func (a Address) IsLocal() bool { return a.Network == Local }

// OccupantAddress names somebody in a room elsewhere of whom no more is known
// than the nick: the room's name and the nick, with a '/' between them, which
// no name of a room contains.
func OccupantAddress(room Address, nick string) Address {
	room.Name += "/" + nick
	return room
}

// Occupant takes apart what [OccupantAddress] made.
func (a Address) Occupant() (room Address, nick string, ok bool) {
	name, nick, ok := strings.Cut(a.Name, "/")
	if !ok || a.Network != XMPP {
		return Address{}, "", false
	}
	a.Name = name
	return a, nick, true
}

// Server is the address of the server that a lives on.
func (a Address) Server() Address { return Address{Network: a.Network, Domain: a.Domain} }

// String is the canonical spelling, "xmpp:carol@example.net", which
// [ParseAddress] reads back. It is the key under which the store keeps a.
func (a Address) String() string {
	if a.IsZero() {
		return ""
	}
	return string(a.Network) + ":" + a.Name + "@" + a.Domain
}

// Bare is "carol@example.net", for people to read and not for parsing.
func (a Address) Bare() string {
	if a.Name == "" {
		return a.Domain
	}
	return a.Name + "@" + a.Domain
}

// MarshalText implements encoding.TextMarshaler by [Address.String].
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler by [ParseAddress].
func (a *Address) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = Address{}
		return nil
	}
	p, err := ParseAddress(string(b))
	if err == nil {
		*a = p
	}
	return err
}

// ErrBadAddress is wrapped by every error about the form of an address.
var ErrBadAddress = errors.New("malformed address")

// ParseAddress reads what [Address.String] wrote.
func ParseAddress(s string) (Address, error) {
	network, rest, ok := strings.Cut(s, ":")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 || network == "" || at == len(rest)-1 {
		return Address{}, fmt.Errorf("%w: %q", ErrBadAddress, s)
	}
	return Address{Network: Network(network), Name: rest[:at], Domain: rest[at+1:]}, nil
}

// ParseLocal reads "alice@example.org" as a local address, lower-casing it and
// holding its name to [CheckName]. Reserved names are allowed here:
// who makes an account asks [Reserved] as well.
func ParseLocal(s string) (Address, error) {
	name, domain, ok := strings.Cut(strings.ToLower(strings.TrimSpace(s)), "@")
	if !ok || domain == "" || strings.ContainsRune(domain, '@') {
		return Address{}, fmt.Errorf("%w: %q is not of the form name@domain", ErrBadAddress, s)
	}
	if err := CheckName(name); err != nil {
		return Address{}, err
	}
	return LocalAddress(name, domain), nil
}

// MaxName is the longest name of a local account or room, in bytes.
const MaxName = 64

// CheckName holds a local name to the rule that every network can spell:
// lower-case letters, digits, '.', '_' and '-'; beginning and ending with a
// letter or digit; no two dots running; at most [MaxName] bytes. Callers
// lower-case first, because names are compared without case.
func CheckName(name string) error {
	bad := func(why string) error { return fmt.Errorf("%w: name %q %s", ErrBadAddress, name, why) }
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > MaxName:
		return bad("is longer than 64 characters")
	case !alnum(name[0]) || !alnum(name[len(name)-1]):
		return bad("must begin and end with a letter or digit")
	case strings.Contains(name, ".."):
		return bad("has two dots running")
	}
	for i := range len(name) {
		if c := name[i]; !alnum(c) && c != '.' && c != '_' && c != '-' {
			return bad(fmt.Sprintf("has the character %q; allowed are a-z, 0-9, '.', '_' and '-'", c))
		}
	}
	return nil
}

func alnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// reserved are the names that mean a role and not a person.
//
// spec: RFC 2142 §1
var reserved = func() map[string]bool {
	m := make(map[string]bool)
	for _, n := range strings.Fields(`abuse admin administrator all anonymous archive bounce bounces
		everyone ftp hostmaster info mailer-daemon marketing moderator news noc no-reply noreply
		nobody operator owner parley postmaster registrar root rooms sales security server support sysadmin
		system upload usenet uucp webmaster www`) {
		m[n] = true
	}
	return m
}()

// Reserved reports whether name stands for a role that no person may take.
func Reserved(name string) bool { return reserved[strings.ToLower(name)] }
