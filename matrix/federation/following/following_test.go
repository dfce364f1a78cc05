package following_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/following"
	"parley/matrix/rooms/roomstest"
	"parley/store/storetest"
)

type object = roomstest.Object

// doorOf is the door of a server that is being built.
type doorOf struct{ s *federationtest.Server }

func (d doorOf) Join(ctx context.Context, room string, via []string, r hub.JoinRequest) (core.ConvID, error) {
	return d.s.Joining.Join(ctx, room, via, r)
}

// world has a server a.test that follows rooms, and b.test.
type world struct {
	*federationtest.World
	t          *testing.T
	a, b       *federationtest.Server
	followers  map[string]*following.Following
	alice, bob *roomstest.User
	dave       *roomstest.User
	told       chan core.EventID
}

func newWorld(t *testing.T, tune func(*following.Config)) *world {
	t.Helper()
	w := &world{t: t, followers: map[string]*following.Following{}, told: make(chan core.EventID, 100)}
	w.World = federationtest.NewWith(t, []federationtest.Part{func(s *federationtest.Server) {
		cfg := following.Config{
			Hub: s.Hub, Mirror: s.Mirror, Door: doorOf{s}, Servers: s.Sender.Servers, Log: storetest.Log(t),
			Retries: []time.Duration{20 * time.Millisecond, 20 * time.Millisecond, time.Hour},
		}
		if tune != nil {
			tune(&cfg)
		}
		f, err := following.New(t.Context(), s.DB, cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.Hub.AddMirror(f)
		s.Hub.UseFollower(f)
		s.Hub.Listen(func(b hub.Bulletin) {
			if n, ok := b.News.(hub.EventNews); ok && n.Again && s.Domain == "a.test" {
				w.told <- n.Event.ID
			}
		})
		s.OnStart(func() error { return f.Start(t.Context()) })
		s.OnStop(f.Stop)
		w.followers[s.Domain] = f
	}}, "a.test", "b.test")
	w.a, w.b = w.Server("a.test"), w.Server("b.test")
	w.alice, w.bob, w.dave = w.a.User("alice"), w.a.User("bob"), w.b.User("dave")
	return w
}

func (w *world) join(u *roomstest.User, room string) {
	w.t.Helper()
	u.Do("POST", "/v3/join/"+room+"?via=b.test&via=a.test", object{})
}

func (w *world) upgrade(u *roomstest.User, room string) string {
	w.t.Helper()
	return u.Do("POST", roomstest.Room(room, "/upgrade"), object{"new_version": "12"}).Text("replacement_room")
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	federationtest.Eventually(w.t, what, holds)
}

func (w *world) standing(s *federationtest.Server, room string, u *roomstest.User, want core.Standing) {
	w.t.Helper()
	w.eventually(u.ID+" is to be "+string(want), func() bool { return s.Standing(room, u.ID) == want })
}

func (w *world) following(room string) (is bool) {
	w.t.Helper()
	conv := w.a.Conv(room)
	err := w.a.Hub.Read(w.t.Context(), func(v hub.View) (err error) {
		is, err = w.a.Hub.Following(v, conv)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return is
}

// Everybody who is in a room is brought to where it goes on, on every server, and
// nobody who has left it.
func TestFollow(t *testing.T) {
	w := newWorld(t, nil)
	room := w.dave.Create(object{"preset": "public_chat"})
	carol := w.a.User("carol")
	for _, u := range []*roomstest.User{w.alice, w.bob, carol} {
		w.join(u, room)
	}
	carol.Do("POST", roomstest.Room(room, "/leave"), object{})
	w.standing(w.b, room, carol, core.Left)
	next := w.upgrade(w.dave, room)
	w.standing(w.a, next, w.alice, core.Joined)
	w.standing(w.a, next, w.bob, core.Joined)
	w.standing(w.b, next, w.bob, core.Joined)
	<-w.told
	if w.following(room) {
		t.Error("it is over, and clients wait")
	}
	if got := w.a.Standing(next, carol.ID); got != core.Left {
		t.Errorf("carol, who had left, is %s", got)
	}
	// Who then leaves is not brought back, and a third room is followed too.
	w.bob.Do("POST", roomstest.Room(next, "/leave"), object{})
	w.standing(w.b, next, w.bob, core.Left)
	third := w.upgrade(w.dave, next)
	w.standing(w.a, third, w.alice, core.Joined)
	if got := w.a.Standing(third, w.bob.ID); got != core.Left {
		t.Errorf("bob, who had left, is %s", got)
	}
}

// Whoever says that a room goes on in another cannot bring anybody into a room
// that does not say so itself.
func TestNoSuccessor(t *testing.T) {
	w := newWorld(t, nil)
	room, other := w.dave.Create(object{"preset": "public_chat"}), w.dave.Create(object{"preset": "public_chat"})
	w.join(w.alice, room)
	w.join(w.bob, room)
	w.dave.SetState(room, "m.room.tombstone", "", object{"body": "come", "replacement_room": other})
	<-w.told
	w.standing(w.b, other, w.alice, core.Left)
	if got := w.b.Standing(other, w.bob.ID); got != core.Left {
		t.Errorf("bob is %s", got)
	}
	// It is known by now, and nobody need go in to look.
	w.Calls()
	w.dave.SetState(room, "m.room.tombstone", "", object{"body": "do come", "replacement_room": other})
	<-w.told
	for _, c := range w.Calls() {
		if strings.Contains(c, "_join/") {
			t.Errorf("somebody went in again: %s", c)
		}
	}
}

// Where the other room cannot be entered, clients wait for a while only, and those
// who are let in later follow later: also after a restart.
func TestFollowLater(t *testing.T) {
	w := newWorld(t, nil)
	room := w.dave.Create(object{"preset": "public_chat"})
	w.join(w.alice, room)
	next := w.dave.Create(object{"preset": "private_chat", "creation_content": object{"predecessor": object{"room_id": room}}})
	w.dave.SetState(room, "m.room.tombstone", "", object{"body": "", "replacement_room": next})
	<-w.told
	if w.following(room) {
		t.Error("nobody can enter, and clients wait")
	}
	w.dave.Do("POST", roomstest.Room(next, "/invite"), object{"user_id": w.alice.ID})
	w.a.Restart()
	w.eventually("alice is in", func() bool {
		s := w.a.Standing(next, w.alice.ID)
		if s == core.Invited { // the last retry is far
			w.dave.SetState(room, "m.room.tombstone", "", object{"body": time.Now().String(), "replacement_room": next})
		}
		return s == core.Joined
	})
}

// A slow server holds up only the move, and clients are told without it.
func TestSlowServer(t *testing.T) {
	w := newWorld(t, func(c *following.Config) { c.Wait = 50 * time.Millisecond })
	room := w.dave.Create(object{"preset": "public_chat"})
	w.join(w.alice, room)
	held := make(chan struct{})
	w.hold(held)
	next := w.upgrade(w.dave, room)
	<-w.told
	if got := w.a.Standing(next, w.alice.ID); got != "none" {
		t.Errorf("alice is %s", got)
	}
	close(held)
	w.standing(w.a, next, w.alice, core.Joined)
}

// A room here that is not open is followed by those who are in it, because who
// moves it lets them in.
func TestFollowHere(t *testing.T) {
	w := newWorld(t, nil)
	room := w.alice.Create(object{"preset": "private_chat", "invite": []string{w.bob.ID, w.dave.ID}})
	w.bob.Join(room)
	w.eventually("dave is invited", func() bool { return w.b.Standing(room, w.dave.ID) == core.Invited })
	w.join(w.dave, room)
	w.standing(w.a, room, w.dave, core.Joined)
	next := w.upgrade(w.alice, room)
	w.standing(w.a, next, w.bob, core.Joined)
	<-w.told
}

// hold has joins wait until a channel is closed.
func (w *world) hold(until chan struct{}) {
	w.Watch(func(_ string, r *http.Request, next federationtest.Next) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "/make_join/") {
			<-until
		}
		return next(r)
	})
}

// late keeps readers from the state of an event that says where a room goes on, for
// a while after the event is on disk.
type late struct{}

func (late) Admit(tx hub.Tx, _ *core.Conversation, _ *core.State, e *core.Event) error {
	if ch, ok := e.Content.(core.Change); ok && ch.Aspect == core.AspectMovedTo {
		tx.OnCommit(func() { time.Sleep(100 * time.Millisecond) })
	}
	return nil
}

// One who is woken before readers are shown the new state does not take the room
// for one that goes on nowhere.
func TestWokenEarly(t *testing.T) {
	w := newWorld(t, nil)
	w.a.Hub.AddMirror(late{})
	room := w.dave.Create(object{"preset": "public_chat"})
	w.join(w.alice, room)
	w.standing(w.a, w.upgrade(w.dave, room), w.alice, core.Joined)
}
