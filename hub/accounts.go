package hub

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // SCRAM-SHA-1 is what older XMPP clients speak
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"parley/core"
)

// ScramIterations is how often the hash is run: what OWASP asks for of
// PBKDF2-HMAC-SHA-256 would cost a client seconds at each login, and RFC 7677
// asks for 4096 at the least.
const ScramIterations = 20_000

// newCredentials derives verifiers from a password that was prepared already.
//
// spec: RFC 5802 §3
// spec: RFC 7677 §3
func newCredentials(password string) (Credentials, error) {
	c := Credentials{Salt: make([]byte, 16), Iterations: ScramIterations}
	_, _ = rand.Read(c.Salt) // never fails: crypto/rand crashes the program first
	var err error
	if c.StoredKey1, c.ServerKey1, err = scramKeys(sha1.New, password, c.Salt, c.Iterations); err != nil {
		return c, err
	}
	c.StoredKey256, c.ServerKey256, err = scramKeys(sha256.New, password, c.Salt, c.Iterations)
	return c, err
}

func scramKeys(h func() hash.Hash, password string, salt []byte, n int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(h, password, salt, n, h().Size())
	if err != nil {
		return nil, nil, fmt.Errorf("deriving a SCRAM key: %w", err)
	}
	mac := func(key []byte, s string) []byte {
		m := hmac.New(h, key)
		m.Write([]byte(s))
		return m.Sum(nil)
	}
	sum := h()
	sum.Write(mac(salted, "Client Key"))
	return sum.Sum(nil), mac(salted, "Server Key"), nil
}

// check reports whether a password is the one behind c, in constant time.
func (c Credentials) check(password string) bool {
	if len(c.StoredKey256) == 0 {
		return false
	}
	stored, _, err := scramKeys(sha256.New, password, c.Salt, c.Iterations)
	return err == nil && hmac.Equal(stored, c.StoredKey256)
}

// ErrPassword is what CheckPassword returns for every wrong name or password
// alike.
var ErrPassword = Refuse(Forbidden, "wrong name or password")

// minPassword and maxPassword bound a password, in bytes.
const (
	minPassword = 8
	maxPassword = 1024
)

// CreateAccount makes an account.
func (h *Hub) CreateAccount(ctx context.Context, a core.Address, password string) error {
	if !h.ours(a) {
		return Refuse(Bad, "%s is not a domain of this server", a.Domain)
	}
	if err := core.CheckName(a.Name); err != nil {
		return Refuse(Bad, "%v", err)
	}
	if core.Reserved(a.Name) {
		return Refuse(Forbidden, "the name %s is reserved", a.Name)
	}
	creds, err := h.credentials(password)
	if err != nil {
		return err
	}
	return h.turn(ctx, func(t *turn) error {
		if _, err := t.tx.Account(a); !errors.Is(err, ErrNone) {
			if err != nil {
				return err
			}
			return Refuse(Conflict, "the name %s is taken", a.Name)
		}
		return t.tx.PutAccount(Account{Address: a, Created: t.now, Strangers: h.cfg.Strangers, Credentials: creds})
	})
}

func (h *Hub) credentials(password string) (Credentials, error) {
	password, err := h.prepare(password)
	switch {
	case err != nil:
		return Credentials{}, Refuse(Bad, "this password cannot be used: %v", err)
	case len(password) < minPassword:
		return Credentials{}, Refuse(Bad, "a password needs at least %d characters", minPassword)
	case len(password) > maxPassword:
		return Credentials{}, Refuse(Bad, "a password has at most %d characters", maxPassword)
	}
	return newCredentials(password)
}

func (h *Hub) prepare(password string) (string, error) {
	if h.cfg.Prepare == nil || len(password) > maxPassword {
		return password, nil
	}
	return h.cfg.Prepare(password)
}

// decoy makes checking the password of nobody as slow as that of somebody.
var decoy = Credentials{Salt: make([]byte, 16), Iterations: ScramIterations, StoredKey256: make([]byte, sha256.Size)}

// CheckPassword returns nil or [ErrPassword], unless the store failed.
func (h *Hub) CheckPassword(ctx context.Context, a core.Address, password string) error {
	acc, err := h.Account(ctx, a)
	if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	creds := acc.Credentials
	if err != nil || acc.Disabled {
		creds = decoy
	}
	prepared, err := h.prepare(password)
	if err != nil || len(prepared) > maxPassword || !creds.check(prepared) {
		return ErrPassword
	}
	return nil
}

// Account returns an account, [ErrNone] if there is none. What cannot be a
// name, and what no database takes as text, is nobody's.
func (h *Hub) Account(ctx context.Context, a core.Address) (acc Account, err error) {
	if core.CheckName(a.Name) != nil {
		return acc, ErrNone
	}
	err = h.Read(ctx, func(v View) error {
		acc, err = v.Account(a)
		return err
	})
	return acc, err
}

// Accounts returns all accounts, in the order of their addresses.
func (h *Hub) Accounts(ctx context.Context) (all []Account, err error) {
	err = h.Read(ctx, func(v View) error {
		all, err = v.Accounts()
		return err
	})
	return all, err
}

// change changes one account's row.
func (h *Hub) change(ctx context.Context, a core.Address, f func(*Account)) error {
	return h.turn(ctx, func(t *turn) error {
		acc, err := t.tx.Account(a)
		if err != nil {
			return refuseNone(err, "there is no account "+a.Bare())
		}
		f(&acc)
		return t.tx.PutAccount(acc)
	})
}

// SetPassword gives an account another password.
func (h *Hub) SetPassword(ctx context.Context, a core.Address, password string) error {
	creds, err := h.credentials(password)
	if err != nil {
		return err
	}
	return h.change(ctx, a, func(acc *Account) { acc.Credentials = creds })
}

// SetStrangers sets what an account wants done with strangers.
func (h *Hub) SetStrangers(ctx context.Context, a core.Address, s core.Strangers) error {
	switch s {
	case core.Deliver, core.Hold, core.Refuse:
	default:
		return Refuse(Bad, "strangers can be delivered, held or refused")
	}
	return h.change(ctx, a, func(acc *Account) { acc.Strangers = s })
}

// Disable ends an account's sessions and lets nobody log in, or undoes that.
func (h *Hub) Disable(ctx context.Context, a core.Address, disabled bool) error {
	if err := h.change(ctx, a, func(acc *Account) { acc.Disabled = disabled }); err != nil {
		return err
	}
	if disabled {
		h.sessions.closeOf(a)
	}
	return nil
}

// DeleteAccount takes an account out of every conversation and off every list,
// and deletes what is its own. Its name is not given to another.
func (h *Hub) DeleteAccount(ctx context.Context, a core.Address) error {
	if err := h.Disable(ctx, a, true); err != nil {
		return err
	}
	contacts, _, err := h.Contacts(ctx, a)
	if err != nil {
		return err
	}
	for _, c := range contacts {
		if err := h.RemoveContact(ctx, a, c.Address); err != nil && CodeOf(err) == "" {
			return err
		}
	}
	return h.turn(ctx, func(t *turn) error {
		places, err := t.tx.Places(a)
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Standing != core.Joined && p.Standing != core.Invited && p.Standing != core.Knocked {
				continue
			}
			_, err := t.admit(Draft{Conv: p.Conv, Sender: a, Content: core.Membership{Target: a, Standing: core.Left}})
			if err != nil && CodeOf(err) == "" {
				return err
			}
		}
		return t.tx.DeleteAccount(a)
	})
}
