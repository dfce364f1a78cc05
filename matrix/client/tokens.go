package client

import (
	"net/http"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
)

// accessLife is how long the access token of a client that can refresh it
// lasts; others have one that does not expire.
const accessLife = 12 * time.Hour

// seenEvery is how exactly the time at which a device was last seen is kept.
const seenEvery = 10 * time.Minute

// cacheFor is how long a token is believed without asking the database. It is
// also how long one goes on working after the operator disabled the account;
// logging out counts at once.
const cacheFor = 5 * time.Second

// tokenCache remembers what tokens stand for, by their digests.
type tokenCache struct {
	mu sync.Mutex
	m  map[string]cachedLogin
	// turns counts the times that tokens were withdrawn, so that a login that
	// was read before is not remembered after.
	turns int
}

type cachedLogin struct {
	login Login
	until time.Time
}

const maxCachedLogins = 10_000

func (c *tokenCache) get(hash []byte, at time.Time) (l Login, ok bool, turn int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[string(hash)]
	return e.login, ok && at.Before(e.until), c.turns
}

func (c *tokenCache) put(l Login, at time.Time, turn int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if turn != c.turns {
		return
	}
	if c.m == nil || len(c.m) >= maxCachedLogins {
		c.m = map[string]cachedLogin{}
	}
	c.m[string(l.Token)] = cachedLogin{l, at.Add(cacheFor)}
}

func (c *tokenCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m = nil
	c.turns++
}

// tokenRow is one row of mxc_tokens.
type tokenRow struct {
	login        Login
	refresh      bool
	expires      int64
	pair, parent string
	seen         int64
	seenIP       string
}

func findToken(v hub.View, token string) (t tokenRow, found bool, err error) {
	t.login.Token = digest(token)
	var account string
	found, err = row(v, into(&account, &t.login.Device, &t.refresh, &t.expires, &t.pair, &t.parent, &t.seen, &t.seenIP),
		`SELECT t.account, t.device, t.refresh, t.expires, t.pair, t.parent, d.seen, d.seen_ip
		FROM mxc_tokens t JOIN mxc_devices d ON d.account = t.account AND d.device = t.device
		WHERE t.hash = $1`, t.login.Token)
	if err != nil || !found {
		return t, false, err
	}
	t.login.Account, err = core.ParseAddress(account)
	return t, err == nil, err
}

func unknownToken(soft bool) error {
	return Errorf(http.StatusUnauthorized, UnknownToken, "The access token is not, or no longer, valid.").With("soft_logout", soft)
}

// identify finds what an access token stands for.
//
// spec: MX 1.19 CS §4.4
func (a *API) identify(r *Request, token string) (Login, error) {
	at := now()
	login, ok, turn := a.tokens.get(digest(token), at)
	if ok {
		return login, nil
	}
	var t tokenRow
	var found, locked bool
	err := a.hub.Read(r.Context(), func(v hub.View) (err error) {
		if t, found, err = findToken(v, token); err != nil || !found {
			return err
		}
		acc, err := v.Account(t.login.Account)
		locked = acc.Disabled
		return err
	})
	switch {
	case hub.CodeOf(err) != "" || isNone(err):
		return Login{}, unknownToken(false)
	case err != nil:
		return Login{}, err
	case !found || t.refresh:
		return Login{}, unknownToken(false)
	case locked && r.route.Auth != EvenLocked:
		// spec: MX 1.19 CS §4.11.1
		return Login{}, Errorf(http.StatusUnauthorized, UserLocked, "This account has been locked.").With("soft_logout", true)
	case t.expires != 0 && t.expires <= at.UnixMilli():
		return Login{}, unknownToken(true)
	}
	if err := a.used(r, t, at); err != nil {
		return Login{}, err
	}
	if !locked {
		a.tokens.put(t.login, at, turn)
	}
	return t.login, nil
}

// used notes that a token was used: the pair that it renewed ends, and the
// device was seen.
func (a *API) used(r *Request, t tokenRow, at time.Time) error {
	ip := r.IP.String()
	stale := at.UnixMilli()-t.seen >= seenEvery.Milliseconds() || ip != t.seenIP
	if t.parent == "" && !stale {
		return nil
	}
	return a.hub.Write(r.Context(), func(tx hub.Tx) error {
		if err := a.settle(tx, t); err != nil {
			return err
		}
		_, err := exec(tx, `UPDATE mxc_devices SET seen = $1, seen_ip = $2 WHERE account = $3 AND device = $4`,
			at.UnixMilli(), ip, key(t.login.Account), t.login.Device)
		return err
	})
}

// settle withdraws the pair that t's pair renewed, for t has arrived.
//
// spec: MX 1.19 CS §4.6
func (a *API) settle(tx hub.Tx, t tokenRow) error {
	if t.parent == "" {
		return nil
	}
	if _, err := exec(tx, `DELETE FROM mxc_tokens WHERE account = $1 AND pair = $2`, key(t.login.Account), t.parent); err != nil {
		return err
	}
	_, err := exec(tx, `UPDATE mxc_tokens SET parent = '' WHERE account = $1 AND pair = $2`, key(t.login.Account), t.pair)
	tx.OnCommit(a.tokens.clear)
	return err
}

// tokenPair is what a client is given.
type tokenPair struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token,omitempty"`
	Expires int64  `json:"expires_in_ms,omitempty"`
}

// mint gives a device tokens; with refreshable, such that expire.
func mint(tx hub.Tx, account core.Address, device, parent string, refreshable bool) (tokenPair, error) {
	p := tokenPair{Access: "mxa_" + core.NewToken()}
	pair := core.NewToken()
	put := func(token string, refresh bool, expires int64) error {
		_, err := exec(tx, `INSERT INTO mxc_tokens (hash, account, device, refresh, expires, pair, parent)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`, digest(token), key(account), device, refresh, expires, pair, parent)
		return err
	}
	if !refreshable {
		return p, put(p.Access, false, 0)
	}
	p.Refresh, p.Expires = "mxr_"+core.NewToken(), accessLife.Milliseconds()
	if err := put(p.Refresh, true, 0); err != nil {
		return p, err
	}
	return p, put(p.Access, false, now().Add(accessLife).UnixMilli())
}

// refresh exchanges a refresh token for a new pair.
//
// spec: MX 1.19 CS §4.6
func (a *API) refresh(r *Request) (any, error) {
	var body struct {
		Token string `json:"refresh_token"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	var pair tokenPair
	err := a.guess([]string{r.IP.String()}, func() (wrong bool, err error) {
		pair, err = a.renew(r, body.Token)
		e, internal := AsError(err)
		return err != nil && !internal && e.Errcode == UnknownToken, err
	})
	return pair, err
}

// renew gives out the pair that follows that of a refresh token.
func (a *API) renew(r *Request, token string) (pair tokenPair, err error) {
	err = a.hub.Write(r.Context(), func(tx hub.Tx) error {
		t, found, err := findToken(tx, token)
		if err != nil {
			return err
		}
		if !found || !t.refresh {
			return unknownToken(false)
		}
		switch acc, err := tx.Account(t.login.Account); {
		case isNone(err):
			return unknownToken(false)
		case err != nil:
			return err
		case acc.Disabled:
			return unknownToken(true)
		}
		if err := a.settle(tx, t); err != nil {
			return err
		}
		// A renewal that never arrived gives way to this one.
		if _, err := exec(tx, `DELETE FROM mxc_tokens WHERE account = $1 AND parent = $2`, key(t.login.Account), t.pair); err != nil {
			return err
		}
		pair, err = mint(tx, t.login.Account, t.login.Device, t.pair, true)
		tx.OnCommit(a.tokens.clear)
		return err
	})
	return pair, err
}
