package ephemeral_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation/ephemeral"
)

// befriend makes two contacts: seen says that the account sees the other, sees
// that the other sees the account.
func (w *world) befriend(account, other core.Address, seen, sees bool) {
	w.t.Helper()
	err := w.h.Write(w.t.Context(), func(tx hub.Tx) error {
		return tx.PutContact(core.Contact{Account: account, Address: other, Listed: true, Seen: seen, Sees: sees})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) set(who core.Address, session string, show core.Show, text string) {
	w.t.Helper()
	if err := w.h.SetPresence(w.t.Context(), who, core.Presence{Show: show, Status: text, Session: session}); err != nil {
		w.t.Fatal(err)
	}
}

// Presence goes to the servers of those who may see it, and says nothing of
// devices; when nobody there may see it any longer, she is gone.
//
// spec: MX 1.19 SS §18
func TestPresenceOut(t *testing.T) {
	w := newWorld(t)
	alice := hubtest.Account(t, w.h, "alice")
	bob, carol, dan := remote("bob", "a.test"), remote("carol", "a.test"), remote("dan", "b.test")
	w.befriend(alice, bob, true, true)
	w.befriend(alice, carol, true, true)
	w.befriend(alice, dan, true, false)
	w.set(alice, "phone", core.ShowAway, "at work")
	got := w.said(1)[0]
	want(t, got, "example.org>a.test m.presence", `"user_id":"@alice:example.org"`, `"presence":"unavailable"`, "at work", `"last_active_ago":0`)
	if strings.Contains(got, "phone") {
		t.Error(got)
	}
	w.set(alice, "desk", core.ShowXA, "at work") // changes nothing that others see
	w.set(alice, "desk", core.ShowOnline, "at work")
	want(t, w.said(1)[0], `"presence":"online"`)
	w.set(alice, "phone", core.ShowOffline, "")
	w.set(alice, "desk", core.ShowAway, "at work")
	want(t, w.said(1)[0], `"presence":"unavailable"`)
	// One of the two at the server is blocked, then the other.
	if err := w.h.Block(t.Context(), alice, bob); err != nil {
		t.Fatal(err)
	}
	if err := w.h.Block(t.Context(), alice, carol); err != nil {
		t.Fatal(err)
	}
	want(t, w.said(1)[0], `"presence":"offline"`)
	if err := w.h.Unblock(t.Context(), alice, carol); err != nil {
		t.Fatal(err)
	}
	want(t, w.said(1)[0], `"presence":"unavailable"`)
	w.set(alice, "desk", core.ShowOffline, "")
	want(t, w.said(1)[0], `"presence":"offline"`)
}

// Who stays is said to be there again and again.
func TestPresenceIsRenewed(t *testing.T) {
	w := newWorld(t, func(c *ephemeral.Config) { c.PresenceEvery = 20 * time.Millisecond })
	alice := hubtest.Account(t, w.h, "alice")
	w.befriend(alice, remote("bob", "a.test"), false, true)
	w.set(alice, "phone", core.ShowOnline, "")
	eventually(t, "it is said three times", func() bool { return w.post.count() >= 3 })
}

func push(user, presence, more string) string {
	return fmt.Sprintf(`{"push":[{"user_id":%q,"presence":%q,"last_active_ago":5000%s}]}`, user, presence, more)
}

// The presence of others reaches those who may see it and nobody else.
//
// spec: MX 1.19 SS §18
func TestPresenceIn(t *testing.T) {
	w := newWorld(t)
	alice, eve := hubtest.Account(t, w.h, "alice"), hubtest.Account(t, w.h, "eve")
	bob := remote("bob", "a.test")
	w.befriend(alice, bob, true, false)
	w.befriend(eve, bob, false, true)
	watch := func(who core.Address) *hub.Session {
		s, err := w.h.Attach(hub.SessionSpec{Account: who, Protocol: core.XMPP, ID: "desk"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	hers, eves := watch(alice), watch(eve)
	next := func() core.Presence {
		t.Helper()
		n, ok := hers.TryNext()
		p, is := n.(hub.PresenceNews)
		if !ok || !is || p.Who != bob {
			t.Fatalf("%T, %+v", n, n)
		}
		return p.Presence
	}
	if err := w.edu("m.presence", "a.test", push("@bob:a.test", "online", `,"status_msg":"he\u0007llo","currently_active":true`)); err != nil {
		t.Fatal(err)
	}
	if p := next(); p.Show != core.ShowOnline || p.Status != "hello" || p.Active.IsZero() || p.Session == "" {
		t.Errorf("%+v", p)
	}
	// Said again it is no news.
	if err := w.edu("m.presence", "a.test", push("@bob:a.test", "online", `,"status_msg":"hello"`)); err != nil {
		t.Fatal(err)
	}
	if err := w.edu("m.presence", "a.test", push("@bob:a.test", "unavailable", "")); err != nil {
		t.Fatal(err)
	}
	if p := next(); p.Show != core.ShowAway {
		t.Errorf("%+v", p)
	}
	for name, c := range map[string]struct{ origin, content string }{
		"somebody else's user": {"b.test", push("@bob:a.test", "offline", "")},
		"a user of ours":       {"a.test", push("@alice:example.org", "offline", "")},
		"an odd presence":      {"a.test", push("@bob:a.test", "busy", "")},
		"no list":              {"a.test", `{"push":{}}`},
		"no objects":           {"a.test", `{"push":[7]}`},
	} {
		if err := w.edu("m.presence", c.origin, c.content); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := w.edu("m.presence", "a.test", push("@stranger:a.test", "online", "")); err != nil {
		t.Error(err)
	}
	if seen, err := w.h.PresenceOf(t.Context(), alice, bob); err != nil || len(seen) != 1 || seen[0].Show != core.ShowAway {
		t.Errorf("%+v, %v", seen, err)
	}
	// One wrong entry does not spoil the others; a flood is cut off.
	many := make([]string, 300)
	for i := range many {
		many[i] = `{"user_id":"@bob:a.test","presence":"offline","last_active_ago":0}`
	}
	many[0] = `{"user_id":7}`
	if err := w.edu("m.presence", "a.test", `{"push":[`+strings.Join(many, ",")+`]}`); err == nil {
		t.Error("no error")
	}
	if p := next(); p.Show != core.ShowOffline {
		t.Errorf("%+v", p)
	}
	if n, ok := eves.TryNext(); ok {
		t.Errorf("one who may not see it heard %+v", n)
	}
}

// One who comes hears what is known of those whom she may see; and what was said
// long ago is no longer believed.
func TestPresenceKnown(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgets %v", forgets), func(t *testing.T) {
			w := newWorld(t, func(c *ephemeral.Config) {
				if forgets {
					c.PresenceFor = 30 * time.Millisecond
				}
			})
			alice, bob := hubtest.Account(t, w.h, "alice"), remote("bob", "a.test")
			w.befriend(alice, bob, true, false)
			s, err := w.h.Attach(hub.SessionSpec{Account: alice, Protocol: core.XMPP, ID: "desk"})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.edu("m.presence", "a.test", push("@bob:a.test", "online", "")); err != nil {
				t.Fatal(err)
			}
			hears := func(show core.Show) func() bool {
				return func() bool {
					n, _ := s.TryNext()
					p, ok := n.(hub.PresenceNews)
					return ok && p.Who == bob && p.Presence.Show == show
				}
			}
			eventually(t, "alice hears that he is there", hears(core.ShowOnline))
			if forgets {
				eventually(t, "alice hears that he is gone", hears(core.ShowOffline))
				return
			}
			w.set(alice, "desk", core.ShowOnline, "")
			eventually(t, "alice hears it when she comes", hears(core.ShowOnline))
		})
	}
}
