package following

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
	"parley/store"
	"parley/store/hubstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Door lets people into rooms. Package joining implements it.
type Door interface {
	Join(ctx context.Context, idOrAlias string, via []string, r hub.JoinRequest) (core.ConvID, error)
}

// Config is what a [Following] stands on. Zero values are the defaults that are
// named.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Door   Door
	// Servers are the other servers that are in a room now.
	Servers func(v hub.View, conv core.ConvID) ([]string, error)
	// Wait is how long clients wait to be told where a room went on: 30 seconds.
	Wait time.Duration
	// Retries are the pauses before those who were not let in try again: from ten
	// seconds to twelve hours.
	Retries []time.Duration
	Log     *slog.Logger
}

// maxMoves is how many rooms are followed at a time.
const maxMoves = 4

// Following has accounts follow rooms. It is the [hub.Follower], and a
// [hub.Mirror], which hears of events in the turn that keeps them.
type Following struct {
	cfg   Config
	slots chan struct{}

	mu      sync.Mutex
	ctx     context.Context // nil before Start and after Stop
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	running map[core.ConvID]bool
	again   map[core.ConvID]bool // it is to run once more
}

// New brings the tables up to date.
func New(ctx context.Context, db *store.DB, cfg Config) (*Following, error) {
	if cfg.Wait == 0 {
		cfg.Wait = 30 * time.Second
	}
	if cfg.Retries == nil {
		cfg.Retries = []time.Duration{
			10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour,
		}
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "matrix-following", dir); err != nil {
		return nil, fmt.Errorf("migrating the table of rooms that are followed: %w", err)
	}
	return &Following{
		cfg: cfg, slots: make(chan struct{}, maxMoves), running: map[core.ConvID]bool{}, again: map[core.ConvID]bool{},
	}, nil
}

// Start goes on with the rooms that were being followed.
func (f *Following) Start(ctx context.Context) error {
	f.mu.Lock()
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.mu.Unlock()
	var convs []string
	err := f.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		convs, err = store.List(hubstore.Querier(v), store.Column[string], `SELECT conv FROM following_moves ORDER BY conv`)
		return err
	})
	for _, id := range convs {
		f.wake(core.ConvID(id))
	}
	return err
}

// Stop breaks off what is under way and waits for it.
func (f *Following) Stop() {
	f.mu.Lock()
	if f.cancel != nil {
		f.cancel()
	}
	f.ctx = nil
	f.mu.Unlock()
	f.wg.Wait()
}

// wake has a room followed, by one goroutine at a time.
func (f *Following) wake(conv core.ConvID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil {
		return // Start finds it on disk
	}
	if f.running[conv] {
		f.again[conv] = true
		return
	}
	f.running[conv] = true
	f.wg.Add(1)
	go func(ctx context.Context) {
		defer f.wg.Done()
		for f.follow(ctx, conv); f.rests(conv); f.follow(ctx, conv) {
		}
	}(f.ctx)
}

// rests ends the running of a room, or says that it goes on.
func (f *Following) rests(conv core.ConvID) (goesOn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.again[conv] && f.ctx != nil {
		delete(f.again, conv)
		return true
	}
	delete(f.running, conv)
	delete(f.again, conv)
	return false
}

// Admit implements [hub.Mirror]: it notes where a room goes on.
func (f *Following) Admit(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event) error {
	ch, ok := e.Content.(core.Change)
	if !ok || c.Authority == core.Elsewhere || c.Shape != core.Group {
		return nil
	}
	switch ch.Aspect {
	case core.AspectMovedTo:
		return f.note(tx, c, before, e, 0)
	case core.AspectCorrected:
		for _, piece := range ch.Corrected {
			if piece.Kind != string(core.AspectMovedTo) {
				continue
			}
			if err := f.forget(tx, c.ID); err != nil || piece.Is == "" {
				return err
			}
			sets, err := tx.Event(piece.Is)
			if err != nil {
				return err
			}
			return f.note(tx, c, before, &sets, 0)
		}
	}
	return nil
}

// note writes down that a room is to be followed, if there is anybody to follow
// it.
func (f *Following) note(tx hub.Tx, c *core.Conversation, s *core.State, e *core.Event, hops int) error {
	ch, _ := e.Content.(core.Change)
	if ch.MovedTo == nil || ch.MovedTo.Native == "" || ch.MovedTo.Native == c.Native[core.Matrix] || len(f.followers(s)) == 0 {
		return nil
	}
	server := ""
	if e.Sender.Network == core.Matrix {
		server = e.Sender.Domain
	}
	_, err := hubstore.Tx(tx).Exec(`INSERT INTO following_moves (conv, event, native, server, told, tries, hops, next)
		VALUES ($1, $2, $3, $4, 0, 0, $5, 0)
		ON CONFLICT (conv) DO UPDATE SET event = excluded.event, native = excluded.native, server = excluded.server,
			told = 0, tries = 0, hops = excluded.hops, next = 0`,
		string(c.ID), string(e.ID), ch.MovedTo.Native, server, int64(hops))
	tx.OnCommit(func() { f.wake(c.ID) })
	return err
}

func (f *Following) forget(tx hub.Tx, conv core.ConvID) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM following_moves WHERE conv = $1`, string(conv))
	return err
}

// followers are the accounts here that are in a room.
func (f *Following) followers(s *core.State) []core.Address {
	var out []core.Address
	for _, m := range s.With(core.Joined) {
		if m.Address.IsLocal() && f.cfg.Hub.Hosts(m.Address.Domain) {
			out = append(out, m.Address)
		}
	}
	return out
}

// Following implements [hub.Follower].
func (f *Following) Following(v hub.View, conv core.ConvID) (bool, error) {
	var told int64
	err := hubstore.Querier(v).QueryRow(`SELECT told FROM following_moves WHERE conv = $1`, string(conv)).Scan(&told)
	if store.NotFound(err) {
		return false, nil
	}
	return told == 0, err
}

// none makes nothing of [hub.ErrNone].
func none(err error) error {
	if errors.Is(err, hub.ErrNone) {
		return nil
	}
	return err
}
