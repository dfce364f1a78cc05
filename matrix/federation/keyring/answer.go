package keyring

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"parley/matrix/wire"
)

// Bounds of what a server publishes.
const (
	maxAnswer = 64 << 10 // bytes
	maxKeys   = 32       // in use
	maxOld    = 512      // out of use
)

// MaxValidity is how far ahead a server can say that its keys hold, so that one
// that was stolen does not hold for ever.
//
// spec: MX 1.19 SS §2.3.1
const MaxValidity = 7 * 24 * time.Hour

// ErrAnswer is wrapped by every error about what a server says of its keys.
var ErrAnswer = errors.New("bad server keys")

// Answer is what a server publishes of its keys.
//
// spec: MX 1.19 SS §2.3.1
type Answer struct {
	Server     string
	ValidUntil time.Time // as the server says; see [MaxValidity]
	// Verify are the keys in use, by key ID; Old those out of use. Keys of
	// other algorithms than Ed25519 are left out.
	Verify map[string]ed25519.PublicKey
	Old    map[string]OldKey
	// JSON is the answer in canonical form, with its signatures.
	JSON []byte
}

// OldKey is a key and when its server stopped using it.
type OldKey struct {
	Public  ed25519.PublicKey
	Expired time.Time
}

// keyID is the grammar of the key IDs that can be used here.
//
// spec: MX 1.19 SS §2.3.1
var keyID = regexp.MustCompile(`^ed25519:[a-zA-Z0-9_]{1,64}$`)

// ParseAnswer reads what the named server is said to publish. The answer must
// be that server's, and signed by at least one key of those that it says are in
// use; every signature of such a key must be right.
//
// spec: MX 1.19 SS §2.3.1
func ParseAnswer(server string, raw []byte) (*Answer, error) {
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("%w: %d bytes", ErrAnswer, len(raw))
	}
	o, err := wire.ParseObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if name, _ := o.String("server_name"); name != server {
		return nil, fmt.Errorf("%w: asked for those of %.80q, got those of %.80q", ErrAnswer, server, name)
	}
	ms, ok := o.Int("valid_until_ts")
	if !ok || ms < 0 {
		return nil, fmt.Errorf("%w: no valid_until_ts", ErrAnswer)
	}
	a := &Answer{Server: server, ValidUntil: time.UnixMilli(ms), JSON: o.JSON(),
		Verify: map[string]ed25519.PublicKey{}, Old: map[string]OldKey{}}
	err = each(o.Get("verify_keys"), maxKeys, func(id string, _ wire.Object, public ed25519.PublicKey) error {
		a.Verify[id] = public
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: verify_keys: %w", ErrAnswer, err)
	}
	if o.Get("old_verify_keys") != nil {
		err = each(o.Get("old_verify_keys"), maxOld, func(id string, k wire.Object, public ed25519.PublicKey) error {
			ms, ok := k.Int("expired_ts")
			if !ok || ms < 0 {
				return fmt.Errorf("%s has no expired_ts", id)
			}
			a.Old[id] = OldKey{public, time.UnixMilli(ms)}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%w: old_verify_keys: %w", ErrAnswer, err)
		}
	}
	return a, a.checkSigned(o)
}

// each reads an object of keys. Those that cannot be used here are passed over.
func each(raw []byte, most int, f func(id string, k wire.Object, public ed25519.PublicKey) error) error {
	all, err := wire.ParseObject(raw)
	if err != nil {
		return err
	}
	if len(all) > most {
		return fmt.Errorf("%d keys, at most %d are read", len(all), most)
	}
	for _, m := range all {
		if !keyID.MatchString(m.Key) {
			continue
		}
		k, err := wire.ParseObject(m.Value)
		if err != nil {
			return err
		}
		text, _ := k.String("key")
		public, err := decode(text)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("%s is no Ed25519 key", m.Key)
		}
		if err := f(m.Key, k, public); err != nil {
			return err
		}
	}
	return nil
}

// decode reads base64 with or without padding.
//
// spec: MX 1.19 AP §1
func decode(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

func (a *Answer) checkSigned(o wire.Object) error {
	good := 0
	for _, id := range signedWith(o, a.Server) {
		public, ok := a.Verify[id]
		if !ok {
			continue
		}
		if err := wire.VerifyJSON(a.Server, id, public, a.JSON); err != nil {
			return fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		good++
	}
	if good == 0 {
		return fmt.Errorf("%w: not signed by a key of its own", ErrAnswer)
	}
	return nil
}

// maxSignatures is how many signatures of one server are looked at.
const maxSignatures = 8

// signedWith lists the Ed25519 keys with which a server signed an object.
func signedWith(o wire.Object, server string) (ids []string) {
	all, err := wire.ParseObject(o.Get("signatures"))
	if err != nil {
		return nil
	}
	own, err := wire.ParseObject(all.Get(server))
	if err != nil {
		return nil
	}
	for _, m := range own {
		if keyID.MatchString(m.Key) && len(ids) < maxSignatures {
			ids = append(ids, m.Key)
		}
	}
	return ids
}

// Own is what a domain at home here publishes.
type Own struct {
	Domain string
	Key    *wire.SigningKey
	Old    map[string]OldKey
}

// ownValidity is how long what we publish holds. Others keep a key that was
// taken back as long, and ask as rarely.
//
// spec: MX 1.19 SS §2.3.1
const ownValidity = 24 * time.Hour

// Answer writes and signs it.
//
// spec: MX 1.19 SS §2.3.1
func (k Own) Answer(now time.Time) ([]byte, error) {
	encode := base64.RawStdEncoding.EncodeToString
	old := wire.Object{}
	for id, key := range k.Old {
		entry := wire.Object{}.With("key", wire.Quote(encode(key.Public))).With("expired_ts", number(key.Expired))
		old = old.With(id, entry.JSON())
	}
	current := wire.Object{}.With("key", wire.Quote(k.Key.PublicBase64()))
	o := wire.Object{}.
		With("server_name", wire.Quote(k.Domain)).
		With("valid_until_ts", number(now.Add(ownValidity))).
		With("verify_keys", wire.Object{}.With(k.Key.ID(), current.JSON()).JSON()).
		With("old_verify_keys", old.JSON())
	return wire.Signer{Server: k.Domain, Key: k.Key}.Sign(o.JSON())
}

func number(t time.Time) []byte { return strconv.AppendInt(nil, t.UnixMilli(), 10) }
