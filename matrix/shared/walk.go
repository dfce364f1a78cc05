package shared

import (
	"slices"

	"parley/matrix/wire"
	"parley/store"
)

// node is a state group, with what it changes in the one that it differs from.
type node struct {
	sets     []change
	children []int64
}

type change struct {
	key   wire.StateKey
	event string // "" takes the piece away
}

// walk goes over the states of some groups: over all groups that they differ
// from, each once, so that the way is as long as the differences are many.
// changed hears of every piece that becomes another on the way, also when the way
// leads back; at is called where the pieces are those of one of the groups. where
// narrows the pieces, as a condition on the table s whose arguments are numbered
// on from those of the groups.
func (l *Look) walk(groups []int64, where string, more []any, changed func(k wire.StateKey, was, is string), at func(group int64)) error {
	nodes, roots, err := l.nodes(groups, where, more)
	if err != nil {
		return err
	}
	type step struct {
		id   int64
		undo []change // set when the way leads back
		back bool
	}
	state := map[wire.StateKey]string{}
	set := func(k wire.StateKey, event string) (was string) {
		was = state[k]
		if state[k] = event; event == "" {
			delete(state, k)
		}
		if was != event {
			changed(k, was, event)
		}
		return was
	}
	asked := make(map[int64]bool, len(groups))
	for _, id := range groups {
		asked[id] = true
	}
	var way []step
	for _, id := range roots {
		way = append(way, step{id: id})
	}
	for len(way) > 0 {
		s := way[len(way)-1]
		way = way[:len(way)-1]
		if s.back {
			for _, c := range slices.Backward(s.undo) {
				set(c.key, c.event)
			}
			continue
		}
		n := nodes[s.id]
		var undo []change
		for _, c := range n.sets {
			undo = append(undo, change{c.key, set(c.key, c.event)})
		}
		if at != nil && asked[s.id] {
			at(s.id)
		}
		if len(way) > 0 { // what else there is lies on another branch
			way = append(way, step{back: true, undo: undo})
		}
		for _, id := range n.children {
			way = append(way, step{id: id})
		}
	}
	return nil
}

// nodes reads groups and those that they differ from.
func (l *Look) nodes(groups []int64, where string, more []any) (nodes map[int64]*node, roots []int64, err error) {
	nodes = map[int64]*node{}
	ids := make([]string, len(groups))
	marks, args := placeholders(ids)
	for i, g := range groups {
		args[i] = g
	}
	if where != "" {
		where = " AND " + where
	}
	parents := map[int64]int64{}
	err = store.Each(l.q, func(row store.Scanner) error {
		var id, parent int64
		var c change
		if err := row.Scan(&id, &parent, &c.key.Type, &c.key.Key, &c.event); err != nil {
			return err
		}
		if nodes[id] == nil {
			nodes[id] = &node{}
			parents[id] = parent
		}
		if c.key.Type != "" { // else there is nothing in it that was asked for
			nodes[id].sets = append(nodes[id].sets, c)
		}
		return nil
	}, `WITH RECURSIVE chain(id, parent) AS (
			SELECT id, parent FROM shared_groups WHERE id IN (`+marks+`)
			UNION SELECT g.id, g.parent FROM chain c JOIN shared_groups g ON g.id = c.parent)
		SELECT c.id, c.parent, COALESCE(s.type, ''), COALESCE(s.state_key, ''), COALESCE(s.event_id, '')
		FROM chain c LEFT JOIN shared_states s ON s.grp = c.id`+where, append(args, more...)...)
	for id, parent := range parents {
		if p := nodes[parent]; p != nil {
			p.children = append(p.children, id)
		} else {
			roots = append(roots, id)
		}
	}
	return nodes, roots, err
}
