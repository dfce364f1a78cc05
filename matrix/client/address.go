package client

import (
	"errors"
	"net/http"

	"parley/core"
	"parley/matrix/translate"
)

// Names spells addresses as Matrix identifiers and reads them back, with the
// errors of this API.
type Names struct{ translate.Names }

// UserID is what Matrix calls a.
func (n Names) UserID(a core.Address) string {
	id, _ := n.Names.UserID(a)
	return id
}

// Address reads a user ID.
//
// spec: MX 1.19 AP §4.3.1
func (n Names) Address(userID string) (core.Address, error) {
	a, err := n.Names.Address(userID)
	if errors.Is(err, core.ErrHashed) {
		return a, Errorf(http.StatusNotFound, NotFound, "There is no such user.")
	}
	if err != nil {
		return a, Errorf(http.StatusBadRequest, InvalidParam, "That is not a valid user ID.")
	}
	return a, nil
}

// RoomAddress reads a room alias.
//
// spec: MX 1.19 AP §4.3.3
func (n Names) RoomAddress(alias string) (core.Address, error) {
	a, err := n.Names.RoomAddress(alias)
	if err != nil {
		return a, Errorf(http.StatusBadRequest, InvalidParam, "That is not a valid room alias.")
	}
	return a, nil
}
