package devices

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/federation/sending"
	"parley/matrix/translate"
	"parley/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the tables of this package up to date.
func Migrate(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx, "matrix-devices", dir); err != nil {
		return fmt.Errorf("migrating the tables of devices elsewhere: %w", err)
	}
	return nil
}

// Limits of what other servers may send and ask.
const (
	maxKey      = 64 << 10 // bytes of one key object
	maxID       = 255      // bytes of an ID
	maxName     = 256      // bytes of a device's name
	maxDevices  = 1000     // of one user
	maxUsers    = 1000     // in one request
	maxAsked    = 5000     // devices in one request
	maxMessages = 5000     // to-device messages in one EDU
	maxContent  = 256 << 10
)

// Caller calls other servers. [federation.Client] does.
type Caller interface {
	Do(ctx context.Context, call federation.Call) ([]byte, error)
}

// Sender owes ephemeral data to other servers. [sending.Sender] does.
type Sender interface {
	OweEDU(tx hub.Tx, origin, dest string, e sending.EDU) error
	// Servers are the other servers that are in a room.
	Servers(v hub.View, conv core.ConvID) ([]string, error)
}

// Config is what [Devices] stand on. Zero values are the defaults that are
// named.
type Config struct {
	Hub    *hub.Hub
	API    *client.API
	Client Caller
	Sender Sender
	Log    *slog.Logger
	// Count hears "matrix_device_updates" with what came of an update of
	// another server ("applied", "repeated", "gap", "malformed"),
	// "matrix_to_device_dropped" with why ("blocked", "full", "malformed",
	// "repeated"), "matrix_device_lists" with the outcome of fetching one
	// ("fetched", "failed"), and "panics". It may be nil.
	Count hub.Counter
	// TellNames gives the names of devices to other servers.
	TellNames bool
	// Pause is how long a list is not fetched again without somebody waiting
	// for it: 5 seconds.
	Pause time.Duration
	// FirstRetry is the pause after fetching a list has failed, doubled by each
	// further failure up to MaxRetry: a minute and 2 hours.
	FirstRetry, MaxRetry time.Duration
}

// Devices implements [client.Others] and [hub.Mirror]. Its methods may be called
// from any goroutine.
type Devices struct {
	cfg   Config
	hub   *hub.Hub
	api   *client.API
	names translate.Names
	keep  contain.Keeper

	watching watching
	fetches  singleflight.Group // of lists, by user
	refetch  *refetcher
	slots    chan struct{} // calls that clients wait for
	pruning  pruning

	ctx  context.Context // ends with Stop
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	stopped bool
}

// New makes Devices. The database has been migrated. It is for the caller to
// have them used: [client.API.UseOthers], [hub.Hub.AddMirror].
func New(c Config) *Devices {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Pause, 5*time.Second)
	set(&c.FirstRetry, time.Minute)
	set(&c.MaxRetry, 2*time.Hour)
	if c.Count == nil {
		c.Count = noCounter{}
	}
	d := &Devices{
		cfg: c, hub: c.Hub, api: c.API, names: c.API.Names.Names, slots: make(chan struct{}, maxCalls),
		keep: contain.Keeper{Where: "matrix devices", Log: c.Log, Count: c.Count},
	}
	d.ctx, d.end = context.WithCancel(context.Background())
	d.refetch = newRefetcher(d)
	return d
}

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// Start begins to fetch the lists that are stale.
func (d *Devices) Start(ctx context.Context) error {
	if err := d.refetch.load(ctx); err != nil || !d.enter() {
		return err
	}
	go func() {
		defer d.work.Done()
		d.refetch.run()
	}()
	return nil
}

// Stop ends what is under way and waits for it. Nothing is lost: what is stale
// is so in the store.
func (d *Devices) Stop() {
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	d.end()
	d.work.Wait()
}

// enter begins a piece of work for which Stop waits, unless it was called.
func (d *Devices) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.work.Add(1)
	}
	return !d.stopped
}

// Routes is the table for [federation.Server.Add].
func (d *Devices) Routes() []federation.Route {
	const user = "/_matrix/federation/v1/user"
	return []federation.Route{
		{Method: "GET", Path: user + "/devices/{userId}", Handler: d.serveDevices},
		{Method: "POST", Path: user + "/keys/query", Handler: d.serveQuery},
		{Method: "POST", Path: user + "/keys/claim", Handler: d.serveClaim},
	}
}

// EDUs are what deals with the ephemeral data of other servers, by its type.
//
// spec: MX 1.19 SS §22
// spec: MX 1.19 SS §23
// spec: MX 1.19 SS §24
func (d *Devices) EDUs() map[string]func(ctx context.Context, origin string, content json.RawMessage) error {
	return map[string]func(context.Context, string, json.RawMessage) error{
		eduDevices:       d.takeDevices,
		eduSigning:       d.takeSigning,
		eduSigningBefore: d.takeSigning,
		eduToDevice:      d.takeToDevice,
	}
}

// The types of ephemeral data. eduSigningBefore is what servers said before it
// was specified.
const (
	eduDevices       = "m.device_list_update"
	eduSigning       = "m.signing_key_update"
	eduSigningBefore = "org.matrix.signing_key_update"
	eduToDevice      = "m.direct_to_device"
)

// errEDU is wrapped where ephemeral data is not as it must be.
var errEDU = errors.New("malformed ephemeral data")

// sender reads the user ID of somebody of whom a server may speak: one of its
// own users.
func (d *Devices) sender(origin, userID string) (core.Address, error) {
	who, err := d.names.Address(userID)
	if err != nil {
		return who, fmt.Errorf("%w: %w", errEDU, err)
	}
	if who.Network != core.Matrix || who.Domain != origin {
		return who, fmt.Errorf("%w: %s speaks of %.255q", errEDU, origin, userID)
	}
	return who, nil
}

func (d *Devices) userID(a core.Address) string { return d.api.UserID(a) }

// decode reads the content of ephemeral data.
func decode(content json.RawMessage, v any) error {
	if err := json.Unmarshal(content, v); err != nil {
		return fmt.Errorf("%w: %w", errEDU, err)
	}
	return nil
}
