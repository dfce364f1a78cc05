package devices_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/matrix/federation/devices"
)

// told is an m.device_list_update as others get it.
type told struct {
	dest    string
	User    string          `json:"user_id"`
	Device  string          `json:"device_id"`
	Name    string          `json:"device_display_name"`
	Stream  int             `json:"stream_id"`
	Before  []int           `json:"prev_id"`
	Deleted bool            `json:"deleted"`
	Keys    json.RawMessage `json:"keys"`
}

// updates are the updates among EDUs, in the order of server and stream.
func updates(t *testing.T, list []edu) (out []told) {
	t.Helper()
	for _, e := range list {
		if e.Type != "m.device_list_update" {
			continue
		}
		u := told{dest: e.dest}
		if err := json.Unmarshal(e.Content, &u); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b told) int {
		if c := strings.Compare(a.dest, b.dest); c != 0 {
			return c
		}
		return a.Stream - b.Stream
	})
	return out
}

// Every server that shares a room hears of every change, each of which names the
// one before.
//
// spec: MX 1.19 SS §22
func TestAnnounce(t *testing.T) {
	w := newWorld(t, func(c *devices.Config) { c.TellNames = true }, "a.test")
	a := w.Server("a.test")
	alice := a.User("alice")
	for _, d := range []string{"b.test", "c.test", "d.test"} {
		w.scripted(d)
	}
	upload(alice, "before anybody heard")
	share(a, "@carol:c.test", bobID, alice.ID)
	conv := share(a, "@dave:d.test", bobID, alice.ID)
	w.await(3) // each is new in her circle once
	for _, u := range updates(t, w.edus()) {
		if u.User != alice.ID || u.Device != "ALICE" || u.Keys == nil || u.Deleted || len(u.Before) != 1 || u.Before[0] != u.Stream-1 {
			t.Errorf("to a new server: %+v", u)
		}
	}
	last := updates(t, w.edus())[0].Stream
	alice.Do("PUT", "/v3/devices/ALICE", object{"display_name": "Telephone"})
	alice.Do("PUT", "/v3/devices/ALICE", object{"display_name": "Telephone"}) // changes nothing
	w.await(6)
	keys := newCross(t, alice.ID)
	alice.Do("POST", "/v3/keys/device_signing/upload", keys.body)
	for _, e := range w.await(9)[6:] {
		var k object
		if err := json.Unmarshal(e.Content, &k); err != nil {
			t.Fatal(err)
		}
		if e.Type != "m.signing_key_update" || k.Text("user_id") != alice.ID || k.Get("master_key", "keys") == nil ||
			k.Get("self_signing_key", "keys") == nil || k["user_signing_key"] != nil {
			t.Errorf("%s %s", e.Type, e.Content)
		}
	}
	// One who leaves hears no more.
	move(a, conv, "@dave:d.test", core.Left)
	alice.Do("POST", "/v3/logout", nil)
	w.await(11)
	byServer := map[string][]told{}
	for _, u := range updates(t, w.edus()) {
		byServer[u.dest] = append(byServer[u.dest], u)
	}
	for dest, n := range map[string]int{"b.test": 3, "c.test": 3, "d.test": 2} {
		list := byServer[dest]
		if len(list) != n {
			t.Fatalf("%s was told %v", dest, list)
		}
		for i, u := range list {
			if u.Stream != last+i || u.Before[0] != u.Stream-1 {
				t.Errorf("%s: update %d after %v, not %d", dest, u.Stream, u.Before, last+i)
			}
		}
		if u := list[1]; u.Name != "Telephone" || u.Keys == nil {
			t.Errorf("%s: %+v", dest, u)
		}
		if n == 3 && (!list[2].Deleted || list[2].Keys != nil) {
			t.Errorf("%s: %+v", dest, list[2])
		}
	}
}

// Names that are not told are no change.
func TestAnnounceNoNames(t *testing.T) {
	w := newWorld(t, nil, "a.test")
	a := w.Server("a.test")
	alice := a.User("alice")
	w.scripted("b.test")
	share(a, alice.ID, bobID)
	alice.Do("PUT", "/v3/devices/ALICE", object{"display_name": "Telephone"})
	upload(alice, "k")
	if u := updates(t, w.await(1)); len(u) != 1 || u[0].Name != "" || u[0].Keys == nil {
		t.Errorf("told %+v", u)
	}
}

// Who logs out of very many devices at once has the lists fetched: the last
// update shows that others were missed.
func TestAnnounceMany(t *testing.T) {
	w := newWorld(t, nil, "a.test")
	a := w.Server("a.test")
	alice := a.User("alice")
	w.scripted("b.test")
	const n = 30
	for i := range n {
		u := *alice
		u.Device = fmt.Sprintf("D%d", i)
		u.Token = (&u).Do("POST", "/v3/login", object{
			"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": "alice"}, "password": "correct horse battery", "device_id": u.Device,
		}).Text("access_token")
		upload(&u, "k")
	}
	share(a, bobID, alice.ID)
	before := updates(t, w.await(1))[0].Stream
	alice.Do("POST", "/v3/logout/all", nil)
	got := updates(t, w.await(2))
	if u := got[1]; u.Stream != before+n || u.Before[0] != u.Stream-1 || !u.Deleted {
		t.Errorf("after %d: %+v", before, u)
	}
}
