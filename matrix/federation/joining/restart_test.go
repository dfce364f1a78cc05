package joining_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(raw)
}

// TestLostAnswer: the join was taken, and its answer lost; one of the servers, or
// both, are restarted then.
func TestLostAnswer(t *testing.T) {
	for name, restart := range map[string][]string{"none": nil, "resident": {"a.test"}, "joiner": {"b.test"}, "both": {"a.test", "b.test"}} {
		t.Run(name, func(t *testing.T) {
			w, alice, bob := two(t)
			a, b := w.Server("a.test"), w.Server("b.test")
			room := alice.Create(object{"preset": "private_chat", "name": "Shed"})
			invite(alice, room, bob.ID)
			stands(t, b, room, bob.ID, "invite")
			w.Watch(func(_ string, req *http.Request, next federationtest.Next) (*http.Response, error) {
				resp, err := next(req)
				if err == nil && strings.Contains(req.URL.Path, "/send_join/") {
					_ = read(t, resp)
					return nil, federationtest.ErrCut
				}
				return resp, err
			})
			if got := enter(bob, room); got.Status == http.StatusOK {
				t.Fatalf("%s", got.Raw)
			}
			if a.Standing(room, bob.ID) != "join" || b.Standing(room, bob.ID) != "invite" {
				t.Errorf("%s, %s", a.Standing(room, bob.ID), b.Standing(room, bob.ID))
			}
			for _, domain := range restart {
				w.Server(domain).Restart()
			}
			alice, bob = a.On(alice), b.On(bob)
			w.Watch(nil)
			mustEnter(bob, room)
			w.Same(room, "a.test", "b.test")
			hears(t, bob, room, alice.Say(room, "there you are"))
			hears(t, alice, room, bob.Say(room, "here I am"))
		})
	}
}

// TestRestarts: rooms go on after a restart of either server, and invitations that
// were on their way arrive.
func TestRestarts(t *testing.T) {
	w, alice, bob := two(t)
	a, b := w.Server("a.test"), w.Server("b.test")
	room := alice.Create(public)
	mustEnter(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	var event, second string
	private := alice.Create(object{"preset": "private_chat"})
	b.Restart(func() {
		event = alice.Say(room, "are you there?")
		invite(alice, private, bob.ID)
		a.Restart()
		alice = a.On(alice)
		second = alice.Say(room, "I am back")
	})
	bob = b.On(bob)
	hears(t, bob, room, event)
	hears(t, bob, room, second)
	stands(t, b, private, bob.ID, "invite")
	hears(t, alice, room, bob.Say(room, "so am I"))
	w.Same(room, "a.test", "b.test")
	bob.Do("POST", roomstest.Room(private, "/leave"), object{})
	stands(t, a, private, bob.ID, "leave")
}
