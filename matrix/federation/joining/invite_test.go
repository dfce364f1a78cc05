package joining_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

func content(t testing.TB, raw []byte) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func invite(u *roomstest.User, room, user string) {
	u.Server.T.Helper()
	u.Do("POST", roomstest.Room(room, "/invite"), object{"user_id": user})
}

// TestInvite: an invitation is shown, and accepted or declined.
//
// spec: MX 1.19 SS §12
// spec: MX 1.19 SS §13
func TestInvite(t *testing.T) {
	w, alice, bob := two(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	for _, version := range []string{"11", "12"} {
		room := alice.Create(object{"preset": "private_chat", "name": "Study", "room_version": version})
		invite(alice, room, bob.ID)
		stands(t, b, room, bob.ID, "invite")
		shown := bob.Sync("", "").List("rooms", "invite", room, "invite_state", "events")
		if find(shown, "m.room.name").Text("content", "name") != "Study" || find(shown, "m.room.create") == nil {
			t.Errorf("%s: %v", version, shown)
		}
		mustEnter(bob, room)
		w.Same(room, "a.test", "b.test")
		hears(t, bob, room, alice.Say(room, "hello"))
		hears(t, alice, room, bob.Say(room, "hello"))
	}
	room := alice.Create(object{"preset": "private_chat"})
	invite(alice, room, bob.ID)
	stands(t, b, room, bob.ID, "invite")
	bob.Do("POST", roomstest.Room(room, "/leave"), object{"reason": "no time"})
	stands(t, b, room, bob.ID, "leave")
	stands(t, a, room, bob.ID, "leave")
	if e, ok := a.Event(a.State(room)["m.room.member|"+bob.ID]); !ok || roomstest.Object(content(t, e.Content)).Text("reason") != "no time" {
		t.Error("the reason did not arrive")
	}
	// Taken back, before she is in it.
	other := alice.Create(object{"preset": "private_chat"})
	invite(alice, other, bob.ID)
	stands(t, b, other, bob.ID, "invite")
	alice.Do("POST", roomstest.Room(other, "/kick"), object{"user_id": bob.ID})
	stands(t, b, other, bob.ID, "leave")
	refused(t, "declined", enter(bob, room, "a.test"), http.StatusForbidden, "M_FORBIDDEN")
	// Invited again, of a room of which there is a past.
	invite(alice, room, bob.ID)
	stands(t, b, room, bob.ID, "invite")
	mustEnter(bob, room)
	w.Same(room, "a.test", "b.test")
}

// TestInviteGone: an invitation can be got rid of when its server is gone.
func TestInviteGone(t *testing.T) {
	w, alice, bob := two(t)
	b := w.Server("b.test")
	room := alice.Create(object{"preset": "private_chat"})
	invite(alice, room, bob.ID)
	stands(t, b, room, bob.ID, "invite")
	w.Cut("a.test", true)
	refused(t, "cut off", enter(bob, room), http.StatusBadGateway, "M_UNKNOWN")
	bob.Do("POST", roomstest.Room(room, "/leave"), object{})
	stands(t, b, room, bob.ID, "leave")
	if got := bob.Sync("", ""); got.Get("rooms", "invite", room) != nil {
		t.Errorf("%s", got.Raw)
	}
}

// reports are what a sender was told about an event.
func reports(t testing.TB, s *federationtest.Server, event string) (list []hub.Report) {
	t.Helper()
	err := s.Hub.Read(t.Context(), func(v hub.View) error {
		id, err := s.Mirror.CoreID(v, event)
		if err != nil {
			return err
		}
		list, err = v.ReportsOn(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestInviteRefused: who does not want to be invited is not, and the inviter is
// told why.
func TestInviteRefused(t *testing.T) {
	w, alice, bob := two(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	carol, dave := b.User("carol"), b.Account("dave")
	by := core.Address{Network: core.Matrix, Name: "alice", Domain: "a.test"}
	if err := b.Hub.Block(t.Context(), bob.Address, by); err != nil {
		t.Fatal(err)
	}
	if err := b.Hub.SetStrangers(t.Context(), carol.Address, core.Refuse); err != nil {
		t.Fatal(err)
	}
	if err := b.Hub.Disable(t.Context(), dave, true); err != nil {
		t.Fatal(err)
	}
	for user, why := range map[string]string{
		bob.ID: "takes no messages from you", carol.ID: "not among her contacts", "@dave:b.test": "no account", "@nobody:b.test": "no account",
	} {
		room := alice.Create(object{"preset": "private_chat"})
		invite(alice, room, user)
		event := a.State(room)["m.room.member|"+user]
		var got []hub.Report
		federationtest.Eventually(t, "a report about "+user, func() bool {
			got = reports(t, a, event)
			return len(got) > 0
		})
		if got[0].Stage != core.StageFailed || !strings.Contains(got[0].Reason, why) {
			t.Errorf("%s: %+v", user, got)
		}
		if st := b.Standing(room, user); st != "none" {
			t.Errorf("%s is %s", user, st)
		}
	}
}

// TestDirect: a direct that is offered from another server is one.
func TestDirect(t *testing.T) {
	w, alice, bob := two(t)
	b := w.Server("b.test")
	room := alice.Create(object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{bob.ID}})
	stands(t, b, room, bob.ID, "invite")
	if c := conversation(t, b.Hub, b.Conv(room)); c.Shape != core.Direct || c.Authority != core.Graph {
		t.Errorf("%+v", c)
	}
	bob.Do("POST", roomstest.Room(room, "/join"), object{})
	w.Same(room, "a.test", "b.test")
	hears(t, alice, room, bob.Say(room, "hello"))
	hears(t, bob, room, alice.Say(room, "hello"))
	for _, side := range [][2]*roomstest.User{{alice, bob}, {bob, alice}} {
		s, other := w.Server(side[0].Address.Domain), side[1].Address
		federationtest.Eventually(t, "contacts, both ways, on "+s.Domain, func() bool {
			list, _, err := s.Hub.Contacts(t.Context(), side[0].Address)
			return err == nil && len(list) == 1 && list[0].Sees && list[0].Seen && !list[0].Asks &&
				list[0].Address == core.Address{Network: core.Matrix, Name: other.Name, Domain: other.Domain}
		})
	}

	// Who takes messages from everybody is in at once.
	carol := b.User("carol")
	if err := b.Hub.SetStrangers(t.Context(), carol.Address, core.Deliver); err != nil {
		t.Fatal(err)
	}
	second := alice.Create(object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{carol.ID}})
	stands(t, w.Server("a.test"), second, carol.ID, "join")
	hears(t, carol, second, alice.Say(second, "hello"))
}

// TestInviteInside: an invitation to a server that is in the room already.
func TestInviteInside(t *testing.T) {
	w, alice, bob := two(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	carol := b.User("carol")
	room := alice.Create(object{"preset": "private_chat"})
	invite(alice, room, bob.ID)
	stands(t, b, room, bob.ID, "invite")
	mustEnter(bob, room)
	invite(alice, room, carol.ID)
	stands(t, b, room, carol.ID, "invite")
	carol.Do("POST", roomstest.Room(room, "/leave"), object{})
	stands(t, a, room, carol.ID, "leave")
	invite(bob, room, carol.ID)
	stands(t, b, room, carol.ID, "invite")
	carol.Join(room)
	stands(t, a, room, carol.ID, "join")
	w.Same(room, "a.test", "b.test")
}
