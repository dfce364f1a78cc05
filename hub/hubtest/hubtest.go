// Package hubtest makes hubs on real stores for the tests of the packages that
// use a hub.
package hubtest

import (
	"context"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/store/storetest"
)

// Domain is the domain of the hubs that New makes.
const Domain = "example.org"

// Password is that of every account that Account makes.
const Password = "correct horse battery"

// New makes a hub on a fresh SQLite database. Call Start yourself, after
// adding mirrors and carriers.
func New(t testing.TB, change ...func(*hub.Config)) (*hub.Hub, *store.DB) {
	t.Helper()
	db := storetest.Open(t, storetest.SQLite(t), store.Options{})
	return On(t, db, change...), db
}

// On makes a hub on a database.
func On(t testing.TB, db *store.DB, change ...func(*hub.Config)) *hub.Hub {
	t.Helper()
	s, err := hubstore.New(context.Background(), db)
	if err != nil {
		t.Fatal(err)
	}
	cfg := hub.Config{Domains: []string{Domain}, Registration: "open"}
	for _, f := range change {
		f(&cfg)
	}
	h := hub.New(cfg, s, storetest.Log(t), nil)
	t.Cleanup(h.Stop)
	return h
}

// Account makes an account and returns its address.
func Account(t testing.TB, h *hub.Hub, name string) core.Address {
	t.Helper()
	a := core.LocalAddress(name, Domain)
	if err := h.CreateAccount(context.Background(), a, Password); err != nil {
		t.Fatal(err)
	}
	return a
}
