package crashfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"parley/store"
	"parley/store/crashfs"
)

// Two tables that every operation writes, and one that is changed in place.
// Nothing but the program keeps n unique: a doubled operation would show.
const schema = `CREATE TABLE ledger (n BIGINT NOT NULL, body BLOB NOT NULL);
	CREATE TABLE copies (n BIGINT NOT NULL, size BIGINT NOT NULL);
	CREATE INDEX ledger_n ON ledger (n);
	CREATE TABLE totals (id BIGINT PRIMARY KEY, count BIGINT NOT NULL);
	INSERT INTO totals (id, count) VALUES (1, 0)`

// world is a server's life over many power cuts.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	path    string
	disk    *crashfs.Disk
	opts    store.Options
	noDir   bool // do not sync directories
	next    atomic.Int64
	acked   sync.Map // number → size, of what was acknowledged
	started bool     // the schema was acknowledged
}

func newWorld(t *testing.T, seed uint64, pragmas ...string) *world {
	dir := t.TempDir()
	return &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), path: filepath.Join(dir, "parley.db"),
		disk: crashfs.New(dir),
		// A small log, so that it is often written back and begun anew.
		opts: store.Options{Pragmas: append([]string{"wal_autocheckpoint=12"}, pragmas...), Readers: 2, BatchMax: 5},
	}
}

func (w *world) open() (*store.DB, error) {
	opts := w.opts
	opts.VFS, opts.SyncDir = w.disk.Name, w.disk.SyncDir
	if w.noDir {
		opts.SyncDir = func(string) error { return nil }
	}
	return store.OpenOptions(context.Background(), "sqlite:"+w.path, slog.New(slog.DiscardHandler), opts)
}

// live opens the database, writes until the power goes, and leaves it dead. A
// life may end in a clean closing and reopening first.
func (w *world) live() {
	w.disk.CutAfter(1 + w.rng.IntN(250))
	for !w.disk.Dead() {
		db, err := w.open()
		if err != nil {
			if !w.disk.Dead() {
				w.t.Fatalf("opening with power on: %v", err)
			}
			return
		}
		migration := fstest.MapFS{"0001_schema.sql": {Data: []byte(schema)}}
		if err := db.Migrate(context.Background(), "test", migration); err == nil {
			w.started = true
			w.work(db)
		} else if !w.disk.Dead() {
			w.t.Fatalf("migrating with power on: %v", err)
		}
		_ = db.Close() // fails without power
	}
}

// work writes from several goroutines, until the power goes or enough is done
// for once.
func (w *world) work(db *store.DB) {
	var wg sync.WaitGroup
	for range 3 {
		seed := w.rng.Uint64()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for range 5 + rng.IntN(40) {
				if w.write(db, rng) != nil && w.disk.Dead() {
					return
				}
			}
		})
	}
	wg.Wait()
}

var errRefused = errors.New("refused")

func (w *world) write(db *store.DB, rng *rand.Rand) error {
	n := w.next.Add(1)
	size := rng.IntN(300)
	if rng.IntN(5) == 0 {
		size = rng.IntN(20000)
	}
	refuse := rng.IntN(10) == 0
	body := bytes.Repeat([]byte{byte(n)}, size)
	err := db.Write(context.Background(), func(tx *store.Tx) error {
		tx.NextFeed()
		_, err := tx.Exec(`INSERT INTO ledger (n, body) VALUES ($1, $2)`, n, body)
		if err == nil {
			_, err = tx.Exec(`UPDATE totals SET count = count + 1 WHERE id = 1`)
		}
		if err == nil && refuse {
			err = errRefused
		}
		if err == nil {
			_, err = tx.Exec(`INSERT INTO copies (n, size) VALUES ($1, $2)`, n, size)
		}
		return err
	})
	if err == nil {
		w.acked.Store(n, size)
	}
	return err
}

// verdict is what was found after a power cut.
type verdict struct {
	lost, doubled, torn int
	broken              error // the database cannot be read, or is corrupt
}

func (v verdict) good() bool { return v == verdict{} }

// resurrect replaces the disk by what survived, and checks it.
func (w *world) resurrect(loss crashfs.Loss) (v verdict) {
	w.disk = w.disk.Survivor(loss, w.rng)
	if !w.started {
		return v
	}
	db, err := w.open()
	if err != nil {
		v.broken = err
		return v
	}
	defer db.Close()
	v.broken = db.Read(context.Background(), func(q store.Querier) error {
		var ok string
		if err := q.QueryRow(`PRAGMA integrity_check`).Scan(&ok); err != nil || ok != "ok" {
			return fmt.Errorf("integrity check: %s, %w", ok, err)
		}
		return w.compare(q, &v)
	})
	return v
}

func (w *world) compare(q store.Querier, v *verdict) error {
	there := map[int64]int{}
	rows, err := q.Query(`SELECT l.n, LENGTH(l.body), COALESCE(c.size, -1) FROM ledger l LEFT JOIN copies c ON c.n = l.n`)
	if err != nil {
		return err
	}
	for rows.Next() {
		var n int64
		var length, size int
		if err := rows.Scan(&n, &length, &size); err != nil {
			return err
		}
		if there[n]++; there[n] > 1 {
			v.doubled++
		}
		if length != size {
			v.torn++
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	w.acked.Range(func(n, _ any) bool {
		if there[n.(int64)] == 0 {
			v.lost++
		}
		return true
	})
	var total, copies int
	err = q.QueryRow(`SELECT (SELECT count FROM totals WHERE id = 1), (SELECT COUNT(*) FROM copies)`).Scan(&total, &copies)
	if total != len(there) || copies != len(there) {
		v.torn++
	}
	return err
}

// cuts runs many lives in several worlds until a check fails or all are done,
// and returns the first bad verdict.
func cuts(t *testing.T, worlds, lives int, setup func(w *world), pragmas ...string) (v verdict, acked int) {
	for seed := range worlds {
		w := newWorld(t, uint64(seed), pragmas...)
		if setup != nil {
			setup(w)
		}
		for range lives {
			w.live()
			if v = w.resurrect(crashfs.Loss(w.rng.IntN(2))); !v.good() {
				v.broken = errors.Join(v.broken, fmt.Errorf("seed %d", seed))
				return v, acked
			}
		}
		w.acked.Range(func(any, any) bool { acked++; return true })
		w.disk.Cut()
		w.disk.Survivor(crashfs.LoseAll, w.rng).Cut()
	}
	return v, acked
}

// However often and wherever the power is cut, nothing that was acknowledged
// is lost or doubled, no operation is there in part, and the database is sound.
func TestPowerCuts(t *testing.T) {
	worlds := 40
	if testing.Short() {
		worlds = 10
	}
	v, acked := cuts(t, worlds, 8, nil)
	if !v.good() {
		t.Errorf("%+v", v)
	}
	if acked < worlds*50 {
		t.Errorf("only %d operations were acknowledged: the test shows little", acked)
	}
	t.Logf("%d acknowledged operations, %d cuts", acked, worlds*8)
}

// The test bites: each of these mistakes is found out.
func TestPowerCutsBite(t *testing.T) {
	for name, c := range map[string]struct {
		pragma string
		setup  func(w *world)
	}{
		"synchronous off":      {pragma: "synchronous=off"},
		"synchronous normal":   {pragma: "synchronous=normal"},
		"directory not synced": {setup: func(w *world) { w.noDir = true }},
	} {
		t.Run(name, func(t *testing.T) {
			var pragmas []string
			if c.pragma != "" {
				pragmas = append(pragmas, c.pragma)
			}
			v, _ := cuts(t, 25, 8, c.setup, pragmas...)
			if v.lost == 0 && v.broken == nil {
				t.Errorf("no loss was found: %+v", v)
			}
			t.Logf("found: %d lost, %d torn, %v", v.lost, v.torn, v.broken)
		})
	}
}

// A full disk fails what is written, cleanly, and no more: when there is room
// again writing goes on, and what was refused is not there.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, 1)
	db, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), "test", fstest.MapFS{"0001_schema.sql": {Data: []byte(schema)}}); err != nil {
		t.Fatal(err)
	}
	w.started = true
	for round := range 5 {
		w.work(db)
		w.disk.SetFull(true)
		undone := false
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			tx.OnRollback(func() { undone = true })
			_, err := tx.Exec(`INSERT INTO ledger (n, body) VALUES ($1, $2)`, -1, make([]byte, 1<<25))
			return err
		})
		if err == nil || !undone {
			t.Errorf("round %d: wrote to a full disk: %v, undone %v", round, err, undone)
		}
		w.disk.SetFull(false)
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return nil }); err != nil {
			t.Errorf("with room again: %v", err)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	w.disk.Cut()
	if v := w.resurrect(crashfs.LoseAll); !v.good() {
		t.Errorf("%+v", v)
	}
}
