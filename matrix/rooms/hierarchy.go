package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/wire"
)

const (
	maxSpaceRooms = 50 // of one page
	maxSpaceDepth = 10
	maxSpaceWalk  = 2000 // rooms looked at for one page
	// maxTold is how many rooms of a space another server is told of.
	maxTold = 500
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
	// elsewhere are the rooms that other servers told of; missing are those of
	// which nobody has been asked.
	elsewhere map[string]*Space
	missing   []child

	seen  map[string]bool
	rooms []SpaceRoom
	found int
	more  bool
}

// hierarchy is the tree of rooms of a space.
//
// spec: MX 1.19 CS §10.38.2
func (s *Rooms) hierarchy(r *client.Request) (any, error) {
	w := walker{s: s, who: r.Account}
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
	root := child{id: r.Var("roomId"), via: viaOf(r.Var("roomId"))}
	if err := s.explore(r.Context(), &w, root); err != nil {
		return nil, err
	}
	answer := object{"rooms": w.rooms}
	if w.more {
		answer["next_batch"] = look + strconv.Itoa(w.skip+len(w.rooms))
	}
	return answer, nil
}

// explore walks through the tree, has others asked for the rooms that are not
// known here, and walks once more, until nothing is missing or it has asked
// enough. Nobody is asked while a snapshot of the database is held.
func (s *Rooms) explore(ctx context.Context, w *walker, root child) error {
	x := explorer{s: s, suggested: w.suggested, known: map[string]*Space{}}
	asking, cancel := context.WithTimeout(ctx, hierarchyFor)
	defer cancel()
	for range maxRounds {
		w.elsewhere, w.missing, w.seen, w.rooms = x.known, nil, map[string]bool{}, []SpaceRoom{}
		w.found, w.more = 0, false
		err := s.hub.Read(ctx, func(v hub.View) error {
			w.v = v
			return w.walk(root, 0)
		})
		if err != nil {
			return err
		}
		if s.directory == nil || len(w.missing) == 0 || !x.explore(asking, w.missing) {
			break
		}
	}
	if w.found == 0 {
		return errOutside()
	}
	return nil
}

// walk visits one room and then its children. Rooms that one may not see, or
// of which nobody knows, are passed over.
func (w *walker) walk(c child, depth int) error {
	if w.seen[c.id] || w.more || len(w.seen) >= maxSpaceWalk {
		return nil
	}
	w.seen[c.id] = true
	rm, err := find(w.v, c.id, w.who)
	if errors.Is(err, hub.ErrNone) {
		return w.walkElsewhere(c, depth)
	}
	if err != nil {
		return err
	}
	// What was once known of a room is better than nothing.
	if w.s.directory != nil && rm.mine == core.Left && w.s.abandoned(w.v, rm) && (w.unasked(c) || w.elsewhere[c.id] != nil) {
		return w.walkElsewhere(c, depth)
	}
	if ok, err := w.s.mayFind(w.v, rm); err != nil || !ok {
		return err
	}
	children, err := w.s.children(w.v, rm, w.suggested)
	if err != nil {
		return err
	}
	return w.visit(children, depth, func() (Summary, error) { return w.s.summarise(w.v, rm.conv.ID) })
}

// walkElsewhere visits a room that is not known here, or no longer.
func (w *walker) walkElsewhere(c child, depth int) error {
	space := w.elsewhere[c.id]
	if space == nil {
		if w.unasked(c) {
			w.missing = append(w.missing, c)
		}
		return nil
	}
	if ok, err := mayFindThere(w.v, space.Room.Summary, w.who); err != nil || !ok {
		return err
	}
	return w.visit(space.Room.children(w.suggested), depth, func() (Summary, error) { return space.Room.Summary, nil })
}

// unasked reports whether somebody could still be asked for a room.
func (w *walker) unasked(c child) bool {
	_, asked := w.elsewhere[c.id]
	return !asked && len(c.via) > 0 && wire.CheckRoomID(c.id) == nil
}

// visit puts a room onto the page, if that has come so far, and walks on.
func (w *walker) visit(children []child, depth int, summarise func() (Summary, error)) error {
	w.found++
	if w.found > w.skip {
		if len(w.rooms) == w.limit {
			w.more = true
			return nil
		}
		sum, err := summarise()
		if err != nil {
			return err
		}
		w.rooms = append(w.rooms, SpaceRoom{sum, shown(children)})
	}
	if depth == w.depth {
		return nil
	}
	for _, c := range children {
		if err := w.walk(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// SpaceFor is what another server is told of a room; may decides which rooms it
// may find. [hub.ErrNone] where there is no room for it. Rooms of other networks
// are not ours to tell of.
//
// spec: MX 1.19 SS §16
func (s *Rooms) SpaceFor(ctx context.Context, roomID string, suggested bool, may func(hub.View, core.Conversation, *core.State) (bool, error)) (*Space, error) {
	out := &Space{Children: []Summary{}, Inaccessible: []string{}}
	err := s.hub.Read(ctx, func(v hub.View) error {
		rm, ok, err := findFor(v, roomID, may)
		if err != nil || !ok {
			return errors.Join(err, hub.ErrNone)
		}
		children, err := s.children(v, rm, suggested)
		if err != nil {
			return err
		}
		if out.Room.Summary, err = s.summarise(v, rm.conv.ID); err != nil {
			return err
		}
		out.Room.Children = shown(children)
		for _, c := range children[:min(len(children), maxTold)] {
			rm, ok, err := findFor(v, c.id, may)
			if errors.Is(err, hub.ErrNone) {
				continue
			}
			if err == nil && !ok {
				out.Inaccessible = append(out.Inaccessible, c.id)
				continue
			}
			if err != nil {
				return err
			}
			sum, err := s.summarise(v, rm.conv.ID)
			if err != nil {
				return err
			}
			out.Children = append(out.Children, sum)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func findFor(v hub.View, roomID string, may func(hub.View, core.Conversation, *core.State) (bool, error)) (*room, bool, error) {
	rm, err := find(v, roomID, core.Address{})
	if err == nil && rm.conv.Authority == core.Elsewhere {
		err = hub.ErrNone
	}
	if err != nil {
		return nil, false, err
	}
	ok, err := may(v, rm.conv, rm.state)
	return rm, ok, err
}

const (
	typeChild = "m.space.child"
	typeSpace = "m.space"
)

// child is a room of a space.
type child struct {
	id    string
	via   []string
	order string
	shown json.RawMessage // the event
}

// childEvent is the stripped event by which a space names a room.
//
// spec: MX 1.19 CS §10.38.1.1
type childEvent struct {
	Type    string          `json:"type"`
	Key     string          `json:"state_key"`
	Sender  string          `json:"sender"`
	Content json.RawMessage `json:"content"`
	Time    int64           `json:"origin_server_ts"`
}

// maxVia is how many servers of a child are kept.
const maxVia = 20

// read is the child, if the event names one.
func (e childEvent) read(suggested bool) (child, bool) {
	var c struct {
		Via       []string `json:"via"`
		Order     string   `json:"order"`
		Suggested bool     `json:"suggested"`
	}
	if e.Type != typeChild || e.Key == "" || json.Unmarshal(e.Content, &c) != nil || len(c.Via) == 0 || suggested && !c.Suggested {
		return child{}, false
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return child{}, false
	}
	return child{e.Key, c.Via[:min(len(c.Via), maxVia)], validOrder(c.Order), raw}, true
}

// children are the valid children of a space here, in their order.
func (s *Rooms) children(v hub.View, rm *room, suggested bool) ([]child, error) {
	if rm.state.Creation.Type != typeSpace {
		return nil, nil
	}
	state, err := s.mirror.StateOf(v, rm.conv.ID, typeChild)
	if err != nil {
		return nil, err
	}
	var out []child
	for _, e := range state {
		if c, ok := (childEvent{e.Type, *e.StateKey, e.Sender, json.RawMessage(e.Content), e.Time}).read(suggested); ok {
			out = append(out, c)
		}
	}
	return inOrder(out), nil
}

// children are the valid children of a space elsewhere, in their order.
func (r SpaceRoom) children(suggested bool) (out []child) {
	if r.Type != typeSpace {
		return nil
	}
	for _, raw := range r.Children {
		var e childEvent
		if json.Unmarshal(raw, &e) != nil {
			continue
		}
		if c, ok := e.read(suggested); ok {
			out = append(out, c)
		}
	}
	return inOrder(out)
}

// inOrder sorts children: those with an order first.
//
// spec: MX 1.19 CS §10.38.1.1.1
func inOrder(list []child) []child {
	slices.SortStableFunc(list, func(a, b child) int {
		if (a.order == "") != (b.order == "") {
			return len(b.order) - len(a.order)
		}
		return bytes.Compare([]byte(a.order+"\x00"+a.id), []byte(b.order+"\x00"+b.id))
	})
	return list
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

func shown(children []child) []json.RawMessage {
	out := make([]json.RawMessage, len(children))
	for i, c := range children {
		out[i] = c.shown
	}
	return out
}
