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
	"path/filepath"
	"text/template"
)

// Ejabberd is an ejabberd server for one domain, with rooms at conference.DOMAIN and
// file sharing at upload.DOMAIN. Its Erlang node, cookie and port mapper live in its own
// namespace, so it disturbs no other node on the machine.
type Ejabberd struct {
	*process
	domain string
}

// ejabberdAPI is where ejabberd's commands are called, from its own host only.
const ejabberdAPI = "127.0.0.1:5280"

var ejabberdConfig = template.Must(template.New("ejabberd").Parse(`
# Written by interop/lab/ejabberd.go.
hosts: ["{{.Domain}}"]
loglevel: {{if .Load}}warning{{else}}debug{{end}}
certfiles: ["{{.Dir}}/cert.pem", "{{.Dir}}/key.pem"]
ca_file: "{{.CA}}"
s2s_cafile: "{{.CA}}"
s2s_use_starttls: required
s2s_timeout: 10 minutes
s2s_max_retry_delay: 2s
auth_method: internal
auth_password_format: scram
disable_sasl_mechanisms: ["digest-md5"]
registration_timeout: infinity
default_db: mnesia
{{- if .SQLite}}
sql_type: sqlite
sql_database: "{{.Dir}}/ejabberd.sqlite"
{{- end}}

listen:
  - { port: 5222, ip: "::", module: ejabberd_c2s, starttls_required: true, max_stanza_size: 262144 }
  - { port: 5223, ip: "::", module: ejabberd_c2s, tls: true, max_stanza_size: 262144 }
  - { port: 5269, ip: "::", module: ejabberd_s2s_in, max_stanza_size: 524288 }
  - { port: 5443, ip: "::", module: ejabberd_http, tls: true, request_handlers: { "/upload": mod_http_upload } }
  - { port: 5280, ip: "127.0.0.1", module: ejabberd_http, request_handlers: { "/api": mod_http_api } }

acl:
  local: { user_regexp: "" }
  loopback: { ip: ["127.0.0.0/8"] }
access_rules:
  local: { allow: local }
  all_allowed: { allow: all }
api_permissions:
  "lab": { who: { acl: loopback }, what: ["*"] }
shaper:
  fast: 10000000
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: 5000
  c2s_shaper: {{if .Load}}none{{else}}fast{{end}}
  s2s_shaper: fast

modules:
  mod_adhoc: {}
  mod_admin_extra: {}
  mod_blocking: {}
  mod_bosh: {}
  mod_caps: {}
  mod_carboncopy: {}
  mod_client_state: {}
  mod_disco: {}
  mod_http_api: {}
  mod_http_upload:
    host: "upload.{{.Domain}}"
    docroot: "{{.Dir}}/upload"
    put_url: "https://upload.{{.Domain}}:5443/upload"
    max_size: 52428800
    thumbnail: false
  mod_last: {}
  mod_mam: { {{if .SQLite}}db_type: sql, {{end}}default: always, assume_mam_usage: true }
  mod_muc:
    host: "conference.{{.Domain}}"
{{- if .Load}}
    max_users: 5000
    max_user_conferences: 1000
{{- end}}
    default_room_options: { {{if .Load}}max_users: 5000, {{end}}mam: true, persistent: true, allow_subscription: true }
  mod_offline: { store_groupchat: false, use_mam_for_storage: true }
  mod_ping: {}
  mod_privacy: {}
  mod_private: {}
  mod_pubsub: { hosts: ["pubsub.{{.Domain}}"], plugins: [flat, pep] }
  mod_roster: { versioning: true }
{{- if .Dialback}}
  mod_s2s_dialback: {}
{{- end}}
  mod_stream_mgmt: {}
  mod_vcard: {}
  mod_version: {}
`))

// AddEjabberd configures an ejabberd for domain on a new host of the lab. Start starts it.
func (l *Lab) AddEjabberd(ctx context.Context, domain string, auth PeerAuth) (*Ejabberd, error) {
	host, err := l.addPeerHost(ctx, "ejabberd", domain, auth)
	if err != nil {
		return nil, err
	}
	config, spool := filepath.Join(host.Dir, "ejabberd.yml"), filepath.Join(host.Dir, "spool")
	for _, dir := range []string{spool, filepath.Join(host.Dir, "upload")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("lab: ejabberd: %w", err)
		}
	}
	err = writeTemplate(config, ejabberdConfig, map[string]any{
		"Dir": host.Dir, "CA": l.CA.File, "Domain": domain, "Dialback": auth == Dialback, "Load": l.load, "SQLite": l.sqlite,
	})
	if err != nil {
		return nil, fmt.Errorf("lab: ejabberd: %w", err)
	}
	logFile := filepath.Join(host.Dir, "ejabberd.log")
	e := &Ejabberd{domain: domain}
	var flags []string
	if l.load {
		// One scheduler for one processor, and the room for sessions that ejabberdctl makes.
		flags = []string{"+S", "1:1", "+K", "true", "+P", "250000", "+Q", "65536"}
	}
	e.process = host.newProcess(&process{
		// What ejabberdctl does, without changing to the user ejabberd.
		command: append([]string{
			"erl", "-sname", "ejabberd@localhost", "-setcookie", "parley-lab", "-noinput",
			"-mnesia", "dir", fmt.Sprintf("%q", spool), "-ejabberd", "log_rate_limit", "10000",
			"-s", "ejabberd",
		}, flags...),
		env: []string{
			"HOME=" + host.Dir, "ERL_EPMD_ADDRESS=127.0.0.1",
			"ERL_LIBS=/usr/lib/" + debianArch + "-linux-gnu",
			"EJABBERD_CONFIG_PATH=" + config, "EJABBERD_LOG_PATH=" + logFile,
			"ERL_CRASH_DUMP=" + filepath.Join(host.Dir, "erl_crash.dump"),
		},
		ready: []uint16{5222, 5223, 5269, 5443},
		logs:  []string{logFile},
	})
	return e, nil
}

// Domain returns the domain of ejabberd's accounts.
func (e *Ejabberd) Domain() string { return e.domain }

// Version returns the program's name and version.
func (e *Ejabberd) Version(ctx context.Context) (string, error) {
	return debianVersion(ctx, "ejabberd", "ejabberd")
}

// AddAccount makes an account. The server must be running.
func (e *Ejabberd) AddAccount(ctx context.Context, local, password string) error {
	return e.call(ctx, "register", map[string]string{"user": local, "host": e.domain, "password": password})
}

// AddAccounts makes many accounts. The server must be running.
func (e *Ejabberd) AddAccounts(ctx context.Context, locals []string, password string) error {
	for _, local := range locals {
		if err := e.AddAccount(ctx, local, password); err != nil {
			return err
		}
	}
	return nil
}

// call calls one of ejabberd's commands.
func (e *Ejabberd) call(ctx context.Context, command string, args any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("lab: ejabberd: %s: %w", command, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+ejabberdAPI+"/api/"+command, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("lab: ejabberd: %s: %w", command, err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return e.host.Dial(ctx, network, addr)
		},
	}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("lab: ejabberd: %s: %w", command, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // only for the message
		return fmt.Errorf("lab: ejabberd: %s: %s: %s", command, resp.Status, text)
	}
	return nil
}
