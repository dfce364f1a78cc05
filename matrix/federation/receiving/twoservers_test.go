package receiving_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation"
	"parley/matrix/federation/keyring"
	"parley/matrix/federation/receiving"
	"parley/matrix/federation/sending"
	"parley/matrix/mirror"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// internet leads from server names to servers.
type internet struct {
	mu sync.Mutex
	m  map[string]http.Handler
	// lost says of a request whether its answer is lost.
	lost func(*http.Request) bool
}

func (n *internet) set(name string, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.m[name] = h
}

// RoundTrip hands a request over as it would be on the wire.
func (n *internet) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	h, lost := n.m[r.URL.Host], n.lost
	n.mu.Unlock()
	if h == nil {
		return nil, errors.New("connection refused")
	}
	var body io.Reader
	if r.Body != nil {
		body = r.Body
	}
	there := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.RequestURI(), body)
	there.Header, there.Host = r.Header, r.URL.Host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, there)
	if lost != nil && lost(r) {
		return nil, errors.New("connection reset")
	}
	return w.Result(), nil
}

// peer is one server as far as other servers see it.
type peer struct {
	name   string
	key    *wire.SigningKey
	client *federation.Client
	keys   *keyring.Keyring
	api    *federation.Server
}

func (n *internet) peer(t *testing.T, db *store.DB, name string, heard func(string)) *peer {
	t.Helper()
	p := &peer{name: name}
	var err error
	if _, p.key, err = wire.NewSigningKey(); err != nil {
		t.Fatal(err)
	}
	if err := keyring.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	log := storetest.Log(t)
	p.client = federation.NewClient(federation.ClientConfig{
		Transport: n, Keys: map[string]*wire.SigningKey{name: p.key}, Agent: "test", Timeout: time.Minute, MaxAnswer: 1 << 20, Log: log,
	})
	p.keys = keyring.New(keyring.Config{DB: db, Fetch: p.client, Own: []keyring.Own{{Domain: name, Key: p.key}}, Log: log})
	p.api = federation.NewServer(federation.ServerConfig{
		Domains: []string{name}, Keys: p.keys, MaxBody: 1 << 16, Version: "1", Log: log,
		Heard: func(server string) { p.client.Heard(server); heard(server) },
	})
	n.set(name, p.api)
	return p
}

// ledger is the rooms of a server that checks signatures and keeps what is new.
type ledger struct {
	t    *testing.T
	keys *keyring.Keyring
	mu   sync.Mutex
	has  []string
	seen map[string]int
}

func (l *ledger) Allows(hub.View, core.ConvID, string) (bool, error) { return true, nil }

func (l *ledger) Receive(ctx context.Context, origin string, pdus []json.RawMessage) map[string]error {
	version, err := wire.VersionOf("12")
	if err != nil {
		l.t.Error(err)
	}
	out := map[string]error{}
	for _, raw := range pdus {
		pdu, err := wire.Parse(version, raw)
		if err != nil {
			l.t.Error(err)
			continue
		}
		var sigs struct {
			Signatures map[string]map[string]string `json:"signatures"`
		}
		if err := json.Unmarshal(raw, &sigs); err != nil {
			l.t.Error(err)
		}
		for id := range sigs.Signatures[origin] {
			public, err := l.keys.Key(ctx, origin, id, time.Now())
			if err == nil {
				err = pdu.Verify(origin, id, public)
			}
			if err != nil {
				l.t.Error(err)
			}
			l.mu.Lock()
			if l.seen[pdu.EventID]++; l.seen[pdu.EventID] == 1 {
				l.has = append(l.has, pdu.EventID)
			}
			l.mu.Unlock()
		}
		out[pdu.EventID] = nil
	}
	return out
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.has)
}

// Two servers, with keys, signatures and back-off as they are: one sends, the
// other receives, answers get lost, it goes away, and calls when it is back.
//
// spec: MX 1.19 SS §4
func TestTwoServers(t *testing.T) {
	const here, there = hubtest.Domain, "b.test"
	n := &internet{m: map[string]http.Handler{}}
	open := func() *store.DB { return storetest.Open(t, storetest.SQLite(t), store.Options{}) }
	db := open()
	var sender *sending.Sender
	a := n.peer(t, db, here, func(server string) { sender.Heard(server) })
	h := hubtest.On(t, db, func(c *hub.Config) { c.RoomVersion = "12" })
	m, err := mirror.New(t.Context(), db, mirror.Config{Domains: []string{here}, Keys: map[string]*wire.SigningKey{here: a.key}})
	if err != nil {
		t.Fatal(err)
	}
	h.AddMirror(m)
	if sender, err = sending.New(t.Context(), db, sending.Config{
		Hub: h, Mirror: m, Client: a.client, Domains: []string{here}, Log: storetest.Log(t), FirstRetry: time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	if err := sender.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.Stop)

	b := n.peer(t, open(), there, func(string) {})
	rooms := &ledger{t: t, keys: b.keys, seen: map[string]int{}}
	var mu sync.Mutex
	var edus []string
	b.api.Add(receiving.New(receiving.Config{Rooms: rooms, Log: storetest.Log(t), EDUs: map[string]receiving.EDUHandler{
		"m.test": func(_ context.Context, origin string, content json.RawMessage) error {
			mu.Lock()
			defer mu.Unlock()
			edus = append(edus, origin+string(content))
			return nil
		},
	}}).Routes()...)

	alice := hubtest.Account(t, h, "alice")
	c, err := h.Open(t.Context(), hub.Opening{Creator: alice, Shape: core.Group})
	if err != nil {
		t.Fatal(err)
	}
	write := func(f func(hub.Tx) error) {
		t.Helper()
		if err := h.Write(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	write(func(tx hub.Tx) error { return sender.Peers(tx, c.ID, []string{there}, nil, tx.NextFeed()) })
	say := func(count int) {
		t.Helper()
		for i := range count {
			_, err := h.Submit(t.Context(), hub.Draft{Conv: c.ID, Sender: alice, Content: core.Message{Body: core.TextBody(fmt.Sprint(i))},
				With: func(tx hub.Tx, e *core.Event) error {
					name, _ := e.Alias(core.Matrix, "event")
					return sender.Owe(tx, c.ID, name.Key, e.Feed)
				}})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	say(60)
	write(func(tx hub.Tx) error {
		return sender.OweEDU(tx, here, there, sending.EDU{Type: "m.test", Content: []byte(`{"n":1}`)})
	})
	eventually(t, "b has all", func() bool { return rooms.count() == 60 })

	// The answer to every transaction is lost once.
	lost := map[string]bool{}
	n.mu.Lock()
	n.lost = func(r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		first := r.Method == "PUT" && !lost[r.URL.Path]
		lost[r.URL.Path] = true
		return first
	}
	n.mu.Unlock()
	say(3)
	eventually(t, "b has all, and we know it", func() bool {
		owed := 0
		err := db.Read(t.Context(), func(q store.Querier) error {
			return q.QueryRow(`SELECT COUNT(*) FROM sending_acks`).Scan(&owed)
		})
		return err == nil && rooms.count() == 63 && a.client.Until(there).IsZero() && owed == 1
	})
	n.mu.Lock()
	n.lost = nil
	n.mu.Unlock()

	// It goes away, comes back and calls.
	n.set(there, nil)
	say(5)
	eventually(t, "it is away", func() bool { return !a.client.Until(there).IsZero() })
	n.set(there, b.api)
	eventually(t, "b has all", func() bool {
		_, err := b.client.Do(t.Context(), federation.Call{Origin: there, Destination: here, Method: "GET", URI: "/_matrix/federation/v1/version"})
		return err == nil && rooms.count() == 68
	})
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	for id, times := range rooms.seen {
		if times != 1 {
			t.Errorf("%s was looked at %d times: a transaction that comes again is answered as before", id, times)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(edus) != 1 || edus[0] != here+`{"n":1}` {
		t.Errorf("%v", edus)
	}
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
