package rooms

import (
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
	if !strings.HasPrefix(r.Var("roomAlias"), "#") {
		return nil, badParam("A room alias begins with #.")
	}
	rm, err := s.reach(r.Context(), r.Var("roomAlias"), r.Account)
	if err != nil {
		return nil, err
	}
	return object{"room_id": rm.id, "servers": []string{s.config.Server}}, nil
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

// publicRequest is what one looks for in the directory.
type publicRequest struct {
	Limit  int    `json:"limit"`
	Since  string `json:"since"`
	Server string `json:"server"`
	Filter struct {
		Term  string     `json:"generic_search_term"`
		Types *[]*string `json:"room_types"`
	} `json:"filter"`
}

// publicRooms lists the directory, the largest rooms first.
//
// spec: MX 1.19 CS §8.6
func (s *Rooms) publicRooms(r *client.Request) (any, error) {
	body, err := publicQuery(r)
	if err != nil {
		return nil, err
	}
	if body.Server != "" && !s.hub.Hosts(body.Server) {
		return nil, notFound("This server does not know the rooms of %.300s.", body.Server)
	}
	start, err := offset(body.Since)
	if err != nil {
		return nil, err
	}
	var all []summary
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		ids, err := v.PublicRooms()
		if err != nil {
			return err
		}
		for _, id := range ids {
			sum, err := s.summarise(v, id)
			if err != nil {
				return err
			}
			if body.wants(sum) {
				all = append(all, sum)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b summary) int { return b.Members - a.Members })
	end := min(start+body.Limit, len(all))
	start = min(start, end)
	page := all[start:end]
	if page == nil {
		page = []summary{}
	}
	answer := object{"chunk": page, "total_room_count_estimate": len(all)}
	if end < len(all) {
		answer["next_batch"] = strconv.Itoa(end)
	}
	if start > 0 {
		answer["prev_batch"] = strconv.Itoa(max(start-body.Limit, 0))
	}
	return answer, nil
}

// publicQuery reads the request in either of its forms.
func publicQuery(r *client.Request) (b publicRequest, err error) {
	const usual, most = 50, 500
	if r.HTTP.Method == http.MethodPost {
		err = r.JSON(&b)
	} else {
		b.Since = r.Query("since")
		b.Limit, err = r.QueryInt("limit", usual, 1, most)
	}
	if b.Server == "" {
		b.Server = r.Query("server")
	}
	if b.Limit <= 0 {
		b.Limit = usual
	}
	b.Limit = min(b.Limit, most)
	return b, err
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
func (b *publicRequest) wants(sum summary) bool {
	if b.Filter.Types != nil && !slices.ContainsFunc(*b.Filter.Types, func(t *string) bool {
		return t == nil && sum.Type == "" || t != nil && *t == sum.Type
	}) {
		return false
	}
	term := strings.ToLower(b.Filter.Term)
	for _, text := range []string{sum.Name, sum.Topic, sum.Alias} {
		if strings.Contains(strings.ToLower(text), term) {
			return true
		}
	}
	return false
}
