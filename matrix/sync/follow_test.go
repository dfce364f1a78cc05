package sync_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"testing"

	"parley/matrix/rooms/roomstest"
)

type object = roomstest.Object

// follower is a client that keeps up with /sync, as the specification tells a
// client to do it, and fills each gap by /messages.
type follower struct {
	*roomstest.User
	filter string // of the timeline, as JSON
	query  string
	after  bool
	token  string
	rooms  map[string]*followed
}

type followed struct {
	state    map[string]string // type and key to event ID
	timeline []string
}

func (f *follower) room(id string) *followed {
	if f.rooms[id] == nil {
		f.rooms[id] = &followed{state: map[string]string{}}
	}
	return f.rooms[id]
}

// step does one /sync and applies it.
func (f *follower) step(extra string) (something bool) {
	f.Server.T.Helper()
	q := f.query + extra
	if f.after {
		q += "&use_state_after=true"
	}
	got := f.Sync(f.token, q)
	for id := range got.Obj("rooms", "leave") {
		f.apply(id, got.Obj("rooms", "leave", id), true)
		delete(f.rooms, id)
	}
	for id := range got.Obj("rooms", "join") {
		f.apply(id, got.Obj("rooms", "join", id), false)
	}
	f.token = got.Text("next_batch")
	return got.Get("rooms") != nil
}

// apply takes one room's news in.
func (f *follower) apply(id string, news object, left bool) {
	f.Server.T.Helper()
	_, known := f.rooms[id]
	r := f.room(id)
	limited := news.Get("timeline", "limited") == true
	events := news.List("timeline", "events")
	if f.after != (news.Get("state_after") != nil) || f.after == (news.Get("state") != nil) {
		f.Server.T.Errorf("state and state_after are %v and %v", news.Get("state"), news.Get("state_after"))
	}
	for _, e := range slices.Concat(news.List("state", "events"), news.List("state_after", "events")) {
		r.state[stateKey(e)] = e.Text("event_id")
	}
	if limited && !left {
		to := f.token
		if !known {
			r.timeline, to = nil, ""
		}
		gap := f.back(id, news.Text("timeline", "prev_batch"), to)
		r.timeline = append(r.timeline, gap...)
	} else if !known && !left {
		r.timeline = append(r.timeline, f.back(id, news.Text("timeline", "prev_batch"), "")...)
	}
	for _, e := range events {
		r.timeline = append(r.timeline, e.Text("event_id"))
		if _, state := e["state_key"]; state && !f.after {
			r.state[stateKey(e)] = e.Text("event_id")
		}
	}
}

func stateKey(e object) string { return e.Text("type") + " " + e.Text("state_key") }

// back pages from one token down to another, and returns the events in order.
func (f *follower) back(id, from, to string) (out []string) {
	f.Server.T.Helper()
	for range 1000 {
		got := f.Try("GET", roomstest.Room(id, "/messages?dir=b&limit=17&from=%s&to=%s&filter=%s", from, to, f.filter), nil)
		if got.Status == 403 {
			return nil // thrown out in the meantime: the next answer says so
		}
		for _, e := range got.List("chunk") {
			out = append(out, e.Text("event_id"))
		}
		if from = got.Text("end"); from == "" {
			slices.Reverse(out)
			return out
		}
	}
	f.Server.T.Error("the pages have no end")
	return nil
}

// check compares what the follower knows with what the server says now.
func (f *follower) check() {
	f.Server.T.Helper()
	t := f.Server.T
	fresh := f.Sync("", `filter={"room":{"timeline":{"limit":1}}}`)
	joined := fresh.Obj("rooms", "join")
	if have, want := slices.Sorted(maps.Keys(f.rooms)), slices.Sorted(maps.Keys(joined)); !slices.Equal(have, want) {
		t.Errorf("%s: follows %q, is in %q", f.query, have, want)
	}
	for id, r := range f.rooms {
		want := map[string]string{}
		for _, e := range slices.Concat(joined.List(id, "state", "events"), joined.List(id, "timeline", "events")) {
			if _, state := e["state_key"]; state {
				want[stateKey(e)] = e.Text("event_id")
			}
		}
		if !maps.Equal(r.state, want) {
			t.Errorf("%s after=%v: the state of %s is\n%v, want\n%v", f.query, f.after, id, r.state, want)
		}
		all := f.back(id, "", "")
		if !slices.Equal(r.timeline, all) {
			t.Errorf("%s after=%v: the timeline of %s has %d events, %d distinct; the server has %d", f.query, f.after, id,
				len(r.timeline), len(distinct(r.timeline)), len(all))
		}
	}
}

func distinct(ids []string) map[string]bool {
	m := map[string]bool{}
	for _, id := range ids {
		m[id] = true
	}
	return m
}

// writer does something at random, over and over. What is refused is refused.
func writer(u *roomstest.User, others []*roomstest.User, rooms []string, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range steps {
		room := rooms[r.IntN(len(rooms))]
		other := others[r.IntN(len(others))]
		txn := fmt.Sprintf("%d-%d", seed, i)
		switch n := r.IntN(20); {
		case n < 10:
			u.Try("PUT", roomstest.Room(room, "/send/m.room.message/%s", txn), object{"msgtype": "m.text", "body": txn})
		case n < 14:
			u.Try("PUT", roomstest.Room(room, "/state/org.example.s/%v", r.IntN(3)), object{"v": txn})
		case n < 16:
			u.Try("PUT", roomstest.Room(room, "/state/m.room.topic"), object{"topic": txn})
		case n == 16:
			u.Try("POST", roomstest.Room(room, "/leave"), object{})
		case n == 17:
			u.Try("POST", roomstest.Room(room, "/kick"), object{"user_id": other.ID})
		default:
			u.Try("POST", roomstest.Room(room, "/join"), object{})
		}
	}
}

// A client that follows by increments, with any filter and limit, ends with the
// state and the timeline that one has who asks anew: nothing is doubled or
// missing, whoever writes meanwhile.
func TestFollow(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { follow(t, seed) })
	}
}

func follow(t *testing.T, seed uint64) {
	s := roomstest.New(t)
	alice, bob, carol := s.User("alice"), s.User("bob"), s.User("carol")
	eve := s.User("eve")
	var rooms []string
	for range 3 {
		rooms = append(rooms, alice.Create(object{"preset": "public_chat", "power_level_content_override": object{"state_default": 0}}))
	}
	r := rand.New(rand.NewPCG(seed, 2))
	var followers []*follower
	for i, timeline := range []string{`{}`, `{"types":["m.room.message"]}`, `{"not_types":["m.room.topic","m.room.member"]}`, `{"types":["*s*"]}`} {
		for _, after := range []bool{false, true} {
			f := &follower{User: s.LogIn("eve", fmt.Sprintf("EVE%d%v", i, after)), filter: timeline, after: after, rooms: map[string]*followed{}}
			limit := fmt.Sprintf(`"limit":%d`, 1+r.IntN(6))
			if timeline != "{}" {
				limit += ","
			}
			f.query = "filter=" + url.QueryEscape(`{"room":{"timeline":{`+limit+timeline[1:]+`}}`)
			followers = append(followers, f)
		}
	}
	var writers, readers sync.WaitGroup
	for i, u := range []*roomstest.User{alice, bob, carol, eve} {
		writers.Go(func() { writer(u, []*roomstest.User{bob, carol, eve}, rooms, seed*10+uint64(i), 40) })
	}
	over := make(chan struct{})
	for i, f := range followers {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for {
				f.step(fmt.Sprintf("&timeout=%d", r.IntN(30)))
				select {
				case <-over:
					for f.step("&timeout=0") {
					}
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(over)
	readers.Wait()
	for _, f := range followers {
		f.check()
	}
}
