package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/text/secure/precis"

	"parley/certs"
	"parley/config"
	"parley/core"
	"parley/hub"
	"parley/netguard"
	"parley/store"
)

// The functions of this file make one part of the server each, out of the
// configuration.

// openCerts makes the manager of certificates for all names of the server.
func openCerts(cfg *config.Config, log *slog.Logger) (*certs.Manager, error) {
	o := certs.Options{Names: config.ServiceNames(cfg.Domains), ExtraCA: cfg.TLS.ExtraCA, Log: log}
	switch cfg.TLS.Mode {
	case config.TLSFiles:
		var pairs []certs.Pair
		for _, p := range cfg.TLS.Pairs() {
			pairs = append(pairs, certs.Pair(p))
		}
		return certs.NewFiles(o, pairs)
	case config.TLSACME:
		return certs.NewACME(o, certs.ACMEOptions{Dir: cfg.Dir.TLSDir(), Email: cfg.TLS.ACMEEmail, Directory: cfg.TLS.ACMEDirectory})
	default:
		return certs.NewSelfSigned(o, cfg.Dir.TLSDir())
	}
}

// openGuard makes the door for outgoing connections.
func openGuard(cfg *config.Config) (*netguard.Guard, error) {
	return netguard.New(netguard.Options{
		Allow:    cfg.Limits.Prefixes(),
		Resolver: cfg.DNS.Resolver,
		Hosts:    cfg.DNS.Routes.Hosts(),
	})
}

// openStore opens the database, for this process alone.
func openStore(ctx context.Context, cfg *config.Config, log *slog.Logger) (*store.DB, error) {
	url := cfg.Database.URL
	if cfg.Database.SQLite() {
		url = "sqlite:" + cfg.Dir.DatabaseFile()
	}
	db, err := store.Open(ctx, url, log)
	var held *store.LeaseHeldError
	// A server that was killed cannot give up its lease of a PostgreSQL
	// database; its successor waits until it has run out, once.
	if errors.As(err, &held) && held.Remaining > 0 {
		log.Info("waiting for the database, which another process has", "holder", held.Holder, "until", time.Now().Add(held.Remaining))
		select {
		case <-time.After(held.Remaining + time.Second):
			db, err = store.Open(ctx, url, log)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return db, nil
}

// hubConfig is what the operator decides for the hub.
func hubConfig(cfg *config.Config) hub.Config {
	return hub.Config{
		Domains:      cfg.Domains,
		RoomVersion:  string(cfg.Matrix.RoomVersion),
		Encryption:   string(cfg.Matrix.Encryption),
		Registration: string(cfg.Registration.Mode), RegistrationTokens: cfg.Registration.Tokens,
		Strangers:   core.Hold,
		GiveUp:      cfg.Limits.OutboxGiveUp.D(),
		RetryMax:    cfg.Limits.OutboxRetryMax.D(),
		MaxContent:  int(cfg.Limits.MessageSize.Bytes()),
		MaxContacts: cfg.Limits.Contacts,
		MaxAsks:     cfg.Limits.AsksPending,
		Prepare:     preparePassword,
	}
}

// preparePassword brings a password into the form that every protocol hashes,
// so that one typed with other code points for the same letters is the same.
//
// spec: RFC 8265 §4.2
func preparePassword(password string) (string, error) {
	return precis.OpaqueString.String(password)
}
