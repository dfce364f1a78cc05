package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"parley/store"
	"parley/store/storetest"
)

const numbers = `CREATE TABLE numbers (n BIGINT PRIMARY KEY, feed BIGINT NOT NULL DEFAULT 0)`

func insert(tx *store.Tx, n int) error {
	_, err := tx.Exec(`INSERT INTO numbers (n) VALUES ($1)`, n)
	return err
}

// list returns the numbers that are there.
func list(t testing.TB, db *store.DB) (out []int) {
	t.Helper()
	read(t, db, func(q store.Querier) error {
		rows, err := q.Query(`SELECT n FROM numbers ORDER BY n`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var n int
			if err := rows.Scan(&n); err != nil {
				return err
			}
			out = append(out, n)
		}
		return rows.Err()
	})
	return out
}

// stall keeps the writer busy until release is called, so that what is written
// meanwhile becomes one batch.
func stall(t testing.TB, db *store.DB) (release func()) {
	t.Helper()
	started, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- db.Write(context.Background(), func(*store.Tx) error {
			close(started)
			<-end
			return nil
		})
	}()
	<-started
	return sync.OnceFunc(func() {
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// batch runs operations in one transaction, in order, and returns their errors.
func batch(t testing.TB, db *store.DB, ops ...func(tx *store.Tx) error) []error {
	t.Helper()
	release := stall(t, db)
	errs := make([]error, len(ops))
	var wg sync.WaitGroup
	for i, f := range ops {
		queued := db.Queued()
		wg.Go(func() { errs[i] = db.Write(context.Background(), f) })
		for db.Queued() == queued {
			runtime.Gosched()
		}
	}
	release()
	wg.Wait()
	return errs
}

// One failing operation, in whatever way it fails, does not sink its batch.
func TestSavepoints(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		refused := errors.New("refused")
		errs := batch(t, db,
			func(tx *store.Tx) error { return insert(tx, 1) },
			func(tx *store.Tx) error { return errors.Join(insert(tx, 2), refused) },
			func(tx *store.Tx) error { return errors.Join(insert(tx, 3), insert(tx, 1)) },
			func(tx *store.Tx) error { _ = insert(tx, 4); panic("oh") },
			func(tx *store.Tx) error { _ = insert(tx, 5); _ = insert(tx, 1); return nil },
			func(tx *store.Tx) error { _, err := tx.Exec(`SELEC`); return errors.Join(insert(tx, 6), err) },
			func(tx *store.Tx) error {
				// It sees what came before in the batch, and nothing of the failed.
				var sum int
				if err := tx.QueryRow(`SELECT SUM(n) FROM numbers`).Scan(&sum); err != nil || sum != 1 {
					return fmt.Errorf("sum %d, %w", sum, err)
				}
				return insert(tx, 7)
			},
		)
		var panicked *store.PanicError
		switch {
		case errs[0] != nil, errs[6] != nil:
			t.Errorf("good operations failed: %v", errs)
		case !errors.Is(errs[1], refused):
			t.Error(errs[1])
		case !store.IsUnique(errs[2]):
			t.Errorf("not unique: %v", errs[2])
		case !errors.As(errs[3], &panicked) || panicked.Value != "oh" || len(panicked.Stack) == 0:
			t.Error(errs[3])
		case !store.IsUnique(errs[4]):
			t.Errorf("a swallowed failure: %v", errs[4])
		case errs[5] == nil || store.IsUnique(errs[5]):
			t.Error(errs[5])
		}
		if got := list(t, db); !slices.Equal(got, []int{1, 7}) {
			t.Errorf("kept %v", got)
		}
	})
}

// A closure that ends its goroutine takes its batch along, and no more.
func TestGoexit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		errs := batch(t, db,
			func(tx *store.Tx) error { return insert(tx, 1) },
			func(tx *store.Tx) error { runtime.Goexit(); return nil },
			func(tx *store.Tx) error { return insert(tx, 2) },
		)
		for i, err := range errs {
			if err == nil {
				t.Errorf("operation %d succeeded", i)
			}
		}
		write(t, db, func(tx *store.Tx) error { return insert(tx, 3) })
		if got := list(t, db); !slices.Equal(got, []int{3}) {
			t.Errorf("kept %v", got)
		}
	})
}

func TestTry(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		var hooks []string
		note := func(s string) func() { return func() { hooks = append(hooks, s) } }
		write(t, db, func(tx *store.Tx) error {
			tx.OnCommit(note("outer"))
			if err := insert(tx, 1); err != nil {
				return err
			}
			err := tx.Try(func() error {
				tx.OnCommit(note("never"))
				tx.OnRollback(note("undone 1"))
				tx.OnRollback(note("undone 2"))
				if err := insert(tx, 2); err != nil {
					return err
				}
				return tx.Try(func() error { return insert(tx, 1) })
			})
			if !store.IsUnique(err) {
				t.Errorf("try: %v", err)
			}
			return tx.Try(func() error {
				tx.OnCommit(note("inner"))
				return insert(tx, 3)
			})
		})
		if got := list(t, db); !slices.Equal(got, []int{1, 3}) {
			t.Errorf("kept %v", got)
		}
		if want := []string{"undone 2", "undone 1", "outer", "inner"}; !slices.Equal(hooks, want) {
			t.Errorf("hooks %v", hooks)
		}
	})
}

// Hooks run in commit order by the writer, after the commit and before Write
// returns; those of failures run at once.
func TestHooks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		var order []string // written by the writer only
		note := func(s string) func() { return func() { order = append(order, s) } }
		cache := 0
		errs := batch(t, db,
			func(tx *store.Tx) error {
				tx.OnCommit(note("a1"))
				tx.OnCommit(func() {
					if got := list(t, db); !slices.Equal(got, []int{1, 2}) {
						t.Errorf("the hook sees %v", got)
					}
				})
				tx.OnCommit(note("a2"))
				return insert(tx, 1)
			},
			func(tx *store.Tx) error {
				cache = 5
				tx.OnRollback(func() { cache = 0 })
				tx.OnCommit(note("never"))
				return errors.New("no")
			},
			func(tx *store.Tx) error {
				if cache != 0 {
					t.Errorf("the cache of a failed operation is seen: %d", cache)
				}
				tx.OnRollback(note("never"))
				tx.OnCommit(func() { panic("a bug in a hook") })
				tx.OnCommit(note("b"))
				return insert(tx, 2)
			},
		)
		if errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Error(errs)
		}
		if want := []string{"a1", "a2", "b"}; !slices.Equal(order, want) {
			t.Errorf("order %v", order)
		}
	})
}

func TestCancelled(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		release := stall(t, db)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			done <- db.Write(ctx, func(*store.Tx) error { t.Error("a cancelled operation ran"); return nil })
		}()
		for db.Queued() == 0 {
			runtime.Gosched()
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		release()
		// Cancelled while it runs: the outcome counts.
		ctx, cancel = context.WithCancel(context.Background())
		err := db.Write(ctx, func(tx *store.Tx) error { cancel(); return insert(tx, 1) })
		if err != nil || len(list(t, db)) != 1 {
			t.Errorf("%v, %v", err, list(t, db))
		}
		if err := db.Write(ctx, func(*store.Tx) error { t.Error("ran"); return nil }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// While many write and many read, no reader sees a feed number while a smaller
// one is still to come, and the feed position agrees with the rows.
func TestFeedVisibility(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		const writers, each = 8, 40
		var wg, readers sync.WaitGroup
		var stop atomic.Bool
		for range 3 {
			readers.Go(func() {
				seen := map[int64]bool{}
				var highest int64
				for !stop.Load() {
					highest = checkFeed(t, db, seen, highest)
				}
			})
		}
		for i := range writers {
			wg.Go(func() {
				for j := range each {
					n := i*each + j
					err := db.Write(context.Background(), func(tx *store.Tx) error {
						feed := tx.NextFeed()
						if _, err := tx.Exec(`INSERT INTO numbers (n, feed) VALUES ($1, $2)`, n, feed); err != nil {
							return err
						}
						if n%7 == 0 {
							return errOops
						}
						return nil
					})
					if err != nil && !errors.Is(err, errOops) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		stop.Store(true)
		readers.Wait()
		if highest := checkFeed(t, db, map[int64]bool{}, 0); highest > db.Feed() || highest == 0 {
			t.Errorf("highest %d, feed %d", highest, db.Feed())
		}
	})
}

var errOops = errors.New("oops")

// checkFeed reads all feed numbers: none that is new may be below what was the
// highest before.
func checkFeed(t *testing.T, db *store.DB, seen map[int64]bool, before int64) (highest int64) {
	highest = before
	read(t, db, func(q store.Querier) error {
		rows, err := q.Query(`SELECT feed FROM numbers ORDER BY feed`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				return err
			}
			if !seen[n] && n <= before {
				t.Errorf("%d came after %d was seen", n, before)
			}
			seen[n] = true
			highest = max(highest, n)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		pos, err := store.FeedPosition(q)
		if err == nil && pos < highest {
			t.Errorf("position %d below %d", pos, highest)
		}
		return err
	})
	return highest
}

// The feed goes on after reopening, and a snapshot stays what it is.
func TestFeedPersists(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		var last int64
		for range 3 {
			db, err := store.Open(context.Background(), url, storetest.Log(t))
			if err != nil {
				t.Fatal(err)
			}
			if db.Feed() != last {
				t.Errorf("feed %d, want %d", db.Feed(), last)
			}
			for range 5 {
				write(t, db, func(tx *store.Tx) error {
					if n := tx.NextFeed(); n <= last {
						t.Errorf("%d after %d", n, last)
					} else {
						last = n
					}
					return nil
				})
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestSnapshot(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		count := func(q store.Querier) (n int) {
			if err := q.QueryRow(`SELECT COUNT(*) FROM numbers`).Scan(&n); err != nil {
				t.Error(err)
			}
			return n
		}
		read(t, db, func(q store.Querier) error {
			before := count(q)
			write(t, db, func(tx *store.Tx) error { return insert(tx, 1) })
			if after := count(q); before != 0 || after != 0 {
				t.Errorf("the snapshot changed from %d to %d", before, after)
			}
			return nil
		})
		read(t, db, func(q store.Querier) error {
			if n := count(q); n != 1 {
				t.Errorf("%d rows", n)
			}
			return nil
		})
		err := db.Read(context.Background(), func(q store.Querier) error {
			return q.QueryRow(`INSERT INTO numbers (n) VALUES (2) RETURNING n`).Scan(new(int))
		})
		if err == nil || len(list(t, db)) != 1 {
			t.Errorf("wrote in a snapshot: %v", err)
		}
	})
}

func TestRowsRules(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		migrate(t, db, numbers)
		var kept *store.Tx
		write(t, db, func(tx *store.Tx) error {
			kept = tx
			if err := errors.Join(insert(tx, 1), insert(tx, 2)); err != nil {
				return err
			}
			rows, err := tx.Query(`SELECT n FROM numbers`)
			if err != nil {
				return err
			}
			if !rows.Next() {
				t.Error("no row")
			}
			if err := insert(tx, 3); !errors.Is(err, store.ErrRowsOpen) {
				t.Errorf("with open rows: %v", err)
			}
			if err := rows.Close(); err != nil {
				return err
			}
			if _, err := tx.Query(`SELECT n FROM numbers`); err != nil { // left open
				return err
			}
			return nil
		})
		if err := insert(kept, 4); !errors.Is(err, store.ErrDone) {
			t.Errorf("after the end: %v", err)
		}
		if got := list(t, db); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("kept %v", got)
		}
		err := db.Read(context.Background(), func(q store.Querier) error {
			return q.QueryRow(`SELECT n FROM numbers WHERE n = $1`, 77).Scan(new(int))
		})
		if !errors.Is(err, sql.ErrNoRows) || !store.NotFound(err) {
			t.Error(err)
		}
	})
}

func TestReadCancelled(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for range 10 { // more often than there are readers
			ctx, cancel := context.WithCancel(context.Background())
			err := db.Read(ctx, func(q store.Querier) error {
				cancel()
				return q.QueryRow(`WITH RECURSIVE c (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM c WHERE n < 2000000000)
					SELECT COUNT(*) FROM c`).Scan(new(int))
			})
			if err == nil {
				t.Fatal("not interrupted")
			}
		}
		read(t, db, func(q store.Querier) error { return q.QueryRow(`SELECT 1`).Scan(new(int)) })
	})
}

func TestClose(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		db, err := store.Open(context.Background(), url, storetest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		migrate(t, db, numbers)
		// What is queued is done; what comes later is refused, and says so.
		var wg sync.WaitGroup
		var acknowledged atomic.Int64
		release := stall(t, db)
		for i := range 600 { // more than two batches
			wg.Go(func() {
				switch err := db.Write(context.Background(), func(tx *store.Tx) error { return insert(tx, i) }); {
				case err == nil:
					acknowledged.Add(1)
				case !errors.Is(err, store.ErrClosed):
					t.Error(err)
				}
			})
		}
		for db.Queued() < 200 {
			runtime.Gosched()
		}
		release()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if err := db.Write(context.Background(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
		if err := db.Read(context.Background(), func(store.Querier) error { return nil }); !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
		again := storetest.Open(t, url, store.Options{})
		if got := list(t, again); int64(len(got)) != acknowledged.Load() || len(got) < 200 {
			t.Errorf("%d acknowledged, %d kept", acknowledged.Load(), len(got))
		}
	})
}
