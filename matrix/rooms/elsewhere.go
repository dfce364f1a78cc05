package rooms

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/wire"
)

// Directory asks other Matrix servers about rooms that are not known here. What
// it returns is of the form that it should have, and no more than that: nobody
// says that it is true. Its errors are [client.Error]s.
type Directory interface {
	// Resolve finds the room to which an alias of another server leads, and
	// servers that are in it.
	Resolve(ctx context.Context, alias string) (roomID string, servers []string, err error)
	// PublicRooms is a page of another server's directory.
	PublicRooms(ctx context.Context, server string, q PublicQuery) (PublicPage, error)
	// Space asks the servers, in turn, what they tell us of a room.
	Space(ctx context.Context, roomID string, via []string, suggested bool) (*Space, error)
	// Servers are the other servers that are in a room now.
	Servers(v hub.View, conv core.ConvID) ([]string, error)
}

// UseDirectory has other servers asked, from before the first request on.
func (s *Rooms) UseDirectory(d Directory) { s.directory = d }

// abroad reports whether a request is about another Matrix server, which is
// asked on behalf of accounts only.
func (s *Rooms) abroad(r *client.Request, a core.Address) bool {
	return s.directory != nil && a.Network == core.Matrix && !r.Account.IsZero()
}

// alias reads the alias of a request.
func (s *Rooms) alias(ctx context.Context, alias string) (a core.Address, err error) {
	err = s.hub.Read(ctx, func(v hub.View) error {
		if a, err = s.mirror.Names(v).RoomAddress(alias); err != nil {
			return badParam("%.300q is not a valid room alias.", alias)
		}
		return nil
	})
	return a, err
}

// maxServers is how many servers of a room are named.
const maxServers = 100

// serversOf are some servers that are in a room, ours first.
func (s *Rooms) serversOf(v hub.View, rm *room) ([]string, error) {
	out := []string{s.config.Server}
	if s.directory == nil || rm.conv.Authority == core.Elsewhere {
		return out, nil
	}
	others, err := s.directory.Servers(v, rm.conv.ID)
	return append(out, others[:min(len(others), maxServers)]...), err
}

// Bounds of asking others for the rooms of one page of a space.
const (
	maxRounds    = 6
	maxAsked     = 40 // rooms
	maxAskedAt   = 8  // rooms at a time
	hierarchyFor = 15 * time.Second
)

// explorer knows what other servers told of rooms during one request.
type explorer struct {
	s         *Rooms
	suggested bool
	asked     int

	mu sync.Mutex
	// known are the rooms of which something was told; nil where they were asked
	// for in vain.
	known map[string]*Space
}

// explore asks for rooms, and reports whether any of them had not been asked
// for.
func (x *explorer) explore(ctx context.Context, missing []child) bool {
	var all sync.WaitGroup
	slots := make(chan struct{}, maxAskedAt)
	progress := false
	for _, c := range missing {
		if x.asked >= maxAsked || ctx.Err() != nil {
			break
		}
		x.asked++
		progress = true
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			space, err := x.s.directory.Space(ctx, c.id, c.via, x.suggested)
			if err != nil {
				x.s.log.Debug("a room of a space is not known elsewhere either", "room", c.id, "err", err)
				space = nil
			}
			x.note(c.id, space)
		})
	}
	all.Wait()
	return progress
}

// note remembers what was told of a room, and of those of its children of which
// nothing more need be asked: rooms that have no children.
func (x *explorer) note(id string, space *Space) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.known[id] = space
	if space == nil {
		return
	}
	put := func(id string, s *Space) {
		if _, ok := x.known[id]; !ok {
			x.known[id] = s
		}
	}
	for _, c := range space.Children {
		if c.Type != typeSpace {
			put(c.RoomID, &Space{Room: SpaceRoom{Summary: c}})
		}
	}
	for _, id := range space.Inaccessible {
		put(id, nil)
	}
}

// mayFindThere is [Rooms.mayFind] for a room that other servers told of.
//
// spec: MX 1.19 CS §10.38.2
func mayFindThere(v hub.View, sum Summary, who core.Address) (bool, error) {
	if sum.World {
		return true, nil
	}
	switch core.JoinRule(sum.JoinRule) {
	case core.JoinPublic, core.JoinKnock, core.JoinKnockRestricted:
		return true, nil
	case core.JoinRestricted:
		return joinedAny(v, sum.Allowed, who)
	}
	return false, nil
}

// joinedAny reports whether one is in any of some rooms.
func joinedAny(v hub.View, rooms []string, who core.Address) (bool, error) {
	for _, id := range rooms {
		rm, err := find(v, id, who)
		if err == nil && rm.joined() {
			return true, nil
		}
		if err != nil && !errors.Is(err, hub.ErrNone) {
			return false, err
		}
	}
	return false, nil
}

// viaOf is the server that a room ID of the older kind names.
func viaOf(roomID string) []string {
	_, server, ok := strings.Cut(roomID, ":")
	if !ok || wire.ParseServerName(server) != nil {
		return nil
	}
	return []string{server}
}

// summaryThere asks other servers for the summary of a room that is not known
// here.
//
// spec: MX 1.19 CS §8.7
func (s *Rooms) summaryThere(r *client.Request, idOrAlias string, via []string) (Summary, error) {
	none := notFound("There is no such room.")
	if s.directory == nil || r.Account.IsZero() {
		return Summary{}, none
	}
	if err := r.Take(client.Searches); err != nil {
		return Summary{}, err
	}
	if strings.HasPrefix(idOrAlias, "#") {
		a, err := s.alias(r.Context(), idOrAlias)
		if err != nil || a.Network != core.Matrix {
			return Summary{}, none
		}
		id, servers, err := s.directory.Resolve(r.Context(), idOrAlias)
		if err != nil {
			return Summary{}, err
		}
		idOrAlias, via = id, append(via, servers...)
	}
	via = append(via, viaOf(idOrAlias)...)
	if wire.CheckRoomID(idOrAlias) != nil || len(via) == 0 {
		return Summary{}, none
	}
	space, err := s.directory.Space(r.Context(), idOrAlias, via, false)
	if err != nil {
		return Summary{}, err
	}
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		ok, err := mayFindThere(v, space.Room.Summary, r.Account)
		if err == nil && !ok {
			err = none
		}
		return err
	})
	sum := space.Room.Summary
	sum.Membership = string(core.Left)
	return sum, err
}
