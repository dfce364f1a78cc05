package together_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/following"
	"parley/matrix/rooms/roomstest"
	"parley/store/storetest"
	"parley/xmpp/element"
	"parley/xmpp/muc"
	"parley/xmpp/xmpptest"
)

// world is a server of ours for XMPP and Matrix, and one for Matrix at b.test.
type world struct {
	*federationtest.World
	t    *testing.T
	here *federationtest.Server
	b    *federationtest.Server
	xmpp *xmpptest.Server
	dave *roomstest.User
}

type object = roomstest.Object

// doorOf is the door of a server that is being built.
type doorOf struct{ s *federationtest.Server }

func (d doorOf) Join(ctx context.Context, room string, via []string, r hub.JoinRequest) (core.ConvID, error) {
	return d.s.Joining.Join(ctx, room, via, r)
}

func newWorld(t *testing.T, tune ...func(*muc.Config)) *world {
	t.Helper()
	w := &world{t: t}
	w.World = federationtest.NewWith(t, []federationtest.Part{func(s *federationtest.Server) {
		f, err := following.New(t.Context(), s.DB, following.Config{
			Hub: s.Hub, Mirror: s.Mirror, Door: doorOf{s}, Servers: s.Sender.Servers, Log: storetest.Log(t), Retries: []time.Duration{},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Hub.AddMirror(f)
		s.Hub.UseFollower(f)
		s.OnStart(func() error { return f.Start(t.Context()) })
		s.OnStop(f.Stop)
	}}, "example.org", "b.test")
	w.here, w.b = w.Server("example.org"), w.Server("b.test")
	w.xmpp = xmpptest.New(t, xmpptest.Around(w.here.Hub, w.here.DB), xmpptest.Setup(func(s *xmpptest.Server) {
		if err := muc.Migrate(context.Background(), s.DB); err != nil {
			t.Fatal(err)
		}
		cfg := muc.Config{
			Hub: s.Hub, Names: s.C2S.Names(), Base: "https://example.org", Secret: []byte("secret"), Log: storetest.Log(t),
			Route: func(el *element.Element) { s.C2S.Deliver(context.Background(), el) },
		}
		for _, f := range tune {
			f(&cfg)
		}
		s.C2S.AddService("rooms", muc.Local{Service: muc.New(cfg)})
	}))
	w.dave = w.b.User("dave")
	return w
}

// garden is a room of dave's with an alias.
func (w *world) garden(more object) string {
	w.t.Helper()
	body := object{"preset": "public_chat", "room_alias_name": "garden", "name": "The Garden", "topic": "plants"}
	for k, v := range more {
		body[k] = v
	}
	return w.dave.Create(body)
}

// eventually waits until something holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	federationtest.Eventually(w.t, what, holds)
}

// accept waits until one is invited to a room, and joins it.
func (w *world) accept(u *roomstest.User) (room string) {
	w.t.Helper()
	w.eventually(u.ID+" is invited", func() bool {
		for id := range u.Do("GET", "/v3/sync", nil).Obj("rooms", "invite") {
			room = id
		}
		return room != ""
	})
	u.Do("POST", "/v3/join/"+url.PathEscape(room)+"?via=example.org", object{})
	return room
}

// reads says whether a text is in the history that one reads.
func (w *world) reads(u *roomstest.User, room, text string) bool {
	w.t.Helper()
	got := u.Do("GET", roomstest.Room(room, "/messages")+"?dir=b&limit=50", nil)
	return strings.Contains(string(got.Raw), `"body":"`+text+`"`)
}

// run plays a script.
func (w *world) run(script string) {
	w.t.Helper()
	w.xmpp.Run(script, nil)
}

const (
	gardenJID = "_matrix_garden=40b.test@rooms.example.org"
	daveJID   = "_matrix_dave=40b.test@example.org"
)
