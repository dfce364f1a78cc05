package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"parley/config"
	"parley/core"
	"parley/hub"
	"parley/store/hubstore"
)

// openHub makes the hub on the database.
func (s *server) openHub(ctx context.Context) error {
	st, err := hubstore.New(ctx, s.db)
	if err != nil {
		return fmt.Errorf("preparing the database: %w", err)
	}
	s.hub = hub.New(hubConfig(s.cfg), st, s.log, s.metrics)
	return nil
}

// openAccounts opens the database for account commands while no server runs.
// closeFn must be called at the end.
func openAccounts(ctx context.Context, cfg *config.Config, log *slog.Logger) (acc accounts, closeFn func() error, err error) {
	db, err := openStore(ctx, cfg, log)
	if err != nil {
		return nil, nil, err
	}
	st, err := hubstore.New(ctx, db)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("preparing the database: %w", err), db.Close())
	}
	return hubAccounts{hub.New(hubConfig(cfg), st, log, nil)}, db.Close, nil
}

// hubAccounts is [accounts] in this process.
type hubAccounts struct{ hub *hub.Hub }

func (h hubAccounts) Add(ctx context.Context, address, password string) error {
	return h.with(address, func(a core.Address) error { return h.hub.CreateAccount(ctx, a, password) })
}

func (h hubAccounts) List(ctx context.Context) ([]accountInfo, error) {
	all, err := h.hub.Accounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the accounts: %w", err)
	}
	list := make([]accountInfo, len(all))
	for i, a := range all {
		list[i] = accountInfo{Address: a.Address.Bare(), Created: a.Created, Disabled: a.Disabled}
	}
	return list, nil
}

func (h hubAccounts) SetPassword(ctx context.Context, address, password string) error {
	return h.with(address, func(a core.Address) error { return h.hub.SetPassword(ctx, a, password) })
}

func (h hubAccounts) SetDisabled(ctx context.Context, address string, disabled bool) error {
	return h.with(address, func(a core.Address) error { return h.hub.Disable(ctx, a, disabled) })
}

func (h hubAccounts) SetStrangers(ctx context.Context, address, policy string) error {
	return h.with(address, func(a core.Address) error { return h.hub.SetStrangers(ctx, a, core.Strangers(policy)) })
}

func (h hubAccounts) Delete(ctx context.Context, address string) error {
	return h.with(address, func(a core.Address) error { return h.hub.DeleteAccount(ctx, a) })
}

// with reads the address for f.
func (h hubAccounts) with(address string, f func(core.Address) error) error {
	a, err := core.ParseLocal(address)
	if err != nil {
		return err
	}
	return f(a)
}
