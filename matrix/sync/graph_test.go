package sync_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/graph"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/shared"
	"parley/matrix/shared/sharedtest"
	"parley/matrix/wire"
)

// world is a server with bob, and a room of servers that are not there.
type world struct {
	t    *testing.T
	s    *federationtest.Server
	bob  *roomstest.User
	room *sharedtest.Room
}

const (
	alice = "@alice:a.test"
	carol = "@carol:c.test"
)

func newWorld(t *testing.T, version string, members ...string) *world {
	t.Helper()
	s := federationtest.New(t, "b.test").Server("b.test")
	return &world{t, s, s.User("bob"), sharedtest.New(t, version, alice, append([]string{carol}, members...)...)}
}

func (w *world) turn(f func(*shared.Turn) error) {
	w.t.Helper()
	if err := w.s.Shared.Turn(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// enter has bob join.
func (w *world) enter(without ...string) core.ConvID {
	w.t.Helper()
	entry := w.room.Entry(w.bob.ID, without...)
	w.turn(func(t *shared.Turn) error {
		_, err := t.Enter(entry)
		return err
	})
	return w.s.Conv(w.room.ID)
}

// take takes events in, whatever becomes of them.
func (w *world) take(pdus ...*wire.PDU) (out []graph.Verdict) {
	w.t.Helper()
	conv := w.s.Conv(w.room.ID)
	for _, pdu := range pdus {
		w.turn(func(t *shared.Turn) error {
			o, err := t.Accept(conv, shared.Incoming{PDU: pdu})
			out = append(out, o.Verdict)
			return err
		})
	}
	return out
}

// own takes what was said here into the room as its other servers know it.
func (w *world) own(eventID string) *wire.PDU {
	w.t.Helper()
	e, ok := w.s.Event(eventID)
	if !ok {
		w.t.Fatalf("there is no event %s", eventID)
	}
	w.room.Take(e.PDU)
	return e.PDU
}

func members(room object, list string) (out []string) {
	for _, e := range room.List(list, "events") {
		if e.Text("type") == "m.room.member" {
			out = append(out, e.Text("state_key"))
		}
	}
	slices.Sort(out)
	return out
}

const lazily = `{"room":{"state":{"lazy_load_members":true}}}`

// A room that was joined a moment ago is there whole, and its history begins with
// the joining.
func TestEntered(t *testing.T) {
	for _, version := range []string{"10", "12"} {
		w := newWorld(t, version)
		before := w.bob.Sync("", "").Text("next_batch")
		w.room.Set(alice, "m.room.topic", "", `{"topic":"roses"}`)
		w.enter()
		for _, q := range []string{"", "&use_state_after=true"} {
			for _, since := range []string{"", before} {
				name := version + q + " since " + since
				got := w.bob.Sync(since, q)
				join := got.Obj("rooms", "join", w.room.ID)
				list := "state"
				if q != "" {
					list = "state_after"
				}
				var types []string
				for _, e := range join.List(list, "events") {
					types = append(types, e.Text("type"))
				}
				slices.Sort(types)
				want := []string{"m.room.create", "m.room.join_rules", "m.room.member", "m.room.member", "m.room.power_levels", "m.room.topic"}
				if q != "" {
					want = slices.Insert(want, 2, "m.room.member")
				}
				if !slices.Equal(types, want) {
					t.Errorf("%s: the state is %q", name, types)
				}
				timeline := join.List("timeline", "events")
				if len(timeline) != 1 || timeline[0].Text("state_key") != w.bob.ID || timeline[0].Text("unsigned", "membership") != "join" {
					t.Errorf("%s: the timeline is %v", name, timeline)
				}
				if n := join.Get("summary", "m.joined_member_count"); n != 3.0 {
					t.Errorf("%s: %v members", name, n)
				}
				lazy := w.bob.Sync(since, filter(lazily)+q).Obj("rooms", "join", w.room.ID)
				if have := members(lazy, list); !slices.Contains(have, alice) || !slices.Contains(have, carol) { // the heroes
					t.Errorf("%s: lazily %q", name, have)
				}
				page := w.bob.Do("GET", roomstest.Room(w.room.ID, "/messages?dir=b&from=%s", join.Text("timeline", "prev_batch")), nil)
				if len(page.List("chunk")) != 0 || page.Get("end") != nil {
					t.Errorf("%s: before that there is %s", name, page.Raw)
				}
			}
		}
		all := w.bob.Do("GET", roomstest.Room(w.room.ID, "/messages?dir=f"), nil)
		if c := all.List("chunk"); len(c) != 1 || c[0].Text("state_key") != w.bob.ID {
			t.Errorf("%s: the history is %s", version, all.Raw)
		}
		at := w.bob.Do("GET", "/v1/rooms/"+w.room.ID+"/timestamp_to_event?dir=f&ts=0", nil)
		if at.Text("event_id") != w.room.Log[len(w.room.Log)-1].EventID {
			t.Errorf("%s: the first event is %s", version, at.Raw)
		}
	}
}

// Who becomes known after the joining is told to clients that want all members,
// once, and counted for all.
func TestMembersLater(t *testing.T) {
	late := []string{"@dave:d.test", "@eve:e.test", "@frank:f.test"}
	w := newWorld(t, "11", late...)
	w.room.Set(alice, "m.room.name", "", `{"name":"Garden"}`) // so that it is not called after its members
	conv := w.enter(late...)
	start := w.bob.Sync("", "")
	if have := members(start.Obj("rooms", "join", w.room.ID), "state"); !slices.Equal(have, []string{alice, carol}) {
		t.Fatalf("at first: %q", have)
	}
	w.turn(func(turn *shared.Turn) error {
		var events []shared.Incoming
		for _, id := range late {
			events = append(events, shared.Incoming{PDU: w.room.State[wire.StateKey{Type: wire.TypeMember, Key: id}]})
		}
		return turn.Complete(conv, events, true)
	})
	w.take(w.room.Say(late[0], "hello"))
	token := start.Text("next_batch")
	for q, list := range map[string]string{"": "state", "use_state_after=true": "state_after"} {
		got := w.bob.Sync(token, q).Obj("rooms", "join", w.room.ID)
		if have := members(got, list); !slices.Equal(have, late) {
			t.Errorf("%s: all members: %q", list, have)
		}
		if n := got.Get("summary", "m.joined_member_count"); n != 6.0 {
			t.Errorf("%s: %v members", list, n)
		}
		got = w.bob.Sync(token, filter(lazily)+"&"+q).Obj("rooms", "join", w.room.ID)
		if have := members(got, list); !slices.Equal(have, late[:1]) { // who spoke
			t.Errorf("%s: lazily %q", list, have)
		}
	}
	next := w.bob.Sync(token, "").Text("next_batch")
	w.take(w.room.Say(late[1], "again"))
	if have := members(w.bob.Sync(next, "").Obj("rooms", "join", w.room.ID), "state"); len(have) != 0 {
		t.Errorf("told again: %q", have)
	}
}

// promote makes carol a moderator.
func (w *world) promote() {
	w.t.Helper()
	w.take(w.room.Set(alice, wire.TypePowerLevels, "", levels(50)))
}

func levels(carols int) string {
	return fmt.Sprintf(`{"users":{"%s":100,"%s":%d},"state_default":50,"events_default":0,"invite":0,"users_default":0}`, alice, carol, carols)
}

// What a moderator did who turns out to have been none is undone, and clients of
// either sort hear of it.
func TestCorrected(t *testing.T) {
	w := newWorld(t, "11")
	w.enter()
	w.promote()
	old := w.room.Set(alice, "m.room.topic", "", `{"topic":"of alice"}`)
	w.take(old)
	start := w.bob.Sync("", "").Text("next_batch")
	other := w.room.Fork()
	topic := w.room.Set(carol, "m.room.topic", "", `{"topic":"of carol"}`)
	w.take(topic)
	seen := w.bob.Sync(start, "")
	if got := find(seen.List("rooms", "join", w.room.ID, "timeline", "events"), "m.room.topic"); got.Text("event_id") != topic.EventID {
		t.Fatalf("the topic is %v", got)
	}
	demotion := other.Set(alice, wire.TypePowerLevels, "", levels(0))
	w.take(demotion)
	for q, list := range map[string]string{"": "state", "use_state_after=true": "state_after"} {
		for _, token := range []string{start, seen.Text("next_batch")} {
			join := w.bob.Sync(token, q).Obj("rooms", "join", w.room.ID)
			told := find(join.List(list, "events"), "m.room.topic")
			shown := find(join.List("timeline", "events"), "m.room.topic")
			if list == "state" && shown != nil {
				t.Errorf("%s: a client that works the state out is shown %v", token, shown)
			}
			if told.Text("event_id") != old.EventID {
				t.Errorf("%s since %s: the topic is %v in %v", list, token, told, join)
			}
			if list == "state_after" && token == start && shown == nil {
				t.Error("what was said is not in the timeline")
			}
		}
	}
	if got := w.bob.Do("GET", roomstest.Room(w.room.ID, "/state/m.room.topic"), nil); got.Text("topic") != "of alice" {
		t.Errorf("the topic is %s", got.Raw)
	}
}

// One whom a correction puts out is told so, and let go.
func TestCorrectedAway(t *testing.T) {
	w := newWorld(t, "11")
	w.enter()
	w.promote()
	start := w.bob.Sync("", "").Text("next_batch")
	other := w.room.Fork()
	ban := w.room.Member(alice, w.bob.ID, "ban")
	w.take(ban)
	demoted := other.Fork()
	demotion := demoted.Set(alice, wire.TypePowerLevels, "", levels(0))
	w.take(w.room.Member(carol, w.bob.ID, "leave"))
	back := w.room.Member(w.bob.ID, w.bob.ID, "join")
	w.take(back)
	between := w.bob.Sync(start, "")
	if w.s.Standing(w.room.ID, w.bob.ID) != core.Joined || between.Obj("rooms", "join", w.room.ID) == nil {
		t.Fatalf("bob is not back: %s", between.Raw)
	}
	ears, err := w.s.Hub.Attach(hub.SessionSpec{Account: w.bob.Address, Protocol: core.Matrix, Bound: 256})
	if err != nil {
		t.Fatal(err)
	}
	defer ears.Close()
	w.take(demotion)
	heard := false
	for n, ok := ears.TryNext(); ok; n, ok = ears.TryNext() {
		e, _ := n.(hub.EventNews)
		ch, _ := e.Event.Content.(core.Change)
		heard = heard || ch.Aspect == core.AspectCorrected
	}
	if !heard {
		t.Error("bob's sessions do not hear of it")
	}
	if got := w.s.Standing(w.room.ID, w.bob.ID); got != core.Banned {
		t.Fatalf("bob is %s", got)
	}
	got := w.bob.Sync(between.Text("next_batch"), "")
	leave := got.Obj("rooms", "leave", w.room.ID)
	if e := find(leave.List("state", "events"), "m.room.member"); e.Text("event_id") != ban.EventID || got.Obj("rooms", "join") != nil {
		t.Errorf("bob is told %s", got.Raw)
	}
}

// Clients that follow a room in which branches meet end with its state.
func TestFollowBranches(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { followBranches(t, seed) })
	}
}

func followBranches(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(t, "11", "@dave:d.test")
	w.enter()
	w.promote()
	var followers []*follower
	for _, q := range []string{"", filter(`{"room":{"timeline":{"limit":2}}}`), filter(`{"room":{"timeline":{"types":["m.room.message"]}}}`)} {
		for _, after := range []bool{false, true} {
			followers = append(followers, &follower{User: w.bob, query: q, after: after, filter: "{}", rooms: map[string]*followed{}})
		}
	}
	something := func(on *sharedtest.Room, i int) *wire.PDU {
		who := []string{alice, carol}[r.IntN(2)]
		switch r.IntN(6) {
		case 0:
			return on.Set(alice, wire.TypePowerLevels, "", levels([]int{0, 50}[r.IntN(2)]))
		case 1:
			return on.Member(who, "@dave:d.test", []string{"leave", "ban", "leave"}[r.IntN(3)])
		case 2:
			return on.Say(who, fmt.Sprint(i))
		}
		return on.Set(who, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d of %s"}`, i, who))
	}
	for round := range 12 {
		other := w.room.Fork()
		var list []*wire.PDU
		for i := range 1 + r.IntN(4) {
			list = append(list, something(w.room, 10*round+i))
		}
		for i := range r.IntN(4) {
			list = append(list, something(other, 10*round+5+i))
		}
		for _, pdu := range list {
			w.take(pdu)
			for _, f := range followers {
				if r.IntN(3) == 0 {
					f.step("")
				}
			}
		}
		// Both branches go on from what this server resolved.
		w.resolved(list)
		for _, f := range followers {
			f.step("")
			f.same()
		}
	}
}

// resolved has the room go on from the state here, after a message that was said
// here.
func (w *world) resolved(branches []*wire.PDU) {
	w.t.Helper()
	for _, id := range w.s.State(w.room.ID) {
		e, _ := w.s.Event(id)
		w.room.State[wire.StateKey{Type: e.Type, Key: *e.StateKey}] = e.PDU
	}
	w.own(w.bob.Say(w.room.ID, fmt.Sprint("after ", len(branches))))
}

// same compares the state that the follower knows with that of the server. That a
// piece is set no longer is nothing that a client could be told.
func (f *follower) same() {
	f.Server.T.Helper()
	for id, r := range f.rooms {
		var all []object
		if err := json.Unmarshal(f.Do("GET", roomstest.Room(id, "/state"), nil).Raw, &all); err != nil {
			f.Server.T.Fatal(err)
		}
		want := map[string]string{}
		for _, e := range all {
			want[stateKey(e)] = e.Text("event_id")
		}
		have := maps.Clone(r.state)
		maps.DeleteFunc(have, func(k, _ string) bool { return want[k] == "" })
		if !maps.Equal(have, want) {
			f.Server.T.Errorf("%s after=%v: the state is\n%v, want\n%v", f.query, f.after, r.state, want)
		}
	}
}

// An invitation of another server shows what that server told of the room, and a
// knock what its answer was.
func TestOffered(t *testing.T) {
	w := newWorld(t, "11")
	start := w.bob.Sync("", "").Text("next_batch")
	stripped := []json.RawMessage{
		json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"` + alice + `","content":{"name":"Garden"},"event_id":"$x","hashes":{},"origin_server_ts":5}`),
		json.RawMessage(`{"type":"m.room.member","state_key":"` + alice + `","sender":"` + alice + `","content":{"membership":"join","displayname":"Alice"}}`),
		json.RawMessage(`{"type":"m.room.member","state_key":"` + w.bob.ID + `","sender":"` + alice + `","content":{"membership":"join"}}`),
		json.RawMessage(`{"type":"m.room.topic","sender":"` + alice + `","content":{"topic":"no key"}}`),
		json.RawMessage(`{"type":"org.example.x","state_key":"","sender":"` + alice + `","content":[]}`),
	}
	check := func(list []object, own string) {
		t.Helper()
		var types []string
		for _, e := range list {
			types = append(types, e.Text("type")+" "+e.Text("state_key"))
			if len(e) != 4 {
				t.Errorf("%v is not stripped", e)
			}
		}
		if !slices.Equal(types, []string{"m.room.name ", "m.room.member " + alice, "m.room.member " + w.bob.ID}) ||
			list[0].Text("content", "name") != "Garden" || list[2].Text("content", "membership") != own {
			t.Errorf("%s: %v", own, list)
		}
	}
	invite := w.room.Member(alice, w.bob.ID, "invite")
	w.turn(func(turn *shared.Turn) error {
		_, err := turn.Offer(shared.Offer{Event: invite, Stripped: stripped})
		return err
	})
	got := w.bob.Sync(start, "")
	check(got.List("rooms", "invite", w.room.ID, "invite_state", "events"), "invite")

	// Joined, nothing of the invitation is in the way.
	w.room.Set(alice, "m.room.name", "", `{"name":"Field"}`)
	w.enter()
	join := w.bob.Sync(got.Text("next_batch"), "").Obj("rooms", "join", w.room.ID)
	if e := find(join.List("state", "events"), "m.room.name"); e.Text("content", "name") != "Field" || e.Text("event_id") == "" {
		t.Errorf("joined, the name is %v", e)
	}
	for _, e := range join.List("timeline", "events") {
		if typ := e.Text("type"); typ != "m.room.member" || e.Text("state_key") != w.bob.ID {
			t.Errorf("the timeline has %v", e)
		}
	}

	door := sharedtest.New(t, "11", alice)
	knock := door.Member(w.bob.ID, w.bob.ID, "knock")
	w.turn(func(turn *shared.Turn) error {
		_, err := turn.Knocked(shared.Offer{Event: knock, Stripped: stripped})
		return err
	})
	check(w.bob.Sync(start, "").List("rooms", "knock", door.ID, "knock_state", "events"), "knock")
}

// What a room was found with is in no archive of what happened in it.
func TestFoundIsNoHistory(t *testing.T) {
	w := newWorld(t, "11")
	w.room.Set(alice, "org.example.x", "", `{"x":1}`)
	conv := w.enter()
	w.take(w.room.Say(alice, "hello"))
	for _, q := range []hub.Query{{Conv: conv}, {ByFeed: true}, {Conv: conv, Latest: true, Limit: 100}} {
		events, err := w.s.Hub.History(t.Context(), w.bob.Address, q)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []core.Kind
		for _, e := range events {
			kinds = append(kinds, core.KindOf(e.Content))
		}
		if want := []core.Kind{core.KindChange, core.KindMembership, core.KindMessage}; !slices.Equal(kinds, want) {
			t.Errorf("%+v: the history is %q", q, kinds)
		}
	}
}
