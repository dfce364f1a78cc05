package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/netguard"
)

// How long what a well-known said is remembered.
//
// spec: MX 1.19 SS §2.1
const (
	usualLife = 24 * time.Hour
	maxLife   = 48 * time.Hour
	// minLife is for answers that are not to be stored at all: somebody who
	// sends many messages is not asked before each.
	minLife = time.Minute
	// The first error is remembered so long, the next twice as long.
	firstError = time.Minute
	maxError   = time.Hour
)

const (
	maxWellKnown = 50 << 10 // bytes
	maxCached    = 20_000   // hosts
	fetchTimeout = 30 * time.Second
)

// entry is what is known of one host.
type entry struct {
	delegated string // "" for none
	expires   time.Time
	// got is when delegated was read; zero if never.
	got      time.Time
	failures int
}

type cache struct {
	mu      sync.Mutex
	entries map[string]entry
}

func (c *cache) get(host string) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[host]
	return e, ok
}

// put keeps an entry. Where there are too many, those that have expired go, and
// if there are none any other.
func (c *cache) put(host string, e entry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[string]entry{}
	}
	if _, known := c.entries[host]; !known && len(c.entries) >= maxCached {
		for h, old := range c.entries {
			if old.expires.Before(now) {
				delete(c.entries, h)
			}
		}
		for h := range c.entries {
			if len(c.entries) < maxCached {
				break
			}
			delete(c.entries, h)
		}
	}
	c.entries[host] = e
}

// wellKnown is the name to which a host delegates, "" for none. However many
// ask at a time, one request is made.
func (r *Resolver) wellKnown(ctx context.Context, host string) (string, error) {
	if e, ok := r.cache.get(host); ok && r.cfg.Now().Before(e.expires) {
		return e.delegated, nil
	}
	done := r.flights.DoChan(host, func() (any, error) {
		// Others wait for it too: it does not end with who asked first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		return r.refresh(ctx, host), nil
	})
	select {
	case res := <-done:
		return res.Val.(string), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// refresh asks the host and remembers what came of it.
func (r *Resolver) refresh(ctx context.Context, host string) string {
	old, _ := r.cache.get(host)
	now := r.cfg.Now()
	if now.Before(old.expires) {
		return old.delegated // another flight has just landed
	}
	delegated, life, passing, err := r.fetch(ctx, host)
	if err == nil {
		r.cache.put(host, entry{delegated: delegated, expires: now.Add(life), got: now}, now)
		return delegated
	}
	e := entry{failures: old.failures + 1}
	wait := firstError << min(e.failures-1, 10)
	e.expires = now.Add(min(wait, maxError))
	if passing && old.delegated != "" && now.Sub(old.got) < maxLife {
		// A host that does not answer has not taken back what it said.
		e.delegated, e.got = old.delegated, old.got
		if end := old.got.Add(maxLife); end.Before(e.expires) {
			e.expires = end
		}
	}
	r.cfg.Log.Debug("no Matrix well-known", "host", host, "again", e.expires, "err", err)
	r.cache.put(host, e, now)
	return e.delegated
}

// fetch reads a host's well-known. passing says of an error that the host may
// only be out of order.
func (r *Resolver) fetch(ctx context.Context, host string) (delegated string, life time.Duration, passing bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/matrix/server", nil)
	if err != nil {
		return "", 0, false, err
	}
	resp, err := r.cfg.WellKnown.Do(req)
	if err != nil {
		return "", 0, true, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", 0, resp.StatusCode >= 500, fmt.Errorf("%s answered %s", host, resp.Status)
	}
	body, err := netguard.ReadAll(resp.Body, maxWellKnown)
	if err != nil {
		return "", 0, true, err
	}
	if delegated, err = parseWellKnown(body); err != nil {
		return "", 0, false, err
	}
	return delegated, lifetime(resp.Header, r.cfg.Now()), false, nil
}

// parseWellKnown reads the body, whatever type it claims to have.
//
// spec: MX 1.19 SS §2.1
func parseWellKnown(body []byte) (string, error) {
	var w struct {
		Server *string `json:"m.server"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return "", fmt.Errorf("reading a well-known: %w", err)
	}
	if w.Server == nil {
		return "", fmt.Errorf("a well-known without m.server")
	}
	if _, _, _, err := split(*w.Server); err != nil {
		return "", err
	}
	return *w.Server, nil
}

// lifetime is how long an answer is remembered.
//
// spec: MX 1.19 SS §2.1
// spec: RFC 9111 §4.2.1
func lifetime(h http.Header, now time.Time) time.Duration {
	life := usualLife
	if expires := h.Get("Expires"); expires != "" {
		life = 0 // also where it is no date: spec: RFC 9111 §5.3
		if at, err := http.ParseTime(expires); err == nil {
			life = at.Sub(now)
		}
	}
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return minLife
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return minLife
			}
			age, _ := strconv.ParseUint(h.Get("Age"), 10, 31)
			life = time.Duration(seconds)*time.Second - time.Duration(age)*time.Second
		}
	}
	return min(max(life, minLife), maxLife)
}
