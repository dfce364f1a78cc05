package translate

import (
	"errors"
	"fmt"
	"strings"

	"parley/core"
	"parley/matrix/wire"
)

// Names turns Matrix identifiers into addresses and back.
type Names struct {
	// Home is the domain under which foreign addresses are spelled and files
	// are stored; Hosts reports whether a domain is hosted here.
	Home  string
	Hosts func(domain string) bool
	// Hashed finds the address behind a hashed spelling; nil finds none.
	Hashed func(localpart string) (core.Address, bool)
}

func (n Names) speller() core.Speller {
	return core.Speller{Native: core.Matrix, Home: n.Home, Max: wire.MaxLocalpart(n.Home)}
}

// UserID is the user ID of a person. hashed says that it reads back only if
// the address is kept for [Names.Hashed].
func (n Names) UserID(a core.Address) (id string, hashed bool) {
	name, domain, hashed := n.speller().Spell(a)
	return "@" + name + ":" + domain, hashed
}

// Address is the person with a user ID. It is an error wrapping
// [core.ErrBadAddress] or [wire.ErrID] if there can be no such person, for one
// a localpart under a domain of ours that no spelling has.
//
// spec: MX 1.19 AP §4.3.1
func (n Names) Address(userID string) (core.Address, error) {
	localpart, domain, err := wire.ParseUserID(userID)
	if err != nil {
		return core.Address{}, err
	}
	a, err := n.speller().Read(localpart, domain, n.Hosts)
	if errors.Is(err, core.ErrHashed) && n.Hashed != nil {
		if a, ok := n.Hashed(localpart); ok {
			return a, nil
		}
	}
	if err != nil {
		return core.Address{}, err
	}
	if a.IsLocal() {
		if err := core.CheckName(a.Name); err != nil {
			return core.Address{}, err
		}
	}
	return a, nil
}

// Alias is the room alias of a room's address: "#garden:example.org" for the
// room garden@example.org. It is "" where Matrix has no way to spell it.
func (n Names) Alias(a core.Address) string {
	name, domain, hashed := n.speller().Spell(a)
	if hashed {
		return ""
	}
	return "#" + name + ":" + domain
}

// RoomAddress is the address that a room alias spells.
//
// spec: MX 1.19 AP §4.3.3
func (n Names) RoomAddress(alias string) (core.Address, error) {
	localpart, domain, err := wire.ParseAlias(alias)
	if err != nil {
		return core.Address{}, err
	}
	a, err := n.speller().Read(localpart, domain, n.Hosts)
	if err != nil {
		return core.Address{}, err
	}
	if a.IsLocal() {
		if err := core.CheckName(a.Name); err != nil {
			return core.Address{}, err
		}
	}
	return a, nil
}

// MXC is the content URI of a file that is stored or named here.
//
// spec: MX 1.19 CS §10.9.1
func (n Names) MXC(id core.MediaID) string { return wire.MXC(n.Home, string(id)) }

// File is the reference that a content URI makes: to a file here, or to one
// elsewhere by its URI.
func (n Names) File(uri string) (core.File, error) {
	server, id, err := wire.ParseMXC(uri)
	if err != nil {
		return core.File{}, err
	}
	if n.Hosts(server) {
		return core.File{Media: core.MediaID(id)}, nil
	}
	return core.File{URL: uri}, nil
}

// URI is the content URI of a reference. It is false for a file that is only
// a link elsewhere. A file of another Matrix server keeps its own, whatever
// name it has here.
func (n Names) URI(f core.File) (string, bool) {
	if f.Media != "" && !strings.HasPrefix(f.URL, "mxc://") {
		return n.MXC(f.Media), true
	}
	return f.URL, strings.HasPrefix(f.URL, "mxc://")
}

// errUser says which key held a bad user ID.
func errUser(key string, err error) error { return fmt.Errorf("%w: %s: %w", ErrContent, key, err) }
