package s2s

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/guard"
)

// errRefused says that the operator wants nothing exchanged with a server.
var errRefused = errors.New("this server exchanges nothing with that one")

// familiar remembers on which servers somebody here has a contact. The zero value is ready.
type familiar struct {
	mu sync.Mutex
	m  map[string]acquaintance
}

type acquaintance struct {
	known bool
	until time.Time
}

// How long it is remembered, and of how many servers.
const (
	rememberKnown   = time.Hour
	rememberUnknown = time.Minute
	maxFamiliar     = 10_000
)

func (f *familiar) get(domain string) (known, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.m[domain]
	return a.known, ok && time.Now().Before(a.until)
}

func (f *familiar) put(domain string, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil || len(f.m) >= maxFamiliar {
		f.m = map[string]acquaintance{}
	}
	keep := rememberUnknown
	if known {
		keep = rememberKnown
	}
	f.m[domain] = acquaintance{known, time.Now().Add(keep)}
}

// familiar says whether anybody here has a contact on a server.
func (c *Carrier) familiar(ctx context.Context, domain string) (known bool, err error) {
	if known, ok := c.friends.get(domain); ok {
		return known, nil
	}
	err = c.hub.Read(ctx, func(v hub.View) (err error) {
		known, err = v.Familiar(core.XMPP, domain)
		return err
	})
	if err == nil {
		c.friends.put(domain, known)
	}
	return known, err
}

// approach holds a server, and each of its people, to what strangers may send.
func (c *Carrier) approach(ctx context.Context, v visit, limit guard.Limit) error {
	if c.cfg.Guard == nil || c.component(v.from.Domain) {
		return nil
	}
	known, err := c.familiar(ctx, v.from.Domain)
	if err != nil {
		return err
	}
	return c.cfg.Guard.Stranger(guard.Approach{Limit: limit, Sender: v.who.String(), Domain: v.from.Domain, Known: known})
}

// contactPresence says whether a contact's presence is taken: what comes too often is not, but that she has gone always is.
func (c *Carrier) contactPresence(v visit) bool {
	if !c.component(v.from.Domain) && c.cfg.Guard.Allow(guard.ContactPresences, v.who.String()) != nil {
		c.cfg.Count.Count("s2s_dropped", "presence")
		return false
	}
	return true
}

// mayAsk holds a server to how many requests it may make.
func (c *Carrier) mayAsk(v visit) error {
	if t := v.st.Attr("type"); v.st.Name.Local != "iq" || t != "get" && t != "set" || c.component(v.from.Domain) {
		return nil
	}
	return c.cfg.Guard.Allow(guard.ServerRequests, guard.Organisation(v.from.Domain))
}
