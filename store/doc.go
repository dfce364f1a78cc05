// Package store is the cellar of Parley: it keeps rows, on SQLite by default
// and on PostgreSQL by configuration, behind one small SQL dialect. It knows
// no table of anybody else: each package that keeps something registers its
// own numbered migrations ([DB.Migrate]) and writes its own queries.
//
// # Writing
//
// One goroutine per [DB] writes. [DB.Write] hands it a closure; the writer
// collects what is queued into one transaction, runs every closure inside a
// savepoint of its own, commits once (one fsync for all of them), runs the
// OnCommit hooks in commit order, and only then do the Writes return. So nil
// from Write means "on disk", and one failing or panicking closure fails only
// itself. A closure must be quick, must use nothing but its [Tx], and must not
// call Write (it would wait for itself).
//
// A statement that fails spoils its closure: every later statement of it
// fails too and the closure is rolled back even if it returns nil, because
// that is what PostgreSQL does. To survive an expected failure use
// ON CONFLICT, or wrap the attempt in [Tx.Try].
//
// # Reading
//
// [DB.Read] gives a read-only snapshot of committed data. At most one [Rows]
// may be open at a time in a snapshot or a Tx ([ErrRowsOpen] otherwise),
// because a PostgreSQL connection answers one query at a time. Do not nest
// Read in Read: the pool of readers is small.
//
// # The feed
//
// [Tx.NextFeed] numbers what this server learnt, in the order in which it
// learnt it. Numbers are assigned only by the writer, within one transaction
// after the other, so a reader never sees a number while a smaller one is
// uncommitted. [FeedPosition] tells the highest number a snapshot contains.
//
// # The dialect
//
// Write for PostgreSQL, in the part of it that SQLite shares:
//
//   - Placeholders are $1, $2, …; a number may appear repeatedly and in any
//     order. A bare ? is refused.
//   - Column types in migrations are BIGINT (64-bit signed), TEXT (valid
//     UTF-8 without NUL, compared byte by byte) and BLOB (any bytes); nothing
//     else. They become INTEGER, TEXT and BLOB in a STRICT table on SQLite, and
//     BIGINT, TEXT COLLATE "C" and BYTEA on PostgreSQL. A BIGINT PRIMARY KEY
//     is SQLite's rowid; always give its value, there are no serial columns.
//     WITHOUT ROWID after a table of small rows keeps them in the tree of its
//     primary key on SQLite, and means nothing on PostgreSQL.
//   - Truth is BIGINT 0 or 1 (a Go bool argument becomes that, and scans
//     back); a moment is BIGINT, microseconds or whatever unit the column says
//     (a time.Time argument is refused).
//   - Content from outside is BLOB and []byte: a NUL is legal there. A string
//     argument with a NUL or invalid UTF-8 is refused on both databases. A
//     string is never equal to a BLOB: pass the Go type that the column has.
//   - A bytes literal is X'00ff'; CAST(… AS BLOB) is rewritten.
//   - ON CONFLICT … DO NOTHING / DO UPDATE, RETURNING, WITH, window functions
//     and LIMIT $n are shared. Not shared, so not used: INSERT OR …, IFNULL,
//     scalar max(), LIKE without regard to case, triggers, :: casts, $$ quotes,
//     [x] and `x`, and nested comments. Say NULLS FIRST or LAST where it
//     matters. A parameter whose type cannot be inferred needs a CAST.
package store
