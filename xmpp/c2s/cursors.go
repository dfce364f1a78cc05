package c2s

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
)

// cursorDelay is how long it may take until it is on disk that a client has received a message. A crash within it makes the server
// offer the message once more, with the same stanza-id.
const cursorDelay = 2 * time.Second

// cursors note up to which feed number the clients of each account have received messages, for those that have no other means of
// catching up.
//
// spec: XEP-0160 §3
type cursors struct {
	hub   *hub.Hub
	mu    sync.Mutex
	known map[core.Address]core.Feed
	dirty map[core.Address]bool
}

func newCursors(h *hub.Hub) *cursors {
	return &cursors{hub: h, known: map[core.Address]core.Feed{}, dirty: map[core.Address]bool{}}
}

// seen notes that a client has received what has the feed number.
func (c *cursors) seen(account core.Address, feed core.Feed) {
	if feed == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if feed > c.known[account] {
		c.known[account], c.dirty[account] = feed, true
	}
}

// get returns the account's cursor, zero if it has none.
func (c *cursors) get(ctx context.Context, account core.Address) (core.Feed, error) {
	var feed core.Feed
	err := c.hub.Read(ctx, func(v hub.View) error {
		err := hubstore.Querier(v).QueryRow(`SELECT feed FROM xmpp_cursors WHERE account = $1`, account.String()).Scan(&feed)
		if store.NotFound(err) {
			return nil
		}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(feed, c.known[account]), err
}

// flush puts on disk what has changed, and forgets it.
func (c *cursors) flush(ctx context.Context, log *slog.Logger) {
	c.mu.Lock()
	changed := map[core.Address]core.Feed{}
	for a := range c.dirty {
		changed[a] = c.known[a]
	}
	clear(c.dirty)
	c.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	err := c.hub.Write(ctx, func(tx hub.Tx) error {
		for a, feed := range changed {
			_, err := hubstore.Tx(tx).Exec(`INSERT INTO xmpp_cursors (account, feed) VALUES ($1, $2)
				ON CONFLICT (account) DO UPDATE SET feed = excluded.feed WHERE xmpp_cursors.feed < excluded.feed`, a.String(), int64(feed))
			if err != nil {
				return err
			}
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for a, feed := range changed {
		switch {
		case err != nil:
			c.dirty[a] = true
		case c.known[a] == feed && !c.dirty[a]:
			delete(c.known, a)
		}
	}
	if err != nil {
		log.Error("keeping what clients have received", "err", err)
	}
}
