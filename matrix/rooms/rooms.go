package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/translate"
	"parley/matrix/wire"
)

// Config is what the operator decides.
type Config struct {
	// Version is the room version of new rooms.
	Version string
	// Server is the first domain, for what needs the name of some server.
	Server string
}

// Rooms answers about rooms. Its methods may be called from any goroutine.
type Rooms struct {
	hub    *hub.Hub
	mirror *mirror.Mirror
	config Config
	log    *slog.Logger
	// directory asks other Matrix servers; nil where there are none.
	directory Directory
	// door gets people into rooms of other servers; nil where there are none.
	door Door
}

// New makes a Rooms on a hub and its Matrix mirror.
func New(h *hub.Hub, m *mirror.Mirror, config Config, log *slog.Logger) *Rooms {
	return &Rooms{hub: h, mirror: m, config: config, log: log}
}

// Routes is the table for [client.API.Add].
func (s *Rooms) Routes() []client.Route {
	var all []client.Route
	for _, t := range [][]client.Route{
		s.memberRoutes(), s.eventRoutes(), s.historyRoutes(), s.directoryRoutes(), s.readingRoutes(),
	} {
		all = append(all, t...)
	}
	return all
}

const (
	v1 = "/_matrix/client/v1"
	v3 = "/_matrix/client/v3"
)

func forbidden(format string, args ...any) error {
	return client.Errorf(http.StatusForbidden, client.Forbidden, format, args...)
}

func notFound(format string, args ...any) error {
	return client.Errorf(http.StatusNotFound, client.NotFound, format, args...)
}

func badParam(format string, args ...any) error {
	return client.Errorf(http.StatusBadRequest, client.InvalidParam, format, args...)
}

// object is a JSON object of an answer.
type object = map[string]any

// room is one room as one request sees it, from one snapshot.
type room struct {
	id    string // Matrix room ID
	conv  core.Conversation
	state *core.State
	who   core.Address
	mine  core.Standing
}

func (rm *room) joined() bool { return rm.mine == core.Joined }

// find looks a room up by its ID; [hub.ErrNone] if there is none.
func find(v hub.View, roomID string, who core.Address) (*room, error) {
	id, err := v.ConversationNative(core.Matrix, roomID)
	if err != nil {
		return nil, err
	}
	rm := &room{id: roomID, who: who}
	if rm.conv, err = v.Conversation(id); err != nil {
		return nil, err
	}
	if rm.state, err = v.State(id); err != nil {
		return nil, err
	}
	rm.mine = rm.state.Standing(who)
	return rm, nil
}

// errOutside is the same for rooms that are not there and for those that one
// is not in, so that nobody can tell them apart.
func errOutside() error { return forbidden("You are not in this room.") }

// inside finds a room that who is joined to.
func inside(v hub.View, roomID string, who core.Address) (*room, error) {
	rm, err := find(v, roomID, who)
	if errors.Is(err, hub.ErrNone) || err == nil && !rm.joined() {
		return nil, errOutside()
	}
	return rm, err
}

// last says up to where one may know a room's state: nil for up to now.
type last *core.Position

// readable finds a room of which who may see the state: as it is now for
// members and for all if anybody may read it, as it was when she left for one
// who was a member.
func readable(v hub.View, roomID string, who core.Address) (*room, last, error) {
	rm, err := find(v, roomID, who)
	if errors.Is(err, hub.ErrNone) {
		return nil, nil, errOutside()
	}
	if err != nil {
		return nil, nil, err
	}
	if rm.joined() || rm.state.Visibility == core.VisibleWorld {
		return rm, nil, nil
	}
	stays, err := v.Stays(rm.conv.ID, who)
	if err != nil {
		return nil, nil, err
	}
	for i := len(stays) - 1; i >= 0; i-- {
		if stays[i].Joined != 0 && stays[i].Left != 0 {
			return rm, &stays[i].Left, nil
		}
	}
	return nil, nil, errOutside()
}

// inRoom runs f on a snapshot with the room of the request's path, in which
// its user must be.
func (s *Rooms) inRoom(r *client.Request, f func(v hub.View, rm *room) error) error {
	return s.hub.Read(r.Context(), func(v hub.View) error {
		rm, err := inside(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		return f(v, rm)
	})
}

// address reads a user ID of a request.
func (s *Rooms) address(v hub.View, userID string) (core.Address, error) {
	a, err := s.mirror.Names(v).Address(userID)
	if err != nil {
		return a, badParam("%.300q is not a valid user ID.", userID)
	}
	return a, nil
}

// userID spells an address.
func (s *Rooms) userID(v hub.View, a core.Address) string {
	id, _ := s.mirror.Names(v).UserID(a)
	return id
}

// viewer is for whom events of an answer are written.
func viewer(r *client.Request) mirror.Viewer {
	return mirror.Viewer{User: r.Account, Device: r.Device}
}

// EventID is what Matrix calls an event.
func EventID(e *core.Event) string {
	a, _ := e.Alias(core.Matrix, "event")
	return a.Key
}

// coreID finds an event of a room by its Matrix ID; [hub.ErrNone] if there is
// none there.
func coreID(v hub.View, rm *room, eventID string) (core.EventID, error) {
	id, _, err := v.EventBy(core.Alias{Network: core.Matrix, Kind: "event", Key: eventID})
	if err != nil {
		return "", err
	}
	e, err := v.Event(id)
	if err != nil {
		return "", err
	}
	if e.Conv != rm.conv.ID {
		return "", hub.ErrNone
	}
	return id, nil
}

// content translates what a client sends into a draft for a room.
func (s *Rooms) draft(v hub.View, rm *room, e translate.Event) (hub.Draft, error) {
	res, err := s.mirror.Resolver(v, rm.conv.ID)
	if err != nil {
		return hub.Draft{}, err
	}
	e.Sender = s.userID(v, rm.who)
	d, err := draft(res, e)
	d.Conv, d.Sender = rm.conv.ID, rm.who
	return d, err
}

// draft translates an event; what cannot be translated is the client's fault.
func draft(res translate.Resolver, e translate.Event) (hub.Draft, error) {
	content, _, err := translate.In(res, e)
	var native *core.Native
	if err == nil {
		native, err = translate.Native(e)
	}
	if errors.Is(err, wire.ErrTooLarge) {
		return hub.Draft{}, client.Errorf(http.StatusRequestEntityTooLarge, client.TooLarge, "%v", err)
	}
	if errors.Is(err, translate.ErrContent) {
		return hub.Draft{}, client.Errorf(http.StatusBadRequest, client.BadJSON, "%v", err)
	}
	return hub.Draft{Content: content, Native: native}, err
}

// show writes mirrored events for the client.
func (s *Rooms) show(v hub.View, r *client.Request, events []mirror.Event) ([]json.RawMessage, error) {
	out, err := s.mirror.Client(v, viewer(r), events)
	if out == nil {
		out = []json.RawMessage{} // an empty list, and not null
	}
	return out, err
}

// roomIDOf is the Matrix room ID of a conversation.
func roomIDOf(v hub.View, id core.ConvID) (string, error) {
	c, err := v.Conversation(id)
	return c.Native[core.Matrix], err
}

// resolve finds a room by ID or alias.
func (s *Rooms) resolve(v hub.View, idOrAlias string, who core.Address) (*room, error) {
	if len(idOrAlias) > 0 && idOrAlias[0] == '#' {
		a, err := s.mirror.Names(v).RoomAddress(idOrAlias)
		if err != nil {
			return nil, badParam("%.300q is not a valid room alias.", idOrAlias)
		}
		id, err := hub.RoomFor(v, who, a)
		if errors.Is(err, hub.ErrNone) {
			return nil, notFound("There is no room %s.", idOrAlias)
		}
		if err != nil {
			return nil, err
		}
		if idOrAlias, err = roomIDOf(v, id); err != nil {
			return nil, err
		}
	}
	rm, err := find(v, idOrAlias, who)
	if errors.Is(err, hub.ErrNone) {
		return nil, notFound("There is no such room.")
	}
	return rm, err
}

// reach is [Rooms.locate], also for rooms of other servers in which who is not
// yet.
func (s *Rooms) reach(ctx context.Context, idOrAlias string, who core.Address) (*room, error) {
	rm, err := s.locate(ctx, idOrAlias, who)
	if err == nil || !strings.HasPrefix(idOrAlias, "#") || who.IsZero() {
		return rm, err
	}
	var a core.Address
	bad := s.hub.Read(ctx, func(v hub.View) (err error) {
		a, err = s.mirror.Names(v).RoomAddress(idOrAlias)
		return err
	})
	if bad != nil || a.IsLocal() {
		return nil, err
	}
	id, err := s.hub.Look(ctx, who, a)
	if err != nil {
		return nil, err
	}
	err = s.hub.Read(ctx, func(v hub.View) error {
		native, err := roomIDOf(v, id)
		if err == nil {
			rm, err = find(v, native, who)
		}
		return err
	})
	return rm, err
}

// locate is [Rooms.resolve] in a snapshot of its own.
func (s *Rooms) locate(ctx context.Context, idOrAlias string, who core.Address) (rm *room, err error) {
	err = s.hub.Read(ctx, func(v hub.View) error {
		rm, err = s.resolve(v, idOrAlias, who)
		return err
	})
	return rm, err
}
