package rooms_test

import (
	"net/url"
	"strings"
	"testing"

	"parley/matrix/rooms/roomstest"
)

// hostile is a request that is refused with a status; 0 is any of 400 to 499.
type hostile struct {
	method, path string
	body         any
	status       int
}

func refuse(t *testing.T, u *roomstest.User, all []hostile) {
	t.Helper()
	for _, c := range all {
		a := u.Try(c.method, c.path, c.body)
		if a.Status != c.status && (c.status != 0 || a.Status < 400 || a.Status > 499) || a.Code() == "" {
			body, _ := c.body.(string)
			t.Errorf("%s %.120s %.80v: %d %.300s, want %d", c.method, c.path, body, a.Status, a.Raw, c.status)
		}
	}
	if u.Create(object{}) == "" {
		t.Error("the server is not what it was")
	}
}

// What is malformed, forged or too much is refused in Matrix's own terms, and
// the server stays up.
func TestHostile(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "private_chat"})
	bobs := bob.Create(object{"preset": "private_chat"})
	foreign := bob.Say(bobs, "not yours")
	long := strings.Repeat("x", 300)
	here := func(path string) string { return roomstest.Room(room, "") + path }
	v1 := func(path string) string { return "/v1/rooms/" + url.PathEscape(room) + path }
	refuse(t, alice, []hostile{
		{"POST", "/v3/join/" + url.PathEscape("#x"), nil, 400},
		{"POST", "/v3/join/x", nil, 0},
		{"POST", here("/invite"), object{}, 400},
		{"POST", here("/invite"), object{"user_id": "@a\u0000:example.org"}, 400},
		{"POST", here("/invite"), object{"user_id": "@" + long + ":example.org"}, 400},
		{"POST", here("/kick"), object{"user_id": alice.ID}, 403},
		{"PUT", here("/send/m.room.message/1"), `{"a":1.5}`, 400},
		{"PUT", here("/send/m.room.message/1"), `{"a":` + strings.Repeat("9", 40) + `}`, 400},
		{"PUT", here("/send/m.room.message/1"), "\xff", 400},
		{"PUT", here("/send/m.room.message/1"), `{"msgtype":"m.text","body":"` + strings.Repeat("x", 65_000) + `"}`, 413},
		{"PUT", here("/send/m.room.message/1"), `{"body":"` + strings.Repeat("x", 2<<20) + `"}`, 413},
		{"PUT", here("/send/" + long + "/1"), object{}, 0},
		{"PUT", here("/send/m.room.redaction/1"), object{}, 404},
		{"PUT", here("/send/m.reaction/1"), object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": foreign, "key": "x"}}, 0},
		{"PUT", roomstest.Room(room, "/redact/%s/2", foreign), object{}, 404},
		{"PUT", here("/state/m.room.power_levels"), object{"users": object{"x": 1}}, 400},
		{"PUT", here("/state/m.room.member/" + url.PathEscape(bob.ID)), object{"membership": "join"}, 403},
		{"PUT", here("/state/m.room.member/" + url.PathEscape(alice.ID)), object{"membership": "what"}, 400},
		{"PUT", here("/state/x/" + long), object{}, 0},
		{"GET", here("/event/" + url.PathEscape(foreign)), nil, 404},
		{"GET", here("/event/" + url.PathEscape("$a\x00b")), nil, 0},
		{"GET", here("/context/" + url.PathEscape(foreign)), nil, 404},
		{"GET", here("/messages?dir=x"), nil, 400},
		{"GET", here("/messages?dir=b&limit=x"), nil, 400},
		{"GET", here("/messages?dir=b&filter=%7B"), nil, 400},
		{"GET", here("/messages?dir=b&filter=%5B%5D"), nil, 400},
		{"GET", here("/members?at=x"), nil, 400},
		{"GET", roomstest.Room(bobs, "/messages?dir=b"), nil, 403},
		{"GET", roomstest.Room(bobs, "/state"), nil, 403},
		{"GET", roomstest.Room(bobs, "/members"), nil, 403},
		{"GET", roomstest.Room(bobs, "/joined_members"), nil, 403},
		{"GET", v1("/relations/" + url.PathEscape(foreign)), nil, 404},
		{"GET", v1("/hierarchy?from=x"), nil, 400},
		{"GET", v1("/threads?from=x"), nil, 400},
		{"GET", v1("/timestamp_to_event?dir=b&ts=x"), nil, 400},
		{"GET", v1("/timestamp_to_event?dir=b&ts=0"), nil, 404},
		{"GET", "/v3/publicRooms?since=-1", nil, 400},
		{"GET", "/v3/publicRooms?server=elsewhere.example", nil, 404},
		{"GET", "/v1/room_summary/" + url.PathEscape(bobs), nil, 404},
		{"POST", here("/receipt/m.what/x"), nil, 400},
		{"POST", here("/upgrade"), object{"new_version": "1"}, 400},
		{"POST", roomstest.Room(bobs, "/upgrade"), object{"new_version": "12"}, 403},
		{"PUT", "/v3/directory/room/" + url.PathEscape("#x:elsewhere.example"), object{"room_id": room}, 400},
		{"PUT", "/v3/directory/room/" + url.PathEscape("#x:example.org"), object{"room_id": bobs}, 403},
		{"GET", "/v3/sync?filter=%7B%22room%22%3A5%7D", nil, 400},
		{"GET", "/v3/sync?filter=77", nil, 404},
		{"GET", "/v3/sync?timeout=x", nil, 400},
		{"GET", "/v3/sync?set_presence=x", nil, 400},
	})
}

func TestHostileCreations(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	long := strings.Repeat("x", 300)
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	state := func(typ, key string) object {
		return object{"initial_state": []object{{"type": typ, "state_key": key, "content": object{}}}}
	}
	refuse(t, alice, []hostile{
		{"POST", "/v3/createRoom", `{"preset":`, 400},
		{"POST", "/v3/createRoom", `[]`, 400},
		{"POST", "/v3/createRoom", deep, 400},
		{"POST", "/v3/createRoom", object{"preset": "none"}, 400},
		{"POST", "/v3/createRoom", object{"visibility": 5}, 400},
		{"POST", "/v3/createRoom", object{"room_version": "org.example.1"}, 400},
		{"POST", "/v3/createRoom", object{"invite": []string{"bob"}}, 400},
		{"POST", "/v3/createRoom", object{"invite": []string{"@nobody:example.org"}}, 404},
		{"POST", "/v3/createRoom", object{"invite_3pid": []object{{}}}, 403},
		{"POST", "/v3/createRoom", object{"room_alias_name": "A b#:"}, 400},
		{"POST", "/v3/createRoom", object{"creation_content": object{"additional_creators": "x"}}, 400},
		{"POST", "/v3/createRoom", object{"power_level_content_override": object{"users": object{alice.ID: 100}}}, 400},
		{"POST", "/v3/createRoom", object{"power_level_content_override": object{"ban": "many"}}, 400},
		{"POST", "/v3/createRoom", state("", ""), 400},
		{"POST", "/v3/createRoom", state(long, ""), 0},
		{"POST", "/v3/createRoom", state("a", long), 0},
		{"POST", "/v3/createRoom", state("m.room.create", ""), 0},
		{"POST", "/v3/createRoom", state("m.room.member", "x"), 0},
		{"POST", "/v3/createRoom", state("m.room.member", bob.ID), 0},
		{"POST", "/v3/createRoom", `{"name":"` + strings.Repeat("x", 70_000) + `"}`, 413},
	})
}
