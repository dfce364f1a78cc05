package ephemeral_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation/ephemeral"
	"parley/matrix/federation/sending"
	"parley/matrix/mirror"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// post keeps what is for other servers.
type post struct {
	mu      sync.Mutex
	said    []string // "dest key content"
	owed    []string
	servers []string
	err     error
}

func (p *post) Say(origin, dest, key string, e sending.EDU) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, fmt.Sprintf("%s>%s %s %s", origin, dest, e.Type, e.Content))
	_ = key
}

func (p *post) OweEDU(_ hub.Tx, origin, dest string, e sending.EDU) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed = append(p.owed, fmt.Sprintf("%s>%s %s %s", origin, dest, e.Type, e.Content))
	return p.err
}

func (p *post) Servers(hub.View, core.ConvID) ([]string, error) { return p.servers, nil }

// take returns what was said, and forgets it.
func (p *post) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.said
	p.said = nil
	return out
}

func (p *post) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.said)
}

// gate keeps one server out.
type gate struct{}

func (gate) Allows(_ hub.View, _ core.ConvID, server string) (bool, error) {
	return server != "kept-out.test", nil
}

// carrier is one that has the whole half of the work.
type carrier struct{ *ephemeral.Ephemeral }

func (carrier) Network() core.Network                       { return core.Matrix }
func (carrier) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (c carrier) Deliver(ctx context.Context, _ string, parcels []hub.Delivery) (out []hub.Result) {
	for _, p := range parcels {
		if p.Receipt != nil {
			out = append(out, c.Receipt(ctx, p))
		} else {
			out = append(out, hub.Result{})
		}
	}
	return out
}

type world struct {
	t    *testing.T
	h    *hub.Hub
	m    *mirror.Mirror
	e    *ephemeral.Ephemeral
	post *post
}

func newWorld(t *testing.T, change ...func(*ephemeral.Config)) *world {
	t.Helper()
	db := storetest.Open(t, storetest.SQLite(t), store.Options{})
	w := &world{t: t, h: hubtest.On(t, db, func(c *hub.Config) { c.RoomVersion = "12" }), post: &post{servers: []string{"a.test", "b.test"}}}
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if w.m, err = mirror.New(t.Context(), db, mirror.Config{Domains: []string{domain}, Keys: map[string]*wire.SigningKey{domain: key}}); err != nil {
		t.Fatal(err)
	}
	cfg := ephemeral.Config{Hub: w.h, Mirror: w.m, Post: w.post, Gate: gate{}, Log: storetest.Log(t), Gather: time.Millisecond}
	for _, f := range change {
		f(&cfg)
	}
	w.e = ephemeral.New(cfg)
	w.h.AddMirror(w.m)
	w.h.AddCarrier(carrier{w.e})
	if err := w.h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.e.Start(t.Context())
	t.Cleanup(w.e.Stop)
	return w
}

const domain = hubtest.Domain

func remote(name, server string) core.Address {
	return core.Address{Network: core.Matrix, Name: name, Domain: server}
}

// room is one of the creator's with members, that other servers share as soon
// as texts have been said in it by them in turn.
func (w *world) room(creator core.Address, members []core.Address, texts ...string) (c core.Conversation, said []core.Event) {
	w.t.Helper()
	c, err := w.h.Open(w.t.Context(), hub.Opening{Creator: creator, Shape: core.Group, Public: true})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range members {
		if _, err := w.h.Join(w.t.Context(), hub.JoinRequest{Conv: c.ID, Who: m}); err != nil {
			w.t.Fatal(err)
		}
	}
	all := append([]core.Address{creator}, members...)
	for i, text := range texts {
		said = append(said, w.say(c.ID, all[i%len(all)], text))
	}
	w.share(c.ID)
	return c, said
}

func (w *world) say(conv core.ConvID, from core.Address, text string) core.Event {
	w.t.Helper()
	e, err := w.h.Submit(w.t.Context(), hub.Draft{Conv: conv, Sender: from, Content: core.Message{Body: core.TextBody(text)}})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// share gives a conversation to the graph.
func (w *world) share(conv core.ConvID) {
	w.t.Helper()
	err := w.h.Write(w.t.Context(), func(tx hub.Tx) error {
		c, err := tx.Conversation(conv)
		if err != nil {
			return err
		}
		c.Authority = core.Graph
		return tx.PutConversation(c)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func eventID(e core.Event) string {
	a, _ := e.Alias(core.Matrix, "event")
	return a.Key
}

// edu gives an EDU to its handler.
func (w *world) edu(typ, origin, content string) error {
	return w.e.EDUs()[typ](w.t.Context(), origin, json.RawMessage(content))
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

// said waits until n things have been said, and returns them sorted.
func (w *world) said(n int) []string {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d things are said", n), func() bool { return w.post.count() >= n })
	out := w.post.take()
	slices.Sort(out)
	if len(out) != n {
		w.t.Errorf("%d things, not %d: %s", len(out), n, strings.Join(out, "\n"))
	}
	return out
}

func want(t testing.TB, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s is not in %s", p, got)
		}
	}
}
