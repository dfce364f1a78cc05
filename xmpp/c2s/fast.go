package c2s

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/stream"
)

//go:embed migrations/fast/*.sql
var fastMigrations embed.FS

func migrateFast(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(fastMigrations, "migrations/fast")
	if err != nil {
		return err
	}
	return db.Migrate(ctx, "xmpp-fast", dir)
}

// How long a token is good, after which time of it the client gets another one, how long an expired one is remembered so that its
// client can be told why it is refused, and how many an account has.
const (
	tokenLife     = 30 * 24 * time.Hour
	tokenRenew    = 24 * time.Hour
	tokenRemember = 30 * 24 * time.Hour
	maxTokens     = 100
)

// Tokens keeps the tokens of the hub's accounts: [stream.Tokens].
//
// spec: XEP-0484 §3.3
type Tokens struct {
	Hub *hub.Hub
	// Secret is 32 random bytes, the same over restarts. Who has the database and not the secret can make no token.
	Secret []byte
	// Now is the time; nil for the clock.
	Now func() time.Time
}

func (t Tokens) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

// secret is what the client is told.
func (t Tokens) secret(id string) string {
	m := hmac.New(sha256.New, t.Secret)
	m.Write([]byte("XEP-0484 token\x00" + id))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// password names the password that is in force, which its random salt does.
func password(c hub.Credentials) string { return hex.EncodeToString(c.Salt) }

// Tokens implements [stream.Tokens].
func (t Tokens) Tokens(ctx context.Context, o stream.TokenOwner) ([]stream.Token, error) {
	who := core.LocalAddress(o.Local, o.Domain)
	acc, err := t.Hub.Account(ctx, who)
	switch {
	case errors.Is(err, hub.ErrNone):
		return nil, stream.ErrNoAccount
	case err != nil:
		return nil, err
	}
	var out []stream.Token
	err = t.Hub.Read(ctx, func(v hub.View) (err error) {
		out, err = store.List(hubstore.Querier(v), func(row store.Scanner) (stream.Token, error) {
			var id string
			var issued, expires int64
			err := row.Scan(&id, &issued, &expires)
			return stream.Token{ID: id, Secret: t.secret(id), Expiry: time.UnixMilli(expires),
				Due: t.now().Sub(time.UnixMilli(issued)) >= tokenRenew}, err
		}, `SELECT id, issued, expires FROM xmpp_tokens
			WHERE account = $1 AND client = $2 AND mechanism = $3 AND password = $4`,
			who.String(), o.Client, o.Mechanism, password(acc.Credentials))
		return err
	})
	if err == nil && acc.Disabled {
		err = stream.ErrDisabled
	}
	return out, err
}

// Use implements [stream.Tokens].
//
// spec: XEP-0484 §3.5
// spec: XEP-0484 §3.6
func (t Tokens) Use(ctx context.Context, o stream.TokenOwner, id string, count int64, invalidate bool) error {
	who := core.LocalAddress(o.Local, o.Domain).String()
	return t.Hub.Write(ctx, func(tx hub.Tx) error {
		q := hubstore.Tx(tx)
		n, err := q.Exec(`UPDATE xmpp_tokens SET uses = uses + 1, count = CASE WHEN $2 < 0 THEN count ELSE $2 END
			WHERE id = $1 AND ($2 < 0 OR count < $2)`, id, count)
		if err != nil {
			return err
		}
		if n == 0 {
			return stream.ErrNoAccount
		}
		if _, err = q.Exec(`DELETE FROM xmpp_tokens WHERE account = $1 AND client = $2
			AND expires < (SELECT expires FROM xmpp_tokens WHERE id = $3)`, who, o.Client, id); err != nil {
			return err
		}
		if invalidate {
			_, err = q.Exec(`DELETE FROM xmpp_tokens WHERE id = $1`, id)
		}
		return err
	})
}

// Issue implements [stream.Tokens].
//
// spec: XEP-0484 §3.5
func (t Tokens) Issue(ctx context.Context, o stream.TokenOwner) (stream.Token, error) {
	who, now := core.LocalAddress(o.Local, o.Domain), t.now()
	out := stream.Token{ID: core.NewToken(), Expiry: now.Add(tokenLife)}
	out.Secret = t.secret(out.ID)
	err := t.Hub.Write(ctx, func(tx hub.Tx) error {
		acc, err := tx.Account(who)
		if err != nil {
			return err
		}
		q := hubstore.Tx(tx)
		if _, err := q.Exec(`DELETE FROM xmpp_tokens WHERE account = $1 AND client = $2 AND uses = 0`, who.String(), o.Client); err != nil {
			return err
		}
		if _, err := q.Exec(`DELETE FROM xmpp_tokens WHERE account = $1 AND id NOT IN
			(SELECT id FROM xmpp_tokens WHERE account = $1 ORDER BY issued DESC LIMIT $2)`, who.String(), int64(maxTokens-1)); err != nil {
			return err
		}
		_, err = q.Exec(`INSERT INTO xmpp_tokens (id, account, client, mechanism, password, issued, expires, uses, count)
			VALUES ($1, $2, $3, $4, $5, $6, $7, 0, -1)`, out.ID, who.String(), o.Client, o.Mechanism, password(acc.Credentials),
			now.UnixMilli(), out.Expiry.UnixMilli())
		return err
	})
	return out, err
}

// forgetLogins deletes what lets clients of an account come back without its password, but for one stream.
func forgetLogins(tx hub.Tx, account core.Address, keep string) error {
	q := hubstore.Tx(tx)
	_, err := q.Exec(`DELETE FROM xmpp_tokens WHERE account = $1`, account.String())
	if err == nil {
		_, err = q.Exec(`DELETE FROM xmpp_streams WHERE account = $1 AND id <> $2`, account.String(), keep)
	}
	return err
}

func cleanTokens(tx hub.Tx) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_tokens WHERE expires < $1`, time.Now().Add(-tokenRemember).UnixMilli())
	return err
}
