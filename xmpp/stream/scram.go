package stream

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/scram"
	"mellium.im/xmpp/jid"
)

// ScramHash names a hash function of SCRAM, as in the mechanism without "-PLUS".
type ScramHash string

// The hash functions, for each of which an account has its own keys.
//
// spec: RFC 5802 §4
// spec: RFC 7677 §3
const (
	ScramSHA1   ScramHash = "SCRAM-SHA-1"
	ScramSHA256 ScramHash = "SCRAM-SHA-256"
)

// ScramKeys is what is stored in place of a password.
//
// spec: RFC 5802 §3
type ScramKeys struct {
	// Salt must be 16 bytes, as the made-up ones of unknown accounts are.
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
	// Disabled says that the account may not log in; only who proves to know its password is told.
	Disabled bool
}

// Authenticator knows the accounts. Names are normalised as RFC 7622 says; domain is one that is hosted.
type Authenticator interface {
	// ScramKeys returns the keys of an account, or ErrNoAccount if there is no such account or no such keys, which the peer cannot
	// tell from a wrong password. Other errors are told as temporary.
	ScramKeys(ctx context.Context, domain, local string, hash ScramHash) (ScramKeys, error)
	// Plain checks a password: nil, ErrNoAccount for an unknown account or a wrong password after the same work for both,
	// ErrDisabled for a right password that may not be used, or other errors, which are told as temporary.
	Plain(ctx context.Context, domain, local, password string) error
}

// What an Authenticator may say.
var (
	ErrNoAccount = errors.New("no such account or wrong password")
	ErrDisabled  = errors.New("account is disabled")
)

// identity is who the peer of an exchange turns out to be.
type identity struct {
	domain string
	local  string // set when the exchange has succeeded
	// component says that it is no account of the domain: local is a domain itself.
	component bool
}

// claim normalises an authentication identity, and checks that the authorisation identity, if there is one, is the same account.
//
// spec: RFC 6120 §6.3.8
func (id *identity) claim(authcid, authzid string) (local string, err error) {
	if id.component {
		return claimDomain(authcid, authzid)
	}
	j, err := jid.New(authcid, id.domain, "")
	if err != nil || j.Localpart() == "" {
		return "", ErrNoAccount
	}
	if authzid != "" {
		z, err := jid.Parse(authzid)
		if err != nil || !z.Equal(j) {
			return "", refuse("invalid-authzid", "another account than the one that authenticates")
		}
	}
	return j.Localpart(), nil
}

// scramMechanism is the server's side of SCRAM with or without channel binding.
type scramMechanism struct {
	id       *identity
	auth     Authenticator
	hash     ScramHash
	plus     bool
	bindings []scram.ChannelBinding // those that were announced
	offer    string                 // see offered
	fake     func(local string) ScramKeys

	conv  *scramConversation
	local string
	keys  ScramKeys
}

func (m *scramMechanism) step(ctx context.Context, in []byte) ([]byte, bool, error) {
	if m.conv == nil {
		out, err := m.start(ctx, string(in))
		return []byte(out), false, err
	}
	out, err := m.conv.final(string(in))
	switch {
	case errors.Is(err, errScramMessage):
		return nil, false, &saslFailure{condition: "malformed-request", err: err}
	case err != nil:
		return nil, false, &saslFailure{condition: "not-authorized", err: err}
	case m.keys.Disabled:
		return nil, false, &saslFailure{condition: "account-disabled", err: ErrDisabled}
	}
	if _, err := m.id.claim(m.conv.authcid, m.conv.authzid); err != nil {
		return nil, false, err
	}
	m.id.local = m.local
	return []byte(out), true, nil
}

// start picks the channel binding that the first message names and begins the exchange. A client which says that it could bind but
// that we did not offer to ("y") is refused where we did: someone took the offer out.
//
// spec: RFC 5802 §6
func (m *scramMechanism) start(ctx context.Context, first string) (string, error) {
	conv := &scramConversation{hash: m.hash, offer: m.offer}
	if err := conv.first(first); err != nil {
		return "", &saslFailure{condition: "malformed-request", err: err}
	}
	flag, _, _ := strings.Cut(first, ",")
	kind, binds := strings.CutPrefix(flag, "p=")
	switch {
	case binds != m.plus:
		return "", refuse("malformed-request", "channel binding does not fit the mechanism")
	case flag == "y" && len(m.bindings) > 0:
		return "", unproven("the offer of channel binding did not reach the client")
	}
	if binds {
		for _, b := range m.bindings {
			if string(b.Type) == kind {
				conv.binding = b.Data
			}
		}
		if conv.binding == nil {
			return "", unproven("channel binding of another type than announced")
		}
	}
	if err := m.lookup(ctx, conv.authcid); err != nil {
		return "", err
	}
	m.conv = conv
	return conv.challenge(m.keys), nil
}

// unproven refuses a client that speaks of channel binding otherwise than we do, before it has proved anything.
func unproven(why string) error {
	return &saslFailure{condition: "not-authorized", err: errors.New(why), unproven: true}
}

// lookup never says that an account is unknown: there are made-up keys for each that is, always the same.
func (m *scramMechanism) lookup(ctx context.Context, username string) error {
	local, err := m.id.claim(username, "")
	if err == nil {
		m.keys, err = m.auth.ScramKeys(ctx, m.id.domain, local, m.hash)
	} else {
		local = username
	}
	if errors.Is(err, ErrNoAccount) {
		m.keys, err = m.fake(local), nil
	}
	m.local = local
	return err
}

// fakeKeys makes keys for an account that does not exist. They are the same each time, fit no password, and cannot be told from
// real ones by who does not know the secret.
//
// spec: RFC 5802 §9
func fakeKeys(secret []byte, hash ScramHash, iterations int, domain, local string) ScramKeys {
	derive := func(use string) []byte {
		mac := hmac.New(sha256.New, secret)
		for _, part := range []string{use, string(hash), domain, local} {
			mac.Write([]byte(part))
			mac.Write([]byte{0})
		}
		return mac.Sum(nil)
	}
	size := sha256.Size
	if hash == ScramSHA1 {
		size = sha1.Size
	}
	return ScramKeys{Salt: derive("salt")[:16], Iterations: iterations,
		StoredKey: derive("stored")[:size], ServerKey: derive("server")[:size]}
}

// plainMechanism is PLAIN, which is offered under TLS only.
//
// spec: RFC 4616 §2
type plainMechanism struct {
	id   *identity
	auth Authenticator
}

func (m *plainMechanism) step(ctx context.Context, in []byte) ([]byte, bool, error) {
	parts := bytes.Split(in, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 || !utf8.Valid(in) {
		return nil, false, refuse("malformed-request", "not a PLAIN message")
	}
	local, err := m.id.claim(string(parts[1]), string(parts[0]))
	if err == nil {
		err = m.auth.Plain(ctx, m.id.domain, local, string(parts[2]))
	}
	switch {
	case errors.Is(err, ErrNoAccount):
		return nil, false, &saslFailure{condition: "not-authorized", err: err}
	case errors.Is(err, ErrDisabled):
		return nil, false, &saslFailure{condition: "account-disabled", err: err}
	case err != nil:
		return nil, false, err
	}
	m.id.local = local
	return nil, true, nil
}

// channelBindings are those that this connection has, the stronger first.
//
// spec: RFC 9266 §2
// spec: RFC 5929 §4.1
func (c *Conn) channelBindings() []scram.ChannelBinding {
	state, ok := c.TLS()
	if !ok {
		return nil
	}
	var out []scram.ChannelBinding
	if b, err := scram.NewTLSExporterBinding(&state); err == nil {
		out = append(out, b)
	}
	cert, err := x509.ParseCertificate(c.wire.leaf)
	if err != nil {
		return out
	}
	// The library looks at the certificate of the peer, as a client does; here it is our own.
	state.PeerCertificates = []*x509.Certificate{cert}
	if b, err := scram.NewTLSServerEndpointBinding(&state); err == nil {
		out = append(out, b)
	}
	return out
}
