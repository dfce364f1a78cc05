package mirror

import (
	"encoding/json"

	"parley/core"
	"parley/hub"
	"parley/matrix/translate"
	"parley/matrix/wire"
)

// Config is what a mirror needs to know of the server.
type Config struct {
	// Domains are hosted here, Home first; each has a signing key.
	Domains []string
	Keys    map[string]*wire.SigningKey
}

// Mirror implements [hub.Mirror] and reads what it wrote. It may be used from
// any goroutine.
type Mirror struct {
	cfg Config
}

// New makes a mirror.
func New(cfg Config) *Mirror { return &Mirror{cfg: cfg} }

// Admit implements [hub.Mirror]. It wants e with ID, Sender, Time and Position
// set, and adds the event ID to e.Aliases and, at the creation, the room ID to
// c.Native.
func (m *Mirror) Admit(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event) error {
	return hub.ErrNone
}

// Event is a PDU with its place in the core's log.
type Event struct {
	*wire.PDU
	ID       core.EventID
	Conv     core.ConvID
	Position core.Position
	// Replaces is the state event that this one replaced, RedactedBy the
	// redaction that emptied it: event IDs, "" for none.
	Replaces, RedactedBy string
}

// Viewer is for whom events are written.
type Viewer struct {
	User   core.Address
	Device string // sees the transaction IDs of what it sent itself
}

// Names turns user IDs and aliases into addresses and back, with the hashed
// spellings of v.
func (m *Mirror) Names(v hub.View) translate.Names { return translate.Names{} }

// Resolver is what package translate needs for events of conv, from v.
func (m *Mirror) Resolver(v hub.View, conv core.ConvID) (translate.Resolver, error) {
	return translate.Resolver{}, hub.ErrNone
}

// State is the current state of a room, create event first.
func (m *Mirror) State(v hub.View, conv core.ConvID) ([]Event, error) { return nil, hub.ErrNone }

// StateAt is the state after the event at a position.
func (m *Mirror) StateAt(v hub.View, conv core.ConvID, at core.Position) ([]Event, error) {
	return nil, hub.ErrNone
}

// StateChanged is of the state at position to what is not the same at
// position from: for each key the newest event in the interval (from, to].
func (m *Mirror) StateChanged(v hub.View, conv core.ConvID, from, to core.Position) ([]Event, error) {
	return nil, hub.ErrNone
}

// StateEvent is one piece of the current state, [hub.ErrNone] if not set.
func (m *Mirror) StateEvent(v hub.View, conv core.ConvID, eventType, key string) (Event, error) {
	return Event{}, hub.ErrNone
}

// StateEventAt is one piece of the state after the event at a position.
func (m *Mirror) StateEventAt(v hub.View, conv core.ConvID, eventType, key string, at core.Position) (Event, error) {
	return Event{}, hub.ErrNone
}

// ByEventID finds events, in the order of ids; those unknown are left out.
func (m *Mirror) ByEventID(v hub.View, ids ...string) ([]Event, error) { return nil, hub.ErrNone }

// ByCore finds the events of core events, in the order of ids; those unknown
// are left out.
func (m *Mirror) ByCore(v hub.View, ids ...core.EventID) ([]Event, error) { return nil, hub.ErrNone }

// RelationQuery asks for the events that relate to a target.
type RelationQuery struct {
	Target    string // event ID
	RelType   string // "" is any
	EventType string // "" is any
	// Before and After bound the position, exclusively; zero is no bound.
	Before, After core.Position
	Limit         int
	Forward       bool // oldest first
}

// Relations are the events that relate to a target; redacted ones do not.
//
// spec: MX 1.19 CS §7.10.3
func (m *Mirror) Relations(v hub.View, q RelationQuery) ([]Event, error) { return nil, hub.ErrNone }

// Client writes events as clients see them, with `unsigned`: age,
// transaction_id, membership, prev_content, redacted_because and the bundled
// aggregations. It takes a fixed number of queries for any number of events.
//
// spec: MX 1.19 CS §7.2
func (m *Mirror) Client(v hub.View, viewer Viewer, events []Event) ([]json.RawMessage, error) {
	return nil, hub.ErrNone
}

// Stripped writes a state event as invitations show it.
//
// spec: MX 1.19 CS §7.3
func Stripped(e Event) json.RawMessage { return nil }

// TxnAlias names an event after the transaction ID of the request that sent
// it. path is the request's path without the transaction ID, digest a digest
// of its body: the same ID with another body is another event. Put it among
// the aliases of the draft.
//
// spec: MX 1.19 CS §1.3
func TxnAlias(user core.Address, device, path, txn string, body []byte) core.Alias {
	return core.Alias{}
}
