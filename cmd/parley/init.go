package main

import (
	"errors"
	"fmt"
	"os"

	"parley/config"
	"parley/matrix/wire"
)

type initCmd struct {
	Domain []string `help:"A domain of the accounts; may be given several times." required:"" placeholder:"EXAMPLE.ORG"`
}

// Run makes a server in DIR. It overwrites nothing: a directory that holds any
// part of a server is refused.
func (c *initCmd) Run(a *app) error {
	text, err := config.Template(c.Domain)
	if err != nil {
		return err
	}
	cfg, err := config.Parse(a.dir, a.dir.ConfigFile(), text)
	if err != nil {
		return err
	}
	for _, path := range []string{a.dir.ConfigFile(), a.dir.DatabaseFile(), a.dir.KeysDir()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is there already; nothing was changed", path)
		}
	}
	if err := a.dir.Create(); err != nil {
		return err
	}
	signing, _, err := wire.NewSigningKey()
	if err != nil {
		return fmt.Errorf("making the Matrix signing key: %w", err)
	}
	if err := config.CreateKeys(a.dir, signing); err != nil {
		return err
	}
	log := newLogger(a.stderr, config.Log{Level: config.LogWarn, Format: config.LogText})
	if _, err := openCerts(cfg, log); err != nil {
		return err
	}
	db, err := openStore(a.ctx, cfg, log)
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("closing the new database: %w", err)
	}
	// The configuration comes last: while it is missing there is no server.
	if err := config.WriteNew(a.dir.ConfigFile(), text, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Made a server in %s. Next:\n", a.dir)
	fmt.Fprintf(a.stdout, "  parley account add alice@%s --dir %s\n", cfg.Domains[0], a.dir)
	fmt.Fprintf(a.stdout, "  parley serve --dir %s\n\n", a.dir)
	return writeRecords(a.stdout, cfg)
}
