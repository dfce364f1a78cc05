package directory_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/federation/directory"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/store/storetest"
)

// TestAliases: an alias of one server is found by the other's clients.
//
// spec: MX 1.19 SS §20
func TestAliases(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.a.User("alice"), w.b.User("bob")
	room := alice.Create(object{"preset": "public_chat", "room_alias_name": "garden"})
	look := func(u *roomstest.User, alias string) roomstest.Answer {
		return u.Try("GET", "/v3/directory/room/"+url.PathEscape(alias), nil)
	}
	for range 2 {
		got := look(bob, "#garden:a.test")
		if servers, _ := got.Get("servers").([]any); got.Text("room_id") != room || len(servers) != 1 || servers[0] != "a.test" {
			t.Fatalf("%d %s", got.Status, got.Raw)
		}
	}
	if calls := w.questions(); len(calls) != 1 {
		t.Errorf("%q", calls)
	}
	if got := look(bob, "#nothing:a.test"); got.Status != 404 {
		t.Errorf("%d %s", got.Status, got.Raw)
	}
	w.evil(map[string]string{
		"/query/directory?room_alias=%23bad%3Aevil.test":  `{"room_id":"../x","servers":[]}`,
		"/query/directory?room_alias=%23type%3Aevil.test": `{"room_id":"!x:evil.test","servers":"evil.test"}`,
		"/query/directory?room_alias=%23odd%3Aevil.test":  `{"room_id":"!x:evil.test","servers":["a b","-/","c.test","c.test"]}`,
	})
	for alias, status := range map[string]int{"#bad:evil.test": 502, "#type:evil.test": 502, "#no:evil.test": 404, "#x:silent.test": 502} {
		if got := look(bob, alias); got.Status != status {
			t.Errorf("%s: %d %s", alias, got.Status, got.Raw)
		}
	}
	if got := look(bob, "#odd:evil.test"); !strings.Contains(string(got.Raw), `"servers":["c.test","evil.test"]`) {
		t.Errorf("%s", got.Raw)
	}
	// A server that was away is asked again soon.
	alice.Create(object{"preset": "public_chat", "room_alias_name": "shed"})
	w.Cut("a.test", true)
	if got := look(bob, "#shed:a.test"); got.Status != 502 {
		t.Errorf("cut off: %d %s", got.Status, got.Raw)
	}
	w.Cut("a.test", false)
	federationtest.Eventually(t, "an alias of a server that is back", func() bool { return look(bob, "#shed:a.test").Status == 200 })
	w.questions()
	if got := look(&roomstest.User{Server: bob.Server}, "#garden:a.test"); got.Status != 404 || len(w.questions()) != 0 {
		t.Errorf("one who has not logged in: %d %s", got.Status, got.Raw)
	}
	for path, want := range map[string]int{
		"?room_alias=%23garden:b.test": 404, "?room_alias=garden": 400, "": 400, "?room_alias=%23_xmpp_x=40c.test:a.test": 404, "?room_alias=%23Garden:a.test": 404,
	} {
		if _, err := w.ask(t, "/query/directory"+path); status(err) != want && status(err) != 400 {
			t.Errorf("%s: %v, want %d", path, err, want)
		}
	}
}

// TestPublicRooms: one server's directory is read by the other's clients, in
// pages and with a filter.
//
// spec: MX 1.19 SS §15
func TestPublicRooms(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.a.User("alice"), w.b.User("bob")
	for _, name := range []string{"Garden", "Kitchen", "Attic"} {
		alice.Create(object{"preset": "public_chat", "visibility": "public", "name": name})
	}
	alice.Create(object{"preset": "public_chat", "name": "Cellar"}) // is not listed
	var names []string
	for next := ""; ; {
		got := bob.Do("GET", "/v3/publicRooms?limit=2&server=a.test&since="+url.QueryEscape(next), nil)
		for _, r := range got.List("chunk") {
			names = append(names, r.Text("name"))
		}
		if got.Get("total_room_count_estimate") != 3.0 {
			t.Errorf("%s", got.Raw)
		}
		if next = got.Text("next_batch"); next == "" {
			break
		}
	}
	if slices.Sort(names); strings.Join(names, " ") != "Attic Garden Kitchen" {
		t.Errorf("%q", names)
	}
	got := bob.Do("POST", "/v3/publicRooms?server=a.test", object{"filter": object{"generic_search_term": "kitch"}})
	if list := got.List("chunk"); len(list) != 1 || list[0].Text("name") != "Kitchen" {
		t.Errorf("%s", got.Raw)
	}
	w.questions()
	if got := (&roomstest.User{Server: bob.Server}).Try("GET", "/v3/publicRooms?server=a.test", nil); got.Status != 404 || len(w.questions()) != 0 {
		t.Errorf("one who has not logged in: %d %s", got.Status, got.Raw)
	}
	for path, want := range map[string]int{"?limit=x": 400, "?since=x": 400, "?since=-1": 400, "?limit=0": 200, "?limit=99999999": 200} {
		if _, err := w.ask(t, "/publicRooms"+path); status(err) != want {
			t.Errorf("%s: %v, want %d", path, err, want)
		}
	}
	if got, err := w.ask(t, "/publicRooms?third_party_instance_id=irc"); err != nil || len(got.List("chunk")) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestHostileDirectory reads the directories of servers that lie.
func TestHostileDirectory(t *testing.T) {
	w := newWorld(t)
	bob := w.b.User("bob")
	body := `{"chunk":[{"room_id":"!good:evil.test","name":"Good","num_joined_members":2,"world_readable":false,"guest_can_join":false,` +
		`"avatar_url":"javascript:x","canonical_alias":"x","membership":"join"},` +
		`{"room_id":"no"},{"room_id":7},"x",null,{"room_id":"!b:evil.test","num_joined_members":-1},{"room_id":"!c:evil.test","name":{}}],"total_room_count_estimate":1e300}`
	answers := map[string]string{"/publicRooms": body}
	w.evil(answers)
	got := bob.Do("GET", "/v3/publicRooms?server=evil.test", nil)
	list := got.List("chunk")
	if len(list) != 1 || list[0].Text("name") != "Good" || list[0].Text("join_rule") != "public" || list[0].Get("avatar_url") != nil ||
		list[0].Get("canonical_alias") != nil || list[0].Get("membership") != nil {
		t.Errorf("%s", got.Raw)
	}
	room := `{"room_id":"!good:evil.test","num_joined_members":1},`
	for name, body := range map[string]string{
		"type": `{"chunk":"x"}`, "list": `[]`, "token": `{"chunk":[],"next_batch":"` + strings.Repeat("x", 2000) + `"}`, "huge": `{"x":"` + strings.Repeat("x", 3<<20) + `"}`,
	} {
		answers["/publicRooms"] = body
		if got := bob.Try("GET", "/v3/publicRooms?server=evil.test", nil); got.Status != 502 {
			t.Errorf("%s: %d %.200s", name, got.Status, got.Raw)
		}
	}
	answers["/publicRooms"] = `{"chunk":[` + strings.Repeat(room, 1000) + `null]}`
	if got := bob.Do("GET", "/v3/publicRooms?server=evil.test&limit=10", nil); len(got.List("chunk")) != 10 {
		t.Errorf("%d rooms where 10 were asked for", len(got.List("chunk")))
	}
	for _, server := range []string{"a%20b", "evil.test%2F..", "silent.test", "%00"} {
		if got := bob.Try("GET", "/v3/publicRooms?server="+server, nil); got.Status != 400 && got.Status != 502 {
			t.Errorf("%s: %d %s", server, got.Status, got.Raw)
		}
	}
}

func hierarchy(t *testing.T, u *roomstest.User, room, query string) []string {
	t.Helper()
	var names []string
	for next, pages := "", 0; pages < 20; pages++ {
		got := u.Do("GET", "/v1/rooms/"+url.PathEscape(room)+"/hierarchy?from="+url.QueryEscape(next)+"&"+query, nil)
		for _, r := range got.List("rooms") {
			names = append(names, r.Text("name"))
			if _, ok := r.Get("children_state").([]any); !ok {
				t.Errorf("no list of children: %v", r)
			}
		}
		if next = got.Text("next_batch"); next == "" {
			break
		}
	}
	return names
}

// TestSpaces: a space of one server that is in a space of the other is seen by
// that one's clients, with those of its rooms that they could join.
//
// spec: MX 1.19 SS §16
// spec: MX 1.19 CS §10.38.2
func TestSpaces(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.a.User("alice"), w.b.User("bob")
	space := func(u *roomstest.User, name string) string {
		return u.Create(object{"preset": "public_chat", "name": name, "creation_content": object{"type": "m.space"}})
	}
	put := func(u *roomstest.User, in, room, via, order string, suggested bool) {
		u.SetState(in, "m.space.child", room, object{"via": []string{via}, "order": order, "suggested": suggested})
	}
	top, below := space(bob, "Top"), space(alice, "Below")
	public, private := alice.Create(object{"preset": "public_chat", "name": "Public"}), alice.Create(object{"preset": "private_chat", "name": "Private"})
	deep := space(alice, "Deep")
	bottom := alice.Create(object{"preset": "public_chat", "name": "Bottom"})
	put(bob, top, below, "a.test", "a", true)
	put(bob, top, bob.Create(object{"preset": "public_chat", "name": "Here"}), "b.test", "b", false)
	put(bob, top, "!nowhere:silent.test", "silent.test", "c", false)
	put(alice, below, public, "a.test", "a", false)
	put(alice, below, private, "a.test", "b", true)
	put(alice, below, deep, "a.test", "c", true)
	put(alice, deep, bottom, "a.test", "a", true)
	for query, want := range map[string]string{
		"":                    "Top Below Public Deep Bottom Here",
		"limit=2":             "Top Below Public Deep Bottom Here",
		"max_depth=1":         "Top Below Here",
		"suggested_only=true": "Top Below Deep Bottom",
	} {
		if got := strings.Join(hierarchy(t, bob, top, query), " "); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	w.questions()
	hierarchy(t, bob, top, "")
	if calls := w.questions(); len(calls) != 0 {
		t.Errorf("asked again: %q", calls)
	}
	if got := bob.Do("GET", "/v1/room_summary/"+url.PathEscape(below)+"?via=a.test", nil); got.Text("name") != "Below" || got.Text("membership") != "leave" {
		t.Errorf("%s", got.Raw)
	}
	if got := bob.Try("GET", "/v1/room_summary/"+url.PathEscape(private)+"?via=a.test", nil); got.Status != 404 {
		t.Errorf("%d %s", got.Status, got.Raw)
	}
	// What a tells b.
	got, err := w.ask(t, "/hierarchy/"+url.PathEscape(below))
	if err != nil || got.Text("room", "name") != "Below" || len(got.List("room", "children_state")) != 3 || len(got.List("children")) != 2 ||
		fmt.Sprint(got.Get("inaccessible_children")) != "["+private+"]" {
		t.Errorf("%v, %v", got, err)
	}
	for path, want := range map[string]int{
		"/hierarchy/" + url.PathEscape(private): 404, "/hierarchy/" + url.PathEscape(below) + "?suggested_only=x": 400, "/hierarchy/x": 404,
		"/hierarchy/" + url.PathEscape("!none:a.test"): 404,
	} {
		if _, err := w.ask(t, path); status(err) != want {
			t.Errorf("%s: %v, want %d", path, err, want)
		}
	}
}

// A room from which everybody here has gone is asked about anew.
func TestAbandonedRooms(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.a.User("alice"), w.b.User("bob")
	room := alice.Create(object{"preset": "public_chat", "name": "Old"})
	top := bob.Create(object{"preset": "public_chat", "name": "Top", "creation_content": object{"type": "m.space"}})
	bob.SetState(top, "m.space.child", room, object{"via": []string{"a.test"}})
	bob.Do("POST", "/v3/join/"+url.PathEscape(room)+"?via=a.test", object{})
	if got := strings.Join(hierarchy(t, bob, top, ""), " "); got != "Top Old" {
		t.Fatalf("%q", got)
	}
	bob.Do("POST", roomstest.Room(room, "/leave"), object{})
	federationtest.Eventually(t, "a hears that bob has left", func() bool { return w.a.Standing(room, bob.ID) == core.Left })
	alice.SetState(room, "m.room.name", "", object{"name": "New"})
	w.questions()
	if got := strings.Join(hierarchy(t, bob, top, ""), " "); got != "Top New" {
		t.Errorf("%q, having asked %q", got, w.questions())
	}
	w.Cut("a.test", true)
	if got := strings.Join(hierarchy(t, bob, top, "suggested_only=false"), " "); got != "Top New" { // is remembered
		t.Errorf("%q", got)
	}
}

// A room that keeps a server out by its ACL is not there for it.
func TestServersKeptOut(t *testing.T) {
	w := newWorld(t)
	room := w.a.User("alice").Create(object{"preset": "public_chat"})
	for allows, want := range map[bool]int{true: 200, false: 404} {
		d := directory.New(directory.Config{
			Hub: w.a.Hub, Mirror: w.a.Mirror, API: w.a.Clients, Rooms: w.a.Rooms, Client: w.a.Client, Servers: w.a.Sender.Servers,
			Allows: func(_ hub.View, _ core.ConvID, server string) (bool, error) { return allows || server != "b.test", nil },
			Log:    storetest.Log(t),
		})
		defer d.Close()
		i := slices.IndexFunc(d.Routes(), func(r federation.Route) bool { return strings.HasSuffix(r.Path, "/hierarchy/{roomId}") })
		r := httptest.NewRequest("GET", "/", nil)
		r.SetPathValue("roomId", room)
		if _, err := d.Routes()[i].Handler(&federation.Request{HTTP: r, Origin: "b.test"}); status(err) != want {
			t.Errorf("%v, want %d", err, want)
		}
	}
}

// Rooms on other networks are shown to accounts here, and never offered to other
// servers as ours.
func TestRoomsElsewhereAreNotOffered(t *testing.T) {
	w := newWorld(t)
	room := core.Address{Network: core.XMPP, Name: "garden", Domain: "rooms.c.test"}
	c, err := w.a.Hub.Project(t.Context(), room, []hub.Draft{
		{Content: core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinPublic}},
		{Content: core.Change{Aspect: core.AspectVisibility, Visibility: core.VisibleWorld}},
	}, func(tx hub.Tx, c core.Conversation) error { return tx.SetPublic(c.ID, true) })
	if err != nil {
		t.Fatal(err)
	}
	if c.Native[core.Matrix] == "" {
		t.Fatal("the room is no Matrix room to anybody")
	}
	if _, err := w.ask(t, "/hierarchy/"+url.PathEscape(c.Native[core.Matrix])); status(err) != 404 {
		t.Error(err)
	}
	if got, err := w.ask(t, "/publicRooms"); err != nil || len(got.List("chunk")) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestHostileSpaces: what other servers tell of rooms is held to what was asked,
// and how many are asked is bounded.
func TestHostileSpaces(t *testing.T) {
	w := newWorld(t)
	bob, carol := w.b.User("bob"), w.b.User("carol")
	club := bob.Create(object{"preset": "private_chat"})
	top := bob.Create(object{"preset": "public_chat", "name": "Top", "creation_content": object{"type": "m.space"}})
	childAt := func(id, server string) object {
		return object{"type": "m.space.child", "state_key": id, "sender": "@x:evil.test", "origin_server_ts": 1, "content": object{"via": []string{server}}}
	}
	child := func(id string) object { return childAt(id, "evil.test") }
	room := func(id, name string, more object) object {
		out := object{"room_id": id, "name": name, "num_joined_members": 1, "world_readable": false, "guest_can_join": false, "children_state": []any{}}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	answers := map[string]string{}
	answer := func(id string, v any) {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		answers["/hierarchy/"+id] = string(raw)
		bob.SetState(top, "m.space.child", id, object{"via": []string{"evil.test"}, "order": fmt.Sprint(len(answers))})
	}
	w.evil(answers)
	answer("!other:evil.test", object{"room": room("!another:evil.test", "Another", nil)})
	answer("!invite:evil.test", object{"room": room("!invite:evil.test", "Invite", object{"join_rule": "invite"})})
	answer("!club:evil.test", object{"room": room("!club:evil.test", "Club", object{"join_rule": "restricted", "allowed_room_ids": []string{club}})})
	answer("!types:evil.test", object{"room": room("!types:evil.test", "Types", object{"num_joined_members": "many"})})
	answer("!circle:evil.test", object{
		"room":                  room("!circle:evil.test", "Circle", object{"room_type": "m.space", "children_state": []any{child("!circle:evil.test"), child(club), 7, child("!named:evil.test")}}),
		"children":              []any{room(club, "Forged", nil), room("!unnamed:evil.test", "Unnamed", nil), room("!named:evil.test", "Named", nil), 7, room("!circle:evil.test", "Again", nil)},
		"inaccessible_children": []string{"!whatever:evil.test"},
	})
	// One space does not say what another's rooms are.
	answer("!second:evil.test", object{
		"room": room("!second:evil.test", "Second", object{"room_type": "m.space", "children_state": []any{childAt("!unnamed:evil.test", "silent.test")}}),
	})
	seen := strings.Fields(strings.Join(hierarchy(t, bob, top, ""), " ")) // the private club has no name
	if slices.Sort(seen); strings.Join(seen, " ") != "Circle Club Named Second Top" {
		t.Errorf("bob sees %q", seen)
	}
	if got := strings.Join(hierarchy(t, carol, top, ""), " "); got != "Top Circle Named Second" {
		t.Errorf("carol sees %q", got)
	}
	// A tree without an end.
	deep := bob.Create(object{"preset": "public_chat", "name": "Deep", "creation_content": object{"type": "m.space"}})
	for i := range 300 {
		id := fmt.Sprintf("!%d:evil.test", i)
		var kids []any
		for j := range 10 {
			kids = append(kids, child(fmt.Sprintf("!%d:evil.test", i*10+j+1)))
		}
		raw, _ := json.Marshal(object{"room": room(id, id, object{"room_type": "m.space", "children_state": kids})})
		answers["/hierarchy/"+id] = string(raw)
	}
	bob.SetState(deep, "m.space.child", "!0:evil.test", object{"via": []string{"evil.test"}})
	w.questions()
	got := bob.Do("GET", "/v1/rooms/"+url.PathEscape(deep)+"/hierarchy", nil)
	if n := len(got.List("rooms")); n == 0 || n > 50 {
		t.Errorf("%d rooms", n)
	}
	if calls := w.questions(); len(calls) == 0 || len(calls) > 40 {
		t.Errorf("%d questions for one", len(calls))
	}
}

// TestOpenID: any service may ask whose a token is.
//
// spec: MX 1.19 SS §21
func TestOpenID(t *testing.T) {
	w := newWorld(t)
	alice := w.a.User("alice")
	token := alice.Do("POST", "/v3/user/"+url.PathEscape(alice.ID)+"/openid/request_token", object{}).Text("access_token")
	for token, want := range map[string]int{token: 200, "x": 401, "": 401, alice.Token: 401} {
		raw, err := w.b.Client.Do(t.Context(), federation.Call{
			Destination: "a.test", Method: "GET", URI: "/_matrix/federation/v1/openid/userinfo?access_token=" + url.QueryEscape(token), Insist: true,
		})
		if status(err) != want || want == 200 && string(raw) != `{"sub":"@alice:a.test"}` {
			t.Errorf("%.4s: %s, %v, want %d", token, raw, err, want)
		}
	}
}
