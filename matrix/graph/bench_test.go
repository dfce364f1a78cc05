package graph

import (
	"fmt"
	"testing"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"parley/matrix/wire"
)

// crowd is a room of n members with a fork: bob bans one on one side, another
// topic and a join on the other.
func crowd(b *testing.B, version string, n int) (w *world, left, right *Event) {
	w = newWorld(b, version)
	e := w.room(bobModerates)
	for i := range n {
		u := fmt.Sprintf("@u%d:s%d.example", i, i%100)
		e = w.member(u, u, "join", e)
	}
	left = w.member(bob, "@u5:s5.example", "ban", e)
	right = w.ok(alice, "m.room.topic", "", `{"topic":"x"}`, e)
	return w, left, w.member(mal, mal, "join", right)
}

func BenchmarkFork10000(b *testing.B) {
	for _, version := range []string{"11", "12"} {
		w, left, right := crowd(b, version, 10000)
		l, r := w.after[left.ID], w.after[right.ID]
		b.Run("v"+version+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Resolve(w.v, l, r)
			}
		})
		// As when both states were just read and share nothing.
		fresh := StateOf()
		for e := range r.All() {
			fresh = fresh.With(e)
		}
		b.Run("v"+version+"/ours-unshared", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Resolve(w.v, l, fresh)
			}
		})
		if w.v.HashedRoomID {
			continue // the library panics: see TestLibrary
		}
		lib := newSecond(b, w)
		sets := [][]gmsl.PDU{lib.set(l), lib.set(r)}
		chain := lib.all()
		b.Run("v"+version+"/library", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lib.resolve(sets, chain)
			}
		})
	}
}

// second is gomatrixserverlib's view of a world.
type second struct {
	w    *world
	algo gmsl.StateResAlgorithm
	pdus map[string]gmsl.PDU
}

func newSecond(t testing.TB, w *world) *second {
	s := &second{w: w, algo: gmsl.StateResV2, pdus: map[string]gmsl.PDU{}}
	if w.v.HashedRoomID {
		s.algo = gmsl.StateResV2_1
	}
	impl := gmsl.MustGetRoomVersion(gmsl.RoomVersion(w.v.ID))
	for id, p := range w.pdus {
		e, err := impl.NewEventFromTrustedJSON(p.JSON, false)
		if err != nil {
			t.Fatal(err)
		}
		if e.EventID() != id {
			t.Fatalf("event ID %s, ours %s", e.EventID(), id)
		}
		s.pdus[id] = e
	}
	return s
}

func (s *second) all() []gmsl.PDU {
	var out []gmsl.PDU
	for _, p := range s.pdus {
		out = append(out, p)
	}
	return out
}

func (s *second) set(st State) []gmsl.PDU {
	var out []gmsl.PDU
	for e := range st.All() {
		out = append(out, s.pdus[e.ID])
	}
	return out
}

func (s *second) resolve(sets [][]gmsl.PDU, chain []gmsl.PDU) map[wire.StateKey]string {
	out := map[wire.StateKey]string{}
	for _, e := range gmsl.ResolveStateConflictsV2New(s.algo, sets, chain,
		func(_ spec.RoomID, id spec.SenderID) (*spec.UserID, error) { return spec.NewUserID(string(id), true) },
		func(id string) bool { return s.w.known[id].Rejected }) {
		out[wire.StateKey{Type: e.Type(), Key: *e.StateKey()}] = e.EventID()
	}
	return out
}
