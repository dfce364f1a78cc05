package federation

import (
	"sync"
	"time"
)

// pace holds everybody to so many requests a second, ten seconds' worth at once.
type pace struct {
	perSecond, burst float64

	mu      sync.Mutex
	buckets map[string]*bucket
}

// bucket holds what somebody may still do, as of a moment.
type bucket struct {
	left float64
	at   time.Time
}

// maxBuckets is how many are kept before full ones are dropped.
const maxBuckets = 20_000

func newPace(perSecond float64) *pace {
	return &pace{perSecond: perSecond, burst: 10 * perSecond, buckets: map[string]*bucket{}}
}

// take counts one request; if there may be none, it says how long to wait.
func (p *pace) take(who string, now time.Time) (wait time.Duration) { return p.takeN(who, 1, now) }

// takeN counts n at once.
func (p *pace) takeN(who string, n float64, now time.Time) (wait time.Duration) {
	if p.perSecond <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[who]
	if b == nil {
		if len(p.buckets) >= maxBuckets {
			p.sweep(now)
		}
		b = &bucket{p.burst, now}
		p.buckets[who] = b
	}
	p.fill(b, now)
	if b.left < n {
		return time.Duration((n-b.left)/p.perSecond*float64(time.Second)) + time.Millisecond
	}
	b.left -= n
	return 0
}

func (p *pace) fill(b *bucket, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(b.left+passed.Seconds()*p.perSecond, p.burst)
		b.at = now
	}
}

func (p *pace) sweep(now time.Time) {
	for who, b := range p.buckets {
		if p.fill(b, now); b.left >= p.burst {
			delete(p.buckets, who)
		}
	}
}
