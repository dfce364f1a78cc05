package joining_test

import (
	"net/http"
	"net/url"
	"testing"

	"parley/core"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

type object = roomstest.Object

// two are servers of which somebody lives at each.
func two(t testing.TB, parts ...federationtest.Part) (w *federationtest.World, alice, bob *roomstest.User) {
	t.Helper()
	w = federationtest.NewWith(t, parts, "a.test", "b.test")
	return w, w.Server("a.test").User("alice"), w.Server("b.test").User("bob")
}

// enter has somebody ask to be let into a room by servers.
func enter(u *roomstest.User, room string, via ...string) roomstest.Answer {
	u.Server.T.Helper()
	return u.Try("POST", "/v3/join/"+url.PathEscape(room)+"?"+url.Values{"via": via}.Encode(), object{})
}

func mustEnter(u *roomstest.User, room string, via ...string) {
	u.Server.T.Helper()
	if a := enter(u, room, via...); a.Status != http.StatusOK {
		u.Server.T.Fatalf("%s joins %s: %d %s", u.ID, room, a.Status, a.Raw)
	}
}

// knocks has somebody knock.
func knocks(u *roomstest.User, room string, via ...string) roomstest.Answer {
	u.Server.T.Helper()
	return u.Try("POST", "/v3/knock/"+url.PathEscape(room)+"?"+url.Values{"via": via}.Encode(), object{"reason": "let me in"})
}

// refused fails the test unless a request was refused in that way.
func refused(t testing.TB, what string, a roomstest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
	}
}

// stands waits until a server knows somebody's standing.
func stands(t testing.TB, s *federationtest.Server, room, user string, want core.Standing) {
	t.Helper()
	federationtest.Eventually(t, user+" has "+string(want)+" at "+s.Domain, func() bool { return s.Standing(room, user) == want })
}

// hears waits until somebody's client can read an event.
func hears(t testing.TB, u *roomstest.User, room, event string) {
	t.Helper()
	federationtest.Eventually(t, u.ID+" reads "+event, func() bool {
		return u.Try("GET", roomstest.Room(room, "/event/%s", event), nil).Status == http.StatusOK
	})
}

var public = object{"preset": "public_chat", "name": "Garden"}
