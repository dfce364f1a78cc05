package sending_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation"
	"parley/matrix/federation/sending"
	"parley/matrix/mirror"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
	"parley/store/storetest"
)

// txn is what a server got.
type txn struct {
	id, origin string
	pdus       []string // event IDs
	edus       []sending.EDU
}

func (t txn) String() string {
	return fmt.Sprintf("%s: %d PDUs, %d EDUs", t.id, len(t.pdus), len(t.edus))
}

// servers are the other servers of a test.
type servers struct {
	t     testing.TB
	mu    sync.Mutex
	got   map[string][]txn
	calls map[string]int
	most  int // at once
	now   int
	// answer decides for a server; nil takes everything.
	answer map[string]func(context.Context, txn) ([]byte, error)
}

func newServers(t testing.TB) *servers {
	return &servers{t: t, got: map[string][]txn{}, calls: map[string]int{}, answer: map[string]func(context.Context, txn) ([]byte, error){}}
}

var version = func() *wire.Version {
	v, err := wire.VersionOf("12")
	if err != nil {
		panic(err)
	}
	return v
}()

// Do implements [sending.Caller].
func (n *servers) Do(ctx context.Context, call federation.Call) ([]byte, error) {
	path, ok := strings.CutPrefix(call.URI, "/_matrix/federation/v1/send/")
	id, err := url.PathUnescape(path)
	if !ok || err != nil || call.Method != "PUT" {
		n.t.Errorf("called %s %s", call.Method, call.URI)
	}
	if _, err := wire.Strict(call.Body); err != nil {
		n.t.Errorf("the body is no JSON that can be signed: %v", err)
	}
	var body struct {
		Origin string            `json:"origin"`
		TS     int64             `json:"origin_server_ts"`
		PDUs   []json.RawMessage `json:"pdus"`
		EDUs   []sending.EDU     `json:"edus"`
	}
	if err := json.Unmarshal(call.Body, &body); err != nil || body.Origin != call.Origin || body.TS == 0 {
		n.t.Errorf("%v: %.200s", err, call.Body)
	}
	if len(body.PDUs) > sending.MaxPDUs || len(body.EDUs) > sending.MaxEDUs {
		n.t.Errorf("a transaction with %d PDUs and %d EDUs", len(body.PDUs), len(body.EDUs))
	}
	x := txn{id: id, origin: body.Origin, edus: body.EDUs}
	for _, raw := range body.PDUs {
		pdu, err := wire.Parse(version, raw)
		if err != nil || !pdu.CheckHash() {
			n.t.Errorf("%v: %s", err, raw)
			continue
		}
		x.pdus = append(x.pdus, pdu.EventID)
	}
	n.mu.Lock()
	n.calls[call.Destination]++
	n.now++
	n.most = max(n.most, n.now)
	answer := n.answer[call.Destination]
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.now--
		n.mu.Unlock()
	}()
	out := []byte(`{"pdus":{}}`)
	if answer != nil {
		if out, err = answer(ctx, x); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	n.got[call.Destination] = append(n.got[call.Destination], x)
	n.mu.Unlock()
	return out, nil
}

func (n *servers) set(dest string, answer func(context.Context, txn) ([]byte, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer[dest] = answer
}

var errDown = errors.New("connection refused")

func down(context.Context, txn) ([]byte, error) { return nil, errDown }

// txns are those that a server took.
func (n *servers) txns(dest string) []txn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got[dest])
}

// has are the events that a server took, in order.
func (n *servers) has(dest string) (ids []string) {
	for _, x := range n.txns(dest) {
		ids = append(ids, x.pdus...)
	}
	return ids
}

func (n *servers) called(dest string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[dest]
}

// world is a server with a sender.
type world struct {
	t   testing.TB
	db  *store.DB
	h   *hub.Hub
	m   *mirror.Mirror
	s   *sending.Sender
	net *servers
	// owed are the conversations whose events are owed.
	owed map[core.ConvID]bool
}

// nowhere is a carrier that drops everything.
type nowhere struct{}

func (nowhere) Network() core.Network                       { return core.Matrix }
func (nowhere) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (nowhere) Whisper(hub.Whisper)                         {}
func (nowhere) Deliver(_ context.Context, _ string, p []hub.Delivery) []hub.Result {
	return make([]hub.Result, len(p))
}

const domain = hubtest.Domain

func newWorld(t testing.TB, db *store.DB, change ...func(*sending.Config)) *world {
	t.Helper()
	w := &world{t: t, db: db, net: newServers(t), owed: map[core.ConvID]bool{}}
	w.h = hubtest.On(t, db, func(c *hub.Config) { c.RoomVersion = "12" })
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if w.m, err = mirror.New(t.Context(), db, mirror.Config{Domains: []string{domain}, Keys: map[string]*wire.SigningKey{domain: key}}); err != nil {
		t.Fatal(err)
	}
	w.h.AddMirror(w.m)
	w.h.AddMirror(owing{w})
	w.h.AddCarrier(nowhere{})
	w.s = w.sender(change...)
	return w
}

func sqlite(t testing.TB) *store.DB {
	return storetest.Open(t, storetest.SQLite(t), store.Options{})
}

// sender makes another sender on the same database.
func (w *world) sender(change ...func(*sending.Config)) *sending.Sender {
	w.t.Helper()
	cfg := sending.Config{
		Hub: w.h, Mirror: w.m, Client: w.net, Domains: []string{domain}, Log: storetest.Log(w.t),
		FirstRetry: 10 * time.Second, AckEvery: 10 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := sending.New(w.t.Context(), w.db, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Stop)
	return s
}

func (w *world) start() {
	w.t.Helper()
	if err := w.s.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// owing has the events of some conversations owed, as package shared does.
type owing struct{ w *world }

func (o owing) Admit(tx hub.Tx, c *core.Conversation, _ *core.State, e *core.Event) error {
	if !o.w.owed[c.ID] {
		return nil
	}
	a, _ := e.Alias(core.Matrix, "event")
	return o.w.s.Owe(tx, c.ID, a.Key, e.Feed)
}

// room is a conversation with other servers in it.
func (w *world) room(creator core.Address, dests ...string) core.ConvID {
	w.t.Helper()
	c, err := w.h.Open(w.t.Context(), hub.Opening{Creator: creator, Shape: core.Group})
	if err != nil {
		w.t.Fatal(err)
	}
	w.peers(c.ID, dests, nil)
	w.owed[c.ID] = true
	return c.ID
}

// peers has servers join and part now.
func (w *world) peers(conv core.ConvID, joined, parted []string) {
	w.t.Helper()
	err := w.h.Write(w.t.Context(), func(tx hub.Tx) error { return w.s.Peers(tx, conv, joined, parted, tx.NextFeed()) })
	if err != nil {
		w.t.Fatal(err)
	}
}

// say says something and returns its event ID.
func (w *world) say(conv core.ConvID, from core.Address, text string) string {
	w.t.Helper()
	return w.sayAll(conv, from, text)[0]
}

func (w *world) sayAll(conv core.ConvID, from core.Address, texts ...string) (ids []string) {
	w.t.Helper()
	var drafts []hub.Draft
	for _, text := range texts {
		drafts = append(drafts, hub.Draft{Conv: conv, Sender: from, Content: core.Message{Body: core.TextBody(text)}})
	}
	events, err := w.h.SubmitAll(w.t.Context(), drafts)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		a, _ := e.Alias(core.Matrix, "event")
		ids = append(ids, a.Key)
	}
	return ids
}

// many are n things to say.
func many(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprintf("number %d", i))
	}
	return texts
}

// oweEDU owes ephemeral data.
func (w *world) oweEDU(dest, typ, content string) {
	w.t.Helper()
	if err := w.tryOweEDU(dest, typ, content); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryOweEDU(dest, typ, content string) error {
	return w.h.Write(w.t.Context(), func(tx hub.Tx) error {
		return w.s.OweEDU(tx, domain, dest, sending.EDU{Type: typ, Content: json.RawMessage(content)})
	})
}

// count counts rows.
func (w *world) count(table string) (n int) {
	w.t.Helper()
	err := w.h.Read(w.t.Context(), func(v hub.View) error {
		return hubstore.Querier(v).QueryRow(`SELECT COUNT(*) FROM ` + table).Scan(&n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// reports are what is known of an event.
func (w *world) reports(eventID string) (list []hub.Report) {
	w.t.Helper()
	err := w.h.Read(w.t.Context(), func(v hub.View) error {
		id, err := w.m.CoreID(v, eventID)
		if err != nil {
			return err
		}
		list, err = v.ReportsOn(id)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
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

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d, want %d\n%v\n%v", what, len(got), len(want), got, want)
	}
}
