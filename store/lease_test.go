package store_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"parley/store"
	"parley/store/storetest"
)

// A second process gets a clear error while the first has the database, and
// gets in when the first has closed it.
func TestSecondOpen(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		ctx := context.Background()
		first, err := store.Open(ctx, url, storetest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		var held *store.LeaseHeldError
		if second, err := store.Open(ctx, url, storetest.Log(t)); !errors.As(err, &held) {
			t.Errorf("second opening: %v, %v", second, err)
		} else if !strings.Contains(err.Error(), "process") {
			t.Errorf("unclear: %v", err)
		}
		migrate(t, first, numbers)
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second := storetest.Open(t, url, store.Options{})
		write(t, second, func(tx *store.Tx) error { return insert(tx, 1) })
	})
}

// admin is a connection of its own to the database at url.
func admin(t *testing.T, url string) *sql.DB {
	t.Helper()
	c, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func do(t *testing.T, c *sql.DB, query string) {
	t.Helper()
	if _, err := c.Exec(query); err != nil {
		t.Fatal(err)
	}
}

// Who was taken over while not looking cannot write any more.
func TestLeaseFencing(t *testing.T) {
	url := storetest.Postgres(t)
	first, err := store.Open(context.Background(), url, storetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	migrate(t, first, numbers)
	do(t, admin(t, url), `UPDATE parley_lease SET expires = 0`) // time has passed
	second := storetest.Open(t, url, store.Options{})
	write(t, second, func(tx *store.Tx) error { return insert(tx, 2) })
	for range 2 {
		err = first.Write(context.Background(), func(tx *store.Tx) error {
			t.Error("ran")
			return insert(tx, 1)
		})
		if !errors.Is(err, store.ErrLeaseLost) {
			t.Errorf("the first wrote: %v", err)
		}
	}
	<-first.Lost()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	write(t, second, func(tx *store.Tx) error { return insert(tx, 3) })
	if got := list(t, second); len(got) != 2 {
		t.Errorf("kept %v", got)
	}
}

// Who takes over waits for a batch that is in work, and sees what it wrote.
func TestTakeoverWaits(t *testing.T) {
	url := storetest.Postgres(t)
	first := storetest.Open(t, url, store.Options{LeaseTTL: time.Hour})
	migrate(t, first, numbers)
	do(t, admin(t, url), `UPDATE parley_lease SET expires = 0`)
	c := admin(t, url)
	taken := make(chan error)
	write(t, first, func(tx *store.Tx) error {
		go func() {
			_, err := c.Exec(`UPDATE parley_lease SET epoch = epoch + 1 WHERE expires < 1`)
			taken <- err
		}()
		for waits := 0; waits == 0; { // until it waits for our lock
			if err := c.QueryRow(`SELECT COUNT(*) FROM pg_locks WHERE NOT granted`).Scan(&waits); err != nil {
				return err
			}
		}
		return insert(tx, 1)
	})
	if err := <-taken; err != nil {
		t.Error(err)
	}
	if err := first.Write(context.Background(), func(tx *store.Tx) error { return insert(tx, 2) }); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("after the takeover: %v", err)
	}
}

// An idle process keeps its lease by renewing it.
func TestLeaseRenewal(t *testing.T) {
	url := storetest.Postgres(t)
	storetest.Open(t, url, store.Options{LeaseTTL: 400 * time.Millisecond})
	c := admin(t, url)
	var before, after int64
	const query = `SELECT expires FROM parley_lease`
	if err := c.QueryRow(query).Scan(&before); err != nil {
		t.Fatal(err)
	}
	for after = before; after == before; time.Sleep(10 * time.Millisecond) {
		if err := c.QueryRow(query).Scan(&after); err != nil {
			t.Fatal(err)
		}
	}
	if after < before {
		t.Errorf("from %d to %d", before, after)
	}
}

// When the server throws the connection out in the middle of a batch, the
// batch fails, and the next one goes on over a new connection.
func TestReconnect(t *testing.T) {
	url := storetest.Postgres(t)
	db := storetest.Open(t, url, store.Options{})
	migrate(t, db, numbers)
	c := admin(t, url)
	const throwOut = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'parley'`
	undone := 0
	errs := batch(t, db,
		func(tx *store.Tx) error { tx.OnRollback(func() { undone++ }); return insert(tx, 1) },
		func(tx *store.Tx) error {
			if _, err := c.Exec(throwOut); err != nil {
				t.Error(err)
			}
			return insert(tx, 2)
		},
		func(tx *store.Tx) error { return insert(tx, 3) },
	)
	if errs[0] == nil || errs[1] == nil || errs[2] != nil || undone != 1 {
		t.Errorf("%v, undone %d", errs, undone)
	}
	do(t, c, throwOut) // also while idle
	write(t, db, func(tx *store.Tx) error { return insert(tx, 4) })
	do(t, c, throwOut)
	if got := list(t, db); len(got) != 2 || got[0] != 3 || got[1] != 4 {
		t.Errorf("kept %v", got)
	}
}
