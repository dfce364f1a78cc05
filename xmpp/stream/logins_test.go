package stream_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/xdg-go/scram"

	"parley/xmpp/stream"
)

// logins lets n fail under each name.
type logins struct {
	n  int
	mu sync.Mutex
	m  map[string]int
}

func (l *logins) Exhausted(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m[name] >= l.n
}

func (l *logins) Failed(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m[name]++
}

// Failed logins are counted for the account by every mechanism, and none is tried when there were too many. What is no guess is not
// counted, and the loopback address, where proxies are, never.
func TestLoginsAreHeld(t *testing.T) {
	l := &logins{n: 2, m: map[string]int{}}
	s := clients(t, func(s *stream.Clients) { s.Logins = l })
	addr := listen(t, s.Serve)
	p, _ := secured(t, addr)
	fails := func(want string, el interface{ String() string }) {
		t.Helper()
		if !strings.Contains(el.String(), "<"+want) {
			t.Errorf("%s, want %s", el, want)
		}
	}
	fails("malformed-request", p.auth("PLAIN", "nonsense"))
	// slixmpp 1.8 names a channel binding that TLS 1.3 does not have, and then says that we offered none: it guesses nothing.
	fails("not-authorized", p.auth("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=alice,r=nonce"))
	fails("not-authorized", p.auth("SCRAM-SHA-256", "y,,n=alice,r=nonce"))
	fails("not-authorized", p.auth("PLAIN", "\x00alice\x00a guess"))
	fails("not-authorized", p.scram("SCRAM-SHA-256", "alice", "another", scram.ChannelBinding{}))
	if len(l.m) != 1 || l.m["alice@example.org"] != 2 {
		t.Errorf("counted are %v", l.m)
	}
	p, _ = secured(t, addr)
	fails("temporary-auth-failure", p.auth("PLAIN", "\x00alice\x00secret"))
	fails("temporary-auth-failure", p.scram("SCRAM-SHA-1", "alice", "another", scram.ChannelBinding{}))
}
