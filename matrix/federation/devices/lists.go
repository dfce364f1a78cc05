package devices

import (
	"bytes"
	"encoding/json"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/store/hubstore"
)

// state is how well a list is known: see the package's doc.
type state int64

const (
	fresh state = iota
	adrift
	stale
)

// list is the list of devices of a user elsewhere.
type list struct {
	conv  core.ConvID
	state state
	seen  []int64
	asked int64
	keys  client.UserKeys
}

// maxSeen is how many updates of a list are remembered.
const maxSeen = 50

// knows reports whether the list is what it was after one of these updates, and
// all of them are in it.
func (l *list) knows(updates []int64) bool {
	return len(updates) > 0 && !slices.ContainsFunc(updates, func(id int64) bool { return !slices.Contains(l.seen, id) })
}

// saw notes an update.
func (l *list) saw(id int64) {
	l.seen = append(l.seen, id)
	l.seen = l.seen[max(0, len(l.seen)-maxSeen):]
}

// head reads a list without its devices.
func head(v hub.View, who core.Address) (l list, found bool, err error) {
	var conv, seen string
	var st int64
	var master, self []byte
	found, err = hubstore.Row(v, []any{&conv, &st, &seen, &l.asked, &master, &self},
		`SELECT conv, state, seen, asked, master, self FROM mxd_lists WHERE address = $1`, key(who))
	if err != nil || !found {
		return l, false, err
	}
	l.conv, l.state = core.ConvID(conv), state(st)
	l.keys.Master, l.keys.Self = orNil(master), orNil(self)
	return l, true, json.Unmarshal([]byte(seen), &l.seen)
}

func orNil(b []byte) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	return b
}

// load reads a list whole.
func load(v hub.View, who core.Address) (l list, found bool, err error) {
	if l, found, err = head(v, who); err != nil || !found {
		return l, found, err
	}
	l.keys.Devices = map[string]client.DeviceKeys{}
	err = hubstore.Rows(v, func(scan func(...any) error) error {
		var id, name string
		var keys []byte
		err := scan(&id, &name, &keys)
		l.keys.Devices[id] = client.DeviceKeys{Name: name, Keys: keys}
		return err
	}, `SELECT device, name, keys FROM mxd_devices WHERE address = $1`, key(who))
	return l, true, err
}

// putHead writes a list without its devices.
func putHead(tx hub.Tx, who core.Address, l list) error {
	if l.seen == nil {
		l.seen = []int64{}
	}
	seen, err := json.Marshal(l.seen)
	if err != nil {
		return err
	}
	_, err = hubstore.Exec(tx, `INSERT INTO mxd_lists (address, conv, state, seen, asked, master, self) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (address) DO UPDATE SET conv = $2, state = $3, seen = $4, asked = $5, master = $6, self = $7`,
		key(who), string(l.conv), int64(l.state), string(seen), l.asked, notNil(l.keys.Master), notNil(l.keys.Self))
	return err
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// put replaces a list, and tells those here whom it concerns if it is another
// than they may have been given.
func (d *Devices) put(tx hub.Tx, who core.Address, l list) error {
	old, found, err := load(tx, who)
	if err != nil {
		return err
	}
	if err := putHead(tx, who, l); err != nil {
		return err
	}
	if found && sameKeys(old.keys, l.keys) {
		return nil
	}
	for id := range old.keys.Devices {
		if _, still := l.keys.Devices[id]; !still {
			if err := deleteDevice(tx, who, id); err != nil {
				return err
			}
		}
	}
	for id, k := range l.keys.Devices {
		if was, ok := old.keys.Devices[id]; !ok || !sameDevice(was, k) {
			if err := putDevice(tx, who, id, k); err != nil {
				return err
			}
		}
	}
	if !found || old.state == adrift {
		return nil
	}
	return d.api.NoteDevices(tx, who)
}

func sameDevice(a, b client.DeviceKeys) bool { return a.Name == b.Name && bytes.Equal(a.Keys, b.Keys) }

func sameKeys(a, b client.UserKeys) bool {
	if !bytes.Equal(a.Master, b.Master) || !bytes.Equal(a.Self, b.Self) || len(a.Devices) != len(b.Devices) {
		return false
	}
	for id, k := range a.Devices {
		if other, ok := b.Devices[id]; !ok || !sameDevice(k, other) {
			return false
		}
	}
	return true
}

func putDevice(tx hub.Tx, who core.Address, id string, k client.DeviceKeys) error {
	_, err := hubstore.Exec(tx, `INSERT INTO mxd_devices (address, device, name, keys) VALUES ($1, $2, $3, $4)
		ON CONFLICT (address, device) DO UPDATE SET name = $3, keys = $4`, key(who), id, k.Name, []byte(k.Keys))
	return err
}

func deleteDevice(tx hub.Tx, who core.Address, id string) error {
	_, err := hubstore.Exec(tx, `DELETE FROM mxd_devices WHERE address = $1 AND device = $2`, key(who), id)
	return err
}

// setAdrift notes that updates of lists may be missed from now on. What they
// hold goes: nobody will be given it. The condition is on mxd_lists.
func setAdrift(tx hub.Tx, condition string, args ...any) error {
	if _, err := hubstore.Exec(tx, `DELETE FROM mxd_devices WHERE address IN (SELECT address FROM mxd_lists WHERE `+condition+`)`, args...); err != nil {
		return err
	}
	_, err := hubstore.Exec(tx, `UPDATE mxd_lists SET state = 1, seen = '[]', master = X'', self = X'' WHERE `+condition, args...)
	return err
}

// deleteList forgets a list.
func deleteList(tx hub.Tx, who core.Address) error {
	if _, err := hubstore.Exec(tx, `DELETE FROM mxd_devices WHERE address = $1`, key(who)); err != nil {
		return err
	}
	_, err := hubstore.Exec(tx, `DELETE FROM mxd_lists WHERE address = $1`, key(who))
	return err
}
