package ephemeral_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation/ephemeral"
)

// Each server of a room hears once that somebody writes, whatever the number of
// its members; again when it goes on; and when it is over.
//
// spec: MX 1.19 SS §17
func TestTypingOut(t *testing.T) {
	w := newWorld(t, func(c *ephemeral.Config) { c.Renew = 20 * time.Millisecond; c.Gather = 300 * time.Millisecond })
	alice, bob := hubtest.Account(t, w.h, "alice"), hubtest.Account(t, w.h, "bob")
	members := []core.Address{bob}
	for i := range 50 {
		members = append(members, remote(fmt.Sprintf("m%d", i), "a.test"))
	}
	room, _ := w.room(alice, members)
	if err := w.h.Typing(t.Context(), room.ID, alice, time.Now().Add(time.Minute), ""); err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		var got []string
		eventually(t, "it is said", func() bool { got = append(got, w.post.take()...); return len(got) >= 2 })
		if len(got) >= len(members) {
			t.Errorf("it is said %d times", len(got))
		}
		slices.Sort(got)
		got = slices.Compact(got)
		want(t, got[0], "example.org>a.test m.typing", room.Native[core.Matrix], "@alice:example.org", `"typing":true`)
		want(t, got[len(got)-1], "example.org>b.test")
		if !again {
			continue
		}
		// Of another's user her own server speaks.
		if err := w.h.Typing(t.Context(), room.ID, members[1], time.Now().Add(time.Minute), ""); err != nil {
			t.Fatal(err)
		}
		if err := w.h.Typing(t.Context(), room.ID, alice, time.Time{}, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is over", func() bool {
			all := w.post.take()
			if slices.ContainsFunc(all, func(s string) bool { return !strings.Contains(s, "@alice:") }) {
				t.Errorf("%v", all)
			}
			return slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, `"typing":false`) })
		})
	}
}

// In a room that no Matrix server shares nothing is said.
func TestNotShared(t *testing.T) {
	w := newWorld(t)
	alice := hubtest.Account(t, w.h, "alice")
	shared, _ := w.room(alice, []core.Address{remote("bob", "a.test")})
	c, err := w.h.Open(t.Context(), hub.Opening{Creator: alice, Shape: core.Group, Public: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.h.Join(t.Context(), hub.JoinRequest{Conv: c.ID, Who: remote("bob", "a.test")}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []core.ConvID{c.ID, shared.ID} { // the second shows that the first is through
		if err := w.h.Typing(t.Context(), id, alice, time.Now().Add(time.Minute), ""); err != nil {
			t.Fatal(err)
		}
	}
	want(t, w.said(2)[0], shared.Native[core.Matrix])
}

// What another server says of its users is taken; what it says of others, or of
// rooms that keep it out, is not.
//
// spec: MX 1.19 SS §17
// spec: MX 1.19 SS §26
func TestTypingIn(t *testing.T) {
	w := newWorld(t)
	alice := hubtest.Account(t, w.h, "alice")
	bob, eve := remote("bob", "a.test"), remote("eve", "kept-out.test")
	room, _ := w.room(alice, []core.Address{bob, eve})
	local, err := w.h.Open(t.Context(), hub.Opening{Creator: alice, Shape: core.Group})
	if err != nil {
		t.Fatal(err)
	}
	content := func(room core.Conversation, user string, on bool) string {
		return fmt.Sprintf(`{"room_id":%q,"user_id":%q,"typing":%v}`, room.Native[core.Matrix], user, on)
	}
	for name, c := range map[string]struct{ origin, content string }{
		"somebody else's user": {"b.test", content(room, "@bob:a.test", true)},
		"a user of ours":       {"a.test", content(room, "@alice:example.org", true)},
		"not in the room":      {"a.test", content(room, "@carol:a.test", true)},
		"a server kept out":    {"kept-out.test", content(room, "@eve:kept-out.test", true)},
		"a room of ours alone": {"a.test", content(local, "@bob:a.test", true)},
		"no such room":         {"a.test", `{"room_id":"!x:a.test","user_id":"@bob:a.test","typing":true}`},
		"no user":              {"a.test", content(room, "bob", true)},
		"no JSON of its sort":  {"a.test", `{"room_id":7}`},
	} {
		if err := w.edu("m.typing", c.origin, c.content); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if who, _ := w.h.TypingIn(room.ID); len(who) != 0 {
		t.Errorf("%v write", who)
	}
	if err := w.edu("m.typing", "a.test", content(room, "@bob:a.test", true)); err != nil {
		t.Fatal(err)
	}
	if who, _ := w.h.TypingIn(room.ID); !slices.Equal(who, []core.Address{bob}) {
		t.Errorf("%v write", who)
	}
	if err := w.edu("m.typing", "a.test", content(room, "@bob:a.test", false)); err != nil {
		t.Fatal(err)
	}
	if who, _ := w.h.TypingIn(room.ID); len(who) != 0 {
		t.Errorf("%v write", who)
	}
}

// reading is how far somebody has read.
func (w *world) reading(conv core.ConvID, who core.Address, thread string) core.EventID {
	w.t.Helper()
	var r hub.Reading
	err := w.h.Read(w.t.Context(), func(v hub.View) (err error) {
		r, err = v.Reading(conv, who, core.StageDisplayed, thread, false)
		return err
	})
	if err != nil && !errors.Is(err, hub.ErrNone) {
		w.t.Fatal(err)
	}
	return r.Event
}

// Receipts of several rooms and users come in one EDU, each for itself, with the
// thread that they are about.
//
// spec: MX 1.19 SS §19
func TestReceiptsIn(t *testing.T) {
	w := newWorld(t)
	alice := hubtest.Account(t, w.h, "alice")
	bob, carol := remote("bob", "a.test"), remote("carol", "a.test")
	one, in1 := w.room(alice, []core.Address{bob, carol}, "a", "b", "c", "d")
	two, in2 := w.room(alice, []core.Address{bob}, "a", "b")
	of := func(e core.Event, data string) string {
		return fmt.Sprintf(`{"event_ids":[%q],"data":{"ts":1%s}}`, eventID(e), data)
	}
	err := w.edu("m.receipt", "a.test", fmt.Sprintf(`{
		%q:{"m.read":{"@bob:a.test":%s,"@carol:a.test":%s,"@alice:example.org":%s,"@x:b.test":%s,"@bob:a.test ":7},
		    "m.read.private":{"@bob:a.test":%s}},
		%q:{"m.read":{"@bob:a.test":%s,"@carol:a.test":%s}},
		"!unknown:a.test":{"m.read":{"@bob:a.test":%s}},
		"!odd":{"m.read":7}, "!empty":{}}`,
		one.Native[core.Matrix], of(in1[1], ""), of(in1[2], `,"thread_id":"main"`), of(in1[3], ""), of(in1[3], ""), of(in1[3], ""),
		two.Native[core.Matrix], of(in2[1], fmt.Sprintf(`,"thread_id":%q`, eventID(in2[0]))), of(in2[1], ""), of(in1[3], "")))
	if err == nil || strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("what is wrong is not said: %v", err)
	}
	for _, c := range []struct {
		conv   core.ConvID
		who    core.Address
		thread string
		want   core.EventID
	}{
		{one.ID, bob, "", in1[1].ID}, {one.ID, carol, "main", in1[2].ID}, {one.ID, alice, "", ""}, {one.ID, carol, "", ""},
		{two.ID, bob, string(in2[0].ID), in2[1].ID}, {two.ID, bob, "", ""}, {two.ID, carol, "", ""},
	} {
		if got := w.reading(c.conv, c.who, c.thread); got != c.want {
			t.Errorf("%v in %q: %q, not %q", c.who, c.thread, got, c.want)
		}
	}
	for _, bad := range []string{
		`[]`,
		fmt.Sprintf(`{%q:{"m.read":{"@bob:a.test":{"event_ids":[]}}}}`, one.Native[core.Matrix]),
		fmt.Sprintf(`{%q:{"m.read":{"@bob:a.test":{"event_ids":["$unknown"]}}}}`, one.Native[core.Matrix]),
		fmt.Sprintf(`{%q:{"m.read":{"@bob:a.test":%s}}}`, one.Native[core.Matrix], of(in2[1], "")),
		fmt.Sprintf(`{%q:{"m.read":{"@bob:a.test":%s}}}`, one.Native[core.Matrix], of(in1[3], `,"thread_id":"$unknown"`)),
	} {
		if err := w.edu("m.receipt", "a.test", bad); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
	if err := w.edu("m.receipt", "kept-out.test", fmt.Sprintf(`{%q:{"m.read":{"@eve:kept-out.test":%s}}}`, one.Native[core.Matrix], of(in1[3], ""))); err == nil {
		t.Error("a server that is kept out was heard")
	}
	if got := w.post.take(); len(got) != 0 {
		t.Errorf("said of others' users: %v", got)
	}
}

// A flood of receipts is looked at as far as it is allowed, and no further.
func TestReceiptFlood(t *testing.T) {
	w := newWorld(t)
	alice, bob := hubtest.Account(t, w.h, "alice"), remote("bob", "a.test")
	room, said := w.room(alice, []core.Address{bob}, "a")
	users := map[string]any{}
	for i := range 1000 {
		users[fmt.Sprintf("@u%d:a.test", i)] = map[string]any{"event_ids": []string{eventID(said[0])}, "data": map[string]int{"ts": 1}}
	}
	raw, err := json.Marshal(map[string]any{room.Native[core.Matrix]: map[string]any{"m.read": users}})
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for range 100 {
		err := w.edu("m.receipt", "a.test", string(raw))
		if err == nil || !strings.Contains(err.Error(), "too much") {
			t.Fatalf("%.200v", err)
		}
		n := strings.Count(err.Error(), string(hub.NotMember))
		if n > 200 {
			t.Errorf("%d receipts of one EDU", n)
		}
		looked += n
	}
	if looked < 1000 || looked > 15_000 {
		t.Errorf("%d receipts were looked at", looked)
	}
	// Another server's allowance is its own.
	one := fmt.Sprintf(`{%q:{"m.read":{"@bob:b.test":{"event_ids":[%q],"data":{"ts":1}}}}}`, room.Native[core.Matrix], eventID(said[0]))
	if err := w.edu("m.receipt", "b.test", one); err == nil || strings.Contains(err.Error(), "too much") {
		t.Errorf("another server: %v", err)
	}
}

// Each server of a room hears of a receipt once, with its thread; but not of a
// private one, nor of one for one's own message.
//
// spec: MX 1.19 SS §19
func TestReceiptsOut(t *testing.T) {
	w := newWorld(t)
	alice, bob := hubtest.Account(t, w.h, "alice"), remote("bob", "a.test")
	room, said := w.room(alice, []core.Address{bob, remote("carol", "b.test")}, "mine", "bob's", "carol's", "mine", "bob's")
	mark := func(e core.Event, thread string, private bool) {
		t.Helper()
		if err := w.h.MarkDisplayed(t.Context(), hub.ReadingRequest{Conv: room.ID, Who: alice, Event: e.ID, Thread: thread, Private: private}); err != nil {
			t.Fatal(err)
		}
	}
	mark(said[0], "", false)
	mark(said[1], "", false)
	got := w.said(2)
	want(t, got[0], "example.org>a.test m.receipt", room.Native[core.Matrix], `"m.read":{"@alice:example.org"`, eventID(said[1]))
	want(t, got[1], "example.org>b.test")
	if strings.Contains(got[0], "thread_id") {
		t.Error(got[0])
	}
	mark(said[2], "main", false)
	want(t, w.said(2)[0], `"thread_id":"main"`)
	mark(said[4], string(said[1].ID), false)
	want(t, w.said(2)[0], fmt.Sprintf(`"thread_id":%q`, eventID(said[1])))
	mark(said[4], "", true)
	mark(said[3], "", false) // her own
	mark(said[4], "", false)
	want(t, w.said(2)[0], eventID(said[4]))
}

// In a talk of two a displayed receipt is owed; a delivered one Matrix does not
// know, and neither what no Matrix server shares.
//
// spec: MX 1.19 SS §19
func TestDirectReceipts(t *testing.T) {
	w := newWorld(t)
	alice, bob := hubtest.Account(t, w.h, "alice"), remote("bob", "b.test")
	talk, err := w.h.DirectWith(t.Context(), alice, bob)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.h.Join(t.Context(), hub.JoinRequest{Conv: talk, Who: bob}); err != nil {
		t.Fatal(err)
	}
	e := w.say(talk, bob, "hello")
	d := func(stage core.Stage) hub.Delivery {
		return hub.Delivery{Parcel: hub.Parcel{Dest: "b.test", From: alice, Conv: talk, Event: e.ID, Receipt: &core.Receipt{Target: e.ID, Stage: stage}}}
	}
	if r := w.e.Receipt(t.Context(), d(core.StageDisplayed)); r.Outcome != hub.Accepted || len(r.Losses) != 1 {
		t.Errorf("in what is not shared: %+v", r)
	}
	w.share(talk)
	if r := w.e.Receipt(t.Context(), d(core.StageDelivered)); r.Outcome != hub.Accepted || len(r.Losses) != 1 || r.Losses[0].Feature != core.FeatureDelivered {
		t.Errorf("%+v", r)
	}
	if r := w.e.Receipt(t.Context(), d("odd")); r.Outcome != hub.Failed {
		t.Errorf("%+v", r)
	}
	// Whole, from a client's receipt on.
	if err := w.h.MarkDisplayed(t.Context(), hub.ReadingRequest{Conv: talk, Who: alice, Event: e.ID}); err != nil {
		t.Fatal(err)
	}
	owed := func() []string {
		w.post.mu.Lock()
		defer w.post.mu.Unlock()
		return slices.Clone(w.post.owed)
	}
	eventually(t, "it is owed", func() bool { return len(owed()) == 1 })
	want(t, owed()[0], "example.org>b.test m.receipt", "@alice:example.org", eventID(e))
	w.post.err = errors.New("no")
	if r := w.e.Receipt(t.Context(), d(core.StageDisplayed)); r.Outcome != hub.Retry {
		t.Errorf("%+v", r)
	}
}
