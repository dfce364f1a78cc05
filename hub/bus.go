package hub

import (
	"slices"
	"sync"

	"parley/core"
)

// Bulletin is news for the sessions of some accounts.
type Bulletin struct {
	To   []core.Address
	News News
}

// Bus carries bulletins to every process that holds sessions: within this one,
// or over a network between several that share a store. A bulletin is published
// after the commit of what it tells and may get lost or come late: what is kept
// has a feed number, and a session that reads the store misses nothing. So a
// bus over a network need carry no more of kept news than its feed number.
type Bus interface {
	// Publish does not block.
	Publish(b Bulletin)
	// Subscribe has f called for each bulletin, in the order in which one
	// process published them, until cancel is called.
	Subscribe(f func(Bulletin)) (cancel func())
}

// localBus is the bus within one process.
type localBus struct {
	mu   sync.RWMutex
	subs []*func(Bulletin)
}

func (b *localBus) Publish(n Bulletin) {
	b.mu.RLock()
	subs := b.subs // never changed in place
	b.mu.RUnlock()
	for _, f := range subs {
		(*f)(n)
	}
}

func (b *localBus) Subscribe(f func(Bulletin)) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = append(slices.Clone(b.subs), &f)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.subs = slices.DeleteFunc(slices.Clone(b.subs), func(s *func(Bulletin)) bool { return s == &f })
	}
}

// UseBus has the hub publish and hear on another bus than its own. Call it
// before [Hub.Start].
func (h *Hub) UseBus(b Bus) {
	h.unsubscribe()
	h.bus = b
	h.unsubscribe = b.Subscribe(func(n Bulletin) { h.sessions.tell(n.News, n.To...) })
}

// Listen has f called for each bulletin on the hub's bus: for those who act for
// accounts that have no session. f does not block.
func (h *Hub) Listen(f func(Bulletin)) (cancel func()) { return h.bus.Subscribe(f) }

// tell publishes news for accounts.
func (h *Hub) tell(n News, accounts ...core.Address) {
	if len(accounts) > 0 {
		h.bus.Publish(Bulletin{accounts, n})
	}
}
