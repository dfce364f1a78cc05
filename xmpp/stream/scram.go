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
}

// claim normalises an authentication identity, and checks that the authorisation identity, if there is one, is the same account.
//
// spec: RFC 6120 §6.3.8
func (id *identity) claim(authcid, authzid string) (local string, err error) {
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
	fake     func(local string) ScramKeys

	conv   *scram.ServerConversation
	local  string
	keys   ScramKeys
	failed error // why the keys could not be looked up
}

func (m *scramMechanism) step(ctx context.Context, in []byte) ([]byte, bool, error) {
	if m.conv == nil {
		if err := m.start(ctx, string(in)); err != nil {
			return nil, false, err
		}
	}
	out, err := m.conv.Step(string(in))
	switch {
	case m.failed != nil:
		return nil, false, m.failed
	case err != nil && out == "":
		return nil, false, refuse("malformed-request", "not a SCRAM message")
	case err != nil: // the library's error quotes the exchange, which must not be logged
		return nil, false, refuse("not-authorized", "%s", strings.TrimPrefix(out, "e="))
	case !m.conv.Done():
		return []byte(out), false, nil
	case !m.conv.Valid():
		return nil, false, refuse("not-authorized", "proof is wrong")
	case m.keys.Disabled:
		return nil, false, &saslFailure{condition: "account-disabled", err: ErrDisabled}
	}
	// The authorisation identity is known only now that the first message was parsed by the library.
	if _, err := m.id.claim(m.conv.Username(), m.conv.AuthzID()); err != nil {
		return nil, false, err
	}
	m.id.local = m.local
	return []byte(out), true, nil
}

// start picks the channel binding that the first message names and begins the exchange. A client which says that it could bind but
// that we did not offer to ("y") is refused by the library, because we always offer: someone took the offer out.
//
// spec: RFC 5802 §6
func (m *scramMechanism) start(ctx context.Context, first string) error {
	flag, _, _ := strings.Cut(first, ",")
	kind, binds := strings.CutPrefix(flag, "p=")
	if binds != m.plus {
		return refuse("malformed-request", "channel binding does not fit the mechanism")
	}
	var binding scram.ChannelBinding
	for _, b := range m.bindings {
		if !binds || string(b.Type) == kind {
			binding = b
			break
		}
	}
	if binds && !binding.IsSupported() {
		return refuse("not-authorized", "channel binding of another type than announced")
	}
	generator := scram.SHA256
	if m.hash == ScramSHA1 {
		generator = scram.SHA1
	}
	server, err := generator.NewServer(func(username string) (scram.StoredCredentials, error) {
		return m.lookup(ctx, username)
	})
	if err != nil {
		return err
	}
	m.conv = server.NewConversationWithChannelBinding(binding)
	return nil
}

// lookup never says that an account is unknown: there are made-up keys for each that is, always the same.
func (m *scramMechanism) lookup(ctx context.Context, username string) (scram.StoredCredentials, error) {
	local, err := m.id.claim(username, "")
	if err == nil {
		m.keys, err = m.auth.ScramKeys(ctx, m.id.domain, local, m.hash)
	} else {
		local = username
	}
	switch {
	case errors.Is(err, ErrNoAccount):
		m.keys = m.fake(local)
	case err != nil:
		m.failed = err
		return scram.StoredCredentials{}, err
	}
	m.local = local
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(m.keys.Salt), Iters: m.keys.Iterations},
		StoredKey:  m.keys.StoredKey, ServerKey: m.keys.ServerKey,
	}, nil
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
	c.mu.Lock()
	leaf := c.leaf
	c.mu.Unlock()
	cert, err := x509.ParseCertificate(leaf)
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
