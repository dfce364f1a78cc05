package devices_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/devices"
	"parley/matrix/federation/federationtest"
	"parley/matrix/mirror"
)

const bobID = "@bob:b.test"

// onBob is a world in which alice shares a room with bob of a scripted server,
// who has one device.
func onBob(t *testing.T, change func(*devices.Config)) (w *world, alice *user, b *scripted, conv core.ConvID) {
	t.Helper()
	w = newWorld(t, change, "a.test")
	alice = w.Server("a.test").User("alice")
	conv = share(w.Server("a.test"), alice.ID, bobID)
	b = w.scripted("b.test")
	b.answer(queryPath, queried(bobID, deviceKeys(bobID, "B", "one")))
	return w, alice, b, conv
}

// sees fails the test unless the client is told of bob's devices with these keys.
func sees(t *testing.T, u *user, keys map[string]string) {
	t.Helper()
	got := query(u, bobID)
	for id, want := range keys {
		if curve(got, bobID, id) != want {
			t.Errorf("the key of %s is %q, not %q", id, curve(got, bobID, id), want)
		}
	}
	if n := len(got.Obj("device_keys", bobID)); n != len(keys) {
		t.Errorf("there are %d devices, not %d: %v", n, len(keys), got)
	}
}

// A list is asked for once, and kept up by updates from then on.
//
// spec: MX 1.19 SS §22
func TestUpdates(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	sees(t, alice, map[string]string{"B": "one"})
	sees(t, alice, map[string]string{"B": "one"})
	if got := b.asked(); len(got) != 1 || got[0] != queryPath {
		t.Fatalf("asked: %v", got)
	}
	// The first update refers to what is not known: the list is fetched.
	start := token(alice)
	b.answer(listPath(bobID), list(bobID, 7, deviceKeys(bobID, "B", "two")))
	b.must("a.test", "m.device_list_update", update(bobID, 7, []int{6}, deviceKeys(bobID, "B", "two")))
	if got := changes(alice, start); got != "[@bob:b.test] []" {
		t.Errorf("after an update was missed: %s", got)
	}
	sees(t, alice, map[string]string{"B": "two"})
	federationtest.Eventually(t, "the list was fetched", func() bool { return w.counts.of("matrix_device_lists fetched") > 0 })
	b.answer(listPath(bobID), list(bobID, 9, deviceKeys(bobID, "B", "wrong")))
	b.asked()

	// What follows is applied: a change, a new device, the same again, one gone.
	start = token(alice)
	b.must("a.test", "m.device_list_update", update(bobID, 8, []int{7}, deviceKeys(bobID, "B", "three")))
	b.must("a.test", "m.device_list_update", update(bobID, 9, []int{7, 8}, deviceKeys(bobID, "C", "c")))
	sees(t, alice, map[string]string{"B": "three", "C": "c"})
	b.must("a.test", "m.device_list_update", update(bobID, 8, []int{7}, deviceKeys(bobID, "B", "three")))
	if got := changes(alice, start); got != "[@bob:b.test] []" {
		t.Errorf("changed: %s", got)
	}
	gone := update(bobID, 10, []int{9}, deviceKeys(bobID, "B", ""))
	gone["deleted"] = true
	b.must("a.test", "m.device_list_update", gone)
	named := update(bobID, 11, []int{10}, deviceKeys(bobID, "C", "c"))
	named["device_display_name"] = "Tablet"
	b.must("a.test", "m.device_list_update", named)
	sees(t, alice, map[string]string{"C": "c"})
	if got := query(alice, bobID).Text("device_keys", bobID, "C", "unsigned", "device_display_name"); got != "Tablet" {
		t.Errorf("the device's name is %q", got)
	}
	// An update that changes nothing is no news.
	start = token(alice)
	named["stream_id"], named["prev_id"] = 12, []int{11}
	b.must("a.test", "m.device_list_update", named)
	if got := changes(alice, start); got != "[] []" {
		t.Errorf("changed by nothing: %s", got)
	}
	// A device without keys that could be used is none.
	broken := update(bobID, 13, []int{12}, deviceKeys("@carol:b.test", "C", "c"))
	broken["user_id"] = bobID
	b.must("a.test", "m.device_list_update", broken)
	sees(t, alice, map[string]string{})
	if got := b.asked(); len(got) > 0 {
		t.Errorf("asked: %v", got)
	}
	if n := w.counts.of("matrix_device_updates repeated"); n != 1 {
		t.Errorf("%d updates were repetitions", n)
	}
}

// Cross-signing keys come by updates of their own, under either name.
//
// spec: MX 1.19 SS §23
func TestSigningKeys(t *testing.T) {
	_, alice, b, _ := onBob(t, nil)
	sees(t, alice, map[string]string{"B": "one"})
	for _, typ := range []string{"m.signing_key_update", "org.matrix.signing_key_update"} {
		keys := newCross(t, bobID)
		start := token(alice)
		u := object{"user_id": bobID, "master_key": keys.body["master_key"], "self_signing_key": keys.body["self_signing_key"]}
		b.must("a.test", typ, u)
		got := query(alice, bobID)
		if got.Text("master_keys", bobID, "keys", "ed25519:"+keys.master.id) == "" ||
			got.Get("self_signing_keys", bobID, "signatures", bobID, "ed25519:"+keys.master.id) == nil {
			t.Errorf("%s: %v", typ, got)
		}
		if got := changes(alice, start); got != "[@bob:b.test] []" {
			t.Errorf("changed: %s", got)
		}
		// What is no key of his takes nothing away.
		others := newCross(t, "@carol:b.test")
		b.must("a.test", typ, object{"user_id": bobID, "master_key": others.body["master_key"], "self_signing_key": "x"})
		if query(alice, bobID).Text("master_keys", bobID, "keys", "ed25519:"+keys.master.id) == "" {
			t.Errorf("%s: the key is gone", typ)
		}
	}
}

// A list that cannot be fetched stays stale, is answered with that said, and is
// fetched when the server is there again, also after a restart.
func TestGapAndRestart(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	sees(t, alice, map[string]string{"B": "one"})
	b.answer(listPath(bobID), list(bobID, 3, deviceKeys(bobID, "B", "two")))
	w.Cut("b.test", true)
	b.must("a.test", "m.device_list_update", update(bobID, 3, []int{2}, deviceKeys(bobID, "B", "two")))
	federationtest.Eventually(t, "a failure", func() bool { return w.counts.of("matrix_device_lists failed") > 0 })
	got := query(alice, bobID)
	if curve(got, bobID, "B") != "one" || got.Get("failures", "b.test") == nil {
		t.Errorf("while it is away: %v", got)
	}
	// Further updates are no further news as long as the list is stale.
	start := token(alice)
	b.must("a.test", "m.device_list_update", update(bobID, 4, []int{3}, deviceKeys(bobID, "B", "two")))
	if got := changes(alice, start); got != "[] []" {
		t.Errorf("told again: %s", got)
	}
	a := w.Server("a.test")
	a.Restart(func() { w.Cut("b.test", false) })
	alice = a.On(alice)
	federationtest.Eventually(t, "the list", func() bool { return w.counts.of("matrix_device_lists fetched") > 0 })
	b.asked()
	sees(t, alice, map[string]string{"B": "two"})
	if got := changes(alice, start); got != "[@bob:b.test] []" {
		t.Errorf("after it was fetched: %s", got)
	}
	if got := b.asked(); len(got) > 0 {
		t.Errorf("asked: %v", got)
	}
}

// What is learnt while the server is asked makes its answer one that is fetched
// again.
func TestUpdateWhileAsked(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	b.answer(listPath(bobID), list(bobID, 5, deviceKeys(bobID, "B", "two")))
	b.hook(queryPath, func(*http.Request) error {
		b.hook(queryPath, nil)
		return b.says("a.test", "m.device_list_update", update(bobID, 5, []int{4}, deviceKeys(bobID, "B", "two")))
	})
	start := token(alice)
	sees(t, alice, map[string]string{"B": "one"})
	federationtest.Eventually(t, "the list is fetched", func() bool { return w.counts.of("matrix_device_lists fetched") > 0 })
	sees(t, alice, map[string]string{"B": "two"})
	if got := changes(alice, start); got != "[@bob:b.test] []" {
		t.Errorf("changed: %s", got)
	}
}

// A list is fetched once, however many ask.
func TestOneFetch(t *testing.T) {
	w, alice, b, _ := onBob(t, func(c *devices.Config) { c.Pause = 1 << 40 })
	sees(t, alice, map[string]string{"B": "one"})
	b.answer(listPath(bobID), list(bobID, 5, deviceKeys(bobID, "B", "two")))
	var running, most atomic.Int32
	release := make(chan struct{})
	b.hook(listPath(bobID), func(r *http.Request) error {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return nil
	})
	b.must("a.test", "m.device_list_update", update(bobID, 5, []int{4}, deviceKeys(bobID, "B", "two")))
	b.asked()
	done := make(chan string, 5)
	for range 5 {
		go func() { done <- curve(query(alice, bobID), bobID, "B") }()
	}
	federationtest.Eventually(t, "a fetch", func() bool { return running.Load() > 0 })
	close(release)
	for range 5 {
		if got := <-done; got != "two" {
			t.Errorf("an answer with %q", got)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d fetches at once", most.Load())
	}
	if n := w.counts.of("matrix_device_lists failed"); n > 0 {
		t.Errorf("%d failed", n)
	}
}

// Who begins and ceases to share a room is told to clients, and decides whose
// list is kept.
//
// spec: MX 1.19 CS §10.12.2.6
func TestSharing(t *testing.T) {
	w, alice, b, conv := onBob(t, nil)
	a := w.Server("a.test")
	sees(t, alice, map[string]string{"B": "one"})
	b.asked()

	// Carol is a stranger: asked for each time, and no news of her is taken.
	const carolID = "@carol:b.test"
	b.answer(queryPath, queried(carolID, deviceKeys(carolID, "D", "d")))
	start := token(alice)
	for range 2 {
		if got := query(alice, carolID); curve(got, carolID, "D") != "d" {
			t.Errorf("carol: %v", got)
		}
	}
	b.must("a.test", "m.device_list_update", update(carolID, 5, []int{4}, deviceKeys(carolID, "D", "e")))
	if got := b.asked(); !slices.Equal(got, []string{queryPath, queryPath}) {
		t.Errorf("asked: %v", got)
	}
	if got := changes(alice, start); got != "[] []" {
		t.Errorf("news of a stranger: %s", got)
	}
	// She enters.
	move(a, conv, carolID, core.Joined)
	if got := changes(alice, start); got != "[@carol:b.test] []" {
		t.Errorf("after carol entered: %s", got)
	}
	query(alice, carolID)
	query(alice, carolID)
	if got := b.asked(); len(got) != 1 {
		t.Errorf("asked: %v", got)
	}
	// Bob leaves: his list is not kept, for nothing is heard of changes.
	start = token(alice)
	move(a, conv, bobID, core.Left)
	if got := changes(alice, start); got != "[] [@bob:b.test]" {
		t.Errorf("after bob left: %s", got)
	}
	b.answer(queryPath, queried(bobID, deviceKeys(bobID, "B", "other")))
	sees(t, alice, map[string]string{"B": "other"})
	move(a, conv, bobID, core.Joined)
	b.answer(queryPath, queried(bobID, deviceKeys(bobID, "B", "third")))
	sees(t, alice, map[string]string{"B": "third"})
	// Alice, the only one from here, leaves.
	b.asked()
	move(a, conv, alice.ID, core.Left)
	move(a, conv, alice.ID, core.Joined)
	b.answer(queryPath, queried(bobID, deviceKeys(bobID, "B", "fourth")))
	sees(t, alice, map[string]string{"B": "fourth"})
	if got := b.asked(); len(got) != 1 {
		t.Errorf("asked: %v", got)
	}
}

// One who is still met in another room when the anchor breaks is told of.
func TestAdrift(t *testing.T) {
	w, alice, b, first := onBob(t, nil)
	a := w.Server("a.test")
	sees(t, alice, map[string]string{"B": "one"})
	share(a, alice.ID, bobID)
	move(a, first, bobID, core.Left)
	start := token(alice)
	b.answer(listPath(bobID), list(bobID, 5, deviceKeys(bobID, "B", "two")))
	b.must("a.test", "m.device_list_update", update(bobID, 5, []int{4}, deviceKeys(bobID, "B", "two")))
	if got := changes(alice, start); got != "[@bob:b.test] []" {
		t.Errorf("changed: %s", got)
	}
	sees(t, alice, map[string]string{"B": "two"})
	b.must("a.test", "m.device_list_update", update(bobID, 6, []int{5}, deviceKeys(bobID, "B", "three")))
	sees(t, alice, map[string]string{"B": "three"})
}

// A correction of the state, which nobody made, is as good as an event.
func TestCorrectedMembers(t *testing.T) {
	w, alice, b, conv := onBob(t, nil)
	a := w.Server("a.test")
	sees(t, alice, map[string]string{"B": "one"})
	b.asked()
	start := token(alice)
	err := a.Hub.Graph(context.Background(), func(g *hub.GraphTurn) error {
		bob := remote(bobID)
		st, err := g.Tx().State(conv)
		if err != nil {
			return err
		}
		a.Mirror.Correcting(g.Tx(), conv, []mirror.Piece{})
		_, err = g.Correct(conv, []core.Correction{{Kind: string(core.KindMembership), Key: bob.String(), Was: st.Members[bob].Event}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := changes(alice, start); got != "[] [@bob:b.test]" {
		t.Errorf("after he never was there: %s", got)
	}
	sees(t, alice, map[string]string{"B": "one"})
	if got := b.asked(); len(got) != 1 {
		t.Errorf("asked: %v", got)
	}
}

// Servers that are silent, or say no, cost the others nothing.
func TestFailures(t *testing.T) {
	w, alice, _, conv := onBob(t, nil)
	a := w.Server("a.test")
	for _, domain := range []string{"slow.test", "no.test", "away.test", "junk.test"} {
		s := w.scripted(domain)
		move(a, conv, "@x:"+domain, core.Joined)
		switch domain {
		case "slow.test":
			wait := func(r *http.Request) error { <-r.Context().Done(); return nil }
			s.hook(queryPath, wait)
			s.hook(claimPath, wait)
		case "away.test":
			w.Cut(domain, true)
		case "junk.test":
			s.answer(queryPath, `[]`)
			s.answer(claimPath, `{"one_time_keys":[]}`)
		}
	}
	keys := object{bobID: []string{}, "@x:slow.test": []string{}, "@x:no.test": []string{}, "@x:away.test": []string{}, "@x:junk.test": []string{}}
	got := alice.Do("POST", "/v3/keys/query", object{"device_keys": keys, "timeout": 1500})
	if curve(got.Object, bobID, "B") != "one" {
		t.Errorf("bob: %v", got)
	}
	if f := got.Obj("failures"); len(f) != 4 {
		t.Errorf("failures: %v", f)
	}
	for server, text := range map[string]string{"slow.test": "in time", "no.test": "404", "away.test": "reached", "junk.test": "of no use"} {
		if said := got.Text("failures", server, "error"); !strings.Contains(said, text) {
			t.Errorf("of %s it is said: %q", server, said)
		}
	}
	one := object{"@x:slow.test": object{"D": "a"}, "@x:no.test": object{"D": "a"}, "@x:away.test": object{"D": "a"}, "@x:junk.test": object{"D": "a"}}
	if f := alice.Do("POST", "/v3/keys/claim", object{"one_time_keys": one, "timeout": 1500}).Obj("failures"); len(f) != 4 {
		t.Errorf("failures: %v", f)
	}
}

// Many users of many servers are asked for in few calls, and only once.
func TestMany(t *testing.T) {
	w, alice, _, conv := onBob(t, nil)
	a := w.Server("a.test")
	const servers, each = 30, 10
	all := object{}
	var scripts []*scripted
	for i := range servers {
		domain := fmt.Sprintf("s%d.test", i)
		s := w.scripted(domain)
		said := object{}
		for j := range each {
			user := fmt.Sprintf("@u%d:%s", j, domain)
			move(a, conv, user, core.Joined)
			all[user] = []string{}
			said[user] = queried(user, deviceKeys(user, "D", user)).Get("device_keys", user)
		}
		s.answer(queryPath, object{"device_keys": map[string]any(said)})
		scripts = append(scripts, s)
	}
	for range 2 {
		got := alice.Do("POST", "/v3/keys/query", object{"device_keys": all})
		if n := len(got.Obj("device_keys")); n != servers*each || len(got.Obj("failures")) > 0 {
			t.Fatalf("%d users, %v", n, got.Get("failures"))
		}
	}
	for _, s := range scripts {
		if got := s.asked(); len(got) != 1 {
			t.Errorf("%s was asked %v", s.domain, got)
		}
	}
}
