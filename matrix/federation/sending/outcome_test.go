package sending_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation"
	"parley/matrix/federation/sending"
	"parley/store/hubstore"
)

// direct is a conversation of alice with a person of b.test.
func (w *world) direct(alice core.Address) (core.ConvID, core.Address) {
	w.t.Helper()
	bob := core.Address{Network: core.Matrix, Name: "bob", Domain: "b.test"}
	talk, err := w.h.DirectWith(w.t.Context(), alice, bob)
	if err != nil {
		w.t.Fatal(err)
	}
	w.peers(talk, []string{"b.test"}, nil)
	w.owed[talk] = true
	return talk, bob
}

// A single event that a server refuses is not tried again. Its sender hears of
// it: of a talk, whatever became of each message; of a room once, that it did
// not reach somebody.
func TestRefusedEvents(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	refuse := func(_ context.Context, x txn) ([]byte, error) {
		out := `{"pdus":{"$unknown":{}`
		for _, id := range x.pdus {
			out += fmt.Sprintf(`,%q:{"error":"no\u0000 %s"}`, id, strings.Repeat("n", 1000))
		}
		return []byte(out + "}}"), nil
	}
	w.net.set("b.test", refuse)
	w.net.set("c.test", refuse)
	room := w.room(alice, "a.test", "b.test", "c.test")
	id := w.say(room, alice, "to a room")
	for _, d := range []string{"a.test", "b.test", "c.test"} {
		eventually(t, d+" has it", func() bool { return len(w.net.has(d)) == 1 })
	}
	eventually(t, "nothing is owed", func() bool { return w.count("sending_events") == 0 })
	r := w.reports(id)
	if len(r) != 1 || r[0].Stage != core.StageFailed || r[0].To.Name != "" || len([]rune(r[0].Reason)) > 201 || strings.ContainsRune(r[0].Reason, 0) {
		t.Errorf("%+v", r)
	}

	talk, bob := w.direct(alice)
	id = w.say(talk, alice, "to bob")
	eventually(t, "she hears of it", func() bool { return len(w.reports(id)) == 1 })
	if r := w.reports(id)[0]; r.Stage != core.StageFailed || r.To != bob || !strings.HasPrefix(r.Reason, "no") {
		t.Errorf("%+v", r)
	}
	w.net.set("b.test", nil)
	id = w.say(talk, alice, "to bob again")
	eventually(t, "she hears of it", func() bool { return len(w.reports(id)) == 1 })
	if r := w.reports(id)[0]; r.Stage != core.StageThere || r.To != bob {
		t.Errorf("%+v", r)
	}
}

// One event for which a server refuses every transaction that it is in holds up
// nothing else.
func TestPoison(t *testing.T) {
	w := newWorld(t, sqlite(t), func(c *sending.Config) { c.FirstRetry = time.Millisecond })
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "b.test")
	ids := w.sayAll(room, alice, many(40)...)
	w.oweEDU("b.test", "m.poison", `{}`)
	w.oweEDU("b.test", "m.good", `{}`)
	poison := ids[17]
	w.net.set("b.test", func(_ context.Context, x txn) ([]byte, error) {
		bad := slices.ContainsFunc(x.edus, func(e sending.EDU) bool { return e.Type == "m.poison" })
		if bad || slices.Contains(x.pdus, poison) {
			return nil, &federation.Error{Status: http.StatusBadRequest, Errcode: "M_BAD_JSON", Server: "b.test"}
		}
		return []byte(`{"pdus":{}}`), nil
	})
	w.start()
	want := slices.Delete(slices.Clone(ids), 17, 18)
	eventually(t, "b has all others", func() bool { return len(w.net.has("b.test")) >= len(want) })
	same(t, "b", w.net.has("b.test"), want)
	eventually(t, "nothing is owed", func() bool { return w.count("sending_events")+w.count("sending_edus") == 0 })
	if r := w.reports(poison); len(r) != 1 || r[0].Stage != core.StageFailed {
		t.Errorf("%+v", r)
	}
	last := w.net.txns("b.test")
	if !slices.ContainsFunc(last, func(x txn) bool { return len(x.edus) == 1 && x.edus[0].Type == "m.good" }) {
		t.Errorf("%v", last)
	}
}

// age makes what is owed older than it is.
func (w *world) age(d time.Duration) {
	w.t.Helper()
	err := w.h.Write(w.t.Context(), func(tx hub.Tx) error {
		for _, table := range []string{"sending_events", "sending_singles", "sending_edus", "sending_silent"} {
			if _, err := hubstore.Tx(tx).Exec(`UPDATE `+table+` SET since = since - $1`, d.Milliseconds()); err != nil {
				return err
			}
		}
		_, err := hubstore.Tx(tx).Exec(`UPDATE sending_silent SET next = 0`)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// What a server has not taken for too long is told to its senders, once, and
// not of what was said when it had been given up; and still a server that comes
// back hears of the room.
func TestGivenUp(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	talk, bob := w.direct(alice)
	room := w.room(alice, "a.test", "b.test")
	w.net.set("b.test", down)
	first := w.say(talk, alice, "to bob")
	eventually(t, "it is away", func() bool { return w.count("sending_silent") == 1 })
	said := w.say(room, alice, "to the room")
	alone := w.say(room, alice, "to b alone")
	if err := w.h.Write(t.Context(), func(tx hub.Tx) error { return w.s.OweTo(tx, alone, "b.test") }); err != nil {
		t.Fatal(err)
	}
	w.oweEDU("b.test", "m.x", `{}`)
	eventually(t, "a has all", func() bool { return len(w.net.has("a.test")) == 2 })

	again := func(d time.Duration) {
		w.s.Stop()
		w.age(d)
		w.s = w.sender()
		w.start()
	}
	again(w.h.Config().GiveUp + time.Hour)
	for _, id := range []string{first, said, alone} {
		eventually(t, "alice knows", func() bool { return len(w.reports(id)) == 1 })
		r := w.reports(id)[0]
		if want := (core.Address{Network: core.Matrix, Domain: "b.test"}); r.Stage != core.StageFailed || r.To != want && (id != first || r.To != bob) {
			t.Errorf("%+v", r)
		}
	}
	eventually(t, "what was for b alone is given up", func() bool { return w.count("sending_singles") == 0 })
	if n := w.count("sending_edus"); n != 1 {
		t.Errorf("%d EDUs are owed", n)
	}
	// What is said from now on: of the talk she hears, of the room no more.
	late, lateRoom := w.say(talk, alice, "once more"), w.say(room, alice, "and here")
	again(w.h.Config().GiveUp + time.Hour)
	eventually(t, "alice knows", func() bool { return len(w.reports(late)) == 1 })
	eventually(t, "the room was looked at", func() bool { return w.net.called("b.test") >= 3 })
	again(31 * 24 * time.Hour)
	eventually(t, "the EDU is given up", func() bool { return w.count("sending_edus") == 0 })
	if r := w.reports(lateRoom); len(r) != 0 {
		t.Errorf("%+v", r)
	}
	w.net.set("b.test", nil)
	eventually(t, "b is back", func() bool {
		w.s.Heard("b.test")
		return slices.Contains(w.net.has("b.test"), lateRoom)
	})
	eventually(t, "nothing is owed", func() bool { return w.count("sending_events") == 0 })
	if r := w.reports(said); len(r) != 1 {
		t.Errorf("%+v", r)
	}
}

// Of what nobody waits for any more not much is kept.
func TestOldEventsAreFew(t *testing.T) {
	w := newWorld(t, sqlite(t))
	w.start()
	alice := hubtest.Account(t, w.h, "alice")
	room := w.room(alice, "b.test")
	w.net.set("b.test", down)
	ids := w.sayAll(room, alice, many(300)...)
	eventually(t, "it is away", func() bool { return w.count("sending_silent") == 1 })
	w.s.Stop()
	w.age(w.h.Config().GiveUp + 25*time.Hour)
	w.s = w.sender()
	w.start()
	eventually(t, "few are kept", func() bool { return w.count("sending_events") == 10 })
	w.net.set("b.test", nil)
	eventually(t, "b has them", func() bool { w.s.Heard("b.test"); return len(w.net.has("b.test")) == 10 })
	same(t, "b", w.net.has("b.test"), ids[290:])
}
