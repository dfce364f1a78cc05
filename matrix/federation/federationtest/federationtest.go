// Package federationtest makes Matrix servers that talk with each other, each on
// a hub and a database of its own, for the tests of packages below federation.
//
// What goes between them is signed, checked and answered by the packages that do
// so in the real server; only TLS and the search for servers are left out. A
// test can look at every request, answer in another's place, and cut a server
// off.
package federationtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"parley/matrix/federation"
	"parley/matrix/federation/incoming"
	"parley/matrix/federation/joining"
	"parley/matrix/wire"
)

// World is some servers and what connects them.
type World struct {
	T testing.TB
	// Tune changes how rooms are entered; a [Part] can set it.
	Tune func(*joining.Config)
	// TuneIncoming does so for how events are taken.
	TuneIncoming func(*incoming.Config)

	mu      sync.Mutex
	servers map[string]*Server
	others  map[string]http.Handler
	down    map[string]bool
	watch   func(dest string, r *http.Request, next Next) (*http.Response, error)
	calls   []string
}

// Next carries a request on to the server that it is for.
type Next func(*http.Request) (*http.Response, error)

// Part adds something to a server that is being built, at the beginning and at
// each restart, before it has its door and takes transactions.
type Part func(s *Server)

// New makes a server for each domain.
func New(t testing.TB, domains ...string) *World {
	t.Helper()
	return NewWith(t, nil, domains...)
}

// NewWith is New with further parts in every server.
func NewWith(t testing.TB, parts []Part, domains ...string) *World {
	t.Helper()
	w := &World{T: t, servers: map[string]*Server{}, others: map[string]http.Handler{}, down: map[string]bool{}}
	for _, d := range domains {
		w.add(d, parts)
	}
	return w
}

// Server is the server of a domain.
func (w *World) Server(domain string) *Server {
	w.T.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[domain]
	if s == nil {
		w.T.Fatalf("no server %s", domain)
	}
	return s
}

// Impostor adds a server of which there is a handler only: one that the test
// writes. It answers for its keys by itself.
func (w *World) Impostor(domain string, h http.Handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.others[domain] = h
}

// Watch has f see every request from one server to another, and answer it or
// pass it on. nil ends that.
func (w *World) Watch(f func(dest string, r *http.Request, next Next) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch = f
}

// Cut makes a server unreachable, or reachable again.
func (w *World) Cut(domain string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[domain] = cut
}

// Calls are the requests so far, "GET b.test /_matrix/…" without the query,
// and forgets them.
func (w *World) Calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.calls
	w.calls = nil
	return out
}

// RoundTrip implements [http.RoundTripper] for URLs with server names.
func (w *World) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != federation.MatrixURL {
		return nil, fmt.Errorf("scheme %q is not for federation", r.URL.Scheme)
	}
	dest := r.URL.Host
	w.mu.Lock()
	watch := w.watch
	w.calls = append(w.calls, r.Method+" "+dest+" "+r.URL.Path)
	w.mu.Unlock()
	if watch == nil {
		return w.deliver(r)
	}
	return watch(dest, r, w.deliver)
}

// deliver has a server answer.
func (w *World) deliver(r *http.Request) (*http.Response, error) {
	dest := r.URL.Host
	w.mu.Lock()
	var h http.Handler
	if s := w.servers[dest]; s != nil {
		h = s.handler()
	} else {
		h = w.others[dest]
	}
	if w.down[dest] {
		h = nil
	}
	w.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("connection to %s refused", dest)
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.RequestURI(), bytes.NewReader(body))
	in.Header, in.Host = r.Header.Clone(), dest
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(rec, in)
	}()
	select {
	case <-done:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// Answer is a response that a test gives in another's place.
func Answer(status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// ErrCut is for tests that cut a connection off.
var ErrCut = errors.New("connection reset by peer")

// patience is after how long something never happens.
const patience = 2 * time.Minute

// Eventually waits until something holds.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// NewKey makes a signing key, and its file.
func NewKey(t testing.TB) ([]byte, *wire.SigningKey) {
	t.Helper()
	file, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return file, key
}

// background is for what outlives a test's own context.
func background() context.Context { return context.Background() }
