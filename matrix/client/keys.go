package client

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

// Limits of keys.
const (
	maxKey       = 64 << 10 // bytes of one key object
	maxOneTime   = 500      // one-time keys in one upload
	maxKeptKeys  = 2000     // unclaimed one-time keys of a device
	claimedKept  = 2000     // IDs of claimed keys that are remembered
	maxAsked     = 5000     // devices in one query or claim
	usedByOlm    = "signed_curve25519"
	usageMaster  = "master"
	usageSelf    = "self_signing"
	usageUser    = "user_signing"
	errKeyFormat = "The key %.60q is malformed."
)

// uploadKeys takes a device's keys.
//
// spec: MX 1.19 CS §10.12.2.5
func (a *API) uploadKeys(r *Request) (any, error) {
	var body struct {
		Device   json.RawMessage            `json:"device_keys"`
		OneTime  map[string]json.RawMessage `json:"one_time_keys"`
		Fallback map[string]json.RawMessage `json:"fallback_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if len(body.OneTime) > maxOneTime || len(body.Fallback) > maxOneTime {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "There are more than %d keys in one upload.", maxOneTime)
	}
	if body.Device != nil && string(body.Device) != "null" {
		if err := r.checkDeviceKeys(body.Device); err != nil {
			return nil, err
		}
	} else {
		body.Device = nil
	}
	var counts map[string]int
	err := a.hub.Write(r.Context(), func(tx hub.Tx) error {
		if body.Device != nil {
			if err := a.putDeviceKeys(tx, r, body.Device); err != nil {
				return err
			}
		}
		if err := putOneTime(tx, r, body.OneTime); err != nil {
			return err
		}
		if err := putFallback(tx, r, body.Fallback); err != nil {
			return err
		}
		var err error
		counts, err = a.OneTimeKeyCounts(tx, r.Account, r.Device)
		return err
	})
	return map[string]any{"one_time_key_counts": counts}, err
}

// deviceKeys are the identity keys of a device, as far as a server looks.
//
// spec: MX 1.19 CS §10.12.2.3
type deviceKeys struct {
	User       string                       `json:"user_id"`
	Device     string                       `json:"device_id"`
	Algorithms []string                     `json:"algorithms"`
	Keys       map[string]string            `json:"keys"`
	Signatures map[string]map[string]string `json:"signatures"`
}

func (r *Request) checkDeviceKeys(raw json.RawMessage) error {
	var k deviceKeys
	if err := DecodeJSON(raw, &k); err != nil {
		return err
	}
	if k.User != r.UserID || k.Device != r.Device {
		return Errorf(http.StatusBadRequest, InvalidParam, "These keys are of another user or device.")
	}
	if len(raw) > maxKey || len(k.Keys) == 0 {
		return Errorf(http.StatusBadRequest, InvalidParam, "There are no keys, or they have more than %d bytes.", maxKey)
	}
	if _, err := wire.Canonical(raw); err != nil {
		return Errorf(http.StatusBadRequest, BadJSON, "The device keys cannot be signed: they have no canonical form.")
	}
	return nil
}

func (a *API) putDeviceKeys(tx hub.Tx, r *Request, raw json.RawMessage) error {
	raw, err := wire.Canonical(raw)
	if err != nil {
		return err
	}
	var old []byte
	if _, err := row(tx, into(&old), `SELECT keys FROM mxc_device_keys WHERE account = $1 AND device = $2`, key(r.Account), r.Device); err != nil {
		return err
	}
	if bytes.Equal(old, raw) {
		return nil
	}
	if _, err := exec(tx, `INSERT INTO mxc_device_keys (account, device, keys) VALUES ($1, $2, $3)
		ON CONFLICT (account, device) DO UPDATE SET keys = $3`, key(r.Account), r.Device, []byte(raw)); err != nil {
		return err
	}
	return a.devicesChanged(tx, r.Account)
}

// splitKey takes "<algorithm>:<id>" apart.
func splitKey(name string, value json.RawMessage) (algorithm, id string, err error) {
	algorithm, id, ok := strings.Cut(name, ":")
	if !ok || algorithm == "" || id == "" || !textual(name) || len(value) > maxKey {
		return "", "", Errorf(http.StatusBadRequest, InvalidParam, errKeyFormat, name)
	}
	return algorithm, id, nil
}

// putOneTime adds one-time keys. One that is there already must be the same;
// one that was claimed stays claimed.
//
// spec: MX 1.19 CS §10.12.2.4
func putOneTime(tx hub.Tx, r *Request, keys map[string]json.RawMessage) error {
	if len(keys) == 0 {
		return nil
	}
	batch := int64(tx.NextFeed())
	for name, value := range keys {
		algorithm, id, err := splitKey(name, value)
		if err != nil {
			return err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return err
		}
		n, err := exec(tx, `INSERT INTO mxc_one_time_keys (account, device, algorithm, id, batch, claimed, value) VALUES ($1, $2, $3, $4, $5, 0, $6)
			ON CONFLICT (account, device, algorithm, id) DO NOTHING`, key(r.Account), r.Device, algorithm, id, batch, compact.Bytes())
		if err != nil {
			return err
		}
		if n == 1 {
			continue
		}
		var old []byte
		var claimed bool
		if _, err := row(tx, into(&old, &claimed), `SELECT value, claimed FROM mxc_one_time_keys
			WHERE account = $1 AND device = $2 AND algorithm = $3 AND id = $4`, key(r.Account), r.Device, algorithm, id); err != nil {
			return err
		}
		if !claimed && !sameJSON(old, value) {
			return Errorf(http.StatusBadRequest, InvalidParam, "There is another one-time key %.60q already.", name)
		}
	}
	var unclaimed int
	_, err := row(tx, into(&unclaimed), `SELECT COUNT(*) FROM mxc_one_time_keys WHERE account = $1 AND device = $2 AND claimed = 0`, key(r.Account), r.Device)
	if err == nil && unclaimed > maxKeptKeys {
		return Errorf(http.StatusBadRequest, InvalidParam, "A device has at most %d one-time keys.", maxKeptKeys)
	}
	return err
}

func sameJSON(a, b []byte) bool {
	x, err1 := wire.Canonical(a)
	y, err2 := wire.Canonical(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// putFallback replaces the fallback key of each algorithm.
func putFallback(tx hub.Tx, r *Request, keys map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		algorithm, id, err := splitKey(name, keys[name])
		if err != nil {
			return err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, keys[name]); err != nil {
			return err
		}
		// The same key again is not unused for that.
		if _, err := exec(tx, `INSERT INTO mxc_fallback_keys (account, device, algorithm, id, used, value) VALUES ($1, $2, $3, $4, 0, $5)
			ON CONFLICT (account, device, algorithm) DO UPDATE SET id = $4, value = $5,
			used = CASE WHEN mxc_fallback_keys.id = $4 AND mxc_fallback_keys.value = $5 THEN mxc_fallback_keys.used ELSE 0 END`,
			key(r.Account), r.Device, algorithm, id, compact.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// OneTimeKeyCounts are the numbers of a device's unclaimed one-time keys, by
// algorithm, for /sync. That of signed_curve25519 is always there, because
// clients take its absence for not knowing.
//
// spec: MX 1.19 CS §10.12.7.3
func (a *API) OneTimeKeyCounts(v hub.View, account core.Address, device string) (map[string]int, error) {
	counts := map[string]int{usedByOlm: 0}
	err := rows(v, func(scan func(...any) error) error {
		var algorithm string
		var n int
		err := scan(&algorithm, &n)
		counts[algorithm] = n
		return err
	}, `SELECT algorithm, COUNT(*) FROM mxc_one_time_keys WHERE account = $1 AND device = $2 AND claimed = 0 GROUP BY algorithm`,
		key(account), device)
	return counts, err
}

// UnusedFallbackTypes are the algorithms of which a device has a fallback key
// that nobody was given, for /sync.
//
// spec: MX 1.19 CS §10.12.7.3
func (a *API) UnusedFallbackTypes(v hub.View, account core.Address, device string) ([]string, error) {
	list, err := column(v, `SELECT algorithm FROM mxc_fallback_keys WHERE account = $1 AND device = $2 AND used = 0 ORDER BY algorithm`,
		key(account), device)
	if list == nil {
		list = []string{}
	}
	return list, err
}

// claimKeys gives out one-time keys, each once and for all.
//
// spec: MX 1.19 CS §10.12.2.4
func (a *API) claimKeys(r *Request) (any, error) {
	var body struct {
		Keys map[string]map[string]string `json:"one_time_keys"`
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
	err = a.hub.Write(r.Context(), func(tx hub.Tx) error {
		clear(given)
		for user, devices := range body.Keys {
			who := asked.local[user]
			for device, algorithm := range devices {
				if who.IsZero() || !textual(device, algorithm) {
					continue
				}
				name, value, err := a.claim(tx, who, device, algorithm)
				if err != nil {
					return err
				}
				if name == "" {
					continue
				}
				if given[user] == nil {
					given[user] = map[string]map[string]json.RawMessage{}
				}
				given[user][device] = map[string]json.RawMessage{name: value}
			}
		}
		return nil
	})
	return map[string]any{"one_time_keys": given, "failures": asked.failures}, err
}

// claim takes one key of a device: the oldest one-time key, or else the
// fallback key.
func (a *API) claim(tx hub.Tx, who core.Address, device, algorithm string) (name string, value json.RawMessage, err error) {
	var id string
	var b []byte
	found, err := row(tx, into(&id, &b), `SELECT id, value FROM mxc_one_time_keys
		WHERE account = $1 AND device = $2 AND algorithm = $3 AND claimed = 0 ORDER BY batch, id LIMIT 1`, key(who), device, algorithm)
	if err != nil {
		return "", nil, err
	}
	if found {
		if _, err := exec(tx, `UPDATE mxc_one_time_keys SET claimed = 1, value = X'' WHERE account = $1 AND device = $2 AND algorithm = $3 AND id = $4`,
			key(who), device, algorithm, id); err != nil {
			return "", nil, err
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
		return "", nil, err
	}
	feed := tx.NextFeed()
	tx.OnCommit(func() {
		a.hub.Poke([]core.Address{who}, hub.PokeNews{Topic: TopicKeys, Feed: feed, Data: device})
	})
	return algorithm + ":" + id, b, nil
}

// asked are the users of a request: those here, and the servers of others, of
// whom nothing can be learnt.
type asked struct {
	local    map[string]core.Address
	failures map[string]any
}

// whom reads the user IDs for whom a request asks, each with so many devices.
func whom[V any](a *API, users map[string]V, size func(V) int) (asked, error) {
	out := asked{map[string]core.Address{}, map[string]any{}}
	n := 0
	for user, v := range users {
		who, err := a.Address(user)
		if err != nil {
			return out, err
		}
		if n += 1 + size(v); n > maxAsked {
			return out, Errorf(http.StatusBadRequest, TooLarge, "This asks for more than %d devices at once.", maxAsked)
		}
		switch who.Network {
		case core.Local:
			out.local[user] = who
		case core.Matrix:
			out.failures[who.Domain] = map[string]any{"errcode": Unknown, "error": "This server does not speak to other Matrix servers."}
		}
	}
	return out, nil
}

// queryKeys answers with the devices and keys of users.
//
// spec: MX 1.19 CS §10.12.7.2
func (a *API) queryKeys(r *Request) (any, error) {
	var body struct {
		Keys map[string][]string `json:"device_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Keys == nil {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "It is not said whose keys are wanted.")
	}
	asked, err := whom(a, body.Keys, func(l []string) int { return len(l) })
	if err != nil {
		return nil, err
	}
	answer := keyAnswer{
		Failures: asked.failures, Devices: map[string]map[string]json.RawMessage{},
		Master: map[string]json.RawMessage{}, Self: map[string]json.RawMessage{}, User: map[string]json.RawMessage{},
	}
	err = a.hub.Read(r.Context(), func(v hub.View) error {
		for user, who := range asked.local {
			if _, err := v.Account(who); isNone(err) {
				continue
			} else if err != nil {
				return err
			}
			devices, err := a.keysOf(v, r.Account, who, body.Keys[user])
			if err != nil {
				return err
			}
			answer.Devices[user] = devices
			if err := a.crossKeysOf(v, r.Account, who, user, &answer); err != nil {
				return err
			}
		}
		return nil
	})
	return answer, err
}

type keyAnswer struct {
	Failures map[string]any                        `json:"failures"`
	Devices  map[string]map[string]json.RawMessage `json:"device_keys"`
	Master   map[string]json.RawMessage            `json:"master_keys"`
	Self     map[string]json.RawMessage            `json:"self_signing_keys"`
	User     map[string]json.RawMessage            `json:"user_signing_keys"`
}

// keysOf are the keys of an account's devices, all or those wanted, with the
// signatures that viewer may see and the names of the devices.
func (a *API) keysOf(v hub.View, viewer, who core.Address, wanted []string) (map[string]json.RawMessage, error) {
	type found struct {
		id, name string
		keys     []byte
	}
	var list []found
	err := rows(v, func(scan func(...any) error) error {
		var f found
		err := scan(&f.id, &f.name, &f.keys)
		if len(wanted) == 0 || slices.Contains(wanted, f.id) {
			list = append(list, f)
		}
		return err
	}, `SELECT k.device, d.name, k.keys FROM mxc_device_keys k
		JOIN mxc_devices d ON d.account = k.account AND d.device = k.device WHERE k.account = $1`, key(who))
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	for _, f := range list {
		signed, err := a.withSignatures(v, viewer, who, f.id, f.keys)
		if err != nil {
			return nil, err
		}
		if f.name != "" {
			unsigned, err := json.Marshal(map[string]string{"device_display_name": f.name})
			if err != nil {
				return nil, err
			}
			if signed, err = withMember(signed, "unsigned", unsigned); err != nil {
				return nil, err
			}
		}
		out[f.id] = signed
	}
	return out, nil
}

// withMember is an object with one more member.
func withMember(object []byte, name string, value json.RawMessage) (json.RawMessage, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(object, &m); err != nil {
		return nil, err
	}
	m[name] = value
	return json.Marshal(m)
}

// withSignatures adds the signatures that were uploaded apart: the owner's own,
// and the viewer's.
func (a *API) withSignatures(v hub.View, viewer, who core.Address, id string, object []byte) (json.RawMessage, error) {
	var o struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return nil, err
	}
	if o.Signatures == nil {
		o.Signatures = map[string]map[string]string{}
	}
	n := 0
	err := rows(v, func(scan func(...any) error) error {
		var signer, signerKey, signature string
		if err := scan(&signer, &signerKey, &signature); err != nil {
			return err
		}
		by, err := core.ParseAddress(signer)
		if err != nil {
			return err
		}
		user := a.UserID(by)
		if o.Signatures[user] == nil {
			o.Signatures[user] = map[string]string{}
		}
		o.Signatures[user]["ed25519:"+signerKey] = signature
		n++
		return nil
	}, `SELECT signer, signer_key, signature FROM mxc_key_signatures WHERE account = $1 AND key = $2 AND (signer = $1 OR signer = $3)`,
		key(who), id, key(viewer))
	if err != nil || n == 0 {
		return object, err
	}
	raw, err := json.Marshal(o.Signatures)
	if err != nil {
		return nil, err
	}
	return withMember(object, "signatures", raw)
}
