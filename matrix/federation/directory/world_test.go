package directory_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"parley/matrix/federation"
	"parley/matrix/federation/directory"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
)

type object = roomstest.Object

// world is two servers that ask each other, a.test and b.test, and whatever
// further servers a test writes.
type world struct {
	*federationtest.World
	a, b *federationtest.Server
	// asks is the directory of b.
	asks *directory.Directory
}

func newWorld(t *testing.T) *world {
	t.Helper()
	out := &world{}
	part := func(s *federationtest.Server) {
		s.OnStart(func() error {
			s.Clients.UseProfiles(s.Directory)
			return nil
		})
	}
	out.World = federationtest.NewWith(t, []federationtest.Part{part}, "a.test", "b.test")
	out.a, out.b = out.Server("a.test"), out.Server("b.test")
	out.asks = out.b.Directory
	return out
}

// questions are the calls since it was last asked, but for those about keys.
func (w *world) questions() (out []string) {
	for _, c := range w.Calls() {
		if !strings.Contains(c, "/_matrix/key/") {
			out = append(out, c)
		}
	}
	return out
}

// evil is a server of which all answers are the test's: by path below
// /_matrix/federation/v1, a status and a body.
func (w *world) evil(answers map[string]string) {
	w.Impostor("evil.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/_matrix/federation/v1")
		body, ok := answers[path]
		if !ok {
			body, ok = answers[path+"?"+r.URL.RawQuery]
		}
		if !ok {
			rw.WriteHeader(http.StatusNotFound)
			body = `{"errcode":"M_NOT_FOUND","error":"no"}`
		}
		_, _ = rw.Write([]byte(body))
	}))
}

// ask asks a.test something in b's name.
func (w *world) ask(t *testing.T, path string) (object, error) {
	t.Helper()
	raw, err := w.b.Client.Do(t.Context(), federation.Call{
		Origin: "b.test", Destination: "a.test", Method: "GET", URI: "/_matrix/federation/v1" + path, Insist: true,
	})
	if err != nil {
		return nil, err
	}
	var out object
	return out, json.Unmarshal(raw, &out)
}

// status is that of an error of another server, 200 for none.
func status(err error) int {
	if err == nil {
		return 200
	}
	if e, ok := err.(*federation.Error); ok { //nolint:errorlint // the client returns it bare
		return e.Status
	}
	return 0
}
