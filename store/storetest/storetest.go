// Package storetest runs a test on both databases that package store speaks:
// SQLite in a temporary directory, and a private PostgreSQL server that listens
// on a Unix socket only and is shared by all tests of the process, each with a
// fresh database. The server is Debian's package; where it is missing, tests
// fail and say so.
package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that makes the databases

	"parley/store"
)

// Each runs f on SQLite and on PostgreSQL, as subtests of those names.
func Each(t *testing.T, f func(t *testing.T, db *store.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) { f(t, Open(t, url, store.Options{})) })
}

// EachURL runs f with the URL of a fresh database of either kind, for tests
// that open and close it themselves.
func EachURL(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, Postgres(t)) })
}

// Open opens the database at url and closes it when the test ends.
func Open(t testing.TB, url string, opts store.Options) *store.DB {
	t.Helper()
	db, err := store.OpenOptions(context.Background(), url, Log(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// Log is a logger that writes to the log of the test.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// SQLite returns the URL of a fresh SQLite database.
func SQLite(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "parley.db")
}

var databases atomic.Int64

// Postgres returns the URL of a fresh PostgreSQL database, which is dropped
// when the test ends. Its collation is that of a language, so that a query
// that does not compare byte by byte is found out.
func Postgres(t testing.TB) string {
	t.Helper()
	srv, err := server()
	if err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	name := fmt.Sprintf("t%d", databases.Add(1))
	if err := srv.exec("CREATE DATABASE " + name); err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := srv.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("PostgreSQL: %v", err)
		}
	})
	return srv.url(name)
}

// postgres is the server of this process.
type postgres struct {
	dir   string
	admin *sql.DB
	life  io.Closer // the server lives until this is closed
}

// server starts the server on first use. It stops when this process ends,
// however that happens: see guard.
var server = sync.OnceValues(startServer)

// errMissing says how to get the server.
var errMissing = errors.New("initdb not found: install Debian's postgresql with scripts/install-test-deps.sh, or set PARLEY_TEST_PGBIN")

// binDir finds the server's programs, which Debian keeps out of PATH.
func binDir() (string, error) {
	if dir := os.Getenv("PARLEY_TEST_PGBIN"); dir != "" {
		return dir, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errMissing
	}
	return filepath.Dir(found[len(found)-1]), nil
}

func startServer() (*postgres, error) {
	bin, err := binDir()
	if err != nil {
		return nil, err
	}
	// A short path: a socket's may not exceed 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "parley-pg-")
	if err != nil {
		return nil, err
	}
	cred, err := credential(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "parley", "-A", "trust", "-E", "UTF8",
		"--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US", "--no-sync", "--no-instructions")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: cred}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	srv := &postgres{dir: dir}
	if srv.life, err = guard(bin, dir, data, cred); err != nil {
		return nil, err
	}
	if srv.admin, err = sql.Open("pgx", srv.url("postgres")); err != nil {
		return nil, err
	}
	return srv, srv.admin.Ping()
}

// credential gives dir to the user who may run the server: PostgreSQL refuses
// to run as root.
func credential(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("running as root needs the user postgres of Debian's package: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

// guardScript starts the server, says so, and waits for the end of its input,
// which comes when the test process ends, be it by SIGKILL; then it stops the
// server and removes its files.
const guardScript = `
trap '' INT TERM HUP
"$1/pg_ctl" -D "$3" -w -s -l "$2/log" -o "-c listen_addresses='' -c unix_socket_directories='$2' -c shared_buffers=16MB -c max_connections=200" start >&2 </dev/null || { cat "$2/log" >&2; exit 1; }
echo started
cat >/dev/null
"$1/pg_ctl" -D "$3" -w -s -m immediate stop >&2
cd / && rm -rf "$2"
`

func guard(bin, dir, data string, cred *syscall.Credential) (life io.Closer, err error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "sh", bin, dir, data)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setsid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if life, err = cmd.StdinPipe(); err != nil { // never written, closed by our end
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(out, make([]byte, len("started\n"))); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the server: %w", err), cmd.Wait(), errors.New(stderr.String()))
	}
	return life, nil
}

func (p *postgres) exec(stmt string) error {
	_, err := p.admin.Exec(stmt)
	return err
}

func (p *postgres) url(database string) string {
	q := url.Values{"host": {p.dir}, "user": {"parley"}, "sslmode": {"disable"}}
	return "postgres:///" + database + "?" + q.Encode()
}
