package incoming

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Caller calls other servers. [federation.Client] does.
type Caller interface {
	Do(ctx context.Context, call federation.Call) ([]byte, error)
}

// Verifier checks signatures; the errors are in the order of the events.
// Package keyring has one.
type Verifier interface {
	VerifyPDUs(ctx context.Context, pdus []*wire.PDU) []error
}

// Access knows the server ACLs of rooms.
type Access interface {
	Allows(v hub.View, conv core.ConvID, server string) (bool, error)
}

// Config is what an [Incoming] stands on. Zero values are the defaults that are
// named.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Shared *shared.Rooms
	Client Caller
	Keys   Verifier
	Access Access
	// Domains are hosted here, Home first.
	Domains []string
	Log     *slog.Logger
	// Count hears "matrix_incoming" with what became of an event, and "panics".
	// It may be nil.
	Count hub.Counter
	// FirstRetry is the first pause before an event that could not be judged is
	// tried again, doubled by each further one up to MaxRetry: 5 seconds and six
	// hours.
	FirstRetry, MaxRetry time.Duration
	// Tries is how often such an event is tried before it is given up: 16 times.
	Tries int
	// Timeout is for one call to another server: 20 seconds.
	Timeout time.Duration
	// FillsPerMinute is for how many gaps a minute one server makes us ask
	// others, ten minutes' worth at once: 30.
	FillsPerMinute float64
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.FirstRetry, 5*time.Second)
	set(&c.MaxRetry, 6*time.Hour)
	set(&c.Timeout, 20*time.Second)
	if c.Tries == 0 {
		c.Tries = 16
	}
	if c.FillsPerMinute == 0 {
		c.FillsPerMinute = 30
	}
	if c.Count == nil {
		c.Count = noCounter{}
	}
}

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// maxFillers is how many rooms have their gaps filled at a time.
const maxFillers = 8

// Incoming takes what other servers send. Its methods may be called from any
// goroutine.
type Incoming struct {
	cfg   Config
	keep  contain.Keeper
	rooms locks
	wake  chan struct{} // holds a token while there may be something to fill
	bulk  chan struct{} // held by who asks for a whole state at once

	mu      sync.Mutex
	ctx     context.Context // nil before Start and after Stop
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	filling map[core.ConvID]bool
	older   map[core.ConvID]*flight
	budgets map[string]*rate.Limiter
	waiting int // rows
}

// New brings the tables of this package up to date. From then on policy servers
// are asked about what is said here.
func New(ctx context.Context, db *store.DB, cfg Config) (*Incoming, error) {
	if len(cfg.Domains) == 0 {
		return nil, errors.New("no domains are hosted here")
	}
	cfg.defaults()
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "matrix-incoming", dir); err != nil {
		return nil, fmt.Errorf("migrating the tables of incoming Matrix events: %w", err)
	}
	n := &Incoming{
		cfg: cfg, keep: contain.Keeper{Where: "matrix-incoming", Log: cfg.Log, Count: cfg.Count},
		rooms: locks{m: map[core.ConvID]*lock{}}, wake: make(chan struct{}, 1), bulk: make(chan struct{}, 1),
		filling: map[core.ConvID]bool{}, older: map[core.ConvID]*flight{}, budgets: map[string]*rate.Limiter{},
	}
	cfg.Shared.UsePolicy(n)
	return n, nil
}

// Start goes on with the gaps that were there when the server ended.
func (n *Incoming) Start(ctx context.Context) error {
	count := 0
	err := n.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		count, err = countWaiting(v)
		return err
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.waiting = count
	n.wg.Go(n.schedule)
	n.stir()
	return nil
}

// Stop ends what is under way and waits for it. What waits is on disk.
func (n *Incoming) Stop() {
	n.mu.Lock()
	if n.cancel != nil {
		n.cancel()
	}
	n.ctx = nil
	n.mu.Unlock()
	n.wg.Wait()
}

// Allows reports whether a room's server ACL lets a server in.
func (n *Incoming) Allows(v hub.View, conv core.ConvID, server string) (bool, error) {
	return n.cfg.Access.Allows(v, conv, server)
}

func (n *Incoming) count(outcome string) { n.cfg.Count.Count("matrix_incoming", outcome) }

// stir has the waiting events looked at.
func (n *Incoming) stir() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// maxBudgets is how many servers' budgets are remembered.
const maxBudgets = 10_000

// budget is what a server may still make us ask others.
func (n *Incoming) budget(server string) *rate.Limiter {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.budgets[server]
	if b == nil {
		if len(n.budgets) >= maxBudgets {
			for s, old := range n.budgets {
				if old.Tokens() >= float64(old.Burst()) {
					delete(n.budgets, s)
				}
			}
		}
		b = rate.NewLimiter(rate.Limit(n.cfg.FillsPerMinute/60), max(1, int(10*n.cfg.FillsPerMinute)))
		n.budgets[server] = b
	}
	return b
}

// locks are the rooms in which a turn is under way: a room that much is said in
// is not to stand in the way of the others in the writer's queue.
type locks struct {
	mu sync.Mutex
	m  map[core.ConvID]*lock
}

type lock struct {
	turn chan struct{}
	n    int // who holds it or waits for it
}

// maxQueue is how many transactions wait for a room.
const maxQueue = 200

// take waits until it is one's turn, and returns how to end it.
func (l *locks) take(ctx context.Context, conv core.ConvID) (func(), error) {
	l.mu.Lock()
	k := l.m[conv]
	if k == nil {
		k = &lock{turn: make(chan struct{}, 1)}
		l.m[conv] = k
	}
	if k.n >= maxQueue {
		l.mu.Unlock()
		return nil, errBusy
	}
	k.n++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.n--; k.n == 0 {
			delete(l.m, conv)
		}
	}
	select {
	case k.turn <- struct{}{}:
		return func() { <-k.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
