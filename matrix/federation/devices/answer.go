package devices

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"parley/core"
	"parley/matrix/client"
	"parley/matrix/wire"
)

// errAnswer is wrapped where another server's answer is not as it must be.
var errAnswer = errors.New("malformed answer")

// readDevice holds the keys that are said to be of a user's device to their
// form. What stood in "unsigned" was said by nobody who signed it; only the name
// is taken from it.
func readDevice(user, device string, raw json.RawMessage) (client.DeviceKeys, error) {
	if !textual(device) {
		return client.DeviceKeys{}, fmt.Errorf("the device ID %.300q", device)
	}
	canon, err := client.ReadDeviceKeys(raw, user, device)
	if err != nil {
		return client.DeviceKeys{}, err
	}
	o, err := wire.ParseObject(canon)
	if err != nil {
		return client.DeviceKeys{}, err
	}
	k := client.DeviceKeys{Keys: canon}
	if unsigned := o.Get("unsigned"); unsigned != nil {
		k.Keys = o.Without("unsigned").JSON()
		if in, err := wire.ParseObject(unsigned); err == nil {
			name, _ := in.String("device_display_name")
			k.Name = cleanName(name)
		}
	}
	return k, nil
}

// cleanName makes a device's name one that can be kept.
func cleanName(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	for len(s) > maxName {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// readCross holds what is said to be a user's cross-signing key to its form. What
// is none is nil.
func readCross(user, usage string, raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return nil
	}
	k, err := client.ReadCrossKey(raw, user, usage)
	if err != nil {
		return nil
	}
	return k
}

// readList reads the answer to GET /user/devices. Keys that are not as they must
// be, or another's, are left out: nobody could use them.
//
// spec: MX 1.19 SS §22
func readList(user string, raw []byte) (k client.UserKeys, at int64, err error) {
	bad := func(format string, args ...any) (client.UserKeys, int64, error) {
		return client.UserKeys{}, 0, fmt.Errorf("%w: "+format, append([]any{errAnswer}, args...)...)
	}
	var a deviceList
	if err := json.Unmarshal(raw, &a); err != nil {
		return bad("%w", err)
	}
	switch {
	case a.User != user:
		return bad("it is about %.255q", a.User)
	case a.Stream < 0 || a.Stream > maxStream:
		return bad("the stream is at %d", a.Stream)
	case len(a.Devices) > maxDevices:
		return bad("there are more than %d devices", maxDevices)
	}
	k.Devices = map[string]client.DeviceKeys{}
	for _, dev := range a.Devices {
		dk, err := readDevice(user, dev.ID, dev.Keys)
		if err != nil {
			continue
		}
		if dev.Name != "" {
			dk.Name = cleanName(dev.Name)
		}
		k.Devices[dev.ID] = dk
	}
	k.Master, k.Self = readCross(user, "master", a.Master), readCross(user, "self_signing", a.Self)
	return k, a.Stream, nil
}

// userAnswers is the answer to POST /user/keys/query, as it comes: what is wrong
// about one user is no matter of the others.
type userAnswers struct {
	Devices map[string]json.RawMessage `json:"device_keys"`
	Master  map[string]json.RawMessage `json:"master_keys"`
	Self    map[string]json.RawMessage `json:"self_signing_keys"`
}

// of reads what is said of one user, as readList does; ok is false where that is
// nothing.
func (a userAnswers) of(user string) (k client.UserKeys, ok bool) {
	var devices map[string]json.RawMessage
	if raw := a.Devices[user]; raw == nil || json.Unmarshal(raw, &devices) != nil || len(devices) > maxDevices {
		return k, false
	}
	k.Devices = map[string]client.DeviceKeys{}
	for id, raw := range devices {
		if dev, err := readDevice(user, id, raw); err == nil {
			k.Devices[id] = dev
		}
	}
	k.Master, k.Self = readCross(user, "master", a.Master[user]), readCross(user, "self_signing", a.Self[user])
	return k, true
}

// readClaimed reads the answer to POST /user/keys/claim: of each device that was
// asked for one key of the algorithm, and nothing else.
//
// spec: MX 1.19 SS §23
func readClaimed(raw []byte, wanted client.Wanted, userID func(core.Address) string) (map[core.Address]map[string]client.NamedKey, error) {
	var a struct {
		Keys map[string]json.RawMessage `json:"one_time_keys"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	out := map[core.Address]map[string]client.NamedKey{}
	for who, devices := range wanted {
		var got map[string]json.RawMessage
		if raw := a.Keys[userID(who)]; raw == nil || json.Unmarshal(raw, &got) != nil {
			continue
		}
		for id, algorithm := range devices {
			k, ok := readOneTime(got[id], algorithm)
			if !ok {
				continue
			}
			if out[who] == nil {
				out[who] = map[string]client.NamedKey{}
			}
			out[who][id] = k
		}
	}
	return out, nil
}

// readOneTime reads one key, {"<algorithm>:<id>": key}.
func readOneTime(raw json.RawMessage, algorithm string) (k client.NamedKey, ok bool) {
	var keys map[string]json.RawMessage
	if raw == nil || len(raw) > maxKey || json.Unmarshal(raw, &keys) != nil || len(keys) != 1 {
		return k, false
	}
	for name, value := range keys {
		canon, err := wire.Canonical(value)
		if err != nil || !textual(name) || !strings.HasPrefix(name, algorithm+":") || canon[0] != '{' && canon[0] != '"' {
			return k, false
		}
		k = client.NamedKey{Name: name, Key: canon}
	}
	return k, true
}
