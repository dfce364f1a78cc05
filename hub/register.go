package hub

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Registers says whether clients may make accounts at all, with or without a
// token.
func (h *Hub) Registers() bool { return h.cfg.Registration == "open" || h.NeedsToken() }

// NeedsToken says whether it takes a registration token to make an account.
func (h *Hub) NeedsToken() bool { return h.cfg.Registration == "token" }

// MayRegister refuses who may not make an account. Every protocol asks it
// before it makes one for a client; it takes the same time for every wrong
// token. How many guesses one may make is the caller's to count.
func (h *Hub) MayRegister(token string) error {
	switch {
	case !h.Registers():
		return Refuse(Forbidden, "accounts are made by the operator of this server")
	case !h.NeedsToken():
		return nil
	}
	given, ok := sha256.Sum256([]byte(token)), 0
	for _, t := range h.cfg.RegistrationTokens {
		want := sha256.Sum256([]byte(t))
		ok |= subtle.ConstantTimeCompare(want[:], given[:])
	}
	if ok != 1 {
		return Refuse(Forbidden, "that is not a registration token")
	}
	return nil
}
