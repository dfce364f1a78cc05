package joining_test

import (
	"net/http"
	"testing"

	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

// TestJoinPublic: one enters a room of another server, both hear each other, she
// leaves and comes back.
//
// spec: MX 1.19 SS §10
func TestJoinPublic(t *testing.T) {
	w, alice, bob := two(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	room := alice.Create(public)
	alice.Say(room, "before")
	mustEnter(bob, room, "a.test")
	stands(t, a, room, bob.ID, "join")
	w.Same(room, "a.test", "b.test")
	if a.State(room)["m.room.member|"+bob.ID] == "" {
		t.Error("the join is no state")
	}
	hears(t, bob, room, alice.Say(room, "welcome"))
	hears(t, alice, room, bob.Say(room, "thank you"))
	hears(t, bob, room, alice.SetState(room, "m.room.topic", "", object{"topic": "weeds"}))
	w.Same(room, "a.test", "b.test")

	bob.Do("POST", roomstest.Room(room, "/leave"), object{})
	stands(t, a, room, bob.ID, "leave")
	alice.Say(room, "gone")
	alice.SetState(room, "m.room.name", "", object{"name": "Meadow"})
	mustEnter(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	hears(t, bob, room, alice.Say(room, "again"))
	hears(t, alice, room, bob.Say(room, "here I am"))
	if b.Standing(room, alice.ID) != "join" {
		t.Error("alice is not in the room as bob sees it")
	}
	if got := bob.Do("GET", roomstest.Room(room, "/state/m.room.name"), nil); got.Text("name") != "Meadow" {
		t.Errorf("%s", got.Raw)
	}
}

// TestJoinVersions enters rooms of all versions.
func TestJoinVersions(t *testing.T) {
	w, alice, bob := two(t)
	for _, version := range []string{"11", "12"} {
		room := alice.Create(object{"preset": "public_chat", "room_version": version})
		mustEnter(bob, room, "a.test")
		w.Same(room, "a.test", "b.test")
		hears(t, alice, room, bob.Say(room, version))
	}
	if a := enter(bob, "!nothing:a.test"); a.Status != http.StatusNotFound {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	w.Cut("a.test", true)
	refused(t, "a server that is gone", enter(bob, "!nothing:a.test"), http.StatusBadGateway, "M_UNKNOWN")
	federationtest.Eventually(t, "calls", func() bool { return len(w.Calls()) > 0 })
}
