package sync

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
)

// Syncer answers /sync. Its methods may be called from any goroutine.
type Syncer struct {
	hub    *hub.Hub
	mirror *mirror.Mirror
	rooms  *rooms.Rooms
	api    *client.API
	log    *slog.Logger

	watch     *watch
	lazy      *memories
	unread    *unreadCache
	confirmed confirmations
	// roomIDs are the Matrix room IDs of conversations, which never change.
	roomIDs sync.Map // of core.ConvID to string
}

// New makes a Syncer. Close it when no request runs any more.
func New(h *hub.Hub, m *mirror.Mirror, r *rooms.Rooms, api *client.API, log *slog.Logger) *Syncer {
	s := &Syncer{hub: h, mirror: m, rooms: r, api: api, log: log}
	s.watch = newWatch(h, log)
	s.lazy = newMemories()
	s.unread = newUnreadCache()
	return s
}

// Routes is the table for [client.API.Add].
func (s *Syncer) Routes() []client.Route {
	return []client.Route{
		{Method: http.MethodGet, Path: "/_matrix/client/v3/sync", Limit: client.Unlimited, Handler: s.sync},
	}
}

// Close ends the presence that running requests stood for.
func (s *Syncer) Close() { s.watch.close() }

// maxWait is the longest that a request waits.
const maxWait = 3 * time.Minute

// request is what a client asks of /sync.
type request struct {
	account    core.Address
	device     string
	userID     string
	filter     rooms.Filter
	filterText string
	since      *rooms.Mark // nil at first
	token      string      // since as it came
	full       bool        // full_state
	after      bool        // use_state_after
	wait       time.Duration
	presence   core.Show
}

func (q *request) initial() bool { return q.since == nil }

// feed is how far the client has come.
func (q *request) feed() core.Feed {
	if q.since == nil {
		return 0
	}
	return q.since.Feed
}

// parse reads the query.
func (s *Syncer) parse(r *client.Request) (*request, error) {
	q := &request{account: r.Account, device: r.Device, userID: r.UserID, token: r.Query("since")}
	if q.token != "" {
		m, err := rooms.ParseMark(q.token)
		if err != nil {
			return nil, err
		}
		q.since = &m
	}
	var err error
	if q.full, err = r.QueryBool("full_state", false); err != nil {
		return nil, err
	}
	if q.after, err = r.QueryBool("use_state_after", false); err != nil {
		return nil, err
	}
	ms, err := r.QueryInt("timeout", 0, 0, int(maxWait.Milliseconds()))
	if err != nil {
		return nil, err
	}
	// spec: MX 1.19 CS §7.6
	if !q.full && !q.initial() {
		q.wait = time.Duration(ms) * time.Millisecond
	}
	switch r.Query("set_presence") {
	case "", "online":
		q.presence = core.ShowOnline
	case "unavailable":
		q.presence = core.ShowAway
	case "offline":
		q.presence = core.ShowOffline
	default:
		return nil, client.Errorf(http.StatusBadRequest, client.InvalidParam, "There is no such presence.")
	}
	return q, s.readFilter(r, q)
}

// readFilter reads the filter, which is JSON or the ID of a stored one.
func (s *Syncer) readFilter(r *client.Request, q *request) error {
	text := r.Query("filter")
	if text == "" {
		return nil
	}
	raw := []byte(text)
	if raw[0] != '{' {
		err := s.hub.Read(r.Context(), func(v hub.View) (err error) {
			raw, err = s.api.Filter(v, r.Account, text)
			return err
		})
		if err != nil {
			return err
		}
	}
	var err error
	q.filterText = string(raw)
	q.filter, err = rooms.ParseFilter(raw)
	return err
}

// sync answers at once if there is something to tell, and else when there is
// or when the time is over.
//
// spec: MX 1.19 CS §7.6
func (s *Syncer) sync(r *client.Request) (any, error) {
	q, err := s.parse(r)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if err := s.confirm(ctx, q); err != nil {
		return nil, err
	}
	// Attach first and read then: what comes in between is in both.
	ears, err := s.hub.Attach(hub.SessionSpec{Account: q.account, Protocol: core.Matrix, Bound: 256})
	if errors.Is(err, hub.ErrClosed) {
		return nil, client.Errorf(http.StatusServiceUnavailable, client.Unknown, "The server is stopping.")
	}
	if err != nil {
		return nil, err
	}
	defer ears.Close()
	s.watch.begin(q.account, q.device, q.presence)
	defer s.watch.end(q.account, q.device)
	deadline := time.NewTimer(q.wait)
	defer deadline.Stop()
	keys := false
	for {
		if err := s.api.RefreshIgnored(ctx, q.account); err != nil {
			return nil, err
		}
		a, err := s.build(ctx, q)
		if err != nil {
			return nil, err
		}
		if !a.empty() || q.wait == 0 || keys {
			return a, nil
		}
		var on bool
		if on, keys = listen(ctx, ears, deadline.C, q.device); !on {
			return a, ctx.Err()
		}
	}
}

// listen waits until there may be something to tell; on is false when the time
// is over. What there is, the store says: a commit may be in a snapshot before
// its news is in the queue, so the news cannot say where not to look.
func listen(ctx context.Context, ears *hub.Session, over <-chan time.Time, device string) (on, keys bool) {
	for {
		for n, ok := ears.TryNext(); ok; n, ok = ears.TryNext() {
			concerns, fewer := concerns(n, device)
			on, keys = on || concerns, keys || fewer
		}
		if on {
			return true, keys
		}
		if ears.Closed() {
			return false, false
		}
		select {
		case <-ears.Ready():
		case <-over:
			return false, false
		case <-ctx.Done():
			return false, false
		}
	}
}

// concerns reports whether news may be something for a device, and whether it
// is that its one-time keys became fewer.
func concerns(n hub.News, device string) (concerns, keys bool) {
	switch n := n.(type) {
	case hub.ReadingNews:
		return n.Reading.Stage == core.StageDisplayed || !n.Own, false
	case hub.PokeNews:
		switch n.Topic {
		case client.TopicDevices:
			return true, false
		case client.TopicToDevice:
			return n.Data == device, false
		case client.TopicKeys:
			return n.Data == device, n.Data == device
		}
		return false, false
	case hub.ContactNews, hub.ProfileNews:
		return false, false // what comes of it is an event, or presence
	}
	return true, false
}
