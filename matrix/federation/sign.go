package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"parley/matrix/wire"
)

// message is what the signature of a request is over, in canonical form. uri
// has the path, from its slash on, and the query; content is the body as
// canonical JSON, nil for none.
//
// spec: MX 1.19 SS §3.1
func message(method, uri, origin, destination string, content []byte) []byte {
	o := wire.Object{}
	if content != nil {
		o = o.With("content", content)
	}
	return o.With("destination", wire.Quote(destination)).
		With("method", wire.Quote(method)).
		With("origin", wire.Quote(origin)).
		With("uri", wire.Quote(uri)).JSON()
}

// Sign is the authorization of a request of one of our domains. body is JSON,
// or empty.
//
// spec: MX 1.19 SS §3.1
func Sign(s wire.Signer, destination, method, uri string, body []byte) (Authorization, error) {
	var content []byte
	if len(body) > 0 {
		var err error
		if content, err = wire.Loose(body); err != nil {
			return Authorization{}, fmt.Errorf("signing a request: %w", err)
		}
	}
	signed, err := s.Sign(message(method, uri, s.Server, destination, content))
	if err != nil {
		return Authorization{}, fmt.Errorf("signing a request: %w", err)
	}
	sig, err := signatureOf(signed, s.Server, s.Key.ID())
	return Authorization{Origin: s.Server, Destination: destination, Key: s.Key.ID(), Signature: sig}, err
}

func signatureOf(signed []byte, server, keyID string) (string, error) {
	o, err := wire.ParseObject(signed)
	for _, key := range []string{"signatures", server} {
		if err != nil {
			return "", err
		}
		o, err = wire.ParseObject(o.Get(key))
	}
	sig, ok := o.String(keyID)
	if err != nil || !ok {
		return "", fmt.Errorf("the signature just made is not there: %w", err)
	}
	return sig, nil
}

// Keys finds the key of a server that holds at a moment. [keyring.Keyring] does.
type Keys interface {
	Key(ctx context.Context, server, keyID string, at time.Time) (ed25519.PublicKey, error)
}

// maxSigned is how many Authorization headers of one request are looked at: a
// server may sign with several keys.
const maxSigned = 4

// Verify finds out who sent a request to which of our domains. body is what
// came; local is the domain that is meant where an old server does not say, and
// hosts says which are ours.
//
// spec: MX 1.19 SS §3.1
func Verify(ctx context.Context, keys Keys, r *http.Request, body []byte, local string, hosts func(string) bool) (Authorization, error) {
	var content []byte
	if len(body) > 0 {
		var err error
		if content, err = wire.Loose(body); err != nil {
			return Authorization{}, err
		}
	}
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 || len(headers) > maxSigned {
		return Authorization{}, fmt.Errorf("%w: there are %d", ErrHeader, len(headers))
	}
	var first Authorization
	var last error
	for i, h := range headers {
		a, err := ParseAuthorization(h)
		if err != nil {
			return Authorization{}, err
		}
		if i == 0 {
			first = a
		}
		if a.Destination == "" {
			a.Destination = local
		}
		if !hosts(a.Destination) {
			return Authorization{}, fmt.Errorf("%w: %s is not here", ErrHeader, a.Destination)
		}
		if a.Origin != first.Origin || hosts(a.Origin) {
			return Authorization{}, fmt.Errorf("%w: it cannot be from %s", ErrHeader, a.Origin)
		}
		if last = verifyOne(ctx, keys, r, a, content); last == nil {
			return a, nil
		}
	}
	return Authorization{}, last
}

func verifyOne(ctx context.Context, keys Keys, r *http.Request, a Authorization, content []byte) error {
	public, err := keys.Key(ctx, a.Origin, a.Key, time.Now())
	if err != nil {
		return err
	}
	sig, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(a.Signature, "="))
	if err != nil || !ed25519.Verify(public, message(r.Method, r.RequestURI, a.Origin, a.Destination, content), sig) {
		return fmt.Errorf("%w: by %s with %s", wire.ErrSignature, a.Origin, a.Key)
	}
	return nil
}
