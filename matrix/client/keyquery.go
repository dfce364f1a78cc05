package client

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"parley/core"
	"parley/hub"
)

// asked are the users of a request, by user ID: accounts here, and users of
// other servers. Those of other networks have no devices.
type asked struct {
	local, remote map[string]core.Address
}

// whom reads the user IDs for whom a request asks, each with so many devices.
func whom[V any](a *API, users map[string]V, size func(V) int) (asked, error) {
	out := asked{map[string]core.Address{}, map[string]core.Address{}}
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
			out.remote[user] = who
		}
	}
	return out, nil
}

// pick is what is said of some of the users, by their addresses.
func pick[V any](users map[string]core.Address, said map[string]V) map[core.Address]V {
	out := make(map[core.Address]V, len(users))
	for user, who := range users {
		out[who] = said[user]
	}
	return out
}

// queryKeys answers with the devices and keys of users.
//
// spec: MX 1.19 CS §10.12.7.2
func (a *API) queryKeys(r *Request) (any, error) {
	var body struct {
		Keys    map[string][]string `json:"device_keys"`
		Timeout int64               `json:"timeout"`
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
	var remote map[core.Address]UserKeys
	var failed map[string]error
	if len(asked.remote) > 0 {
		ctx, cancel := r.othersTime(body.Timeout)
		defer cancel()
		remote, failed = a.others.Query(ctx, r.Account, pick(asked.remote, body.Keys))
	}
	answer := keyAnswer{
		Failures: failures(failed), Devices: map[string]map[string]json.RawMessage{},
		Master: map[string]json.RawMessage{}, Self: map[string]json.RawMessage{}, User: map[string]json.RawMessage{},
	}
	err = a.hub.Read(r.Context(), func(v hub.View) error {
		for user, who := range asked.local {
			k, err := a.KeysOf(v, r.Account, who, body.Keys[user])
			if isNone(err) {
				continue
			}
			if err == nil {
				err = answer.add(user, k)
			}
			if err != nil {
				return err
			}
		}
		for who, k := range remote {
			if k.Master, err = a.signedMaster(v, r.Account, who, k.Master); err != nil {
				return err
			}
			if err := answer.add(a.UserID(who), k); err != nil {
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

// add puts one user's keys into the answer.
func (a *keyAnswer) add(user string, k UserKeys) (err error) {
	a.Devices[user] = map[string]json.RawMessage{}
	for id, d := range k.Devices {
		if a.Devices[user][id], err = d.Shown(); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		to  map[string]json.RawMessage
		key json.RawMessage
	}{{a.Master, k.Master}, {a.Self, k.Self}, {a.User, k.User}} {
		if c.key != nil {
			c.to[user] = c.key
		}
	}
	return nil
}

// Shown are the keys with the device's name, where it has one, beside what is
// signed. "unsigned" is there without a name as well: where another server's
// answer leaves it out Dendrite tells its clients null, of which matrix-nio dies.
func (d DeviceKeys) Shown() (json.RawMessage, error) {
	unsigned, err := json.Marshal(struct {
		Name string `json:"device_display_name,omitempty"`
	}{d.Name})
	if err != nil {
		return nil, err
	}
	return withMember(d.Keys, "unsigned", unsigned)
}

// KeysOf are an account's keys as viewer may see them, who may be nobody: the
// keys of all devices that have some, or of those wanted, and the cross-signing
// keys. It is [hub.ErrNone] where there is no such account.
func (a *API) KeysOf(v hub.View, viewer, who core.Address, wanted []string) (UserKeys, error) {
	k := UserKeys{Devices: map[string]DeviceKeys{}}
	if _, err := v.Account(who); err != nil {
		return k, err
	}
	err := rows(v, func(scan func(...any) error) error {
		var id, name string
		var keys []byte
		err := scan(&id, &name, &keys)
		if len(wanted) == 0 || slices.Contains(wanted, id) {
			k.Devices[id] = DeviceKeys{name, keys}
		}
		return err
	}, `SELECT k.device, d.name, k.keys FROM mxc_device_keys k
		JOIN mxc_devices d ON d.account = k.account AND d.device = k.device WHERE k.account = $1`, key(who))
	if err != nil {
		return k, err
	}
	for _, id := range slices.Collect(maps.Keys(k.Devices)) {
		d := k.Devices[id]
		if d.Keys, err = a.withSignatures(v, viewer, who, id, d.Keys); err != nil {
			return k, err
		}
		k.Devices[id] = d
	}
	for usage, to := range map[string]*json.RawMessage{usageMaster: &k.Master, usageSelf: &k.Self, usageUser: &k.User} {
		if usage == usageUser && viewer != who {
			continue
		}
		c, err := crossKeyOf(v, who, usage)
		if err != nil {
			return k, err
		}
		if c == nil {
			continue
		}
		if *to, err = a.withSignatures(v, viewer, who, c.id, c.raw); err != nil {
			return k, err
		}
	}
	return k, nil
}

// signedMaster is the master key of a user of another server with viewer's
// signature.
func (a *API) signedMaster(v hub.View, viewer, who core.Address, master json.RawMessage) (json.RawMessage, error) {
	id, ok := crossKeyID(master)
	if !ok {
		return master, nil
	}
	return a.withSignatures(v, viewer, who, id, master)
}

// mastersOf are the master keys of users of other servers, as far as they can be
// learnt now.
func (a *API) mastersOf(r *Request, remote map[string]core.Address) map[core.Address]json.RawMessage {
	if len(remote) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), othersWait)
	defer cancel()
	keys, _ := a.others.Query(ctx, r.Account, pick(remote, map[string][]string{}))
	out := map[core.Address]json.RawMessage{}
	for who, k := range keys {
		if k.Master != nil {
			out[who] = k.Master
		}
	}
	return out
}

// crossKeyID is the name of the one key in a cross-signing key, without its
// algorithm.
func crossKeyID(raw json.RawMessage) (id string, ok bool) {
	var k crossKey
	if raw == nil || json.Unmarshal(raw, &k) != nil || len(k.Keys) != 1 {
		return "", false
	}
	for _, id = range k.Keys {
	}
	return id, true
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
