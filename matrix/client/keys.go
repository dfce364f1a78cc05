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
		var err error
		if body.Device, err = ReadDeviceKeys(body.Device, r.UserID, r.Device); err != nil {
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

// ReadDeviceKeys holds the identity keys that are said to be of a user's device
// to their form, and returns them as they are signed.
//
// spec: MX 1.19 CS §10.12.2.3
func ReadDeviceKeys(raw json.RawMessage, user, device string) (canonical json.RawMessage, err error) {
	var k deviceKeys
	if err := DecodeJSON(raw, &k); err != nil {
		return nil, err
	}
	if k.User != user || k.Device != device {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "These keys are of another user or device.")
	}
	if len(raw) > maxKey || len(k.Keys) == 0 {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "There are no keys, or they have more than %d bytes.", maxKey)
	}
	if canonical, err = wire.Canonical(raw); err != nil {
		return nil, Errorf(http.StatusBadRequest, BadJSON, "The device keys cannot be signed: they have no canonical form.")
	}
	return canonical, nil
}

func (a *API) putDeviceKeys(tx hub.Tx, r *Request, raw json.RawMessage) error {
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
	return a.devicesChanged(tx, r.Account, DeviceChange{Device: r.Device})
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
