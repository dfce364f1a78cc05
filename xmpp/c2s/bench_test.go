package c2s_test

import (
	"fmt"
	"testing"

	"parley/xmpp/xmpptest"
)

// BenchmarkMessage is one message from a client to another's, on disk and in both archives.
func BenchmarkMessage(b *testing.B) {
	s := xmpptest.New(b)
	s.Run(friends, nil)
	alice, bob := s.Connect("alice", ""), s.Connect("bob", "")
	bob.SendRaw("<presence/>")
	bob.Sync()
	b.ResetTimer()
	for i := range b.N {
		alice.SendRaw(fmt.Sprintf("<message to='bob@example.org' type='chat' id='benchmark-%d'><body>hello %d</body></message>", i, i))
	}
	bob.Receive(find("id", fmt.Sprintf("benchmark-%d", b.N-1)))
}
