// Package ephemeral is the window to other Matrix servers: who is writing, who
// has read what, and who is there, both ways. None of it is kept in a room.
//
// Out go what the hub whispers ([Ephemeral.Whisper]), gathered for a moment,
// because the hub whispers to each member and a server hears of it once; and
// receipts of conversations of two, which are owed ([Ephemeral.Receipt]).
// In come the EDUs of [Ephemeral.EDUs].
//
// Presence goes to approved contacts, as in every network; since Matrix servers
// tell each other of people and not for whom it is, it goes to the servers of
// approved contacts, one presence for all the clients that somebody has.
package ephemeral

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/matrix/federation/receiving"
	"parley/matrix/federation/sending"
	"parley/matrix/mirror"
)

// Post takes what is for other servers. [sending.Sender] does.
type Post interface {
	Say(origin, dest, key string, e sending.EDU)
	OweEDU(tx hub.Tx, origin, dest string, e sending.EDU) error
	Servers(v hub.View, conv core.ConvID) ([]string, error)
}

// Gate knows which servers a room keeps out. [receiving.Rooms] does.
type Gate interface {
	Allows(v hub.View, conv core.ConvID, server string) (bool, error)
}

// Config is what an [Ephemeral] stands on. Zero values are the defaults that are
// named.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Post   Post
	Gate   Gate
	Log    *slog.Logger
	// Count hears "matrix_ephemeral_dropped" with what was, and "panics". It
	// may be nil.
	Count hub.Counter
	// Gather is how long whispers are gathered: 50 milliseconds.
	Gather time.Duration
	// Renew is after which time it is said again that somebody still writes:
	// 30 seconds, because others forget it after a minute.
	Renew time.Duration
	// PresenceEvery is after which time it is said again that somebody is
	// there, and PresenceFor after which it is no longer believed of others:
	// 25 and 30 minutes.
	PresenceEvery, PresenceFor time.Duration
}

// Ephemeral carries what is not kept. Its methods may be called from any
// goroutine.
type Ephemeral struct {
	cfg  Config
	keep contain.Keeper
	// ready holds a token while something is gathered.
	ready  chan struct{}
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	gathered map[topic]hub.Whisper
	writing  map[topic]hub.Whisper // that we have said, and not that it is over
	shown    map[shown]status      // what servers know of our people
	heard    map[core.Address]heard
	pace     map[string]*rate.Limiter // of other servers
}

// topic is what a whisper is about: of several about the same the last counts.
type topic struct {
	sort   string
	from   core.Address
	conv   core.ConvID
	thread string
	to     core.Address // of presence: the server
}

// The sorts of whispers.
const (
	typing   = "typing"
	receipt  = "receipt"
	presence = "presence"
	probe    = "probe"
)

// Bounds of what is remembered.
const (
	maxGathered = 20_000
	maxWriting  = 10_000
	maxPresence = 50_000
	maxPaces    = 20_000
)

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// New makes an Ephemeral.
func New(cfg Config) *Ephemeral {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&cfg.Gather, 50*time.Millisecond)
	set(&cfg.Renew, 30*time.Second)
	set(&cfg.PresenceEvery, 25*time.Minute)
	set(&cfg.PresenceFor, 30*time.Minute)
	if cfg.Count == nil {
		cfg.Count = noCounter{}
	}
	return &Ephemeral{
		cfg: cfg, ready: make(chan struct{}, 1), cancel: func() {},
		keep:     contain.Keeper{Where: "matrix-ephemeral", Log: cfg.Log, Count: cfg.Count},
		gathered: map[topic]hub.Whisper{}, writing: map[topic]hub.Whisper{},
		shown: map[shown]status{}, heard: map[core.Address]heard{}, pace: map[string]*rate.Limiter{},
	}
}

// EDUs are what other servers send.
func (e *Ephemeral) EDUs() map[string]receiving.EDUHandler {
	return map[string]receiving.EDUHandler{"m.typing": e.typingIn, "m.receipt": e.receiptsIn, "m.presence": e.presenceIn}
}

// Start begins to say what is whispered, until Stop.
func (e *Ephemeral) Start(ctx context.Context) {
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.wg.Go(func() { e.run(ctx) })
	e.wg.Go(func() { e.every(ctx, e.cfg.Renew, e.renewTyping) })
	e.wg.Go(func() { e.every(ctx, e.cfg.PresenceEvery/5, e.renewPresence) })
	e.wg.Go(func() { e.every(ctx, e.cfg.PresenceFor/6, e.expirePresence) })
}

// Stop ends it.
func (e *Ephemeral) Stop() {
	e.cancel()
	e.wg.Wait()
}

// Whisper implements the half of [hub.Carrier] that is about what is not owed.
// It does not block.
func (e *Ephemeral) Whisper(w hub.Whisper) {
	if w.From.Network == core.Matrix {
		return // her own server tells the others
	}
	t := topic{from: w.From, conv: w.Conv}
	switch {
	case w.Probe:
		t.sort, t.to = probe, w.To
	case w.Presence != nil:
		t.sort, t.to = presence, w.To.Server()
	case w.Typing != nil:
		t.sort = typing
	case w.Displayed != "":
		t.sort, t.thread = receipt, w.Thread
	default:
		return
	}
	e.gather(t, w)
}

func (e *Ephemeral) gather(t topic, w hub.Whisper) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, has := e.gathered[t]; !has && len(e.gathered) >= maxGathered {
		e.cfg.Count.Count("matrix_ephemeral_dropped", t.sort)
		return
	}
	e.gathered[t] = w
	select {
	case e.ready <- struct{}{}:
	default:
	}
}

// run says what was gathered.
func (e *Ephemeral) run(ctx context.Context) {
	for e.wait(ctx) {
		e.mu.Lock()
		all := e.gathered
		e.gathered = map[topic]hub.Whisper{}
		e.mu.Unlock()
		seen := map[core.Address][]string{}
		for t, w := range all {
			var do func() error
			switch t.sort {
			case typing:
				do = func() error { return e.sayTyping(ctx, t, w) }
			case receipt:
				do = func() error { return e.sayReceipt(ctx, t, w) }
			case probe:
				do = func() error { return e.answer(ctx, t) }
			default:
				seen[t.from] = append(seen[t.from], t.to.Domain)
				continue
			}
			e.attempt(ctx, t.sort, do)
		}
		for from, dests := range seen {
			e.attempt(ctx, presence, func() error { return e.sayPresence(ctx, from, dests) })
		}
	}
}

// wait waits until there is something, and for the rest of it.
func (e *Ephemeral) wait(ctx context.Context) bool {
	select {
	case <-e.ready:
	case <-ctx.Done():
		return false
	}
	rest := time.NewTimer(e.cfg.Gather)
	defer rest.Stop()
	select {
	case <-rest.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt does something whose failure is for the log alone.
func (e *Ephemeral) attempt(ctx context.Context, what string, do func() error) {
	err := e.keep.Do(do)
	if err != nil && ctx.Err() == nil && hub.CodeOf(err) == "" && !errors.Is(err, hub.ErrNone) {
		e.cfg.Log.Warn("for other Matrix servers", "what", what, "err", err)
	}
}

// every does something again and again.
func (e *Ephemeral) every(ctx context.Context, d time.Duration, do func(context.Context) error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.attempt(ctx, "renewing", func() error { return do(ctx) })
		case <-ctx.Done():
			return
		}
	}
}

// Rates of what one server may have written for it: each changes something for
// all clients of a room.
const (
	perSecond = 100
	atOnce    = 2000
)

// allows takes from a server's allowance.
func (e *Ephemeral) allows(origin string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.pace[origin]
	if l == nil {
		if len(e.pace) >= maxPaces {
			clear(e.pace)
		}
		l = rate.NewLimiter(perSecond, atOnce)
		e.pace[origin] = l
	}
	return l.Allow()
}

func domainOf(userID string) string {
	_, domain, _ := strings.Cut(userID, ":")
	return domain
}
