package shared

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
	"parley/store"
	"parley/store/hubstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the tables of this package up to date.
func Migrate(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx, "matrix-shared", dir); err != nil {
		return fmt.Errorf("migrating the tables of shared Matrix rooms: %w", err)
	}
	return nil
}

// Outbox is owed to what is said here. Package sending implements it.
type Outbox interface {
	// Owe is called for an event of ours, for all servers of its room.
	Owe(tx hub.Tx, conv core.ConvID, eventID string, feed core.Feed) error
	// OweTo is called for an event that concerns somebody on a server that is
	// not in the room.
	OweTo(tx hub.Tx, eventID string, servers ...string) error
	// Peers says which servers begin or cease to be in a room with the event at
	// feed, which still goes to those that cease.
	Peers(tx hub.Tx, conv core.ConvID, joined, parted []string, feed core.Feed) error
}

// Config is what rooms stand on.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Outbox Outbox
	// Domains are hosted here.
	Domains []string
	Count   hub.Counter
	Log     *slog.Logger
}

// Rooms are the rooms that are shared. It is the [hub.Judge] of graphs and the
// mirror's [mirror.Graph].
type Rooms struct {
	cfg    Config
	hub    *hub.Hub
	mirror *mirror.Mirror

	// access is for whoever asks.
	access access

	// The rest belongs to the writer's goroutine.
	rooms map[core.ConvID]*room
	// minted are events of ours between verdict and being kept, by event ID.
	minted map[string]*minted
	// unsettled is between an event of ours being kept and Settle.
	unsettled map[core.ConvID]unsettled
	approvals approvals
	groups    int64 // the highest ID of a group; 0: not asked yet
	held      int   // events in memory
}

// New makes the rooms. The database has been migrated.
func New(c Config) *Rooms {
	r := &Rooms{cfg: c, hub: c.Hub, mirror: c.Mirror, rooms: map[core.ConvID]*room{}, minted: map[string]*minted{}, unsettled: map[core.ConvID]unsettled{}}
	c.Hub.AddJudge(core.Graph, r)
	c.Mirror.UseGraph(r)
	return r
}

// ours reports whether a user ID is of this server.
func (r *Rooms) ours(userID string) bool {
	return slices.Contains(r.cfg.Domains, serverOf(userID))
}

func serverOf(userID string) string {
	_, server, _ := strings.Cut(userID, ":")
	return server
}

func (r *Rooms) count(name string, labels ...string) {
	if r.cfg.Count != nil {
		r.cfg.Count.Count(name, labels...)
	}
}

// Turn is one turn of the writer in shared rooms.
type Turn struct {
	r   *Rooms
	Hub *hub.GraphTurn
	tx  hub.Tx
	sql *store.Tx
}

// Turn runs f as one turn: all of it is on disk when Turn returns nil, or none.
func (r *Rooms) Turn(ctx context.Context, f func(*Turn) error) error {
	return r.hub.Graph(ctx, func(g *hub.GraphTurn) error {
		return f(&Turn{r: r, Hub: g, tx: g.Tx(), sql: hubstore.Tx(g.Tx())})
	})
}

// Tx is the transaction of the turn.
func (t *Turn) Tx() hub.Tx { return t.tx }

// MissingError says that an event cannot be judged yet.
type MissingError struct {
	// Prev and Auth are events that it follows or cites and that are not known.
	Prev, Auth []string
	// State are events that it follows of which the state after them is not
	// known.
	State []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%d previous events, %d cited ones and the state of %d are not known", len(e.Prev), len(e.Auth), len(e.State))
}

// ErrNotShared says that there is no such room, or that it is none that is
// shared.
var ErrNotShared = errors.New("no shared room")
