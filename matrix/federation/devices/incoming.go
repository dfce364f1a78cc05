package devices

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/store/hubstore"
)

// maxStream is the highest number of an update, as JSON can carry it.
const maxStream = 1 << 53

// takeDevices takes an m.device_list_update.
//
// spec: MX 1.19 SS §22
func (d *Devices) takeDevices(ctx context.Context, origin string, content json.RawMessage) error {
	u, who, k, err := d.readUpdate(origin, content)
	if err != nil {
		d.cfg.Count.Count("matrix_device_updates", "malformed")
		return err
	}
	return d.inList(ctx, who, func(tx hub.Tx, l list) (outcome string, err error) {
		switch {
		case l.state != fresh:
			return "gap", d.missed(tx, who, l)
		case slices.Contains(l.seen, u.Stream):
			return "repeated", nil
		case !l.knows(u.Before):
			return "gap", d.missed(tx, who, l)
		}
		l.saw(u.Stream)
		if err := putHead(tx, who, l); err != nil {
			return "", err
		}
		return "applied", d.apply(tx, who, u.Device, k)
	})
}

// inList runs f in a turn, on a list without its devices, and counts what came
// of it. Where there is no list, nobody needs to hear of changes.
func (d *Devices) inList(ctx context.Context, who core.Address, f func(hub.Tx, list) (outcome string, err error)) error {
	if !d.watching.touch(who) {
		// Nobody is about to keep a list, so none comes into being while this
		// looks.
		var found bool
		err := d.hub.Read(ctx, func(v hub.View) (err error) {
			_, found, err = head(v, who)
			return err
		})
		if err != nil || !found {
			return err
		}
	}
	outcome := ""
	err := d.hub.Write(ctx, func(tx hub.Tx) error {
		l, found, err := head(tx, who)
		if err != nil || !found {
			return err
		}
		outcome, err = f(tx, l)
		return err
	})
	if err == nil && outcome != "" {
		d.cfg.Count.Count("matrix_device_updates", outcome)
	}
	return err
}

// readUpdate holds an update to its form. The keys are nil where the device has
// none that could be used, or is gone.
func (d *Devices) readUpdate(origin string, content json.RawMessage) (u update, who core.Address, k *client.DeviceKeys, err error) {
	if err = decode(content, &u); err != nil {
		return u, who, nil, err
	}
	if who, err = d.sender(origin, u.User); err != nil {
		return u, who, nil, err
	}
	if !textual(u.Device) || u.Stream < 0 || u.Stream > maxStream {
		return u, who, nil, fmt.Errorf("%w: a device %.255q in update %d", errEDU, u.Device, u.Stream)
	}
	if u.Deleted || u.Keys == nil || string(u.Keys) == "null" {
		return u, who, nil, nil
	}
	dev, err := readDevice(u.User, u.Device, u.Keys)
	if err != nil {
		return u, who, nil, nil
	}
	dev.Name = cleanName(u.Name)
	return u, who, &dev, nil
}

// apply makes one device of a list what an update says.
func (d *Devices) apply(tx hub.Tx, who core.Address, id string, k *client.DeviceKeys) error {
	old, found, err := load(tx, who)
	if err != nil || !found {
		return err
	}
	was, had := old.keys.Devices[id]
	switch {
	case k == nil && !had, k != nil && had && sameDevice(was, *k):
		return nil
	case k == nil:
		err = deleteDevice(tx, who, id)
	case !had && len(old.keys.Devices) >= maxDevices:
		return fmt.Errorf("%w: %s has more than %d devices", errEDU, who, maxDevices)
	default:
		err = putDevice(tx, who, id, *k)
	}
	if err != nil {
		return err
	}
	return d.api.NoteDevices(tx, who)
}

// missed notes that a list is not known any more, and has it fetched. Those whom
// it concerns are told once.
func (d *Devices) missed(tx hub.Tx, who core.Address, l list) error {
	tx.OnCommit(func() { d.refetch.add(who, l.asked) })
	if l.state == stale {
		return nil
	}
	if _, err := hubstore.Exec(tx, `UPDATE mxd_lists SET state = $2 WHERE address = $1`, key(who), int64(stale)); err != nil {
		return err
	}
	return d.api.NoteDevices(tx, who)
}

// takeSigning takes an m.signing_key_update.
//
// spec: MX 1.19 SS §23
func (d *Devices) takeSigning(ctx context.Context, origin string, content json.RawMessage) error {
	var u signingKeys
	err := decode(content, &u)
	var who core.Address
	if err == nil {
		who, err = d.sender(origin, u.User)
	}
	if err != nil {
		d.cfg.Count.Count("matrix_device_updates", "malformed")
		return err
	}
	u.Master, u.Self = readCross(u.User, "master", u.Master), readCross(u.User, "self_signing", u.Self)
	return d.inList(ctx, who, func(tx hub.Tx, l list) (string, error) {
		if l.state != fresh {
			return "gap", d.missed(tx, who, l)
		}
		l, _, err := load(tx, who)
		if err != nil {
			return "", err
		}
		if u.Master != nil {
			l.keys.Master = u.Master
		}
		if u.Self != nil {
			l.keys.Self = u.Self
		}
		return "applied", d.put(tx, who, l)
	})
}
