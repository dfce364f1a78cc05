package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
)

// summary is a room as those see it who are not in it.
//
// spec: MX 1.19 CS §8.6
type summary struct {
	RoomID     string   `json:"room_id"`
	Name       string   `json:"name,omitempty"`
	Topic      string   `json:"topic,omitempty"`
	Avatar     string   `json:"avatar_url,omitempty"`
	Alias      string   `json:"canonical_alias,omitempty"`
	Members    int      `json:"num_joined_members"`
	World      bool     `json:"world_readable"`
	Guests     bool     `json:"guest_can_join"`
	JoinRule   string   `json:"join_rule"`
	Type       string   `json:"room_type,omitempty"`
	Version    string   `json:"room_version,omitempty"`
	Encryption string   `json:"encryption,omitempty"`
	Allowed    []string `json:"allowed_room_ids,omitempty"`

	Membership string            `json:"membership,omitempty"`
	Children   []json.RawMessage `json:"children_state,omitempty"`
}

// summarise reads a room's summary.
func (s *Rooms) summarise(v hub.View, id core.ConvID) (summary, error) {
	c, err := v.Conversation(id)
	if err != nil {
		return summary{}, err
	}
	state, err := v.State(id)
	if err != nil {
		return summary{}, err
	}
	names := s.mirror.Names(v)
	sum := summary{
		RoomID: c.Native[core.Matrix], Name: state.Name, Topic: state.Topic, Members: len(state.Joined()),
		World: state.Visibility == core.VisibleWorld, JoinRule: string(state.JoinRule),
		Type: state.Creation.Type, Version: state.Creation.Version, Allowed: state.Allow,
	}
	if !state.Main.IsZero() {
		sum.Alias = names.Alias(state.Main)
	}
	if state.Avatar != nil {
		if uri, ok := names.URI(*state.Avatar); ok {
			sum.Avatar = uri
		}
	}
	if state.Encryption != nil {
		sum.Encryption = state.Encryption.Scheme
	}
	return sum, nil
}

// mayFind reports whether one may see a room's summary.
//
// spec: MX 1.19 CS §10.38.2
func (s *Rooms) mayFind(v hub.View, rm *room) (bool, error) {
	switch rm.mine {
	case core.Joined, core.Invited, core.Knocked:
		return true, nil
	case core.Banned:
		return false, nil
	}
	if rm.state.Visibility == core.VisibleWorld {
		return true, nil
	}
	switch rm.state.JoinRule {
	case core.JoinPublic, core.JoinKnock, core.JoinKnockRestricted:
		return true, nil
	case core.JoinRestricted:
		for _, other := range rm.state.Allow {
			o, err := find(v, other, rm.who)
			if err == nil && o.joined() {
				return true, nil
			}
			if err != nil && !errors.Is(err, hub.ErrNone) {
				return false, err
			}
		}
	}
	return false, nil
}

// roomSummary is what one may know of a room before joining.
//
// spec: MX 1.19 CS §8.7
func (s *Rooms) roomSummary(r *client.Request) (any, error) {
	var sum summary
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, err := s.resolve(v, r.Var("roomIdOrAlias"), r.Account)
		if err != nil {
			return err
		}
		ok, err := s.mayFind(v, rm)
		if err == nil && !ok {
			err = notFound("There is no such room.")
		}
		if err != nil {
			return err
		}
		if sum, err = s.summarise(v, rm.conv.ID); !r.Account.IsZero() {
			sum.Membership = string(rm.mine)
		}
		return err
	})
	return sum, err
}

const (
	maxSpaceRooms = 50 // of one page
	maxSpaceDepth = 10
	maxSpaceWalk  = 2000 // rooms looked at for one page
)

// walker goes through the tree of a space, depth first and each room once.
type walker struct {
	s         *Rooms
	v         hub.View
	who       core.Address
	suggested bool
	depth     int
	skip      int // rooms of earlier pages
	limit     int

	seen  map[string]bool
	rooms []summary
	found int
	more  bool
}

// hierarchy is the tree of rooms of a space.
//
// spec: MX 1.19 CS §10.38.2
func (s *Rooms) hierarchy(r *client.Request) (any, error) {
	w := walker{s: s, who: r.Account, seen: map[string]bool{}, rooms: []summary{}}
	var err error
	if w.suggested, err = r.QueryBool("suggested_only", false); err != nil {
		return nil, err
	}
	if w.limit, err = r.QueryInt("limit", maxSpaceRooms, 1, maxSpaceRooms); err != nil {
		return nil, err
	}
	if w.depth, err = r.QueryInt("max_depth", maxSpaceDepth, 0, maxSpaceDepth); err != nil {
		return nil, err
	}
	// The token says what the tree was looked at for, and how far.
	look := strconv.FormatBool(w.suggested) + "-" + strconv.Itoa(w.depth) + "-"
	if from := r.Query("from"); from != "" {
		rest, ok := strings.CutPrefix(from, look)
		if w.skip, err = offset(rest); err != nil || !ok {
			return nil, badParam("suggested_only and max_depth cannot change on the way, and the token must be one of this server's.")
		}
	}
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		w.v = v
		root := r.Var("roomId")
		if err := w.walk(root, 0); err != nil {
			return err
		}
		if w.found == 0 {
			return errOutside()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer := object{"rooms": w.rooms}
	if w.more {
		answer["next_batch"] = look + strconv.Itoa(w.skip+len(w.rooms))
	}
	return answer, nil
}

// walk visits one room and then its children. Rooms that one may not see, or
// that this server does not know, are passed over.
func (w *walker) walk(roomID string, depth int) error {
	if w.seen[roomID] || w.more || len(w.seen) >= maxSpaceWalk {
		return nil
	}
	w.seen[roomID] = true
	rm, err := find(w.v, roomID, w.who)
	if errors.Is(err, hub.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	if ok, err := w.s.mayFind(w.v, rm); err != nil || !ok {
		return err
	}
	children, err := w.children(rm)
	if err != nil {
		return err
	}
	w.found++
	if w.found > w.skip {
		if len(w.rooms) == w.limit {
			w.more = true
			return nil
		}
		sum, err := w.s.summarise(w.v, rm.conv.ID)
		if err != nil {
			return err
		}
		sum.Children = []json.RawMessage{}
		for _, c := range children {
			shown, err := stripped(c)
			if err != nil {
				return err
			}
			sum.Children = append(sum.Children, shown)
		}
		w.rooms = append(w.rooms, sum)
	}
	if depth == w.depth {
		return nil
	}
	for _, c := range children {
		if err := w.walk(*c.StateKey, depth+1); err != nil {
			return err
		}
	}
	return nil
}

const (
	typeChild = "m.space.child"
	typeSpace = "m.space"
)

// childContent is what a space says of one of its rooms.
//
// spec: MX 1.19 CS §10.38.1.1
type childContent struct {
	Via       []string `json:"via"`
	Order     string   `json:"order"`
	Suggested bool     `json:"suggested"`
}

// children are the valid children of a space, in their order.
func (w *walker) children(rm *room) ([]mirror.Event, error) {
	if rm.state.Creation.Type != typeSpace {
		return nil, nil
	}
	state, err := w.s.mirror.State(w.v, rm.conv.ID)
	if err != nil {
		return nil, err
	}
	type child struct {
		mirror.Event
		order string
	}
	var list []child
	for _, e := range state {
		var c childContent
		if e.Type != typeChild || json.Unmarshal(e.Content, &c) != nil || len(c.Via) == 0 || w.suggested && !c.Suggested {
			continue
		}
		list = append(list, child{e, validOrder(c.Order)})
	}
	slices.SortStableFunc(list, func(a, b child) int {
		if (a.order == "") != (b.order == "") {
			return len(b.order) - len(a.order) // those with an order come first
		}
		return bytes.Compare([]byte(a.order+"\x00"+*a.StateKey), []byte(b.order+"\x00"+*b.StateKey))
	})
	out := make([]mirror.Event, len(list))
	for i, c := range list {
		out[i] = c.Event
	}
	return out, nil
}

// validOrder is the order, if it is one.
//
// spec: MX 1.19 CS §10.38.1.1.1
func validOrder(s string) string {
	if len(s) > 50 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return s
}

// stripped is a child event as the hierarchy shows it.
func stripped(e mirror.Event) (json.RawMessage, error) {
	return json.Marshal(object{
		"type": e.Type, "state_key": *e.StateKey, "sender": e.Sender,
		"content": json.RawMessage(e.Content), "origin_server_ts": e.Time,
	})
}
