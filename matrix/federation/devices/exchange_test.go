package devices_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

// Two people on two servers do what their clients do for an encrypted room: they
// find each other's devices, claim keys, send each other room keys, verify each
// other, and hear of new devices and of those that are gone.
//
// spec: MX 1.19 SS §22
// spec: MX 1.19 SS §23
// spec: MX 1.19 SS §24
func TestExchange(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test")
	a, b := w.Server("a.test"), w.Server("b.test")
	alice, bob := a.User("alice"), b.User("bob")
	bob.Do("PUT", "/v3/devices/BOB", object{"display_name": "Telephone"})
	share(a, alice.ID, bob.ID)
	share(b, alice.ID, bob.ID)
	start := token(alice)

	upload(bob, "bob 1")
	bob.Do("POST", "/v3/keys/upload", object{
		"one_time_keys": object{"signed_curve25519:one": object{"key": "1"}},
		"fallback_keys": object{"signed_curve25519:f": object{"key": "f"}},
	})
	w.await(1)
	got := query(alice, bob.ID)
	if curve(got, bob.ID, "BOB") != "bob 1" {
		t.Fatalf("alice sees %v", got)
	}
	if got.Get("device_keys", bob.ID, "BOB", "unsigned", "device_display_name") != nil {
		t.Errorf("the name of a device was told: %v", got)
	}
	claim := func() object {
		return alice.Do("POST", "/v3/keys/claim", object{"one_time_keys": object{bob.ID: object{"BOB": "signed_curve25519"}}}).Obj("one_time_keys", bob.ID, "BOB")
	}
	if k := claim(); k.Text("signed_curve25519:one", "key") != "1" {
		t.Errorf("the one-time key: %v", k)
	}
	for range 2 {
		if k := claim(); k.Text("signed_curve25519:f", "key") != "f" {
			t.Errorf("the fallback key: %v", k)
		}
	}
	alice.Do("PUT", "/v3/sendToDevice/m.room.encrypted/1", object{"messages": object{bob.ID: object{"BOB": object{"ciphertext": "room key"}, "GONE": object{}}}})
	alice.Do("PUT", "/v3/sendToDevice/m.room.encrypted/1", object{"messages": object{bob.ID: object{"BOB": object{"ciphertext": "room key"}}}})
	alice.Do("PUT", "/v3/sendToDevice/m.room.encrypted/2", object{"messages": object{bob.ID: object{"*": object{"ciphertext": "another"}}}})
	w.await(3)
	inbox := bob.Sync("", "").List("to_device", "events")
	if len(inbox) != 2 || inbox[0].Text("sender") != alice.ID || inbox[0].Text("type") != "m.room.encrypted" ||
		inbox[0].Text("content", "ciphertext") != "room key" || inbox[1].Text("content", "ciphertext") != "another" {
		t.Errorf("bob got %v", inbox)
	}

	// Cross-signing: bob's keys come to alice, she signs them, and sees it.
	bobs, alices := newCross(t, bob.ID), newCross(t, alice.ID)
	bob.Do("POST", "/v3/keys/device_signing/upload", bobs.body)
	alice.Do("POST", "/v3/keys/device_signing/upload", alices.body)
	w.await(5)
	got = query(alice, bob.ID)
	master := got.Obj("master_keys", bob.ID)
	if master.Text("keys", "ed25519:"+bobs.master.id) != bobs.master.id || got.Obj("self_signing_keys", bob.ID) == nil || got.Get("user_signing_keys", bob.ID) != nil {
		t.Fatalf("alice sees %v", got)
	}
	failed := alice.Do("POST", "/v3/keys/signatures/upload", object{bob.ID: object{
		bobs.master.id: alices.user.sign(t, master), "BOB": alices.user.sign(t, deviceKeys(bob.ID, "BOB", "bob 1")),
	}}).Obj("failures", bob.ID)
	if len(failed) != 1 || failed["BOB"] == nil {
		t.Errorf("signing bob's keys: %v", failed)
	}
	if query(alice, bob.ID).Get("master_keys", bob.ID, "signatures", alice.ID) == nil {
		t.Error("alice does not see that she verified bob")
	}
	if query(bob, bob.ID).Get("master_keys", bob.ID, "signatures", alice.ID) != nil {
		t.Error("bob sees what alice thinks of him")
	}
	// Bob signs his device, logs in on another, and out of the first.
	bob.Do("POST", "/v3/keys/signatures/upload", object{bob.ID: object{"BOB": bobs.self.sign(t, deviceKeys(bob.ID, "BOB", "bob 1"))}})
	federationtest.Eventually(t, "the signature at alice's", func() bool {
		return query(alice, bob.ID).Get("device_keys", bob.ID, "BOB", "signatures", bob.ID, "ed25519:"+bobs.self.id) != nil
	})
	if got := changes(alice, start); got != "[@alice:a.test @bob:b.test] []" {
		t.Errorf("changed: %s", got)
	}
	w.Calls()
	before := token(alice)
	second := *bob
	second.Device = "SECOND"
	second.Token = (&second).Do("POST", "/v3/login", object{
		"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": "bob"}, "password": "correct horse battery", "device_id": "SECOND",
	}).Text("access_token")
	upload(&second, "bob 2")
	federationtest.Eventually(t, "the second device at alice's", func() bool { return curve(query(alice, bob.ID), bob.ID, "SECOND") == "bob 2" })
	if got := changes(alice, before); got != "[@bob:b.test] []" {
		t.Errorf("changed: %s", got)
	}
	if got := alice.Sync(before, "").Get("device_lists", "changed"); len(got.([]any)) != 1 {
		t.Errorf("sync says %v", got)
	}
	bob.Do("POST", "/v3/logout", nil)
	federationtest.Eventually(t, "the first device gone", func() bool {
		got := query(alice, bob.ID)
		return curve(got, bob.ID, "BOB") == "" && curve(got, bob.ID, "SECOND") == "bob 2"
	})
	// All that came by updates, without asking again.
	for _, c := range w.Calls() {
		if !strings.HasPrefix(c, "PUT ") {
			t.Errorf("there was a call: %s", c)
		}
	}
}

// In a room that was entered in earnest, the servers hear of those who enter and
// of their devices.
func TestRealRoom(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test")
	alice, bob := w.Server("a.test").User("alice"), w.Server("b.test").User("bob")
	upload(alice, "alice's")
	upload(bob, "bob's")
	room := bob.Create(object{"preset": "public_chat"})
	sinceA, sinceB := token(alice), token(bob)
	alice.Do("POST", "/v3/join/"+url.PathEscape(room)+"?server_name=b.test", object{})
	federationtest.Eventually(t, "alice at b.test", func() bool { return w.Server("b.test").Standing(room, alice.ID) == core.Joined })
	if got := changes(alice, sinceA); !strings.Contains(got, bob.ID) {
		t.Errorf("alice hears of %s", got)
	}
	if got := changes(bob, sinceB); !strings.Contains(got, alice.ID) {
		t.Errorf("bob hears of %s", got)
	}
	if got := curve(query(alice, bob.ID), bob.ID, "BOB"); got != "bob's" {
		t.Errorf("alice sees %q", got)
	}
	if got := curve(query(bob, alice.ID), alice.ID, "ALICE"); got != "alice's" {
		t.Errorf("bob sees %q", got)
	}
	// Alice's server told the other that she is there.
	federationtest.Eventually(t, "an introduction", func() bool {
		return slices.ContainsFunc(updates(t, w.edus()), func(u told) bool { return u.dest == "b.test" && u.User == alice.ID })
	})
	upload(alice, "other")
	federationtest.Eventually(t, "the other key at bob's", func() bool { return curve(query(bob, alice.ID), alice.ID, "ALICE") == "other" })
	sinceB = token(bob)
	alice.Do("POST", roomstest.Room(room, "/leave"), object{})
	federationtest.Eventually(t, "alice gone at b.test", func() bool { return w.Server("b.test").Standing(room, alice.ID) == core.Left })
	if got := changes(bob, sinceB); got != "[] [@alice:a.test]" {
		t.Errorf("bob hears of %s", got)
	}
}
