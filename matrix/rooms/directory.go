package rooms

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

// directoryRoutes are about finding rooms.
//
// spec: MX 1.19 CS §8.3
func (s *Rooms) directoryRoutes() []client.Route {
	get, put, post := http.MethodGet, http.MethodPut, http.MethodPost
	const alias, list = v3 + "/directory/room/{roomAlias}", v3 + "/directory/list/room/{roomId}"
	return []client.Route{
		{Method: get, Path: alias, Auth: client.Optional, Handler: s.lookUp},
		{Method: put, Path: alias, Limit: client.Writes, Handler: s.putAlias},
		{Method: http.MethodDelete, Path: alias, Limit: client.Writes, Handler: s.deleteAlias},
		{Method: get, Path: v3 + "/rooms/{roomId}/aliases", Handler: s.aliases},
		{Method: get, Path: list, Auth: client.None, Handler: s.listed1},
		{Method: put, Path: list, Limit: client.Writes, Handler: s.setListed},
		{Method: get, Path: v3 + "/publicRooms", Auth: client.Optional, Limit: client.Searches, Handler: s.publicRooms},
		{Method: post, Path: v3 + "/publicRooms", Limit: client.Searches, Handler: s.publicRooms},
		{Method: get, Path: v1 + "/rooms/{roomId}/hierarchy", Limit: client.Searches, Handler: s.hierarchy},
		{Method: get, Path: v1 + "/room_summary/{roomIdOrAlias}", Auth: client.Optional, Handler: s.roomSummary},
	}
}

// lookUp says where an alias leads.
//
// spec: MX 1.19 CS §8.3
func (s *Rooms) lookUp(r *client.Request) (any, error) {
	alias := r.Var("roomAlias")
	if !strings.HasPrefix(alias, "#") {
		return nil, badParam("A room alias begins with #.")
	}
	if a, err := s.alias(r.Context(), alias); err == nil && s.abroad(r, a) {
		if err := r.Take(client.Searches); err != nil {
			return nil, err
		}
		id, servers, err := s.directory.Resolve(r.Context(), alias)
		if err != nil {
			return nil, err
		}
		return object{"room_id": id, "servers": servers}, nil
	}
	rm, err := s.reach(r.Context(), alias, r.Account)
	if err != nil {
		return nil, err
	}
	servers := []string{}
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		servers, err = s.serversOf(v, rm)
		return err
	})
	return object{"room_id": rm.id, "servers": servers}, err
}

// putAlias makes an alias lead to a room in which one is.
//
// spec: MX 1.19 CS §8.3
func (s *Rooms) putAlias(r *client.Request) (any, error) {
	var body struct {
		RoomID string `json:"room_id"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	var conv core.ConvID
	var a core.Address
	err := s.hub.Read(r.Context(), func(v hub.View) (err error) {
		if a, err = s.aliasHere(v, r.Var("roomAlias")); err != nil {
			return err
		}
		rm, err := inside(v, body.RoomID, r.Account)
		if err != nil {
			return err
		}
		conv = rm.conv.ID
		if _, err := v.ConversationAt(a); err == nil {
			return errTaken()
		} else if !errors.Is(err, hub.ErrNone) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.hub.Write(r.Context(), func(tx hub.Tx) error { return tx.PutRoomAddress(a, conv, r.Account) })
	if hub.CodeOf(err) == hub.Conflict {
		err = errTaken()
	}
	return nil, err
}

func errTaken() error {
	return client.Errorf(http.StatusConflict, client.Unknown, "That alias leads to a room already.")
}

// deleteAlias takes an alias away. Only those may who could change the room's
// main alias; its own address stays as long as the room is here.
//
// spec: MX 1.19 CS §8.3
func (s *Rooms) deleteAlias(r *client.Request) (any, error) {
	var a core.Address
	err := s.hub.Read(r.Context(), func(v hub.View) (err error) {
		if a, err = s.aliasHere(v, r.Var("roomAlias")); err != nil {
			return err
		}
		rm, err := s.resolve(v, r.Var("roomAlias"), r.Account)
		if err != nil {
			return err
		}
		if !mayAddress(rm) {
			return forbidden("You may not change the aliases of this room.")
		}
		if rm.conv.Address == a {
			return forbidden("This is the room's own address, by which it is known in other networks.")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nil, s.hub.Write(r.Context(), func(tx hub.Tx) error { return tx.DeleteRoomAddress(a) })
}

// mayAddress reports whether one may say under which addresses a room is found.
func mayAddress(rm *room) bool {
	return rm.joined() && rm.state.Level(rm.who) >= rm.state.Needs(string(core.AspectAddresses), true)
}

// aliases lists the aliases that lead to a room.
//
// spec: MX 1.19 CS §8.3
func (s *Rooms) aliases(r *client.Request) (any, error) {
	out := []string{}
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, _, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		all, err := v.RoomAddresses(rm.conv.ID)
		if err != nil {
			return err
		}
		names := s.mirror.Names(v)
		for _, a := range all {
			// A room that nobody named has its ID for an address.
			if alias := names.Alias(a); alias != "" && a.Name != string(rm.conv.ID) {
				out = append(out, alias)
			}
		}
		return nil
	})
	return object{"aliases": out}, err
}

// listed1 says whether a room is in the directory.
//
// spec: MX 1.19 CS §8.6
func (s *Rooms) listed1(r *client.Request) (any, error) {
	visibility := "private"
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, err := s.resolve(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		public, err := isPublic(v, rm.conv.ID)
		if public {
			visibility = "public"
		}
		return err
	})
	return object{"visibility": visibility}, err
}

// setListed puts a room into the directory, or takes it out.
//
// spec: MX 1.19 CS §8.6
func (s *Rooms) setListed(r *client.Request) (any, error) {
	body := struct {
		Visibility string `json:"visibility"`
	}{"public"}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Visibility != "public" && body.Visibility != "private" {
		return nil, badParam("There is no visibility %.40q.", body.Visibility)
	}
	var conv core.ConvID
	err := s.inRoom(r, func(_ hub.View, rm *room) error {
		conv = rm.conv.ID
		if !mayAddress(rm) {
			return forbidden("You may not change whether this room is listed.")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nil, s.hub.Write(r.Context(), func(tx hub.Tx) error { return tx.SetPublic(conv, body.Visibility == "public") })
}

// PublicQuery is what one looks for in the directory of a server.
//
// spec: MX 1.19 CS §8.6
type PublicQuery struct {
	Limit  int          `json:"limit,omitempty"`
	Since  string       `json:"since,omitempty"`
	Filter PublicFilter `json:"filter,omitzero"`
}

// PublicFilter chooses rooms; nil in Types is a room without a type.
type PublicFilter struct {
	Term  string     `json:"generic_search_term,omitempty"`
	Types *[]*string `json:"room_types,omitempty"`
}

// PublicPage is a page of such a directory.
type PublicPage struct {
	Chunk []Summary `json:"chunk"`
	Next  string    `json:"next_batch,omitempty"`
	Prev  string    `json:"prev_batch,omitempty"`
	Total int       `json:"total_room_count_estimate"`
}

// MaxPublicRooms is how many rooms a page has at the most.
const MaxPublicRooms = 500

// publicRooms lists the directory of this server or of another one.
//
// spec: MX 1.19 CS §8.6
func (s *Rooms) publicRooms(r *client.Request) (any, error) {
	q, server, err := publicQuery(r)
	if err != nil {
		return nil, err
	}
	if server == "" || s.hub.Hosts(server) {
		return s.PublicRooms(r.Context(), q, func(core.Conversation) bool { return true })
	}
	if !s.abroad(r, core.Address{Network: core.Matrix, Domain: server}) {
		return nil, notFound("This server does not know the rooms of %.300s.", server)
	}
	return s.directory.PublicRooms(r.Context(), server, q)
}

// PublicRooms lists those rooms of the directory that may be shown, the largest
// first.
//
// spec: MX 1.19 SS §15
func (s *Rooms) PublicRooms(ctx context.Context, q PublicQuery, show func(core.Conversation) bool) (PublicPage, error) {
	start, err := offset(q.Since)
	if err != nil {
		return PublicPage{}, err
	}
	var all []Summary
	err = s.hub.Read(ctx, func(v hub.View) error {
		ids, err := v.PublicRooms()
		if err != nil {
			return err
		}
		for _, id := range ids {
			c, err := v.Conversation(id)
			if err != nil {
				return err
			}
			if !show(c) {
				continue
			}
			sum, err := s.summarise(v, id)
			if err != nil {
				return err
			}
			if q.wants(sum) {
				all = append(all, sum)
			}
		}
		return nil
	})
	if err != nil {
		return PublicPage{}, err
	}
	slices.SortStableFunc(all, func(a, b Summary) int { return b.Members - a.Members })
	end := min(start+q.Limit, len(all))
	start = min(start, end)
	page := PublicPage{Chunk: append([]Summary{}, all[start:end]...), Total: len(all)}
	if end < len(all) {
		page.Next = strconv.Itoa(end)
	}
	if start > 0 {
		page.Prev = strconv.Itoa(max(start-q.Limit, 0))
	}
	return page, nil
}

// publicQuery reads the request in either of its forms.
func publicQuery(r *client.Request) (q PublicQuery, server string, err error) {
	const usual = 50
	if r.HTTP.Method == http.MethodPost {
		err = r.JSON(&q)
	} else {
		q.Since = r.Query("since")
		q.Limit, err = r.QueryInt("limit", usual, 1, MaxPublicRooms)
	}
	if q.Limit <= 0 {
		q.Limit = usual
	}
	q.Limit = min(q.Limit, MaxPublicRooms)
	return q, r.Query("server"), err
}

// offset reads the token of a list that is paged by counting.
func offset(token string) (int, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(token)
	if err != nil || n < 0 {
		return 0, errToken()
	}
	return n, nil
}

// wants holds a room to what is looked for, without regard to case.
func (q *PublicQuery) wants(sum Summary) bool {
	if q.Filter.Types != nil && !slices.ContainsFunc(*q.Filter.Types, func(t *string) bool {
		return t == nil && sum.Type == "" || t != nil && *t == sum.Type
	}) {
		return false
	}
	term := strings.ToLower(q.Filter.Term)
	for _, text := range []string{sum.Name, sum.Topic, sum.Alias} {
		if strings.Contains(strings.ToLower(text), term) {
			return true
		}
	}
	return false
}
