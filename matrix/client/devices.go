package client

import (
	"net/http"

	"parley/core"
	"parley/hub"
)

// maxDeviceName is the longest name of a device, in bytes.
const maxDeviceName = 256

// device is one of an account's clients.
//
// spec: MX 1.19 CS §10.11
type device struct {
	ID     string `json:"device_id"`
	Name   string `json:"display_name,omitempty"`
	SeenIP string `json:"last_seen_ip,omitempty"`
	Seen   int64  `json:"last_seen_ts,omitempty"`
}

func (a *API) devicesOf(v hub.View, account core.Address) ([]device, error) {
	list := []device{}
	err := rows(v, func(scan func(...any) error) error {
		var d device
		err := scan(&d.ID, &d.Name, &d.SeenIP, &d.Seen)
		list = append(list, d)
		return err
	}, `SELECT device, name, seen_ip, seen FROM mxc_devices WHERE account = $1 ORDER BY device`, key(account))
	return list, err
}

// devices lists the account's devices.
func (a *API) devices(r *Request) (any, error) {
	var list []device
	err := a.hub.Read(r.Context(), func(v hub.View) (err error) {
		list, err = a.devicesOf(v, r.Account)
		return err
	})
	return map[string]any{"devices": list}, err
}

func (a *API) device(r *Request) (any, error) {
	d := device{ID: r.Var("deviceId")}
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		found, err := row(v, into(&d.Name, &d.SeenIP, &d.Seen),
			`SELECT name, seen_ip, seen FROM mxc_devices WHERE account = $1 AND device = $2`, key(r.Account), d.ID)
		if err == nil && !found {
			return errNoDevice()
		}
		return err
	})
	return d, err
}

func errNoDevice() error {
	return Errorf(http.StatusNotFound, NotFound, "You have no such device.")
}

// renameDevice gives one of the account's devices a name. Others see it beside
// the device's keys.
func (a *API) renameDevice(r *Request) (any, error) {
	var body struct {
		Name *string `json:"display_name"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Name != nil && len(*body.Name) > maxDeviceName {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "A device's name has at most %d bytes.", maxDeviceName)
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		var old string
		found, err := row(tx, into(&old), `SELECT name FROM mxc_devices WHERE account = $1 AND device = $2`, key(r.Account), r.Var("deviceId"))
		switch {
		case err != nil:
			return err
		case !found:
			return errNoDevice()
		case body.Name == nil || clean(*body.Name) == old:
			return nil
		}
		if _, err := exec(tx, `UPDATE mxc_devices SET name = $1 WHERE account = $2 AND device = $3`,
			clean(*body.Name), key(r.Account), r.Var("deviceId")); err != nil {
			return err
		}
		return a.devicesChanged(tx, r.Account, DeviceChange{Device: r.Var("deviceId"), NameAlone: true})
	})
}

func (a *API) deleteDevice(r *Request) (any, error) {
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		return a.deleteDevices(tx, r.Account, r.Var("deviceId"))
	})
}

// maxDeletes is the most devices that one request deletes.
const maxDeletes = 1000

func (a *API) bulkDelete(r *Request) (any, error) {
	var body struct {
		Devices []string `json:"devices"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Devices == nil || len(body.Devices) > maxDeletes || !textual(body.Devices...) {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "The list of devices is missing, too long or malformed.")
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		return a.deleteDevices(tx, r.Account, body.Devices...)
	})
}

// ofDevice are the tables with what goes when a device does.
var ofDevice = []string{
	`DELETE FROM mxc_tokens WHERE account = $1 AND device = $2`,
	`DELETE FROM mxc_pushers WHERE account = $1 AND device = $2`,
	`DELETE FROM mxc_to_device WHERE account = $1 AND device = $2`,
	`DELETE FROM mxc_one_time_keys WHERE account = $1 AND device = $2`,
	`DELETE FROM mxc_fallback_keys WHERE account = $1 AND device = $2`,
	`DELETE FROM mxc_key_signatures WHERE account = $1 AND key = $2`,
}

// deleteDevices ends devices: their tokens, keys and waiting messages go, and
// those who knew of their keys are told.
func (a *API) deleteDevices(tx hub.Tx, account core.Address, devices ...string) error {
	var changes []DeviceChange
	for _, d := range devices {
		n, err := exec(tx, `DELETE FROM mxc_devices WHERE account = $1 AND device = $2`, key(account), d)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		for _, q := range ofDevice {
			if _, err := exec(tx, q, key(account), d); err != nil {
				return err
			}
		}
		n, err = exec(tx, `DELETE FROM mxc_device_keys WHERE account = $1 AND device = $2`, key(account), d)
		if err != nil {
			return err
		}
		if n > 0 {
			changes = append(changes, DeviceChange{Device: d, Deleted: true})
		}
		tx.OnCommit(func() { a.endSession(account, d) })
	}
	tx.OnCommit(a.tokens.clear)
	if len(changes) == 0 {
		return nil
	}
	return a.devicesChanged(tx, account, changes...)
}

// endSession ends what the hub knows of a device that is gone.
func (a *API) endSession(account core.Address, device string) {
	for _, s := range a.hub.Sessions(account) {
		if s.Protocol() == core.Matrix && s.ID() == device {
			s.Close()
		}
	}
}
