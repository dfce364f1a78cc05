package joining

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
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
	Open(ctx context.Context, call federation.Call) (io.ReadCloser, error)
}

// Keys check the signatures of events; the errors are in their order. The keyring
// does.
type Keys interface {
	VerifyPDUs(ctx context.Context, pdus []*wire.PDU) []error
}

// Outbox is owed to what comes in by the door. Package sending implements it.
type Outbox interface {
	Owe(tx hub.Tx, conv core.ConvID, eventID string, feed core.Feed) error
	Peers(tx hub.Tx, conv core.ConvID, joined, parted []string, feed core.Feed) error
	Servers(v hub.View, conv core.ConvID) ([]string, error)
}

// Access says whether a room's server ACL lets a server in.
type Access interface {
	Allows(v hub.View, conv core.ConvID, server string) (bool, error)
}

// History fetches what was said in a room before what is known.
type History interface {
	Older(ctx context.Context, c core.Conversation, limit int) (found bool, err error)
}

// Config is what a [Joining] stands on. Zero values are the defaults that are
// named.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Rooms  *shared.Rooms
	Outbox Outbox
	Client Caller
	Keys   Keys
	Access Access
	// Aliases are those of other servers.
	Aliases Aliases
	// History may be nil: then there is none to be had.
	History History
	// Domains are hosted here; Signers is what they sign with.
	Domains []string
	Signers map[string]*wire.SigningKey
	Log     *slog.Logger
	// Count hears "matrix_doors" with what was done and how it ended. It may be
	// nil.
	Count hub.Counter
	// MaxAnswer bounds the state of a room as it is told, in bytes and events:
	// 128 MiB and 200000.
	MaxAnswer int64
	MaxEvents int
	// MaxMembers is how many members a room has at most when it is entered; the
	// others follow: 500.
	MaxMembers int
	// OmitFrom is how many members a room has at least when they are left out of
	// what a joiner's server is told: 50.
	OmitFrom int
	// Timeout is for getting into a room by all servers together: 4 minutes;
	// AskTimeout for one short question: 30 seconds.
	Timeout, AskTimeout time.Duration
	// FirstRetry is the pause before the members of a room are asked for again,
	// doubled each time up to MaxRetry: 5 seconds and 30 minutes. Linger is how
	// long it takes until a server that has invited somebody knows of it: a
	// second.
	FirstRetry, MaxRetry, Linger time.Duration
	// Patience is how long members are waited for that cannot be checked because
	// their servers do not answer, as those do not that are just being started
	// again: a minute and a half.
	Patience time.Duration
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.MaxAnswer == 0 {
		c.MaxAnswer = 128 << 20
	}
	if c.MaxEvents == 0 {
		c.MaxEvents = 200_000
	}
	if c.MaxMembers == 0 {
		c.MaxMembers = 500
	}
	if c.OmitFrom == 0 {
		c.OmitFrom = 50
	}
	set(&c.Timeout, 4*time.Minute)
	set(&c.AskTimeout, 30*time.Second)
	set(&c.FirstRetry, 5*time.Second)
	set(&c.MaxRetry, 30*time.Minute)
	set(&c.Linger, time.Second)
	set(&c.Patience, 90*time.Second)
}

// Joining lets people in and out. Its methods may be called from any goroutine.
type Joining struct {
	cfg Config
	// slots bound the rooms that are entered at a time, fills those whose
	// members are fetched.
	slots, fills chan struct{}

	mu     sync.Mutex
	ctx    context.Context // nil before Start and after Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// doors are the rooms that somebody is entering, so that she does so once at
	// a time.
	doors map[door]chan struct{}
	// filling are the rooms whose members are being fetched.
	filling map[core.ConvID]bool
}

// door is where one enters; first says that none of ours is inside.
type door struct {
	roomID, userID string
	first          bool
}

// Bounds of what is done at a time.
const (
	maxEntering = 8
	maxFilling  = 4
)

// New brings the tables up to date and returns the door on them.
func New(ctx context.Context, db *store.DB, cfg Config) (*Joining, error) {
	cfg.defaults()
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "matrix-joining", dir); err != nil {
		return nil, fmt.Errorf("migrating the tables of Matrix rooms that are being entered: %w", err)
	}
	return &Joining{
		cfg: cfg, slots: make(chan struct{}, maxEntering), fills: make(chan struct{}, maxFilling),
		doors: map[door]chan struct{}{}, filling: map[core.ConvID]bool{},
	}, nil
}

// Start goes on with rooms whose members are not all known.
func (j *Joining) Start(ctx context.Context) error {
	j.mu.Lock()
	j.ctx, j.cancel = context.WithCancel(context.WithoutCancel(ctx))
	j.mu.Unlock()
	return j.resume(ctx)
}

// Stop breaks off what is under way and waits for it. Rooms whose members are not
// all known are gone on with by the next Start.
func (j *Joining) Stop() {
	j.mu.Lock()
	if j.cancel != nil {
		j.cancel()
	}
	j.ctx = nil
	j.mu.Unlock()
	j.wg.Wait()
}

// errStopped says that the server is ending.
var errStopped = hub.Refuse(hub.Unable, "this server is stopping")

// detached runs f, which Stop breaks off and waits for. It is not broken off when
// ctx ends, as far as other servers would be left with half of it; but then nobody
// waits for it.
func (j *Joining) detached(ctx context.Context, f func(context.Context) error) error {
	j.mu.Lock()
	base := j.ctx
	if base == nil {
		j.mu.Unlock()
		return errStopped
	}
	j.wg.Add(1)
	j.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer j.wg.Done()
		inner, cancel := context.WithTimeout(base, j.cfg.Timeout)
		defer cancel()
		done <- f(inner)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j *Joining) ours(server string) bool { return slices.Contains(j.cfg.Domains, server) }

func (j *Joining) count(labels ...string) {
	if j.cfg.Count != nil {
		j.cfg.Count.Count("matrix_doors", labels...)
	}
}

func serverOf(userID string) string {
	_, server, _ := strings.Cut(userID, ":")
	return server
}

// Routes are the endpoints for other servers.
//
// spec: MX 1.19 SS §10
// spec: MX 1.19 SS §11
// spec: MX 1.19 SS §12
// spec: MX 1.19 SS §13
func (j *Joining) Routes() []federation.Route {
	const v1, v2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
	var out []federation.Route
	for _, k := range []*kind{join, leave, knock} {
		out = append(out, federation.Route{Method: http.MethodGet, Path: v1 + "/make_" + k.name + "/{roomId}/{userId}", Handler: j.propose(k)})
		send := "/send_" + k.name + "/{roomId}/{eventId}"
		answer := map[string]func(any) any{v1: in200, v2: plain}
		if k == knock { // which has one version, in the form of the second
			answer = map[string]func(any) any{v1: plain}
		}
		for version, form := range answer {
			out = append(out, federation.Route{Method: http.MethodPut, Path: version + send, MaxBody: maxEvent, Handler: j.take(k, form)})
		}
	}
	const invite = "/invite/{roomId}/{eventId}"
	return append(out,
		federation.Route{Method: http.MethodPut, Path: v1 + invite, MaxBody: maxInvite, Handler: j.inviteOld},
		federation.Route{Method: http.MethodPut, Path: v2 + invite, MaxBody: maxInvite, Handler: j.invite},
	)
}

// Bounds of bodies, in bytes.
const (
	maxEvent  = wire.MaxPDU + 16<<10 // with what is not signed
	maxInvite = 1 << 20
)

// kind is one sort of membership that one asks another server for.
type kind struct {
	name       string
	membership string
	// versioned says that the asker lists the versions that it knows.
	versioned bool
}

var (
	join  = &kind{"join", "join", true}
	leave = &kind{"leave", "leave", false}
	knock = &kind{"knock", "knock", true}
)

func plain(v any) any { return v }

// in200 is the form of the first versions of endpoints.
func in200(v any) any { return []any{http.StatusOK, v} }

// object is a JSON object of an answer.
type object = map[string]any

func forbidden(format string, args ...any) error {
	return federation.Errorf(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

func invalid(format string, args ...any) error {
	return federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", format, args...)
}

func unknownRoom() error {
	return federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "There is no such room here.")
}

// refused turns what the hub and the room say into an answer for another server.
func refused(err error) error {
	if missing, ok := errors.AsType[*shared.MissingError](err); ok {
		return invalid("The event does not follow from what is known here: %v.", missing)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, shared.ErrNotShared), errors.Is(err, hub.ErrNone):
		return unknownRoom()
	case errors.Is(err, shared.ErrPartial):
		return federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "This server does not know the whole room yet; ask another one.")
	}
	switch hub.CodeOf(err) {
	case "":
		return err
	case hub.NotFound:
		return unknownRoom()
	}
	r, _ := errors.AsType[*hub.Refusal](err)
	return forbidden("%s", r.Text)
}

// compact is v as JSON.
func compact(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("a value of ours has no JSON: %w", err))
	}
	return raw
}
