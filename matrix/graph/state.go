package graph

import (
	"hash/maphash"
	"iter"
	"math/bits"

	"parley/matrix/wire"
)

// State is a room's state: for each type and state key one event. It is
// immutable; the zero State is empty. Copies that differ in a few events share
// the rest, so that they are cheap to make, to keep and to compare.
//
// Inside it is a hash trie of 32-way nodes, whose leaves are the events.
type State struct {
	root *node
	size int
	// sum is the same for equal states, and hardly ever for others.
	sum uint64
}

// A View is state to look things up in.
type View interface {
	// Get returns the state event of that type and key, nil if there is none.
	Get(eventType, key string) *Event
}

// node is one node of the trie. A bit of leaf says that the next of leaves
// stands there, a bit of sub that the next of subs does; no bit is in both.
// Below the last bits of the hash, leaves is a list without bits.
type node struct {
	leaf, sub uint32
	leaves    []*Event
	subs      []*node
}

const (
	fanBits = 5
	fanMask = 1<<fanBits - 1
	deepest = 60 // shift at which the hash is used up
)

// seed is by chance and for this process, so that nobody can choose keys that
// fall together.
var seed = maphash.MakeSeed()

func hashOf(eventType, key string) uint64 {
	return maphash.Comparable(seed, wire.StateKey{Type: eventType, Key: key})
}

// sumOf is an event's part of a state's sum.
func sumOf(id string) uint64 { return maphash.String(seed, id) }

// StateOf is the state that consists of the events, of which later ones replace
// earlier ones.
func StateOf(events ...*Event) State {
	var s State
	for _, e := range events {
		s = s.With(e)
	}
	return s
}

// Len is how many events the state consists of.
func (s State) Len() int { return s.size }

// Get returns the event of that type and key, nil if there is none.
func (s State) Get(eventType, key string) *Event {
	h := hashOf(eventType, key)
	n := s.root
	for shift := 0; n != nil; shift += fanBits {
		if shift >= deepest {
			for _, e := range n.leaves {
				if e.Is(eventType, key) {
					return e
				}
			}
			return nil
		}
		bit := uint32(1) << (h >> shift & fanMask)
		if n.leaf&bit != 0 {
			if e := n.leaves[index(n.leaf, bit)]; e.Is(eventType, key) {
				return e
			}
			return nil
		}
		if n.sub&bit == 0 {
			return nil
		}
		n = n.subs[index(n.sub, bit)]
	}
	return nil
}

// With is the state after a state event: s with e in place of the event of the
// same type and key.
func (s State) With(e *Event) State {
	root, old := s.root.with(e, 0)
	s.sum ^= e.sum
	if old == nil {
		s.size++
	} else {
		s.sum ^= old.sum
	}
	return State{root, s.size, s.sum}
}

// Without is s without the event of that type and key.
func (s State) Without(k wire.StateKey) State {
	old := s.Get(k.Type, k.Key)
	if old == nil {
		return s
	}
	return State{s.root.without(k, hashOf(k.Type, k.Key), 0), s.size - 1, s.sum ^ old.sum}
}

// All visits the events in no order that means anything.
func (s State) All() iter.Seq[*Event] {
	return func(yield func(*Event) bool) { s.root.all(yield) }
}

// Equal says whether two states are the same.
func (s State) Equal(t State) bool {
	same := s.size == t.size && s.sum == t.sum
	if same {
		s.Diff(t, func(*Event, *Event) { same = false })
	}
	return same
}

// Diff calls f for every piece of state that differs: with s's event and t's,
// of which one is nil where only the other has that piece.
func (s State) Diff(t State, f func(was, is *Event)) { diff(s.root, t.root, 0, f) }

func index(set, bit uint32) int { return bits.OnesCount32(set & (bit - 1)) }

// with returns the node with e, and the event that it replaces, nil if none.
func (n *node) with(e *Event, shift int) (*node, *Event) {
	if n == nil {
		n = &node{}
	}
	out := *n
	if shift >= deepest {
		for i, old := range n.leaves {
			if old.Is(e.Type, *e.StateKey) {
				out.leaves = replaced(n.leaves, i, e)
				return &out, old
			}
		}
		out.leaves = inserted(n.leaves, len(n.leaves), e)
		return &out, nil
	}
	bit := uint32(1) << (e.hash >> shift & fanMask)
	switch i := index(n.leaf, bit); {
	case n.leaf&bit != 0 && n.leaves[i].Is(e.Type, *e.StateKey):
		out.leaves = replaced(n.leaves, i, e)
		return &out, n.leaves[i]
	case n.leaf&bit != 0: // two events share the slot: a node for both
		below, _ := (*node)(nil).with(n.leaves[i], shift+fanBits)
		below, _ = below.with(e, shift+fanBits)
		out.leaf &^= bit
		out.leaves = removed(n.leaves, i)
		out.sub |= bit
		out.subs = inserted(n.subs, index(n.sub, bit), below)
		return &out, nil
	case n.sub&bit != 0:
		j := index(n.sub, bit)
		below, old := n.subs[j].with(e, shift+fanBits)
		out.subs = replaced(n.subs, j, below)
		return &out, old
	default:
		out.leaf |= bit
		out.leaves = inserted(n.leaves, i, e)
		return &out, nil
	}
}

// without takes away an event that is there. Nodes that have become small stay.
func (n *node) without(k wire.StateKey, h uint64, shift int) *node {
	out := *n
	if shift >= deepest {
		for i, e := range n.leaves {
			if e.Is(k.Type, k.Key) {
				out.leaves = removed(n.leaves, i)
			}
		}
		return &out
	}
	bit := uint32(1) << (h >> shift & fanMask)
	if n.leaf&bit != 0 {
		out.leaves = removed(n.leaves, index(n.leaf, bit))
		out.leaf &^= bit
		return &out
	}
	i := index(n.sub, bit)
	out.subs = replaced(n.subs, i, n.subs[i].without(k, h, shift+fanBits))
	return &out
}

func (n *node) all(yield func(*Event) bool) bool {
	if n == nil {
		return true
	}
	for _, e := range n.leaves {
		if !yield(e) {
			return false
		}
	}
	for _, below := range n.subs {
		if !below.all(yield) {
			return false
		}
	}
	return true
}

// at returns what stands in one slot.
func (n *node) at(bit uint32) (*Event, *node) {
	switch {
	case n == nil:
		return nil, nil
	case n.leaf&bit != 0:
		return n.leaves[index(n.leaf, bit)], nil
	case n.sub&bit != 0:
		return nil, n.subs[index(n.sub, bit)]
	}
	return nil, nil
}

func diff(a, b *node, shift int, f func(was, is *Event)) {
	if a == b {
		return
	}
	if shift >= deepest {
		diffLists(a, b, f)
		return
	}
	for slot := range uint32(1) << fanBits {
		ae, an := a.at(1 << slot)
		be, bn := b.at(1 << slot)
		switch {
		case ae == be && an == bn:
		case ae == nil && be == nil:
			diff(an, bn, shift+fanBits, f)
		case an == nil && bn == nil && ae != nil && be != nil && ae.Key() == be.Key():
			if ae.ID != be.ID {
				f(ae, be)
			}
		default:
			diffLists(listed(ae, an), listed(be, bn), f)
		}
	}
}

// listed is a list of what is in a slot.
func listed(e *Event, n *node) *node {
	var l node
	if e != nil {
		l.leaves = []*Event{e}
	}
	n.all(func(e *Event) bool { l.leaves = append(l.leaves, e); return true })
	return &l
}

// diffLists compares two short lists.
func diffLists(a, b *node, f func(was, is *Event)) {
	find := func(n *node, e *Event) *Event {
		if n != nil {
			for _, x := range n.leaves {
				if x.Key() == e.Key() {
					return x
				}
			}
		}
		return nil
	}
	if a != nil {
		for _, e := range a.leaves {
			if other := find(b, e); other == nil || other.ID != e.ID {
				f(e, other)
			}
		}
	}
	if b != nil {
		for _, e := range b.leaves {
			if find(a, e) == nil {
				f(nil, e)
			}
		}
	}
}

func replaced[T any](list []T, i int, v T) []T {
	out := make([]T, len(list))
	copy(out, list)
	out[i] = v
	return out
}

func inserted[T any](list []T, i int, v T) []T {
	out := make([]T, len(list)+1)
	copy(out, list[:i])
	out[i] = v
	copy(out[i+1:], list[i:])
	return out
}

func removed[T any](list []T, i int) []T {
	out := make([]T, 0, len(list)-1)
	return append(append(out, list[:i]...), list[i+1:]...)
}
