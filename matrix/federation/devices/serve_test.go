package devices_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"parley/matrix/federation"
	"parley/matrix/federation/devices"
)

const userPath = "/_matrix/federation/v1/user"

// Other servers are told what clients here are, but for the names of devices,
// and of nobody else.
//
// spec: MX 1.19 SS §22
// spec: MX 1.19 SS §23
func TestServe(t *testing.T) {
	for _, names := range []bool{false, true} {
		t.Run(fmt.Sprintf("names %t", names), func(t *testing.T) { testServe(t, names) })
	}
}

func testServe(t *testing.T, names bool) {
	w := newWorld(t, func(c *devices.Config) { c.TellNames = names }, "a.test", "b.test")
	a, b := w.Server("a.test"), w.Server("b.test")
	bob := b.User("bob")
	bob.Do("PUT", "/v3/devices/BOB", object{"display_name": "Telephone"})
	name := ""
	if names {
		name = "Telephone"
	}
	list := func() object {
		t.Helper()
		o, err := ask(a, "b.test", "GET", userPath+"/devices/"+url.PathEscape(bob.ID), nil)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := list(); o.Text("user_id") != bob.ID || len(o.List("devices")) != 0 || o.Get("stream_id") == nil {
		t.Errorf("without keys: %v", o)
	}
	before := list()["stream_id"].(float64)
	upload(bob, "curve")
	keys := newCross(t, bob.ID)
	bob.Do("POST", "/v3/keys/device_signing/upload", keys.body)
	bob.Do("POST", "/v3/keys/upload", object{"one_time_keys": object{"signed_curve25519:one": object{"key": "1"}}})
	bob.Do("POST", "/v3/keys/signatures/upload", object{bob.ID: object{"BOB": keys.self.sign(t, deviceKeys(bob.ID, "BOB", "curve"))}})
	o := list()
	dev := o.List("devices")
	if len(dev) != 1 || dev[0].Text("device_id") != "BOB" || dev[0].Text("keys", "keys", "curve25519:BOB") != "curve" || dev[0].Text("device_display_name") != name ||
		dev[0].Get("keys", "signatures", bob.ID, "ed25519:"+keys.self.id) == nil {
		t.Errorf("devices: %v", o)
	}
	if o.Get("master_key", "keys") == nil || o.Get("self_signing_key", "keys") == nil || o["user_signing_key"] != nil {
		t.Errorf("cross-signing keys: %v", o)
	}
	if n := o["stream_id"].(float64); n != before+2 {
		t.Errorf("after two changes the stream went from %v to %v", before, n)
	}
	const ghost, nobody = "@_xmpp_carol=40c.test:b.test", "@nobody:b.test"
	o, err := ask(a, "b.test", "POST", userPath+"/keys/query", object{"device_keys": object{
		bob.ID: []string{}, ghost: []string{}, nobody: []string{}, "@alice:a.test": []string{}, "no ID": []string{},
	}})
	if err != nil || o.Text("device_keys", bob.ID, "BOB", "keys", "curve25519:BOB") != "curve" ||
		o.Text("device_keys", bob.ID, "BOB", "unsigned", "device_display_name") != name || o.Get("master_keys", bob.ID) == nil || o["user_signing_keys"] != nil {
		t.Errorf("query: %v, %v", o, err)
	}
	if o.Get("device_keys", bob.ID, "BOB", "unsigned") == nil {
		t.Errorf("query: no unsigned: %v", o)
	}
	if n := len(o.Obj("device_keys")); n != 2 || len(o.Obj("device_keys", ghost)) != 0 {
		t.Errorf("of %d users: %v", n, o)
	}
	if o, err := ask(a, "b.test", "POST", userPath+"/keys/query", object{"device_keys": object{bob.ID: []string{"Z"}}}); err != nil || len(o.Obj("device_keys", bob.ID)) != 0 {
		t.Errorf("another device: %v, %v", o, err)
	}
	o, err = ask(a, "b.test", "POST", userPath+"/keys/claim", object{"one_time_keys": object{
		bob.ID: object{"BOB": "signed_curve25519", "Z": "signed_curve25519"}, ghost: object{"A": "signed_curve25519"}, "@alice:a.test": object{"A": "x"},
	}})
	if err != nil || o.Text("one_time_keys", bob.ID, "BOB", "signed_curve25519:one", "key") != "1" || len(o.Obj("one_time_keys")) != 1 {
		t.Errorf("claim: %v, %v", o, err)
	}
	if o, err := ask(a, "b.test", "GET", userPath+"/devices/"+url.PathEscape(ghost), nil); err != nil || len(o.List("devices")) != 0 || o.Text("user_id") != ghost {
		t.Errorf("one on another network: %v, %v", o, err)
	}
}

// What is asked in a wrong way is refused.
func TestServeRefuses(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test")
	a := w.Server("a.test")
	w.Server("b.test").User("bob")
	users, ids, names := object{}, make([]string, 6000), object{}
	for i := range ids {
		ids[i] = fmt.Sprint(i)
		names[ids[i]] = "x"
		if i <= 1000 {
			users[fmt.Sprintf("@u%d:b.test", i)] = []string{}
		}
	}
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
	}{
		"nobody":             {"GET", "/devices/@nobody:b.test", nil, 404},
		"one of another":     {"GET", "/devices/@alice:a.test", nil, 404},
		"no user ID":         {"GET", "/devices/bob", nil, 404},
		"no body":            {"POST", "/keys/query", nil, 400},
		"a list":             {"POST", "/keys/query", "[]", 400},
		"devices as text":    {"POST", "/keys/query", object{"device_keys": object{"@bob:b.test": "x"}}, 400},
		"too many users":     {"POST", "/keys/query", object{"device_keys": users}, 400},
		"too many devices":   {"POST", "/keys/query", object{"device_keys": object{"@bob:b.test": ids}}, 400},
		"claims as a list":   {"POST", "/keys/claim", object{"one_time_keys": []string{}}, 400},
		"algorithms as list": {"POST", "/keys/claim", object{"one_time_keys": object{"@bob:b.test": object{"BOB": []string{}}}}, 400},
		"too many claims":    {"POST", "/keys/claim", object{"one_time_keys": object{"@bob:b.test": names}}, 400},
	} {
		_, err := ask(a, "b.test", c.method, userPath+c.path, c.body)
		if e, ok := errors.AsType[*federation.Error](err); !ok || e.Status != c.status {
			t.Errorf("%s: %v", name, err)
		}
	}
	req, err := http.NewRequest("GET", userPath+"/devices/@bob:b.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Scheme, req.URL.Host = federation.MatrixURL, "b.test"
	resp, err := w.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("unsigned: %v, %v", resp, err)
	}
}

// No one-time key goes to two who claim, be it from here or from elsewhere.
//
// spec: MX 1.19 SS §23
func TestClaimOnce(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test", "c.test")
	a, b, c := w.Server("a.test"), w.Server("b.test"), w.Server("c.test")
	bob := b.User("bob")
	claimers := []*user{a.User("alice"), c.User("carol"), b.User("dave")}
	const keys, each = 30, 8
	up := object{}
	for i := range keys {
		up[fmt.Sprintf("signed_curve25519:%d", i)] = object{"key": fmt.Sprint(i)}
	}
	bob.Do("POST", "/v3/keys/upload", object{"one_time_keys": up})
	var mu sync.Mutex
	given := map[string]int{}
	var wg sync.WaitGroup
	for _, u := range claimers {
		for range 2 {
			wg.Go(func() {
				for range each {
					got := u.Do("POST", "/v3/keys/claim", object{"one_time_keys": object{bob.ID: object{"BOB": "signed_curve25519"}}, "timeout": 60000})
					if len(got.Obj("failures")) > 0 {
						t.Errorf("%s: %v", u.ID, got.Object)
					}
					mu.Lock()
					for id := range got.Obj("one_time_keys", bob.ID, "BOB") {
						given[id]++
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	for id, n := range given {
		if n != 1 || !strings.HasPrefix(id, "signed_curve25519:") {
			t.Errorf("%s was given out %d times", id, n)
		}
	}
	if len(given) != keys {
		t.Errorf("%d of %d keys were given out", len(given), keys)
	}
}
