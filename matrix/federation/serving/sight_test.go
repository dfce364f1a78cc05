package serving_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/shared/sharedtest"
	"parley/matrix/wire"
)

// What was said before a server was in a room for members only is no more than
// told to have been; what anybody may read is told to anybody.
//
// spec: MX 1.19 CS §10.14
func TestVisibility(t *testing.T) {
	for _, c := range []struct {
		visibility      string
		before, outside bool // what a.test sees of before its joining, and c.test at all
	}{{"shared", true, false}, {"joined", false, false}, {"invited", false, false}, {"world_readable", true, true}} {
		t.Run(c.visibility, func(t *testing.T) {
			w := newWorld(t)
			room := w.bob.Create(object{"preset": "public_chat"})
			w.bob.SetState(room, wire.TypeVisibility, "", object{"history_visibility": c.visibility})
			secret := w.bob.Say(room, "before")
			topic := w.bob.SetState(room, "m.room.topic", "", object{"topic": "old"})
			w.bob.SetState(room, "m.room.topic", "", object{"topic": "new"})
			alice := w.join(room)
			joined := w.a.State(room)["m.room.member|"+alice.ID]
			open := w.bob.Say(room, "after")

			back := w.own(w.get(w.a, "backfill/%s?v=%s&limit=50", room, open), "pdus")
			for _, e := range back {
				switch e.EventID {
				case open, joined:
					if !whole(e) {
						t.Errorf("%s is redacted", e.Type)
					}
				case secret, topic:
					if whole(e) != c.before {
						t.Errorf("%s is told as %s", e.Type, e.Content)
					}
				}
			}
			for _, id := range []string{secret, topic, open, joined} {
				if !slices.Contains(ids(back), id) {
					t.Errorf("%s is left out", id)
				}
			}
			if e := w.own(w.get(w.a, "event/%s", open), "pdus"); !whole(e[0]) {
				t.Error("what was said to it is redacted")
			}
			if c.before {
				if e := w.own(w.get(w.a, "event/%s", secret), "pdus"); !whole(e[0]) {
					t.Error("what it may see is redacted")
				}
			} else {
				w.refuses(w.a, 403, "M_FORBIDDEN", path("event/%s", secret))
				if e := w.own(w.get(w.a, "event/%s", topic), "pdus"); whole(e[0]) {
					t.Errorf("an old topic is told: %s", e[0].Content)
				}
				now := w.b.State(room)["m.room.topic|"]
				if e := w.own(w.get(w.a, "event/%s", now), "pdus"); !whole(e[0]) {
					t.Error("the topic is redacted")
				}
			}
			for _, q := range []string{path("event/%s", open), path("backfill/%s?v=%s&limit=5", room, open), path("timestamp_to_event/%s?ts=0&dir=f", room)} {
				if !c.outside {
					w.refuses(w.c, 403, "M_FORBIDDEN", q)
				} else if _, err := w.ask(w.c, "GET", q, nil); err != nil {
					t.Errorf("c.test asks %s: %v", q, err)
				}
			}
		})
	}
}

// Who was put out may ask up to that, and about nothing after.
func TestPutOut(t *testing.T) {
	w := newWorld(t)
	room := w.bob.Create(object{"preset": "public_chat"})
	w.bob.SetState(room, wire.TypeVisibility, "", object{"history_visibility": "joined"})
	alice := w.join(room)
	said := w.bob.Say(room, "hello")
	w.bob.Do("POST", "/v3/rooms/"+room+"/kick", object{"user_id": alice.ID, "reason": "enough"})
	kick := w.b.State(room)["m.room.member|"+alice.ID]
	after := w.bob.Say(room, "she is gone")
	if back := w.own(w.get(w.a, "backfill/%s?v=%s&limit=3", room, kick), "pdus"); len(back) != 3 || back[1].EventID != said || !whole(back[1]) || !strings.Contains(string(back[0].Content), "enough") {
		t.Errorf("up to the kick: %q", ids(back))
	}
	w.get(w.a, "state_ids/%s?event_id=%s", room, kick)
	w.get(w.a, "event_auth/%s/%s", room, kick)
	for _, q := range all(room, after) {
		w.refuses(w.a, 403, "M_FORBIDDEN", q)
	}
	w.refuses(w.a, 403, "M_FORBIDDEN", path("backfill/%s?v=%s&v=%s&limit=3", room, kick, after))
}

// A room's list of servers closes every question.
//
// spec: MX 1.19 SS §26
func TestServerACL(t *testing.T) {
	w := newWorld(t)
	room := w.bob.Create(object{"preset": "public_chat"})
	w.join(room)
	said := w.bob.Say(room, "hello")
	w.get(w.a, "event/%s", said)
	w.bob.SetState(room, "m.room.server_acl", "", object{"allow": []string{"*"}, "deny": []string{"a.*"}})
	for _, q := range all(room, said) {
		w.refuses(w.a, 403, "M_FORBIDDEN", q)
	}
	if _, err := w.ask(w.a, "POST", path("get_missing_events/%s", room), object{"earliest_events": []string{}, "latest_events": []string{said}}); err == nil || err.Status != 403 {
		t.Errorf("what is missing: %v", err)
	}
}

// foreign has bob enter a room of a.test and others that is known from its events
// alone.
func (w *world) foreign(room *sharedtest.Room) {
	w.t.Helper()
	entry := room.Entry(w.bob.ID)
	w.turn(func(t *shared.Turn) error {
		_, err := t.Enter(entry)
		return err
	})
}

func (w *world) turn(f func(*shared.Turn) error) {
	w.t.Helper()
	if err := w.b.Shared.Turn(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) accept(room *sharedtest.Room, in shared.Incoming, want graph.Verdict) {
	w.t.Helper()
	conv := w.b.Conv(room.ID)
	w.turn(func(t *shared.Turn) error {
		out, err := t.Accept(conv, in)
		if err == nil && out.Verdict != want {
			err = fmt.Errorf("%s is %v: %v", in.PDU.Type, out.Verdict, out.Why)
		}
		return err
	})
}

// What was rejected is told to nobody, but does not hide what is behind it; what
// was soft-failed is told; events of others go out as they came; and what the
// state was where it is not known nobody is told.
func TestVerdicts(t *testing.T) {
	w := newWorld(t)
	const alice, carol, dave = "@alice:a.test", "@carol:c.test", "@dave:d.test"
	room := sharedtest.New(t, "11", alice, carol, dave)
	old := room.Say(alice, "long ago")
	w.foreign(room)
	good := room.Say(carol, "good")
	w.accept(room, shared.Incoming{PDU: good}, graph.Accepted)
	branch := room.Fork()
	bad := room.Set(carol, "m.room.topic", "", `{"topic":"may not"}`)
	w.accept(room, shared.Incoming{PDU: bad}, graph.Rejected)
	ban := room.Member(alice, dave, "ban")
	w.accept(room, shared.Incoming{PDU: ban}, graph.Accepted)
	soft := branch.Say(dave, "still here")
	w.accept(room, shared.Incoming{PDU: soft}, graph.SoftFailed)
	w.accept(room, shared.Incoming{PDU: old, Below: true}, graph.Accepted)

	w.refuses(w.a, 404, "M_NOT_FOUND", path("event/%s", bad.EventID))
	w.refuses(w.a, 404, "M_NOT_FOUND", path("state_ids/%s?event_id=%s", room.ID, bad.EventID))
	back := w.pdus("11", "b.test", w.b.Key, w.get(w.a, "backfill/%s?v=%s&limit=3", room.ID, ban.EventID)["pdus"])
	if have := ids(back); len(have) != 3 || !slices.Equal(have[:2], []string{ban.EventID, good.EventID}) {
		t.Errorf("behind what was rejected: %q", have)
	}
	if string(back[1].JSON) != string(good.JSON) {
		t.Errorf("it came as\n%s and goes as\n%s", good.JSON, back[1].JSON)
	}
	if e := w.pdus("11", "b.test", w.b.Key, w.get(w.a, "event/%s", soft.EventID)["pdus"]); string(e[0].JSON) != string(soft.JSON) {
		t.Errorf("the soft-failed one goes as %s", e[0].JSON)
	}
	// Known by what it cites alone.
	creation := room.Log[0]
	w.get(w.a, "event/%s", creation.EventID)
	w.refuses(w.a, 404, "M_NOT_FOUND", path("state/%s?event_id=%s", room.ID, creation.EventID))
	w.refuses(w.a, 404, "M_NOT_FOUND", path("state_ids/%s?event_id=%s", room.ID, old.EventID))
	// History, of which the room was open when bob came.
	if e := w.pdus("11", "b.test", w.b.Key, w.get(w.a, "event/%s", old.EventID)["pdus"]); !whole(e[0]) {
		t.Error("history is redacted")
	}
	// Of two branches each has its own state.
	side := branch.Set(alice, "m.room.name", "", `{"name":"side"}`)
	w.accept(room, shared.Incoming{PDU: side}, graph.Accepted)
	after := branch.Say(alice, "on the side")
	w.accept(room, shared.Incoming{PDU: after}, graph.Accepted)
	var want []string
	for _, e := range branch.State {
		want = append(want, e.EventID)
	}
	slices.Sort(want)
	if have := texts(w.get(w.a, "state_ids/%s?event_id=%s", room.ID, after.EventID)["pdu_ids"]); !slices.Equal(have, want) || slices.Contains(have, ban.EventID) {
		t.Errorf("on the side: %q, want %q", have, want)
	}
	if in := w.b.Standing(room.ID, dave); in != core.Banned {
		t.Errorf("dave is %s", in)
	}
}

// History of a room that is for members only is told to nobody, if it is not
// known who was in it then.
func TestClosedHistory(t *testing.T) {
	w := newWorld(t)
	const alice = "@alice:a.test"
	room := sharedtest.New(t, "11", alice)
	room.Set(alice, wire.TypeVisibility, "", `{"history_visibility":"joined"}`)
	old := room.Say(alice, "long ago")
	w.foreign(room)
	w.accept(room, shared.Incoming{PDU: old, Below: true}, graph.Accepted)
	w.refuses(w.a, 403, "M_FORBIDDEN", path("event/%s", old.EventID))
	if back := w.pdus("11", "b.test", w.b.Key, w.get(w.a, "backfill/%s?v=%s&limit=1", room.ID, old.EventID)["pdus"]); len(back) != 1 || whole(back[0]) {
		t.Errorf("%v", back)
	}
}

// A room of which not all members are known says nothing of its state.
func TestPartial(t *testing.T) {
	w := newWorld(t)
	const alice, carol = "@alice:a.test", "@carol:c.test"
	room := sharedtest.New(t, "11", alice, carol)
	entry := room.Entry(w.bob.ID, carol)
	w.turn(func(t *shared.Turn) error {
		_, err := t.Enter(entry)
		return err
	})
	said := room.Say(alice, "hello")
	w.accept(room, shared.Incoming{PDU: said}, graph.Accepted)
	w.refuses(w.a, 404, "M_NOT_FOUND", path("state_ids/%s?event_id=%s", room.ID, said.EventID))
	w.get(w.a, "event_auth/%s/%s", room.ID, said.EventID)
	w.get(w.a, "event/%s", said.EventID)
}

// Questions that make no sense, and those that ask too much.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	room := w.bob.Create(object{"preset": "public_chat"})
	w.join(room)
	var last string
	for i := range 130 {
		last = w.bob.Say(room, fmt.Sprint(i))
	}
	for _, q := range []string{
		path("backfill/%s?v=%s", room, last), path("backfill/%s?limit=5", room), path("backfill/%s?v=%s&limit=0", room, last),
		path("state/%s", room), path("event_auth/%s/%s", room, "nonsense"),
		path("timestamp_to_event/%s?ts=x&dir=f", room), path("timestamp_to_event/%s?ts=1&dir=up", room),
	} {
		if _, err := w.ask(w.a, "GET", q, nil); err == nil || err.Status != 400 {
			t.Errorf("%s: %v", q, err)
		}
	}
	const unknown = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, q := range []string{"event/" + unknown, "event/nonsense", path("state/%s?event_id=%s", room, unknown), path("event_auth/%s/%s", room, unknown)} {
		w.refuses(w.a, 404, "M_NOT_FOUND", q)
		if q[:5] != "event" {
			w.refuses(w.c, 403, "M_FORBIDDEN", q)
		}
	}
	for _, id := range []string{"!nothing:b.test", "!", "nonsense", room + "x"} {
		w.refuses(w.a, 403, "M_FORBIDDEN", path("state_ids/%s?event_id=%s", id, last))
	}
	// An event of another room is none of this one.
	other := w.bob.Create(object{})
	stray := w.bob.Say(other, "elsewhere")
	w.refuses(w.a, 404, "M_NOT_FOUND", path("state_ids/%s?event_id=%s", room, stray))
	if back := w.own(w.get(w.a, "backfill/%s?v=%s&limit=9", room, stray), "pdus"); len(back) != 0 {
		t.Errorf("from an event of another room: %q", ids(back))
	}
	if back := w.own(w.get(w.a, "backfill/%s?v=%s&limit=100000", room, last), "pdus"); len(back) != 100 {
		t.Errorf("%d events at once", len(back))
	}
	ask := func(body any) (int, error) {
		o, err := w.ask(w.a, "POST", path("get_missing_events/%s", room), body)
		if err != nil {
			return 0, err
		}
		return len(w.own(o, "events")), nil
	}
	if n, err := ask(object{"limit": 1000, "earliest_events": []string{}, "latest_events": []string{last}}); err != nil || n != 20 {
		t.Errorf("%d are missing, %v", n, err)
	}
	if n, err := ask(object{"earliest_events": []string{}, "latest_events": []string{last}}); err != nil || n != 10 {
		t.Errorf("%d are missing, %v", n, err)
	}
	e, _ := w.b.Event(last)
	if n, err := ask(object{"earliest_events": []string{}, "latest_events": []string{last}, "min_depth": e.Depth - 3}); err != nil || n != 3 {
		t.Errorf("%d are missing above a depth, %v", n, err)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for _, body := range []any{object{"latest_events": many, "earliest_events": many}, object{"latest_events": 5}, object{}, []string{}} {
		if _, err := ask(body); err == nil {
			t.Errorf("%v is answered", body)
		}
	}
}
