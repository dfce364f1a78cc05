package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/translate"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// always is until when a state event is in force that none has replaced.
const always = math.MaxInt64

// minting is one event on its way.
type minting struct {
	m       *Mirror
	tx      hub.Tx
	sql     *store.Tx
	c       *core.Conversation
	before  *core.State
	e       *core.Event
	version *wire.Version
	names   translate.Names
	wire    translate.Event
	room    *room
	pdu     *wire.PDU
	// aside says that the event, which others made, is no part of the state;
	// found that it is of the state in which the room was found.
	aside, found bool
	redactedBy   string
}

// Admit implements [hub.Mirror]: it makes the PDU. It wants e with ID, Sender,
// Time and Position set, and adds the event ID to e.Aliases and, at the
// creation, the room ID to c.Native.
func (m *Mirror) Admit(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event) error {
	var err error
	switch change, _ := e.Content.(core.Change); {
	case change.Aspect == core.AspectCorrected:
		err = m.correct(tx, c, e)
	case c.Authority == core.Graph:
		err = m.admitGraph(tx, c, before, e)
	default:
		var t *minting
		if t, err = m.mint(tx, c, before, e, nil); err == nil {
			err = t.keep()
		}
		if err == nil && c.Authority == core.Here && m.graph != nil {
			err = m.graph.Alone(tx, e, t.pdu)
		}
	}
	if err == nil || hub.CodeOf(err) != "" {
		return err
	}
	return fmt.Errorf("mint the Matrix event of %s: %w", e.ID, err)
}

// mint builds the event. link says what it comes after and cites; nil is the end
// of a room that is this server's alone.
func (m *Mirror) mint(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event, link func(*wire.Proto) error) (*minting, error) {
	creation := before.Creation
	if change, ok := e.Content.(core.Change); ok && change.Aspect == core.AspectCreated && change.Creation != nil {
		creation = *change.Creation
	}
	version, err := wire.VersionOf(creation.Version)
	if err != nil {
		return nil, hub.Refuse(hub.Bad, "%v", err)
	}
	t := &minting{m: m, tx: tx, sql: hubstore.Tx(tx), c: c, before: before, e: e, version: version}
	r := m.ResolverFor(tx, version)
	t.names = r.Names
	var losses []core.Loss
	if t.wire, losses, err = translate.OutNative(r, e.Content, e.Native); err != nil {
		return nil, err
	}
	if m.cfg.Count != nil {
		for _, l := range losses {
			m.cfg.Count.Count("losses", string(l.Feature), string(core.Matrix))
		}
	}
	if len(losses) > 0 {
		m.lost[e.ID] = losses
		tx.OnRollback(func() { delete(m.lost, e.ID) })
	}
	if c.Authority == core.Here { // the hub's rules, which do not know all of Matrix'
		if err := t.permitted(); err != nil {
			return nil, err
		}
	}
	if err := t.keepNames(); err != nil {
		return nil, err
	}
	if link == nil {
		link = t.link
	}
	t.pdu, err = t.build(link)
	if errors.Is(err, wire.ErrTooLarge) {
		return nil, hub.Refuse(hub.TooLarge, "%v", err)
	}
	return t, err
}

// permitted holds the event to what Matrix asks besides the hub's own rules:
// the level of the event's type, where that is not the core's action, and who
// may set a state key that is a user ID.
//
// spec: MX 1.19 RV v12
func (t *minting) permitted() error {
	w := t.wire
	if strings.IndexByte(w.Type, 0) >= 0 || w.StateKey != nil && strings.IndexByte(*w.StateKey, 0) >= 0 {
		return hub.Refuse(hub.Bad, "a type or state key with a NUL")
	}
	if w.Type == wire.TypeMember || w.Type == wire.TypeCreate {
		return nil
	}
	action, state := core.Action(t.e.Content)
	if other := translate.ActionOf(w.Type); other != action {
		if have, need := t.before.Level(t.e.Sender), t.before.Needs(other, state); have < need {
			return hub.Refuse(hub.Forbidden, "%s needs level %d, and you have %d", w.Type, need, have)
		}
	}
	if w.StateKey != nil && strings.HasPrefix(*w.StateKey, "@") {
		if id, _ := t.names.UserID(t.e.Sender); id != *w.StateKey {
			return hub.Refuse(hub.Forbidden, "a state key that is a user ID must be the sender's")
		}
	}
	return nil
}

// keepNames keeps the addresses in the event whose spelling is a hash.
func (t *minting) keepNames() error {
	people := []core.Address{t.e.Sender}
	switch c := t.e.Content.(type) {
	case core.Membership:
		people = append(people, c.Target, c.Via)
	case core.Message:
		people = append(people, c.Body.Mentions...)
	case core.Edit:
		people = append(people, c.Body.Mentions...)
	case core.Change:
		if c.Levels != nil {
			for a := range c.Levels.Users {
				people = append(people, a)
			}
		}
		if c.Creation != nil {
			people = append(people, c.Creation.Creators...)
		}
	}
	for _, a := range people {
		id, hashed := t.names.UserID(a)
		if !hashed {
			continue
		}
		localpart, _, err := wire.ParseUserID(id)
		if err != nil {
			return err
		}
		if _, err := t.sql.Exec(`INSERT INTO mirror_names (localpart, address) VALUES ($1, $2)
			ON CONFLICT DO NOTHING`, localpart, a.String()); err != nil {
			return err
		}
	}
	return nil
}

// build hashes. Signing is for [Mirror.Signed].
func (t *minting) build(link func(*wire.Proto) error) (*wire.PDU, error) {
	sender, _ := t.names.UserID(t.e.Sender)
	when := t.e.Origin
	if when.UnixMilli() <= 0 || when.After(t.e.Time) {
		when = t.e.Time
	}
	p := wire.Proto{
		RoomID: t.c.Native[core.Matrix], Type: t.wire.Type, StateKey: t.wire.StateKey, Sender: sender,
		Content: t.wire.Content, Depth: 1, Time: max(when.UnixMilli(), 0),
	}
	if p.Type == wire.TypeCreate {
		if p.RoomID = ""; !t.version.HashedRoomID {
			p.RoomID = "!" + string(t.c.ID) + ":" + t.domain(sender)
		}
	}
	if t.version.RedactsBeside {
		p.Redacts = t.wire.Redacts
	}
	if err := link(&p); err != nil {
		return nil, err
	}
	return wire.Build(t.version, p)
}

func (t *minting) domain(userID string) string {
	_, domain, _ := strings.Cut(userID, ":")
	return domain
}

// link puts the event behind those that came before it, and cites the state
// that lets its sender send it.
func (t *minting) link(p *wire.Proto) (err error) {
	if t.room, err = t.remembered(); err != nil {
		return err
	}
	p.PrevEvents, p.Depth = t.room.ends, t.room.depth+1
	p.AuthEvents, err = t.current(t.room, wire.AuthTypes(t.version, p.Type, p.StateKey, p.Sender, p.Content))
	return err
}

// keep writes the rows and names the event.
func (t *minting) keep() error {
	p, conv, pos := t.pdu, string(t.c.ID), int64(t.e.Position)
	if p.Type == wire.TypeCreate {
		native := map[core.Network]string{core.Matrix: p.RoomID}
		for network, name := range t.c.Native { // which others hold too
			if network != core.Matrix {
				native[network] = name
			}
		}
		t.c.Native = native
	}
	replaces, err := t.keepState(p)
	if err != nil {
		return err
	}
	var key any
	if p.StateKey != nil {
		key = *p.StateKey
	}
	device, txn := transaction(t.e)
	if _, err := t.sql.Exec(`INSERT INTO mirror_pdus
		(event_id, conv, pos, core_id, type, state_key, sender, version, replaces, redacted_by, device, txn, json)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		p.EventID, conv, pos, string(t.e.ID), p.Type, key, p.Sender, t.version.ID, replaces, t.redactedBy, device, txn, p.JSON); err != nil {
		return err
	}
	if t.room != nil {
		t.room.ends, t.room.depth = []string{p.EventID}, p.Depth
	}
	if err := t.keepRelation(p); err != nil {
		return err
	}
	if c, ok := t.e.Content.(core.Retract); ok {
		if err := t.redact(c.Target, p.EventID); err != nil {
			return err
		}
	}
	if name := (core.Alias{Network: core.Matrix, Kind: "event", Key: p.EventID}); !slices.Contains(t.e.Aliases, name) {
		t.e.Aliases = append(t.e.Aliases, name)
	}
	return nil
}

// keepState puts a state event in force and returns the one that was before.
func (t *minting) keepState(p *wire.PDU) (replaces string, err error) {
	if p.StateKey == nil || t.aside {
		return "", nil
	}
	if t.found {
		return "", t.keepFound(p)
	}
	conv, pos := string(t.c.ID), int64(t.e.Position)
	err = t.sql.QueryRow(`UPDATE mirror_state SET until = $4
		WHERE conv = $1 AND type = $2 AND state_key = $3 AND until = $5 RETURNING event_id`,
		conv, p.Type, *p.StateKey, pos, int64(always)).Scan(&replaces)
	if err != nil && !store.NotFound(err) {
		return "", err
	}
	_, err = t.sql.Exec(`INSERT INTO mirror_state (conv, type, state_key, pos, until, event_id, told)
		VALUES ($1, $2, $3, $4, $5, $6, $4)`, conv, p.Type, *p.StateKey, pos, int64(always), p.EventID)
	if t.room != nil {
		t.room.state[wire.StateKey{Type: p.Type, Key: *p.StateKey}] = p.EventID
	}
	return replaces, err
}

// keepRelation notes what the event relates to.
//
// spec: MX 1.19 CS §7.10
func (t *minting) keepRelation(p *wire.PDU) error {
	relType, target, ok := relation(p.Content)
	if !ok {
		return nil
	}
	var sender, eventType, conv string
	err := t.sql.QueryRow(`SELECT sender, type, conv FROM mirror_pdus WHERE event_id = $1`, target).Scan(&sender, &eventType, &conv)
	if store.NotFound(err) || err == nil && conv != string(t.c.ID) {
		return nil
	}
	if err != nil {
		return err
	}
	own := sender == p.Sender && eventType == p.Type && p.StateKey == nil
	_, err = t.sql.Exec(`INSERT INTO mirror_relations (target, event_id, rel_type, type, sender, ts, pos, own)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		target, p.EventID, relType, p.Type, p.Sender, p.Time, int64(t.e.Position), own)
	return err
}

// relation reads m.relates_to.
func relation(content []byte) (relType, target string, ok bool) {
	if !bytes.Contains(content, []byte(`"m.relates_to"`)) {
		return "", "", false
	}
	o, err := wire.ParseObject(content)
	if err != nil {
		return "", "", false
	}
	rel, err := wire.ParseObject(o.Get("m.relates_to"))
	if err != nil {
		return "", "", false
	}
	relType, ok1 := rel.String("rel_type")
	target, ok2 := rel.String("event_id")
	if !ok1 || !ok2 || len(relType) > wire.MaxField || strings.IndexByte(relType, 0) >= 0 {
		return "", "", false
	}
	return relType, target, wire.CheckEventID(target) == nil
}

// redact leaves of an event what its version's redaction leaves.
//
// spec: MX 1.19 CS §7.9
func (t *minting) redact(target core.EventID, because string) error {
	events, err := t.m.ByCore(t.tx, target)
	if err != nil || len(events) == 0 || events[0].RedactedBy != "" {
		return err
	}
	redacted, err := events[0].Redact()
	if err != nil {
		return err
	}
	if _, err := t.sql.Exec(`UPDATE mirror_pdus SET json = $2, redacted_by = $3, txn = '', device = '' WHERE event_id = $1`,
		redacted.EventID, redacted.JSON, because); err != nil {
		return err
	}
	_, err = t.sql.Exec(`DELETE FROM mirror_relations WHERE event_id = $1`, redacted.EventID)
	return err
}
