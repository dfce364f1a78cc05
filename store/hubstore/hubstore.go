// Package hubstore keeps what the hub knows in the tables of package store: it
// implements [hub.Store], one file for each part of that interface.
//
// It holds in memory what every event asks for: conversations and their current
// state, for the writer what it has done, for readers what is committed; and for
// the writer alone the directs of pairs and how far the orders have got. A value
// in memory is never changed, only replaced, and forgotten when the turn that
// wrote it is undone.
package hubstore

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store implements [hub.Store].
type Store struct {
	db *store.DB

	// written belongs to the writer; committed is what readers see.
	written   map[core.ConvID]*core.State
	committed sync.Map // of core.ConvID to *core.State

	// Likewise of conversations; and what only the writer remembers.
	conversations memory[core.ConvID, core.Conversation]
	known         sync.Map // of core.ConvID to core.Conversation
	directs       memory[couple, []core.ConvID]
	edges         memory[core.ConvID, edge]
}

// New brings the hub's tables up to date and returns the store on them.
func New(ctx context.Context, db *store.DB) (*Store, error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "hub", dir); err != nil {
		return nil, fmt.Errorf("migrating the hub's tables: %w", err)
	}
	return &Store{
		db: db, written: map[core.ConvID]*core.State{},
		conversations: memory[core.ConvID, core.Conversation]{},
		directs:       memory[couple, []core.ConvID]{},
		edges:         memory[core.ConvID, edge]{},
	}, nil
}

// Write implements [hub.Store].
func (s *Store) Write(ctx context.Context, f func(hub.Tx) error) error {
	return s.db.Write(ctx, func(sqlTx *store.Tx) error {
		return f(&tx{view: view{q: sqlTx, s: s, writer: true}, tx: sqlTx})
	})
}

// Read implements [hub.Store].
func (s *Store) Read(ctx context.Context, f func(hub.View) error) error {
	return s.db.Read(ctx, func(q store.Querier) error { return f(&view{q: q, s: s}) })
}

// view implements [hub.View].
type view struct {
	q      store.Querier
	s      *Store
	writer bool
}

// tx implements [hub.Tx].
type tx struct {
	view
	tx *store.Tx
}

// Querier returns what a view of this package reads by, for the tables that
// are a protocol's own. It panics for any other hub.View.
func Querier(v hub.View) store.Querier {
	switch v := v.(type) {
	case *view:
		return v.q
	case *tx:
		return v.tx
	}
	panic(fmt.Sprintf("hubstore: a %T is none of this package's views", v))
}

// Tx returns what a hub.Tx of this package writes by, likewise.
func Tx(t hub.Tx) *store.Tx {
	if t, ok := t.(*tx); ok {
		return t.tx
	}
	panic(fmt.Sprintf("hubstore: a %T is none of this package's transactions", t))
}

func (t *tx) NextFeed() core.Feed { return core.Feed(t.tx.NextFeed()) }
func (t *tx) OnCommit(f func())   { t.tx.OnCommit(f) }
func (t *tx) OnRollback(f func()) { t.tx.OnRollback(f) }

func (v *view) LastFeed() (core.Feed, error) {
	n, err := store.FeedPosition(v.q)
	return core.Feed(n), err
}

func (v *view) Setting(key string) ([]byte, error) {
	return one[[]byte](v.q, `SELECT value FROM settings WHERE key = $1`, key)
}

func (t *tx) SetSetting(key string, value []byte) error {
	return t.exec(`INSERT INTO settings (key, value) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.tx.Exec(query, args...)
	return err
}

// noRow turns the database's word for "nothing" into the hub's.
func noRow(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return hub.ErrNone
	}
	return err
}

// one reads one column of one row.
func one[T any](q store.Querier, query string, args ...any) (v T, err error) {
	return v, noRow(q.QueryRow(query, args...).Scan(&v))
}

// address scans a row of one address.
func address(s store.Scanner) (core.Address, error) {
	text, err := store.Column[string](s)
	if err != nil {
		return core.Address{}, err
	}
	return core.ParseAddress(text)
}

// fromJSON scans a row of one JSON column.
func fromJSON[T any](s store.Scanner) (v T, err error) {
	data, err := store.Column[[]byte](s)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(data, &v)
}

// addr reads an address column that may be empty.
func addr(text string) (a core.Address, err error) {
	return a, a.UnmarshalText([]byte(text))
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
