package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"parley/interop/lab"
)

// Domains of the servers in a world's lab.
const (
	ParleyDomain   = "parley.test"
	ProsodyDomain  = "prosody.test"
	EjabberdDomain = "ejabberd.test"
)

// Site is a server with the names that its users' clients need.
type Site struct {
	lab.Server
	Name    string // for the report: parley, prosody, ejabberd
	Service string // the XMPP domain of its rooms
	Web     string // the base URL for clients that speak over HTTP, Matrix and web ones; empty if it serves none
}

// World is a lab with its servers running, and the clients' machine.
type World struct {
	Lab      *lab.Lab
	Parley   *Site // nil in a world of peers only
	Prosody  *Site
	Ejabberd *Site

	desk     *lab.Host // where the clients run
	accounts atomic.Int64
	clients  atomic.Int64
}

// Parts says what a world is made of.
type Parts struct {
	Parley, Prosody, Ejabberd bool
	Auth                      lab.PeerAuth // how peers prove who they are; certificates if empty
	Binary                    string       // a parley command; built from this tree if empty
	Dir                       string       // keeps data and logs there, see lab.Options
}

// NewWorld builds a lab and starts its servers.
func NewWorld(ctx context.Context, parts Parts) (*World, error) {
	l, err := lab.Start(ctx, lab.Options{Dir: parts.Dir})
	if err != nil {
		return nil, err
	}
	w := &World{Lab: l}
	if err := w.start(ctx, parts); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

// Close stops everything.
func (w *World) Close() error { return w.Lab.Close() }

func (w *World) start(ctx context.Context, parts Parts) error {
	if parts.Auth == "" {
		parts.Auth = lab.Certificates
	}
	var err error
	if w.desk, err = w.Lab.AddHost(ctx, "desk"); err != nil {
		return err
	}
	if parts.Parley {
		binary := parts.Binary
		if binary == "" {
			if binary, err = lab.Build(ctx, w.Lab.Dir); err != nil {
				return err
			}
		}
		server, err := w.Lab.AddParley(ctx, binary, ParleyDomain, parts.Auth)
		if err != nil {
			return err
		}
		w.Parley = &Site{Server: server, Name: "parley", Service: "rooms." + ParleyDomain, Web: server.Homeserver()}
	}
	if parts.Prosody {
		server, err := w.Lab.AddProsody(ctx, ProsodyDomain, parts.Auth)
		if err != nil {
			return err
		}
		w.Prosody = &Site{Server: server, Name: "prosody", Service: "conference." + ProsodyDomain}
	}
	if parts.Ejabberd {
		server, err := w.Lab.AddEjabberd(ctx, EjabberdDomain, parts.Auth)
		if err != nil {
			return err
		}
		w.Ejabberd = &Site{Server: server, Name: "ejabberd", Service: "conference." + EjabberdDomain}
	}
	for _, site := range w.Sites() {
		if err := site.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Sites are the servers of the world.
func (w *World) Sites() []*Site {
	var sites []*Site
	for _, s := range []*Site{w.Parley, w.Prosody, w.Ejabberd} {
		if s != nil {
			sites = append(sites, s)
		}
	}
	return sites
}

// Logs are the ends of all servers' logs.
func (w *World) Logs() string {
	var all string
	for _, s := range w.Sites() {
		all += s.Log()
	}
	return all
}

const password = "correct horse battery staple"

// NewAccount makes an account with a name that no other in this world has.
func (w *World) NewAccount(ctx context.Context, site *Site, name string) (Address, error) {
	local := fmt.Sprintf("%s%d", name, w.accounts.Add(1))
	if err := site.AddAccount(ctx, local, password); err != nil {
		return Address{}, err
	}
	return Address{Local: local, Domain: site.Domain()}, nil
}

// Login starts a client of an account, as a new device.
func (w *World) Login(ctx context.Context, d *Driver, site *Site, who Address) (*Client, error) {
	login := Args{"user": who, "password": password, "ca": w.Lab.ClientTrust}
	if d.Network == Matrix || d.Web {
		if site.Web == "" {
			return nil, fmt.Errorf("interop: %s serves no clients over HTTP", site.Name)
		}
		login["server"] = site.Web
	}
	file := filepath.Join(w.desk.Dir, fmt.Sprintf("%s-%s-%d.log", who, d.Name, w.clients.Add(1)))
	stderr, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("interop: %w", err)
	}
	return startClient(ctx, d, d.cmd(w.desk, w.Lab.ClientTrust), who, stderr, login)
}

// TempFile writes a file that clients can send.
func (w *World) TempFile(name string, data []byte) (string, error) {
	file := filepath.Join(w.desk.Dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return "", fmt.Errorf("interop: %w", err)
	}
	return file, nil
}
