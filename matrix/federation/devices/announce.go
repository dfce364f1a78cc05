package devices

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation/sending"
	"parley/store/hubstore"
)

// firstStream is the number of a device list that has not changed yet. It is not
// the first there could be, so that every update has one to refer to.
const firstStream = 2

// maxAnnounced is how many changes at once are told one by one. Of more the last
// one is, and who hears it fetches the list.
const maxAnnounced = 20

// update is an m.device_list_update.
//
// spec: MX 1.19 SS §22
type update struct {
	User    string          `json:"user_id"`
	Device  string          `json:"device_id"`
	Name    string          `json:"device_display_name,omitempty"`
	Stream  int64           `json:"stream_id"`
	Before  []int64         `json:"prev_id,omitempty"`
	Deleted bool            `json:"deleted,omitempty"`
	Keys    json.RawMessage `json:"keys,omitempty"`
}

// signingKeys is an m.signing_key_update.
//
// spec: MX 1.19 SS §23
type signingKeys struct {
	User   string          `json:"user_id"`
	Master json.RawMessage `json:"master_key,omitempty"`
	Self   json.RawMessage `json:"self_signing_key,omitempty"`
}

// stream reads how far an account's stream has got, and which device the last
// change was about.
func stream(v hub.View, account core.Address) (at int64, device string, err error) {
	found, err := hubstore.Row(v, []any{&at, &device}, `SELECT stream, device FROM mxd_streams WHERE account = $1`, key(account))
	if !found {
		at = firstStream
	}
	return at, device, err
}

// publicKeys are an account's keys as other servers see them; those of one that
// is no more are none.
func (d *Devices) publicKeys(v hub.View, account core.Address, devices ...string) (client.UserKeys, error) {
	k, err := d.api.KeysOf(v, core.Address{}, account, devices)
	if errors.Is(err, hub.ErrNone) {
		return client.UserKeys{}, nil
	}
	if !d.cfg.TellNames {
		for id, dev := range k.Devices {
			k.Devices[id] = client.DeviceKeys{Keys: dev.Keys}
		}
	}
	return k, err
}

// DevicesChanged implements [client.Others].
//
// spec: MX 1.19 SS §22
func (d *Devices) DevicesChanged(tx hub.Tx, account core.Address, changes []client.DeviceChange) error {
	if !d.cfg.TellNames {
		changes = slices.DeleteFunc(slices.Clone(changes), func(c client.DeviceChange) bool { return c.NameAlone })
	}
	if len(changes) == 0 {
		return nil
	}
	at, _, err := stream(tx, account)
	if err != nil {
		return err
	}
	servers, err := d.serversOf(tx, account, "")
	if err != nil {
		return err
	}
	untold := 0
	if len(changes) > maxAnnounced {
		untold = len(changes) - 1
	}
	for _, c := range changes[untold:] {
		u, err := d.updateOf(tx, account, c.Device, at+int64(untold)+1)
		if err != nil {
			return err
		}
		at = u.Stream
		if err := d.owe(tx, account, servers, eduDevices, u); err != nil {
			return err
		}
	}
	_, err = hubstore.Exec(tx, `INSERT INTO mxd_streams (account, stream, device) VALUES ($1, $2, $3)
		ON CONFLICT (account) DO UPDATE SET stream = $2, device = $3`, key(account), at, changes[len(changes)-1].Device)
	return err
}

// updateOf is the update that says what is the case with a device.
func (d *Devices) updateOf(v hub.View, account core.Address, device string, at int64) (update, error) {
	u := update{User: d.userID(account), Device: device, Stream: at, Before: []int64{at - 1}}
	k, err := d.publicKeys(v, account, device)
	if dev, ok := k.Devices[device]; ok {
		u.Keys, u.Name = dev.Keys, dev.Name
	} else {
		u.Deleted = true
	}
	return u, err
}

// introduce sends servers the last change of an account, that they fetch the
// rest.
func (d *Devices) introduce(tx hub.Tx, account core.Address, servers map[string]bool) error {
	if len(servers) == 0 {
		return nil
	}
	at, device, err := stream(tx, account)
	if err != nil {
		return err
	}
	if device == "" {
		k, err := d.publicKeys(tx, account)
		if err != nil || len(k.Devices) == 0 {
			return err
		}
		device = slices.Min(slices.Collect(maps.Keys(k.Devices)))
	}
	u, err := d.updateOf(tx, account, device, at)
	if err != nil {
		return err
	}
	if len(u.Keys) > sending.MaxEDU/2 {
		return nil // nobody is kept out of a room for that
	}
	return d.owe(tx, account, slices.Sorted(maps.Keys(servers)), eduDevices, u)
}

// CrossKeysChanged implements [client.Others].
//
// spec: MX 1.19 SS §23
func (d *Devices) CrossKeysChanged(tx hub.Tx, account core.Address) error {
	servers, err := d.serversOf(tx, account, "")
	if err != nil || len(servers) == 0 {
		return err
	}
	k, err := d.publicKeys(tx, account)
	if err != nil || k.Master == nil {
		return err
	}
	return d.owe(tx, account, servers, eduSigning, signingKeys{d.userID(account), k.Master, k.Self})
}

// owe has servers be sent the same.
func (d *Devices) owe(tx hub.Tx, account core.Address, servers []string, typ string, content any) error {
	if len(servers) == 0 {
		return nil
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return err
	}
	for _, s := range servers {
		if err := d.cfg.Sender.OweEDU(tx, account.Domain, s, sending.EDU{Type: typ, Content: raw}); err != nil {
			return err
		}
	}
	return nil
}
