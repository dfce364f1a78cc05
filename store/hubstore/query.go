package hubstore

import (
	"parley/hub"
	"parley/store"
)

// Rows runs a query on a protocol's own tables and calls f for each of its rows.
func Rows(v hub.View, f func(scan func(...any) error) error, query string, args ...any) error {
	return store.Each(Querier(v), func(row store.Scanner) error { return f(row.Scan) }, query, args...)
}

// Row reads one row of a protocol's own tables into dest; found is false where
// there is none.
func Row(v hub.View, dest []any, query string, args ...any) (found bool, err error) {
	err = Querier(v).QueryRow(query, args...).Scan(dest...)
	if store.NotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Exec runs a statement on a protocol's own tables and says how many rows it
// touched.
func Exec(t hub.Tx, query string, args ...any) (int64, error) { return Tx(t).Exec(query, args...) }
