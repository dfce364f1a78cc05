package graph

import (
	"fmt"
	"slices"
	"testing"

	"parley/matrix/wire"

	"pgregory.net/rapid"
)

// grow makes a random room with forks: sensible acts and others, after one to
// three events that are known.
func (w *world) grow(t *rapid.T, steps int) []*Event {
	all := []*Event{w.room(bobModerates)}
	people := []string{alice, bob, carol, mal}
	who := func() string { return rapid.SampledFrom(people).Draw(t, "who") }
	for range steps {
		var prev []*Event
		for range rapid.IntRange(1, 3).Draw(t, "prevs") {
			recent := all[max(0, len(all)-8):]
			if e := rapid.SampledFrom(recent).Draw(t, "prev"); !slices.Contains(prev, e) {
				prev = append(prev, e)
			}
		}
		sender := who()
		key := ptr("")
		var eventType, content string
		switch rapid.IntRange(0, 7).Draw(t, "act") {
		case 0, 1, 2:
			key = ptr(who())
			eventType = wire.TypeMember
			content = fmt.Sprintf(`{"membership":%q}`, rapid.SampledFrom([]string{"join", "leave", "ban", "invite", "knock"}).Draw(t, "membership"))
			if rapid.Bool().Draw(t, "own") {
				key = ptr(sender)
			}
		case 3:
			eventType = wire.TypePowerLevels
			n := rapid.SampledFrom([]int{0, 25, 50, 100}).Draw(t, "level")
			content = w.levels(fmt.Sprintf(`%q:%d,%q:%d`, bob, n, carol, rapid.SampledFrom([]int{0, 50}).Draw(t, "carol")))
		case 4:
			eventType = wire.TypeJoinRules
			content = fmt.Sprintf(`{"join_rule":%q}`, rapid.SampledFrom([]string{"public", "invite", "knock"}).Draw(t, "rule"))
		case 5:
			eventType, key, content = "m.room.message", nil, `{"body":"x"}`
		default:
			eventType, content = rapid.SampledFrom([]string{"m.room.topic", "m.room.name"}).Draw(t, "type"), `{"x":"y"}`
		}
		w.clock = max(1, w.clock-int64(rapid.IntRange(0, 3).Draw(t, "back"))) // clocks apart
		all = append(all, w.make(sender, eventType, key, content, prev...))
	}
	return all
}

// arrive is what another server makes of the room, by events in this order; it
// returns the state after each, written out.
func (w *world) arrive(t *rapid.T, order []*wire.PDU, shuffle bool) map[string]string {
	known, after := map[string]*Event{}, map[string]State{}
	out := map[string]string{}
	todo := slices.Clone(order)
	for len(todo) > 0 {
		i := slices.IndexFunc(todo, func(p *wire.PDU) bool {
			for _, id := range slices.Concat(p.PrevEvents, p.AuthEvents) {
				if known[id] == nil {
					return false
				}
			}
			return true
		})
		pdu := todo[i]
		todo = slices.Delete(todo, i, i+1)
		var auth []*Event
		for _, id := range pdu.AuthEvents {
			auth = append(auth, known[id])
		}
		e, err := Link(pdu, known[w.create.ID], auth)
		if err != nil {
			t.Fatal(err)
		}
		e.ViaSigned = true
		var states []State
		for _, id := range pdu.PrevEvents {
			states = append(states, after[id])
		}
		if shuffle {
			slices.Reverse(states)
		}
		before := Resolve(w.v, states...)
		v, _ := Check(e, before, before)
		e.Rejected = v == Rejected
		known[e.ID], after[e.ID] = e, After(before, e, v)
		out[e.ID] = v.String() + " " + written(after[e.ID])
	}
	return out
}

func written(s State) string {
	var list []string
	for e := range s.All() {
		list = append(list, e.Type+"|"+*e.StateKey+"="+e.ID)
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}

// Whatever the order in which events arrive, every server ends with the same
// state after each of them, and so for any set of forward extremities.
func TestEveryServerAgrees(t *testing.T) {
	for _, version := range wire.Versions() {
		t.Run("version "+version, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				w := newWorld(t, version)
				w.grow(rt, rapid.IntRange(3, 25).Draw(rt, "steps"))
				var pdus []*wire.PDU
				for _, p := range w.pdus {
					pdus = append(pdus, p)
				}
				slices.SortFunc(pdus, func(a, b *wire.PDU) int {
					if a.EventID < b.EventID {
						return -1
					}
					return 1
				})
				want := w.arrive(rt, pdus, false)
				for range 2 {
					got := w.arrive(rt, rapid.Permutation(pdus).Draw(rt, "order"), true)
					for id, s := range want {
						if got[id] != s {
							rt.Fatalf("after %s:\n%s\n%s", id, s, got[id])
						}
					}
				}
				for id, s := range w.after {
					if written(s) != want[id][len(want[id])-len(written(s)):] {
						rt.Fatalf("the first server differs after %s", id)
					}
				}
			})
		})
	}
}

// The trie is a map.
func TestStateIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s State
		want := map[wire.StateKey]*Event{}
		var was State
		for i := range rapid.IntRange(0, 200).Draw(t, "n") {
			k := fmt.Sprint(rapid.IntRange(0, 80).Draw(t, "key"))
			if i == 50 {
				was = s
			}
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				s = s.Without(wire.StateKey{Type: "t", Key: k})
				delete(want, wire.StateKey{Type: "t", Key: k})
				continue
			}
			e := &Event{ID: fmt.Sprint(i), Type: "t", StateKey: &k, hash: hashOf("t", k)}
			s, want[e.Key()] = s.With(e), e
		}
		n := 0
		for e := range s.All() {
			n++
			if want[e.Key()] != e {
				t.Fatal("another event")
			}
		}
		if n != len(want) || s.Len() != len(want) {
			t.Fatalf("%d, %d, not %d", n, s.Len(), len(want))
		}
		again := was
		was.Diff(s, func(a, b *Event) {
			if b == nil {
				again = again.Without(a.Key())
			} else {
				again = again.With(b)
			}
		})
		if !again.Equal(s) || written(again) != written(s) {
			t.Fatal("the difference does not lead from one to the other")
		}
	})
}
