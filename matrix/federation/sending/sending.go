package sending

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/store"
	"parley/store/hubstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Bounds of a transaction.
//
// spec: MX 1.19 SS §4
const (
	MaxPDUs = 50
	MaxEDUs = 100
)

// EDU is an ephemeral data unit: a type and a JSON object.
//
// spec: MX 1.19 SS §6
type EDU struct {
	Type    string          `json:"edu_type"`
	Content json.RawMessage `json:"content"`
}

// Caller calls other servers. [federation.Client] does.
type Caller interface {
	Do(ctx context.Context, call federation.Call) ([]byte, error)
}

// Config is what a [Sender] stands on. Zero values are the defaults that are
// named.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Client Caller
	// Domains are hosted here, Home first.
	Domains []string
	Log     *slog.Logger
	// Count hears "matrix_transactions" with the outcome, "matrix_sent" with
	// the sort of thing and its outcome, and "panics". It may be nil.
	Count hub.Counter
	// Workers is how many transactions are under way at a time: 200.
	Workers int
	// Timeout is for one transaction: a minute.
	Timeout time.Duration
	// FirstRetry is the first pause after a failure, doubled by each further
	// one up to MaxRetry: 2 seconds and an hour.
	FirstRetry, MaxRetry time.Duration
	// AckEvery is how long what a server has taken may wait to be written
	// down: a second.
	AckEvery time.Duration
	// KeepEDUs is how long ephemeral data is owed to a server that does not
	// answer: 30 days.
	KeepEDUs time.Duration
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Workers == 0 {
		c.Workers = 200
	}
	set(&c.Timeout, time.Minute)
	set(&c.FirstRetry, 2*time.Second)
	set(&c.MaxRetry, time.Hour)
	set(&c.AckEvery, time.Second)
	set(&c.KeepEDUs, 30*24*time.Hour)
	if c.Count == nil {
		c.Count = noCounter{}
	}
}

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// Sender sends to other servers what is owed to them. Its methods may be called
// from any goroutine; those that take a [hub.Tx] within its turn.
type Sender struct {
	cfg  Config
	keep contain.Keeper
	// life makes the transaction IDs of one life of the server unlike those of
	// all others.
	life string

	// rooms belongs to the writer's goroutine.
	rooms map[core.ConvID]*room

	signed signedCache
	// reports are made one after another, so that each is made once.
	reports sync.Mutex
	// flushing is held by who writes down what was taken.
	flushing sync.Mutex
	dirty    chan struct{} // holds a token while there is something to write

	mu      sync.Mutex
	ctx     context.Context // nil before Start and after Stop
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	open    bool // what the store holds is known
	peers   map[route]*peer
	ready   []*peer
	running int
	txns    int64
	saying  int // bytes that are said and not yet sent
	news    ledger
}

// route is one of our domains and a server: nothing is shared between two
// routes.
type route struct{ origin, dest string }

// New brings the sender's tables up to date and returns the sender on them.
func New(ctx context.Context, db *store.DB, cfg Config) (*Sender, error) {
	if len(cfg.Domains) == 0 {
		return nil, errors.New("no domains are hosted here")
	}
	cfg.defaults()
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "matrix-sending", dir); err != nil {
		return nil, fmt.Errorf("migrating the tables of what is owed to Matrix servers: %w", err)
	}
	return &Sender{
		cfg: cfg, life: core.NewToken()[:12], rooms: map[core.ConvID]*room{}, peers: map[route]*peer{},
		dirty: make(chan struct{}, 1), news: newLedger(),
		keep: contain.Keeper{Where: "matrix-sending", Log: cfg.Log, Count: cfg.Count},
	}, nil
}

// Start begins to send, with what was owed when the server ended last.
func (s *Sender) Start(ctx context.Context) error {
	s.mu.Lock()
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Unlock()
	var owed owing
	if err := s.cfg.Hub.Read(ctx, owed.read); err != nil {
		return fmt.Errorf("reading what is owed to Matrix servers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// What was pushed since is in the store as well, behind what is older.
	for _, r := range owed.events {
		p := s.peer(r)
		p.queue, p.more = nil, true
	}
	for _, r := range owed.singles {
		s.peer(r).singles = true
	}
	for _, r := range owed.edus {
		s.peer(r).edus = true
	}
	for r, o := range owed.silent {
		if p := s.peers[r]; p != nil {
			p.outage, p.behind, p.until = o, true, o.next
		} else {
			s.news.silent[r] = nil
			s.stir()
		}
	}
	s.open = true
	for _, p := range s.peers {
		s.kick(p)
	}
	s.wg.Add(1)
	go s.clerk(s.ctx)
	return nil
}

// Stop ends the transactions that are under way and writes down what was taken.
// What is owed stays in the store.
func (s *Sender) Stop() {
	s.mu.Lock()
	if s.ctx == nil {
		s.mu.Unlock()
		return
	}
	s.cancel()
	for _, p := range s.peers {
		p.stopTimer()
	}
	s.ctx, s.open = nil, false
	s.mu.Unlock()
	s.wg.Wait()
	s.mu.Lock()
	s.peers, s.ready, s.saying = map[route]*peer{}, nil, 0
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.flush(ctx, true); err != nil {
		s.cfg.Log.Warn("writing down what Matrix servers have taken", "err", err)
	}
}

// Heard says that a server has called us: what waits for it is tried again, at
// once if the last attempt was some time ago.
func (s *Sender) Heard(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, origin := range s.cfg.Domains {
		p := s.peers[route{origin, server}]
		if p == nil || p.until.IsZero() {
			continue
		}
		// One that can call us and cannot be called is not tried for each of
		// its calls.
		pause := min(s.backoff(p.outage.tries)/8, time.Minute)
		if soon := p.outage.last.Add(pause); soon.Before(p.until) {
			p.until = soon
			if !soon.After(now) {
				p.until = time.Time{}
			}
			s.kick(p)
		}
	}
}

// Servers are the other servers that are in a room now, in order.
func (s *Sender) Servers(v hub.View, conv core.ConvID) ([]string, error) {
	return store.List(hubstore.Querier(v), store.Column[string],
		`SELECT dest FROM sending_peers WHERE conv = $1 AND until = $2 ORDER BY dest`, string(conv), staying)
}

func (s *Sender) ours(domain string) bool { return slices.Contains(s.cfg.Domains, domain) }

// nextID is a transaction ID that was never used before. Call it with mu held.
func (s *Sender) nextID() string {
	s.txns++
	return s.life + "." + strconv.FormatInt(s.txns, 10)
}
