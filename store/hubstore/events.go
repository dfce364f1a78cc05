package hubstore

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"parley/core"
	"parley/hub"
	"parley/store"
)

const eventColumns = `e.id, e.conv, e.pos, e.feed, e.sender, e.accepted, e.origin, e.kind, e.content,
	e.native_network, e.native_type, e.native, e.retracted`

func scanEvent(s store.Scanner) (e core.Event, err error) {
	var id, conv, sender, kind, network, typ, retracted string
	var accepted, origin int64
	var content, native []byte
	err = s.Scan(&id, &conv, &e.Position, &e.Feed, &sender, &accepted, &origin, &kind, &content,
		&network, &typ, &native, &retracted)
	if err != nil {
		return e, noRow(err)
	}
	e.ID, e.Conv, e.Retracted = core.EventID(id), core.ConvID(conv), core.EventID(retracted)
	e.Time, e.Origin = moment(accepted), moment(origin)
	if e.Sender, err = addr(sender); err != nil {
		return e, err
	}
	if network != "" {
		e.Native = &core.Native{Network: core.Network(network), Type: typ, Data: native}
	}
	e.Content, err = core.DecodeContent(core.Kind(kind), content)
	if err != nil {
		err = fmt.Errorf("event %s: %w", e.ID, err)
	}
	return e, err
}

func (v *view) Event(id core.EventID) (core.Event, error) {
	e, err := scanEvent(v.q.QueryRow(`SELECT `+eventColumns+` FROM events e WHERE e.id = $1`, string(id)))
	if err != nil {
		return e, err
	}
	e.Aliases, err = v.Aliases(id)
	return e, err
}

func (v *view) EventBy(a core.Alias) (core.EventID, string, error) {
	if strings.IndexByte(a.Key, 0) >= 0 || !utf8.ValidString(a.Key) {
		return "", "", hub.ErrNone // what cannot be stored was never given a name
	}
	var id, digest string
	err := v.q.QueryRow(`SELECT event, digest FROM event_aliases
		WHERE network = $1 AND kind = $2 AND scope = $3 AND key = $4 AND (digest = $5 OR $5 = '')`,
		string(a.Network), a.Kind, a.Scope, a.Key, a.Digest).Scan(&id, &digest)
	return core.EventID(id), digest, noRow(err)
}

func (v *view) Aliases(id core.EventID) ([]core.Alias, error) {
	return store.List(v.q, func(s store.Scanner) (a core.Alias, err error) {
		var network string
		err = s.Scan(&network, &a.Kind, &a.Scope, &a.Key, &a.Digest)
		a.Network = core.Network(network)
		return a, err
	}, `SELECT network, kind, scope, key, digest FROM event_aliases WHERE event = $1
		ORDER BY network, kind, scope, key`, string(id))
}

// clauses collects the conditions of a query and their arguments.
type clauses struct {
	where []string
	args  []any
}

// add appends a condition in which each ? stands for the next argument.
func (c *clauses) add(cond string, args ...any) {
	for _, a := range args {
		c.args = append(c.args, a)
		cond = strings.Replace(cond, "?", fmt.Sprintf("$%d", len(c.args)), 1)
	}
	c.where = append(c.where, cond)
}

func (v *view) Page(q hub.Query) ([]core.Event, error) {
	var c clauses
	switch {
	case q.Conv != "":
		c.add(`e.conv = ?`, string(q.Conv))
	case !q.Peer.IsZero():
		a, b := pair(q.For, q.Peer)
		c.add(`e.conv IN (SELECT conv FROM directs WHERE a = ? AND b = ?)`, a, b)
	case q.Directs:
		who := q.For.String()
		c.add(`e.conv IN (SELECT conv FROM directs WHERE a = ? OR b = ?)`, who, who)
	default:
		c.add(`e.conv IN (SELECT conv FROM places WHERE address = ?)`, q.For.String())
	}
	for _, b := range []struct {
		cond  string
		value int64
	}{
		{`e.pos < ?`, int64(q.Before)}, {`e.pos > ?`, int64(q.After)},
		{`e.feed < ?`, int64(q.BeforeFeed)}, {`e.feed > ?`, int64(q.AfterFeed)},
		{`e.accepted >= ?`, millis(q.Since)}, {`e.accepted <= ?`, millis(q.Until)},
	} {
		if b.value != 0 {
			c.add(b.cond, b.value)
		}
	}
	if len(q.Kinds) > 0 {
		marks := make([]any, len(q.Kinds))
		for i, k := range q.Kinds {
			marks[i] = string(k)
		}
		c.add(`e.kind IN (`+strings.TrimSuffix(strings.Repeat("?, ", len(marks)), ", ")+`)`, marks...)
	}
	order := `e.pos`
	if q.ByFeed || q.Conv == "" {
		order = `e.feed`
	}
	if q.Latest {
		order += ` DESC`
	}
	limit := q.Limit
	if limit <= 0 || limit > 10_000 {
		limit = 10_000
	}
	c.args = append(c.args, limit)
	events, err := store.List(v.q, scanEvent, fmt.Sprintf(`SELECT %s FROM events e WHERE %s ORDER BY %s LIMIT $%d`,
		eventColumns, strings.Join(c.where, " AND "), order, len(c.args)), c.args...)
	if err != nil {
		return nil, err
	}
	if q.Latest {
		slices.Reverse(events)
	}
	if q.Aliases {
		for i := range events {
			if events[i].Aliases, err = v.Aliases(events[i].ID); err != nil {
				return nil, err
			}
		}
	}
	return events, nil
}

func (v *view) Related(target core.EventID, kinds ...core.Kind) ([]core.Event, error) {
	var c clauses
	c.add(`e.target = ? AND e.target <> ''`, string(target)) // the index has no empty ones
	if len(kinds) > 0 {
		marks := make([]any, len(kinds))
		for i, k := range kinds {
			marks[i] = string(k)
		}
		c.add(`e.kind IN (`+strings.TrimSuffix(strings.Repeat("?, ", len(marks)), ", ")+`)`, marks...)
	}
	return store.List(v.q, scanEvent, `SELECT `+eventColumns+` FROM events e WHERE `+
		strings.Join(c.where, " AND ")+` ORDER BY e.pos`, c.args...)
}

func (v *view) Thread(conv core.ConvID, root core.EventID, before core.Position, limit int) ([]core.Event, error) {
	var c clauses
	c.add(`e.thread = ? AND e.thread <> ''`, string(root))
	c.add(`e.conv = ?`, string(conv))
	if before != 0 {
		c.add(`e.pos < ?`, int64(before))
	}
	c.args = append(c.args, limit)
	events, err := store.List(v.q, scanEvent, fmt.Sprintf(`SELECT %s FROM events e WHERE %s ORDER BY e.pos DESC LIMIT $%d`,
		eventColumns, strings.Join(c.where, " AND "), len(c.args)), c.args...)
	slices.Reverse(events)
	return events, err
}

func (v *view) loadEdge(conv core.ConvID) (e edge, err error) {
	err = v.q.QueryRow(`SELECT COALESCE((SELECT pos FROM events WHERE conv = $1 ORDER BY pos DESC LIMIT 1), 0),
		COALESCE((SELECT feed FROM events WHERE conv = $1 ORDER BY feed DESC LIMIT 1), 0)`, string(conv)).
		Scan(&e.pos, &e.feed)
	return e, err
}

func (t *tx) PutPosition(id core.EventID, at core.Position) error {
	return t.exec(`UPDATE events SET pos = $2 WHERE id = $1`, string(id), int64(at))
}

func (t *tx) PutEvent(e *core.Event) error {
	kind, content, err := core.EncodeContent(e.Content)
	if err != nil {
		return err
	}
	native := core.Native{Data: []byte{}}
	if e.Native != nil {
		native = *e.Native
	}
	var thread core.EventID
	if b, ok := core.BodyOf(e.Content); ok {
		thread = b.Thread
	}
	err = t.exec(`INSERT INTO events (id, conv, pos, feed, sender, accepted, origin, kind, target, thread, content,
			native_network, native_type, native, retracted)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		string(e.ID), string(e.Conv), int64(e.Position), int64(e.Feed), e.Sender.String(), millis(e.Time),
		millis(e.Origin), string(kind), string(core.Target(e.Content)), string(thread), content,
		string(native.Network), native.Type, native.Data, string(e.Retracted))
	if err != nil {
		return err
	}
	t.advance(e)
	return t.PutAliases(e.ID, e.Aliases)
}

func (t *tx) PutAliases(id core.EventID, aliases []core.Alias) error {
	if len(aliases) == 0 {
		return nil
	}
	// The few that an event has go in with one statement.
	if n := len(aliases); n <= len(insertAliases) {
		args := make([]any, 0, 6*n)
		for _, a := range aliases {
			args = append(args, string(a.Network), a.Kind, a.Scope, a.Key, a.Digest, string(id))
		}
		put, err := t.tx.Exec(insertAliases[n-1], args...)
		if err != nil || put == int64(n) {
			return err
		}
	}
	for _, a := range aliases {
		_, err := t.tx.Exec(insertAliases[0], string(a.Network), a.Kind, a.Scope, a.Key, a.Digest, string(id))
		if err != nil {
			return err
		}
		if other, _, err := t.EventBy(a); err != nil {
			return err
		} else if other != id {
			return hub.Refuse(hub.Conflict, "another message has the %s %s", a.Kind, a.Key)
		}
	}
	return nil
}

// insertAliases are the statements for one alias, for two, and so on.
var insertAliases = func() (out [4]string) {
	var rows []string
	for i := range out {
		n := 6 * i
		rows = append(rows, fmt.Sprintf("($%d, $%d, $%d, $%d, $%d, $%d)", n+1, n+2, n+3, n+4, n+5, n+6))
		out[i] = `INSERT INTO event_aliases (network, kind, scope, key, digest, event) VALUES ` +
			strings.Join(rows, ", ") + ` ON CONFLICT (network, kind, scope, key, digest) DO NOTHING`
	}
	return out
}()

// Erase leaves of an event what its protocol needs to go on: its kind, what it
// was about, and for state what redaction keeps.
//
// spec: MX 1.19 RV v11 redactions
func (t *tx) Erase(id, by core.EventID) error {
	e, err := t.Event(id)
	if err != nil {
		return err
	}
	rest := e.Content
	switch c := e.Content.(type) {
	case core.Message:
		rest = core.Message{}
	case core.Edit:
		rest = core.Edit{Target: c.Target}
	case core.Reaction:
		rest = core.Reaction{Target: c.Target}
	case core.Extension:
		rest = core.Extension{Type: c.Type, StateKey: c.StateKey, Target: c.Target}
	case core.Membership:
		rest = core.Membership{Target: c.Target, Standing: c.Standing, Nick: c.Nick, Via: c.Via}
	case core.Change:
		switch c.Aspect {
		case core.AspectName, core.AspectTopic, core.AspectAvatar, core.AspectAddresses, core.AspectMovedTo:
			rest = core.Change{Aspect: c.Aspect}
		}
	}
	_, content, err := core.EncodeContent(rest)
	if err != nil {
		return err
	}
	err = t.exec(`UPDATE events SET content = $1, native_network = '', native_type = '', native = X'', retracted = $2
		WHERE id = $3`, content, string(by), string(id))
	if err != nil {
		return err
	}
	if _, state := core.StateKeyOf(e.Content); !state {
		return nil
	}
	s, err := t.loadState(e.Conv)
	if err == nil {
		t.remember(e.Conv, s)
	}
	return err
}

// putJSON is for rows that are kept as JSON.
func putJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("hubstore: a %T cannot be JSON: %v", v, err))
	}
	return b
}
