package rooms_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"testing"

	"parley/matrix/rooms/roomstest"
)

type object = roomstest.Object

// types are the event types of a list.
func types(events []object) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Text("type"))
	}
	return out
}

func list(t *testing.T, a roomstest.Answer) (out []object) {
	t.Helper()
	if err := json.Unmarshal(a.Raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// spec: MX 1.19 CS §8.2
func TestCreateOrder(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{
		"preset": "public_chat", "room_alias_name": "garden", "name": "The garden", "topic": "Flowers",
		"invite": []string{bob.ID}, "power_level_content_override": object{"events_default": 10},
		"initial_state": []object{{"type": "org.example.colour", "content": object{"is": "green"}}},
	})
	got := alice.Do("GET", roomstest.Room(room, "/messages?dir=f&limit=50"), nil)
	want := []string{
		"m.room.create", "m.room.member", "m.room.power_levels", "m.room.canonical_alias", "m.room.join_rules",
		"m.room.history_visibility", "m.room.guest_access", "org.example.colour", "m.room.name", "m.room.topic", "m.room.member",
	}
	if have := types(got.List("chunk")); !slices.Equal(have, want) {
		t.Errorf("the log is\n%q, want\n%q", have, want)
	}
	levels := alice.Do("GET", roomstest.Room(room, "/state/m.room.power_levels"), nil)
	if levels.Get("events_default") != 10.0 {
		t.Errorf("levels %s", levels.Raw)
	}
	if r := alice.Do("GET", "/v3/directory/room/"+url.PathEscape("#garden:example.org"), nil); r.Text("room_id") != room {
		t.Errorf("the alias leads to %s", r.Raw)
	}
	if r := alice.Try("POST", "/v3/createRoom", object{"room_alias_name": "garden"}); r.Code() != "M_ROOM_IN_USE" {
		t.Errorf("a second garden: %s", r.Raw)
	}
}

func TestMembership(t *testing.T) {
	s := roomstest.New(t)
	alice, bob, carol := s.User("alice"), s.User("bob"), s.User("carol")
	room := alice.Create(object{"preset": "private_chat"})
	if r := bob.Try("POST", roomstest.Room(room, "/join"), object{}); r.Status != 403 || r.Code() != "M_FORBIDDEN" {
		t.Errorf("joining uninvited: %d %s", r.Status, r.Raw)
	}
	alice.Invite(room, bob)
	bob.Join(room)
	bob.Join(room)
	if got := bob.Do("GET", "/v3/joined_rooms", nil); len(got.Get("joined_rooms").([]any)) != 1 {
		t.Errorf("joined rooms: %s", got.Raw)
	}
	if got := bob.Do("GET", roomstest.Room(room, "/joined_members"), nil); len(got.Obj("joined")) != 2 {
		t.Errorf("joined members: %s", got.Raw)
	}
	alice.Do("POST", roomstest.Room(room, "/kick"), object{"user_id": bob.ID, "reason": "noise"})
	if r := bob.Try("PUT", roomstest.Room(room, "/send/m.room.message/1"), object{"msgtype": "m.text", "body": "x"}); r.Status != 403 {
		t.Errorf("speaking when kicked: %s", r.Raw)
	}
	if r := alice.Try("POST", roomstest.Room(room, "/kick"), object{"user_id": bob.ID}); r.Status != 403 {
		t.Errorf("kicking one who is not there: %s", r.Raw)
	}
	alice.Do("POST", roomstest.Room(room, "/ban"), object{"user_id": bob.ID})
	if r := alice.Try("POST", roomstest.Room(room, "/invite"), object{"user_id": bob.ID}); r.Status != 403 {
		t.Errorf("inviting the banned: %s", r.Raw)
	}
	alice.Do("POST", roomstest.Room(room, "/unban"), object{"user_id": bob.ID})
	alice.Invite(room, bob)
	bob.Do("POST", roomstest.Room(room, "/leave"), nil)
	bob.Do("POST", roomstest.Room(room, "/leave"), nil)
	if r := carol.Try("GET", roomstest.Room(room, "/state"), nil); r.Status != 403 {
		t.Errorf("a stranger reads the state: %s", r.Raw)
	}
	if r := carol.Try("POST", roomstest.Room("!nowhere:example.org", "/join"), object{}); r.Status != 404 {
		t.Errorf("joining nothing: %d %s", r.Status, r.Raw)
	}
	bob.Do("POST", roomstest.Room(room, "/forget"), object{})
	if r := alice.Try("POST", roomstest.Room(room, "/forget"), object{}); r.Status != 400 {
		t.Errorf("forgetting where one is: %s", r.Raw)
	}
}

func TestKnock(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
	if got := bob.Do("POST", "/v3/knock/"+url.PathEscape(room), object{"reason": "please"}); got.Text("room_id") != room {
		t.Errorf("knock: %s", got.Raw)
	}
	got := alice.Do("GET", roomstest.Room(room, "/members?membership=knock"), nil)
	if l := got.List("chunk"); len(l) != 1 || l[0].Text("content", "reason") != "please" {
		t.Errorf("members: %s", got.Raw)
	}
	alice.Invite(room, bob)
	bob.Join(room)
}

func TestSendState(t *testing.T) {
	s := roomstest.New(t)
	alice := s.User("alice")
	room := alice.Create(object{})
	path := roomstest.Room(room, "/send/m.room.message/once")
	hello := object{"msgtype": "m.text", "body": "hello", "org.example.x": object{"y": []any{1.0, "z"}}}
	first := alice.Do("PUT", path, hello).Text("event_id")
	if again := alice.Do("PUT", path, hello).Text("event_id"); again != first {
		t.Errorf("the same transaction made %s and %s", first, again)
	}
	e := alice.Do("GET", roomstest.Room(room, "/event/%s", first), nil)
	if e.Text("content", "body") != "hello" || e.Get("content", "org.example.x", "y") == nil ||
		e.Text("unsigned", "transaction_id") != "once" || e.Text("room_id") != room || e.Text("sender") != alice.ID {
		t.Errorf("the event is %s", e.Raw)
	}
	one := alice.SetState(room, "org.example.thing", "a b/c", object{"n": 1})
	if same := alice.SetState(room, "org.example.thing", "a b/c", object{"n": 1}); same != one {
		t.Errorf("the same state made %s and %s", one, same)
	}
	if two := alice.SetState(room, "org.example.thing", "a b/c", object{"n": 2}); two == one {
		t.Error("another state made no event")
	}
	if got := alice.Do("GET", roomstest.Room(room, "/state/org.example.thing/%s", "a b/c"), nil); got.Get("n") != 2.0 {
		t.Errorf("state: %s", got.Raw)
	}
	if got := alice.Try("GET", roomstest.Room(room, "/state/org.example.other"), nil); got.Status != 404 {
		t.Errorf("state that is not there: %s", got.Raw)
	}
	if r := alice.Try("PUT", roomstest.Room(room, "/state/m.room.canonical_alias"), object{"alias": "#no:example.org"}); r.Code() != "M_BAD_ALIAS" {
		t.Errorf("an alias that leads nowhere: %s", r.Raw)
	}
	if r := alice.Try("PUT", roomstest.Room(room, "/state/m.room.create"), object{}); r.Status < 400 {
		t.Errorf("a second creation: %s", r.Raw)
	}
	all := list(t, alice.Do("GET", roomstest.Room(room, "/state"), nil))
	if len(all) < 6 || all[0].Text("type") != "m.room.create" {
		t.Errorf("state: %q", types(all))
	}
}

func TestRelationsAndRedaction(t *testing.T) {
	s := roomstest.New(t)
	alice := s.User("alice")
	room := alice.Create(object{})
	root := alice.Say(room, "root")
	relate := func(rel, target string, more object) object {
		c := object{"m.relates_to": object{"rel_type": rel, "event_id": target}, "msgtype": "m.text", "body": "x"}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	thumb := object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": root, "key": "👍"}}
	reaction := alice.Send(room, "m.reaction", thumb)
	if r := alice.Try("PUT", roomstest.Room(room, "/send/m.reaction/again"), thumb); r.Code() != "M_DUPLICATE_ANNOTATION" {
		t.Errorf("the same reaction: %d %s", r.Status, r.Raw)
	}
	edit := alice.Send(room, "m.room.message", relate("m.replace", root, object{"m.new_content": object{"msgtype": "m.text", "body": "new"}}))
	inThread := alice.Send(room, "m.room.message", relate("m.thread", root, nil))
	deep := alice.Send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": inThread, "key": "a"}})
	ids := func(path string) (out []string) {
		got := alice.Do("GET", "/v1/rooms/"+url.PathEscape(room)+path, nil)
		for _, e := range got.List("chunk") {
			out = append(out, e.Text("event_id"))
		}
		return out
	}
	rel := "/relations/" + url.PathEscape(root)
	for path, want := range map[string][]string{
		rel:                               {inThread, edit, reaction},
		rel + "?dir=f":                    {reaction, edit, inThread},
		rel + "/m.thread":                 {inThread},
		rel + "/m.annotation/m.reaction":  {reaction},
		rel + "?recurse=true":             {deep, inThread, edit, reaction},
		rel + "/m.annotation/m.room.name": nil,
		"/threads":                        {root},
	} {
		if have := ids(path); !slices.Equal(have, want) {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
	page := alice.Do("GET", "/v1/rooms/"+url.PathEscape(room)+rel+"?limit=2", nil)
	if have := ids(rel + "?limit=2&from=" + page.Text("next_batch")); !slices.Equal(have, []string{reaction}) {
		t.Errorf("the second page is %q", have)
	}
	e := alice.Do("GET", roomstest.Room(room, "/event/%s", root), nil)
	if e.Obj("unsigned", "m.relations", "m.replace") == nil || e.Get("unsigned", "m.relations", "m.thread", "count") != 1.0 {
		t.Errorf("aggregations: %s", e.Raw)
	}
	alice.Do("PUT", roomstest.Room(room, "/redact/%s/r1", root), object{"reason": "oops"})
	e = alice.Do("GET", roomstest.Room(room, "/event/%s", root), nil)
	if len(e.Obj("content")) != 0 || e.Obj("unsigned", "redacted_because") == nil {
		t.Errorf("redacted: %s", e.Raw)
	}
	if r := alice.Try("PUT", roomstest.Room(room, "/redact/$nothing/r2"), object{}); r.Status != 404 {
		t.Errorf("redacting nothing: %s", r.Raw)
	}
}

func TestHistoryPages(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	var said []string
	for range 23 {
		said = append(said, alice.Say(room, "x"))
	}
	walk := func(u *roomstest.User, dir, filter string) (out []string) {
		from := ""
		for range 100 {
			got := u.Do("GET", roomstest.Room(room, "/messages?limit=7&dir=%s&from=%s", dir, from)+"&filter="+url.QueryEscape(filter), nil)
			for _, e := range got.List("chunk") {
				out = append(out, e.Text("event_id"))
			}
			if from = got.Text("end"); from == "" {
				return out
			}
		}
		t.Fatal("the pages have no end")
		return nil
	}
	messages := `{"types":["m.room.mess*"]}`
	if have := walk(alice, "f", messages); !slices.Equal(have, said) {
		t.Errorf("forwards: %d events", len(have))
	}
	back := walk(alice, "b", messages)
	slices.Reverse(back)
	if !slices.Equal(back, said) {
		t.Errorf("backwards: %d events", len(back))
	}
	at := alice.Do("GET", "/v1/rooms/"+url.PathEscape(room)+"/timestamp_to_event?dir=f&ts=0", nil)
	if first := alice.Do("GET", roomstest.Room(room, "/event/%s", at.Text("event_id")), nil); first.Text("type") != "m.room.create" {
		t.Errorf("the first event is %s", first.Raw)
	}
	bob.Join(room)
	if have := walk(bob, "f", messages); !slices.Equal(have, said) {
		t.Errorf("a newcomer sees %d", len(have))
	}
	alice.SetState(room, "m.room.history_visibility", "", object{"history_visibility": "joined"})
	if have := walk(bob, "f", messages); len(have) != 0 {
		t.Errorf("a newcomer sees %d of what was before her", len(have))
	}
	around := alice.Do("GET", roomstest.Room(room, "/context/%s?limit=4", said[10]), nil)
	if around.Text("event", "event_id") != said[10] || around.List("events_before")[0].Text("event_id") != said[9] ||
		around.List("events_after")[1].Text("event_id") != said[12] {
		t.Errorf("context: %s", around.Raw)
	}
	next := alice.Do("GET", roomstest.Room(room, "/messages?dir=f&limit=1&from=%s", around.Text("end")), nil)
	if next.List("chunk")[0].Text("event_id") != said[13] {
		t.Errorf("after the context: %s", next.Raw)
	}
	if r := alice.Try("GET", roomstest.Room(room, "/messages?dir=b&from=nonsense"), nil); r.Code() != "M_INVALID_PARAM" {
		t.Errorf("nonsense for a token: %s", r.Raw)
	}
}

func TestDirectory(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat", "visibility": "public", "name": "Garden of Eden", "topic": "apples"})
	alice.Create(object{"preset": "public_chat", "name": "Hidden"})
	got := bob.Do("POST", "/v3/publicRooms", object{"filter": object{"generic_search_term": "EDEN"}})
	if l := got.List("chunk"); len(l) != 1 || l[0].Text("room_id") != room || l[0].Get("num_joined_members") != 1.0 {
		t.Errorf("search: %s", got.Raw)
	}
	if got := bob.Do("POST", "/v3/publicRooms", object{"filter": object{"generic_search_term": "pears"}}); len(got.List("chunk")) != 0 {
		t.Errorf("search: %s", got.Raw)
	}
	alias := "/v3/directory/room/" + url.PathEscape("#paradise:example.org")
	if r := bob.Try("PUT", alias, object{"room_id": room}); r.Status != 403 {
		t.Errorf("an alias by one who is not there: %s", r.Raw)
	}
	alice.Do("PUT", alias, object{"room_id": room})
	if r := alice.Try("PUT", alias, object{"room_id": room}); r.Status != 409 {
		t.Errorf("the same alias: %s", r.Raw)
	}
	alice.SetState(room, "m.room.canonical_alias", "", object{"alias": "#paradise:example.org"})
	if got := bob.Do("POST", "/v3/join/"+url.PathEscape("#paradise:example.org"), object{}); got.Text("room_id") != room {
		t.Errorf("joining by alias: %s", got.Raw)
	}
	if got := alice.Do("GET", roomstest.Room(room, "/aliases"), nil); len(got.Get("aliases").([]any)) != 1 {
		t.Errorf("aliases: %s", got.Raw)
	}
	if r := bob.Try("DELETE", alias, nil); r.Status != 403 {
		t.Errorf("deleting without the right: %s", r.Raw)
	}
	alice.Do("DELETE", alias, nil)
	if r := bob.Try("GET", alias, nil); r.Status != 404 {
		t.Errorf("a deleted alias: %s", r.Raw)
	}
	list := "/v3/directory/list/room/" + url.PathEscape(room)
	alice.Do("PUT", list, object{"visibility": "private"})
	if got := bob.Do("GET", list, nil); got.Text("visibility") != "private" {
		t.Errorf("visibility: %s", got.Raw)
	}
	if got := bob.Do("GET", "/v1/room_summary/"+url.PathEscape(room), nil); got.Text("name") != "Garden of Eden" || got.Text("membership") != "join" {
		t.Errorf("summary: %s", got.Raw)
	}
}

func TestUpgrade(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	old := alice.Create(object{"room_version": "11", "name": "Old", "preset": "public_chat"})
	bob.Join(old)
	if r := bob.Try("POST", roomstest.Room(old, "/upgrade"), object{"new_version": "12"}); r.Status != 403 {
		t.Errorf("an upgrade by anybody: %s", r.Raw)
	}
	next := alice.Do("POST", roomstest.Room(old, "/upgrade"), object{"new_version": "12"}).Text("replacement_room")
	tomb := alice.Do("GET", roomstest.Room(old, "/state/m.room.tombstone"), nil)
	if tomb.Text("replacement_room") != next {
		t.Errorf("tombstone: %s", tomb.Raw)
	}
	create := alice.Do("GET", roomstest.Room(next, "/state/m.room.create"), nil)
	if create.Text("room_version") != "12" || create.Text("predecessor", "room_id") != old {
		t.Errorf("creation: %s", create.Raw)
	}
	if name := alice.Do("GET", roomstest.Room(next, "/state/m.room.name"), nil); name.Text("name") != "Old" {
		t.Errorf("name: %s", name.Raw)
	}
	bob.Join(next)
	if r := bob.Try("PUT", roomstest.Room(old, "/send/m.room.message/1"), object{"msgtype": "m.text", "body": "x"}); r.Status != 403 {
		t.Errorf("speaking in the old room: %s", r.Raw)
	}
}

func TestHierarchy(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	space := alice.Create(object{"preset": "public_chat", "name": "Space", "creation_content": object{"type": "m.space"}})
	open := alice.Create(object{"preset": "public_chat", "name": "Open"})
	closed := alice.Create(object{"name": "Closed"})
	for _, r := range []string{open, closed} {
		alice.SetState(space, "m.space.child", r, object{"via": []string{"example.org"}})
	}
	names := func(u *roomstest.User) (out []string) {
		got := u.Do("GET", "/v1/rooms/"+url.PathEscape(space)+"/hierarchy", nil)
		for _, r := range got.List("rooms") {
			out = append(out, r.Text("name"))
		}
		slices.Sort(out)
		return out
	}
	if have := names(alice); !slices.Equal(have, []string{"Closed", "Open", "Space"}) {
		t.Errorf("alice sees %q", have)
	}
	if have := names(bob); !slices.Equal(have, []string{"Open", "Space"}) {
		t.Errorf("bob sees %q", have)
	}
}
