package sync_test

import (
	"testing"

	"parley/matrix/rooms/roomstest"
)

// BenchmarkSync is an account that is in many rooms: from the beginning, when
// nothing happened, and when something was said in one of them.
func BenchmarkSync(b *testing.B) {
	const many = 200
	s := roomstest.New(b)
	alice, bob := s.User("alice"), s.User("bob")
	var room string
	for range many {
		room = alice.Create(object{"preset": "public_chat"})
		bob.Join(room)
		alice.Say(room, "hello")
	}
	b.Run("initial", func(b *testing.B) {
		for b.Loop() {
			bob.Sync("", "")
		}
	})
	token := bob.Sync("", "").Text("next_batch")
	b.Run("idle", func(b *testing.B) {
		for b.Loop() {
			bob.Sync(token, "")
		}
	})
	alice.Say(room, "news")
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			bob.Sync(token, "")
		}
	})
}
