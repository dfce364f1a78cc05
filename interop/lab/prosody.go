package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// PeerAuth is how a peer and others' servers prove who they are to each other.
type PeerAuth string

const (
	// Certificates of the lab's authority, checked by the peer; nothing else will do.
	Certificates PeerAuth = "certificates"
	// Dialback over TLS with a certificate that nobody can check. spec: XEP-0220
	Dialback PeerAuth = "dialback"
)

// Prosody is a Prosody server for one domain, with rooms at conference.DOMAIN and
// file sharing at upload.DOMAIN.
type Prosody struct {
	*process
	domain string
	config string // file
}

var prosodyConfig = template.Must(template.New("prosody").Parse(`
-- Written by interop/lab/prosody.go.
run_as_root = true
prosody_user, prosody_group = "root", "root"
pidfile = "{{.Dir}}/prosody.pid"
data_path = "{{.Dir}}/data"
admin_socket = "{{.Dir}}/prosody.sock"
log = { {{if .Load}}warn{{else}}debug{{end}} = "{{.Dir}}/prosody.log" }
-- libunbound answers NXDOMAIN for the reserved domain "test" by itself, if not told so.
unbound = { resolvconf = true, options = { ["local-zone:"] = "test. transparent" } }

modules_enabled = {
  "admin_shell", "roster", "saslauth", "tls", "disco", "ping", "time", "version", "uptime",
  "pep", "vcard4", "vcard_legacy", "bookmarks", "blocklist", "private", "carbons", "mam",
  "smacks", "csi", "csi_simple", "presence", "message", "iq", "s2s", "c2s", "http",
  {{if .Dialback}}"dialback"{{else}}"s2s_auth_certs"{{end}},
}
modules_disabled = { "offline"{{if .Dialback}}, "s2s_auth_certs"{{end}} }
authentication = "internal_hashed"
{{if .SQLite -}}
storage = { archive = "sql", muc_log = "sql" }
sql = { driver = "SQLite3", database = "prosody.sqlite" }
{{- else -}}
storage = "internal"
{{- end}}
archive_expires_after = "never"
c2s_require_encryption, s2s_require_encryption = true, true
s2s_secure_auth = {{if .Dialback}}false{{else}}true{{end}}
ssl = { cafile = "{{.CA}}", certificate = "{{.Dir}}/cert.pem", key = "{{.Dir}}/key.pem" }
https_certificate = "{{.Dir}}/cert.pem"
c2s_direct_tls_ports = { 5223 }
https_ports = { 5281 }
http_ports = {}
limits = { c2s = { rate = "10mb/s" }, s2sin = { rate = "10mb/s" } }

VirtualHost "{{.Domain}}"
  disco_items = { { "upload.{{.Domain}}" }, { "conference.{{.Domain}}" } }

Component "conference.{{.Domain}}" "muc"
  modules_enabled = { "muc_mam" }
  muc_log_by_default = true
  restrict_room_creation = false

Component "upload.{{.Domain}}" "http_file_share"
  http_file_share_size_limit = 50 * 1024 * 1024
  http_external_url = "https://upload.{{.Domain}}:5281/"
`))

// AddProsody configures a Prosody for domain on a new host of the lab. Start starts it.
func (l *Lab) AddProsody(ctx context.Context, domain string, auth PeerAuth) (*Prosody, error) {
	host, err := l.addPeerHost(ctx, "prosody", domain, auth)
	if err != nil {
		return nil, err
	}
	p := &Prosody{domain: domain, config: filepath.Join(host.Dir, "prosody.cfg.lua")}
	if err := os.MkdirAll(filepath.Join(host.Dir, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("lab: prosody: %w", err)
	}
	err = writeTemplate(p.config, prosodyConfig, map[string]any{
		"Dir": host.Dir, "CA": l.CA.File, "Domain": domain, "Dialback": auth == Dialback, "Load": l.load, "SQLite": l.sqlite,
	})
	if err != nil {
		return nil, fmt.Errorf("lab: prosody: %w", err)
	}
	p.process = host.newProcess(&process{
		command: []string{"prosody", "-F", "--config", p.config},
		ready:   []uint16{5222, 5223, 5269, 5281},
		logs:    []string{filepath.Join(host.Dir, "prosody.log")},
	})
	return p, nil
}

// Domain returns the domain of Prosody's accounts.
func (p *Prosody) Domain() string { return p.domain }

// Version returns the program's name and version.
func (p *Prosody) Version(ctx context.Context) (string, error) {
	return debianVersion(ctx, "Prosody", "prosody")
}

// AddAccount makes an account.
func (p *Prosody) AddAccount(ctx context.Context, local, password string) error {
	cmd := p.host.Command(ctx, "prosodyctl", "--config", p.config, "register", local, p.domain, password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: prosody: adding account %s: %w: %s", local, err, lastLines(out, 5))
	}
	return nil
}

// AddAccounts makes many accounts by writing what prosodyctl would have written but for
// the hash, which Prosody makes at the first login.
func (p *Prosody) AddAccounts(_ context.Context, locals []string, password string) error {
	dir := filepath.Join(p.host.Dir, "data", strings.ReplaceAll(p.domain, ".", "%2e"), "accounts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("lab: prosody: %w", err)
	}
	for _, local := range locals {
		text := fmt.Sprintf("return {\n\t[\"password\"] = %q;\n};\n", password)
		if err := os.WriteFile(filepath.Join(dir, local+".dat"), []byte(text), 0o600); err != nil {
			return fmt.Errorf("lab: prosody: %w", err)
		}
	}
	return nil
}

// addPeerHost adds a host for a peer with the DNS records and the certificate that an
// XMPP server with rooms and file sharing has.
func (l *Lab) addPeerHost(ctx context.Context, name, domain string, auth PeerAuth) (*Host, error) {
	domains := []string{domain, "conference." + domain, "upload." + domain, "pubsub." + domain}
	host, err := l.AddHost(ctx, name, domains...)
	if err != nil {
		return nil, err
	}
	for _, d := range domains {
		l.DNS.AddService("_xmpp-server._tcp", d, domain, 5269)
	}
	l.DNS.AddService("_xmpp-client._tcp", domain, domain, 5222)
	l.DNS.AddService("_xmpps-client._tcp", domain, domain, 5223)
	ca := l.CA
	if auth == Dialback {
		if ca, err = NewCA(filepath.Join(host.Dir, "unknown-ca.pem")); err != nil {
			return nil, fmt.Errorf("lab: %s: %w", name, err)
		}
		if err := l.trust(ca); err != nil {
			return nil, err
		}
	}
	err = ca.Issue(filepath.Join(host.Dir, "cert.pem"), filepath.Join(host.Dir, "key.pem"), domains...)
	return host, err
}

func writeTemplate(file string, t *template.Template, data any) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.Execute(f, data); err != nil {
		return err
	}
	return f.Close()
}

// debianVersion returns the upstream version of an installed package.
func debianVersion(ctx context.Context, name, deb string) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", deb).Output()
	if err != nil {
		return "", fmt.Errorf("lab: version of %s: %w", deb, err)
	}
	version, _, _ := strings.Cut(string(out), "-")
	return name + " " + version, nil
}
