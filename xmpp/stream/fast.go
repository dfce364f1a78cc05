package stream

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xdg-go/scram"

	"parley/xmpp/element"
)

const nsFast = "urn:xmpp:fast:0"

// Token is a secret that a client has in place of a password. It is good for one account, one installation of a client and one
// mechanism.
//
// spec: XEP-0484 §3.3
type Token struct {
	// ID is the keeper's own name for it, and no secret.
	ID     string
	Secret string
	Expiry time.Time
	// Due says that it is time to give the client another one.
	Due bool
}

// TokenOwner is for whom a token is good.
type TokenOwner struct {
	Domain, Local string
	Client        string // the installation: [Login.Client]
	Mechanism     string
}

// Tokens keeps tokens. What it returns nil for is on disk.
type Tokens interface {
	// Tokens returns those of an owner, with those that have expired, or ErrNoAccount, or ErrDisabled.
	Tokens(ctx context.Context, o TokenOwner) ([]Token, error)
	// Use notes that a token was used, for the count-th time as the client says, or -1 if it does not, and deletes the older ones of
	// the same client; with invalidate, it too. ErrNoAccount means that the count is not higher than the one before, or that the token
	// is gone.
	Use(ctx context.Context, o TokenOwner, id string, count int64, invalidate bool) error
	// Issue makes a token, and deletes those of the same client that were never used.
	Issue(ctx context.Context, o TokenOwner) (Token, error)
}

// tokenMechanisms are those that a token can be for, the best first. tls-unique, of which TLS 1.3 has none, is not among them.
//
// spec: XEP-0484 §3.1
func (n *clientNegotiation) tokenMechanisms() []string {
	var out []string
	for _, b := range n.bindings {
		switch b.Type {
		case scram.ChannelBindingTLSExporter:
			out = append(out, "HT-SHA-256-EXPR")
		case scram.ChannelBindingTLSServerEndpoint:
			out = append(out, "HT-SHA-256-ENDP")
		}
	}
	return append(out, "HT-SHA-256-NONE")
}

// findToken makes the mechanism that checks a token. What is sent before the TLS handshake is over (0-RTT) never gets here, because
// our TLS takes none; that is why the count is not demanded.
//
// spec: XEP-0484 §3.4
func (n *clientNegotiation) findToken(name string, el, fast *element.Element) (mechanism, error) {
	if n.s.Tokens == nil || !slices.Contains(n.tokenMechanisms(), name) {
		return nil, refuse("invalid-mechanism", "not offered")
	}
	if fast == nil || clientID(el) == "" {
		return nil, refuse("malformed-request", "a token comes with <fast/> and the name of the client")
	}
	m := &tokenMechanism{n: n, count: -1, owner: TokenOwner{Domain: n.id.domain, Client: clientID(el), Mechanism: name}}
	if s, ok := fast.LookupAttr("", "count"); ok {
		count, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, refuse("malformed-request", "count is a number")
		}
		m.count = int64(count)
	}
	m.invalidate = fast.Attr("invalidate") == "true" || fast.Attr("invalidate") == "1"
	for _, b := range n.bindings {
		if b.Type == scram.ChannelBindingTLSExporter && name == "HT-SHA-256-EXPR" ||
			b.Type == scram.ChannelBindingTLSServerEndpoint && name == "HT-SHA-256-ENDP" {
			m.binding = b.Data
		}
	}
	return n.hold(m), nil
}

// tokenMechanism is the server's side of the hashed token mechanisms: one message each way, which prove that either side knows the
// token and, with a channel binding, that nobody stands between.
//
// spec: XEP-0484 §3.4
type tokenMechanism struct {
	n          *clientNegotiation
	owner      TokenOwner
	count      int64
	invalidate bool
	binding    []byte
}

func (m *tokenMechanism) step(ctx context.Context, in []byte) ([]byte, bool, error) {
	authcid, proof, ok := bytes.Cut(in, []byte{0})
	if !ok || len(authcid) == 0 || !utf8.Valid(authcid) {
		return nil, false, refuse("malformed-request", "not a message of a hashed token")
	}
	// Some clients send their bare JID.
	name := strings.TrimSuffix(string(authcid), "@"+m.owner.Domain)
	local, err := m.n.id.claim(name, "")
	var all []Token
	if err == nil {
		m.owner.Local = local
		if err = m.try(local); err == nil {
			all, err = m.n.s.Tokens.Tokens(ctx, m.owner)
		}
	}
	if err == nil {
		err = ErrNoAccount
		for _, t := range all {
			if !hmac.Equal(proof, m.mac(t, "Initiator")) {
				continue
			}
			if !time.Now().Before(t.Expiry) {
				return nil, false, refuse("credentials-expired", "the token has expired")
			}
			if err = m.n.s.Tokens.Use(ctx, m.owner, t.ID, m.count, m.invalidate); err == nil {
				m.n.id.local = local
				m.n.renew = t.Due && !m.invalidate
				return m.mac(t, "Responder"), true, nil
			}
		}
	}
	switch {
	case errors.Is(err, ErrNoAccount):
		return nil, false, &saslFailure{condition: "not-authorized", err: err}
	case errors.Is(err, ErrDisabled):
		return nil, false, &saslFailure{condition: "account-disabled", err: err}
	}
	return nil, false, err
}

// try refuses when too many logins of the account have failed.
func (m *tokenMechanism) try(local string) error {
	if m.n.s.Logins == nil {
		return nil
	}
	return limited{n: m.n}.try(m.owner.Domain, local)
}

func (m *tokenMechanism) mac(t Token, who string) []byte {
	h := hmac.New(sha256.New, []byte(t.Secret))
	h.Write([]byte(who))
	h.Write(m.binding)
	return h.Sum(nil)
}

// issue gives the client the token that it asks for, or another one for that which has grown old. That it cannot be had does not
// keep the client from logging in.
//
// spec: XEP-0484 §3.3
// spec: XEP-0484 §3.5
func (n *clientNegotiation) issue(ctx context.Context, el, success *element.Element) {
	owner := TokenOwner{Domain: n.id.domain, Local: n.id.local, Client: clientID(el)}
	if ask := el.Child(nsFast, "request-token"); ask != nil {
		owner.Mechanism = ask.Attr("mechanism")
	} else if n.renew {
		owner.Mechanism = el.Attr("mechanism")
	}
	if n.s.Tokens == nil || owner.Client == "" || !slices.Contains(n.tokenMechanisms(), owner.Mechanism) {
		return
	}
	t, err := n.s.Tokens.Issue(ctx, owner)
	if err != nil {
		n.s.Log.Error("issuing a token", "account", owner.Local+"@"+owner.Domain, "err", err)
		return
	}
	success.Add(nsFast, "token").SetAttr("token", t.Secret).SetAttr("expiry", t.Expiry.UTC().Format(time.RFC3339))
}
