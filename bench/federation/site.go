package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"

	"parley/bench/matrixclient"
	"parley/interop/lab"
	"parley/matrix/federation/discovery"
)

// The two cores: one for the server, one for the peer and the clients.
const (
	ServerCPU = 0
	PeerCPU   = 1
)

// server is a Matrix server of the lab.
type server interface {
	lab.Server
	Homeserver() string
}

// Site is a server under measurement, and the [Peer] that it meets.
type Site struct {
	server
	Name string

	lab      *lab.Lab
	peer     *Peer
	clients  matrixclient.Server
	profiles bool // it has Go profiles that can be asked for
}

// open builds a lab with one server in it, which does not run, and the peer. binary is
// its program; a Parley is built from this tree if it is empty. dir keeps data and logs
// if it is not empty.
func open(ctx context.Context, name, binary, dir string, size Size) (_ *Site, err error) {
	if dir != "" {
		dir = filepath.Join(dir, name)
	}
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Load: true})
	if err != nil {
		return nil, err
	}
	s := &Site{Name: name, lab: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.add(ctx, binary); err != nil {
		return nil, err
	}
	s.Pin(ServerCPU)
	pool, err := roots(l)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: pool, ServerName: s.Domain()}
	at, err := url.Parse(s.Homeserver())
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(at.Port(), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("bench: the port of %s: %w", name, err)
	}
	s.clients = matrixclient.Server{Host: s.Host(), Domain: s.Domain(), Port: uint16(port), TLS: conf, Timeout: callTimeout}
	s.peer, err = newPeer(ctx, l, max(size.Origins, size.JoinServers), target{
		name: s.Domain(), tls: conf, addr: discovery.Endpoint{Host: s.Host().Addr4.String(), Port: uint16(port)},
	})
	return s, err
}

func (s *Site) add(ctx context.Context, binary string) (err error) {
	switch s.Name {
	case "parley":
		if binary == "" {
			if binary, err = lab.Build(ctx, s.lab.Dir); err != nil {
				return err
			}
		}
		s.profiles = true
		s.server, err = s.lab.AddParley(ctx, binary, s.Name+".test", lab.Certificates)
	case "dendrite":
		s.server, err = s.lab.AddDendrite(ctx, binary, s.Name+".test")
	default:
		err = fmt.Errorf("bench: there is no server %q", s.Name)
	}
	return err
}

// close stops the server and removes what is not kept.
func (s *Site) close() error {
	var errs []error
	if s.peer != nil {
		errs = append(errs, s.peer.close())
	}
	return errors.Join(append(errs, s.lab.Close())...)
}
