package federation

import (
	"fmt"
	"sync"
	"time"
)

// Pauses after a server could not be reached: the first, doubled by each
// further failure, up to the longest.
const (
	firstPause = 2 * time.Second
	maxPause   = time.Hour
	// maxFailing is how many servers that cannot be reached are remembered.
	maxFailing = 20_000
)

// BackoffError says that a server is not called, because it could not be
// reached a short while ago.
type BackoffError struct {
	Server string
	Until  time.Time
}

func (e *BackoffError) Error() string {
	return fmt.Sprintf("%s could not be reached, and is not tried before %v", e.Server, e.Until.UTC())
}

// backoff remembers who could not be reached.
type backoff struct {
	now func() time.Time

	mu      sync.Mutex
	failing map[string]failure
}

type failure struct {
	count int
	until time.Time
}

// check returns a [*BackoffError] where a server is to be let alone.
func (b *backoff) check(server string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.failing[server]; ok && b.now().Before(f.until) {
		return &BackoffError{server, f.until}
	}
	return nil
}

// failed notes that a server could not be reached, or asks to be let alone for
// a while. Calls that were under way at the same time count as one.
func (b *backoff) failed(server string, least time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	f, known := b.failing[server]
	if now.Before(f.until) && least == 0 {
		return
	}
	if !known && len(b.failing) >= maxFailing {
		for s, old := range b.failing {
			delete(b.failing, s)
			if now.After(old.until) || len(b.failing) < maxFailing {
				break
			}
		}
	}
	f.until = now.Add(max(min(firstPause<<min(f.count, 20), maxPause), min(least, maxPause)))
	f.count++
	if b.failing == nil {
		b.failing = map[string]failure{}
	}
	b.failing[server] = f
}

// forgive notes that a server is there.
func (b *backoff) forgive(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failing, server)
}
