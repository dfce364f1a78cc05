package stream

import (
	"context"
	"errors"
	"net/netip"
)

// Logins counts the logins that have failed, under names for who tried and for whom.
type Logins interface {
	// Exhausted says whether so many have failed under a name that no more may be tried for now.
	Exhausted(name string) bool
	// Failed notes one.
	Failed(name string)
}

// errTooManyLogins is told as a temporary failure: the password is not looked at.
var errTooManyLogins = errors.New("too many logins have failed")

// held is a mechanism that is held to how many logins may fail from one network address and for one account.
//
// spec: RFC 6120 §13.5
type held struct {
	mechanism
	n *clientNegotiation
}

// step refuses before anything is computed, and counts what failed because the peer did not know the password.
func (h held) step(ctx context.Context, in []byte) (out []byte, done bool, err error) {
	where := h.n.where()
	if where != "" && h.n.s.Logins.Exhausted(where) {
		return nil, false, errTooManyLogins
	}
	out, done, err = h.mechanism.step(ctx, in)
	if guessed(err) {
		if where != "" {
			h.n.s.Logins.Failed(where)
		}
		if h.n.tried != "" {
			h.n.s.Logins.Failed(h.n.tried)
		}
	}
	return out, done, err
}

// guessed says whether a login failed because the peer did not know the password.
func guessed(err error) bool {
	f, ok := errors.AsType[*saslFailure](err)
	return ok && f.condition == "not-authorized" && !f.unproven
}

// hold holds a mechanism to the limits, if there are any.
func (n *clientNegotiation) hold(m mechanism) mechanism {
	n.tried = ""
	if m == nil || n.s.Logins == nil {
		return m
	}
	return held{m, n}
}

// Network is the peer's network address as limits are counted by it: its IPv4 address or IPv6 /64.
func (c *Conn) Network() string { return prefixOf(c.RemoteAddr()).String() }

// where is what an attempt from the peer's address is counted under; "" for the loopback address, where a proxy speaks for everybody.
func (n *clientNegotiation) where() string {
	p := prefixOf(n.c.RemoteAddr())
	if !p.IsValid() || p.Addr().IsLoopback() || p.Masked() == netip.MustParsePrefix("::/64") {
		return ""
	}
	return p.String()
}

// limited is the Authenticator, but for accounts for which too many logins have failed.
type limited struct {
	Authenticator
	n *clientNegotiation
}

func (n *clientNegotiation) authenticator() Authenticator {
	if n.s.Logins == nil {
		return n.s.Authenticator
	}
	return limited{n.s.Authenticator, n}
}

func (l limited) try(domain, local string) error {
	l.n.tried = local + "@" + domain
	if l.n.s.Logins.Exhausted(l.n.tried) {
		return errTooManyLogins
	}
	return nil
}

func (l limited) ScramKeys(ctx context.Context, domain, local string, hash ScramHash) (ScramKeys, error) {
	if err := l.try(domain, local); err != nil {
		return ScramKeys{}, err
	}
	return l.Authenticator.ScramKeys(ctx, domain, local, hash)
}

func (l limited) Plain(ctx context.Context, domain, local, password string) error {
	if err := l.try(domain, local); err != nil {
		return err
	}
	return l.Authenticator.Plain(ctx, domain, local, password)
}
