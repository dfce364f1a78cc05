package joining_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/joining"
	"parley/matrix/wire"
)

// TestAllVersions: alice enters rooms of all versions, made elsewhere, and bob
// follows her, by her server.
func TestAllVersions(t *testing.T) {
	w, alice, bob := two(t)
	for i, version := range wire.Versions() {
		r := newResident(t, w, fmt.Sprintf("r%d.test", i), version, 3)
		mustEnter(alice, r.room, r.domain)
		if len(r.joins) != 1 || r.joins[0].Sender != alice.ID {
			t.Fatalf("version %s: %v", version, r.joins)
		}
		mustEnter(bob, r.room, "a.test")
		w.Same(r.room, "a.test", "b.test")
		hears(t, bob, r.room, alice.Say(r.room, "hello"))
		hears(t, alice, r.room, bob.Say(r.room, "hello"))
		if n := len(w.Server("b.test").State(r.room)); n != 4+3+2 {
			t.Errorf("version %s: %d pieces of state", version, n)
		}
	}
}

// TestLiars are servers that answer with what they must not. Nothing of it is
// signed, or kept, and the next server is asked.
//
// spec: MX 1.19 SS §10
func TestLiars(t *testing.T) {
	small := func(s *federationtest.Server) {
		s.World.Tune = func(c *joining.Config) { c.MaxEvents, c.MaxAnswer = 200, 1<<20 }
	}
	w, alice, _ := two(t, small)
	event := func(o object) object { return o["event"].(object) }
	for i, c := range []struct {
		name              string
		template, welcome func(r *resident) func(object)
		signed            bool // a join
	}{
		{name: "another room", template: func(*resident) func(object) {
			return func(o object) { event(o)["room_id"] = "!other:a.test" }
		}},
		{name: "another sender", template: func(*resident) func(object) { return func(o object) { event(o)["sender"] = "@eve:a.test" } }},
		{name: "another person", template: func(*resident) func(object) { return func(o object) { event(o)["state_key"] = "@eve:a.test" } }},
		{name: "another type", template: func(*resident) func(object) { return func(o object) { event(o)["type"] = "m.room.message" } }},
		{name: "another membership", template: func(*resident) func(object) {
			return func(o object) { event(o)["content"] = object{"membership": "leave"} }
		}},
		{name: "an unknown version", template: func(*resident) func(object) { return func(o object) { o["room_version"] = "5" } }},
		{name: "no version", template: func(*resident) func(object) { return func(o object) { delete(o, "room_version") } }},
		{name: "comes after nothing", template: func(*resident) func(object) { return func(o object) { event(o)["prev_events"] = []string{} } }},
		{name: "comes after a story", template: func(*resident) func(object) {
			return func(o object) { event(o)["prev_events"] = []string{strings.Repeat("x", 50000)} }
		}},
		{name: "cites too much", template: func(r *resident) func(object) {
			return func(o object) {
				var many []string
				for i := range 11 {
					many = append(many, fmt.Sprintf("$%043d", i))
				}
				event(o)["auth_events"] = many
			}
		}},
		{name: "no depth", template: func(*resident) func(object) { return func(o object) { event(o)["depth"] = "deep" } }},
		{name: "no event", template: func(*resident) func(object) { return func(o object) { o["event"] = []int{1} } }},
		{name: "let in by somebody of another server", template: func(*resident) func(object) {
			return func(o object) { event(o)["content"].(object)["join_authorised_via_users_server"] = "@bob:b.test" }
		}},
		{name: "let in without a signature", signed: true, template: func(r *resident) func(object) {
			return func(o object) {
				event(o)["content"].(object)["join_authorised_via_users_server"] = r.user("owner")
			}
		}},
		{name: "another join", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) { o["event"] = json.RawMessage(r.state[1].JSON) }
		}},
		{name: "no create event", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) { o["state"], o["auth_chain"] = list(r.state[1:]), list(r.state[1:]) }
		}},
		{name: "no auth events of the join", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) { o["state"], o["auth_chain"] = list(r.state[:2]), []any{} }
		}},
		{name: "no state", signed: true, welcome: func(*resident) func(object) { return func(o object) { delete(o, "state") } }},
		{name: "state that is none", signed: true, welcome: func(*resident) func(object) {
			return func(o object) { o["state"] = object{"a": []int{1}} }
		}},
		{name: "an endless list", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) {
				many := make([]any, 0, 1000)
				for range 1000 {
					many = append(many, json.RawMessage(r.state[0].JSON))
				}
				o["auth_chain"] = many
			}
		}},
		{name: "an endless answer", signed: true, welcome: func(*resident) func(object) {
			return func(o object) { o["waste"] = strings.Repeat("x", 2<<20) }
		}},
		{name: "two of one thing", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) {
				other := r.build(wire.TypeJoinRules, "", r.user("owner"), object{"join_rule": "invite"})
				o["state"] = append(list(r.state), json.RawMessage(other.JSON))
			}
		}},
		{name: "levels that nobody signed", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) {
				_, thief := federationtest.NewKey(t)
				forged := r.build(wire.TypePowerLevels, "", r.user("owner"), object{"users": object{r.user("u0"): 100}})
				bare, err := wire.Build(r.version, forged.Proto)
				if err != nil {
					t.Fatal(err)
				}
				raw, err := bare.Sign(wire.Signer{Server: r.domain, Key: thief})
				if err != nil {
					t.Fatal(err)
				}
				state := list(r.state)
				state[2] = json.RawMessage(raw)
				o["state"], o["auth_chain"] = state, append(list(r.state[:2]), state...)
			}
		}},
		{name: "the create event of another version", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) {
				other := newResident(t, w, "x"+r.domain, "11", 0)
				o["state"] = append(list(r.state[1:]), json.RawMessage(other.state[0].JSON))
			}
		}},
		{name: "who joins is banned", signed: true, welcome: func(r *resident) func(object) {
			return func(o object) {
				ban := r.build(wire.TypeMember, alice.ID, r.user("owner"), object{"membership": "ban"})
				o["state"] = append(list(r.state), json.RawMessage(ban.JSON))
			}
		}},
	} {
		for _, version := range []string{"10", "12"} {
			r := newResident(t, w, fmt.Sprintf("liar%d-%s.test", i, version), version, 1)
			if c.template != nil {
				r.template = c.template(r)
			}
			if c.welcome != nil {
				r.welcome = c.welcome(r)
			}
			got := enter(alice, r.room, r.domain)
			if got.Status == http.StatusOK {
				t.Errorf("%s, version %s: entered", c.name, version)
			}
			if st := w.Server("a.test").Standing(r.room, alice.ID); st != "none" {
				t.Errorf("%s, version %s: %s", c.name, version, st)
			}
			if signed := r.asks("send_join") > 0; signed != c.signed {
				t.Errorf("%s, version %s: signed is %v", c.name, version, signed)
			}
			if left := r.asks("make_leave") > 0; left != c.signed {
				t.Errorf("%s, version %s: taken back is %v", c.name, version, left)
			}
			// The same server, having thought better of it.
			r.template, r.welcome = nil, nil
			mustEnter(alice, r.room, r.domain)
		}
	}
}

// TestDrops: events that cannot be checked are left out, and what cites them; one
// with a wrong hash is redacted.
//
// spec: MX 1.19 SS §5.1
func TestDrops(t *testing.T) {
	w, alice, _ := two(t)
	r := newResident(t, w, "r.test", "10", 3)
	_, thief := federationtest.NewKey(t)
	r.welcome = func(o object) {
		state := list(r.state)
		bare, err := wire.Build(r.version, r.build("m.room.topic", "", r.user("owner"), object{"topic": "forged"}).Proto)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := bare.Sign(wire.Signer{Server: r.domain, Key: thief})
		if err != nil {
			t.Fatal(err)
		}
		named := strings.Replace(string(r.state[4].JSON), "Number 0", "Number X", 1)
		state[4] = json.RawMessage(named)
		o["state"] = append(state, json.RawMessage(raw), json.RawMessage(`{"type":"m.room.name"}`), json.RawMessage(`7`))
		o["auth_chain"] = list(r.state[:4])
	}
	mustEnter(alice, r.room, r.domain)
	state := w.Server("a.test").State(r.room)
	if state["m.room.topic|"] != "" || len(state) != 4+3+1 {
		t.Errorf("%v", state)
	}
	e, ok := w.Server("a.test").Event(state["m.room.member|"+r.user("u0")])
	if !ok || strings.Contains(string(e.Content), "Number") || !strings.Contains(string(e.Content), "join") {
		t.Errorf("%s", e.Content)
	}
	if got := alice.Do("GET", "/v3/rooms/"+r.room+"/joined_members", nil); len(got.Obj("joined")) != 5 {
		t.Errorf("%s", got.Raw)
	}
}

// TestTries: one server after the other is asked, and the best of their excuses
// told.
func TestTries(t *testing.T) {
	w, alice, _ := two(t)
	for i, c := range []struct {
		answers []string // errcodes of servers
		status  int
		code    string
		says    string
	}{
		{[]string{"M_NOT_FOUND", "ok"}, 200, "", ""},
		{[]string{"M_NOT_FOUND", "M_FORBIDDEN", "M_UNABLE_TO_GRANT_JOIN"}, 403, "M_FORBIDDEN", "as the test says"},
		{[]string{"M_NOT_FOUND", "M_UNABLE_TO_AUTHORISE_JOIN"}, 403, "M_FORBIDDEN", "cannot see whether"},
		{[]string{"M_NOT_FOUND", "M_UNKNOWN"}, 404, "M_NOT_FOUND", "no such room"},
		{[]string{"M_UNKNOWN"}, 503, "M_UNKNOWN", "cannot do that"},
		{[]string{"M_FORBIDDEN", "M_INCOMPATIBLE_ROOM_VERSION", "ok"}, 200, "", ""},
	} {
		var via []string
		var room *resident
		for k, answer := range c.answers {
			r := newResident(t, w, fmt.Sprintf("t%d-%d.test", i, k), "11", 0)
			if room != nil { // all of them know the same room
				name := r.domain
				r = room
				w.Impostor(name, deaf(name, answer, room))
				via = append(via, name)
				continue
			}
			room = r
			if answer != "ok" {
				room.joinable = func() (int, string) { return 400, answer }
			}
			via = append(via, r.domain)
		}
		got := enter(alice, room.room, via...)
		if got.Status != c.status || got.Code() != c.code || !strings.Contains(got.Text("error"), c.says) {
			t.Errorf("%v: %d %s", c.answers, got.Status, got.Raw)
		}
	}
}

// deaf is another server that knows a room: it lets in, or refuses.
func deaf(name, answer string, r *resident) http.Handler {
	inner := r.handler()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "make_join") && answer != "ok" {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"errcode":%q,"error":"as the test\nsays by %s"}`, answer, name)
			return
		}
		if strings.Contains(req.URL.Path, "make_join") {
			was := r.joinable
			r.joinable = nil
			defer func() { r.joinable = was }()
		}
		inner.ServeHTTP(w, req)
	})
}
