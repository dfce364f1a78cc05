package devices

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
)

// errNoUser answers questions about whom there is not.
var errNoUser = federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "There is no such user here.")

// decodeBody reads what another server asks.
func decodeBody(r *federation.Request, v any) error {
	if err := json.Unmarshal(r.Body, v); err != nil {
		return federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "The body is not what this endpoint takes.")
	}
	return nil
}

// device is one of the answer to GET /user/devices.
type device struct {
	ID   string          `json:"device_id"`
	Keys json.RawMessage `json:"keys"`
	Name string          `json:"device_display_name,omitempty"`
}

// deviceList is the answer to GET /user/devices.
//
// spec: MX 1.19 SS §22
type deviceList struct {
	User    string          `json:"user_id"`
	Stream  int64           `json:"stream_id"`
	Devices []device        `json:"devices"`
	Master  json.RawMessage `json:"master_key,omitempty"`
	Self    json.RawMessage `json:"self_signing_key,omitempty"`
}

// serveDevices tells a user's list of devices. People on other networks that are
// seen through us have none.
//
// spec: MX 1.19 SS §22
func (d *Devices) serveDevices(r *federation.Request) (any, error) {
	who, err := d.names.Address(r.Var("userId"))
	if err != nil || who.Network == core.Matrix {
		return nil, errNoUser
	}
	out := deviceList{User: d.userID(who), Stream: firstStream, Devices: []device{}}
	if !who.IsLocal() {
		return out, nil
	}
	err = d.hub.Read(r.Context(), func(v hub.View) (err error) {
		if _, err := v.Account(who); err != nil {
			return err
		}
		if out.Stream, _, err = stream(v, who); err != nil {
			return err
		}
		k, err := d.publicKeys(v, who)
		out.Master, out.Self = k.Master, k.Self
		for _, id := range slices.Sorted(maps.Keys(k.Devices)) {
			out.Devices = append(out.Devices, device{id, k.Devices[id].Keys, k.Devices[id].Name})
		}
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		return nil, errNoUser
	}
	return out, err
}

// here reads for which of our users a request asks, each with so many devices.
// Users of other servers are passed over.
func here[V any](d *Devices, users map[string]V, size func(V) int) (map[core.Address]V, error) {
	out := map[core.Address]V{}
	n := 0
	for user, v := range users {
		n += size(v)
		if len(users) > maxUsers || n > maxAsked {
			return nil, federation.Errorf(http.StatusBadRequest, "M_TOO_LARGE", "This asks for more than %d users or %d devices at once.", maxUsers, maxAsked)
		}
		who, err := d.names.Address(user)
		if err == nil && who.Network != core.Matrix {
			out[who] = v
		}
	}
	return out, nil
}

// keysAnswer is the answer to POST /user/keys/query.
//
// spec: MX 1.19 SS §23
type keysAnswer struct {
	Devices map[string]map[string]json.RawMessage `json:"device_keys"`
	Master  map[string]json.RawMessage            `json:"master_keys"`
	Self    map[string]json.RawMessage            `json:"self_signing_keys"`
}

// serveQuery tells keys of users.
//
// spec: MX 1.19 SS §23
func (d *Devices) serveQuery(r *federation.Request) (any, error) {
	var body struct {
		Keys map[string][]string `json:"device_keys"`
	}
	if err := decodeBody(r, &body); err != nil {
		return nil, err
	}
	users, err := here(d, body.Keys, func(l []string) int { return len(l) })
	if err != nil {
		return nil, err
	}
	out := keysAnswer{map[string]map[string]json.RawMessage{}, map[string]json.RawMessage{}, map[string]json.RawMessage{}}
	err = d.hub.Read(r.Context(), func(v hub.View) error {
		for who, devices := range users {
			user := d.userID(who)
			if who.IsLocal() {
				if _, err := v.Account(who); errors.Is(err, hub.ErrNone) {
					continue
				}
			}
			out.Devices[user] = map[string]json.RawMessage{}
			if !who.IsLocal() {
				continue
			}
			k, err := d.publicKeys(v, who, devices...)
			if err != nil {
				return err
			}
			if err := out.add(user, k); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func (a *keysAnswer) add(user string, k client.UserKeys) (err error) {
	for id, dev := range k.Devices {
		if a.Devices[user][id], err = dev.Shown(); err != nil {
			return err
		}
	}
	if k.Master != nil {
		a.Master[user] = k.Master
	}
	if k.Self != nil {
		a.Self[user] = k.Self
	}
	return nil
}

// claimed is the answer to POST /user/keys/claim.
//
// spec: MX 1.19 SS §23
type claimed struct {
	Keys map[string]map[string]map[string]json.RawMessage `json:"one_time_keys"`
}

// serveClaim gives out one-time keys.
//
// spec: MX 1.19 SS §23
func (d *Devices) serveClaim(r *federation.Request) (any, error) {
	var body struct {
		Keys map[string]map[string]string `json:"one_time_keys"`
	}
	if err := decodeBody(r, &body); err != nil {
		return nil, err
	}
	wanted, err := here(d, body.Keys, func(m map[string]string) int { return len(m) })
	if err != nil {
		return nil, err
	}
	given, err := d.api.Claim(r.Context(), wanted)
	out := claimed{map[string]map[string]map[string]json.RawMessage{}}
	for who, devices := range given {
		of := map[string]map[string]json.RawMessage{}
		for id, k := range devices {
			of[id] = map[string]json.RawMessage{k.Name: k.Key}
		}
		out.Keys[d.userID(who)] = of
	}
	return out, err
}
