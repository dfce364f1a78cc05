package devices

import (
	"encoding/json"
	"testing"

	"parley/core"
	"parley/matrix/client"
	"parley/matrix/wire"
)

// belongs fails the test unless keys are the user's, and can be signed.
func belongs(t *testing.T, user string, k client.UserKeys) {
	t.Helper()
	if len(k.Devices) > maxDevices {
		t.Errorf("%d devices", len(k.Devices))
	}
	all := []json.RawMessage{k.Master, k.Self}
	for id, dev := range k.Devices {
		all = append(all, dev.Keys)
		var o struct {
			Device   string          `json:"device_id"`
			Unsigned json.RawMessage `json:"unsigned"`
		}
		if err := json.Unmarshal(dev.Keys, &o); err != nil || o.Device != id || o.Unsigned != nil || !textual(id) || len(dev.Name) > maxName {
			t.Errorf("device %q, named %q: %s", id, dev.Name, dev.Keys)
		}
		if _, err := dev.Shown(); err != nil {
			t.Errorf("%s: %v", dev.Keys, err)
		}
	}
	for _, raw := range all {
		if raw == nil {
			continue
		}
		canon, err := wire.Canonical(raw)
		var o struct {
			User string `json:"user_id"`
		}
		if err != nil || string(canon) != string(raw) || json.Unmarshal(raw, &o) != nil || o.User != user {
			t.Errorf("%s, which is canonically %s: %v", raw, canon, err)
		}
	}
}

// Whatever another server answers, what is taken from it are keys of the user
// asked for, in a form that clients can read.
func FuzzAnswers(f *testing.F) {
	const user = "@bob:b.test"
	const dev = `{"user_id":"@bob:b.test","device_id":"D","algorithms":[],"keys":{"a:D":"k"},"signatures":{},"unsigned":{"device_display_name":"x"}}`
	const master = `{"user_id":"@bob:b.test","usage":["master"],"keys":{"ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`
	for _, seed := range []string{
		`{"user_id":"@bob:b.test","stream_id":5,"devices":[{"device_id":"D","keys":` + dev + `,"device_display_name":"y"}],"master_key":` + master + `}`,
		`{"device_keys":{"@bob:b.test":{"D":` + dev + `}},"master_keys":{"@bob:b.test":` + master + `}}`,
		`{"one_time_keys":{"@bob:b.test":{"D":{"signed_curve25519:x":{"key":"k"}}}}}`,
		`{}`, `[]`, `null`, `{"device_keys":null}`, `{"devices":[null,{}]}`, `{"user_id":"@bob:b.test","devices":[{"keys":null}]}`,
	} {
		f.Add([]byte(seed))
	}
	bob := core.Address{Network: core.Matrix, Name: "bob", Domain: "b.test"}
	wanted := client.Wanted{bob: {"D": "signed_curve25519"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if k, at, err := readList(user, raw); err == nil {
			if at < 0 || at > maxStream {
				t.Errorf("the stream is at %d", at)
			}
			belongs(t, user, k)
		}
		var said userAnswers
		if json.Unmarshal(raw, &said) == nil {
			if k, ok := said.of(user); ok {
				belongs(t, user, k)
			}
		}
		keys, err := readClaimed(raw, wanted, func(core.Address) string { return user })
		if err != nil {
			return
		}
		for _, devices := range keys {
			for id, k := range devices {
				if id != "D" || !json.Valid(k.Key) || len(k.Name) <= len("signed_curve25519:") && k.Name != "signed_curve25519:" {
					t.Errorf("%s: %s %s", id, k.Name, k.Key)
				}
			}
		}
	})
}
