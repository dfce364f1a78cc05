package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

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
	Name  string // parley, prosody or ejabberd
	Rooms string // the domain of its rooms
	// Matrix says that the server has Matrix clients too.
	Matrix bool
	// Profiles says that the server has Go profiles and they are wanted.
	Profiles bool

	tls      *tls.Config
	accounts int // u0, u1 … exist
}

// user is the local part of the n-th account.
func user(n int) string { return fmt.Sprintf("u%d", n) }

// Sites is a lab with the servers to be measured, none of which runs.
type Sites struct {
	Lab *lab.Lab
	All []*Site
}

// Names are the servers there are, in the order of the report.
var Names = []string{"parley", "ejabberd", "prosody"}

// Open builds the lab. binary is a parley command, built from this tree if empty.
func Open(ctx context.Context, names []string, binary, dir string) (*Sites, error) {
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Load: true})
	if err != nil {
		return nil, err
	}
	s := &Sites{Lab: l}
	for _, name := range names {
		site, err := s.add(ctx, name, binary)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		site.Pin(ServerCPU)
		s.All = append(s.All, site)
	}
	return s, nil
}

// Close stops everything and removes what is not kept.
func (s *Sites) Close() error { return s.Lab.Close() }

func (s *Sites) add(ctx context.Context, name, binary string) (*Site, error) {
	trust, err := os.ReadFile(s.Lab.CA.File)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trust)
	domain := name + ".test"
	site := &Site{Name: name, Rooms: "conference." + domain, tls: &tls.Config{
		RootCAs: roots, ServerName: domain, NextProtos: []string{"xmpp-client"},
	}}
	switch name {
	case "parley":
		if binary == "" {
			if binary, err = lab.Build(ctx, s.Lab.Dir); err != nil {
				return nil, err
			}
		}
		site.Server, err = s.Lab.AddParley(ctx, binary, domain, lab.Certificates)
		site.Rooms, site.Matrix, site.Profiles = "rooms."+domain, true, true
	case "prosody":
		site.Server, err = s.Lab.AddProsody(ctx, domain, lab.Certificates)
	case "ejabberd":
		site.Server, err = s.Lab.AddEjabberd(ctx, domain, lab.Certificates)
	default:
		err = fmt.Errorf("bench: there is no server %q", name)
	}
	return site, err
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
