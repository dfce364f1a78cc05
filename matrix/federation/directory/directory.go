package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
)

// Caller calls other servers: a [federation.Client].
type Caller interface {
	Do(ctx context.Context, call federation.Call) ([]byte, error)
}

// Config is what a [Directory] stands on.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	API    *client.API
	Rooms  *rooms.Rooms
	Client Caller
	// Servers are the other servers that are in a room now.
	Servers func(v hub.View, conv core.ConvID) ([]string, error)
	// Allows reports whether a room's server ACL lets a server in.
	Allows func(v hub.View, conv core.ConvID, server string) (bool, error)
	Log    *slog.Logger
	// Now is for tests; nil is time.Now.
	Now func() time.Time
}

// How long answers are remembered, and how many.
const (
	profileLife = 5 * time.Minute
	aliasLife   = 5 * time.Minute
	spaceLife   = 5 * time.Minute
	// failureLife is for what could not be found out.
	failureLife = time.Minute
	// unreachedLife is for an alias of a server that could not be reached:
	// somebody waits at the door until it is back.
	unreachedLife = 3 * time.Second
	maxProfiles   = 2000
	maxAliases    = 2000
	maxSpaces     = 2000
	// The bytes of all answers of a kind that are remembered.
	maxProfileBytes = 16 << 20
	maxSpaceBytes   = 32 << 20
)

// askTime is for one question to one server.
const askTime = 10 * time.Second

// Directory asks and answers. It is safe for concurrent use.
type Directory struct {
	cfg      Config
	ctx      context.Context
	cancel   context.CancelFunc
	profiles *cache[profile]
	aliases  *cache[alias]
	spaces   *cache[*rooms.Space]
	pace     pace

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// New makes a directory.
func New(c Config) *Directory {
	if c.Now == nil {
		c.Now = time.Now
	}
	d := &Directory{cfg: c}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.profiles = newCache[profile](d, maxProfiles, maxProfileBytes)
	d.aliases = newCache[alias](d, maxAliases, maxProfileBytes)
	d.spaces = newCache[*rooms.Space](d, maxSpaces, maxSpaceBytes)
	return d
}

// Close breaks off what is being asked, and waits for it.
func (d *Directory) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.running.Wait()
}

// begin reports whether something may still be asked; done ends that.
func (d *Directory) begin() (done func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, false
	}
	d.running.Add(1)
	return d.running.Done, true
}

// Servers implements [rooms.Directory].
func (d *Directory) Servers(v hub.View, conv core.ConvID) ([]string, error) {
	return d.cfg.Servers(v, conv)
}

// Routes are the endpoints for other servers.
func (d *Directory) Routes() []federation.Route {
	const v1 = "/_matrix/federation/v1"
	return []federation.Route{
		{Method: http.MethodGet, Path: v1 + "/query/profile", Handler: d.serveProfile},
		{Method: http.MethodGet, Path: v1 + "/query/directory", Handler: d.serveAlias},
		{Method: http.MethodGet, Path: v1 + "/publicRooms", Handler: d.servePublic},
		{Method: http.MethodPost, Path: v1 + "/publicRooms", MaxBody: maxPublicQuery, Handler: d.servePublic},
		{Method: http.MethodGet, Path: v1 + "/hierarchy/{roomId}", Handler: d.serveSpace},
		{Method: http.MethodGet, Path: v1 + "/openid/userinfo", Open: true, Handler: d.serveOpenID},
	}
}

// serveOpenID says to another service whose OpenID token it has.
//
// spec: MX 1.19 SS §21
func (d *Directory) serveOpenID(r *federation.Request) (any, error) {
	who, err := d.cfg.API.OpenIDUser(r.Context(), r.HTTP.URL.Query().Get("access_token"))
	if err != nil {
		return nil, told(err)
	}
	return map[string]string{"sub": who}, nil
}

// question is one to another server.
type question struct {
	server    string
	method    string
	query     url.Values
	body      []byte
	path      []string // below /_matrix/federation/v1
	maxAnswer int64
	insist    bool // see [federation.Call]
}

// ask calls a server. It is one of ours that asks.
func (d *Directory) ask(ctx context.Context, q question) ([]byte, error) {
	if q.method == "" {
		q.method = http.MethodGet
	}
	return d.cfg.Client.Do(ctx, federation.Call{
		Origin: d.cfg.Hub.Home(), Destination: q.server, Method: q.method, Body: q.body, MaxAnswer: q.maxAnswer, Timeout: askTime, Insist: q.insist,
		URI: federation.URI(q.query, append([]string{"_matrix", "federation", "v1"}, q.path...)...),
	})
}

// refused says to a client why another server gave no answer. what is "such
// user".
func refused(err error, server, what string) error {
	if _, ok := errors.AsType[*client.Error](err); ok {
		return err
	}
	e, ok := errors.AsType[*federation.Error](err)
	switch {
	case ok && e.Status == http.StatusNotFound:
		return client.Errorf(http.StatusNotFound, client.NotFound, "%.300s knows no %s.", server, what)
	case ok && (e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized), errors.Is(err, federation.ErrRefused):
		return client.Errorf(http.StatusForbidden, client.Forbidden, "%.300s does not tell.", server)
	}
	// Who asks for clients of other networks looks at the cause too.
	return errors.Join(client.Errorf(http.StatusBadGateway, client.Unknown, "%.300s cannot be asked at the moment.", server), err)
}

// malformed is the error for an answer that is not what it should be.
func malformed(server string, why error) error {
	return fmt.Errorf("%s answers with something else than was asked for: %w", server, why)
}

var errForm = errors.New("it is not of the form that it should have")
