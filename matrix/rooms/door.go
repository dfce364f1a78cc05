package rooms

import (
	"context"
	"errors"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/wire"
)

// Door gets people into rooms of other servers. Package joining implements it.
type Door interface {
	// Join makes one a member of a room that is named by its ID or an alias; via
	// are servers that are said to be in it.
	Join(ctx context.Context, idOrAlias string, via []string, r hub.JoinRequest) (core.ConvID, error)
	// Knock asks to be invited to it.
	Knock(ctx context.Context, idOrAlias string, via []string, who core.Address, reason string) (core.ConvID, error)
}

// UseDoor sets how rooms of other servers are entered; without, there are none.
// It is called before anybody asks.
func (s *Rooms) UseDoor(d Door) { s.door = d }

// maxNamed is how many servers a client may name.
const maxNamed = 20

// via are the servers that a client says are in a room.
//
// spec: MX 1.19 CS §8.5.1
func via(r *client.Request) []string {
	q := r.HTTP.URL.Query()
	list := slices.Concat(q["via"], q["server_name"]) // as it was called before
	return list[:min(len(list), maxNamed)]
}

// outside reports whether only other servers can let one into a room, because
// nobody of ours is in it.
func (s *Rooms) outside(ctx context.Context, idOrAlias string, who core.Address) (out bool, err error) {
	if s.door == nil {
		return false, nil
	}
	err = s.hub.Read(ctx, func(v hub.View) error {
		rm, err := s.resolve(v, idOrAlias, who)
		if err == nil {
			out = s.abandoned(v, rm)
			return nil
		}
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Errcode != client.NotFound {
			return err
		}
		if !strings.HasPrefix(idOrAlias, "#") {
			out = wire.CheckRoomID(idOrAlias) == nil
			return nil
		}
		a, err := s.mirror.Names(v).RoomAddress(idOrAlias)
		out = err == nil && !a.IsLocal() && a.Network == core.Matrix
		return err
	})
	return out, err
}

// abandoned reports whether a room goes on elsewhere and nobody of ours is in it,
// so that what is known of it is of the past.
func (s *Rooms) abandoned(v hub.View, rm *room) bool {
	if rm.conv.Authority != core.Graph {
		return false
	}
	for _, m := range rm.state.Members {
		if m.Standing == core.Joined && s.here(v, m.Address) {
			return false
		}
	}
	return true
}

// here reports whether somebody is known to other Matrix servers as one of ours.
func (s *Rooms) here(v hub.View, a core.Address) bool {
	_, domain, _ := strings.Cut(s.userID(v, a), ":")
	return s.hub.Hosts(domain)
}

// entered is the answer to one who got into a room of other servers.
func (s *Rooms) entered(ctx context.Context, conv core.ConvID, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	var id string
	err = s.hub.Read(ctx, func(v hub.View) (err error) {
		id, err = roomIDOf(v, conv)
		return err
	})
	return object{"room_id": id}, err
}
