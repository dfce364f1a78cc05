package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options are for tests and measurements; the zero value of each field means
// the default.
type Options struct {
	// BatchMax is how many operations one transaction holds at most (256).
	BatchMax int
	// Readers is how many snapshots may be read at a time (4).
	Readers int
	// LeaseTTL is how long a PostgreSQL lease lives when not renewed (15 s).
	LeaseTTL time.Duration
	// VFS is the SQLite file layer to use, by its registered name, and SyncDir
	// how to make the entries of a directory durable in it.
	VFS     string
	SyncDir func(dir string) error
	// Pragmas are appended to the default ones of SQLite, such as
	// "synchronous=off" to show that a durability test bites.
	Pragmas []string
}

func (o *Options) defaults() {
	if o.BatchMax <= 0 {
		o.BatchMax = 256
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.LeaseTTL <= 0 {
		o.LeaseTTL = 15 * time.Second
	}
	if o.SyncDir == nil {
		o.SyncDir = syncDir
	}
}

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	log     *slog.Logger
	opts    Options
	backend backend

	queue   chan *op
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the writer has ended
	lost    chan struct{} // closed when the lease is lost
	once    sync.Once
	feed    atomic.Int64 // highest committed feed number
}

// backend is what differs between the two databases, apart from spelling.
type backend interface {
	dialect() *dialect
	// openWriter opens the connection of the writer goroutine.
	openWriter(ctx context.Context) (session, error)
	// beginWrite is the statement that starts a batch.
	beginWrite() string
	// fence makes sure, inside a batch, that this process may still write and
	// that nobody else will before the batch has ended.
	fence(ctx context.Context, s session) error
	// idle is called by the writer about every idleEvery when nothing is
	// queued; 0 is never.
	idle(ctx context.Context, s session) error
	idleEvery() time.Duration
	// acquire lends a session for reading, inside a read-only transaction.
	acquire(ctx context.Context) (session, error)
	// release takes it back, ending the transaction.
	release(s session)
	// close gives up the lease or lock and closes all connections. s is the
	// writer's session, or nil.
	close(ctx context.Context, s session) error
}

// Open opens the database at url and starts its writer: "sqlite:PATH" or a
// bare path is SQLite, "postgres://…" is PostgreSQL. It takes the exclusive
// lock or lease of the database and returns a [LeaseHeldError] if another
// process has it.
func Open(ctx context.Context, url string, log *slog.Logger) (*DB, error) {
	return OpenOptions(ctx, url, log, Options{})
}

// OpenOptions is Open with options.
func OpenOptions(ctx context.Context, url string, log *slog.Logger, opts Options) (*DB, error) {
	opts.defaults()
	db := &DB{
		log:     log,
		opts:    opts,
		queue:   make(chan *op, opts.BatchMax),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		lost:    make(chan struct{}),
	}
	var err error
	if strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") {
		db.backend, err = openPostgres(ctx, url, log, &db.opts)
	} else {
		db.backend, err = openSQLite(ctx, strings.TrimPrefix(url, "sqlite:"), &db.opts)
	}
	if err != nil {
		return nil, err
	}
	w := &writer{db: db}
	if w.sess, err = db.backend.openWriter(ctx); err == nil {
		err = db.bootstrap(ctx, w)
	}
	if err != nil {
		if w.sess != nil {
			err = errors.Join(err, db.backend.close(ctx, w.sess))
		}
		return nil, errors.Join(err, db.backend.close(ctx, nil))
	}
	go w.run()
	return db, nil
}

// bootstrap makes the tables of the store itself and learns the feed number.
func (db *DB) bootstrap(ctx context.Context, w *writer) error {
	for _, stmt := range []string{
		`CREATE TABLE IF NOT EXISTS parley_migrations (owner TEXT NOT NULL, number BIGINT NOT NULL,
			name TEXT NOT NULL, sha256 BLOB NOT NULL, applied BIGINT NOT NULL, PRIMARY KEY (owner, number))`,
		`CREATE TABLE IF NOT EXISTS parley_feed (id BIGINT PRIMARY KEY, last BIGINT NOT NULL)`,
	} {
		stmt, err := db.backend.dialect().definition(stmt)
		if err == nil {
			err = w.sess.command(ctx, stmt)
		}
		if err != nil {
			return fmt.Errorf("store: creating its own tables: %w", err)
		}
	}
	_, err := w.sess.exec(ctx, `INSERT INTO parley_feed (id, last) VALUES (1, 0) ON CONFLICT DO NOTHING`, nil)
	if err != nil {
		return fmt.Errorf("store: starting the feed: %w", err)
	}
	rows, err := w.sess.query(ctx, `SELECT last FROM parley_feed WHERE id = 1`, nil)
	if err != nil {
		return fmt.Errorf("store: reading the feed: %w", err)
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(&w.feed); err != nil {
			return fmt.Errorf("store: reading the feed: %w", err)
		}
	}
	w.feedSaved = w.feed
	db.feed.Store(w.feed)
	return errors.Join(rows.Err(), rows.Close())
}

// Close lets what is queued finish, and closes the database. Writes that come
// later fail with [ErrClosed].
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		close(db.closing)
		<-db.stopped
		ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
		defer cancel()
		err = db.backend.close(ctx, nil)
	})
	return err
}

// Lost is closed when another process has taken over the database: every
// later Write fails with [ErrLeaseLost], and the process should exit.
func (db *DB) Lost() <-chan struct{} { return db.lost }

// Kind is "SQLite" or "PostgreSQL".
func (db *DB) Kind() string { return db.backend.dialect().kind.String() }

// Feed returns the highest feed number that is committed.
func (db *DB) Feed() int64 { return db.feed.Load() }

// FeedPosition returns the highest feed number that the snapshot contains, or
// in a Tx the last that was handed out.
func FeedPosition(q Querier) (int64, error) {
	if tx, ok := q.(*Tx); ok {
		return tx.w.feed, nil
	}
	var last int64
	err := q.QueryRow(`SELECT last FROM parley_feed WHERE id = 1`).Scan(&last)
	return last, err
}

// Read runs f on a read-only snapshot of committed data, which is that of the
// moment of f's first statement. Cancelling ctx interrupts its queries. f must
// not keep q, nor call Read.
func (db *DB) Read(ctx context.Context, f func(q Querier) error) error {
	select {
	case <-db.closing:
		return ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	sc := &scope{ctx: ctx, begin: func() (session, error) {
		s, err := db.backend.acquire(ctx)
		if err != nil {
			return nil, fmt.Errorf("store: starting to read: %w", err)
		}
		return s, nil
	}}
	defer func() {
		sc.finish()
		if sc.s != nil {
			db.backend.release(sc.s)
		}
	}()
	return f(sc)
}

// Queued is how many operations wait for the writer, for metrics.
func (db *DB) Queued() int { return len(db.queue) }
