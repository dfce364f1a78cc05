package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrID is wrapped by every error about the form of an identifier.
var ErrID = errors.New("malformed identifier")

func badID(s, why string) error { return fmt.Errorf("%w: %.80q %s", ErrID, s, why) }

// ParseUserID takes apart a user ID, by the historical rules that servers must
// accept: any localpart without ':' and NUL.
//
// spec: MX 1.19 AP §4.3.1
func ParseUserID(id string) (localpart, server string, err error) { return split(id, '@') }

// ParseAlias takes apart a room alias.
//
// spec: MX 1.19 AP §4.3.3
func ParseAlias(id string) (localpart, server string, err error) {
	localpart, server, err = split(id, '#')
	if err == nil && localpart == "" {
		err = badID(id, "has no name")
	}
	return localpart, server, err
}

// CheckLocalpart holds the localpart of a new user ID to the strict grammar.
//
// spec: MX 1.19 AP §4.3.1
func CheckLocalpart(localpart string) error {
	if localpart == "" {
		return badID(localpart, "is empty")
	}
	for i := range len(localpart) {
		c := localpart[i]
		if ('a' > c || c > 'z') && ('0' > c || c > '9') && strings.IndexByte("-.=_/+", c) < 0 {
			return badID(localpart, "may hold only a-z, 0-9 and -.=_/+")
		}
	}
	return nil
}

// split takes apart "&localpart:server".
//
// spec: MX 1.19 AP §4.3
func split(id string, sigil byte) (localpart, server string, err error) {
	switch {
	case len(id) > MaxField:
		return "", "", badID(id, "is longer than 255 bytes")
	case id == "" || id[0] != sigil:
		return "", "", badID(id, fmt.Sprintf("does not begin with %q", sigil))
	case !utf8.ValidString(id) || strings.IndexByte(id, 0) >= 0:
		return "", "", badID(id, "has a NUL or is not UTF-8")
	}
	localpart, server, ok := strings.Cut(id[1:], ":")
	if !ok {
		return "", "", badID(id, "names no server")
	}
	return localpart, server, ParseServerName(server)
}

// CheckRoomID holds a room ID to the grammar of either form.
//
// spec: MX 1.19 AP §4.3.2
func CheckRoomID(id string) error {
	if strings.IndexByte(id, ':') < 0 {
		return opaque(id, '!')
	}
	_, _, err := split(id, '!')
	return err
}

// CheckEventID holds an event ID of room version 4 or later to its grammar.
//
// spec: MX 1.19 AP §4.3.4
func CheckEventID(id string) error { return opaque(id, '$') }

// hashLength is how long a SHA-256 sum is in unpadded base64.
const hashLength = 43

func opaque(id string, sigil byte) error {
	if len(id) != 1+hashLength || id[0] != sigil {
		return badID(id, "is not a hash with its sigil")
	}
	for i := 1; i < len(id); i++ {
		c := id[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '-' && c != '_' {
			return badID(id, "is not URL-safe base64")
		}
	}
	return nil
}

// ParseServerName holds a server name to its grammar.
//
// spec: MX 1.19 AP §4.2
func ParseServerName(name string) error {
	if name == "" || len(name) > MaxField {
		return badID(name, "is no server name")
	}
	host, port := name, ""
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		host, port = name[:i], name[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || len(port) > 5 {
			return badID(name, "has a bad port")
		}
	}
	if strings.HasPrefix(host, "[") {
		inner, ok := strings.CutSuffix(host[1:], "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return badID(name, "has a bad IPv6 address")
		}
		return nil
	}
	if host == "" {
		return badID(name, "names no host")
	}
	for i := range len(host) {
		c := host[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '-' && c != '.' {
			return badID(name, "has a character that no host name may have")
		}
	}
	return nil
}

// MaxLocalpart is how long a localpart under a domain may be, in bytes.
func MaxLocalpart(domain string) int { return MaxField - len("@:") - len(domain) }

// MXC writes a content URI.
//
// spec: MX 1.19 CS §10.9.1
func MXC(server, mediaID string) string { return "mxc://" + server + "/" + mediaID }

// ParseMXC takes apart a content URI.
//
// spec: MX 1.19 CS §10.9.1
func ParseMXC(uri string) (server, mediaID string, err error) {
	rest, ok := strings.CutPrefix(uri, "mxc://")
	server, mediaID, found := strings.Cut(rest, "/")
	if !ok || !found || len(uri) > 2*MaxField || mediaID == "" {
		return "", "", badID(uri, "is no mxc URI")
	}
	for i := range len(mediaID) {
		c := mediaID[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '-' && c != '_' {
			return "", "", badID(uri, "has a media ID with other characters than a-z, A-Z, 0-9, '-' and '_'")
		}
	}
	return server, mediaID, ParseServerName(server)
}
