package serving

import (
	"context"
	"errors"
	"sync"
	"testing"

	"parley/matrix/federation"
)

// Questions of one server come one after another, of several at once, and too
// many are sent away; nothing is left of those that are over.
func TestGate(t *testing.T) {
	g := newGate()
	ctx := context.Background()
	leave, err := g.enter(ctx, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	var mu sync.Mutex
	inside := 0
	over, cancel := context.WithCancel(ctx)
	for range maxWaiting - 1 {
		waiting.Go(func() {
			out, err := g.enter(over, "a.test")
			if err == nil {
				mu.Lock()
				inside++
				mu.Unlock()
				out()
			}
		})
	}
	for {
		g.mu.Lock()
		n := g.own["a.test"].waiting
		g.mu.Unlock()
		if n == maxWaiting {
			break
		}
	}
	_, err = g.enter(ctx, "a.test")
	if e, ok := errors.AsType[*federation.Error](err); !ok || e.Status != 429 || e.RetryAfter == 0 {
		t.Errorf("one too many: %v", err)
	}
	var leaves []func()
	for _, s := range []string{"b.test", "c.test", "d.test"} {
		out, err := g.enter(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, out)
	}
	done, stop := context.WithCancel(ctx)
	stop()
	if _, err := g.enter(done, "e.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("one server more than there may be: %v", err)
	}
	if inside != 0 {
		t.Errorf("%d are inside at once", inside)
	}
	leave()
	waiting.Wait()
	cancel()
	for _, out := range leaves {
		out()
	}
	if inside != maxWaiting-1 || len(g.own) != 0 || len(g.all) != 0 {
		t.Errorf("%d were answered; %d servers and %d places are left", inside, len(g.own), len(g.all))
	}
}
