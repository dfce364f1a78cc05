package client_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"parley/matrix/client"
)

func TestPlumbing(t *testing.T) {
	s := serve(t)
	s.api.Add([]client.Route{
		{Method: "GET", Path: "/_matrix/client/v3/echo/{roomId}/{rest}", Auth: client.None, Handler: func(r *client.Request) (any, error) {
			return object{"room": r.Var("roomId"), "rest": r.Var("rest")}, nil
		}},
		{Method: "POST", Path: "/_matrix/client/v3/echo", Auth: client.None, Handler: func(r *client.Request) (any, error) {
			var v struct {
				N int `json:"n"`
			}
			return object{"n": v.N}, r.JSON(&v)
		}},
		{Method: "GET", Path: "/_matrix/client/v3/panic", Auth: client.None, Handler: func(r *client.Request) (any, error) {
			panic("a bug")
		}},
	})
	n := s.nobody()
	t.Run("escaped identifiers", func(t *testing.T) {
		a := n.get("/echo/%21a%2Fb%3Aexample.org/x%2520y")
		a.want(`"!a/b:example.org"`, "room")
		a.want(`"x%20y"`, "rest")
		a = n.get("/echo/!c:example.org/z/")
		a.want(`"!c:example.org"`, "room")
		n.do("GET", "/_matrix/client/r0/echo/!c:example.org/z", nil).ok()
	})
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     client.Errcode
	}{
		{"unknown endpoint", "GET", "/_matrix/client/v3/nothing", "", 404, client.Unrecognized},
		{"not even Matrix", "GET", "/x", "", 404, client.Unrecognized},
		{"wrong method", "DELETE", "/_matrix/client/v3/login", "", 405, client.Unrecognized},
		{"bad encoding", "GET", "/_matrix/client/v3/echo/%FF/x", "", 400, client.InvalidParam},
		{"NUL in the path", "GET", "/_matrix/client/v3/echo/%00/x", "", 400, client.InvalidParam},
		{"not JSON", "POST", "/_matrix/client/v3/echo", "{", 400, client.NotJSON},
		{"not UTF-8", "POST", "/_matrix/client/v3/echo", "{\"a\":\"\xff\"}", 400, client.NotJSON},
		{"two values", "POST", "/_matrix/client/v3/echo", "{}{}", 400, client.NotJSON},
		{"a list", "POST", "/_matrix/client/v3/echo", "[]", 400, client.BadJSON},
		{"wrong type", "POST", "/_matrix/client/v3/echo", `{"n":"one"}`, 400, client.BadJSON},
		{"too deep", "POST", "/_matrix/client/v3/echo", `{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}", 400, client.BadJSON},
		{"too large", "POST", "/_matrix/client/v3/echo", `{"a":"` + strings.Repeat("x", 2<<20) + `"}`, 413, client.TooLarge},
		{"no token", "GET", "/_matrix/client/v3/account/whoami", "", 401, client.MissingToken},
		{"panic", "GET", "/_matrix/client/v3/panic", "", 500, client.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := n.raw(c.method, c.path, strings.NewReader(c.body))
			a.fails(c.status, c.code)
			if a.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Error("an error without CORS headers")
			}
		})
	}
	t.Run("empty body", func(t *testing.T) { n.raw("POST", v3+"/echo", nil).ok() })
	t.Run("preflight", func(t *testing.T) {
		a := n.raw("OPTIONS", v3+"/account/whoami", nil)
		if a.status != http.StatusNoContent || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("%d %v", a.status, a.header)
		}
	})
	t.Run("still up", func(t *testing.T) { n.do("GET", "/_matrix/client/versions", nil).ok() })
}

func TestDiscovery(t *testing.T) {
	s := serve(t, func(c *client.Config) { c.Contact = "postmaster@example.org" })
	n := s.nobody()
	n.do("GET", "/.well-known/matrix/client", nil).want(`"https://matrix.example.org"`, "m.homeserver", "base_url")
	n.do("GET", "/.well-known/matrix/support", nil).ok()
	if v := n.do("GET", "/_matrix/client/versions", nil).ok()["versions"].([]any); v[len(v)-1] != "v1.19" {
		t.Errorf("the last version is %v", v[len(v)-1])
	}
	s.login("alice", "A").get("/capabilities").want(`"12"`, "capabilities", "m.room_versions", "default")
	n.do("GET", "/_matrix/client/v1/auth_metadata", nil).fails(404, client.Unrecognized)
}

func TestLimits(t *testing.T) {
	s := serve(t, func(c *client.Config) { c.LoginsPerMinute = 3 })
	alice := s.login("alice", "A")
	wrong := object{"type": "m.login.password", "user": "alice", "password": "guess"}
	for range 3 {
		s.nobody().post("/login", wrong).fails(403, client.Forbidden)
	}
	a := s.nobody().post("/login", wrong)
	a.fails(429, client.LimitExceeded)
	if a.header.Get("Retry-After") == "" || a.object["retry_after_ms"] == nil {
		t.Errorf("it does not say when to come again: %v %s", a.header, a.body)
	}
	// Who has logged in goes on.
	alice.get("/account/whoami").ok()
}

// Many guesses at a time are no way around the limit.
func TestLimitsAtOnce(t *testing.T) {
	s := serve(t, func(c *client.Config) { c.LoginsPerMinute = 3 })
	var wg sync.WaitGroup
	var tried atomic.Int32
	for range 20 {
		wg.Go(func() {
			a := s.nobody().post("/login", object{"type": "m.login.password", "user": "alice", "password": "guess"})
			if a.status == 403 {
				tried.Add(1)
			}
		})
	}
	wg.Wait()
	if n := tried.Load(); n != 3 {
		t.Errorf("%d of 20 guesses were tried, the limit is 3", n)
	}
}
