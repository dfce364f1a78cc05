package directory

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/core"
)

// How many people an account may have asked about, in a second and at once, and
// how many accounts are counted.
const (
	asksPerSecond = 1
	asksAtOnce    = 30
	maxPaced      = 10_000
)

// pace counts what accounts have other servers asked.
type pace struct {
	mu sync.Mutex
	m  map[core.Address]*rate.Limiter
}

func (p *pace) allow(account core.Address, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.m[account]
	if l == nil {
		for who, old := range p.m {
			if len(p.m) < maxPaced {
				break
			}
			if old.TokensAt(now) >= asksAtOnce || len(p.m) > 2*maxPaced {
				delete(p.m, who)
			}
		}
		if p.m == nil {
			p.m = map[core.Address]*rate.Limiter{}
		}
		l = rate.NewLimiter(asksPerSecond, asksAtOnce)
		p.m[account] = l
	}
	return l.AllowN(now, 1)
}
