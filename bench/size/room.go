package size

import (
	"fmt"
	"slices"

	"parley/matrix/shared"
	"parley/matrix/wire"
)

// room is a room as its other servers have it.
type room struct {
	version *wire.Version
	id      string
	create  *wire.PDU
	levels  *wire.PDU
	rule    *wire.PDU
	members map[string]*wire.PDU
	users   []string // in the order in which they joined
	state   []*wire.PDU
	ends    []*wire.PDU
	time    int64
}

// newRoom makes a public room of so many members on so many servers.
func newRoom(members, servers int) (*room, error) {
	version, err := wire.VersionOf("12")
	if err != nil {
		return nil, err
	}
	r := &room{version: version, members: map[string]*wire.PDU{}, time: 1_700_000_000_000}
	creator := user(0, servers)
	if r.create, err = r.say(wire.TypeCreate, "", creator, `{"room_version":"12"}`); err != nil {
		return nil, err
	}
	r.id = r.create.RoomID
	if err := r.join(creator); err != nil {
		return nil, err
	}
	if r.levels, err = r.say(wire.TypePowerLevels, "", creator, `{"users":{},"ban":50,"kick":50,"invite":0,"events":{"m.room.topic":0}}`); err != nil {
		return nil, err
	}
	if r.rule, err = r.say(wire.TypeJoinRules, "", creator, `{"join_rule":"public"}`); err != nil {
		return nil, err
	}
	for i := 1; i < members; i++ {
		if err := r.join(user(i, servers)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func user(i, servers int) string { return fmt.Sprintf("@user%d:server%d.test", i, i%servers) }

func (r *room) join(who string) error {
	m, err := r.say(wire.TypeMember, who, who, `{"displayname":"`+who[1:9]+`","membership":"join"}`)
	if err == nil {
		r.members[who] = m
		r.users = append(r.users, who)
	}
	return err
}

// say builds a state event after the ends, which it becomes.
func (r *room) say(typ, key, sender, content string) (*wire.PDU, error) {
	e, err := r.after(r.ends, typ, &key, sender, content)
	if err != nil {
		return nil, err
	}
	r.state, r.ends = append(r.state, e), []*wire.PDU{e}
	return e, nil
}

// after builds an event after others.
func (r *room) after(prev []*wire.PDU, typ string, key *string, sender, content string) (*wire.PDU, error) {
	r.time++
	p := wire.Proto{RoomID: r.id, Type: typ, StateKey: key, Sender: sender, Content: []byte(content), Depth: 1, Time: r.time}
	for _, e := range prev {
		p.PrevEvents = append(p.PrevEvents, e.EventID)
		p.Depth = max(p.Depth, e.Depth+1)
	}
	for _, k := range wire.AuthTypes(r.version, typ, key, sender, p.Content) {
		if e := r.find(k); e != nil {
			p.AuthEvents = append(p.AuthEvents, e.EventID)
		}
	}
	return wire.Build(r.version, p)
}

func (r *room) find(k wire.StateKey) *wire.PDU {
	switch k.Type {
	case wire.TypePowerLevels:
		return r.levels
	case wire.TypeJoinRules:
		return r.rule
	case wire.TypeMember:
		return r.members[k.Key]
	}
	return nil
}

// split is the state without most members, as a server tells it at first, and the
// members that are left out.
func (r *room) split(keep int) (first, rest []shared.Incoming) {
	for _, e := range r.state {
		in := shared.Incoming{PDU: e}
		if e.Type != wire.TypeMember || slices.Contains(r.users[:keep], *e.StateKey) {
			first = append(first, in)
		} else {
			rest = append(rest, in)
		}
	}
	return first, rest
}
