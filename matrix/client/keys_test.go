package client_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/wire"
)

var unpadded = base64.RawStdEncoding

// signer signs as a user's client does.
type signer struct {
	user, id string
	private  ed25519.PrivateKey
}

func newSigner(t testing.TB, u *user, id string) signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if id == "" {
		id = unpadded.EncodeToString(public)
	}
	return signer{u.id, id, private}
}

func (s signer) public() string {
	return unpadded.EncodeToString(s.private.Public().(ed25519.PublicKey))
}

// sign returns the object with the signer's signature added.
func (s signer) sign(t testing.TB, o object) object {
	t.Helper()
	bare, out := object{}, object{}
	for k, v := range o {
		out[k] = v
		if k != "signatures" && k != "unsigned" {
			bare[k] = v
		}
	}
	raw, err := json.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	canon, err := wire.Canonical(raw)
	if err != nil {
		t.Fatal(err)
	}
	sigs := object{}
	if old, ok := o["signatures"].(object); ok {
		for k, v := range old {
			sigs[k] = v
		}
	}
	mine := object{}
	if old, ok := sigs[s.user].(object); ok {
		for k, v := range old {
			mine[k] = v
		}
	}
	mine["ed25519:"+s.id] = unpadded.EncodeToString(ed25519.Sign(s.private, canon))
	sigs[s.user] = mine
	out["signatures"] = sigs
	return out
}

// deviceKeys uploads keys for the user's device.
func deviceKeys(t testing.TB, u *user) (signer, object) {
	t.Helper()
	s := newSigner(t, u, u.device)
	keys := s.sign(t, object{
		"user_id": u.id, "device_id": u.device, "algorithms": []any{"m.olm.v1.curve25519-aes-sha2"},
		"keys": object{"ed25519:" + u.device: s.public(), "curve25519:" + u.device: "curve"},
	})
	u.post("/keys/upload", object{"device_keys": keys}).ok()
	return s, keys
}

func oneTime(ids ...string) object {
	keys := object{}
	for _, id := range ids {
		keys["signed_curve25519:"+id] = object{"key": "key-" + id}
	}
	return keys
}

func TestKeysUploadAndQuery(t *testing.T) { each(t, testKeysUploadAndQuery) }

func testKeysUploadAndQuery(t *testing.T, s *server) {
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	alice.put("/devices/A", object{"display_name": "Telephone"}).ok()
	deviceKeys(t, alice)
	alice.post("/keys/upload", object{"one_time_keys": oneTime("1", "2"), "fallback_keys": oneTime("f")}).
		want("2", "one_time_key_counts", "signed_curve25519")
	// The same again, and another one under a name that is there.
	alice.post("/keys/upload", object{"one_time_keys": oneTime("2", "3")}).want("3", "one_time_key_counts", "signed_curve25519")
	alice.post("/keys/upload", object{"one_time_keys": object{"signed_curve25519:2": object{"key": "other"}}}).fails(400, client.InvalidParam)
	for name, bad := range map[string]object{
		"another user":   {"device_keys": object{"user_id": bob.id, "device_id": "A", "keys": object{"a:b": "c"}}},
		"another device": {"device_keys": object{"user_id": alice.id, "device_id": "B", "keys": object{"a:b": "c"}}},
		"no keys":        {"device_keys": object{"user_id": alice.id, "device_id": "A"}},
		"no algorithm":   {"one_time_keys": object{"x": "y"}},
	} {
		if a := alice.post("/keys/upload", bad); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := bob.post("/keys/query", object{"device_keys": object{alice.id: []string{}, "@nobody:example.org": []string{}, "@x:elsewhere.net": []string{}}})
	a.ok()
	a.want(`"Telephone"`, "device_keys", alice.id, "A", "unsigned", "device_display_name")
	a.want(`"A"`, "device_keys", alice.id, "A", "device_id")
	a.want(`null`, "device_keys", "@nobody:example.org")
	if at(a.object, "failures", "elsewhere.net") == nil {
		t.Errorf("no word of the server that cannot be asked: %s", a.body)
	}
	bob.post("/keys/query", object{"device_keys": object{alice.id: []string{"Z"}}}).want("{}", "device_keys", alice.id)
	bob.post("/keys/query", object{}).fails(400, client.MissingParam)
}

func TestClaim(t *testing.T) { each(t, testClaim) }

func testClaim(t *testing.T, s *server) {
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	upload := func(o object) { t.Helper(); alice.post("/keys/upload", o).ok() }
	claim := func(algorithm string) object {
		t.Helper()
		a := bob.post("/keys/claim", object{"one_time_keys": object{alice.id: object{"A": algorithm}}}).ok()
		got, _ := at(a, "one_time_keys", alice.id, "A").(object)
		return got
	}
	upload(object{"one_time_keys": oneTime("old")})
	upload(object{"one_time_keys": oneTime("1")})
	if got := claim("signed_curve25519"); got["signed_curve25519:old"] == nil {
		t.Errorf("the first key up is not the first out: %v", got)
	}
	// An upload that is repeated does not bring back what was claimed.
	upload(object{"one_time_keys": oneTime("old")})
	if got := claim("signed_curve25519"); got["signed_curve25519:1"] == nil {
		t.Errorf("the second key: %v", got)
	}
	if got := claim("signed_curve25519"); got != nil {
		t.Errorf("a key out of nowhere: %v", got)
	}
	unused := func(want string) {
		t.Helper()
		err := s.hub.Read(context.Background(), func(v hub.View) error {
			list, err := s.api.UnusedFallbackTypes(v, alice.account(), "A")
			if got := fmt.Sprint(list); got != want {
				t.Errorf("unused fallback keys: %s, want %s", got, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	unused("[]")
	upload(object{"fallback_keys": oneTime("f")})
	unused("[signed_curve25519]")
	for range 2 {
		if got := claim("signed_curve25519"); got["signed_curve25519:f"] == nil {
			t.Errorf("the fallback key: %v", got)
		}
	}
	unused("[]")
	upload(object{"fallback_keys": oneTime("f")})
	unused("[]")
	upload(object{"fallback_keys": oneTime("g")})
	unused("[signed_curve25519]")
	if got := claim("unknown"); got != nil {
		t.Errorf("a key of an unknown algorithm: %v", got)
	}
}

// No key is ever given to two who claim at once.
func TestClaimOnce(t *testing.T) {
	s := serve(t)
	alice := s.login("alice", "A")
	claimers := []*user{s.login("bob", "B"), s.login("carol", "C"), s.login("dave", "D")}
	const keys, each = 40, 20
	var ids []string
	for i := range keys {
		ids = append(ids, fmt.Sprint(i))
	}
	alice.post("/keys/upload", object{"one_time_keys": oneTime(ids...)}).ok()
	var mu sync.Mutex
	given := map[string]int{}
	var wg sync.WaitGroup
	for _, u := range claimers {
		for range 2 {
			wg.Go(func() {
				for range each {
					a := u.post("/keys/claim", object{"one_time_keys": object{alice.id: object{"A": "signed_curve25519"}}})
					got, _ := at(a.object, "one_time_keys", alice.id, "A").(object)
					mu.Lock()
					for id := range got {
						given[id]++
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if len(given) != keys {
		t.Errorf("%d of %d keys were given out", len(given), keys)
	}
	for id, n := range given {
		if n != 1 {
			t.Errorf("%s was given out %d times", id, n)
		}
	}
}

// cross is a user's cross-signing keys.
type cross struct{ master, self, user signer }

func newCross(t testing.TB, u *user) (cross, object) {
	t.Helper()
	c := cross{newSigner(t, u, ""), newSigner(t, u, ""), newSigner(t, u, "")}
	k := func(s signer, usage string) object {
		return object{"user_id": u.id, "usage": []any{usage}, "keys": object{"ed25519:" + s.id: s.id}}
	}
	return c, object{
		"master_key":       k(c.master, "master"),
		"self_signing_key": c.master.sign(t, k(c.self, "self_signing")),
		"user_signing_key": c.master.sign(t, k(c.user, "user_signing")),
	}
}

func TestCrossSigning(t *testing.T) { each(t, testCrossSigning) }

func testCrossSigning(t *testing.T, s *server) {
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	device, deviceObject := deviceKeys(t, alice)
	keys, body := newCross(t, alice)
	const path = "/keys/device_signing/upload"

	_, forged := newCross(t, alice)
	forged["master_key"] = body["master_key"]
	alice.post(path, forged).fails(400, client.InvalidSignature)
	_, others := newCross(t, bob)
	alice.post(path, others).fails(400, client.InvalidParam)
	alice.post(path, object{"self_signing_key": body["self_signing_key"]}).fails(400, client.MissingParam)

	alice.post(path, body).ok() // the first needs no password
	alice.post(path, body).ok() // nor the same again
	replaced, next := newCross(t, alice)
	a := alice.post(path, next)
	if a.status != 401 || a.object["session"] == nil {
		t.Fatalf("other keys without a password: %d %s", a.status, a.body)
	}

	query := func(u *user, of *user) *answer {
		t.Helper()
		a := u.post("/keys/query", object{"device_keys": object{of.id: []string{}}})
		a.ok()
		return a
	}
	if at(query(alice, alice).object, "user_signing_keys", alice.id) == nil {
		t.Error("one's own user-signing key is missing")
	}
	if seen := query(bob, alice).object; at(seen, "user_signing_keys", alice.id) != nil || at(seen, "master_keys", alice.id) == nil {
		t.Errorf("bob sees %v", seen)
	}

	// Alice's self-signing key signs her device; her device signs her master key.
	signed := keys.self.sign(t, deviceObject)
	masterSigned := device.sign(t, body["master_key"].(object))
	alice.post("/keys/signatures/upload", object{alice.id: object{"A": signed, keys.master.id: masterSigned}}).want("{}", "failures")
	if at(query(bob, alice).object, "device_keys", alice.id, "A", "signatures", alice.id, "ed25519:"+keys.self.id) == nil {
		t.Error("the signature of the device is not seen")
	}
	if at(query(bob, alice).object, "master_keys", alice.id, "signatures", alice.id, "ed25519:A") == nil {
		t.Error("the signature of the master key is not seen")
	}
	// Bob signs her master key: that is for him alone.
	bobKeys, bobBody := newCross(t, bob)
	bob.post(path, bobBody).ok()
	bobSigned := bobKeys.user.sign(t, body["master_key"].(object))
	bob.post("/keys/signatures/upload", object{alice.id: object{keys.master.id: bobSigned}}).want("{}", "failures")
	if at(query(bob, alice).object, "master_keys", alice.id, "signatures", bob.id) == nil {
		t.Error("bob does not see his own signature")
	}
	if at(query(alice, alice).object, "master_keys", alice.id, "signatures", bob.id) != nil {
		t.Error("alice sees bob's signature")
	}
	// What is wrong is refused, each for itself.
	wrong := replaced.self.sign(t, deviceObject) // by a key that is not hers
	bad := object{}
	for k, v := range signed {
		bad[k] = v
	}
	bad["keys"] = object{"ed25519:A": "other"}
	for name, o := range map[string]object{"unknown signer": {"A": wrong}, "another object": {"A": bad}, "no such key": {"Z": signed}} {
		a := alice.post("/keys/signatures/upload", object{alice.id: o}).ok()
		if f, _ := at(a, "failures", alice.id).(object); len(f) != 1 {
			t.Errorf("%s: %v", name, a)
		}
	}
	a2 := bob.post("/keys/signatures/upload", object{alice.id: object{"A": bobKeys.user.sign(t, deviceObject)}}).ok()
	if f, _ := at(a2, "failures", alice.id).(object); len(f) != 1 {
		t.Errorf("bob signed alice's device: %v", a2)
	}

	// With the password the keys are replaced, and what the old ones signed is gone.
	next["auth"] = password(alice, a.object["session"].(string))
	alice.post(path, next).ok()
	if at(query(bob, alice).object, "device_keys", alice.id, "A", "signatures", alice.id, "ed25519:"+keys.self.id) != nil {
		t.Error("the old self-signing key's signature is still there")
	}
	// A device cannot be named as a key is.
	s.nobody().post("/login", object{"type": "m.login.password", "user": "alice", "password": "correct horse battery", "device_id": replaced.master.id}).
		fails(403, client.Forbidden)
}

func TestDeviceChanges(t *testing.T) { each(t, testDeviceChanges) }

func testDeviceChanges(t *testing.T, s *server) {
	alice, bob, carol := s.login("alice", "A"), s.login("bob", "B"), s.login("carol", "C")
	feed := func() (f core.Feed) {
		t.Helper()
		err := s.hub.Read(context.Background(), func(v hub.View) (err error) {
			f, err = v.LastFeed()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	changes := func(since core.Feed) string {
		t.Helper()
		a := alice.get(fmt.Sprintf("/keys/changes?from=%d&to=%d", since, since)).ok()
		return fmt.Sprint(a["changed"], a["left"])
	}
	start := feed()
	deviceKeys(t, bob)
	deviceKeys(t, carol)
	if got := changes(start); got != "[] []" {
		t.Errorf("changes of strangers: %s", got)
	}
	before := feed()
	conv := s.direct(alice, bob)
	if got := changes(before); got != "[@bob:example.org] []" {
		t.Errorf("after meeting bob: %s", got)
	}
	before = feed()
	if got := changes(before); got != "[] []" {
		t.Errorf("nothing new: %s", got)
	}
	deviceKeys(t, bob)
	if got := changes(before); got != "[@bob:example.org] []" {
		t.Errorf("bob's new keys: %s", got)
	}
	before = feed()
	bob.do("DELETE", v3+"/devices/B", object{"auth": password(bob, "")}).ok()
	if got := changes(before); got != "[@bob:example.org] []" {
		t.Errorf("bob's device is gone: %s", got)
	}
	before = feed()
	if _, err := s.hub.Submit(context.Background(), hub.Draft{Conv: conv, Sender: bob.account(),
		Content: core.Membership{Target: bob.account(), Standing: core.Left}}); err != nil {
		t.Fatal(err)
	}
	if got := changes(before); got != "[] [@bob:example.org]" {
		t.Errorf("bob left: %s", got)
	}
}

func TestToDevice(t *testing.T) { each(t, testToDevice) }

func testToDevice(t *testing.T, s *server) {
	ctx := context.Background()
	alice, b1, b2 := s.login("alice", "A"), s.login("bob", "B1"), s.login("bob", "B2")
	send := func(txn string, to object) *answer {
		return alice.put("/sendToDevice/m.test/"+txn, object{"messages": to})
	}
	feed := func() (f core.Feed) {
		t.Helper()
		if err := s.hub.Read(ctx, func(v hub.View) (err error) { f, err = v.LastFeed(); return err }); err != nil {
			t.Fatal(err)
		}
		return f
	}
	// take is what /sync does: it hands over, and then makes its token.
	take := func(u *user, since core.Feed) (string, core.Feed) {
		t.Helper()
		list, _, err := s.api.TakeToDevice(ctx, u.account(), u.device, since)
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, m := range list {
			out += fmt.Sprintf("%s:%s ", m.Type, m.Content)
			if m.Sender != alice.id {
				t.Errorf("from %s", m.Sender)
			}
		}
		return out, feed()
	}
	send("1", object{b1.id: object{"B1": object{"n": 1}}}).ok()
	send("1", object{b1.id: object{"B1": object{"n": 1}}}).ok() // once more, for the answer was lost
	send("2", object{b1.id: object{"*": object{"n": 2}}, "@nobody:example.org": object{"*": object{}}}).ok()

	first, token := take(b1, 0)
	if want := `m.test:{"n":1} m.test:{"n":2} `; first != want {
		t.Errorf("first device: %s", first)
	}
	if got, _ := take(b2, 0); got != `m.test:{"n":2} ` {
		t.Errorf("second device: %s", got)
	}
	// The answer was lost: all comes again. It arrived: nothing does.
	again, token2 := take(b1, 0)
	if again != first {
		t.Errorf("after a lost answer: %s", again)
	}
	if again, _ := take(b1, token); again != first {
		t.Errorf("after the token before: %s", again)
	}
	_, token3 := take(b1, token2)
	send("3", object{b1.id: object{"B1": object{"n": 3}}}).ok()
	if got, _ := take(b1, token3); got != `m.test:{"n":3} ` {
		t.Errorf("after it arrived: %s", got)
	}
	for name, bad := range map[string]object{
		"no object":  {b1.id: object{"B1": "text"}},
		"no user ID": {"bob": object{"*": object{}}},
	} {
		if a := send("x"+name[:2], bad); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// The same transaction ID from another device is another transaction.
	a2 := s.login("alice", "A2")
	a2.put("/sendToDevice/m.test/3", object{"messages": object{b2.id: object{"B2": object{"n": 4}}}}).ok()
	if got, _ := take(b2, feed()); got != `m.test:{"n":4} ` {
		t.Errorf("from the other device: %s", got)
	}
	// Whom bob blocks, he does not hear.
	if err := s.hub.Block(ctx, b1.account(), alice.account()); err != nil {
		t.Fatal(err)
	}
	send("5", object{b1.id: object{"*": object{"n": 5}}}).ok()
	if got, _ := take(b2, feed()); got != "" {
		t.Errorf("from one who is blocked: %s", got)
	}
}

// More messages than one sync hands over come in order, each once.
func TestToDeviceMany(t *testing.T) {
	s := serve(t)
	ctx := context.Background()
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	const n = 150
	for i := range n {
		alice.put(fmt.Sprintf("/sendToDevice/m.test/%d", i), object{"messages": object{bob.id: object{"B": object{"n": i}}}}).ok()
	}
	var since core.Feed
	next := 0
	for more := true; more; {
		var list []client.DeviceMessage
		var err error
		if list, more, err = s.api.TakeToDevice(ctx, bob.account(), "B", since); err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if want := fmt.Sprintf(`{"n":%d}`, next); string(m.Content) != want {
				t.Fatalf("%s, want %s", m.Content, want)
			}
			next++
		}
		if err := s.hub.Read(ctx, func(v hub.View) (err error) { since, err = v.LastFeed(); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if next != n {
		t.Errorf("%d of %d messages", next, n)
	}
}

func TestBackup(t *testing.T) { each(t, testBackup) }

func testBackup(t *testing.T, s *server) {
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	const room = "!r:example.org"
	auth := object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": "k"}}
	alice.get("/room_keys/version").fails(404, client.NotFound)
	alice.post("/room_keys/version", auth).want(`"1"`, "version")
	alice.get("/room_keys/version").want(`"1"`, "version")
	k := func(first, forwards int, verified bool, mark string) object {
		return object{"first_message_index": first, "forwarded_count": forwards, "is_verified": verified, "session_data": object{"m": mark}}
	}
	one := "/room_keys/keys/" + esc(room) + "/" + esc("session/1")
	put := func(key object) *answer { t.Helper(); a := alice.put(one+"?version=1", key); a.ok(); return a }
	put(k(5, 1, false, "a")).want("1", "count")
	etag := put(k(5, 1, false, "same")).object["etag"]
	steps := []struct {
		key  object
		want string
	}{
		{k(9, 0, false, "later"), "a"}, {k(4, 9, false, "earlier"), "earlier"}, {k(4, 2, false, "closer"), "closer"},
		{k(7, 7, true, "verified"), "verified"}, {k(0, 0, false, "not"), "verified"}, {k(7, 6, true, "best"), "best"},
	}
	for _, st := range steps {
		put(st.key)
		alice.get(one+"?version=1").want(`"`+st.want+`"`, "session_data", "m")
	}
	if alice.get("/room_keys/version").object["etag"] == etag {
		t.Error("the etag did not change with the keys")
	}
	alice.put("/room_keys/keys?version=1", object{"rooms": object{room: object{"sessions": object{"s2": k(1, 1, false, "x")}}}}).want("2", "count")
	alice.get("/room_keys/keys?version=1").want(`"best"`, "rooms", room, "sessions", "session/1", "session_data", "m")
	alice.get("/room_keys/keys/"+esc(room)+"?version=1").want(`"x"`, "sessions", "s2", "session_data", "m")
	bob.get("/room_keys/keys?version=1").fails(404, client.NotFound)
	alice.get("/room_keys/keys/"+esc(room)+"/none?version=1").fails(404, client.NotFound)
	alice.get("/room_keys/keys").fails(400, client.MissingParam)
	alice.put(one+"?version=1", object{}).fails(400, client.MissingParam)

	alice.put("/room_keys/version/1", object{"algorithm": "other", "auth_data": object{}}).fails(400, client.InvalidParam)
	alice.put("/room_keys/version/1", auth).ok()
	alice.post("/room_keys/version", auth).want(`"2"`, "version")
	if o := alice.put(one+"?version=1", k(0, 0, true, "z")).fails(403, client.WrongKeysVersion); o["current_version"] != "2" {
		t.Errorf("the current version is not told: %v", o)
	}
	alice.del("/room_keys/keys/"+esc(room)+"/s2?version=1").want("1", "count")
	alice.del("/room_keys/version/2").ok()
	alice.get("/room_keys/version").want(`"1"`, "version")
	alice.get("/room_keys/version/2").fails(404, client.NotFound)
	alice.post("/room_keys/version", auth).want(`"3"`, "version") // no number twice
}
