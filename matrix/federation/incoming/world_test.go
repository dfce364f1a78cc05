package incoming_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/shared"
	"parley/store/hubstore"
)

type object = roomstest.Object

const send = "/_matrix/federation/v1/send/"

// lossy is the network between servers, of which a test can lose transactions
// and hold answers back.
type lossy struct {
	*federationtest.World
	mu    sync.Mutex
	lost  map[string]bool // whose transactions are answered and lost
	gone  map[string]int  // events in them
	muted map[string]bool // who reaches nobody
	hooks map[string]func(r *http.Request, next federationtest.Next) (*http.Response, error)
}

func newWorld(t testing.TB, parts []federationtest.Part, domains ...string) *lossy {
	t.Helper()
	w := &lossy{World: federationtest.NewWith(t, parts, domains...), lost: map[string]bool{},
		gone: map[string]int{}, muted: map[string]bool{},
		hooks: map[string]func(r *http.Request, next federationtest.Next) (*http.Response, error){}}
	w.Watch(func(dest string, r *http.Request, next federationtest.Next) (*http.Response, error) {
		w.mu.Lock()
		lost := w.lost[dest] && strings.HasPrefix(r.URL.Path, send)
		muted := w.muted[originOf(r)]
		var hook func(r *http.Request, next federationtest.Next) (*http.Response, error)
		for part, h := range w.hooks {
			if strings.Contains(r.URL.Path, part) {
				hook = h
			}
		}
		w.mu.Unlock()
		switch {
		case muted:
			return nil, federationtest.ErrCut
		case lost:
			var body struct {
				PDUs []json.RawMessage `json:"pdus"`
			}
			if raw, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(raw, &body) != nil {
				t.Errorf("a transaction: %v", err)
			}
			w.mu.Lock()
			w.gone[dest] += len(body.PDUs)
			w.mu.Unlock()
			return federationtest.Answer(http.StatusOK, []byte(`{"pdus":{}}`)), nil
		case hook != nil:
			return hook(r, next)
		}
		return next(r)
	})
	return w
}

var origin = regexp.MustCompile(`origin="?([^",]+)`)

func originOf(r *http.Request) string {
	if m := origin.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		return m[1]
	}
	return ""
}

// mute has a server reach nobody, or again.
func (w *lossy) mute(origin string, muted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.muted[origin] = muted
}

// lostEvents waits until so many events for a server have been lost.
func (w *lossy) lostEvents(dest string, n int) {
	w.T.Helper()
	federationtest.Eventually(w.T, fmt.Sprintf("%d events for %s are lost", n, dest), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.gone[dest] >= n
	})
}

// lose has the transactions to a server answered and lost, or no longer.
func (w *lossy) lose(dest string, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost[dest] = lost
}

// hook has f see the requests whose path has a part; nil ends that.
func (w *lossy) hook(part string, f func(r *http.Request, next federationtest.Next) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hooks[part] = f; f == nil {
		delete(w.hooks, part)
	}
}

func notFound(*http.Request, federationtest.Next) (*http.Response, error) {
	return federationtest.Answer(http.StatusNotFound, []byte(`{"errcode":"M_NOT_FOUND","error":"no"}`)), nil
}

func join(u *roomstest.User, room string, via ...string) {
	u.Server.T.Helper()
	a := u.Try("POST", "/v3/join/"+url.PathEscape(room)+"?"+url.Values{"via": via}.Encode(), object{})
	if a.Status != http.StatusOK {
		u.Server.T.Fatalf("%s joins %s: %d %s", u.ID, room, a.Status, a.Raw)
	}
}

// hears waits until somebody's client can read an event.
func hears(t testing.TB, u *roomstest.User, room, event string) {
	t.Helper()
	federationtest.Eventually(t, u.ID+" reads "+event, func() bool {
		return u.Try("GET", roomstest.Room(room, "/event/%s", event), nil).Status == http.StatusOK
	})
}

// said are the texts of a room's timeline, in order.
func said(s *federationtest.Server, room string) (out []string) {
	s.T.Helper()
	conv := s.Conv(room)
	err := s.Hub.Read(s.T.Context(), func(v hub.View) error {
		page, err := v.Page(hub.Query{Conv: conv, Kinds: []core.Kind{core.KindMessage}, Limit: 10_000})
		for _, e := range page {
			b, _ := core.BodyOf(e.Content)
			out = append(out, b.Plain())
		}
		return err
	})
	if err != nil {
		s.T.Fatal(err)
	}
	return out
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d, want %d\n%q\n%q", what, len(got), len(want), got, want)
	}
}

// count counts rows.
func count(s *federationtest.Server, from string, args ...any) (n int) {
	s.T.Helper()
	err := s.Hub.Read(s.T.Context(), func(v hub.View) error {
		return hubstore.Querier(v).QueryRow(`SELECT COUNT(*) FROM `+from, args...).Scan(&n)
	})
	if err != nil {
		s.T.Fatal(err)
	}
	return n
}

// verdict is what a server made of an event, "" if it does not know it.
func verdict(s *federationtest.Server, id string) (out string) {
	s.T.Helper()
	err := s.Hub.Read(s.T.Context(), func(v hub.View) error {
		rows, err := hubstore.Querier(v).Query(`SELECT verdict FROM shared_events WHERE event_id = $1`, id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := rows.Scan(&out); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		s.T.Fatal(err)
	}
	return out
}

// ends are the events that none follows, as a server knows.
func ends(s *federationtest.Server, room string) (out []string) {
	s.T.Helper()
	conv := s.Conv(room)
	err := s.Shared.Turn(s.T.Context(), func(t *shared.Turn) (err error) {
		out, _, err = t.Ends(conv)
		return err
	})
	if err != nil {
		s.T.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// cores fails the test unless servers agree on what clients are shown of a room's
// state.
func (w *lossy) cores(room string, domains ...string) {
	w.T.Helper()
	w.Same(room, domains...)
	var first string
	for i, d := range domains {
		s := w.Server(d)
		conv := s.Conv(room)
		var got string
		err := s.Hub.Read(s.T.Context(), func(v hub.View) error {
			st, err := v.State(conv)
			if err != nil {
				return err
			}
			names := s.Mirror.Names(v)
			members, levels := map[string]string{}, map[string]int64{}
			for a, m := range st.Members {
				id, _ := names.UserID(a)
				members[id] = string(m.Standing)
			}
			for a, n := range st.Levels.Users {
				id, _ := names.UserID(a)
				levels[id] = n
			}
			raw, err := json.Marshal(map[string]any{"name": st.Name, "topic": st.Topic, "rule": st.JoinRule, "members": members, "levels": levels})
			got = string(raw)
			return err
		})
		if err != nil {
			w.T.Fatal(err)
		}
		if i == 0 {
			first = got
		} else if got != first {
			w.T.Errorf("clients at %s are shown\n%s\nand at %s\n%s", d, got, domains[0], first)
		}
	}
}
