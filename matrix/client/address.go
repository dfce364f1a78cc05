package client

import (
	"errors"
	"net/http"
	"strings"

	"parley/core"
)

// maxID is the most bytes of a user ID, room ID or alias.
//
// spec: MX 1.19 AP §4.2
const maxID = 255

// Names spells addresses as Matrix identifiers and reads them back.
type Names struct {
	// Home is the domain under which people of other networks are spelled.
	Home string
	// Hosts says which domains are hosted here.
	Hosts func(domain string) bool
}

func (n Names) speller() core.Speller {
	return core.Speller{Native: core.Matrix, Home: n.Home, Max: maxID - len("@:") - len(n.Home)}
}

// UserID is what Matrix calls a.
func (n Names) UserID(a core.Address) string {
	name, domain, _ := n.speller().Spell(a)
	return "@" + name + ":" + domain
}

// Alias is what Matrix calls the room at a.
func (n Names) Alias(a core.Address) string {
	name, domain, _ := n.speller().Spell(a)
	return "#" + name + ":" + domain
}

// ErrHashed is wrapped where only the store knows who is meant.
var ErrHashed = core.ErrHashed

// Address reads a user ID.
func (n Names) Address(userID string) (core.Address, error) { return n.read('@', "user ID", userID) }

// RoomAddress reads a room alias.
func (n Names) RoomAddress(alias string) (core.Address, error) {
	return n.read('#', "room alias", alias)
}

func (n Names) read(sigil byte, what, id string) (core.Address, error) {
	bad := func() error {
		return Errorf(http.StatusBadRequest, InvalidParam, "That is not a valid %s.", what)
	}
	if len(id) < 3 || len(id) > maxID || id[0] != sigil || strings.ContainsRune(id, 0) {
		return core.Address{}, bad()
	}
	// A server name may have a port, so the first colon divides; historical
	// names may hold anything but a colon.
	name, domain, ok := strings.Cut(id[1:], ":")
	if !ok || domain == "" || strings.ContainsAny(domain, "@/ ") {
		return core.Address{}, bad()
	}
	a, err := n.speller().Read(name, domain, n.Hosts)
	if errors.Is(err, core.ErrHashed) {
		return core.Address{}, err
	}
	if err != nil {
		return core.Address{}, bad()
	}
	return a, nil
}
