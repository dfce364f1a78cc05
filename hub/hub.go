package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"parley/core"
)

// Config is what the operator decides.
type Config struct {
	// Domains are hosted here. Under the first of them, Home, foreign
	// addresses are spelled; it is the same for the life of the database.
	Domains     []string
	RoomVersion string // Matrix room version of new conversations
	// Encryption tells Matrix clients whether to encrypt new directs:
	// "interoperable" or "private".
	Encryption string
	// Registration is "closed", "token" or "open".
	Registration string
	// RegistrationTokens are for "token".
	RegistrationTokens []string
	// Strangers is what new accounts want done with them.
	Strangers core.Strangers
	// Prepare normalises a password before it is hashed or checked, as the
	// SASL mechanisms ask; nil leaves it as it is.
	Prepare func(password string) (string, error)
	// GiveUp is how long delivery to another server is tried.
	GiveUp time.Duration
	// RetryMax is the longest wait between two tries; zero is half an hour.
	RetryMax time.Duration
	// MaxContent is the largest content of one event, in bytes as stored.
	MaxContent int
	// MaxMembers bounds the members of one conversation, MaxContacts an
	// account's list, MaxData one piece of private data in bytes.
	MaxMembers, MaxContacts, MaxData int
	// MaxAsks bounds the requests for consent that wait for one account.
	MaxAsks int
	// MaxSessions bounds one account's sessions.
	MaxSessions int
}

// Default fills what is left zero.
func (c Config) withDefaults() Config {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.MaxContent, 60_000)
	set(&c.MaxMembers, 100_000)
	set(&c.MaxContacts, 10_000)
	set(&c.MaxAsks, 1000)
	set(&c.MaxData, 256<<10)
	set(&c.MaxSessions, 200)
	if c.GiveUp == 0 {
		c.GiveUp = 72 * time.Hour
	}
	if c.RetryMax == 0 {
		c.RetryMax = 30 * time.Minute
	}
	if c.RoomVersion == "" {
		c.RoomVersion = "12"
	}
	if c.Strangers == "" {
		c.Strangers = core.Hold
	}
	return c
}

// Hub is one server's hub. Its methods may be called from any goroutine.
type Hub struct {
	cfg   Config
	store Store
	log   *slog.Logger
	count Counter

	// Set before Start and not changed after it.
	mirrors   []Mirror
	judges    map[core.Authority]Judge
	carriers  map[core.Network]Carrier
	informers map[core.Network]Informer
	remotes   map[core.Network]Remote
	follower  Follower

	bus         Bus
	unsubscribe func()

	sessions *registry
	presence *presences
	typing   *typists
	blocks   blockCache
	outbox   *outbox

	// near belongs to the writer's goroutine.
	near map[core.ConvID]nearby
}

// New makes a hub on a store. Add mirrors and carriers before [Hub.Start].
func New(cfg Config, store Store, log *slog.Logger, count Counter) *Hub {
	h := &Hub{
		cfg: cfg.withDefaults(), store: store, log: log, count: count,
		judges: map[core.Authority]Judge{}, carriers: map[core.Network]Carrier{},
		informers: map[core.Network]Informer{}, remotes: map[core.Network]Remote{},
		near: map[core.ConvID]nearby{},
	}
	if h.count == nil {
		h.count = noCounter{}
	}
	h.sessions = newRegistry(h.cfg.MaxSessions)
	h.unsubscribe = func() {}
	h.UseBus(&localBus{})
	h.presence = newPresences()
	h.typing = newTypists()
	h.outbox = newOutbox(h)
	return h
}

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// AddMirror adds a mirror; they are asked in the order in which they came.
func (h *Hub) AddMirror(m Mirror) { h.mirrors = append(h.mirrors, m) }

// AddJudge sets who judges conversations of an authority other than Here.
func (h *Hub) AddJudge(a core.Authority, j Judge) { h.judges[a] = j }

// AddCarrier adds the carrier of a network.
func (h *Hub) AddCarrier(c Carrier) { h.carriers[c.Network()] = c }

// AddRemote adds what asks the authorities of rooms elsewhere.
func (h *Hub) AddRemote(r Remote) { h.remotes[r.Network()] = r }

// AddInformer adds the informer of a network.
func (h *Hub) AddInformer(i Informer) { h.informers[i.Network()] = i }

// Start begins to deliver what is owed, until [Hub.Stop]. It refuses another
// Home than the database began with: every foreign address is spelled under it.
func (h *Hub) Start(ctx context.Context) error {
	err := h.store.Write(ctx, func(tx Tx) error {
		began, found, err := none(tx.Setting("home"))
		switch {
		case err != nil:
			return err
		case !found:
			return tx.SetSetting("home", []byte(h.Home()))
		case string(began) != h.Home():
			return fmt.Errorf("this database began with %s as the first domain, and now it is %s: put %[1]s first", began, h.Home())
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.outbox.start(ctx)
}

// Stop ends the sessions and the outbox's workers, and waits for them. What
// is owed stays in the store.
func (h *Hub) Stop() {
	h.sessions.closeAll()
	h.outbox.stop()
}

// Config returns the configuration.
func (h *Hub) Config() Config { return h.cfg }

// Home is the domain under which foreign addresses are spelled.
func (h *Hub) Home() string { return h.cfg.Domains[0] }

// Hosts reports whether a domain is hosted here.
func (h *Hub) Hosts(domain string) bool { return slices.Contains(h.cfg.Domains, domain) }

// Read runs f on a snapshot.
func (h *Hub) Read(ctx context.Context, f func(View) error) error { return h.store.Read(ctx, f) }

// Write runs f in a turn of its own: for rows that are a protocol's alone.
func (h *Hub) Write(ctx context.Context, f func(Tx) error) error { return h.store.Write(ctx, f) }

// turn is what one command does to the store, and whom it is going to tell.
type turn struct {
	h   *Hub
	tx  Tx
	now time.Time
	// after runs once the turn is on disk, in order.
	after []func()
	// nicks are those of conversations that a graph's turn has asked for, and
	// found the last positions of what was found in them.
	nicks map[core.ConvID]map[string]core.Address
	found map[core.ConvID]core.Position
}

// turn runs f as one turn, which may take several tries. Nothing that f appends
// to after happens unless all of it is on disk.
func (h *Hub) turn(ctx context.Context, f func(*turn) error) error {
	return consulting(ctx, func() error { return h.tryTurn(ctx, f) })
}

func (h *Hub) tryTurn(ctx context.Context, f func(*turn) error) error {
	return h.store.Write(ctx, func(tx Tx) error {
		t := &turn{h: h, tx: tx, now: time.Now().UTC().Truncate(time.Millisecond)}
		if err := f(t); err != nil {
			return err
		}
		tx.OnCommit(func() {
			for _, f := range t.after {
				f()
			}
		})
		return nil
	})
}

// tell queues news for accounts.
func (t *turn) tell(n News, accounts ...core.Address) {
	if len(accounts) > 0 {
		t.after = append(t.after, func() { t.h.tell(n, accounts...) })
	}
}

// ours reports whether a is a local address on one of our domains.
func (h *Hub) ours(a core.Address) bool { return a.IsLocal() && h.Hosts(a.Domain) }

// none turns ErrNone into a zero value.
func none[T any](v T, err error) (T, bool, error) {
	if errors.Is(err, ErrNone) {
		return v, false, nil
	}
	return v, err == nil, err
}

// blockCache keeps block lists in memory, because every message asks them.
type blockCache struct {
	mu sync.Mutex
	m  map[core.Address]map[core.Address]bool
	// drops counts them, so that a list which was read before one is not kept
	// after it.
	drops int
}

func (c *blockCache) drop(account core.Address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	delete(c.m, account)
}

// blocks reports whether account blocks a, or a's whole server.
func (c *blockCache) has(v View, account, a core.Address) (bool, error) {
	c.mu.Lock()
	set, ok := c.m[account]
	drops := c.drops
	c.mu.Unlock()
	if !ok {
		list, err := v.Blocks(account)
		if err != nil {
			return false, err
		}
		set = make(map[core.Address]bool, len(list))
		for _, b := range list {
			set[b] = true
		}
		c.mu.Lock()
		if c.m == nil {
			c.m = map[core.Address]map[core.Address]bool{}
		}
		if c.drops == drops {
			c.m[account] = set
		}
		c.mu.Unlock()
	}
	return set[a] || set[a.Server()], nil
}
