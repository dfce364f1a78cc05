package store_test

import (
	"bytes"
	"context"
	"slices"
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

// Text is compared byte by byte, whatever the collation of the database, and
// LIKE regards case.
func TestCollation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, `CREATE TABLE words (w TEXT PRIMARY KEY)`)
		want := []string{"", "A", "B", "_", "a", "a-b", "aB", "ab", "b", "é", "\U0001F600"}
		write(t, db, func(tx *store.Tx) error {
			for _, i := range []int{3, 1, 0, 5, 4, 2, 10, 9, 8, 7, 6} {
				if _, err := tx.Exec(`INSERT INTO words (w) VALUES ($1)`, want[i]); err != nil {
					return err
				}
			}
			return nil
		})
		read(t, db, func(q store.Querier) error {
			got, err := texts(q, `SELECT w FROM words ORDER BY w`)
			if err == nil && !slices.Equal(got, want) {
				t.Errorf("order %q", got)
			}
			return err
		})
		read(t, db, func(q store.Querier) error {
			got, err := texts(q, `SELECT w FROM words WHERE w LIKE 'A%' ORDER BY w`)
			if err == nil && !slices.Equal(got, []string{"A"}) {
				t.Errorf("like: %q", got)
			}
			return err
		})
	})
}

func texts(q store.Querier, query string) (out []string, err error) {
	rows, err := q.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// What one database refuses the other refuses too.
func TestSameRefusals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, `CREATE TABLE parents (id BIGINT PRIMARY KEY);
			CREATE TABLE kids (id BIGINT PRIMARY KEY, parent BIGINT REFERENCES parents (id), name TEXT, body BLOB)`)
		for _, c := range []struct {
			sql string
			arg any
		}{
			{`INSERT INTO kids (id, name) VALUES (1, $1)`, "a\x00b"},
			{`INSERT INTO kids (id, name) VALUES (1, $1)`, "\xff"},
			{`INSERT INTO kids (id, parent) VALUES (1, $1)`, 99},
			{`INSERT INTO kids (id) VALUES ($1)`, "one"},
			{`INSERT INTO kids (id) VALUES ($1)`, 1.5},
			{`INSERT INTO missing (id) VALUES ($1)`, 1},
		} {
			err := db.Write(context.Background(), func(tx *store.Tx) error {
				_, err := tx.Exec(c.sql, c.arg)
				return err
			})
			if err == nil || store.IsUnique(err) {
				t.Errorf("%s with %#v: %v", c.sql, c.arg, err)
			}
		}
		write(t, db, func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO kids (id, name, body) VALUES ($1, NULL, $2)`, 1, []byte{})
			return err
		})
		read(t, db, func(q store.Querier) error {
			var empty, null bool
			err := q.QueryRow(`SELECT body = X'', name IS NULL FROM kids WHERE id = $1`, 1).Scan(&empty, &null)
			if err == nil && (!empty || !null) {
				t.Errorf("empty %v, null %v", empty, null)
			}
			return err
		})
	})
}

func TestMigrate(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		db := storetest.Open(t, url, store.Options{})
		ctx := context.Background()
		one := []string{"0001_one.sql", `CREATE TABLE a (x BIGINT PRIMARY KEY); INSERT INTO a (x) VALUES (1);`}
		two := append(one, "0002_two.sql", `ALTER TABLE a ADD COLUMN y TEXT; CREATE INDEX a_y ON a (y)`)
		for _, pairs := range [][]string{one, one, two, two} {
			if err := db.Migrate(ctx, "x", files(pairs...)); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Migrate(ctx, "other", files("0001_b.sql", `CREATE TABLE b (x BIGINT PRIMARY KEY)`)); err != nil {
			t.Fatal(err)
		}
		for what, pairs := range map[string][]string{
			"changed":       {one[0], one[1] + " ", two[2], two[3]},
			"older program": one,
			"gap":           append(two, "0004_d.sql", `SELECT 1`),
			"name":          {"1_one.sql", one[1]},
			"dialect":       append(two, "0003_c.sql", `CREATE TABLE c (x VARCHAR(3))`),
			"fails late":    append(two, "0003_c.sql", `CREATE TABLE c (x BIGINT); INSERT INTO c VALUES (1, 2, 3)`),
		} {
			if err := db.Migrate(ctx, "x", files(pairs...)); err == nil {
				t.Errorf("%s: accepted", what)
			}
		}
		// The failed file left nothing behind, and mended it goes in.
		if err := db.Migrate(ctx, "x", files(append(two, "0003_c.sql", `CREATE TABLE c (x BIGINT)`)...)); err != nil {
			t.Error(err)
		}
	})
}

func TestIsUnique(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, `CREATE TABLE u (id BIGINT PRIMARY KEY, a TEXT UNIQUE, b BIGINT NOT NULL DEFAULT 0);
			CREATE TABLE v (a TEXT, b BLOB, PRIMARY KEY (a, b));
			INSERT INTO u (id, a) VALUES (1, 'x'); INSERT INTO v (a, b) VALUES ('x', X'00')`)
		for stmt, want := range map[string]bool{
			`INSERT INTO u (id, a) VALUES (1, 'y')`:          true,
			`INSERT INTO u (id, a) VALUES (2, 'x')`:          true,
			`INSERT INTO v (a, b) VALUES ('x', X'00')`:       true,
			`INSERT INTO u (id, a, b) VALUES (3, 'z', NULL)`: false,
			`INSERT INTO u (id, q) VALUES (3, 'z')`:          false,
		} {
			err := db.Write(context.Background(), func(tx *store.Tx) error {
				_, err := tx.Exec(stmt)
				return err
			})
			if err == nil || store.IsUnique(err) != want {
				t.Errorf("%s: %v", stmt, err)
			}
		}
		if store.IsUnique(nil) || store.NotFound(nil) {
			t.Error("nil is a failure")
		}
	})
}
