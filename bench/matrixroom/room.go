// Package matrixroom makes Matrix rooms as other servers have them, for
// measurements: of any number of members on any number of servers, with as much
// history as is said in them. A room is in memory, and nobody's goroutine: who
// shares one locks it.
package matrixroom

import (
	"encoding/json"
	"fmt"
	"time"

	"parley/matrix/wire"
)

// Room is a room of a version, by its members.
type Room struct {
	Version *wire.Version
	ID      string
	// State are the events in force, in the order in which their keys were first
	// set.
	State []*wire.PDU
	// Events are all that there ever were, by their IDs, and Said the same in the
	// order in which they came.
	Events map[string]*wire.PDU
	Said   []*wire.PDU
	// Users are those who joined, in their order.
	Users []string
	// Ends are the events that none follows so far.
	Ends []*wire.PDU

	keys map[wire.StateKey]int // where in State
	key  func(server string) *wire.SigningKey
	time int64 // of the last event
}

// Config says what room to make.
type Config struct {
	Version string
	// ID is the room's, in versions in which it is not made of the create event.
	ID string
	// Creator is the first member.
	Creator string
	// Key is what a server signs with; nil for events without signatures.
	Key func(server string) *wire.SigningKey
	// Began is when it was made; each event comes a millisecond after the other.
	Began time.Time
}

// New makes a public room in which all may set the topic.
func New(c Config) (*Room, error) {
	version, err := wire.VersionOf(c.Version)
	if err != nil {
		return nil, err
	}
	r := &Room{
		Version: version, Events: map[string]*wire.PDU{}, keys: map[wire.StateKey]int{}, key: c.Key, time: c.Began.UnixMilli(),
	}
	create, levels := map[string]any{"room_version": c.Version}, map[string]any{
		"users": map[string]int{}, "ban": 50, "kick": 50, "invite": 0, "events": map[string]int{"m.room.topic": 0},
	}
	if !version.HashedRoomID {
		r.ID, levels["users"] = c.ID, map[string]int{c.Creator: 100}
	}
	if version.CreatorKey {
		create["creator"] = c.Creator
	}
	if err := r.set(wire.TypeCreate, c.Creator, create); err != nil {
		return nil, err
	}
	r.ID = r.State[0].RoomID
	if err := r.Join(c.Creator); err != nil {
		return nil, err
	}
	if err := r.set(wire.TypePowerLevels, c.Creator, levels); err != nil {
		return nil, err
	}
	return r, r.set(wire.TypeJoinRules, c.Creator, map[string]any{"join_rule": "public"})
}

// set makes a piece of the state that has no key.
func (r *Room) set(typ, sender string, content map[string]any) error {
	text, err := json.Marshal(content) // sorts the keys, as canonical JSON wants it
	if err != nil {
		return err
	}
	key := ""
	_, err = r.Say(typ, &key, sender, string(text))
	return err
}

// Join has somebody join.
func (r *Room) Join(who string) error {
	localpart, _, err := wire.ParseUserID(who)
	if err != nil {
		return err
	}
	content := fmt.Sprintf(`{"displayname":%q,"membership":"join"}`, localpart)
	_, err = r.Say(wire.TypeMember, &who, who, content)
	return err
}

// Say makes an event after the ends, which it becomes. The content is canonical
// JSON; what has no key is no state.
func (r *Room) Say(typ string, key *string, sender, content string) (*wire.PDU, error) {
	e, err := r.After(r.Ends, typ, key, sender, content)
	if err == nil {
		r.Take(e)
	}
	return e, err
}

// After builds an event after others, which is to be taken or sent to others.
func (r *Room) After(prev []*wire.PDU, typ string, key *string, sender, content string) (*wire.PDU, error) {
	r.time++
	p := wire.Proto{RoomID: r.ID, Type: typ, StateKey: key, Sender: sender, Content: []byte(content), Depth: 1, Time: r.time}
	for _, e := range prev {
		p.PrevEvents = append(p.PrevEvents, e.EventID)
		p.Depth = max(p.Depth, e.Depth+1)
	}
	p.AuthEvents = r.Cites(typ, key, sender, p.Content)
	e, err := wire.Build(r.Version, p)
	if err != nil || r.key == nil {
		return e, err
	}
	_, server, err := wire.ParseUserID(sender)
	if err != nil {
		return nil, err
	}
	e.JSON, err = e.Sign(wire.Signer{Server: server, Key: r.key(server)})
	return e, err
}

// Cites are the IDs of the events that give the right to an event.
func (r *Room) Cites(typ string, key *string, sender string, content []byte) (ids []string) {
	for _, k := range wire.AuthTypes(r.Version, typ, key, sender, content) {
		if e := r.Get(k.Type, k.Key); e != nil {
			ids = append(ids, e.EventID)
		}
	}
	return ids
}

// Get is the piece of the state that is in force; nil if there is none.
func (r *Room) Get(typ, key string) *wire.PDU {
	if i, ok := r.keys[wire.StateKey{Type: typ, Key: key}]; ok {
		return r.State[i]
	}
	return nil
}

// Take makes an event of any server part of the room, once, without judging it:
// state that comes later counts.
func (r *Room) Take(e *wire.PDU) {
	if r.Events[e.EventID] != nil {
		return
	}
	r.Events[e.EventID] = e
	r.Said = append(r.Said, e)
	r.time = max(r.time, e.Time)
	ends := []*wire.PDU{e}
	for _, end := range r.Ends {
		followed := false
		for _, id := range e.PrevEvents {
			followed = followed || id == end.EventID
		}
		if !followed {
			ends = append(ends, end)
		}
	}
	r.Ends = ends
	if e.StateKey == nil {
		return
	}
	k := wire.StateKey{Type: e.Type, Key: *e.StateKey}
	i, known := r.keys[k]
	if !known {
		i = len(r.State)
		r.keys[k], r.State = i, append(r.State, nil)
		if e.Type == wire.TypeMember {
			r.Users = append(r.Users, k.Key)
		}
	}
	r.State[i] = e
}

// Chain is what events cite, and what that cites, in an order in which each comes
// after those that it cites.
func (r *Room) Chain(of ...*wire.PDU) (chain []*wire.PDU) {
	seen := map[string]bool{}
	var visit func(e *wire.PDU)
	visit = func(e *wire.PDU) {
		for _, id := range e.AuthEvents {
			if cited := r.Events[id]; cited != nil && !seen[id] {
				seen[id] = true
				visit(cited)
				chain = append(chain, cited)
			}
		}
	}
	for _, e := range of {
		visit(e)
	}
	return chain
}
