package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Querier reads. A [Tx] sees its own writes and those of the operations before
// it in the batch; the Querier of [DB.Read] sees one committed snapshot.
type Querier interface {
	// Query runs a statement that returns rows. Close the Rows, or read them
	// to the end, before the next statement.
	Query(sql string, args ...any) (*Rows, error)
	// QueryRow runs a statement of which the first row matters.
	// Its Scan returns [sql.ErrNoRows] if there is none.
	QueryRow(sql string, args ...any) *Row
}

// scope is what Tx and a snapshot share: statements on one session, at most
// one open Rows, and the rule that a failed statement spoils the rest.
type scope struct {
	// begin, if set, begins the snapshot with its first statement: who finds in
	// memory what it asks for needs none.
	begin func() (session, error)
	ctx   context.Context
	s     session
	open  *Rows
	err   error // first failure of a statement; spoils the scope
	done  bool  // the closure has returned
}

func (sc *scope) ready() error {
	switch {
	case sc.done:
		return ErrDone
	case sc.err != nil:
		return fmt.Errorf("store: an earlier statement failed: %w", sc.err)
	case sc.open != nil:
		return ErrRowsOpen
	}
	return nil
}

// fail notes that a statement failed and returns err with the statement.
func (sc *scope) fail(query string, err error) error {
	err = fmt.Errorf("store: %s: %w", excerpt(query), err)
	if sc.err == nil {
		sc.err = err
	}
	return err
}

func (sc *scope) Query(query string, args ...any) (*Rows, error) {
	if err := sc.ready(); err != nil {
		return nil, err
	}
	if sc.s == nil {
		s, err := sc.begin()
		if err != nil {
			return nil, sc.fail(query, err)
		}
		sc.s = s
	}
	rows, err := sc.s.query(sc.ctx, query, args)
	if err != nil {
		return nil, sc.fail(query, err)
	}
	r := &Rows{sc: sc, rows: rows, query: query}
	sc.open = r
	return r, nil
}

func (sc *scope) QueryRow(query string, args ...any) *Row {
	rows, err := sc.Query(query, args...)
	return &Row{rows: rows, err: err}
}

// finish ends the scope when the closure has returned.
func (sc *scope) finish() {
	sc.done = true
	if sc.open != nil {
		sc.open.Close()
	}
}

// Rows is the answer to a Query.
type Rows struct {
	sc    *scope
	rows  cursor
	query string
	err   error
}

// Next moves to the next row. False means the end, or a failure: see Err.
func (r *Rows) Next() bool {
	if r.rows.Next() {
		return true
	}
	r.note(r.rows.Err())
	r.release()
	return false
}

// Scan copies the row's columns into dest, as [sql.Rows.Scan] does.
func (r *Rows) Scan(dest ...any) error { return r.rows.Scan(dest...) }

// Err returns the failure that ended the rows early, if any.
func (r *Rows) Err() error { return r.err }

// Close ends the rows; closing again does nothing.
func (r *Rows) Close() error {
	r.note(r.rows.Close())
	r.release()
	return r.err
}

func (r *Rows) note(err error) {
	if err != nil && r.err == nil {
		r.err = r.sc.fail(r.query, err)
	}
}

func (r *Rows) release() {
	if r.sc.open == r {
		r.sc.open = nil
	}
}

// Row is the answer to a QueryRow.
type Row struct {
	rows *Rows
	err  error
}

// Scan copies the first row into dest, or returns [sql.ErrNoRows].
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	if !r.rows.Next() {
		if err := r.rows.Close(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	err := r.rows.Scan(dest...)
	return errors.Join(err, r.rows.Close())
}

// Tx is one operation of a batch. It is valid until the closure returns and
// must stay in the closure's goroutine.
type Tx struct {
	scope
	w          *writer
	onCommit   []func()
	onRollback []func()
	depth      int // of Try
}

// Exec runs a statement and returns how many rows it affected.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	if err := tx.ready(); err != nil {
		return 0, err
	}
	n, err := tx.s.exec(tx.ctx, query, args)
	if err != nil {
		return 0, tx.fail(query, err)
	}
	return n, nil
}

// OnCommit has f run by the writer goroutine once the operation is committed
// and synced: in commit order, and before Write returns. f must be quick and
// must not call Write.
func (tx *Tx) OnCommit(f func()) { tx.onCommit = append(tx.onCommit, f) }

// OnRollback has f run by the writer goroutine if the operation or its batch
// fails, before any other operation runs and before Write returns; the last
// registered runs first.
func (tx *Tx) OnRollback(f func()) { tx.onRollback = append(tx.onRollback, f) }

// NextFeed returns the next number of the feed: larger than all before, with
// gaps where operations failed. See the package documentation.
func (tx *Tx) NextFeed() int64 { return tx.w.nextFeed() }

// Try runs f in a savepoint of its own: if f or a statement in it fails, what
// it wrote is undone, its hooks are dropped (OnRollback hooks run), and the
// operation can go on. Try returns f's error or that of the statement.
func (tx *Tx) Try(f func() error) error {
	if err := tx.ready(); err != nil {
		return err
	}
	tx.depth++
	defer func() { tx.depth-- }()
	name := fmt.Sprintf("try%d", tx.depth)
	commits, rollbacks := len(tx.onCommit), len(tx.onRollback)
	if err := tx.s.command(tx.ctx, "SAVEPOINT "+name); err != nil {
		return tx.fail("SAVEPOINT", err)
	}
	err := f()
	if tx.open != nil {
		tx.open.Close()
	}
	if err == nil {
		err = tx.err
	}
	if err != nil {
		if rerr := tx.s.command(tx.ctx, "ROLLBACK TO "+name); rerr != nil {
			return errors.Join(err, tx.fail("ROLLBACK TO", rerr))
		}
		tx.err = nil
		undo := tx.onRollback[rollbacks:]
		tx.onCommit, tx.onRollback = tx.onCommit[:commits], tx.onRollback[:rollbacks:rollbacks]
		tx.w.runHooksReversed(undo)
	}
	if rerr := tx.s.command(tx.ctx, "RELEASE "+name); rerr != nil {
		return errors.Join(err, tx.fail("RELEASE", rerr))
	}
	return err
}

// Scanner is a row that is to be read: a [Row], or [Rows] at one of theirs.
type Scanner interface{ Scan(dest ...any) error }

// Each runs a query and calls f for each of its rows.
func Each(q Querier, f func(Scanner) error, query string, args ...any) error {
	rows, err := q.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// List runs a query and reads each of its rows by scan.
func List[T any](q Querier, scan func(Scanner) (T, error), query string, args ...any) (out []T, err error) {
	err = Each(q, func(s Scanner) error {
		v, err := scan(s)
		if err == nil {
			out = append(out, v)
		}
		return err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Column reads a row of one column.
func Column[T any](s Scanner) (v T, err error) { return v, s.Scan(&v) }
