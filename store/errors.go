package store

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"
)

var (
	// ErrClosed is returned for operations on a closed DB.
	ErrClosed = errors.New("store: database is closed")
	// ErrRowsOpen is returned for a statement while Rows of the same Tx or
	// snapshot are open.
	ErrRowsOpen = errors.New("store: rows of an earlier query are still open")
	// ErrDone is returned for the use of a Tx or Querier after its closure
	// has returned.
	ErrDone = errors.New("store: used after its closure returned")
	// ErrLeaseLost is returned by every Write once another process has taken
	// over the database. The process should exit.
	ErrLeaseLost = errors.New("store: another process has taken over the database")
	// ErrInDoubt is returned by Write when the connection broke or the disk
	// failed during the commit, so that the operation may or may not have
	// become durable.
	ErrInDoubt = errors.New("store: commit failed with unknown outcome")

	errDiscard = driver.ErrBadConn
)

// LeaseHeldError is returned by Open while another process has the database.
type LeaseHeldError struct {
	Holder    string        // host, process and start of the holder, as far as known
	Remaining time.Duration // until the lease expires if not renewed; 0 for a file lock
}

func (e *LeaseHeldError) Error() string {
	if e.Remaining > 0 {
		return fmt.Sprintf("store: database is in use by %s (lease expires in %s unless renewed)",
			e.Holder, e.Remaining.Round(time.Second))
	}
	return fmt.Sprintf("store: database is in use by %s", e.Holder)
}

// PanicError is what Write returns when its closure panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("store: operation panicked: %v", e.Value) }

// NotFound reports whether err says that a row was looked for and is not there.
func NotFound(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// IsUnique reports whether err is a violation of a UNIQUE or PRIMARY KEY
// constraint.
func IsUnique(err error) bool {
	if errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) || errors.Is(err, sqlite3.CONSTRAINT_PRIMARYKEY) ||
		errors.Is(err, sqlite3.CONSTRAINT_ROWID) {
		return true
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" // unique_violation
}
