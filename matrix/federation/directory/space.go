package directory

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/rooms"
	"parley/matrix/wire"
)

const (
	maxSpaceAnswer = 1 << 20 // bytes
	maxAllowed     = 50      // rooms whose members may join another
	maxChildren    = 500     // of an answer
	maxVia         = 3       // servers that are asked for one room
)

// serveSpace says what belongs to a space.
//
// spec: MX 1.19 SS §16
func (d *Directory) serveSpace(r *federation.Request) (any, error) {
	suggested := false
	if text := r.HTTP.URL.Query().Get("suggested_only"); text != "" {
		var err error
		if suggested, err = strconv.ParseBool(text); err != nil {
			return nil, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "suggested_only is neither true nor false.")
		}
	}
	none := federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "There is no such room.")
	if wire.CheckRoomID(r.Var("roomId")) != nil {
		return nil, none
	}
	space, err := d.cfg.Rooms.SpaceFor(r.Context(), r.Var("roomId"), suggested, d.mayFind(r.Origin))
	if errors.Is(err, hub.ErrNone) {
		return nil, none
	}
	if err != nil {
		return nil, told(err)
	}
	return space, nil
}

// mayFind says which rooms a server may know of: those in which it is, or into
// which its users are asked, and those that they could join or ask to be let
// into.
//
// spec: MX 1.19 CS §10.38.2
func (d *Directory) mayFind(server string) func(hub.View, core.Conversation, *core.State) (bool, error) {
	return func(v hub.View, c core.Conversation, s *core.State) (bool, error) {
		if !ours(c) {
			return false, nil
		}
		allowed, err := d.cfg.Allows(v, c.ID, server)
		if err != nil || !allowed {
			return false, err
		}
		in, err := d.isIn(v, c.ID, server)
		if err != nil || in || s.Visibility == core.VisibleWorld {
			return err == nil, err
		}
		switch s.JoinRule {
		case core.JoinPublic, core.JoinKnock, core.JoinKnockRestricted:
			return true, nil
		case core.JoinRestricted:
			for _, id := range s.Allow[:min(len(s.Allow), maxAllowed)] {
				other, err := v.ConversationNative(core.Matrix, id)
				if errors.Is(err, hub.ErrNone) {
					continue
				}
				if err == nil {
					in, err = d.isIn(v, other, server)
				}
				if err != nil || in {
					return err == nil, err
				}
			}
		}
		for _, m := range s.Members {
			if (m.Standing == core.Invited || m.Standing == core.Knocked) && m.Address.Network == core.Matrix && m.Address.Domain == server {
				return true, nil
			}
		}
		return false, nil
	}
}

func (d *Directory) isIn(v hub.View, conv core.ConvID, server string) (bool, error) {
	servers, err := d.cfg.Servers(v, conv)
	return slices.Contains(servers, server), err
}

// Space implements [rooms.Directory]. What one server said of a room is not
// told to who would have asked another: the servers are those of a space's
// choice.
//
// spec: MX 1.19 SS §16
func (d *Directory) Space(ctx context.Context, roomID string, via []string, suggested bool) (*rooms.Space, error) {
	none := client.Errorf(http.StatusNotFound, client.NotFound, "There is no such room.")
	if wire.CheckRoomID(roomID) != nil {
		return nil, none
	}
	via = slices.DeleteFunc(serverNames(via), d.cfg.Hub.Hosts)
	if via = via[:min(len(via), maxVia)]; len(via) == 0 {
		return nil, none
	}
	key := strings.Join(append([]string{roomID, strconv.FormatBool(suggested)}, via...), " ")
	return d.spaces.get(ctx, key, nil, func(ctx context.Context) (*rooms.Space, int, time.Duration, error) {
		var failed error
		for _, server := range via {
			raw, err := d.ask(ctx, question{
				server: server, path: []string{"hierarchy", roomID}, maxAnswer: maxSpaceAnswer,
				query: url.Values{"suggested_only": {strconv.FormatBool(suggested)}},
			})
			var space *rooms.Space
			if err == nil {
				space, err = readSpace(raw, server, roomID)
			}
			if err == nil {
				return space, len(raw), spaceLife, nil
			}
			d.cfg.Log.Debug("a room was not found out about", "room", roomID, "err", err)
			failed = refused(err, server, "such room")
		}
		return nil, 0, failureLife, failed
	})
}

// readSpace reads what a server tells of a room. It may tell only of that room,
// and of rooms that the room names.
func readSpace(raw []byte, server, roomID string) (*rooms.Space, error) {
	var answer struct {
		Room         rooms.SpaceRoom   `json:"room"`
		Children     []json.RawMessage `json:"children"`
		Inaccessible []string          `json:"inaccessible_children"`
	}
	if json.Unmarshal(raw, &answer) != nil || !tidy(&answer.Room.Summary) || answer.Room.RoomID != roomID {
		return nil, malformed(server, errForm)
	}
	space := &rooms.Space{Room: answer.Room}
	named := map[string]bool{}
	children := answer.Room.Children
	space.Room.Children = children[:min(len(children), maxChildren)]
	for _, raw := range space.Room.Children {
		var e struct {
			Key string `json:"state_key"`
		}
		if json.Unmarshal(raw, &e) == nil && e.Key != roomID {
			named[e.Key] = true
		}
	}
	for _, raw := range answer.Children[:min(len(answer.Children), maxChildren)] {
		var sum rooms.Summary
		if json.Unmarshal(raw, &sum) == nil && tidy(&sum) && named[sum.RoomID] {
			space.Children = append(space.Children, sum)
		}
	}
	for _, id := range answer.Inaccessible[:min(len(answer.Inaccessible), maxChildren)] {
		if named[id] {
			space.Inaccessible = append(space.Inaccessible, id)
		}
	}
	return space, nil
}
