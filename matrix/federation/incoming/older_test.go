package incoming_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

// pages reads all of a room's history, as a client does that scrolls up, and
// returns the texts from the oldest on.
func pages(t testing.TB, u *roomstest.User, room string, limit int) (texts []string, n int) {
	t.Helper()
	from := ""
	for {
		q := url.Values{"dir": {"b"}, "limit": {fmt.Sprint(limit)}}
		if from != "" {
			q.Set("from", from)
		}
		got := u.Do("GET", roomstest.Room(room, "/messages?%s", q.Encode()), nil)
		for _, e := range got.List("chunk") {
			if e.Text("type") == "m.room.message" {
				texts = append(texts, e.Text("content", "body"))
			}
		}
		n++
		if from = got.Text("end"); from == "" {
			slices.Reverse(texts)
			return texts, n
		}
	}
}

// TestOlder: a room that was joined late is read up to its beginning, page by
// page, in order, and each event once.
//
// spec: MX 1.19 SS §8.1
func TestOlder(t *testing.T) {
	for _, version := range []string{"12", "11"} {
		t.Run("version "+version, func(t *testing.T) {
			w := newWorld(t, nil, "a.test", "b.test")
			a, b := w.Server("a.test"), w.Server("b.test")
			alice, carol, bob := a.User("alice"), a.User("carol"), b.User("bob")
			room := alice.Create(object{"preset": "public_chat", "room_version": version})
			carol.Join(room)
			var want []string
			for i := range 480 {
				u := alice
				if i%3 == 0 {
					u = carol
				}
				text := fmt.Sprint("number ", i)
				u.Say(room, text)
				want = append(want, text)
				switch i {
				case 100, 300:
					alice.SetState(room, "m.room.topic", "", object{"topic": text})
				case 200:
					carol.Do("POST", roomstest.Room(room, "/leave"), object{})
					carol.Join(room)
				}
			}
			join(bob, room, "a.test")
			w.Same(room, "a.test", "b.test")
			hears(t, bob, room, alice.Say(room, "welcome"))
			want = append(want, "welcome")
			got, n := pages(t, bob, room, 50)
			same(t, "bob", got, want)
			if n < 10 {
				t.Errorf("in %d pages", n)
			}
			if n := count(b, "shared_missing"); n != 0 {
				t.Errorf("%d events are missing still", n)
			}
			got, _ = pages(t, bob, room, 100)
			same(t, "again", got, want)
			w.Calls()
			if got, _ = pages(t, bob, room, 100); len(got) != len(want) {
				t.Errorf("%d texts at the third time", len(got))
			}
			for _, c := range w.Calls() {
				if strings.Contains(c, "/backfill/") {
					t.Errorf("asked again: %s", c)
				}
			}
			w.cores(room, "a.test", "b.test")
			hears(t, alice, room, bob.Say(room, "I have read it all"))
			same(t, "the ends", ends(b, room), ends(a, room))
		})
	}
}

// TestVisibility: of what was said before she came, a newcomer sees what the
// room's rule allows.
func TestVisibility(t *testing.T) {
	for rule, sees := range map[string]bool{"shared": true, "joined": false, "invited": false, "world_readable": true} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld(t, nil, "a.test", "b.test")
			alice, bob, carol := w.Server("a.test").User("alice"), w.Server("b.test").User("bob"), w.Server("b.test").User("carol")
			room := alice.Create(object{"preset": "public_chat", "initial_state": []object{
				{"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": rule}},
			}})
			alice.Say(room, "before anybody came")
			join(bob, room, "a.test")
			w.Same(room, "a.test", "b.test")
			hears(t, bob, room, alice.Say(room, "bob is here"))
			join(carol, room, "a.test")
			w.Same(room, "a.test", "b.test")
			hears(t, carol, room, alice.Say(room, "carol is here"))
			all := []string{"before anybody came", "bob is here", "carol is here"}
			for u, from := range map[*roomstest.User]int{bob: 1, carol: 2} {
				want := all[from:]
				if sees {
					want = all
				}
				got, _ := pages(t, u, room, 50)
				same(t, u.ID, got, want)
			}
		})
	}
}

// TestOlderElsewhere: a server that knows nothing, or does not answer, is not the
// last that is asked; what nobody can vouch for is passed over.
func TestOlderElsewhere(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test", "c.test")
	alice, bob, carol := w.Server("a.test").User("alice"), w.Server("b.test").User("bob"), w.Server("c.test").User("carol")
	room := alice.Create(object{"preset": "public_chat"})
	join(carol, room, "a.test")
	w.Same(room, "a.test", "c.test")
	var want []string
	for i := range 20 {
		text := fmt.Sprint("number ", i)
		hears(t, carol, room, alice.Say(room, text))
		want = append(want, text)
	}
	join(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	w.hook("/backfill/", func(r *http.Request, next federationtest.Next) (*http.Response, error) {
		if r.URL.Host == "a.test" {
			return notFound(r, next)
		}
		return next(r)
	})
	got, _ := pages(t, bob, room, 50)
	same(t, "bob", got, want)
}

// TestReach: a moment before what is known is found by going there.
//
// spec: MX 1.19 SS §9.4
func TestReach(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test")
	a, b := w.Server("a.test"), w.Server("b.test")
	alice, bob := a.User("alice"), b.User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	conv := a.Conv(room)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	var ids []string
	for i := range 150 { // one a second
		e, err := a.Hub.Submit(t.Context(), hub.Draft{
			Conv: conv, Sender: alice.Address, Origin: began.Add(time.Duration(i) * time.Second),
			Content: core.Message{Body: core.TextBody(fmt.Sprint("number ", i))},
		})
		if err != nil {
			t.Fatal(err)
		}
		name, _ := e.Alias(core.Matrix, "event")
		ids = append(ids, name.Key)
	}
	join(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	at := func(when time.Time, dir string) roomstest.Answer {
		return bob.Try("GET", fmt.Sprintf("/v1/rooms/%s/timestamp_to_event?dir=%s&ts=%d", url.PathEscape(room), dir, when.UnixMilli()), nil)
	}
	for i, dir := range map[int]string{20: "f", 140: "b", 75: "b"} {
		when := began.Add(time.Duration(i) * time.Second)
		if dir == "f" {
			when = when.Add(-time.Second / 2)
		} else {
			when = when.Add(time.Second / 2)
		}
		got := at(when, dir)
		if got.Status != http.StatusOK || got.Text("event_id") != ids[i] {
			t.Errorf("%d %s: %d %s, want %s", i, dir, got.Status, got.Raw, ids[i])
			continue
		}
		if c := bob.Try("GET", roomstest.Room(room, "/context/%s", ids[i]), nil); c.Status != http.StatusOK {
			t.Errorf("what is around number %d: %d %s", i, c.Status, c.Raw)
		}
	}
	if got := said(b, room); !slices.IsSortedFunc(got, func(x, y string) int {
		var i, k int
		_, _ = fmt.Sscanf(x, "number %d", &i)
		_, _ = fmt.Sscanf(y, "number %d", &k)
		return i - k
	}) {
		t.Errorf("out of order: %q", got)
	}
}
