// Package keyring knows the public keys of Matrix servers: it asks each server
// for its own, or the notaries that the operator trusts where a server does not
// answer, keeps what they say, and checks signatures with it.
//
// A key holds for a moment. A request is checked for now; an event for its
// origin_server_ts, so that history stays good when keys are rotated. A server
// is not asked again before a while has passed, however many unknown keys are
// said to be its: that is what bounds the work that a stranger can cause.
package keyring

import (
	"context"
	"crypto/ed25519"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"parley/matrix/wire"
	"parley/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Migrate brings the tables of this package up to date.
func Migrate(ctx context.Context, db *store.DB) error {
	f, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	return db.Migrate(ctx, "matrix-federation", f)
}

// Fetcher asks other servers. It bounds times and sizes.
type Fetcher interface {
	// ServerKeys is what the server answers to GET /_matrix/key/v2/server.
	ServerKeys(ctx context.Context, server string) ([]byte, error)
	// QueryKeys is what the notary answers to POST /_matrix/key/v2/query.
	QueryKeys(ctx context.Context, notary string, body []byte) ([]byte, error)
}

// Config is what a [Keyring] stands on.
type Config struct {
	DB    *store.DB
	Fetch Fetcher
	// Own are the domains at home here; the first signs as a notary where
	// nobody says which is meant.
	Own []Own
	// Notaries are the servers that are asked where a server does not answer.
	// What they say is believed.
	Notaries []string
	Log      *slog.Logger
	// Now is for tests; nil is time.Now.
	Now func() time.Time
}

// Pace of asking a server for its keys.
const (
	// askAgain is how long a server that answered is not asked again.
	askAgain = time.Minute
	// A server that did not answer is left alone so long, then twice as long. The
	// first pause is short: a server that is just being started again calls as soon
	// as it is back, and all that it says is turned away until it is asked.
	firstPause = 3 * time.Second
	maxPause   = time.Hour
	// fetchTimeout is for asking a server and all notaries.
	fetchTimeout = time.Minute
	// maxFetches is how many servers are asked at a time.
	maxFetches = 32
	// maxRemembered is how many servers are kept in memory.
	maxRemembered = 20_000
)

var (
	// ErrUnknownKey is wrapped by errors about keys that no server says it has.
	ErrUnknownKey = errors.New("unknown server key")
	// ErrExpired is wrapped by errors about keys that do not hold for the
	// moment that they were used for.
	ErrExpired = errors.New("expired server key")
	// ErrUnreachable is wrapped beside either of them where the server did not
	// answer: another time it may turn out that the key is good.
	ErrUnreachable = errors.New("the server does not answer")
	// ErrUnsigned is wrapped where there is no signature that could be checked.
	ErrUnsigned = errors.New("no usable signature")
)

// Keyring knows keys. It is safe for concurrent use.
type Keyring struct {
	cfg     Config
	own     map[string]Own
	flights singleflight.Group
	slots   chan struct{}

	mu      sync.Mutex
	servers map[string]*server
}

// server is what is remembered of one server. Only what is in the database is
// not lost when it is forgotten.
type server struct {
	loaded   bool
	keys     map[string]key
	answer   []byte // its last own answer, nil if none
	fetched  time.Time
	valid    time.Time // until when answer holds
	failures int
	next     time.Time // not to be asked before
}

// key holds for what is not from after until.
type key struct {
	public ed25519.PublicKey
	until  time.Time
}

// New makes a keyring. The database has been migrated.
func New(c Config) *Keyring {
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keyring{cfg: c, own: map[string]Own{}, slots: make(chan struct{}, maxFetches), servers: map[string]*server{}}
	for _, o := range c.Own {
		k.own[o.Domain] = o
	}
	return k
}

// Key finds the key of a server for something that was signed at a moment. The
// server is asked if what is known does not answer the question.
//
// spec: MX 1.19 SS §2.3.1
// spec: MX 1.19 RV v5
func (k *Keyring) Key(ctx context.Context, name, id string, at time.Time) (ed25519.PublicKey, error) {
	if !keyID.MatchString(id) {
		return nil, fmt.Errorf("%w: %.80q", ErrUnknownKey, id)
	}
	if own, ok := k.own[name]; ok {
		return own.find(id, at)
	}
	if at.After(k.cfg.Now().Add(MaxValidity)) {
		// No answer could hold so long.
		return nil, fmt.Errorf("%w: %s %s for a moment to come", ErrExpired, name, id)
	}
	found, err := k.known(ctx, name, id)
	if err != nil {
		return nil, err
	}
	if found.public != nil && !at.After(found.until) {
		return found.public, nil
	}
	asked := k.ask(ctx, name, id, at)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("asking %s for its keys: %w", name, ctx.Err())
	}
	if found, err = k.known(ctx, name, id); err != nil {
		return nil, err
	}
	if k.silent(name) {
		asked = errors.Join(ErrUnreachable, asked)
	}
	switch {
	case found.public == nil:
		return nil, errors.Join(fmt.Errorf("%w: %s %s", ErrUnknownKey, name, id), asked)
	case at.After(found.until):
		return nil, errors.Join(fmt.Errorf("%w: %s %s held until %v", ErrExpired, name, id, found.until.UTC()), asked)
	}
	return found.public, nil
}

// silent says that a server did not answer when it was last asked.
func (k *Keyring) silent(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of(name).failures > 0
}

// find is Key for what is at home here.
func (k Own) find(id string, at time.Time) (ed25519.PublicKey, error) {
	if id == k.Key.ID() {
		return k.Key.Public(), nil
	}
	old, ok := k.Old[id]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %s %s", ErrUnknownKey, k.Domain, id)
	case at.After(old.Expired):
		return nil, fmt.Errorf("%w: %s %s", ErrExpired, k.Domain, id)
	}
	return old.Public, nil
}

// known looks into memory and the database.
func (k *Keyring) known(ctx context.Context, name, id string) (key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.loaded(ctx, name)
	if err != nil {
		return key{}, err
	}
	return s.keys[id], nil
}

// of is the record of a server. The caller holds k.mu.
func (k *Keyring) of(name string) *server {
	s := k.servers[name]
	if s != nil {
		return s
	}
	if len(k.servers) >= maxRemembered {
		now := k.cfg.Now()
		for n, old := range k.servers {
			// Those that are let alone stay, or they would not be.
			if now.After(old.next) || len(k.servers) > 2*maxRemembered {
				delete(k.servers, n)
			}
			if len(k.servers) < maxRemembered*9/10 {
				break
			}
		}
	}
	s = &server{keys: map[string]key{}}
	k.servers[name] = s
	return s
}

// loaded is the record of a server with its rows. The caller holds k.mu, which
// is given up while the database is read.
func (k *Keyring) loaded(ctx context.Context, name string) (*server, error) {
	if s := k.of(name); s.loaded {
		return s, nil
	}
	k.mu.Unlock()
	row, err := k.read(ctx, name)
	k.mu.Lock()
	if err != nil {
		return nil, fmt.Errorf("reading the keys of %s: %w", name, err)
	}
	s := k.of(name)
	if !s.loaded {
		s.loaded, s.keys, s.answer, s.fetched, s.valid = true, row.keys, row.answer, row.fetched, row.valid
		if end := s.fetched.Add(askAgain); end.After(s.next) && s.answer != nil {
			s.next = end
		}
	}
	return s, nil
}

// VerifyJSON checks that a server signed an object with a key that holds for a
// moment. Signatures with unknown or expired keys are passed over; one that is
// wrong is an error, and there must be one that is right.
//
// spec: MX 1.19 AP §3.3
func (k *Keyring) VerifyJSON(ctx context.Context, server string, object []byte, at time.Time) error {
	o, err := wire.ParseObject(object)
	if err != nil {
		return err
	}
	return k.verify(ctx, server, o, at, func(id string, public ed25519.PublicKey) error {
		return wire.VerifyJSON(server, id, public, object)
	})
}

func (k *Keyring) verify(ctx context.Context, server string, o wire.Object, at time.Time, check func(string, ed25519.PublicKey) error) error {
	var skipped error
	good := false
	for _, id := range signedWith(o, server) {
		public, err := k.Key(ctx, server, id, at)
		if errors.Is(err, ErrUnknownKey) || errors.Is(err, ErrExpired) {
			skipped = errors.Join(skipped, err)
			continue
		}
		if err == nil {
			err = check(id, public)
		}
		if err != nil {
			return err
		}
		good = true
	}
	if !good {
		return errors.Join(fmt.Errorf("%w by %.80q", ErrUnsigned, server), skipped)
	}
	return nil
}
