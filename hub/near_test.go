package hub

import (
	"fmt"
	"slices"
	"testing"

	"parley/core"
)

// TestNear finds those whom every event is for, in rooms of any size, and finds them
// anew when the state is another one.
func TestNear(t *testing.T) {
	for _, strangers := range []int{1, 3 * nearLeast} {
		turn := &turn{h: &Hub{near: map[core.ConvID]nearby{}}}
		s := core.NewState()
		add := func(a core.Address) { s.Members[a] = core.Member{Address: a, Standing: core.Joined} }
		for i := range strangers {
			add(core.Address{Network: core.Matrix, Name: fmt.Sprint(i), Domain: "b.test"})
		}
		want := []string{"alice", "carol"}
		add(core.LocalAddress("alice", "a.test"))
		add(core.Address{Network: core.XMPP, Name: "carol", Domain: "x.test"})
		check := func(when string) {
			var got []string
			for m := range turn.near(place{&core.Conversation{ID: "c"}, s}) {
				got = append(got, m.Address.Name)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%d strangers, %s: %v, want %v", strangers, when, got, want)
			}
		}
		check("at first")
		check("again")
		s, want = s.Clone(), []string{"alice", "bob", "carol"}
		add(core.LocalAddress("bob", "a.test"))
		check("with another state")
		for _, c := range []core.Membership{
			{Target: core.Address{Network: core.Matrix, Name: "0", Domain: "b.test"}, Standing: core.Left},
			{Target: core.LocalAddress("bob", "a.test"), Standing: core.Left},
		} {
			next := s.Clone()
			next.Members[c.Target] = core.Member{Address: c.Target, Standing: c.Standing}
			turn.stay(place{&core.Conversation{ID: "c"}, s}, next, c)
			s = next
			for m := range turn.near(place{&core.Conversation{ID: "c"}, s}) {
				if m.Address == c.Target && m.Standing != c.Standing {
					t.Errorf("%d strangers: %s is %s", strangers, m.Address, m.Standing)
				}
			}
			check("when one has left")
		}
	}
}

// TestNearForgets keeps no more conversations than it may.
func TestNearForgets(t *testing.T) {
	turn := &turn{h: &Hub{near: map[core.ConvID]nearby{}}}
	s := core.NewState()
	for i := range nearLeast {
		a := core.LocalAddress(fmt.Sprint(i), "a.test")
		s.Members[a] = core.Member{Address: a}
	}
	for i := range nearMost + 10 {
		turn.near(place{&core.Conversation{ID: core.ConvID(fmt.Sprint(i))}, s})
	}
	if n := len(turn.h.near); n > nearMost || n < 10 {
		t.Errorf("%d conversations", n)
	}
}
