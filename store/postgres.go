package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresDB is a PostgreSQL database: one connection that writes under the
// lease, a pool that reads. pgx caches prepared statements by itself.
type postgresDB struct {
	d     *dialect
	pool  *sql.DB
	opts  *Options
	log   *slog.Logger
	slots chan struct{} // one per snapshot being read

	// The lease. holder is unique to this Open; epoch grows with each holder.
	holder  string
	epoch   int64
	renewed time.Time // by our monotonic clock
}

func openPostgres(ctx context.Context, url string, log *slog.Logger, opts *Options) (backend, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err) // pgx removes the password
	}
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	cfg.RuntimeParams["application_name"] = "parley"
	// What the role or the database may have set otherwise and we rely on.
	cfg.RuntimeParams["standard_conforming_strings"] = "on"
	cfg.RuntimeParams["synchronous_commit"] = "on"
	// A process that hangs inside a batch must not keep a successor waiting
	// for the row of the lease.
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = strconv.FormatInt(max(opts.LeaseTTL, time.Second).Milliseconds(), 10)
	host, _ := os.Hostname()
	b := &postgresDB{
		d:      newDialect(kindPostgres),
		pool:   stdlib.OpenDB(*cfg),
		opts:   opts,
		log:    log,
		slots:  make(chan struct{}, opts.Readers),
		holder: fmt.Sprintf("%s process %d since %s", host, os.Getpid(), time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")),
	}
	b.pool.SetMaxIdleConns(opts.Readers + 1)
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.pool.Close())
	}
	return b, nil
}

// prepare checks the encoding and makes the table of the lease.
func (b *postgresDB) prepare(ctx context.Context) error {
	conn, err := b.pool.Conn(ctx)
	if err != nil {
		return fmt.Errorf("store: connecting: %w", err)
	}
	defer conn.Close()
	var encoding string
	if err := conn.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("store: the database is encoded in %s; create it with ENCODING 'UTF8'", encoding)
	}
	// CREATE TABLE IF NOT EXISTS can fail when two processes race; the lock
	// (any constant will do) lets one pass at a time.
	_, err = conn.ExecContext(ctx, `DO $$ BEGIN
		PERFORM pg_advisory_xact_lock(7809056);
		CREATE TABLE IF NOT EXISTS parley_lease (id BIGINT PRIMARY KEY, holder TEXT NOT NULL,
			epoch BIGINT NOT NULL, expires BIGINT NOT NULL);
		INSERT INTO parley_lease VALUES (1, '', 0, 0) ON CONFLICT DO NOTHING;
	END $$`)
	if err != nil {
		return fmt.Errorf("store: creating the lease: %w", err)
	}
	return nil
}

// nowMicros is the database's clock, which all processes share.
const nowMicros = `CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)`

// openWriter connects the writer; the first time it takes the lease. After
// that fence finds out whether it is still ours.
func (b *postgresDB) openWriter(ctx context.Context) (session, error) {
	conn, err := b.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s := &sqlSession{conn: conn, d: b.d}
	if b.epoch == 0 {
		if err := b.takeLease(ctx, s); err != nil {
			s.discard()
			return nil, err
		}
	} else {
		b.renewed = time.Time{} // the last renewal may have been rolled back
	}
	return s, nil
}

func (b *postgresDB) takeLease(ctx context.Context, s *sqlSession) error {
	row := s.conn.QueryRowContext(ctx, `UPDATE parley_lease SET holder = $1, epoch = epoch + 1, expires = `+nowMicros+` + $2
		WHERE id = 1 AND expires <= `+nowMicros+` RETURNING epoch`, b.holder, b.opts.LeaseTTL.Microseconds())
	err := row.Scan(&b.epoch)
	if errors.Is(err, sql.ErrNoRows) {
		held := &LeaseHeldError{}
		var micros int64
		err = s.conn.QueryRowContext(ctx, `SELECT holder, expires - `+nowMicros+` FROM parley_lease WHERE id = 1`).
			Scan(&held.Holder, &micros)
		if err == nil {
			held.Remaining = max(time.Duration(micros)*time.Microsecond, time.Microsecond)
			return held
		}
	}
	if err != nil {
		return fmt.Errorf("store: taking the lease: %w", err)
	}
	b.renewed = time.Now()
	return nil
}

func (b *postgresDB) dialect() *dialect        { return b.d }
func (b *postgresDB) beginWrite() string       { return "BEGIN" }
func (b *postgresDB) idleEvery() time.Duration { return b.opts.LeaseTTL / 4 }

// fence locks the row of the lease for the rest of the batch: who wants to take
// over has to wait for our commit, and who has taken over is noticed. Now and
// then it renews the lease in the same stroke.
func (b *postgresDB) fence(ctx context.Context, s session) error {
	if time.Since(b.renewed) >= b.idleEvery() {
		return b.idle(ctx, s)
	}
	return b.checkLease(s.query(ctx, `SELECT 1 FROM parley_lease WHERE id = 1 AND epoch = $1 FOR SHARE`, []any{b.epoch}))
}

// idle renews the lease.
func (b *postgresDB) idle(ctx context.Context, s session) error {
	now := time.Now()
	err := b.checkLease(s.query(ctx, `UPDATE parley_lease SET expires = `+nowMicros+` + $2
		WHERE id = 1 AND epoch = $1 RETURNING 1`, []any{b.epoch, b.opts.LeaseTTL.Microseconds()}))
	if err == nil {
		b.renewed = now
	}
	return err
}

// checkLease reads the answer of a statement that finds one row if the lease
// is ours.
func (b *postgresDB) checkLease(rows cursor, err error) error {
	if err != nil {
		return err
	}
	ours := rows.Next()
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if !ours {
		return ErrLeaseLost
	}
	return nil
}

func (b *postgresDB) acquire(ctx context.Context) (session, error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var err error
	for range 3 { // a restarted server leaves dead connections in the pool
		var conn *sql.Conn
		if conn, err = b.pool.Conn(ctx); err != nil {
			break
		}
		s := &sqlSession{conn: conn, d: b.d}
		if err = s.command(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err == nil {
			return s, nil
		}
		s.discard()
	}
	<-b.slots
	return nil, err
}

func (b *postgresDB) release(s session) {
	defer func() { <-b.slots }()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if err := s.command(ctx, "ROLLBACK"); err != nil {
		s.discard()
		return
	}
	_ = s.(*sqlSession).conn.Close()
}

// close gives up the lease with the writer's session, and then the rest.
func (b *postgresDB) close(ctx context.Context, s session) error {
	if s != nil {
		_, err := s.exec(ctx, `UPDATE parley_lease SET expires = 0 WHERE id = 1 AND epoch = $1`, []any{b.epoch})
		s.discard()
		return err
	}
	return b.pool.Close()
}
