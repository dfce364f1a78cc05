package client

import (
	"context"
	"encoding/json"
	"net/http"

	"parley/core"
	"parley/hub"
)

// claimKeys gives out one-time keys, each once and for all. Those of users of
// other servers are claimed there.
//
// spec: MX 1.19 CS §10.12.2.4
func (a *API) claimKeys(r *Request) (any, error) {
	var body struct {
		Keys    map[string]map[string]string `json:"one_time_keys"`
		Timeout int64                        `json:"timeout"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Keys == nil {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "It is not said which keys are wanted.")
	}
	asked, err := whom(a, body.Keys, func(m map[string]string) int { return len(m) })
	if err != nil {
		return nil, err
	}
	given := map[string]map[string]map[string]json.RawMessage{}
	give := func(all map[core.Address]map[string]NamedKey) {
		for who, devices := range all {
			of := map[string]map[string]json.RawMessage{}
			for device, k := range devices {
				of[device] = map[string]json.RawMessage{k.Name: k.Key}
			}
			given[a.UserID(who)] = of
		}
	}
	local, err := a.Claim(r.Context(), pick(asked.local, body.Keys))
	if err != nil {
		return nil, err
	}
	give(local)
	var failed map[string]error
	if len(asked.remote) > 0 {
		ctx, cancel := r.othersTime(body.Timeout)
		defer cancel()
		var remote map[core.Address]map[string]NamedKey
		remote, failed = a.others.Claim(ctx, r.Account, pick(asked.remote, body.Keys))
		give(remote)
	}
	return map[string]any{"one_time_keys": given, "failures": failures(failed)}, nil
}

// Claim takes one key of each device of accounts: the oldest one-time key of the
// algorithm, which nobody else gets then, or else the fallback key. For devices
// without either there is nothing in the answer.
//
// spec: MX 1.19 CS §10.12.2.4
// spec: MX 1.19 SS §23
func (a *API) Claim(ctx context.Context, wanted Wanted) (given map[core.Address]map[string]NamedKey, err error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	err = a.hub.Write(ctx, func(tx hub.Tx) error {
		given = map[core.Address]map[string]NamedKey{}
		for who, devices := range wanted {
			for device, algorithm := range devices {
				if !who.IsLocal() || !textual(device, algorithm) {
					continue
				}
				k, err := a.claim(tx, who, device, algorithm)
				if err != nil {
					return err
				}
				if k.Name == "" {
					continue
				}
				if given[who] == nil {
					given[who] = map[string]NamedKey{}
				}
				given[who][device] = k
			}
		}
		return nil
	})
	return given, err
}

// claim takes one key of a device; its name is empty where there is none.
func (a *API) claim(tx hub.Tx, who core.Address, device, algorithm string) (NamedKey, error) {
	var id string
	var b []byte
	found, err := row(tx, into(&id, &b), `SELECT id, value FROM mxc_one_time_keys
		WHERE account = $1 AND device = $2 AND algorithm = $3 AND claimed = 0 ORDER BY batch, id LIMIT 1`, key(who), device, algorithm)
	if err != nil {
		return NamedKey{}, err
	}
	if found {
		if _, err := exec(tx, `UPDATE mxc_one_time_keys SET claimed = 1, value = X'' WHERE account = $1 AND device = $2 AND algorithm = $3 AND id = $4`,
			key(who), device, algorithm, id); err != nil {
			return NamedKey{}, err
		}
		// Of claimed keys the latest IDs are remembered.
		_, err = exec(tx, `DELETE FROM mxc_one_time_keys WHERE account = $1 AND device = $2 AND claimed = 1 AND batch < (
			SELECT COALESCE(MIN(batch), 0) FROM (SELECT batch FROM mxc_one_time_keys
				WHERE account = $1 AND device = $2 AND claimed = 1 ORDER BY batch DESC LIMIT $3) AS latest)`,
			key(who), device, claimedKept)
	} else {
		found, err = row(tx, into(&id, &b), `UPDATE mxc_fallback_keys SET used = 1 WHERE account = $1 AND device = $2 AND algorithm = $3
			RETURNING id, value`, key(who), device, algorithm)
	}
	if err != nil || !found {
		return NamedKey{}, err
	}
	feed := tx.NextFeed()
	tx.OnCommit(func() {
		a.hub.Poke([]core.Address{who}, hub.PokeNews{Topic: TopicKeys, Feed: feed, Data: device})
	})
	return NamedKey{algorithm + ":" + id, b}, nil
}
