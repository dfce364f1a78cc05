package incoming

import (
	"context"
	"testing"
	"time"

	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// nobody answers.
type nobody struct{}

func (nobody) Do(context.Context, federation.Call) ([]byte, error) { return nil, context.Canceled }

// TestWaiting: what waits is found when its time has come, later each time, and
// given up in the end; on both databases.
func TestWaiting(t *testing.T) { storetest.Each(t, waits) }

func waits(t *testing.T, db *store.DB) {
	ctx, domain := t.Context(), hubtest.Domain
	h := hubtest.On(t, db)
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := mirror.New(ctx, db, mirror.Config{Domains: []string{domain}, Keys: map[string]*wire.SigningKey{domain: key}})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.Migrate(ctx, db); err != nil {
		t.Fatal(err)
	}
	rooms := shared.New(shared.Config{Hub: h, Mirror: m, Domains: []string{domain}, Log: storetest.Log(t)})
	n, err := New(ctx, db, Config{
		Hub: h, Mirror: m, Shared: rooms, Client: nobody{}, Domains: []string{domain}, Log: storetest.Log(t), Tries: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	version, err := wire.VersionOf("11")
	if err != nil {
		t.Fatal(err)
	}
	p := &place{conv: "room", roomID: "!r:b.test", version: version}
	var items []*item
	for depth := range 3 {
		pdu, err := wire.Build(version, wire.Proto{
			RoomID: p.roomID, Type: "m.room.message", Sender: "@bob:b.test", Content: []byte(`{}`), Depth: int64(3 - depth),
		})
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, &item{pdu: pdu, origin: "b.test", unchecked: depth == 0})
	}
	turn := func(f func(*shared.Turn) error) {
		t.Helper()
		if err := rooms.Turn(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	read := func(now time.Time) (found []*item) {
		t.Helper()
		err := h.Read(ctx, func(v hub.View) (err error) {
			found, err = waitingIn(v, p, now, 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	turn(func(t *shared.Turn) error {
		r := &round{refused: map[string]error{}, missing: map[*item]*shared.MissingError{}, counts: map[string]int{}}
		for _, it := range items {
			r.missing[it] = &shared.MissingError{}
		}
		return n.keepWaiting(t, p, append(items, items...), r)
	})
	now := time.Now()
	found := read(now)
	if len(found) != 3 || found[0].pdu.EventID != items[2].pdu.EventID || found[2].pdu.EventID != items[0].pdu.EventID {
		t.Fatalf("%d wait", len(found))
	}
	if !found[2].unchecked || found[1].unchecked || found[0].origin != "b.test" || n.waiting != 3 {
		t.Errorf("%+v, %d", found[2], n.waiting)
	}
	for range 2 {
		turn(func(t *shared.Turn) error { return n.postpone(t, found[0], true, time.Time{}) })
	}
	turn(func(t *shared.Turn) error { return n.postpone(t, found[1], false, now.Add(time.Hour)) })
	if got := read(now); len(got) != 1 {
		t.Errorf("%d are due", len(got))
	}
	if got := read(now.Add(7 * time.Second)); len(got) != 1 {
		t.Errorf("%d are due after seven seconds", len(got))
	}
	if got := read(now.Add(15 * time.Second)); len(got) != 2 || got[0].tries != 2 {
		t.Errorf("%d are due after fifteen", len(got))
	}
	err = h.Read(ctx, func(v hub.View) error {
		convs, next, err := due(v, now)
		if len(convs) != 1 || convs[0] != "room" || !next.IsZero() {
			t.Errorf("%v, %v", convs, next)
		}
		convs, next, err2 := due(v, now.Add(-100*365*24*time.Hour))
		if len(convs) != 0 || next.IsZero() {
			t.Errorf("%v, %v", convs, next)
		}
		if err == nil {
			err = err2
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	turn(func(t *shared.Turn) error { return n.postpone(t, found[0], true, time.Time{}) }) // the third time
	if got := read(now.Add(time.Hour)); len(got) != 2 {
		t.Errorf("%d wait", len(got))
	}
	turn(func(t *shared.Turn) error { return n.forgetRoom(t, "room") })
	if got := read(now.Add(time.Hour)); len(got) != 0 || n.waiting != 0 {
		t.Errorf("%d wait, and %d are counted", len(got), n.waiting)
	}
}

// TestInOrder: events come after those that they lead to, whatever the order in
// which they came.
func TestInOrder(t *testing.T) {
	pdu := func(id string, prev ...string) *item {
		return &item{pdu: &wire.PDU{EventID: id, Proto: wire.Proto{PrevEvents: prev}}}
	}
	items := []*item{pdu("d", "c", "b"), pdu("c", "a"), pdu("x", "nowhere"), pdu("b", "a"), pdu("a")}
	got := ""
	for _, it := range inOrder(items, previous) {
		got += it.pdu.EventID
	}
	if got != "acbdx" {
		t.Error(got)
	}
}
