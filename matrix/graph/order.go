package graph

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"parley/matrix/wire"
)

// isPower says whether e might take away somebody's ability to do something.
// Types stand for the state events with an empty key that have a meaning;
// other keys have none.
//
// spec: MX 1.19 RV v12
func isPower(e *Event) bool {
	switch {
	case e.Is(wire.TypePowerLevels, ""), e.Is(wire.TypeJoinRules, ""):
		return true
	case e.Type == wire.TypeMember && e.StateKey != nil:
		return (e.membership == "leave" || e.membership == "ban") && e.Sender != *e.StateKey
	}
	return false
}

// powerEvents are the power events of the full conflicted set, with what is in
// their auth chains and in that set.
//
// spec: MX 1.19 RV v12
func powerEvents(full set) set {
	out, least := set{}, math.MaxInt
	var from []*Event
	for e := range full {
		least = min(least, e.generation)
		if isPower(e) {
			out[e] = true
			from = append(from, e)
		}
	}
	chain(from, least, set{}, func(e *Event) {
		if full[e] {
			out[e] = true
		}
	})
	return out
}

// candidate is an event with what it is compared by.
type candidate struct {
	*Event
	level int64 // of its sender, by its auth events
	wait  int   // how many of its auth events come first
}

type candidates []*candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, k int) bool {
	return cmp.Or(cmp.Compare(c[k].level, c[i].level), byAge(c[i].Event, c[k].Event)) < 0
}
func (c candidates) Swap(i, k int) { c[i], c[k] = c[k], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(*candidate)) }
func (c *candidates) Pop() any {
	old := *c
	x := old[len(old)-1]
	*c = old[:len(old)-1]
	return x
}

// byAge compares by origin_server_ts, then by event ID.
func byAge(x, y *Event) int { return cmp.Or(cmp.Compare(x.Time, y.Time), cmp.Compare(x.ID, y.ID)) }

// sortByPower is the reverse topological power ordering: Kahn's algorithm,
// which at each step takes the smallest of those whose auth events are placed.
//
// spec: MX 1.19 RV v12
func sortByPower(events set) []*Event {
	all := make(map[*Event]*candidate, len(events))
	for e := range events {
		all[e] = &candidate{Event: e, level: citedLevel(e)}
	}
	cited := map[*Event][]*candidate{}
	var ready candidates
	for e, c := range all {
		for i, a := range e.Auth {
			if events[a] && !slices.Contains(e.Auth[:i], a) {
				c.wait++
				cited[a] = append(cited[a], c)
			}
		}
		if c.wait == 0 {
			ready = append(ready, c)
		}
	}
	heap.Init(&ready)
	out := make([]*Event, 0, len(events))
	for len(ready) > 0 {
		c := heap.Pop(&ready).(*candidate)
		out = append(out, c.Event)
		for _, next := range cited[c.Event] {
			if next.wait--; next.wait == 0 {
				heap.Push(&ready, next)
			}
		}
	}
	return out
}

// citedLevel is the level of an event's sender, by its auth events.
func citedLevel(e *Event) int64 {
	create := e.Create
	if create == nil {
		create = e
	}
	var l *levels
	if p := e.cites(wire.TypePowerLevels, ""); p != nil {
		l = p.levels
	}
	return levelOf(e.Sender, create, l)
}

// sortByMainline is the mainline ordering based on a power levels event, which
// may be nil.
//
// spec: MX 1.19 RV v12
func sortByMainline(events []*Event, p *Event) {
	position := map[*Event]int{} // of a power levels event or what cites one
	for i := 0; p != nil; i++ {
		position[p] = i
		p = p.cites(wire.TypePowerLevels, "")
	}
	of := make(map[*Event]int, len(events))
	for _, e := range events {
		of[e] = mainlinePosition(e, position)
	}
	slices.SortFunc(events, func(x, y *Event) int {
		return cmp.Or(cmp.Compare(of[y], of[x]), byAge(x, y))
	})
}

// mainlinePosition walks from an event's power levels to the mainline, and
// notes what it found for all on its way.
func mainlinePosition(e *Event, position map[*Event]int) int {
	var way []*Event
	at := math.MaxInt
	for p := e.cites(wire.TypePowerLevels, ""); p != nil; p = p.cites(wire.TypePowerLevels, "") {
		if i, ok := position[p]; ok {
			at = i
			break
		}
		way = append(way, p)
	}
	for _, p := range way {
		position[p] = at
	}
	return at
}
