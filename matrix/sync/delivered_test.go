package sync_test

import (
	"testing"

	"parley/hub"
	"parley/matrix/rooms/roomstest"
)

// A message counts as delivered when a device of the other comes back with the
// token of the answer that held it, and its sender alone is told.
func TestDelivered(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{bob.ID}})
	bob.Join(room)
	sent := alice.Say(room, "hello")
	hers := alice.Sync("", "").Text("next_batch")
	held := bob.Sync("", "").Text("next_batch")
	delivered := func() bool {
		var n int
		err := s.Hub.Read(t.Context(), func(v hub.View) error {
			conv, err := v.Directs(alice.Address, bob.Address)
			if err != nil {
				return err
			}
			all, err := v.Readings(conv[0], alice.Address, 0)
			n = len(all)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	if delivered() {
		t.Error("delivered before the device confirmed it")
	}
	his := bob.Sync(held, "").Text("next_batch")
	if !delivered() {
		t.Fatal("not delivered when the device came back")
	}
	got := alice.Sync(hers, "timeout=10000")
	e := find(got.List("rooms", "join", room, "ephemeral", "events"), "com.beeper.message_send_status")
	if e.Text("content", "m.relates_to", "event_id") != sent || e.Text("content", "status") != "SUCCESS" {
		t.Errorf("the sender hears %s", got.Raw)
	}
	if got := bob.Sync(his, ""); got.Get("rooms") != nil {
		t.Errorf("the reader hears %s", got.Raw)
	}
}
