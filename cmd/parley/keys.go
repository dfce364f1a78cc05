package main

import (
	"errors"
	"fmt"
	"time"

	"parley/config"
	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
)

type keysCmd struct {
	Rotate keysRotateCmd `cmd:"" help:"Replace the key that signs Matrix events and requests; the old one is published as such. The server must not run."`
}

type keysRotateCmd struct{}

// Run makes a new signing key. It holds the database meanwhile, which no
// running server lets go: what one signs after its key has expired, others
// would refuse.
//
// spec: MX 1.19 SS §2.3.1
func (keysRotateCmd) Run(a *app) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if _, err := dialAdmin(a.ctx, cfg.Dir); err == nil {
		return fmt.Errorf("a server is running in %s: stop it first, since it signs with the key that would expire", cfg.Dir)
	} else if !errors.Is(err, errNoServer) {
		return err
	}
	db, err := openStore(a.ctx, cfg, newLogger(a.stderr, config.Log{Level: config.LogWarn, Format: config.LogText}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	keys, err := config.LoadKeys(cfg.Dir)
	if err != nil {
		return err
	}
	current, old, err := matrixKeys(keys)
	if err != nil {
		return err
	}
	file, next, err := wire.NewSigningKey()
	if err != nil {
		return err
	}
	old[current.ID()] = keyring.OldKey{Public: current.Public(), Expired: time.Now()}
	if err := config.RotateMatrixKey(cfg.Dir, keyring.FormatOldKeys(old), file); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "The signing key is %s now; %s is published as an old one. Back up %s.\n", next.ID(), current.ID(), cfg.Dir.KeysDir())
	return err
}

// matrixKeys reads the key that signs and those that once did.
func matrixKeys(k *config.Keys) (*wire.SigningKey, map[string]keyring.OldKey, error) {
	current, err := wire.ParseSigningKey(k.Matrix)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the Matrix signing key: %w", err)
	}
	old, err := keyring.ParseOldKeys(k.MatrixOld, current)
	if err != nil {
		return nil, nil, err
	}
	return current, old, nil
}
