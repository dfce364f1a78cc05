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

// session is one database connection with its prepared statements.
// It is used by one goroutine at a time.
type session struct {
	conn *sql.Conn
	d    *dialect
	// stmts is nil where the driver caches prepared statements itself (pgx).
	stmts map[string]*sql.Stmt
}

// maxStmts bounds the prepared statements of a session.
const maxStmts = 256

// discard closes the connection without giving it back to a pool. An open
// transaction on it ends without effect.
func (s *session) discard() {
	for _, stmt := range s.stmts {
		stmt.Close()
	}
	// The error is how database/sql is told to drop the connection.
	_ = s.conn.Raw(func(any) error { return errDiscard })
	_ = s.conn.Close()
}

// prepare returns the cached statement for query, already in the spelling of
// the database.
func (s *session) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := s.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := s.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if len(s.stmts) >= maxStmts {
		for q, old := range s.stmts {
			old.Close()
			delete(s.stmts, q)
			break
		}
	}
	s.stmts[query] = stmt
	return stmt, nil
}

func (s *session) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	query, args, err := s.rewrite(query, args)
	if err != nil {
		return nil, err
	}
	if s.stmts == nil {
		return s.conn.QueryContext(ctx, query, args...)
	}
	stmt, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

func (s *session) exec(ctx context.Context, query string, args []any) (int64, error) {
	query, args, err := s.rewrite(query, args)
	if err != nil {
		return 0, err
	}
	var res sql.Result
	if s.stmts == nil {
		res, err = s.conn.ExecContext(ctx, query, args...)
	} else {
		var stmt *sql.Stmt
		if stmt, err = s.prepare(ctx, query); err == nil {
			res, err = stmt.ExecContext(ctx, args...)
		}
	}
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *session) rewrite(query string, args []any) (string, []any, error) {
	query, err := s.d.rewrite(query)
	if err != nil {
		return "", nil, err
	}
	args, err = convertArgs(args)
	return query, args, err
}

// command runs a statement of our own that takes no arguments and is not
// worth preparing, such as BEGIN.
func (s *session) command(ctx context.Context, query string) error {
	_, err := s.conn.ExecContext(ctx, query)
	return err
}

// scope is what Tx and a snapshot share: statements on one session, at most
// one open Rows, and the rule that a failed statement spoils the rest.
type scope struct {
	ctx  context.Context
	s    *session
	open *Rows
	err  error // first failure of a statement; spoils the scope
	done bool  // the closure has returned
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
	rows  *sql.Rows
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
