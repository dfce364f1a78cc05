package client

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

// crossKey is a cross-signing key.
//
// spec: MX 1.19 CS §10.12.3.3
type crossKey struct {
	User  string            `json:"user_id"`
	Usage []string          `json:"usage"`
	Keys  map[string]string `json:"keys"`
	// Signatures are only looked at for their form.
	Signatures map[string]map[string]string `json:"signatures"`

	id  string
	raw json.RawMessage // canonical
}

func errSignature(format string, args ...any) error {
	return Errorf(http.StatusBadRequest, InvalidSignature, format, args...)
}

// ReadCrossKey holds what is said to be a user's cross-signing key for a usage
// ("master", "self_signing", "user_signing") to its form, and returns it as it is
// signed.
//
// spec: MX 1.19 CS §10.12.3.3
func ReadCrossKey(raw json.RawMessage, user, usage string) (canonical json.RawMessage, err error) {
	k, err := readCrossKey(raw, user, usage)
	if err != nil {
		return nil, err
	}
	return k.raw, nil
}

func readCrossKey(raw json.RawMessage, user, usage string) (*crossKey, error) {
	bad := func(why string) (*crossKey, error) {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "The %s key %s.", usage, why)
	}
	k := &crossKey{}
	if err := DecodeJSON(raw, k); err != nil {
		return nil, err
	}
	switch {
	case len(raw) > maxKey:
		return bad("is too long")
	case k.User != user:
		return bad("is another user's")
	case !slices.Contains(k.Usage, usage):
		return bad("is for another usage")
	case len(k.Keys) != 1:
		return bad("is not exactly one")
	}
	for name, value := range k.Keys {
		if name != "ed25519:"+value || !textual(value) {
			return bad("is not named by itself")
		}
		if _, err := publicKey(value); err != nil {
			return bad("is no Ed25519 key")
		}
		k.id = value
	}
	var err error
	if k.raw, err = wire.Canonical(raw); err != nil {
		return bad("has no canonical form, so it cannot be signed")
	}
	return k, nil
}

// publicKey reads an Ed25519 key.
//
// spec: MX 1.19 AP §1
func publicKey(s string) (ed25519.PublicKey, error) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err == nil && len(b) != ed25519.PublicKeySize {
		err = base64.CorruptInputError(len(b))
	}
	return b, err
}

// crossKeyOf reads one of an account's keys, nil if there is none.
func crossKeyOf(v hub.View, who core.Address, usage string) (*crossKey, error) {
	k := &crossKey{}
	var raw []byte
	found, err := row(v, into(&k.id, &raw), `SELECT id, value FROM mxc_cross_keys WHERE account = $1 AND usage = $2`, key(who), usage)
	if err != nil || !found {
		return nil, err
	}
	k.raw = raw
	return k, json.Unmarshal(raw, k)
}

// uploadCrossKeys takes the account's cross-signing keys. The first, and those
// that are there already, need no password; others do.
//
// spec: MX 1.19 CS §10.12.3.3
func (a *API) uploadCrossKeys(r *Request) (any, error) {
	keys, err := r.crossKeys()
	if err != nil {
		return nil, err
	}
	var first, same bool
	err = a.hub.Read(r.Context(), func(v hub.View) error {
		first, same, err = a.compare(v, r, keys)
		return err
	})
	if err != nil || same {
		return nil, err
	}
	if first {
		return nil, a.putCrossKeys(r, keys, true)
	}
	finish, err := r.confirm([][]string{{stagePassword}}, false)
	if err != nil {
		return nil, err
	}
	// The body may have been that of the first request.
	if keys, err = r.crossKeys(); err == nil {
		err = a.putCrossKeys(r, keys, false)
	}
	finish(err)
	return nil, err
}

// crossKeys reads the keys of the request's body, by usage.
func (r *Request) crossKeys() (map[string]*crossKey, error) {
	var body struct {
		Master json.RawMessage `json:"master_key"`
		Self   json.RawMessage `json:"self_signing_key"`
		User   json.RawMessage `json:"user_signing_key"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	keys := map[string]*crossKey{}
	for usage, raw := range map[string]json.RawMessage{usageMaster: body.Master, usageSelf: body.Self, usageUser: body.User} {
		if raw == nil || string(raw) == "null" {
			continue
		}
		k, err := readCrossKey(raw, r.UserID, usage)
		if err != nil {
			return nil, err
		}
		keys[usage] = k
	}
	return keys, nil
}

// compare says whether the account has no master key yet, and whether all keys
// that it brings are there already.
func (a *API) compare(v hub.View, r *Request, keys map[string]*crossKey) (first, same bool, err error) {
	old, err := crossKeyOf(v, r.Account, usageMaster)
	if err != nil || old == nil {
		return true, false, err
	}
	same = len(keys) > 0
	for usage, k := range keys {
		old, err := crossKeyOf(v, r.Account, usage)
		if err != nil {
			return false, false, err
		}
		same = same && old != nil && old.id == k.id && sameBut(old.raw, k.raw, "signatures")
	}
	return false, same, nil
}

// putCrossKeys checks and keeps keys. first says that there was no master key
// when the password was not asked for; if there is one now, it is asked for.
func (a *API) putCrossKeys(r *Request, keys map[string]*crossKey, first bool) error {
	return a.hub.Write(r.Context(), func(tx hub.Tx) error {
		master, err := crossKeyOf(tx, r.Account, usageMaster)
		if err != nil {
			return err
		}
		if first && master != nil {
			return Errorf(http.StatusForbidden, Forbidden, "Another device has just set up cross-signing; try again.")
		}
		if k := keys[usageMaster]; k != nil {
			master = k
		}
		if master == nil {
			return Errorf(http.StatusBadRequest, MissingParam, "There is no master key.")
		}
		for usage, k := range keys {
			if err := a.putCrossKey(tx, r, usage, k, master); err != nil {
				return err
			}
		}
		return a.crossKeysChanged(tx, r.Account)
	})
}

func (a *API) putCrossKey(tx hub.Tx, r *Request, usage string, k, master *crossKey) error {
	if usage != usageMaster {
		public, err := publicKey(master.id)
		if err != nil {
			return err
		}
		if err := wire.VerifyJSON(r.UserID, "ed25519:"+master.id, public, k.raw); err != nil {
			return errSignature("The %s key is not signed by the master key.", usage)
		}
	}
	var n int
	if _, err := row(tx, into(&n), `SELECT COUNT(*) FROM mxc_devices WHERE account = $1 AND device = $2`, key(r.Account), k.id); err != nil {
		return err
	}
	if n > 0 {
		return Errorf(http.StatusForbidden, Forbidden, "The %s key is named as one of your devices is.", usage)
	}
	old, err := crossKeyOf(tx, r.Account, usage)
	if err != nil {
		return err
	}
	if old != nil && old.id != k.id {
		// What the old key signed, and what signed it, is worth nothing now.
		if _, err := exec(tx, `DELETE FROM mxc_key_signatures WHERE account = $1 AND key = $2 OR signer = $1 AND signer_key = $2`,
			key(r.Account), old.id); err != nil {
			return err
		}
	}
	_, err = exec(tx, `INSERT INTO mxc_cross_keys (account, usage, id, value) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, usage) DO UPDATE SET id = $3, value = $4`, key(r.Account), usage, k.id, []byte(k.raw))
	return err
}

// sameBut compares two objects without some of their members.
func sameBut(a, b []byte, but ...string) bool {
	x, err1 := wire.ParseObject(a)
	y, err2 := wire.ParseObject(b)
	if err1 != nil || err2 != nil {
		return false
	}
	return string(x.Without(but...).JSON()) == string(y.Without(but...).JSON())
}

// uploadSignatures takes signatures of keys: of the account's own devices by
// its self-signing key, of its master key by its devices, of other users'
// master keys by its user-signing key.
//
// spec: MX 1.19 CS §10.12.3.3
func (a *API) uploadSignatures(r *Request) (any, error) {
	var body map[string]map[string]json.RawMessage
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	asked, err := whom(a, body, func(m map[string]json.RawMessage) int { return len(m) })
	if err != nil {
		return nil, err
	}
	masters := a.mastersOf(r, asked.remote)
	failures := map[string]map[string]any{}
	err = a.hub.Write(r.Context(), func(tx hub.Tx) error {
		clear(failures)
		for user, objects := range body {
			who := asked.local[user]
			if who.IsZero() {
				who = asked.remote[user]
			}
			failed, err := a.signAll(tx, r, who, objects, masters[who])
			if err != nil {
				return err
			}
			if len(failed) > 0 {
				failures[user] = failed
			}
		}
		return nil
	})
	return map[string]any{"failures": failures}, err
}

// signAll keeps the account's signatures of keys of one user, and tells whom it
// concerns. master is the master key of a user of another server.
func (a *API) signAll(tx hub.Tx, r *Request, who core.Address, objects map[string]json.RawMessage, master json.RawMessage) (failed map[string]any, err error) {
	failed = map[string]any{}
	var s signedKeys
	for _, id := range slices.Sorted(maps.Keys(objects)) {
		device, err := a.sign(tx, r, who, id, objects[id], master)
		if err == nil {
			s.add(id, device)
			continue
		}
		e, internal := AsError(err)
		if internal {
			return nil, err
		}
		failed[id] = map[string]any{"status": e.Status, "errcode": e.Errcode, "error": e.Text}
	}
	if !s.master && len(s.devices) == 0 {
		return failed, nil
	}
	return failed, a.signed(tx, r.Account, who, s)
}

// signedKeys are those of a user's keys that have new signatures.
type signedKeys struct {
	devices []DeviceChange
	master  bool
}

func (s *signedKeys) add(id string, device bool) {
	if device {
		s.devices = append(s.devices, DeviceChange{Device: id})
	} else {
		s.master = true
	}
}

// signed tells those whom it concerns of new signatures: of one's own keys,
// everybody; of another's, oneself.
func (a *API) signed(tx hub.Tx, by, who core.Address, s signedKeys) error {
	if by == who {
		if s.master {
			if err := a.others.CrossKeysChanged(tx, by); err != nil {
				return err
			}
		}
		return a.devicesChanged(tx, by, s.devices...)
	}
	feed := tx.NextFeed()
	tx.OnCommit(func() {
		a.hub.Poke([]core.Address{by}, hub.PokeNews{Topic: TopicDevices, Feed: feed, Data: who})
	})
	_, err := exec(tx, `INSERT INTO mxc_signed (account, target, feed) VALUES ($1, $2, $3)
		ON CONFLICT (account, target) DO UPDATE SET feed = $3`, key(by), key(who), int64(feed))
	return err
}

// sign keeps the account's signatures of one key, and reports whether it is a
// device's.
func (a *API) sign(tx hub.Tx, r *Request, who core.Address, id string, object, master json.RawMessage) (device bool, err error) {
	notFound := Errorf(http.StatusNotFound, NotFound, "There is no such key.")
	if who.IsZero() || !textual(id) {
		return false, notFound
	}
	var target []byte
	if who.IsLocal() {
		target, device, err = signable(tx, who, id)
	} else if named, ok := crossKeyID(master); ok && named == id {
		target = master
	}
	if err != nil {
		return false, err
	}
	if target == nil || device && who != r.Account {
		return device, notFound
	}
	return device, a.keepSignatures(tx, r, who, id, device, target, object)
}

// keepSignatures checks the account's signatures of the key target in object and
// keeps them.
func (a *API) keepSignatures(tx hub.Tx, r *Request, who core.Address, id string, device bool, target, object []byte) error {
	canon, err := wire.Canonical(object)
	if err != nil || len(object) > maxKey || !sameBut(target, canon, "signatures", "unsigned") {
		return Errorf(http.StatusBadRequest, InvalidParam, "What is signed is not the key.")
	}
	signers, err := signersFor(tx, r.Account, who, device)
	if err != nil {
		return err
	}
	var o struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := DecodeJSON(canon, &o); err != nil {
		return err
	}
	kept := 0
	for name, signature := range o.Signatures[r.UserID] {
		signer, isEd := strings.CutPrefix(name, "ed25519:")
		public, known := signers[signer]
		if !isEd || !known {
			continue
		}
		if err := wire.VerifyJSON(r.UserID, name, public, canon); err != nil {
			return errSignature("The signature by %.60q is wrong.", name)
		}
		if _, err := exec(tx, `INSERT INTO mxc_key_signatures (account, key, signer, signer_key, signature) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account, key, signer, signer_key) DO UPDATE SET signature = $5`,
			key(who), id, key(r.Account), signer, signature); err != nil {
			return err
		}
		kept++
	}
	if kept == 0 {
		return errSignature("There is no signature by a key of yours that signs this.")
	}
	return nil
}

// signable finds a key that can be signed: that of a device, or a master key.
func signable(v hub.View, who core.Address, id string) (object []byte, device bool, err error) {
	master, err := crossKeyOf(v, who, usageMaster)
	if err != nil {
		return nil, false, err
	}
	if master != nil && master.id == id {
		return master.raw, false, nil
	}
	_, err = row(v, into(&object), `SELECT keys FROM mxc_device_keys WHERE account = $1 AND device = $2`, key(who), id)
	return object, true, err
}

// signersFor are the keys with which an account can sign a key of who.
func signersFor(v hub.View, account, who core.Address, device bool) (map[string]ed25519.PublicKey, error) {
	usage := usageUser
	if device {
		usage = usageSelf
	}
	signers := map[string]ed25519.PublicKey{}
	if device || account != who {
		k, err := crossKeyOf(v, account, usage)
		if err != nil || k == nil {
			return signers, err
		}
		signers[k.id], err = publicKey(k.id)
		return signers, err
	}
	err := rows(v, func(scan func(...any) error) error {
		var id string
		var raw []byte
		if err := scan(&id, &raw); err != nil {
			return err
		}
		var k deviceKeys
		if err := json.Unmarshal(raw, &k); err != nil {
			return err
		}
		if public, err := publicKey(k.Keys["ed25519:"+id]); err == nil {
			signers[id] = public
		}
		return nil
	}, `SELECT device, keys FROM mxc_device_keys WHERE account = $1`, key(account))
	return signers, err
}
