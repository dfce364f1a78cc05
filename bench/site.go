package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"parley/interop/lab"
)

// password is that of every account.
const password = "correct-horse"

// The two cores: one for the server, one for the clients.
const (
	ServerCPU = 0
	ClientCPU = 1
)

// Site is a server under measurement.
type Site struct {
	lab.Server
	Name  string // of Names
	Rooms string // the domain of its rooms
	// Matrix says that the server has Matrix clients too.
	Matrix bool
	// Profiles says that the server has Go profiles and they are wanted.
	Profiles bool

	lab      *lab.Lab
	tls      *tls.Config
	accounts int // u0, u1 … exist
}

// user is the local part of the n-th account.
func user(n int) string { return fmt.Sprintf("u%d", n) }

// sqlite ends the name of a peer that keeps its archives in SQLite.
const sqlite = "-sqlite"

// Names are the servers there are, in the order of the report; the first is ours.
var Names = []string{"parley", "ejabberd", "prosody", "ejabberd" + sqlite, "prosody" + sqlite}

// Open builds a lab with one server in it, which does not run. binary is a parley command,
// built from this tree if empty; dir keeps data and logs if it is not empty.
func Open(ctx context.Context, name, binary, dir string) (*Site, error) {
	kind, archives := strings.CutSuffix(name, sqlite)
	if dir != "" {
		dir = filepath.Join(dir, name)
	}
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Load: true, SQLite: archives})
	if err != nil {
		return nil, err
	}
	s := &Site{Name: name, lab: l}
	if err := s.add(ctx, kind, binary); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.Pin(ServerCPU)
	return s, nil
}

// Close stops the server and removes what is not kept.
func (s *Site) Close() error { return s.lab.Close() }

func (s *Site) add(ctx context.Context, kind, binary string) error {
	trust, err := os.ReadFile(s.lab.CA.File)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trust)
	domain := kind + ".test"
	s.Rooms = "conference." + domain
	s.tls = &tls.Config{RootCAs: roots, ServerName: domain, NextProtos: []string{"xmpp-client"}}
	switch kind {
	case "parley":
		if binary == "" {
			if binary, err = lab.Build(ctx, s.lab.Dir); err != nil {
				return err
			}
		}
		s.Server, err = s.lab.AddParley(ctx, binary, domain, lab.Certificates)
		s.Rooms, s.Matrix, s.Profiles = "rooms."+domain, true, true
	case "prosody":
		s.Server, err = s.lab.AddProsody(ctx, domain, lab.Certificates)
	case "ejabberd":
		s.Server, err = s.lab.AddEjabberd(ctx, domain, lab.Certificates)
	default:
		err = fmt.Errorf("bench: there is no server %q", s.Name)
	}
	return err
}

// need makes accounts until there are n. The server must be running.
func (s *Site) need(ctx context.Context, n int) error {
	var names []string
	for i := s.accounts; i < n; i++ {
		names = append(names, user(i))
	}
	if err := s.AddAccounts(ctx, names, password); err != nil {
		return err
	}
	s.accounts = max(s.accounts, n)
	return nil
}
