package mirror_test

import (
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/mirror"
	"parley/store"
	"parley/store/storetest"
)

// What minting adds to a turn: messages of one member in one room, in one
// transaction, so that no fsync is counted, with and without the mirror.
func BenchmarkMint(b *testing.B) {
	for _, minted := range []bool{false, true} {
		name := map[bool]string{false: "hub-alone", true: "with-mirror"}[minted]
		b.Run(name, func(b *testing.B) {
			db := storetest.Open(b, storetest.SQLite(b), store.Options{})
			w := &world{t: b, ctx: b.Context()}
			if minted {
				w = worldOn(b, db, "12")
			} else {
				w.h = hubtest.On(b, db)
			}
			alice := hubtest.Account(b, w.h, "alice")
			c := w.open(hub.Opening{Creator: alice})
			const batch = 100
			drafts := make([]hub.Draft, batch)
			for i := range drafts {
				drafts[i] = hub.Draft{Conv: c.ID, Sender: alice, Content: core.Message{Body: core.TextBody("hello, how are you today?")}}
			}
			for b.Loop() {
				if _, err := w.h.SubmitAll(b.Context(), drafts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/event")
		})
	}
}

// BenchmarkAdmit is the mirror alone.
func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b, "12")
	alice := hubtest.Account(b, w.h, "alice")
	c := w.open(hub.Opening{Creator: alice})
	const batch = 100
	for b.Loop() {
		err := w.h.Write(b.Context(), func(tx hub.Tx) error {
			s, err := tx.State(c.ID)
			if err != nil {
				return err
			}
			edge, _, err := tx.Edge(c.ID)
			if err != nil {
				return err
			}
			for i := range batch {
				e := core.Event{ID: core.NewEventID(), Conv: c.ID, Sender: alice, Position: edge + 1 + core.Position(i),
					Content: core.Message{Body: core.TextBody("hello, how are you today?")}}
				if err := w.m.Admit(tx, &c, s, &e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/event")
}

// BenchmarkClient writes a page of 50 events as a client sees them.
func BenchmarkClient(b *testing.B) {
	w := newWorld(b, "12")
	alice := hubtest.Account(b, w.h, "alice")
	c := w.open(hub.Opening{Creator: alice})
	var ids []core.EventID
	for range 50 {
		e, err := w.h.Submit(b.Context(), hub.Draft{Conv: c.ID, Sender: alice, Content: core.Message{Body: core.TextBody("hello")}})
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	for b.Loop() {
		w.read(func(v hub.View) error {
			list, err := w.m.ByCore(v, ids...)
			if err == nil {
				_, err = w.m.Client(v, mirror.Viewer{User: alice, Device: "DEV"}, list)
			}
			return err
		})
	}
}
