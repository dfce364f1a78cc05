package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"

	"github.com/ncruces/go-sqlite3"
)

// sqliteSession is a session on SQLite's own interface: database/sql above it
// would take a third of the time of a short statement.
type sqliteSession struct {
	conn  *sqlite3.Conn
	d     *dialect
	stmts map[string]*sqliteStmt // by the statement in the dialect's spelling
}

// maxStmts bounds the prepared statements of a session.
const maxStmts = 256

// maxBound is how many bytes of arguments a statement keeps while it is idle.
const maxBound = 4 << 10

// sqliteStmt is a prepared statement.
type sqliteStmt struct {
	*sqlite3.Stmt
	params, columns int
}

func (s *sqliteSession) discard() {
	for _, stmt := range s.stmts {
		_ = stmt.Close()
	}
	_ = s.conn.Close() // rolls back
}

// prepare returns the statement for query, from memory where it is there.
func (s *sqliteSession) prepare(query string) (*sqliteStmt, error) {
	if stmt, ok := s.stmts[query]; ok {
		return stmt, nil
	}
	spelled, err := s.d.rewrite(query)
	if err != nil {
		return nil, err
	}
	stmt, tail, err := s.conn.PrepareFlags(spelled, sqlite3.PREPARE_PERSISTENT)
	if err != nil {
		return nil, err
	}
	if stmt == nil || tail != "" {
		return nil, errors.Join(errors.New("not one statement"), stmt.Close())
	}
	if len(s.stmts) >= maxStmts {
		for q, old := range s.stmts {
			_ = old.Close()
			delete(s.stmts, q)
			break
		}
	}
	st := &sqliteStmt{Stmt: stmt, params: stmt.BindCount(), columns: stmt.ColumnCount()}
	s.stmts[query] = st
	return st, nil
}

// start prepares a statement and gives it its arguments.
func (s *sqliteSession) start(ctx context.Context, query string, args []any) (*sqliteStmt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st, err := s.prepare(query)
	if err != nil {
		return nil, err
	}
	s.conn.SetInterrupt(ctx)
	return st, st.bind(args)
}

func (s *sqliteSession) query(ctx context.Context, query string, args []any) (cursor, error) {
	st, err := s.start(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return &sqliteRows{ctx: ctx, st: st, large: large(args)}, nil
}

func (s *sqliteSession) exec(ctx context.Context, query string, args []any) (int64, error) {
	st, err := s.start(ctx, query, args)
	if err != nil {
		return 0, err
	}
	err = st.Exec()
	if large(args) {
		err = errors.Join(err, st.ClearBindings())
	}
	if err != nil {
		return 0, interrupted(ctx, err)
	}
	return s.conn.Changes(), nil
}

func (s *sqliteSession) command(ctx context.Context, query string) error {
	switch query {
	case "BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "SAVEPOINT op", "ROLLBACK TO op", "RELEASE op":
		_, err := s.exec(ctx, query, nil)
		return err
	}
	s.conn.SetInterrupt(ctx)
	return interrupted(ctx, s.conn.Exec(query))
}

// interrupted says for which reason a statement was interrupted.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// large reports whether arguments are not to be kept.
func large(args []any) bool {
	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			if len(v) > maxBound {
				return true
			}
		case []byte:
			if len(v) > maxBound {
				return true
			}
		}
	}
	return false
}

// bind gives the statement its arguments.
func (st *sqliteStmt) bind(args []any) error {
	if len(args) != st.params {
		return fmt.Errorf("store: the statement has %d placeholders, and there are %d arguments", st.params, len(args))
	}
	for i, arg := range args {
		v, err := convert(arg)
		if err != nil {
			return fmt.Errorf("store: argument $%d (%T): %w", i+1, arg, err)
		}
		switch v := v.(type) {
		case int64:
			err = st.BindInt64(i+1, v)
		case string:
			err = st.BindText(i+1, v)
		case []byte:
			err = st.BindBlob(i+1, v)
		case nil:
			err = st.BindNull(i + 1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sqliteRows implements cursor.
type sqliteRows struct {
	ctx    context.Context
	st     *sqliteStmt
	large  bool
	closed bool
	err    error
}

// Next implements cursor.
func (r *sqliteRows) Next() bool {
	if r.closed {
		return false
	}
	if r.st.Step() {
		return true
	}
	r.err = interrupted(r.ctx, r.st.Err())
	_ = r.Close()
	return false
}

// Err implements cursor.
func (r *sqliteRows) Err() error { return r.err }

// Close implements cursor. Errors of the statement are those of Next.
func (r *sqliteRows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.st.Reset()
	if r.large {
		_ = r.st.ClearBindings()
	}
	if r.err != nil {
		return nil
	}
	return err
}

// Scan implements cursor.
func (r *sqliteRows) Scan(dest ...any) error {
	if r.closed {
		return errors.New("store: there is no row to scan")
	}
	if len(dest) != r.st.columns {
		return fmt.Errorf("store: %d columns for %d destinations", r.st.columns, len(dest))
	}
	for i, d := range dest {
		if err := r.column(i, d); err != nil {
			return fmt.Errorf("store: column %d: %w", i+1, err)
		}
	}
	return nil
}

// column copies one column to where the common kinds of pointers point.
func (r *sqliteRows) column(i int, dest any) error {
	typ := r.st.ColumnType(i)
	switch d := dest.(type) {
	case *string:
		if typ == sqlite3.TEXT || typ == sqlite3.BLOB {
			*d = r.st.ColumnText(i)
			return nil
		}
	case *[]byte:
		if typ == sqlite3.TEXT || typ == sqlite3.BLOB {
			*d = r.st.ColumnBlob(i, []byte{})
			return nil
		}
	case *int64:
		if typ == sqlite3.INTEGER {
			*d = r.st.ColumnInt64(i)
			return nil
		}
	}
	return assign(dest, r.value(i, typ))
}

// value is a column as database/sql has it.
func (r *sqliteRows) value(i int, typ sqlite3.Datatype) driver.Value {
	switch typ {
	case sqlite3.INTEGER:
		return r.st.ColumnInt64(i)
	case sqlite3.FLOAT:
		return r.st.ColumnFloat(i)
	case sqlite3.TEXT:
		return r.st.ColumnText(i)
	case sqlite3.BLOB:
		return r.st.ColumnBlob(i, []byte{})
	}
	return nil
}

// assign is for the kinds of destinations that are left: named types, scanners,
// and pointers for what may be NULL.
func assign(dest any, v driver.Value) error {
	switch d := dest.(type) {
	case sql.Scanner:
		return d.Scan(v)
	case *any:
		*d = v
		return nil
	case *[]byte:
		if v == nil {
			*d = nil
			return nil
		}
	}
	p := reflect.ValueOf(dest)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("cannot scan into a %T", dest)
	}
	if assignTo(p.Elem(), v) {
		return nil
	}
	return fmt.Errorf("cannot scan a %T into a %T", v, dest)
}

func assignTo(to reflect.Value, v driver.Value) bool {
	if to.Kind() == reflect.Pointer {
		if v == nil {
			to.SetZero()
			return true
		}
		to.Set(reflect.New(to.Type().Elem()))
		return assignTo(to.Elem(), v)
	}
	switch v := v.(type) {
	case int64:
		switch {
		case to.CanInt() && !to.OverflowInt(v):
			to.SetInt(v)
			return true
		case to.CanUint() && v >= 0 && !to.OverflowUint(uint64(v)):
			to.SetUint(uint64(v))
			return true
		case to.Kind() == reflect.Bool && (v == 0 || v == 1):
			to.SetBool(v == 1)
			return true
		}
	case string:
		if to.Kind() == reflect.String {
			to.SetString(v)
			return true
		}
	case []byte:
		if to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8 {
			to.SetBytes(v)
			return true
		}
	}
	return false
}
