package store

import (
	"context"
	"database/sql"
)

// session is one database connection with its prepared statements. It is used
// by one goroutine at a time.
type session interface {
	// query and exec run one statement of the dialect. The context must not
	// end before the cursor is closed.
	query(ctx context.Context, query string, args []any) (cursor, error)
	exec(ctx context.Context, query string, args []any) (affected int64, err error)
	// command runs a statement of our own that takes no arguments, in the
	// spelling of the database, such as BEGIN.
	command(ctx context.Context, query string) error
	// discard closes the connection without giving it back to a pool. An open
	// transaction on it ends without effect.
	discard()
}

// cursor walks over the answer to a query, as [sql.Rows] does.
type cursor interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// sqlSession is a session on a driver of database/sql that caches prepared
// statements itself, as pgx does.
type sqlSession struct {
	conn *sql.Conn
	d    *dialect
}

func (s *sqlSession) discard() {
	// The error is how database/sql is told to drop the connection.
	_ = s.conn.Raw(func(any) error { return errDiscard })
	_ = s.conn.Close()
}

func (s *sqlSession) query(ctx context.Context, query string, args []any) (cursor, error) {
	rows, err := s.rows(ctx, query, args)
	if err != nil {
		return nil, err // and no cursor that holds a nil
	}
	return rows, nil
}

func (s *sqlSession) rows(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	query, args, err := s.rewrite(query, args)
	if err != nil {
		return nil, err
	}
	return s.conn.QueryContext(ctx, query, args...)
}

func (s *sqlSession) exec(ctx context.Context, query string, args []any) (int64, error) {
	query, args, err := s.rewrite(query, args)
	if err != nil {
		return 0, err
	}
	res, err := s.conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *sqlSession) rewrite(query string, args []any) (string, []any, error) {
	query, err := s.d.rewrite(query)
	if err != nil {
		return "", nil, err
	}
	args, err = convertArgs(args)
	return query, args, err
}

func (s *sqlSession) command(ctx context.Context, query string) error {
	_, err := s.conn.ExecContext(ctx, query)
	return err
}
