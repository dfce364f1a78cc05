package devices

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/federation/sending"
	"parley/store"
	"parley/store/hubstore"
	"parley/store/storetest"
)

// nowhere neither reaches another server nor owes it anything.
type nowhere struct{}

func (nowhere) Do(context.Context, federation.Call) ([]byte, error) {
	return nil, errors.New("nowhere")
}

func (nowhere) OweEDU(hub.Tx, string, string, sending.EDU) error { return nil }

func (nowhere) Servers(hub.View, core.ConvID) ([]string, error) { return nil, nil }

// Every statement of this package does the same on both databases.
func TestStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		h := hubtest.On(t, db)
		if err := errors.Join(db.Migrate(ctx, client.Owner, client.Migrations()), Migrate(ctx, db), h.Start(ctx)); err != nil {
			t.Fatal(err)
		}
		log := storetest.Log(t)
		d := New(Config{Hub: h, API: client.New(h, nil, client.Config{}, log), Client: nowhere{}, Sender: nowhere{}, Log: log})
		for _, f := range []func(*testing.T, *Devices, hub.Tx) error{storeLists, storeAdrift, storeMessages, storeStream} {
			if err := h.Write(ctx, func(tx hub.Tx) error { return f(t, d, tx) }); err != nil {
				t.Error(err)
			}
		}
		if err := d.Start(ctx); err != nil {
			t.Error(err)
		}
		d.Stop()
	})
}

func remoteUser(name string) core.Address {
	return core.Address{Network: core.Matrix, Name: name, Domain: "b.test"}
}

func storeLists(t *testing.T, d *Devices, tx hub.Tx) error {
	bob := remoteUser("bob")
	l := list{conv: "c", seen: []int64{1, 2}, asked: 7, keys: client.UserKeys{
		Devices: map[string]client.DeviceKeys{"A": {Name: "n", Keys: []byte(`{"a":1}`)}, "B": {Keys: []byte(`{}`)}}, Master: []byte(`{"m":1}`),
	}}
	if err := d.put(tx, bob, l); err != nil {
		return err
	}
	delete(l.keys.Devices, "B")
	l.keys.Devices["C"], l.keys.Self = client.DeviceKeys{Keys: []byte(`{"c":1}`)}, []byte(`{"s":1}`)
	if err := d.put(tx, bob, l); err != nil {
		return err
	}
	got, found, err := load(tx, bob)
	if err != nil || !found || !sameKeys(got.keys, l.keys) || fmt.Sprintf("%s %d %v %d", got.conv, got.state, got.seen, got.asked) != "c 0 [1 2] 7" {
		t.Errorf("read %+v, %t, %v", got, found, err)
	}
	if err := d.apply(tx, bob, "C", nil); err != nil {
		return err
	}
	if err := d.missed(tx, bob, got); err != nil {
		return err
	}
	if got, _, err := load(tx, bob); err != nil || got.state != stale || len(got.keys.Devices) != 1 {
		t.Errorf("stale: %+v, %v", got, err)
	}
	if err := deleteList(tx, bob); err != nil {
		return err
	}
	if _, found, err := load(tx, bob); found || err != nil {
		t.Errorf("a list that was deleted: %t, %v", found, err)
	}
	return nil
}

func storeAdrift(t *testing.T, d *Devices, tx hub.Tx) error {
	for i := range sweepBatch + 5 {
		conv := core.ConvID("x")
		if i == 0 {
			conv = "y"
		}
		l := list{conv: conv, keys: client.UserKeys{Devices: map[string]client.DeviceKeys{"A": {Keys: []byte(`{}`)}}, Master: []byte(`{}`)}}
		if err := d.put(tx, remoteUser(fmt.Sprint("u", i)), l); err != nil {
			return err
		}
	}
	if err := setAdrift(tx, `conv = $1`, "x"); err != nil {
		return err
	}
	for name, want := range map[string]state{"u0": fresh, "u1": adrift} {
		got, found, err := load(tx, remoteUser(name))
		if err != nil || !found || got.state != want || (got.keys.Master == nil) != (want == adrift) || (len(got.keys.Devices) == 0) != (want == adrift) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// They share no room with anybody, so none of those adrift stays.
	after, more, err := d.forgetUnshared(tx, "")
	if err != nil || !more {
		t.Errorf("after a batch: %t, %v", more, err)
	}
	if _, more, err = d.forgetUnshared(tx, after); err != nil || more {
		t.Errorf("after the last batch: %t, %v", more, err)
	}
	for name, want := range map[string]bool{"u0": true, "u1": false, "u204": false} {
		if _, found, err := head(tx, remoteUser(name)); err != nil || found != want {
			t.Errorf("%s: %t, %v", name, found, err)
		}
	}
	return nil
}

func storeMessages(t *testing.T, d *Devices, tx hub.Tx) error {
	for _, c := range []struct {
		origin, domain, id string
		first              bool
	}{{"b.test", "a", "1", true}, {"b.test", "a", "1", false}, {"b.test", "a2", "1", true}, {"c.test", "a", "1", true}, {"b.test", "a", "2", true}} {
		if first, err := d.first(tx, c.origin, c.domain, c.id); err != nil || first != c.first {
			t.Errorf("%+v: %t, %v", c, first, err)
		}
	}
	// What is old is cleared away now and then, and no more than that.
	if _, err := hubstore.Exec(tx, `UPDATE mxd_messages SET made = 1 WHERE id = '2'`); err != nil {
		return err
	}
	for id, want := range map[string]bool{"1": false, "2": true} {
		d.pruning = pruning{}
		if first, err := d.first(tx, "b.test", "a", id); err != nil || first != want {
			t.Errorf("%s after a time: %t, %v", id, first, err)
		}
	}
	return nil
}

func storeStream(t *testing.T, d *Devices, tx hub.Tx) error {
	alice := core.LocalAddress("alice", hubtest.Domain)
	for i := range 3 {
		at, device, err := stream(tx, alice)
		if err != nil || at != firstStream+int64(i) || (device == "") != (i == 0) {
			t.Errorf("the stream is at %d, with %q, %v", at, device, err)
		}
		if err := d.DevicesChanged(tx, alice, []client.DeviceChange{{Device: "A"}, {Device: "A", NameAlone: true}}); err != nil {
			return err
		}
	}
	return nil
}
