package joining_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/receiving"
)

// TestMeanwhile: what is said while one is on her way in is not lost.
func TestMeanwhile(t *testing.T) {
	w, alice, bob := two(t)
	room := alice.Create(public)
	said := make(chan string, 1)
	sent := make(chan struct{}, 100)
	w.Watch(func(dest string, req *http.Request, next federationtest.Next) (*http.Response, error) {
		resp, err := next(req)
		switch {
		case strings.Contains(req.URL.Path, "/send/") && dest == "b.test":
			sent <- struct{}{}
		case strings.Contains(req.URL.Path, "/send_join/"):
			said <- alice.Say(room, "are you coming?")
			select { // it arrives at once, and waits for us
			case <-sent:
				t.Error("what was said was taken by a server that was not in the room yet")
			case <-time.After(300 * time.Millisecond):
			}
		}
		return resp, err
	})
	mustEnter(bob, room, "a.test")
	hears(t, bob, room, <-said)
}

// nobody is rooms that count what comes.
type nobody struct{ got int }

func (n *nobody) Receive(context.Context, string, []json.RawMessage) map[string]error {
	n.got++
	return nil
}

func (*nobody) Allows(hub.View, core.ConvID, string) (bool, error) { return true, nil }

// TestLobby: what cannot wait any longer is sent again, and nothing else waits.
func TestLobby(t *testing.T) {
	w, alice, bob := two(t)
	room := alice.Create(public)
	n := &nobody{}
	lobby := w.Server("b.test").Joining.Lobby(n)
	event := func(room string) []json.RawMessage {
		return []json.RawMessage{[]byte(`7`), []byte(`{"room_id":"` + room + `"}`)}
	}
	w.Watch(func(_ string, req *http.Request, next federationtest.Next) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/make_join/") {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if errs := lobby.Receive(ctx, "a.test", event(room)); len(errs) != 1 || !errors.Is(errs[""], receiving.ErrLater) {
				t.Errorf("%v", errs)
			}
			if errs := lobby.Receive(t.Context(), "a.test", event("!other:a.test")); errs != nil || n.got != 1 {
				t.Errorf("%v", errs)
			}
		}
		return next(req)
	})
	mustEnter(bob, room, "a.test")
	if errs := lobby.Receive(t.Context(), "a.test", event(room)); errs != nil || n.got != 2 {
		t.Errorf("%v", errs)
	}
}
