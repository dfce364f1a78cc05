package hubstore

import (
	"slices"

	"parley/core"
)

// maxRemembered bounds each memory; a full one starts anew.
const maxRemembered = 1 << 16

// memory is what the writer remembers of rows, so that a turn in a conversation
// that has just had one reads nothing. Only the writer's goroutine uses it. What
// a turn changed is forgotten when the turn is undone.
type memory[K comparable, V any] map[K]V

// learn remembers what was read, or what was written where forget is seen to.
func (m memory[K, V]) learn(k K, v V) {
	if len(m) >= maxRemembered {
		clear(m)
	}
	m[k] = v
}

// wrote remembers what this turn has written.
func (m memory[K, V]) wrote(t *tx, k K, v V) {
	m.learn(k, v)
	t.tx.OnRollback(func() { delete(m, k) })
}

// forget is for what this turn has changed without saying to what.
func (m memory[K, V]) forget(t *tx, k K) {
	delete(m, k)
	t.tx.OnRollback(func() { delete(m, k) })
}

// forgetAll is for a change of which the key is not known.
func (m memory[K, V]) forgetAll(t *tx) {
	clear(m)
	t.tx.OnRollback(func() { clear(m) })
}

// edge is where a conversation's two orders have got to.
type edge struct {
	pos  core.Position
	feed core.Feed
}

// couple are the two of a direct, in the order of pair.
type couple struct{ a, b string }

// Conversation returns a conversation, from memory where it is there. Nobody
// changes its Native.
func (v *view) Conversation(id core.ConvID) (core.Conversation, error) {
	if v.writer {
		if c, ok := v.s.conversations[id]; ok {
			return c, nil
		}
	} else if c, ok := v.s.known.Load(id); ok {
		return c.(core.Conversation), nil
	}
	c, err := v.loadConversation(id)
	if err != nil {
		return c, err
	}
	if v.writer {
		v.s.conversations.learn(id, c)
		return c, nil
	}
	// As with states: what is there already is this one or newer.
	other, _ := v.s.known.LoadOrStore(id, c)
	return other.(core.Conversation), nil
}

// rememberConversation reads what has become of a conversation's rows and
// keeps it, for readers once it is committed.
func (t *tx) rememberConversation(id core.ConvID) error {
	t.s.conversations.forget(t, id)
	c, err := t.loadConversation(id)
	if err != nil {
		return err
	}
	t.s.conversations.learn(id, c)
	t.tx.OnCommit(func() { t.s.known.Store(id, c) })
	return nil
}

// Directs are the directs of a pair that have not ended, the current one first.
func (v *view) Directs(a, b core.Address) ([]core.ConvID, error) {
	x, y := pair(a, b)
	if !v.writer {
		return v.loadDirects(x, y)
	}
	all, ok := v.s.directs[couple{x, y}]
	if !ok {
		var err error
		if all, err = v.loadDirects(x, y); err != nil {
			return nil, err
		}
		v.s.directs.learn(couple{x, y}, all)
	}
	return slices.Clone(all), nil
}

// Edge are the highest position and feed of a conversation.
func (v *view) Edge(conv core.ConvID) (core.Position, core.Feed, error) {
	if !v.writer {
		e, err := v.loadEdge(conv)
		return e.pos, e.feed, err
	}
	e, ok := v.s.edges[conv]
	if !ok {
		var err error
		if e, err = v.loadEdge(conv); err != nil {
			return 0, 0, err
		}
		v.s.edges.learn(conv, e)
	}
	return e.pos, e.feed, nil
}

// advance notes that a conversation has got a further event.
func (t *tx) advance(e *core.Event) {
	if was, ok := t.s.edges[e.Conv]; ok {
		t.s.edges.wrote(t, e.Conv, edge{max(was.pos, e.Position), max(was.feed, e.Feed)})
	}
}
