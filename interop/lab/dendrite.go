package lab

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // what the registration by a shared secret is made of
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// Dendrite is a Matrix server for one domain, which others find by an SRV record alone: it
// answers at matrix.DOMAIN, on a port that is not the usual one. Its program is not
// installed by the lab but given by whoever runs it.
type Dendrite struct {
	*process
	domain, binary string
	client         *http.Client
}

// dendritePort is where Dendrite serves clients and servers; 8448 would be found without
// the SRV record.
const dendritePort = 8449

const dendriteSecret = "a secret for new accounts"

// Components of Dendrite keep their data apart, each in a file of its own.
var dendriteConfig = template.Must(template.New("dendrite").Parse(`
# Written by interop/lab/dendrite.go.
version: 2
global:
  server_name: {{.Domain}}
  private_key: {{.Dir}}/signing.pem
  presence: { enable_inbound: true, enable_outbound: true }
  jetstream: { storage_path: {{.Dir}}/jetstream }
  dns_cache: { enabled: false }
  report_stats: { enabled: false }
  trusted_third_party_id_servers: []
client_api:
  registration_disabled: true
  guests_disabled: true
  registration_shared_secret: "{{.Secret}}"
  rate_limiting: { enabled: false }
federation_api:
  send_max_retries: 16
  disable_tls_validation: false
  key_perspectives: []
  prefer_direct_fetch: true
  database: { connection_string: "file:{{.Dir}}/federation.db" }
app_service_api: { database: { connection_string: "file:{{.Dir}}/appservice.db" } }
key_server: { database: { connection_string: "file:{{.Dir}}/keys.db" } }
media_api:
  base_path: {{.Dir}}/media
  max_file_size_bytes: 52428800
  database: { connection_string: "file:{{.Dir}}/media.db" }
mscs: { database: { connection_string: "file:{{.Dir}}/mscs.db" } }
relay_api: { database: { connection_string: "file:{{.Dir}}/relay.db" } }
room_server: { database: { connection_string: "file:{{.Dir}}/rooms.db" } }
sync_api:
  search: { enabled: false }
  database: { connection_string: "file:{{.Dir}}/sync.db" }
user_api:
  bcrypt_cost: 4
  account_database: { connection_string: "file:{{.Dir}}/accounts.db" }
logging:
  - { type: std, level: {{if .Load}}warn{{else}}debug{{end}} }
`))

// AddDendrite configures the Dendrite of which binary is the path for domain on a new host
// of the lab. Start starts it.
func (l *Lab) AddDendrite(ctx context.Context, binary, domain string) (*Dendrite, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, fmt.Errorf("lab: dendrite: %w", err)
	}
	if err := exec.CommandContext(ctx, binary, "-version").Run(); err != nil {
		return nil, fmt.Errorf("lab: there is no Dendrite at %q: %w", binary, err)
	}
	server := "matrix." + domain
	name, _, _ := strings.Cut(domain, ".")
	host, err := l.AddHost(ctx, name, domain, server)
	if err != nil {
		return nil, err
	}
	l.DNS.AddService("_matrix-fed._tcp", domain, server, dendritePort)
	cert, key := filepath.Join(host.Dir, "cert.pem"), filepath.Join(host.Dir, "key.pem")
	if err := l.CA.Issue(cert, key, domain, server); err != nil {
		return nil, err
	}
	if err := writeSigningKey(filepath.Join(host.Dir, "signing.pem")); err != nil {
		return nil, err
	}
	config := filepath.Join(host.Dir, "dendrite.yaml")
	err = writeTemplate(config, dendriteConfig, map[string]any{
		"Dir": host.Dir, "Domain": domain, "Secret": dendriteSecret, "Load": l.load,
	})
	if err != nil {
		return nil, fmt.Errorf("lab: dendrite: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(l.CA.cert)
	return &Dendrite{
		domain: domain, binary: binary,
		client: &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: domain},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return host.Dial(ctx, network, fmt.Sprintf("%s:%d", host.Addr4, dendritePort))
			},
		}},
		process: host.newProcess(&process{
			command: []string{
				binary, "-config", config, "-http-bind-address", "127.0.0.1:8008",
				"-https-bind-address", fmt.Sprintf(":%d", dendritePort), "-tls-cert", cert, "-tls-key", key,
			},
			env:   []string{"SSL_CERT_FILE=" + l.CA.File},
			ready: []uint16{dendritePort},
		}),
	}, nil
}

// writeSigningKey makes a key for events and requests, as Dendrite keeps it.
func writeSigningKey(file string) error {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails, see crypto/rand
	text := "-----BEGIN MATRIX PRIVATE KEY-----\nKey-ID: ed25519:lab\n\n" +
		base64.StdEncoding.EncodeToString(seed) + "\n-----END MATRIX PRIVATE KEY-----\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("lab: dendrite: %w", err)
	}
	return nil
}

// Domain returns the domain of Dendrite's accounts.
func (d *Dendrite) Domain() string { return d.domain }

// Homeserver returns the base URL for Matrix clients.
func (d *Dendrite) Homeserver() string { return fmt.Sprintf("https://%s:%d", d.domain, dendritePort) }

// Version returns the program's name and version.
func (d *Dendrite) Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, d.binary, "-version").Output()
	if err != nil {
		return "", fmt.Errorf("lab: version of dendrite: %w", err)
	}
	return "Dendrite " + strings.TrimSpace(string(out)), nil
}

// AddAccount makes an account, proving that it may by the shared secret. The server must
// be running.
func (d *Dendrite) AddAccount(ctx context.Context, local, password string) error {
	var challenge struct {
		Nonce string `json:"nonce"`
	}
	if err := d.register(ctx, http.MethodGet, nil, &challenge); err != nil {
		return fmt.Errorf("lab: dendrite: adding account %s: %w", local, err)
	}
	mac := hmac.New(sha1.New, []byte(dendriteSecret))
	mac.Write([]byte(strings.Join([]string{challenge.Nonce, local, password, "notadmin"}, "\x00")))
	var made struct{}
	err := d.register(ctx, http.MethodPost, map[string]any{
		"nonce": challenge.Nonce, "username": local, "password": password, "admin": false,
		"mac": hex.EncodeToString(mac.Sum(nil)),
	}, &made)
	if err != nil {
		return fmt.Errorf("lab: dendrite: adding account %s: %w", local, err)
	}
	return nil
}

// AddAccounts makes many accounts. The server must be running.
func (d *Dendrite) AddAccounts(ctx context.Context, locals []string, password string) error {
	for _, local := range locals {
		if err := d.AddAccount(ctx, local, password); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dendrite) register(ctx context.Context, method string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	url := d.Homeserver() + "/_synapse/admin/v1/register"
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
