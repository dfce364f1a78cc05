package joining_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/joining"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// omit takes the members out of what a resident answers to a join.
func omit(r *resident, servers ...string) func(object) {
	return func(o object) {
		var state []any
		for _, e := range r.state {
			if e.Type != wire.TypeMember {
				state = append(state, json.RawMessage(e.JSON))
			}
		}
		o["state"], o["members_omitted"], o["servers_in_room"] = state, true, servers
		o["auth_chain"] = []any{json.RawMessage(r.state[1].JSON)}
	}
}

func members(u *roomstest.User, room string) int {
	u.Server.T.Helper()
	return len(u.Do("GET", roomstest.Room(room, "/joined_members"), nil).Obj("joined"))
}

// whole waits until all members of all rooms are known.
func whole(t testing.TB, s *federationtest.Server) {
	t.Helper()
	federationtest.Eventually(t, "all members are known", func() bool {
		var n int
		err := s.Hub.Read(t.Context(), func(v hub.View) error {
			return hubstore.Querier(v).QueryRow(`SELECT COUNT(*) FROM joining_partial`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
	// What is remembered for readers changes after the commit, in the same turn of the writer.
	if err := s.Hub.Write(t.Context(), func(hub.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// peers are the servers to which what is said in a room goes.
func peers(t testing.TB, s *federationtest.Server, room string) (out []string) {
	t.Helper()
	conv := s.Conv(room)
	err := s.Hub.Read(t.Context(), func(v hub.View) (err error) {
		out, err = s.Sender.Servers(v, conv)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPartial: a large room is entered with few of its members; people talk, and
// the others come later, also from another server and after a restart.
//
// spec: MX 1.19 SS §10
func TestPartial(t *testing.T) {
	w, alice, _ := two(t)
	a := w.Server("a.test")
	const many = 700
	r := newResident(t, w, "big.test", "12", many)
	r.welcome = omit(r, "big.test", "ghost.test", "not a server")
	var open atomic.Bool
	w.Watch(func(dest string, req *http.Request, next federationtest.Next) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/v1/state/") && (!open.Load() || dest == "ghost.test") {
			return federationtest.Answer(404, []byte(`{"errcode":"M_NOT_FOUND","error":"not now"}`)), nil
		}
		return next(req)
	})
	mustEnter(alice, r.room, r.domain)
	if n := members(alice, r.room); n < 1 || n > 3 {
		t.Errorf("%d members", n)
	}
	if got := peers(t, a, r.room); !slices.Equal(got, []string{"big.test", "ghost.test"}) {
		t.Errorf("%v", got)
	}
	alice.Say(r.room, "is anybody here?")
	federationtest.Eventually(t, "the state is asked for", func() bool {
		return slices.ContainsFunc(w.Calls(), func(c string) bool { return strings.Contains(c, "ghost.test /_matrix/federation/v1/state") })
	})
	refused(t, "of a room that is not known whole", enter(w.Server("b.test").LogIn("bob"), r.room, "a.test"), http.StatusNotFound, "M_NOT_FOUND")
	a.Restart()
	alice = a.On(alice)
	said := alice.Say(r.room, "still nobody?")
	open.Store(true)
	whole(t, a)
	if n := members(alice, r.room); n != many+2 {
		t.Errorf("%d members", n)
	}
	if got := peers(t, a, r.room); !slices.Equal(got, []string{"big.test"}) {
		t.Errorf("%v", got)
	}
	if n := len(a.State(r.room)); n != 3+many+2 {
		t.Errorf("%d pieces of state", n)
	}
	hears(t, alice, r.room, said)
	if got := alice.Do("GET", roomstest.Room(r.room, "/state/m.room.member/%s", r.user("u7")), nil); got.Text("displayname") != "Number 7" {
		t.Errorf("%s", got.Raw)
	}
	// Now others can enter by her server.
	w.Watch(nil)
	bob := w.Server("b.test").LogIn("bob")
	mustEnter(bob, r.room, "a.test")
	hears(t, bob, r.room, alice.Say(r.room, "many"))
}

// TestHeldBack: a server that tells all members at once does not hold up others
// who write.
func TestHeldBack(t *testing.T) {
	small := func(s *federationtest.Server) {
		s.World.Tune = func(c *joining.Config) { c.MaxMembers = 100 }
	}
	w, alice, _ := two(t, small)
	const many = 700
	r := newResident(t, w, "big.test", "10", many)
	// One has changed her name: what she was before is no part of the state.
	old := r.state[4]
	r.put(wire.TypeMember, r.user("u0"), r.user("u0"), object{"membership": "join", "displayname": "Renamed"})
	r.welcome = func(o object) { o["auth_chain"] = append(list(r.state), json.RawMessage(old.JSON)) }
	mustEnter(alice, r.room, r.domain)
	whole(t, w.Server("a.test"))
	if n := members(alice, r.room); n != many+2 {
		t.Errorf("%d members", n)
	}
	if r.asks("state") != 0 {
		t.Error("what was there was asked for again")
	}
	if got := alice.Do("GET", roomstest.Room(r.room, "/state/m.room.member/%s", r.user("u0")), nil); got.Text("displayname") != "Renamed" {
		t.Errorf("%s", got.Raw)
	}
}

// TestOmitted is what a server of ours tells of a large room.
//
// spec: MX 1.19 SS §10
func TestOmitted(t *testing.T) {
	small := func(s *federationtest.Server) {
		s.World.Tune = func(c *joining.Config) { c.OmitFrom = 4 }
	}
	w, alice, bob := two(t, small)
	a := w.Server("a.test")
	named := alice.Create(public)
	nameless := alice.Create(object{"preset": "public_chat"})
	for i := range 8 {
		u := a.User(fmt.Sprintf("u%d", i))
		u.Join(named)
		u.Join(nameless)
	}
	var told object
	w.Watch(func(_ string, req *http.Request, next federationtest.Next) (*http.Response, error) {
		resp, err := next(req)
		if err == nil && strings.Contains(req.URL.Path, "/send_join/") {
			body := []byte(read(t, resp))
			told = object{}
			if err := json.Unmarshal(body, &told); err != nil {
				t.Error(err)
			}
			resp = federationtest.Answer(200, body)
		}
		return resp, err
	})
	for room, heroes := range map[string]int{named: 0, nameless: 5} {
		mustEnter(bob, room, "a.test")
		n := 0
		for _, e := range told.List("state") {
			if e["type"] == wire.TypeMember {
				n++
			}
		}
		servers, _ := told.Get("servers_in_room").([]any)
		if n != heroes || told["members_omitted"] != true || len(servers) != 1 || servers[0] != "a.test" {
			t.Errorf("%d members, %v, %v", n, told["members_omitted"], servers)
		}
		// What the join and the state follow from is all there, once.
		seen := map[string]bool{}
		for _, key := range []string{"state", "auth_chain"} {
			for _, raw := range told.Get(key).([]any) {
				b, err := json.Marshal(raw)
				if err != nil {
					t.Fatal(err)
				}
				v, err := wire.VersionOf("12")
				if err != nil {
					t.Fatal(err)
				}
				pdu, err := wire.Parse(v, b)
				if err != nil || seen[pdu.EventID] {
					t.Fatalf("%v: %s", err, b)
				}
				seen[pdu.EventID] = true
			}
		}
	}
}

// TestStartedAgain: while one enters a room, a server of others does not answer. Its members are
// there when it does, and if it never does the room is whole without them.
func TestStartedAgain(t *testing.T) {
	for _, back := range []bool{true, false} {
		t.Run(fmt.Sprintf("back %v", back), func(t *testing.T) {
			silence := &federationtest.Silence{Of: "b.test"}
			w := federationtest.New(t, "a.test", "b.test", "c.test")
			c := w.Server("c.test")
			c.Restart(func() {
				w.Tune = func(cfg *joining.Config) {
					silence.Verifier, cfg.Keys = cfg.Keys, silence
					if back { // else it is done when the machine is slow
						cfg.Patience = time.Hour
					}
				}
			})
			alice, bob, carol := w.Server("a.test").User("alice"), w.Server("b.test").User("bob"), c.User("carol")
			room := alice.Create(public)
			mustEnter(bob, room, "a.test")
			silence.On.Store(true)
			mustEnter(carol, room, "a.test")
			if got := peers(t, c, room); !slices.Equal(got, []string{"a.test", "b.test"}) {
				t.Errorf("%v", got)
			}
			if silence.On.Store(!back); back {
				whole(t, c)
				hears(t, carol, room, bob.Say(room, "back"))
				hears(t, bob, room, carol.Say(room, "there you are"))
				w.Same(room, "a.test", "b.test", "c.test")
				return
			}
			whole(t, c)
			if n := members(carol, room); n != 2 {
				t.Errorf("%d members", n)
			}
		})
	}
}
