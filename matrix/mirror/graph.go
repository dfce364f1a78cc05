package mirror

import (
	"encoding/json"
	"fmt"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// Graph is told of what was said here in rooms that other servers are in.
// Package shared implements it.
type Graph interface {
	// Minted is called in the turn that keeps an event that [Mirror.Mint]
	// built, when it has its position and feed number.
	Minted(tx hub.Tx, c *core.Conversation, e *core.Event, pdu *wire.PDU) error
	// Alone is called in the turn that keeps an event of a room in which no other
	// server is.
	Alone(tx hub.Tx, e *core.Event, pdu *wire.PDU) error
}

// Adopted is an event that another server made, or that is known from one,
// about to be kept.
type Adopted struct {
	PDU *wire.PDU
	// Aside and Found are those of the [hub.Draft].
	Aside, Found bool
	// RedactedBy is the redaction that came before it and was carried out.
	RedactedBy string
}

// Piece is one piece of a room's state and the event that sets it, "" for none.
type Piece struct {
	wire.StateKey
	EventID string
	// Quiet says that nobody here knows the room without it, so that where it is
	// in force already nobody need be told.
	Quiet bool
}

// UseGraph sets who is told. It is called before the hub starts.
func (m *Mirror) UseGraph(g Graph) { m.graph = g }

// Mint builds the event that e will be in a shared room, for the judge to look
// at. link fills in what it comes after and what it cites. It is kept when the
// hub admits e in this turn.
func (m *Mirror) Mint(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event, link func(*wire.Proto) error) (*wire.PDU, error) {
	t, err := m.mint(tx, c, before, e, link)
	if err != nil {
		return nil, err
	}
	m.minted[e.ID] = t
	tx.OnRollback(func() { delete(m.minted, e.ID) })
	return t.pdu, nil
}

// Seal puts signatures of others on an event that Mint has built: pdu is the same
// event with them.
func (m *Mirror) Seal(id core.EventID, pdu *wire.PDU) {
	if t := m.minted[id]; t != nil && t.pdu.EventID == pdu.EventID {
		t.pdu = pdu
	}
}

// Adopt makes the mirror keep a PDU as it is for the event that the hub is
// about to admit, which must have its event ID among its aliases.
func (m *Mirror) Adopt(tx hub.Tx, a Adopted) {
	m.adopted[a.PDU.EventID] = a
	tx.OnRollback(func() { delete(m.adopted, a.PDU.EventID) })
}

// Correcting says which events make the state that the hub is about to correct.
func (m *Mirror) Correcting(tx hub.Tx, conv core.ConvID, pieces []Piece) {
	m.corrections[conv] = pieces
	tx.OnRollback(func() { delete(m.corrections, conv) })
}

// End is the event that the next one of a room of this server's alone will come
// after.
func (m *Mirror) End(tx hub.Tx, c *core.Conversation) (Event, error) {
	t := &minting{m: m, tx: tx, sql: hubstore.Tx(tx), c: c}
	r, err := t.remembered()
	if err != nil {
		return Event{}, err
	}
	found, err := m.ByEventID(tx, r.ends...)
	if err != nil {
		return Event{}, err
	}
	if len(found) != 1 {
		return Event{}, fmt.Errorf("the room of %s has %d ends", c.ID, len(found))
	}
	return found[0], nil
}

// PutPreview keeps the stripped state with which a room that none of ours is in
// was offered to one of ours, for [Mirror.Preview].
func (m *Mirror) PutPreview(tx hub.Tx, conv core.ConvID, stripped []json.RawMessage) error {
	raw, err := json.Marshal(stripped)
	if err != nil {
		return err
	}
	_, err = hubstore.Tx(tx).Exec(`INSERT INTO mirror_previews (conv, stripped) VALUES ($1, $2)
		ON CONFLICT (conv) DO UPDATE SET stripped = excluded.stripped`, string(conv), raw)
	return err
}

// Move notes that an event has another place.
func (m *Mirror) Move(tx hub.Tx, eventID string, at core.Position) error {
	_, err := hubstore.Tx(tx).Exec(`UPDATE mirror_pdus SET pos = $2 WHERE event_id = $1`, eventID, int64(at))
	return err
}

// Preview is what PutPreview kept, nil if nothing.
func (m *Mirror) Preview(v hub.View, conv core.ConvID) (stripped []json.RawMessage, err error) {
	var raw []byte
	err = hubstore.Querier(v).QueryRow(`SELECT stripped FROM mirror_previews WHERE conv = $1`, string(conv)).Scan(&raw)
	if store.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return stripped, json.Unmarshal(raw, &stripped)
}

// DropPreview forgets it: the room's state is known.
func (m *Mirror) DropPreview(tx hub.Tx, conv core.ConvID) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM mirror_previews WHERE conv = $1`, string(conv))
	return err
}

// admitGraph keeps what was minted or adopted.
func (m *Mirror) admitGraph(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event) error {
	if t := m.minted[e.ID]; t != nil {
		delete(m.minted, e.ID)
		t.tx, t.sql, t.c, t.before, t.e = tx, hubstore.Tx(tx), c, before, e
		if err := t.keep(); err != nil {
			return err
		}
		return m.graph.Minted(tx, c, e, t.pdu)
	}
	a, _ := e.Alias(core.Matrix, "event")
	adopted, ok := m.adopted[a.Key]
	if !ok {
		return nil // of an invitation's preview: there is no PDU of it
	}
	delete(m.adopted, a.Key)
	pdu := adopted.PDU
	t := &minting{
		m: m, tx: tx, sql: hubstore.Tx(tx), c: c, before: before, e: e, version: pdu.Version,
		pdu: pdu, aside: adopted.Aside, found: adopted.Found, redactedBy: adopted.RedactedBy,
	}
	t.names = m.ResolverFor(tx, pdu.Version).Names
	if err := t.keepNames(); err != nil {
		return err
	}
	return t.keep()
}

// keepFound puts a piece of the state in which a room was found in force, up to
// what replaced it since.
func (t *minting) keepFound(p *wire.PDU) error {
	conv, pos := string(t.c.ID), int64(t.e.Position)
	_, err := t.sql.Exec(`INSERT INTO mirror_state (conv, type, state_key, pos, until, event_id, told)
		VALUES ($1, $2, $3, $4, COALESCE((SELECT MIN(pos) FROM mirror_state
			WHERE conv = $1 AND type = $2 AND state_key = $3 AND pos > $4), $5), $6, $4)`,
		conv, p.Type, *p.StateKey, pos, int64(always), p.EventID)
	return err
}

// correct puts other events in force, from the correction's position on.
func (m *Mirror) correct(tx hub.Tx, c *core.Conversation, e *core.Event) error {
	pieces, ok := m.corrections[c.ID]
	if !ok {
		return fmt.Errorf("nothing was said of what corrects %s", c.ID)
	}
	delete(m.corrections, c.ID)
	delete(m.rooms, c.ID)
	sql, conv, pos := hubstore.Tx(tx), string(c.ID), int64(e.Position)
	for _, p := range pieces {
		n, err := sql.Exec(`UPDATE mirror_state SET until = $4 WHERE conv = $1 AND type = $2 AND state_key = $3 AND until = $5
			AND event_id <> $6`, conv, p.Type, p.Key, pos, int64(always), p.EventID)
		if err != nil {
			return err
		}
		if p.EventID == "" {
			continue
		}
		if n == 0 {
			in, err := inForce(sql, conv, p, pos)
			if err != nil {
				return err
			}
			if in {
				continue // as what was found is
			}
		}
		if _, err := sql.Exec(`INSERT INTO mirror_state (conv, type, state_key, pos, until, event_id, told)
			VALUES ($1, $2, $3, $4, $5, $6, $4)`, conv, p.Type, p.Key, pos, int64(always), p.EventID); err != nil {
			return err
		}
	}
	return nil
}

// inForce reports whether a piece is in force already, and if so that it is told
// from pos on.
func inForce(sql *store.Tx, conv string, p Piece, pos int64) (bool, error) {
	if !p.Quiet {
		n, err := sql.Exec(`UPDATE mirror_state SET told = $5 WHERE conv = $1 AND type = $2 AND state_key = $3 AND until = $4`,
			conv, p.Type, p.Key, int64(always), pos)
		return n > 0, err
	}
	var in string
	err := sql.QueryRow(`SELECT event_id FROM mirror_state WHERE conv = $1 AND type = $2 AND state_key = $3 AND until = $4`,
		conv, p.Type, p.Key, int64(always)).Scan(&in)
	if store.NotFound(err) {
		return false, nil
	}
	return err == nil, err
}
