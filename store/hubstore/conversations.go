package hubstore

import (
	"fmt"

	"parley/core"
	"parley/hub"
	"parley/store"
)

func (v *view) loadConversation(id core.ConvID) (core.Conversation, error) {
	c := core.Conversation{ID: id, Native: map[core.Network]string{}}
	var shape, authority, creator, at string
	var created int64
	err := v.q.QueryRow(`SELECT shape, authority, creator, created, address, temporary
		FROM conversations WHERE id = $1`, string(id)).
		Scan(&shape, &authority, &creator, &created, &at, &c.Temporary)
	if err != nil {
		return c, noRow(err)
	}
	c.Shape, c.Authority, c.Created = core.Shape(shape), core.Authority(authority), moment(created)
	if c.Creator, err = addr(creator); err != nil {
		return c, err
	}
	if c.Address, err = addr(at); err != nil {
		return c, err
	}
	rows, err := v.q.Query(`SELECT network, native FROM conversation_natives WHERE conv = $1`, string(id))
	if err != nil {
		return c, err
	}
	defer rows.Close()
	for rows.Next() {
		var network, native string
		if err := rows.Scan(&network, &native); err != nil {
			return c, err
		}
		c.Native[core.Network(network)] = native
	}
	return c, rows.Err()
}

func (t *tx) PutConversation(c core.Conversation) error {
	err := t.exec(`INSERT INTO conversations (id, shape, authority, creator, created, address, temporary, public)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0)
		ON CONFLICT (id) DO UPDATE SET shape = excluded.shape, authority = excluded.authority,
			address = excluded.address, temporary = excluded.temporary`,
		string(c.ID), string(c.Shape), string(c.Authority), c.Creator.String(), millis(c.Created),
		c.Address.String(), c.Temporary)
	if err != nil {
		return err
	}
	for network, native := range c.Native {
		err := t.exec(`INSERT INTO conversation_natives (network, native, conv) VALUES ($1, $2, $3)
			ON CONFLICT (network, native) DO NOTHING`, string(network), native, string(c.ID))
		if err != nil {
			return err
		}
	}
	return t.rememberConversation(c.ID)
}

func (v *view) ConversationAt(a core.Address) (core.ConvID, error) {
	id, err := one[string](v.q, `SELECT conv FROM room_addresses WHERE address = $1`, a.String())
	return core.ConvID(id), err
}

func (v *view) ConversationNative(n core.Network, native string) (core.ConvID, error) {
	id, err := one[string](v.q, `SELECT conv FROM conversation_natives WHERE network = $1 AND native = $2`,
		string(n), native)
	return core.ConvID(id), err
}

func (v *view) RoomAddresses(id core.ConvID) ([]core.Address, error) {
	return store.List(v.q, address, `SELECT address FROM room_addresses WHERE conv = $1 ORDER BY address`, string(id))
}

func (t *tx) PutRoomAddress(a core.Address, id core.ConvID, by core.Address) error {
	n, err := t.tx.Exec(`INSERT INTO room_addresses (address, conv, creator) VALUES ($1, $2, $3)
		ON CONFLICT (address) DO NOTHING`, a.String(), string(id), by.String())
	if err == nil && n == 0 {
		return hub.Refuse(hub.Conflict, "the room address %s is taken", a.Bare())
	}
	return err
}

func (t *tx) DeleteRoomAddress(a core.Address) error {
	return t.exec(`DELETE FROM room_addresses WHERE address = $1`, a.String())
}

func (t *tx) SetPublic(id core.ConvID, public bool) error {
	return t.exec(`UPDATE conversations SET public = $1 WHERE id = $2`, public, string(id))
}

func (v *view) PublicRooms() ([]core.ConvID, error) {
	return store.List(v.q, convID, `SELECT id FROM conversations WHERE public = 1 ORDER BY address`)
}

func convID(s store.Scanner) (core.ConvID, error) {
	id, err := store.Column[string](s)
	return core.ConvID(id), err
}

// State returns the current state, from memory where it is there.
func (v *view) State(id core.ConvID) (*core.State, error) {
	if v.writer {
		if s := v.s.written[id]; s != nil {
			return s, nil
		}
	} else if s, ok := v.s.committed.Load(id); ok {
		return s.(*core.State), nil
	}
	s, err := v.loadState(id)
	if err != nil {
		return nil, err
	}
	if v.writer {
		v.s.written[id] = s
		return s, nil
	}
	// Every commit that changes a state stores it, so what is there already
	// is this one or newer.
	if other, ok := v.s.committed.LoadOrStore(id, s); ok {
		s = other.(*core.State)
	}
	return s, nil
}

// remember keeps a changed state in memory, for readers once it is committed.
func (t *tx) remember(id core.ConvID, s *core.State) {
	t.s.written[id] = s
	t.tx.OnRollback(func() { delete(t.s.written, id) })
	t.tx.OnCommit(func() { t.s.committed.Store(id, s) })
}

// loadState folds the current state from the events that make it.
func (v *view) loadState(id core.ConvID) (*core.State, error) {
	events, err := store.List(v.q, scanEvent, `SELECT `+eventColumns+` FROM state s JOIN events e ON e.id = s.event
		WHERE s.conv = $1 ORDER BY e.pos`, string(id))
	if err != nil {
		return nil, fmt.Errorf("loading the state of %s: %w", id, err)
	}
	s := core.NewState()
	for i := range events {
		s.Apply(&events[i])
	}
	return s, nil
}

func (t *tx) PutState(c *core.Conversation, s *core.State, e *core.Event) error {
	key, ok := core.StateKeyOf(e.Content)
	if !ok {
		return fmt.Errorf("event %s is no state", e.ID)
	}
	t.remember(c.ID, s)
	err := t.exec(`INSERT INTO state (conv, kind, key, event) VALUES ($1, $2, $3, $4)
		ON CONFLICT (conv, kind, key) DO UPDATE SET event = excluded.event`,
		string(c.ID), key.Kind, key.Key, string(e.ID))
	if err != nil {
		return err
	}
	if m, ok := e.Content.(core.Membership); ok {
		return t.putPlace(e, m)
	}
	return nil
}

func (t *tx) PutCorrected(c *core.Conversation, s *core.State, e *core.Event) error {
	change, ok := e.Content.(core.Change)
	if !ok {
		return fmt.Errorf("event %s is no correction", e.ID)
	}
	t.remember(c.ID, s)
	for _, piece := range change.Corrected {
		err := t.exec(`INSERT INTO state (conv, kind, key, event) VALUES ($1, $2, $3, $4)
			ON CONFLICT (conv, kind, key) DO UPDATE SET event = excluded.event`,
			string(c.ID), piece.Kind, piece.Key, string(piece.Is))
		if piece.Is == "" {
			err = t.exec(`DELETE FROM state WHERE conv = $1 AND kind = $2 AND key = $3`, string(c.ID), piece.Kind, piece.Key)
		}
		if err != nil {
			return err
		}
		if piece.Kind == string(core.KindMembership) {
			if err := t.correctPlace(s, e, piece.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// correctPlace gives a member the place that the corrected state says, from the
// correction on.
func (t *tx) correctPlace(s *core.State, e *core.Event, who string) error {
	a, err := core.ParseAddress(who)
	if err != nil {
		return err
	}
	m, ok := s.Members[a]
	if !ok {
		m = core.Member{Address: a, Standing: core.Left}
	}
	return t.putPlace(e, core.Membership{Target: a, Standing: m.Standing, Nick: m.Nick})
}

func (t *tx) putPlace(e *core.Event, m core.Membership) error {
	err := t.exec(`INSERT INTO places (address, conv, standing, nick, pos, feed) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (address, conv) DO UPDATE SET standing = excluded.standing, nick = excluded.nick,
			pos = excluded.pos, feed = excluded.feed`,
		m.Target.String(), string(e.Conv), string(m.Standing), m.Nick, int64(e.Position), int64(e.Feed))
	if err != nil {
		return err
	}
	who, at := m.Target.String(), int64(e.Position)
	switch m.Standing {
	case core.Invited, core.Joined:
		joined, invited := int64(0), at
		if m.Standing == core.Joined {
			joined, invited = at, 0
		}
		n, err := t.tx.Exec(`UPDATE stays SET joined = CASE WHEN joined = 0 THEN $1 ELSE joined END
			WHERE conv = $2 AND address = $3 AND ended = 0`, joined, string(e.Conv), who)
		if err != nil || n > 0 {
			return err
		}
		return t.exec(`INSERT INTO stays (conv, address, began, invited, joined, ended) VALUES ($1, $2, $3, $4, $5, 0)`,
			string(e.Conv), who, at, invited, joined)
	default:
		return t.exec(`UPDATE stays SET ended = $1 WHERE conv = $2 AND address = $3 AND ended = 0`,
			at, string(e.Conv), who)
	}
}

const placeQuery = `SELECT p.conv, p.standing, p.nick, p.pos, p.feed,
		COALESCE(CASE WHEN d.a = p.address THEN d.b ELSE d.a END, ''),
		CASE WHEN d.conv IS NOT NULL AND NOT EXISTS (SELECT 1 FROM directs x
			WHERE x.a = d.a AND x.b = d.b AND x.ended = 0 AND x.opened > d.opened) THEN 1 ELSE 0 END
	FROM places p LEFT JOIN directs d ON d.conv = p.conv AND d.ended = 0 WHERE p.address = $1`

func scanPlace(s store.Scanner) (p hub.Place, err error) {
	var conv, standing, peer string
	if err = s.Scan(&conv, &standing, &p.Nick, &p.Since, &p.Feed, &peer, &p.Current); err != nil {
		return p, noRow(err)
	}
	p.Conv, p.Standing = core.ConvID(conv), core.Standing(standing)
	p.Peer, err = addr(peer)
	return p, err
}

func (v *view) Places(a core.Address) ([]hub.Place, error) {
	return store.List(v.q, scanPlace, placeQuery+` ORDER BY p.conv`, a.String())
}

func (v *view) Place(a core.Address, id core.ConvID) (hub.Place, error) {
	return scanPlace(v.q.QueryRow(placeQuery+` AND p.conv = $2`, a.String(), string(id)))
}

func (v *view) Stays(id core.ConvID, a core.Address) ([]hub.Stay, error) {
	return store.List(v.q, func(s store.Scanner) (st hub.Stay, err error) {
		return st, s.Scan(&st.Invited, &st.Joined, &st.Left)
	}, `SELECT invited, joined, ended FROM stays WHERE conv = $1 AND address = $2 ORDER BY began`,
		string(id), a.String())
}

// pair puts two addresses in the order in which the directs have them.
func pair(a, b core.Address) (string, string) {
	x, y := a.String(), b.String()
	if y < x {
		return y, x
	}
	return x, y
}

func (v *view) loadDirects(x, y string) ([]core.ConvID, error) {
	return store.List(v.q, convID, `SELECT conv FROM directs WHERE a = $1 AND b = $2 AND ended = 0
		ORDER BY opened DESC`, x, y)
}

func (t *tx) PutDirect(id core.ConvID, a, b core.Address) error {
	x, y := pair(a, b)
	t.s.directs.forget(t, couple{x, y})
	return t.exec(`INSERT INTO directs (conv, a, b, opened, ended) VALUES ($1, $2, $3, $4, 0)
		ON CONFLICT (conv) DO UPDATE SET opened = excluded.opened, ended = 0`,
		string(id), x, y, int64(t.NextFeed()))
}

func (t *tx) EndDirect(id core.ConvID) error {
	t.s.directs.forgetAll(t)
	return t.exec(`UPDATE directs SET ended = 1 WHERE conv = $1`, string(id))
}

func (v *view) Affiliation(id core.ConvID, a core.Address) (core.Address, error) {
	by, err := address(v.q.QueryRow(`SELECT granted_by FROM affiliations WHERE conv = $1 AND address = $2`,
		string(id), a.String()))
	return by, noRow(err)
}

func (v *view) Affiliated(id core.ConvID) ([]core.Address, error) {
	return store.List(v.q, address, `SELECT address FROM affiliations WHERE conv = $1 ORDER BY address`, string(id))
}

func (t *tx) PutAffiliation(id core.ConvID, a, grantedBy core.Address) error {
	return t.exec(`INSERT INTO affiliations (conv, address, granted_by) VALUES ($1, $2, $3)
		ON CONFLICT (conv, address) DO UPDATE SET granted_by = excluded.granted_by`,
		string(id), a.String(), grantedBy.String())
}

func (t *tx) DeleteAffiliation(id core.ConvID, a core.Address) error {
	return t.exec(`DELETE FROM affiliations WHERE conv = $1 AND address = $2`, string(id), a.String())
}
