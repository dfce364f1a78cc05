package client

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
)

// keyChanges says whose devices changed since a sync token. Those who changed
// them after the other token are told of as well, which does no harm.
//
// spec: MX 1.19 CS §10.12.2.6
func (a *API) keyChanges(r *Request) (any, error) {
	since, err := a.config.SyncFeed(r.Query("from"))
	if err != nil {
		return nil, err
	}
	var changed, left []string
	err = a.hub.Read(r.Context(), func(v hub.View) (err error) {
		changed, left, err = a.DeviceChanges(v, r.Account, since)
		return err
	})
	return map[string][]string{"changed": list(changed), "left": list(left)}, err
}

// list is never null in JSON.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// openidLife is how long an OpenID token lasts.
const openidLife = time.Hour

// openid gives out a token with which another service can ask us who the
// account is, and nothing else.
//
// spec: MX 1.19 CS §10.31
func (a *API) openid(r *Request) (any, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	token := core.NewToken()
	at := now()
	err := a.hub.Write(r.Context(), func(tx hub.Tx) error {
		if _, err := exec(tx, `DELETE FROM mxc_openid WHERE expires < $1`, at.UnixMilli()); err != nil {
			return err
		}
		_, err := exec(tx, `INSERT INTO mxc_openid (hash, account, expires) VALUES ($1, $2, $3)`,
			digest(token), key(r.Account), at.Add(openidLife).UnixMilli())
		return err
	})
	return map[string]any{
		"access_token": token, "token_type": "Bearer", "matrix_server_name": r.Account.Domain,
		"expires_in": int(openidLife.Seconds()),
	}, err
}

// OpenIDUser is the user ID of the account whose OpenID token another service
// has.
//
// spec: MX 1.19 SS §21
func (a *API) OpenIDUser(ctx context.Context, token string) (string, error) {
	var account string
	err := a.hub.Read(ctx, func(v hub.View) error {
		found, err := row(v, into(&account), `SELECT account FROM mxc_openid WHERE hash = $1 AND expires > $2`,
			digest(token), now().UnixMilli())
		if err == nil && !found {
			return unknownToken(false)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	who, err := core.ParseAddress(account)
	return a.UserID(who), err
}

// empty answers {}: there are no bridges to list and no servers for calls.
func empty(*Request) (any, error) { return nil, nil }

// maxFound is the most people that a search finds.
const maxFound = 50

// searchUsers searches among the people with whom the account shares a
// conversation or who are on its list. There is no directory of everybody.
//
// spec: MX 1.19 CS §9.1
func (a *API) searchUsers(r *Request) (any, error) {
	body := struct {
		Term  string `json:"search_term"`
		Limit int    `json:"limit"`
	}{Limit: 10}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Term == "" {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The search_term is missing.")
	}
	body.Limit = min(max(body.Limit, 1), maxFound)
	found := []map[string]any{}
	more := false
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		people, err := acquaintances(v, r.Account)
		if err != nil {
			return err
		}
		for _, who := range people {
			p, err := v.Profile(who)
			if err != nil {
				return err
			}
			if !mentions(body.Term, a.UserID(who), who.Bare(), p.Name) {
				continue
			}
			if more = len(found) == body.Limit; more {
				return nil
			}
			one := map[string]any{"user_id": a.UserID(who)}
			if p.Name != "" {
				one["display_name"] = p.Name
			}
			if p.Avatar != nil {
				if uri, ok := a.URI(*p.Avatar); ok {
					one["avatar_url"] = uri
				}
			}
			found = append(found, one)
		}
		return nil
	})
	return map[string]any{"results": found, "limited": more}, err
}

func mentions(term string, in ...string) bool {
	term = strings.ToLower(term)
	return slices.ContainsFunc(in, func(s string) bool { return strings.Contains(strings.ToLower(s), term) })
}

// acquaintances are those whom an account knows, in order of their addresses.
func acquaintances(v hub.View, account core.Address) ([]core.Address, error) {
	set := map[core.Address]bool{}
	places, err := v.Places(account)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.Standing != core.Joined {
			continue
		}
		s, err := v.State(p.Conv)
		if err != nil {
			return nil, err
		}
		for _, m := range s.With(core.Joined, core.Invited) {
			set[m.Address] = true
		}
	}
	contacts, err := v.Contacts(account)
	if err != nil {
		return nil, err
	}
	for _, c := range contacts {
		if c.Listed {
			set[c.Address] = true
		}
	}
	delete(set, account)
	out := make([]core.Address, 0, len(set))
	for a := range set {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b core.Address) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}
