package core

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// A Speller writes the addresses of every network in the name space of one
// protocol, reversibly.
//
//	address                     Matrix                                    XMPP
//	local:alice@example.org     @alice:example.org                        alice@example.org
//	xmpp:carol@a.net            @_xmpp_carol=40a.net:example.org          carol@a.net
//	matrix:Dave@b.net           @Dave:b.net                               _matrix_=44ave=40b.net@example.org
//	xmpp:(600 bytes)@a.net      @_xmpp_+(hash):example.org                (600 bytes)@a.net
//
// An address that is at home in the protocol keeps its own spelling. Any
// other is `_network_` and the canonical name, with each byte outside
// [a-z0-9._-] as '=' and two lower-case hex digits, under this server's own
// domain. No local name begins with '_', so the two never collide. A spelling
// that would be longer than the protocol allows is `_network_+` and a hash,
// which only the store can turn back: see [ErrHashed].
type Speller struct {
	// Native is the protocol's own network, whose addresses need no spelling.
	Native Network
	// Home is the domain under which foreign addresses are spelled.
	Home string
	// Max is the most bytes that a name may have; longer ones are hashed.
	Max int
}

// ErrHashed says that a name is a hash, to be looked up in the store.
var ErrHashed = errors.New("hashed spelling")

// Spell returns the name and domain of a in the speller's protocol. hashed
// says that the name cannot be read back without the store.
func (s Speller) Spell(a Address) (name, domain string, hashed bool) {
	if a.Network == s.Native || a.Network == Local {
		return a.Name, a.Domain, false
	}
	prefix := "_" + string(a.Network) + "_"
	name = prefix + escape(a.Name+"@"+a.Domain)
	if len(name) <= s.Max {
		return name, s.Home, false
	}
	sum := sha256.Sum256([]byte(a.String()))
	return prefix + "+" + lower32.EncodeToString(sum[:20]), s.Home, true
}

// Read turns a name and domain of the protocol back into an address. local
// says which domains are hosted here.
func (s Speller) Read(name, domain string, local func(domain string) bool) (Address, error) {
	if !local(domain) {
		return Address{Network: s.Native, Name: name, Domain: domain}, nil
	}
	if !strings.HasPrefix(name, "_") {
		return LocalAddress(name, domain), nil
	}
	network, rest, ok := strings.Cut(name[1:], "_")
	if !ok || !known(Network(network)) || Network(network) == s.Native || domain != s.Home {
		return Address{}, fmt.Errorf("%w: %q", ErrBadAddress, name)
	}
	if strings.HasPrefix(rest, "+") {
		return Address{}, fmt.Errorf("%w: %q", ErrHashed, name)
	}
	plain, ok := unescape(rest)
	at := strings.LastIndexByte(plain, '@')
	if !ok || at < 0 || at == len(plain)-1 {
		return Address{}, fmt.Errorf("%w: %q", ErrBadAddress, name)
	}
	return Address{Network: Network(network), Name: plain[:at], Domain: plain[at+1:]}, nil
}

func known(n Network) bool {
	for _, k := range Networks {
		if n == k && n != Local {
			return true
		}
	}
	return false
}

var lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const lowerHex = "0123456789abcdef"

func plainByte(c byte) bool { return alnum(c) || c == '.' || c == '_' || c == '-' }

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plainByte(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'=', lowerHex[c>>4], lowerHex[c&15]})
		}
	}
	return b.String()
}

// unescape is strict: what escape would not have written is refused, so that
// one address has one spelling.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case plainByte(c):
			b.WriteByte(c)
		case c != '=' || i+2 >= len(s):
			return "", false
		default:
			hi, lo := strings.IndexByte(lowerHex, s[i+1]), strings.IndexByte(lowerHex, s[i+2])
			if hi < 0 || lo < 0 || plainByte(byte(hi<<4|lo)) {
				return "", false
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		}
	}
	return b.String(), true
}
