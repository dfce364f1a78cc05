package federationtest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"parley/matrix/federation"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

// TestWorld: servers check each other's requests, are cut off and come back.
func TestWorld(t *testing.T) {
	hello := func(s *federationtest.Server) {
		s.API.Add(federation.Route{Method: "GET", Path: "/_matrix/federation/v1/hello/{name}", Handler: func(r *federation.Request) (any, error) {
			return map[string]string{"from": r.Origin, "to": r.Destination, "name": r.Var("name")}, nil
		}})
	}
	w := federationtest.NewWith(t, []federationtest.Part{hello}, "a.test", "b.test")
	a, b := w.Server("a.test"), w.Server("b.test")
	call := func() (string, error) {
		raw, err := a.Client.Do(t.Context(), federation.Call{
			Origin: "a.test", Destination: "b.test", Method: "GET", URI: "/_matrix/federation/v1/hello/$x", Insist: true,
		})
		return string(raw), err
	}
	const want = `{"from":"a.test","name":"$x","to":"b.test"}`
	if got, err := call(); err != nil || got != want {
		t.Fatalf("%s, %v", got, err)
	}
	if calls := w.Calls(); len(calls) != 2 || !strings.Contains(calls[1], "GET a.test /_matrix/key/v2/server") {
		t.Errorf("%q", calls)
	}
	w.Cut("b.test", true)
	if got, err := call(); err == nil {
		t.Errorf("cut off, and answers %s", got)
	}
	w.Cut("b.test", false)
	w.Watch(func(dest string, r *http.Request, next federationtest.Next) (*http.Response, error) {
		return federationtest.Answer(403, []byte(`{"errcode":"M_FORBIDDEN","error":"`+dest+`"}`)), nil
	})
	if _, err := call(); !strings.Contains(err.Error(), "M_FORBIDDEN: b.test") {
		t.Error(err)
	}
	w.Watch(nil)
	user := b.User("bob")
	b.Restart(func() {
		if got, err := call(); err == nil {
			t.Errorf("stopped, and answers %s", got)
		}
	})
	if got, err := call(); err != nil || got != want {
		t.Fatalf("after a restart: %s, %v", got, err)
	}
	if got := b.On(user).Do("GET", "/v3/account/whoami", nil); got.Text("user_id") != "@bob:b.test" {
		t.Errorf("%s", got.Raw)
	}
	if room := b.On(user).Create(roomstest.Object{}); b.Standing(room, user.ID) != "join" || a.Standing(room, user.ID) != "none" {
		t.Error("a room of b is known at a")
	}
	if _, err := a.Client.Do(t.Context(), federation.Call{Destination: "nobody.test", Method: "GET", URI: "/"}); err == nil || errors.Is(err, federation.ErrRefused) {
		t.Error(err)
	}
}
