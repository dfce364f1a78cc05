package client

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
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
	buckets map[bucketKey]*rate.Limiter
}

type bucketKey struct {
	class Class
	who   string
}

// maxBuckets is how many buckets there are before full ones are dropped.
const maxBuckets = 10_000

func newLimits(paces map[Class]pace) *limits {
	return &limits{paces: paces, buckets: map[bucketKey]*rate.Limiter{}}
}

// take takes one from who's bucket; if there is none, it says how long until
// there will be.
func (l *limits) take(c Class, who string, now time.Time) (wait time.Duration) {
	b := l.bucket(c, who, now)
	if b == nil {
		return 0
	}
	r := b.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// peek says how long until who's bucket has one, and takes nothing.
func (l *limits) peek(c Class, who string, now time.Time) time.Duration {
	b := l.bucket(c, who, now)
	if b == nil {
		return 0
	}
	if missing := 1 - b.TokensAt(now); missing > 0 {
		return time.Duration(missing * float64(l.paces[c].every))
	}
	return 0
}

func (l *limits) bucket(c Class, who string, now time.Time) *rate.Limiter {
	p, ok := l.paces[c]
	if !ok || p.burst <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := bucketKey{c, who}
	b := l.buckets[k]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		b = rate.NewLimiter(rate.Every(p.every), p.burst)
		l.buckets[k] = b
	}
	return b
}

func (l *limits) sweep(now time.Time) {
	for k, b := range l.buckets {
		if b.TokensAt(now) >= float64(b.Burst()) {
			delete(l.buckets, k)
		}
	}
}
