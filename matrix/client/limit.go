package client

import (
	"sync"
	"time"
)

// Class groups routes that share a rate limit. Where a request is
// authenticated the limit is the account's, else the IP address's.
type Class int

// The classes of limits.
const (
	Reads     Class = iota // what is cheap to answer
	Writes                 // what changes something
	Messages               // what is said in rooms
	Logins                 // guesses at passwords and tokens
	Registers              // new accounts
	Uploads                // media
	Searches               // what is dear to answer
	Unlimited              // what waits instead, such as /sync
)

// pace is how often something may happen, sustained and at once.
type pace struct {
	every time.Duration
	burst int
}

// limits counts, by class and by whom. Nobody's bucket is kept longer than it
// takes to fill up again.
type limits struct {
	paces map[Class]pace

	mu      sync.Mutex
	buckets map[bucketKey]*bucket
}

type bucketKey struct {
	class Class
	who   string
}

// bucket holds so many tokens at a time; it fills up at its class's pace.
type bucket struct {
	tokens float64
	at     time.Time
}

// maxBuckets is how many buckets there are before full ones are dropped.
const maxBuckets = 10_000

func newLimits(paces map[Class]pace) *limits {
	return &limits{paces: paces, buckets: map[bucketKey]*bucket{}}
}

// take takes one from who's bucket; if there is none, it says how long until
// there will be.
func (l *limits) take(c Class, who string, now time.Time) (wait time.Duration) {
	p := l.paces[c]
	if p.burst <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(c, who, now)
	if b.tokens < 1 {
		return time.Duration((1-b.tokens)*float64(p.every)) + time.Millisecond
	}
	b.tokens--
	return 0
}

// giveBack undoes a take: for what counts only when it fails.
func (l *limits) giveBack(c Class, who string, now time.Time) {
	p := l.paces[c]
	if p.burst <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(c, who, now)
	b.tokens = min(b.tokens+1, float64(p.burst))
}

// bucket finds who's bucket, as full as it is now. The caller holds l.mu.
func (l *limits) bucket(c Class, who string, now time.Time) *bucket {
	p, k := l.paces[c], bucketKey{c, who}
	b := l.buckets[k]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		b = &bucket{float64(p.burst), now}
		l.buckets[k] = b
	}
	b.fill(p, now)
	return b
}

func (b *bucket) fill(p pace, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(b.tokens+float64(passed)/float64(p.every), float64(p.burst))
		b.at = now
	}
}

func (l *limits) sweep(now time.Time) {
	for k, b := range l.buckets {
		if b.fill(l.paces[k.class], now); b.tokens >= float64(l.paces[k.class].burst) {
			delete(l.buckets, k)
		}
	}
}

// guess counts an attempt at a secret against all of whom, and runs it. Only
// an attempt that was wrong stays counted, so that many at a time are no way
// around the limit.
func (a *API) guess(whom []string, try func() (wrong bool, err error)) error {
	var taken []string
	back := func() {
		for _, w := range taken {
			a.limits.giveBack(Logins, w, time.Now())
		}
	}
	for _, w := range whom {
		if wait := a.limits.take(Logins, w, time.Now()); wait > 0 {
			back()
			return limited(wait)
		}
		taken = append(taken, w)
	}
	wrong, err := try()
	if !wrong {
		back()
	}
	return err
}
