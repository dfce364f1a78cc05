package translate

import (
	"errors"
	"fmt"
	"strings"

	"mellium.im/xmpp/jid"

	"parley/core"
)

// JID is a normalised XMPP address that can be compared and be a key. The zero JID is none.
//
// spec: RFC 7622 §3
type JID struct {
	Local, Domain, Resource string
}

// ErrBadJID is wrapped by every error about the form of a JID.
var ErrBadJID = errors.New("malformed JID")

// ParseJID reads and normalises a JID.
func ParseJID(s string) (JID, error) {
	j, err := jid.Parse(s)
	if err != nil {
		return JID{}, fmt.Errorf("%w: %w", ErrBadJID, err)
	}
	return JID{Local: j.Localpart(), Domain: strings.ToLower(j.Domainpart()), Resource: j.Resourcepart()}, nil
}

// IsZero says whether j is no JID.
func (j JID) IsZero() bool { return j == JID{} }

// Bare is j without its resource.
func (j JID) Bare() JID { return JID{Local: j.Local, Domain: j.Domain} }

// With is j with another resource.
func (j JID) With(resource string) JID { return JID{j.Local, j.Domain, resource} }

// String writes j as it stands in an attribute.
func (j JID) String() string {
	s := j.Domain
	if j.Local != "" {
		s = j.Local + "@" + s
	}
	if j.Resource != "" {
		s += "/" + j.Resource
	}
	return s
}

// maxLocal is the longest localpart in bytes.
//
// spec: RFC 7622 §3.3
const maxLocal = 1023

// roomsPrefix begins the domain of the room service of a domain.
const roomsPrefix = "rooms."

// Names spells core addresses as JIDs and reads them back. Rooms and accounts share a name space in the core; as JIDs rooms are on
// the service "rooms." before the domain.
type Names struct {
	// Home is the domain under which addresses of other networks are spelled.
	Home string
	// Hosts says whether accounts of the domain live here.
	Hosts func(domain string) bool
	// Hashed finds the address that has a hashed spelling; nil where none is known.
	Hashed func(name string) (core.Address, bool)
}

func (n Names) speller() core.Speller {
	return core.Speller{Native: core.XMPP, Home: n.Home, Max: maxLocal}
}

// JID is the bare JID of a person or server; of the occupant of a room elsewhere it is her JID in the room.
func (n Names) JID(a core.Address) JID {
	if room, nick, ok := a.Occupant(); ok {
		return JID{Local: room.Name, Domain: room.Domain, Resource: nick}
	}
	name, domain, _ := n.speller().Spell(a)
	return JID{Local: name, Domain: domain}
}

// Address reads the JID of a person or server; a resource is passed over. A JID on a service of ours (rooms, upload) is none.
func (n Names) Address(j JID) (core.Address, error) {
	a, err := n.speller().Read(j.Local, j.Domain, n.Hosts)
	if errors.Is(err, core.ErrHashed) && n.Hashed != nil {
		if found, ok := n.Hashed(j.Local); ok {
			return found, nil
		}
	}
	return a, err
}

// Hashed says whether the JID of a needs the store to be read back, and if so which name it has.
func Hashed(n Names, a core.Address) (name string, hashed bool) {
	name, _, hashed = n.speller().Spell(a)
	return name, hashed
}

// RoomJID is the bare JID of a room hosted here, or of one elsewhere.
func (n Names) RoomJID(a core.Address) JID {
	j := n.JID(a)
	if a.Network != core.XMPP {
		j.Domain = roomsPrefix + j.Domain
	}
	return j
}

// RoomAddress reads the JID of a room.
func (n Names) RoomAddress(j JID) (core.Address, error) {
	if domain, ok := n.RoomsOf(j.Domain); ok {
		j.Domain = domain
		return n.Address(j)
	}
	return core.Address{Network: core.XMPP, Name: j.Local, Domain: j.Domain}, nil
}

// RoomsOf returns the hosted domain of which service is the room service.
func (n Names) RoomsOf(service string) (domain string, ok bool) {
	domain, ok = strings.CutPrefix(service, roomsPrefix)
	return domain, ok && n.Hosts(domain)
}

// ours says whether the domain is hosted here or is a service of one that is.
func (n Names) ours(domain string) bool {
	if n.Hosts(domain) {
		return true
	}
	_, parent, ok := strings.Cut(domain, ".")
	return ok && n.Hosts(parent)
}
