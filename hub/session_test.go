package hub

import (
	"context"
	"errors"
	"testing"
	"time"

	"parley/core"
)

func attach(t *testing.T, r *registry, spec SessionSpec) *Session {
	t.Helper()
	h := &Hub{sessions: r}
	s, err := h.Attach(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A session that does not read never holds up who tells it, and learns that it
// is behind, from where on, and what came after.
func TestSlowSessionIsBehind(t *testing.T) {
	r := newRegistry(10)
	alice := core.LocalAddress("alice", "example.org")
	s := attach(t, r, SessionSpec{Account: alice, Bound: 4})
	tell := func(feed core.Feed) { r.tell(DataNews{Datum: Datum{Account: alice, Feed: feed}}, alice) }
	tell(1)
	if n, ok := s.TryNext(); !ok || FeedOf(n) != 1 {
		t.Fatalf("first news: %v", n)
	}
	for f := core.Feed(2); f <= 10; f++ {
		tell(f)
	}
	n, _ := s.TryNext()
	b, ok := n.(BehindNews)
	if !ok || b.Feed != 1 {
		t.Fatalf("after the overflow came %#v", n)
	}
	last := core.Feed(0)
	for n, ok := s.TryNext(); ok; n, ok = s.TryNext() {
		if FeedOf(n) <= last {
			t.Errorf("%d after %d", FeedOf(n), last)
		}
		last = FeedOf(n)
	}
	if last != 10 {
		t.Errorf("the newest news is %d", last)
	}
}

func TestSessionsEnd(t *testing.T) {
	r := newRegistry(2)
	alice := core.LocalAddress("alice", "example.org")
	first := attach(t, r, SessionSpec{Account: alice, Protocol: core.XMPP, ID: "phone"})
	again := attach(t, r, SessionSpec{Account: alice, Protocol: core.XMPP, ID: "phone"})
	if !first.Closed() || again.Closed() {
		t.Error("the newer session of a name does not take the place of the older")
	}
	attach(t, r, SessionSpec{Account: alice, Protocol: core.Matrix, ID: "phone"})
	h := &Hub{sessions: r}
	if _, err := h.Attach(SessionSpec{Account: alice, ID: "third"}); CodeOf(err) != TooMany {
		t.Errorf("the bound on sessions: %v", err)
	}
	r.closeAll()
	if _, err := again.Next(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed session says %v", err)
	}
	if _, err := h.Attach(SessionSpec{Account: alice}); !errors.Is(err, ErrClosed) {
		t.Errorf("attaching after the end: %v", err)
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	const most = 30 * time.Minute
	for n := range 100 {
		if d := backoff(n, most); d < firstBackoff/2 || d > most*5/4 {
			t.Errorf("attempt %d waits %v", n, d)
		}
	}
	if backoff(8, most) <= backoff(0, most) {
		t.Error("it does not grow")
	}
}
