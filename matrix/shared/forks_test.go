package shared

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/wire"
)

// fork makes an event of calm at b.test after given others, which nobody else
// follows.
func (s *site) fork(t testing.TB, rm *room, typ string, key *string, content string, prev []string) *wire.PDU {
	t.Helper()
	sender := "@calm:b.test"
	p := wire.Proto{
		RoomID: rm.id, Type: typ, StateKey: key, Sender: sender, Content: []byte(content),
		PrevEvents: prev, Depth: rm.depth + 1, Time: time.Now().UnixMilli(),
	}
	for _, a := range graph.Needs(rm.current, rm.version, typ, key, sender, p.Content) {
		p.AuthEvents = append(p.AuthEvents, a.ID)
	}
	pdu, err := wire.Build(rm.version, p)
	if err != nil {
		t.Fatal(err)
	}
	return pdu
}

// BenchmarkForks is what one more event costs in a room with many ends: messages,
// which leave the state as it is, and topics, which do not.
func BenchmarkForks(b *testing.B) {
	for _, members := range []int{10, 5000} {
		for _, kind := range []string{"message", "topic", "levels"} {
			for _, ends := range []int{1, 50, 200} {
				b.Run(fmt.Sprintf("members=%d/%s/ends=%d", members, kind, ends), func(b *testing.B) { benchForks(b, members, kind, ends) })
			}
		}
	}
}

func benchForks(b *testing.B, members int, kind string, ends int) {
	s, conv := forkRoom(b, members)
	var base []string
	n := 0
	next := func(t *Turn) *wire.PDU {
		rm, err := t.room(conv)
		if err != nil {
			b.Fatal(err)
		}
		if base == nil {
			base = rm.ends
		}
		n++
		key := ""
		switch kind {
		case "topic":
			return s.fork(b, rm, "m.room.topic", &key, fmt.Sprintf(`{"topic":"number %d"}`, n), base)
		case "levels":
			return s.fork(b, rm, wire.TypePowerLevels, &key, fmt.Sprintf(`{"users":{"@calm:b.test":200,"@x:b.test":%d}}`, n%100), base)
		}
		return s.fork(b, rm, "m.room.message", nil, fmt.Sprintf(`{"body":"number %d"}`, n), base)
	}
	accept := func(t *Turn, pdu *wire.PDU) error {
		out, err := t.Accept(conv, Incoming{PDU: pdu})
		if err == nil && out.Verdict != graph.Accepted {
			b.Fatal(out)
		}
		return err
	}
	s.turn(func(t *Turn) error {
		for range ends - 1 {
			if err := accept(t, next(t)); err != nil {
				return err
			}
		}
		return nil
	})
	for b.Loop() {
		s.turn(func(t *Turn) error { return accept(t, next(t)) })
	}
}

// forkRoom is a room at a.test with many members, in which calm of b.test may do
// everything.
func forkRoom(b testing.TB, members int) (*site, core.ConvID) {
	s := newSite(b, "a.test")
	room := s.open("12", "calm")
	conv := s.conv(room)
	join := func(user string) {
		s.turn(func(t *Turn) error { return s.acceptJoin(t, conv, user) })
	}
	join("@calm:b.test")
	err := s.h.ChangeLevels(b.Context(), conv, core.LocalAddress("calm", "a.test"), func(_ *core.State, l *core.Levels) {
		l.Users[s.address("@calm:b.test")] = 200
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < members; i += 250 {
		s.turn(func(t *Turn) error {
			for k := i; k < min(i+250, members); k++ {
				if err := s.acceptJoin(t, conv, fmt.Sprintf("@m%d:b%d.test", k, k%100)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return s, conv
}

// acceptJoin accepts the join of a user of another server.
func (s *site) acceptJoin(t *Turn, conv core.ConvID, user string) error {
	rm, err := t.room(conv)
	if err != nil {
		return err
	}
	p := wire.Proto{
		RoomID: rm.id, Type: wire.TypeMember, StateKey: &user, Sender: user, Content: []byte(`{"membership":"join"}`),
		PrevEvents: rm.ends, Depth: rm.depth + 1, Time: time.Now().UnixMilli(),
	}
	for _, a := range graph.Needs(rm.current, rm.version, p.Type, p.StateKey, p.Sender, p.Content) {
		p.AuthEvents = append(p.AuthEvents, a.ID)
	}
	pdu, err := wire.Build(rm.version, p)
	if err != nil {
		return err
	}
	out, err := t.Accept(conv, Incoming{PDU: pdu})
	if err == nil && out.Verdict != graph.Accepted {
		err = out.Why
	}
	return err
}

// A room does not get more branches than it can bear, and grows together when
// somebody here speaks.
func TestForksBounded(t *testing.T) {
	s, conv := forkRoom(t, 0)
	var base []string
	verdicts := map[graph.Verdict]int{}
	for i := range 12 {
		s.turn(func(turn *Turn) error {
			rm, err := turn.room(conv)
			if err != nil {
				return err
			}
			if base == nil {
				base = rm.ends
			}
			for k := range 50 {
				pdu := s.fork(t, rm, "m.room.message", nil, fmt.Sprintf(`{"body":"number %d"}`, 50*i+k), base)
				out, err := turn.Accept(conv, Incoming{PDU: pdu})
				if err != nil {
					return err
				}
				verdicts[out.Verdict]++
			}
			return nil
		})
	}
	if verdicts[graph.Accepted] != maxEnds || verdicts[graph.SoftFailed] != 600-maxEnds {
		t.Errorf("%v", verdicts)
	}
	ends := func() (n int) {
		s.turn(func(turn *Turn) error {
			list, _, err := turn.Ends(conv)
			n = len(list)
			return err
		})
		return n
	}
	for want := maxEnds; want > 1; {
		if got := ends(); got != want {
			t.Fatalf("%d ends, not %d", got, want)
		}
		_, err := s.h.Submit(t.Context(), hub.Draft{Conv: conv, Sender: core.LocalAddress("calm", "a.test"), Content: core.Message{Body: core.TextBody("well")}})
		if err != nil {
			t.Fatal(err)
		}
		want = max(want-maxPrev+1, 1)
	}
}

// What somebody here says in a room of more branches than it can follow is what
// other servers make of it too, and clients here are shown that.
func TestForksOfState(t *testing.T) {
	s, conv := forkRoom(t, 0)
	var base []string
	var room string
	for i := range 50 {
		s.turn(func(turn *Turn) error {
			rm, err := turn.room(conv)
			if err != nil {
				return err
			}
			if room = rm.id; base == nil {
				base = rm.ends
			}
			key := ""
			pdu := s.fork(t, rm, "m.room.topic", &key, fmt.Sprintf(`{"topic":"number %d"}`, i), base)
			if i%2 == 0 {
				pdu = s.fork(t, rm, wire.TypePowerLevels, &key, fmt.Sprintf(`{"users":{"@calm:b.test":200,"@x:b.test":%d}}`, i), base)
			}
			_, err = turn.Accept(conv, Incoming{PDU: pdu})
			return err
		})
	}
	s.look(room)
	for i, c := range []core.Content{
		core.Change{Aspect: core.AspectTopic, Text: "of calm"}, core.Change{Aspect: core.AspectName, Text: "of calm"},
		core.Message{Body: core.TextBody("well")}, core.Change{Aspect: core.AspectTopic, Text: "again"},
	} {
		e, err := s.h.Submit(t.Context(), hub.Draft{Conv: conv, Sender: core.LocalAddress("calm", "a.test"), Content: c})
		if err != nil {
			t.Fatal(err)
		}
		s.look(room)
		// What another server, that has all of it, finds before and after it.
		s.turn(func(turn *Turn) error {
			rm, err := turn.room(conv)
			if err != nil {
				return err
			}
			name, _ := e.Alias(core.Matrix, "event")
			found, err := s.m.ByEventID(turn.tx, name.Key)
			if err != nil {
				return err
			}
			if n := len(found[0].PrevEvents); n > maxPrev {
				t.Errorf("event %d follows %d", i, n)
			}
			before, _, err := turn.before(rm, Incoming{PDU: found[0].PDU})
			if err != nil {
				return err
			}
			event, err := turn.event(rm, name.Key)
			if err != nil {
				return err
			}
			if err := graph.Allowed(event, before); err != nil {
				t.Errorf("others reject event %d: %v", i, err)
			}
			st, _, err := status(turn.sql, name.Key)
			if err != nil {
				return err
			}
			after, err := turn.state(rm, st.state)
			if err == nil && !after.Equal(graph.After(before, event, graph.Accepted)) {
				t.Errorf("others have another state after event %d", i)
			}
			return err
		})
	}
	if got := s.look(room); !strings.Contains(got.core, `topic "again"`) {
		t.Errorf("%s", got.core)
	}
}
