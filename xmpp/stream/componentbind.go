package stream

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/subtle"
	"net/netip"

	"parley/xmpp/element"
)

// NSComponentBind is the namespace in which a component on a stream of jabber:client binds its domains.
//
// spec: XEP-0225 §4
const NSComponentBind = "urn:xmpp:component:0"

// componentIterations is the count of SCRAM for components. Secrets are not passwords that one could guess.
const componentIterations = 4096

// binding makes of the server for components one for clients whose accounts are the components; nil if none may bind.
//
// spec: XEP-0225 §3
func (s *Components) binding() *Clients {
	if s.Hosted == nil {
		return nil
	}
	salts := make([]byte, 32)
	_, _ = rand.Read(salts) // never fails
	return &Clients{
		Hosted: s.Hosted, GetCertificate: s.GetCertificate, Log: s.Log, Settings: s.Settings,
		Authenticator: componentSecrets{secret: s.Secret, salts: salts}, Secret: salts, ScramIterations: componentIterations,
		Features: func(*Conn) []*element.Element {
			bind := element.New(NSComponentBind, "bind")
			bind.Add("", "required")
			return []*element.Element{bind}
		},
	}
}

// authenticate negotiates TLS and SASL with a component that has sent its first header.
//
// spec: XEP-0225 §3
func (s *Components) authenticate(ctx context.Context, c *Conn, clients *Clients, header *element.Element) error {
	c.framing = document{clientEncoder}
	c.reader = &headerRead{reader: c.reader, header: header}
	if s.GetCertificate == nil {
		c.private = onLoopback(c)
	}
	n := &clientNegotiation{s: clients, c: c, id: identity{component: true}}
	if s.GetCertificate == nil && !c.private {
		if err := n.open(ctx); err != nil {
			return err
		}
		return Errorf(PolicyViolation, "there is no certificate here for TLS, without which components must be on the same machine")
	}
	err := n.run(ctx, false)
	c.mu.Lock()
	c.remote, c.account = n.id.local, ""
	c.mu.Unlock()
	c.inspect = checkStanza
	return err
}

func onLoopback(c *Conn) bool {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// headerRead is a reader of which the first header has been read already.
type headerRead struct {
	reader
	header *element.Element // nil once it was given
}

func (r *headerRead) Header() (*element.Element, error) {
	if h := r.header; h != nil {
		r.header = nil
		return h, nil
	}
	return r.reader.Header()
}

// claimDomain normalises the name of a component, which is its domain.
//
// spec: XEP-0225 §3
func claimDomain(authcid, authzid string) (string, error) {
	domain, ok := normalDomain(authcid)
	if !ok {
		return "", ErrNoAccount
	}
	if authzid != "" {
		if z, ok := normalDomain(authzid); !ok || z != domain {
			return "", refuse("invalid-authzid", "another domain than the one that authenticates")
		}
	}
	return domain, nil
}

// componentSecrets is an Authenticator whose accounts are components, the local parts of which are their domains.
type componentSecrets struct {
	secret func(domain string) (string, bool)
	salts  []byte // what the salts are made from
}

// ScramKeys makes the keys with the salt that an unknown component would be told too.
func (a componentSecrets) ScramKeys(_ context.Context, domain, name string, h ScramHash) (ScramKeys, error) {
	secret, ok := a.secret(name)
	if !ok || secret == "" {
		return ScramKeys{}, ErrNoAccount
	}
	k := fakeKeys(a.salts, h, componentIterations, domain, name)
	salted, err := pbkdf2.Key(h.new, secret, k.Salt, k.Iterations, len(k.StoredKey))
	if err != nil {
		return ScramKeys{}, err
	}
	derive := func(use string) []byte {
		mac := hmac.New(h.new, salted)
		mac.Write([]byte(use))
		return mac.Sum(nil)
	}
	stored := h.new()
	stored.Write(derive("Client Key"))
	k.StoredKey, k.ServerKey = stored.Sum(nil), derive("Server Key")
	return k, nil
}

func (a componentSecrets) Plain(_ context.Context, _, name, password string) error {
	secret, ok := a.secret(name)
	if !ok || secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(password)) != 1 {
		return ErrNoAccount
	}
	return nil
}
