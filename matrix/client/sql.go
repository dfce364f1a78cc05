package client

import (
	"crypto/sha256"
	"embed"
	"io/fs"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Owner names this package's tables to store.DB.Migrate.
const Owner = "matrix-client"

// Migrations are the files for store.DB.Migrate.
func Migrations() fs.FS {
	f, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		panic(err) // the directory is in the program
	}
	return f
}

// rows runs a query and calls f for each of its rows.
func rows(v hub.View, f func(scan func(...any) error) error, query string, args ...any) error {
	return hubstore.Rows(v, f, query, args...)
}

// row reads one row into dest; found is false where there is none.
func row(v hub.View, dest []any, query string, args ...any) (found bool, err error) {
	return hubstore.Row(v, dest, query, args...)
}

// exec runs a statement and says how many rows it touched.
func exec(tx hub.Tx, query string, args ...any) (int64, error) {
	return hubstore.Exec(tx, query, args...)
}

// column reads a column of text.
func column(v hub.View, query string, args ...any) (out []string, err error) {
	return store.List(hubstore.Querier(v), store.Column[string], query, args...)
}

// into is for row.
func into(dest ...any) []any { return dest }

func now() time.Time { return time.Now().UTC() }

// digest is the form in which secrets are kept.
func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// textual reports whether a string from outside can be kept in a TEXT column.
func textual(ss ...string) bool {
	for _, s := range ss {
		if len(s) > maxTextual {
			return false
		}
		for i := range len(s) {
			if s[i] == 0 {
				return false
			}
		}
	}
	return true
}

// maxTextual is the longest identifier from outside, in bytes.
const maxTextual = 255

// key is the form in which tables of this package name an account.
func key(a core.Address) string { return a.String() }
