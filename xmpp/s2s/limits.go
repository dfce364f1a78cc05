package s2s

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what one domain may send. Zero fields get the defaults named with them.
type Limits struct {
	// StanzasPerSecond and StanzaBurst are how fast its stanzas are read: 100 and 1000.
	StanzasPerSecond, StanzaBurst int
	// StrangersPerHour is how many messages it may send to accounts that do not know the sender: 200.
	StrangersPerHour int
	// RequestsPerHour is how many requests for consent it may send: 200.
	RequestsPerHour int
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	set(&l.StanzasPerSecond, 100)
	set(&l.StanzaBurst, 1000)
	set(&l.StrangersPerHour, 200)
	set(&l.RequestsPerHour, 200)
	return l
}

// quota is what one domain has left.
type quota struct {
	stanzas, strangers, requests *rate.Limiter
	used                         time.Time
}

// quotas are those of the domains that were heard of lately.
type quotas struct {
	limits Limits
	mu     sync.Mutex
	m      map[string]*quota
	swept  time.Time
}

// forgetAfter is when a quota that is not used is full again.
const forgetAfter = time.Hour

func (q *quotas) of(domain string) *quota {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.m == nil {
		q.m = map[string]*quota{}
	}
	if now.Sub(q.swept) > forgetAfter {
		q.swept = now
		maps.DeleteFunc(q.m, func(_ string, d *quota) bool { return now.Sub(d.used) > forgetAfter })
	}
	d := q.m[domain]
	if d == nil {
		hourly := func(n int) *rate.Limiter { return rate.NewLimiter(rate.Every(time.Hour/time.Duration(n)), n) }
		d = &quota{
			stanzas:   rate.NewLimiter(rate.Limit(q.limits.StanzasPerSecond), q.limits.StanzaBurst),
			strangers: hourly(q.limits.StrangersPerHour), requests: hourly(q.limits.RequestsPerHour),
		}
		q.m[domain] = d
	}
	d.used = now
	return d
}
