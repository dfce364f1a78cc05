package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// sqlitePragmas are set on every connection, in this order. FULL makes a
// commit in WAL mode wait for the fsync of the log.
var sqlitePragmas = []string{
	"busy_timeout=10000",
	"journal_mode=wal",
	"synchronous=full",
	"foreign_keys=on",
	"temp_store=memory",
	"cache_size=-16384",           // KiB
	"journal_size_limit=67108864", // bytes
	// Pages. Each checkpoint writes every page once that was changed since the
	// last, so a rarer one writes less; 32 MiB of log are read in a moment when
	// a database is opened after a crash.
	"wal_autocheckpoint=8192",
	"case_sensitive_like=on",
}

// sqliteDB is the embedded database: one connection that writes, a few that
// read, and a lock file beside it.
type sqliteDB struct {
	d       *dialect
	dsn     string
	path    string
	opts    *Options
	lock    *os.File
	readers chan session  // idle readers
	spare   chan struct{} // permits to open further readers
	closed  chan struct{}
}

func openSQLite(ctx context.Context, path string, opts *Options) (backend, error) {
	if path == "" {
		return nil, errors.New("store: SQLite needs a path")
	}
	path, err := resolve(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if opts.VFS != "" {
		query.Set("vfs", opts.VFS)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	b := &sqliteDB{
		d: newDialect(kindSQLite), dsn: dsn.String(), path: path, opts: opts, lock: lock,
		readers: make(chan session, opts.Readers),
		spare:   make(chan struct{}, opts.Readers),
		closed:  make(chan struct{}),
	}
	for range opts.Readers {
		b.spare <- struct{}{}
	}
	return b, nil
}

// resolve makes path absolute and follows links, so that two names of one
// database get one lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// lockFile takes the exclusive lock that the kernel drops when we die, and
// writes who we are into the file for the error message of others.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 128)
		n, _ := f.ReadAt(holder, 0)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LeaseHeldError{Holder: strings.TrimSpace(string(holder[:n]))}
		}
		return nil, fmt.Errorf("store: locking %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "process %d\n", os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("store: writing %s: %w", path, err)
	}
	return f, nil
}

func setPragmas(c *sqlite3.Conn, more []string) error {
	for _, list := range [][]string{sqlitePragmas, more} {
		for _, p := range list {
			if err := c.Exec("PRAGMA " + p); err != nil {
				return fmt.Errorf("PRAGMA %s: %w", p, err)
			}
		}
	}
	stmt, _, err := c.Prepare("PRAGMA journal_mode")
	if err != nil {
		return err
	}
	defer stmt.Close()
	if stmt.Step() && stmt.ColumnText(0) != "wal" {
		return fmt.Errorf("journal mode is %q, not wal: the file system cannot hold this database", stmt.ColumnText(0))
	}
	return stmt.Err()
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (b *sqliteDB) dialect() *dialect                    { return b.d }
func (b *sqliteDB) beginWrite() string                   { return "BEGIN IMMEDIATE" }
func (b *sqliteDB) fence(context.Context, session) error { return nil }
func (b *sqliteDB) idle(context.Context, session) error  { return nil }
func (b *sqliteDB) idleEvery() time.Duration             { return 0 }

func (b *sqliteDB) open(ctx context.Context) (session, error) {
	conn, err := sqlite3.OpenContext(ctx, b.dsn)
	if err == nil {
		if err = setPragmas(conn, b.opts.Pragmas); err != nil {
			err = errors.Join(err, conn.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store: opening %s: %w", b.path, err)
	}
	return &sqliteSession{conn: conn, d: b.d, stmts: make(map[string]*sqliteStmt)}, nil
}

// openWriter opens the connection and then syncs the directory. SQLite means
// to do that when it creates the log, but the driver's file layer (v0.33.0,
// vfsFile.Sync) syncs the file a second time in its place, so without this a
// power cut could take away the name of the log and all that is in it. The log
// is created with the first connection and lives as long as there is one.
func (b *sqliteDB) openWriter(ctx context.Context) (session, error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	for _, stmt := range []string{"BEGIN IMMEDIATE", "ROLLBACK"} { // so that the log exists
		if err := s.command(ctx, stmt); err != nil {
			s.discard()
			return nil, fmt.Errorf("store: opening %s: %w", b.path, err)
		}
	}
	if err := b.opts.SyncDir(filepath.Dir(b.path)); err != nil {
		s.discard()
		return nil, fmt.Errorf("store: syncing the directory of %s: %w", b.path, err)
	}
	return s, nil
}

func (b *sqliteDB) acquire(ctx context.Context) (s session, err error) {
	select {
	case s = <-b.readers:
	default:
		select {
		case s = <-b.readers:
		case <-b.spare:
			if s, err = b.openReader(ctx); err != nil {
				b.spare <- struct{}{}
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-b.closed:
			return nil, ErrClosed
		}
	}
	if err := s.command(ctx, "BEGIN"); err != nil {
		b.retire(s)
		return nil, err
	}
	return s, nil
}

func (b *sqliteDB) openReader(ctx context.Context) (session, error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.command(ctx, "PRAGMA query_only=on"); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

func (b *sqliteDB) release(s session) {
	if err := s.command(context.Background(), "ROLLBACK"); err != nil {
		b.retire(s)
		return
	}
	b.readers <- s
}

func (b *sqliteDB) retire(s session) {
	s.discard()
	b.spare <- struct{}{}
}

// close is called by the writer with its session when it ends, and by
// DB.Close for the rest.
func (b *sqliteDB) close(_ context.Context, s session) error {
	if s != nil {
		s.discard()
		return nil
	}
	close(b.closed)
	for range b.opts.Readers { // wait until every reader is back
		select {
		case r := <-b.readers:
			r.discard()
		case <-b.spare:
		}
	}
	return b.lock.Close()
}
