package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// unpadded is the base64 of everything but event IDs.
//
// spec: MX 1.19 AP §1
var unpadded = base64.RawStdEncoding

// decodeBase64 takes padded and unpadded alike.
//
// spec: MX 1.19 AP §1
func decodeBase64(s string) ([]byte, error) {
	return unpadded.DecodeString(strings.TrimRight(s, "="))
}

// SigningKey is one Ed25519 key of a server.
type SigningKey struct {
	version string
	private ed25519.PrivateKey
}

var keyVersion = regexp.MustCompile(`^[a-zA-Z0-9_]{1,64}$`)

// ParseSigningKey reads a key file: one line, "ed25519 VERSION SEED", the seed
// as 32 bytes in base64. Other servers write the same form.
func ParseSigningKey(file []byte) (*SigningKey, error) {
	f := strings.Fields(string(file))
	if len(f) != 3 || f[0] != "ed25519" {
		return nil, errors.New(`signing key file: want one line "ed25519 VERSION SEED"`)
	}
	if !keyVersion.MatchString(f[1]) {
		return nil, fmt.Errorf("signing key file: version %.70q has other characters than letters, digits and '_'", f[1])
	}
	seed, err := decodeBase64(f[2])
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errors.New("signing key file: the seed is not 32 bytes in base64")
	}
	return &SigningKey{version: f[1], private: ed25519.NewKeyFromSeed(seed)}, nil
}

// NewSigningKey makes a key and its file. The version is by chance, so that no
// two keys of a server ever share one.
func NewSigningKey() (file []byte, key *SigningKey, err error) {
	var b [ed25519.SeedSize + 4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, nil, fmt.Errorf("make signing key: %w", err)
	}
	file = fmt.Appendf(nil, "ed25519 p_%x %s\n", b[ed25519.SeedSize:], unpadded.EncodeToString(b[:ed25519.SeedSize]))
	key, err = ParseSigningKey(file)
	return file, key, err
}

// ID is the signing key identifier, "ed25519:VERSION".
//
// spec: MX 1.19 AP §3.2
func (k *SigningKey) ID() string { return "ed25519:" + k.version }

// Public is the half that is published.
func (k *SigningKey) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// PublicBase64 is [SigningKey.Public] as keys are written in JSON.
func (k *SigningKey) PublicBase64() string { return unpadded.EncodeToString(k.Public()) }

// String names the key and never shows it, so that no log can hold it.
func (k *SigningKey) String() string { return k.ID() }

// GoString is String.
func (k *SigningKey) GoString() string { return k.ID() }

// sign signs canonical bytes.
func (k *SigningKey) sign(canon []byte) string {
	return unpadded.EncodeToString(ed25519.Sign(k.private, canon))
}

// A Signer is a server and the key that it signs with.
type Signer struct {
	Server string
	Key    *SigningKey
}

// Sign adds a signature to a JSON object and returns it in canonical form.
//
// spec: MX 1.19 AP §3.2
func (s Signer) Sign(object []byte) ([]byte, error) {
	o, err := ParseObject(object)
	if err != nil {
		return nil, err
	}
	sig := s.Key.sign(o.Without("signatures", "unsigned").JSON())
	sigs, err := addSignature(o.Get("signatures"), s.Server, s.Key.ID(), sig)
	if err != nil {
		return nil, err
	}
	return o.With("signatures", sigs).JSON(), nil
}

// addSignature puts one signature among those there are; sigs may be nil.
func addSignature(sigs []byte, server, keyID, sig string) ([]byte, error) {
	var all, own Object
	var err error
	if len(sigs) > 0 {
		if all, err = members(sigs); err != nil {
			return nil, fmt.Errorf("signatures: %w", err)
		}
	}
	if v := all.Get(server); v != nil {
		if own, err = members(v); err != nil {
			return nil, fmt.Errorf("signatures of %s: %w", server, err)
		}
	}
	own = own.With(keyID, Quote(sig))
	return all.With(server, own.JSON()).JSON(), nil
}

// ErrSignature is wrapped by every error about a missing or wrong signature.
var ErrSignature = errors.New("bad signature")

// VerifyJSON checks a server's signature on a JSON object.
//
// spec: MX 1.19 AP §3.3
func VerifyJSON(server, keyID string, public ed25519.PublicKey, object []byte) error {
	o, err := ParseObject(object)
	if err != nil {
		return err
	}
	return verify(server, keyID, public, o.Get("signatures"), o.Without("signatures", "unsigned").JSON())
}

func verify(server, keyID string, public ed25519.PublicKey, sigs, canon []byte) error {
	all, err := members(sigs)
	if err != nil {
		return fmt.Errorf("%w: no signatures", ErrSignature)
	}
	own, err := members(all.Get(server))
	if err != nil {
		return fmt.Errorf("%w: none by %.60q", ErrSignature, server)
	}
	text, ok := own.String(keyID)
	if !ok {
		return fmt.Errorf("%w: none by %.60q with key %.60q", ErrSignature, server, keyID)
	}
	sig, err := decodeBase64(text)
	if err != nil || len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, canon, sig) {
		return fmt.Errorf("%w: by %.60q with key %.60q", ErrSignature, server, keyID)
	}
	return nil
}
