package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"parley/config"
)

// Parley is the server under test, run as a black box by its command line. It serves
// Matrix at https://DOMAIN:8448 and XMPP at the standard ports; its rooms are at
// rooms.DOMAIN.
type Parley struct {
	*process
	domain, binary, dir string
	load                bool // see Options
}

// Build compiles the parley command into dir and returns the binary's path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "bin", "parley")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/parley")
	cmd.Dir = filepath.Dir(Root())
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("lab: building parley: %w\n%s", err, lastLines(out, 30))
	}
	return binary, nil
}

// AddParley makes a new Parley server for domain on a new host of the lab, which is called
// as the domain's first label. Start starts it. binary is the path of the parley command;
// with Dialback it talks to servers that prove who they are by nothing else.
func (l *Lab) AddParley(ctx context.Context, binary, domain string, auth PeerAuth) (*Parley, error) {
	domains := []string{domain, "rooms." + domain, "upload." + domain, "matrix." + domain}
	name, _, _ := strings.Cut(domain, ".")
	host, err := l.AddHost(ctx, name, domains...)
	if err != nil {
		return nil, err
	}
	for _, d := range domains[:2] {
		l.DNS.AddService("_xmpp-server._tcp", d, domain, 5269)
	}
	l.DNS.AddService("_xmpp-client._tcp", domain, domain, 5222)
	l.DNS.AddService("_xmpps-client._tcp", domain, domain, 5223)
	cert, key := filepath.Join(host.Dir, "cert.pem"), filepath.Join(host.Dir, "key.pem")
	if err := l.CA.Issue(cert, key, domains...); err != nil {
		return nil, err
	}

	p := &Parley{domain: domain, binary: binary, dir: filepath.Join(host.Dir, "server"), load: l.load}
	if err := p.parley(ctx, host, "init", "--domain", domain, "--dir", p.dir); err != nil {
		return nil, err
	}
	if err := p.configure(cert, key, l.CA.File, auth); err != nil {
		return nil, fmt.Errorf("lab: configuring parley: %w", err)
	}
	p.process = host.newProcess(&process{
		command: []string{binary, "serve", "--dir", p.dir},
		ready:   []uint16{5222, 5223, 5269, 8448},
	})
	return p, nil
}

// settings are the tables of a parley.toml.
type settings map[string]any

func (s settings) set(table, name string, value any) {
	t, ok := s[table].(map[string]any)
	if !ok {
		t = make(map[string]any)
		s[table] = t
	}
	t[name] = value
}

// edit changes the configuration file.
func (p *Parley) edit(change func(settings)) error {
	file := filepath.Join(p.dir, "parley.toml")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s := make(settings)
	if err := toml.Unmarshal(data, &s); err != nil {
		return err
	}
	change(s)
	if data, err = toml.Marshal(s); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// Set changes a setting, which holds from the server's next start.
func (p *Parley) Set(table, name string, value any) error {
	if err := p.edit(func(s settings) { s.set(table, name, value) }); err != nil {
		return fmt.Errorf("lab: configuring parley: %w", err)
	}
	return nil
}

// configure changes what init wrote: the lab's certificate, authority, name server and
// networks. The rest stays as a new operator gets it.
func (p *Parley) configure(cert, key, ca string, auth PeerAuth) error {
	networks := make([]string, 0, 2)
	for _, n := range Networks() {
		networks = append(networks, n.String())
	}
	return p.edit(func(s settings) {
		s.set("listen", "http", "127.0.0.1:8008")
		s.set("listen", "https", ":8448")
		s.set("listen", "xmpp", ":5222")
		s.set("listen", "xmpp_tls", ":5223")
		s.set("listen", "xmpp_s2s", ":5269")
		s.set("tls", "mode", "files")
		s.set("tls", "cert", cert)
		s.set("tls", "key", key)
		s.set("tls", "extra_ca", ca)
		s.set("dns", "resolver", address(network4, dnsHost).String()+":53")
		s.set("xmpp", "dialback", auth == Dialback)
		s.set("limits", "private_networks", networks)
		s["component"] = []map[string]any{{"host": ComponentHost(p.domain), "secret": ComponentSecret}}
		if p.load {
			s.lift()
		}
	})
}

// lift takes away what holds back a client or server that sends fast, and has the server
// tell how it fares.
func (s settings) lift() {
	for _, limit := range []string{
		"connections_per_ip", "unauthenticated", "unauthenticated_per_ip", "messages_per_minute", "message_burst", "client_queue",
		"stanzas_per_second", "stanza_burst", "account_stanzas_per_second", "account_stanza_burst",
		"server_stanzas_per_second", "server_stanza_burst", "server_iqs_per_minute", "server_joins_per_minute",
		"presences_per_minute", "contact_presences_per_minute", "room_presences_per_minute", "room_messages_per_minute",
		"room_joins_per_minute", "rooms_per_hour", "archive_pages_per_minute", "server_archive_pages_per_minute",
		"asks_per_hour", "strangers_per_hour", "requests_per_hour", "stranger_sender_per_hour", "unknown_server_per_hour",
	} {
		s.set("limits", limit, 1_000_000)
	}
	for _, limit := range []string{"client_bytes_per_second", "client_byte_burst", "server_bytes_per_second", "server_byte_burst"} {
		s.set("limits", limit, "1GB")
	}
	s.set("log", "level", "warn")
	s.set("metrics", "listen", MetricsAddr)
	s.set("metrics", "profiles", true)
}

// ComponentSecret is that of the one component that a Parley of the lab lets in.
const ComponentSecret = "a secret between the two"

// ComponentHost is the domain of that component.
func ComponentHost(domain string) string { return "echo." + domain }

// ComponentPort is where it connects to, on its own host.
const ComponentPort = "5347"

// MetricsAddr is where a Parley under load answers /metrics and /debug/pprof/, to
// programs on its own host.
const MetricsAddr = "127.0.0.1:9090"

// Domain returns the domain of Parley's accounts.
func (p *Parley) Domain() string { return p.domain }

// Homeserver returns the base URL for Matrix clients.
func (p *Parley) Homeserver() string { return "https://" + p.domain + ":8448" }

// Version returns what `parley version` prints.
func (p *Parley) Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, p.binary, "version").Output()
	if err != nil {
		return "", fmt.Errorf("lab: parley version: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first, nil
}

// AddAccount makes an account, also while the server runs.
func (p *Parley) AddAccount(ctx context.Context, local, password string) error {
	file := filepath.Join(p.host.Dir, "password-"+local)
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer os.Remove(file)
	return p.parley(ctx, p.host, "account", "add", local+"@"+p.domain, "--password-file", file, "--dir", p.dir)
}

// AddAccounts makes many accounts. The server must be running.
func (p *Parley) AddAccounts(ctx context.Context, locals []string, password string) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", config.Dir(p.dir).AdminSocket())
		},
	}}
	defer client.CloseIdleConnections()
	for _, local := range locals {
		body, err := json.Marshal(map[string]string{"address": local + "@" + p.domain, "password": password})
		if err != nil {
			return fmt.Errorf("lab: parley: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://parley/accounts", bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("lab: parley: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("lab: parley: adding account %s: %w", local, err)
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("lab: parley: adding account %s: %s %s %w", local, resp.Status, text, err)
		}
	}
	return nil
}

func (p *Parley) parley(ctx context.Context, host *Host, args ...string) error {
	if out, err := host.Command(ctx, p.binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("lab: parley %s: %w\n%s", args[0], err, lastLines(out, 20))
	}
	return nil
}
