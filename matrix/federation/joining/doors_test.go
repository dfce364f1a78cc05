package joining_test

import (
	"net/http"
	"net/url"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/rooms/roomstest"
)

// TestDoors is who gets in where.
//
// spec: MX 1.19 SS §10
// spec: MX 1.19 SS §13
func TestDoors(t *testing.T) {
	w, alice, bob := two(t)
	a := w.Server("a.test")
	carol := w.Server("b.test").User("carol")

	private := alice.Create(object{"preset": "private_chat"})
	refused(t, "without an invitation", enter(bob, private, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	if c := conversation(t, a.Hub, a.Conv(private)); c.Authority != core.Here {
		t.Error("a room was shared with somebody who was not let in")
	}
	room := alice.Create(public)
	mustEnter(bob, room, "a.test")
	alice.Do("POST", roomstest.Room(room, "/ban"), object{"user_id": carol.ID})
	stands(t, w.Server("b.test"), room, carol.ID, "ban")
	refused(t, "banned", enter(carol, room, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	alice.Do("POST", roomstest.Room(room, "/unban"), object{"user_id": carol.ID})
	stands(t, w.Server("b.test"), room, carol.ID, "leave")
	mustEnter(carol, room)
	stands(t, a, room, carol.ID, "join")

	// Who is banned where none of hers is.
	other := alice.Create(public)
	alice.Do("POST", roomstest.Room(other, "/ban"), object{"user_id": carol.ID})
	refused(t, "banned", enter(carol, other, "a.test"), http.StatusForbidden, "M_FORBIDDEN")

	// A room that is for one server alone.
	alone := alice.Create(object{"preset": "public_chat", "creation_content": object{"m.federate": false}})
	refused(t, "m.federate", enter(bob, alone, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	if c := conversation(t, a.Hub, a.Conv(alone)); c.Authority != core.Here {
		t.Error("a room that is not federated was shared")
	}

	// A server that the room keeps out.
	kept := alice.Create(public)
	alice.SetState(kept, "m.room.server_acl", "", object{"allow": []string{"*"}, "deny": []string{"b.*"}})
	refused(t, "kept out", enter(bob, kept, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	refused(t, "kept out", knocks(bob, kept, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
}

func conversation(t testing.TB, h *hub.Hub, id core.ConvID) (c core.Conversation) {
	t.Helper()
	err := h.Read(t.Context(), func(v hub.View) (err error) {
		c, err = v.Conversation(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAlias enters by an alias, of the server that is in the room and of one that
// is not.
func TestAlias(t *testing.T) {
	w, alice, bob := two(t)
	room := alice.Create(object{"preset": "public_chat", "room_alias_name": "garden"})
	mustEnter(bob, "#garden:a.test")
	w.Same(room, "a.test", "b.test")
	refused(t, "no such alias", enter(bob, "#meadow:a.test"), http.StatusNotFound, "M_NOT_FOUND")
	got := bob.Do("GET", "/v3/directory/room/"+url.PathEscape("#garden:a.test"), nil)
	if got.Text("room_id") != room {
		t.Errorf("%s", got.Raw)
	}
	// The hub's own way in, which other networks take.
	carol := w.Server("b.test").Account("carol")
	at := core.Address{Network: core.Matrix, Name: "garden", Domain: "a.test"}
	conv, err := w.Server("b.test").Hub.EnterAt(t.Context(), at, hub.JoinRequest{Who: carol})
	if err != nil || conv != w.Server("b.test").Conv(room) {
		t.Fatalf("%s, %v", conv, err)
	}
	stands(t, w.Server("a.test"), room, "@carol:b.test", "join")
	if found, err := w.Server("b.test").Hub.Look(t.Context(), carol, at); err != nil || found != conv {
		t.Errorf("%s, %v", found, err)
	}
	at.Name = "nothing"
	if _, err := w.Server("b.test").Hub.EnterAt(t.Context(), at, hub.JoinRequest{Who: carol}); hub.CodeOf(err) != hub.NotFound {
		t.Error(err)
	}
}

// TestRestricted: who is in one room may enter another, by who may let her in.
//
// spec: MX 1.19 SS §10.1
func TestRestricted(t *testing.T) {
	w, alice, bob := two(t)
	dave := w.Server("b.test").User("dave")
	club := alice.Create(public)
	allow := func(rooms ...string) object {
		var list []object
		for _, id := range rooms {
			list = append(list, object{"type": "m.room_membership", "room_id": id})
		}
		return object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "restricted", "allow": list}}
	}
	inner := alice.Create(object{"preset": "private_chat", "initial_state": []object{allow(club)}})
	refused(t, "no member", enter(bob, inner, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	mustEnter(bob, club, "a.test")
	mustEnter(bob, inner, "a.test")
	w.Same(inner, "a.test", "b.test")
	stands(t, w.Server("a.test"), inner, bob.ID, "join")
	e, ok := w.Server("a.test").Event(w.Server("a.test").State(inner)["m.room.member|"+bob.ID])
	if !ok {
		t.Fatal("no join")
	}
	if via := roomstest.Object(content(t, e.Content)).Text("join_authorised_via_users_server"); via != alice.ID {
		t.Errorf("bob was let in by %q", via)
	}
	hears(t, bob, inner, alice.Say(inner, "secret"))

	// dave's server is in the room; it cannot let anybody in, alice's can.
	mustEnter(dave, club, "b.test")
	stands(t, w.Server("a.test"), club, dave.ID, "join")
	alice.SetState(inner, "m.room.power_levels", "", object{"invite": 50, "users": object{}})
	w.Same(inner, "a.test", "b.test")
	mustEnter(dave, inner)
	w.Same(inner, "a.test", "b.test")
	stands(t, w.Server("a.test"), inner, dave.ID, "join")

	// A room that names one which a does not know.
	unknown := alice.Create(object{"preset": "private_chat", "initial_state": []object{allow("!elsewhere:c.test")}})
	refused(t, "a room that is not known", enter(bob, unknown, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
}

// TestKnock: one asks to be let in, and is.
//
// spec: MX 1.19 SS §11
func TestKnock(t *testing.T) {
	w, alice, bob := two(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	room := alice.Create(object{"preset": "private_chat", "name": "Cellar", "initial_state": []object{{
		"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"},
	}}})
	if got := knocks(bob, room, "a.test"); got.Status != http.StatusOK || got.Text("room_id") != room {
		t.Fatalf("%d %s", got.Status, got.Raw)
	}
	stands(t, a, room, bob.ID, "knock")
	stands(t, b, room, bob.ID, "knock")
	shown := bob.Sync("", "").List("rooms", "knock", room, "knock_state", "events")
	if name := find(shown, "m.room.name"); name.Text("content", "name") != "Cellar" {
		t.Errorf("%v", shown)
	}
	refused(t, "only a knock", enter(bob, room, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	// It is taken back, and made again.
	bob.Do("POST", roomstest.Room(room, "/leave"), object{})
	stands(t, a, room, bob.ID, "leave")
	stands(t, b, room, bob.ID, "leave")
	if got := knocks(bob, room, "a.test"); got.Status != http.StatusOK {
		t.Fatalf("%d %s", got.Status, got.Raw)
	}
	stands(t, a, room, bob.ID, "knock")
	alice.Do("POST", roomstest.Room(room, "/invite"), object{"user_id": bob.ID})
	stands(t, b, room, bob.ID, "invite")
	mustEnter(bob, room)
	w.Same(room, "a.test", "b.test")

	// A room on whose door nobody knocks.
	open := alice.Create(public)
	refused(t, "no knocking", knocks(bob, open, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
}

// find finds an event by its type.
func find(events []object, typ string) object {
	for _, e := range events {
		if e["type"] == typ {
			return e
		}
	}
	return nil
}
