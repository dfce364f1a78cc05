package directory_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

func remote(name, domain string) core.Address {
	return core.Address{Network: core.Matrix, Name: name, Domain: domain}
}

// befriend puts somebody on an account's list, so that she is no stranger.
func befriend(t *testing.T, s *federationtest.Server, account, who core.Address) {
	t.Helper()
	err := s.Hub.Write(t.Context(), func(tx hub.Tx) error {
		return tx.PutContact(core.Contact{Account: account, Address: who, Listed: true})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// known is what a server's hub keeps of somebody's profile.
func known(t *testing.T, s *federationtest.Server, who core.Address) core.Profile {
	t.Helper()
	p, err := s.Hub.Profile(t.Context(), who)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func profileOf(u *roomstest.User, id string) roomstest.Answer {
	return u.Try("GET", "/v3/profile/"+url.PathEscape(id), nil)
}

// TestProfiles: clients of one server see the profiles of the other's accounts,
// the hub keeps those of acquaintances, and nobody is asked twice.
//
// spec: MX 1.19 SS §20
func TestProfiles(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.a.User("alice"), w.b.User("bob")
	for field, value := range map[string]string{"displayname": "Alice A.", "avatar_url": "mxc://a.test/face", "m.tz": "Europe/Berlin"} {
		alice.Do("PUT", "/v3/profile/"+url.PathEscape(alice.ID)+"/"+field, object{field: value})
	}
	befriend(t, w.b, bob.Address, remote("alice", "a.test"))
	for range 2 {
		got := profileOf(bob, alice.ID)
		if got.Text("displayname") != "Alice A." || got.Text("avatar_url") != "mxc://a.test/face" || got.Text("m.tz") != "Europe/Berlin" {
			t.Fatalf("%s", got.Raw)
		}
	}
	if got := bob.Do("GET", "/v3/profile/"+url.PathEscape(alice.ID)+"/m.tz", nil); got.Text("m.tz") != "Europe/Berlin" {
		t.Errorf("%s", got.Raw)
	}
	if calls := w.questions(); len(calls) != 1 {
		t.Errorf("%q", calls)
	}
	if p := known(t, w.b, remote("alice", "a.test")); p.Name != "Alice A." || p.Avatar == nil || p.Avatar.URL != "mxc://a.test/face" {
		t.Errorf("other networks see %+v", p)
	}
	// A stranger's is shown and not kept.
	w.a.User("carol").Do("PUT", "/v3/profile/@carol:a.test/displayname", object{"displayname": "Carol"})
	if got := profileOf(bob, "@carol:a.test"); got.Text("displayname") != "Carol" {
		t.Errorf("%s", got.Raw)
	}
	if p := known(t, w.b, remote("carol", "a.test")); p.Name != "" {
		t.Errorf("kept of a stranger: %+v", p)
	}
	if got := profileOf(bob, "@nobody:a.test"); got.Status != 404 || got.Code() != "M_NOT_FOUND" {
		t.Errorf("%d %s", got.Status, got.Raw)
	}
	w.questions()
	nobody := &roomstest.User{Server: bob.Server}
	if got := profileOf(nobody, alice.ID); got.Status != 403 || len(w.questions()) != 0 {
		t.Errorf("one who has not logged in: %d %s", got.Status, got.Raw)
	}
}

// TestProfileAnswers is what other servers are told.
//
// spec: MX 1.19 SS §20
func TestProfileAnswers(t *testing.T) {
	w := newWorld(t)
	alice := w.a.User("alice")
	alice.Do("PUT", "/v3/profile/@alice:a.test/displayname", object{"displayname": "Alice"})
	const q = "/query/profile?user_id="
	for path, want := range map[string]string{
		q + "@alice:a.test": `{"displayname":"Alice"}`, q + "@alice:a.test&field=displayname": `{"displayname":"Alice"}`, q + "@alice:a.test&field=avatar_url": `{}`,
	} {
		got, err := w.ask(t, path)
		if raw, _ := json.Marshal(got); err != nil || string(raw) != want {
			t.Errorf("%s: %s, %v", path, raw, err)
		}
	}
	carol := core.Address{Network: core.XMPP, Name: "carol", Domain: "c.test"}
	if err := w.a.Hub.LearnProfile(t.Context(), carol, core.Profile{Name: "Carol"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		q + "@bob:a.test": 404, q + "@bob:b.test": 400, q + "alice": 400, "/query/profile": 400, q + "@_xmpp_carol=40c.test:a.test": 404,
		q + "@..%2F..:a.test": 404, q + "@%00:a.test": 400, q + "@" + strings.Repeat("x", 300) + ":a.test": 400,
	} {
		if _, err := w.ask(t, path); status(err) != want {
			t.Errorf("%s: %v, want %d", path, err, want)
		}
	}
}

// TestHostileProfiles are answers that are not what they should be.
func TestHostileProfiles(t *testing.T) {
	w := newWorld(t)
	bob := w.b.User("bob")
	const q = "/query/profile?user_id="
	answers := map[string]string{}
	for name, body := range map[string]string{
		"list": `[]`, "null": `null`, "text": `x`, "types": `{"displayname":7,"avatar_url":[],"m.tz":{"a":1},"Bad Name":"x","org.x.ok":1}`,
		"avatar": `{"avatar_url":"javascript:alert(1)","displayname":"A"}`, "path": `{"avatar_url":"mxc://evil.test/../x","displayname":"A"}`,
		"long": `{"displayname":"` + strings.Repeat("x", 300) + `"}`, "nul": `{"displayname":"a\u0000b"}`,
		"huge": `{"org.x.y":"` + strings.Repeat("x", 70_000) + `"}`,
	} {
		answers[q+url.QueryEscape("@"+name+":evil.test")] = body
		answers["/query/profile?"+url.Values{"user_id": {"@" + name + ":evil.test"}}.Encode()] = body
		befriend(t, w.b, bob.Address, remote(name, "evil.test"))
	}
	w.evil(answers)
	for name, want := range map[string]string{
		"types": `{"m.tz":{"a":1},"org.x.ok":1}`, "avatar": `{"displayname":"A"}`, "path": `{"displayname":"A"}`, "long": `{}`, "nul": `{"displayname":"ab"}`,
	} {
		got := profileOf(bob, "@"+name+":evil.test")
		if raw, _ := json.Marshal(got.Object); got.Status != 200 || string(raw) != want {
			t.Errorf("%s: %d %s, want %s", name, got.Status, got.Raw, want)
		}
	}
	for _, name := range []string{"list", "text", "huge"} {
		if got := profileOf(bob, "@"+name+":evil.test"); got.Status != 502 {
			t.Errorf("%s: %d %s", name, got.Status, got.Raw)
		}
	}
	for _, name := range []string{"avatar", "path"} {
		if p := known(t, w.b, remote(name, "evil.test")); p.Avatar != nil || p.Name != "A" {
			t.Errorf("%s: %+v is kept", name, p)
		}
	}
}

// A server that cannot be asked is believed to say what it said last. One that
// asks too much is stopped before others are bothered.
func TestProfilesOfSilentServers(t *testing.T) {
	w := newWorld(t)
	bob := w.b.User("bob")
	alice := remote("alice", "a.test")
	befriend(t, w.b, bob.Address, alice)
	if err := w.b.Hub.LearnProfile(t.Context(), alice, core.Profile{Name: "Alice"}); err != nil {
		t.Fatal(err)
	}
	w.Cut("a.test", true)
	if got := profileOf(bob, "@alice:a.test"); got.Text("displayname") != "Alice" {
		t.Errorf("%d %s", got.Status, got.Raw)
	}
	if got := profileOf(bob, "@carol:a.test"); got.Status != 502 {
		t.Errorf("%d %s", got.Status, got.Raw)
	}
	w.Cut("a.test", false)
	w.questions()
	no := errors.New("enough")
	if _, err := w.asks.Ask(t.Context(), remote("dave", "a.test"), func() error { return no }); !errors.Is(err, no) || len(w.questions()) != 0 {
		t.Errorf("asked all the same: %v", err)
	}
	if p, err := w.asks.Profile(t.Context(), bob.Address, alice); err != nil || p.Name != "Alice" || len(w.questions()) != 0 {
		t.Errorf("what is remembered: %+v, %v", p, err)
	}
	asked := 0
	for i := range 100 {
		_, err := w.asks.Profile(t.Context(), bob.Address, remote(fmt.Sprint("x", i), "a.test"))
		if hub.CodeOf(err) == hub.TooMany {
			break
		}
		asked++
	}
	if asked == 0 || asked > 60 {
		t.Errorf("one account had others asked %d times", asked)
	}
}
