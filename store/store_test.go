package store_test

import (
	"bytes"
	"context"
	"testing"

	"parley/store"
	"parley/store/storetest"
)

func TestRoundTrip(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, `CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT NOT NULL, body BLOB, ok BIGINT NOT NULL DEFAULT 0)`)
		body := []byte("a\x00b\xff")
		write(t, db, func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO things (body, name, id, ok) VALUES ($3, $2, $1, $4)`, 7, "seven", body, true)
			return err
		})
		read(t, db, func(q store.Querier) error {
			var name string
			var got []byte
			var ok bool
			if err := q.QueryRow(`SELECT name, body, ok FROM things WHERE id = $1 AND $1 = $1`, 7).Scan(&name, &got, &ok); err != nil {
				return err
			}
			if name != "seven" || !bytes.Equal(got, body) || !ok {
				t.Errorf("got %q %q %v", name, got, ok)
			}
			err := q.QueryRow(`SELECT name FROM things WHERE id = $1`, 8).Scan(&name)
			if !store.NotFound(err) {
				t.Errorf("missing row: %v", err)
			}
			return nil
		})
	})
}

// migrate applies statements as the migration of a test.
func migrate(t testing.TB, db *store.DB, sql string) {
	t.Helper()
	if err := db.Migrate(context.Background(), "test", files("0001_test.sql", sql)); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, db *store.DB, f func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Write(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, db *store.DB, f func(q store.Querier) error) {
	t.Helper()
	if err := db.Read(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}
