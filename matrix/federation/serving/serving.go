// Package serving answers what other Matrix servers ask about rooms that they
// and this server are in: an event, the state at it, what it cites, and what was
// said before it.
//
// Who asks is known, see [federation.Server]. What it may hear is decided here: a
// room's list of servers, whether the server is in the room or was at the time
// that it asks about, and how open the room was when an event was sent. It reads
// a snapshot by [shared.Look] and changes nothing.
package serving

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/matrix/shared"
)

// Config is what serving stands on.
type Config struct {
	Hub    *hub.Hub
	Mirror *mirror.Mirror
	Rooms  *shared.Rooms
	Log    *slog.Logger
}

// Serving answers. Its methods may be called from any goroutine.
type Serving struct {
	cfg  Config
	gate gate
}

// New makes a Serving.
func New(c Config) *Serving { return &Serving{cfg: c, gate: newGate()} }

// maxQuestion bounds the body of a question, in bytes.
const maxQuestion = 64 << 10

// Routes is the table for [federation.Server.Add].
//
// spec: MX 1.19 SS §9
func (s *Serving) Routes() []federation.Route {
	const v1 = "/_matrix/federation/v1/"
	get := func(path string, f federation.Handler) federation.Route {
		return federation.Route{Method: http.MethodGet, Path: v1 + path, Handler: s.gate.through(f)}
	}
	return []federation.Route{
		get("event/{eventId}", s.event),
		get("state/{roomId}", s.state),
		get("state_ids/{roomId}", s.stateIDs),
		get("event_auth/{roomId}/{eventId}", s.eventAuth),
		get("backfill/{roomId}", s.backfill),
		{Method: http.MethodPost, Path: v1 + "get_missing_events/{roomId}", Handler: s.gate.through(s.missing), MaxBody: maxQuestion},
		get("timestamp_to_event/{roomId}", s.atTime),
	}
}

func forbidden(format string, args ...any) error {
	return federation.Errorf(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

func notFound(format string, args ...any) error {
	return federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", format, args...)
}

func badParam(format string, args ...any) error {
	return federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", format, args...)
}

// errOutside is the same for rooms that are not there and for those that one is
// not in.
func errOutside() error { return forbidden("Your server is not in this room.") }

// told makes an answer of the errors of a look.
func told(err error) error {
	switch {
	case errors.Is(err, shared.ErrUnknownState):
		return notFound("The state there is not known here.")
	case errors.Is(err, shared.ErrTooMuch):
		return federation.Errorf(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "That is more than this server tells at once.")
	}
	return err
}

// visit is a server's look at a room that lets it in.
type visit struct {
	*shared.Look
	s      *Serving
	v      hub.View
	origin string
	// inside says that somebody of the server is in the room, or was when the
	// events were sent that it asks about.
	inside bool
}

// inRoom runs f with the room of the request's path, which lets the server in.
//
// spec: MX 1.19 SS §26
func (s *Serving) inRoom(r *federation.Request, f func(*visit) (any, error)) (answer any, err error) {
	err = s.cfg.Hub.Read(r.Context(), func(v hub.View) error {
		l, err := s.cfg.Rooms.Look(v, r.Var("roomId"))
		if errors.Is(err, shared.ErrNotShared) {
			return errOutside()
		}
		if err != nil {
			return err
		}
		w, err := s.enter(v, l, r.Origin)
		if err == nil {
			answer, err = f(w)
		}
		return told(err)
	})
	return answer, err
}

// enter holds a server to the room's list of servers.
func (s *Serving) enter(v hub.View, l *shared.Look, origin string) (*visit, error) {
	ok, err := s.cfg.Rooms.Allows(v, l.Conv, origin)
	if err == nil && !ok {
		err = forbidden("This room does not let your server take part.")
	}
	if err != nil {
		return nil, err
	}
	w := &visit{Look: l, s: s, v: v, origin: origin}
	w.inside, err = l.Has(origin)
	return w, err
}

// asks reports whether the server may ask about events: it is in the room, or
// was when they were sent, or anybody may read them.
func (w *visit) asks(events ...shared.Event) error {
	if w.inside {
		return nil
	}
	if len(events) == 0 {
		return errOutside()
	}
	was := true
	for _, e := range events {
		in, err := w.Was(w.origin, e)
		if err != nil {
			return err
		}
		was = was && in
	}
	if w.inside = was; was {
		return nil
	}
	sees, err := w.sees(events)
	if err == nil && slices.ContainsFunc(events, func(e shared.Event) bool { return !sees[e.EventID] }) {
		err = errOutside()
	}
	return err
}

// transaction is what some endpoints answer.
type transaction struct {
	Origin string `json:"origin"`
	Time   int64  `json:"origin_server_ts"`
	PDUs   any    `json:"pdus"`
}

func newTransaction(r *federation.Request, pdus any) transaction {
	return transaction{r.Destination, time.Now().UnixMilli(), pdus}
}

// maxTries is how many events are looked at for one that one may read who is not
// in the room.
const maxTries = 50

// atTime finds the event nearest to a time.
//
// spec: MX 1.19 SS §9
func (s *Serving) atTime(r *federation.Request) (any, error) {
	q := r.HTTP.URL.Query()
	ts, err := strconv.ParseInt(q.Get("ts"), 10, 64)
	if err != nil || ts < 0 {
		return nil, badParam("ts must be a time in milliseconds.")
	}
	dir := q.Get("dir")
	if dir != "f" && dir != "b" {
		return nil, badParam("dir must be f or b.")
	}
	return s.inRoom(r, func(w *visit) (any, error) {
		tries := 0
		found, err := s.cfg.Mirror.AtTime(w.v, w.Conv, ts, dir == "f", func(e *core.Event) (bool, error) {
			if w.inside { // of an event that it may not see, it hears no more than when it was
				return true, nil
			}
			if tries++; tries > maxTries {
				return false, hub.ErrNone
			}
			return w.open(e)
		})
		switch {
		case errors.Is(err, hub.ErrNone) && !w.inside:
			return nil, errOutside()
		case errors.Is(err, hub.ErrNone):
			return nil, notFound("There is no event in that direction.")
		case err != nil:
			return nil, err
		}
		return map[string]any{"event_id": found.EventID, "origin_server_ts": found.Time}, nil
	})
}
