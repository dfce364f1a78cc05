package graph

import (
	"errors"
	"fmt"
	"slices"

	"parley/matrix/wire"
)

// Event is what the rules look at of a PDU. It is not changed after it was
// linked and judged, and may then be shared.
type Event struct {
	Version  *wire.Version
	ID       string
	Room     string
	Type     string
	Sender   string
	StateKey *string // nil for what is no state event
	Time     int64   // origin_server_ts, milliseconds since 1970
	Prev     []string
	// Auth are the auth events, in the PDU's order. The create event is among
	// them before version 12.
	Auth []*Event
	// Create is the room's create event; nil in itself.
	Create *Event
	// Rejected says that [Check] rejected it. Whoever calls Check notes it here
	// before the event is shared.
	Rejected bool
	// ViaSigned says that the server of join_authorised_via_users_server signed
	// the event; whoever checked the signatures knows. It is only looked at
	// where the content has that key.
	ViaSigned bool

	hash, sum  uint64 // of type and state key, and of the ID: for State
	generation int    // one more than the highest of Auth
	miscited   error  // why the choice of Auth is refused
	facts
}

// facts are what the rules read in the content of the types that they know.
type facts struct {
	// m.room.member
	membership    string
	hasMembership bool
	via           string
	hasVia        bool
	thirdParty    wire.Object // third_party_invite
	hasThirdParty bool
	// m.room.power_levels
	levels *levels
	// m.room.join_rules
	joinRule string
	// m.room.create
	creation *creation
	// m.room.third_party_invite
	publicKeys []string
}

// creation is the content of a create event.
type creation struct {
	creator    string // by content before version 11, else the sender
	hasCreator bool
	additional []string
	badList    bool // additional_creators is no list of user IDs
	noFederate bool
	version    string
	badVersion bool
}

// ErrLink is wrapped by the errors of [Link].
var ErrLink = errors.New("event does not fit its auth events")

// Link takes from a PDU what the rules look at and ties it to its auth events:
// auth holds those that pdu.AuthEvents names, in that order, and create is the
// room's create event, nil for itself. Before version 12 the create event is
// looked for in auth, and create is not read.
func Link(pdu *wire.PDU, create *Event, auth []*Event) (*Event, error) {
	if len(auth) != len(pdu.AuthEvents) {
		return nil, fmt.Errorf("%w: %d of %d are there", ErrLink, len(auth), len(pdu.AuthEvents))
	}
	e := &Event{
		Version: pdu.Version, ID: pdu.EventID, Room: pdu.RoomID, Type: pdu.Type, Sender: pdu.Sender,
		StateKey: pdu.StateKey, Time: pdu.Time, Prev: pdu.PrevEvents, Auth: auth,
	}
	for i, a := range auth {
		if a == nil || a.ID != pdu.AuthEvents[i] {
			return nil, fmt.Errorf("%w: %s is not there", ErrLink, pdu.AuthEvents[i])
		}
		e.generation = max(e.generation, a.generation+1)
	}
	if e.Type != wire.TypeCreate {
		if create != nil && create.Type != wire.TypeCreate {
			return nil, fmt.Errorf("%w: %s is no create event", ErrLink, create.ID)
		}
		e.Create = create
		if !e.Version.HashedRoomID {
			e.Create = e.cites(wire.TypeCreate, "")
		}
	}
	if e.StateKey != nil {
		e.hash, e.sum = hashOf(e.Type, *e.StateKey), sumOf(e.ID)
	}
	e.miscited = checkSelection(e, wire.AuthTypes(e.Version, e.Type, e.StateKey, e.Sender, pdu.Content))
	if err := e.readContent(pdu.Content); err != nil {
		return nil, err
	}
	return e, nil
}

// Membership is what an m.room.member says, "" in other events.
func (e *Event) Membership() string { return e.membership }

// Key is the piece of state that a state event sets.
func (e *Event) Key() wire.StateKey { return wire.StateKey{Type: e.Type, Key: *e.StateKey} }

// Is says whether e is the state event of that type and key.
func (e *Event) Is(eventType, key string) bool {
	return e.StateKey != nil && e.Type == eventType && *e.StateKey == key
}

// cites finds an auth event, nil if there is none.
func (e *Event) cites(eventType, key string) *Event {
	for _, a := range e.Auth {
		if a.Is(eventType, key) {
			return a
		}
	}
	return nil
}

func (e *Event) readContent(content []byte) error {
	switch e.Type {
	case wire.TypeMember, wire.TypePowerLevels, wire.TypeJoinRules, wire.TypeCreate, wire.TypeThirdParty:
	default:
		return nil
	}
	o, err := wire.ParseObject(content)
	if err != nil {
		return fmt.Errorf("content of %s: %w", e.ID, err)
	}
	switch e.Type {
	case wire.TypeMember:
		e.readMember(o)
	case wire.TypePowerLevels:
		e.levels = readLevels(e.Version, o)
	case wire.TypeJoinRules:
		e.joinRule, _ = o.String("join_rule")
	case wire.TypeCreate:
		e.creation = e.readCreate(o)
	case wire.TypeThirdParty:
		e.publicKeys = readKeys(o)
	}
	return nil
}

func (e *Event) readMember(o wire.Object) {
	e.hasMembership = o.Get("membership") != nil
	e.membership, _ = o.String("membership")
	e.hasVia = o.Get("join_authorised_via_users_server") != nil
	e.via, _ = o.String("join_authorised_via_users_server")
	if raw := o.Get("third_party_invite"); raw != nil {
		e.hasThirdParty = true
		e.thirdParty, _ = wire.ParseObject(raw)
	}
}

func (e *Event) readCreate(o wire.Object) *creation {
	c := &creation{creator: e.Sender, hasCreator: o.Get("creator") != nil, noFederate: string(o.Get("m.federate")) == "false"}
	if e.Version.CreatorKey {
		c.creator, _ = o.String("creator")
	}
	if raw := o.Get("room_version"); raw != nil {
		var ok bool
		c.version, ok = wire.Unquote(raw)
		c.badVersion = !ok
	}
	if raw := o.Get("additional_creators"); raw != nil && e.Version.HashedRoomID {
		list, ok := wire.Elements(raw)
		c.badList = !ok
		for _, item := range list {
			id, ok := wire.Unquote(item)
			if _, _, err := wire.ParseUserID(id); !ok || err != nil {
				c.badList = true
			}
			c.additional = append(c.additional, id)
		}
	}
	return c
}

// readKeys lists the keys of a third-party invitation, as they are written.
func readKeys(o wire.Object) []string {
	var keys []string
	if k, ok := o.String("public_key"); ok {
		keys = append(keys, k)
	}
	list, _ := wire.Elements(o.Get("public_keys"))
	for _, raw := range list {
		if entry, err := wire.ParseObject(raw); err == nil {
			if k, ok := entry.String("public_key"); ok && !slices.Contains(keys, k) && len(keys) < maxKeys {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// supreme says whether user is one of the creators who stand above every
// level, which there are from version 12 on.
//
// spec: MX 1.19 RV v12
func (e *Event) supreme(user string) bool {
	return e != nil && e.Version.HashedRoomID && e.creation != nil &&
		(user == e.Sender || slices.Contains(e.creation.additional, user))
}
