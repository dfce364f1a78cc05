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
	SecondDomain   = "second.test" // more Parleys
	ThirdDomain    = "third.test"
	ProsodyDomain  = "prosody.test"
	EjabberdDomain = "ejabberd.test"
	DendriteDomain = "dendrite.test"
	OtherDomain    = "other.test" // a Dendrite as well
)

// Site is a server with the names that its users' clients need.
type Site struct {
	lab.Server
	Name    string // for the report: parley, prosody, ejabberd, second, dendrite
	Service string // the XMPP domain of its rooms; empty if it has none
	Web     string // the base URL for clients that speak over HTTP, Matrix and web ones; empty if it serves none
}

// World is a lab with its servers running, and the clients' machine.
type World struct {
	Lab      *lab.Lab
	Parley   *Site // nil in a world of peers only
	Prosody  *Site
	Ejabberd *Site
	Second   *Site // another Parley
	Dendrite *Site
	Others   []*Site // what was added later, see Add

	binary   string    // the parley command
	desk     *lab.Host // where the clients run
	accounts atomic.Int64
	clients  atomic.Int64
}

// Parts says what a world is made of.
type Parts struct {
	Parley, Prosody, Ejabberd, Second bool

	Dendrite string       // the path of a Dendrite, if there is to be one
	Auth     lab.PeerAuth // how XMPP peers prove who they are; certificates if empty
	Binary   string       // a parley command; built from this tree if empty
	Dir      string       // keeps data and logs there, see lab.Options
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
	if parts.Parley || parts.Second {
		if w.binary = parts.Binary; w.binary == "" {
			if w.binary, err = lab.Build(ctx, w.Lab.Dir); err != nil {
				return err
			}
		}
	}
	if parts.Parley {
		if w.Parley, err = w.addParley(ctx, ParleyDomain, parts.Auth); err != nil {
			return err
		}
	}
	if parts.Second {
		if w.Second, err = w.addParley(ctx, SecondDomain, parts.Auth); err != nil {
			return err
		}
		// It is found by what its domain says, the first by nothing but its name.
		if err := w.Lab.Delegate(w.Second.Host(), SecondDomain, "matrix."+SecondDomain+":8448"); err != nil {
			return err
		}
	}
	if parts.Dendrite != "" {
		if err := w.addDendrite(ctx, parts.Dendrite); err != nil {
			return err
		}
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

// addParley makes a Parley for a domain, which is to be started.
func (w *World) addParley(ctx context.Context, domain string, auth lab.PeerAuth) (*Site, error) {
	server, err := w.Lab.AddParley(ctx, w.binary, domain, auth)
	if err != nil {
		return nil, err
	}
	return &Site{
		Server: server, Name: server.Host().Name, Service: roomsOf(domain), Web: server.Homeserver(),
	}, nil
}

// Add starts a further server in the world. Of a new domain, federates must say what it
// exchanges with others.
func (w *World) Add(ctx context.Context, site *Site) error {
	w.Others = append(w.Others, site)
	return site.Start(ctx)
}

// addDendrite makes a Dendrite, and has Parley make rooms of a version that Dendrite knows.
func (w *World) addDendrite(ctx context.Context, binary string) error {
	server, err := w.Lab.AddDendrite(ctx, binary, DendriteDomain)
	if err != nil {
		return err
	}
	w.Dendrite = &Site{Server: server, Name: "dendrite", Web: server.Homeserver()}
	if w.Parley == nil {
		return nil
	}
	return w.Parley.Server.(*lab.Parley).Set("matrix", "room_version", w.roomVersion())
}

// roomVersion is the Matrix room version that all servers of the world know.
func (w *World) roomVersion() string {
	if w.Dendrite != nil {
		return "11"
	}
	return "12"
}

// Sites are the servers of the world.
func (w *World) Sites() []*Site {
	var sites []*Site
	for _, s := range []*Site{w.Parley, w.Prosody, w.Ejabberd, w.Second, w.Dendrite} {
		if s != nil {
			sites = append(sites, s)
		}
	}
	return append(sites, w.Others...)
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
