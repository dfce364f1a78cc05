package config

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, text string) (*Config, error) {
	t.Helper()
	return Parse(Dir("/srv/parley"), "parley.toml", []byte(text))
}

func TestTemplateIsValidAndDefault(t *testing.T) {
	text, err := Template([]string{"Example.org", "example.net."})
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(t, string(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Domains, " "); got != "example.org example.net" {
		t.Errorf("domains = %q", got)
	}
	if c.Limits.OutboxGiveUp != Default().Limits.OutboxGiveUp || c.Listen != Default().Listen {
		t.Errorf("the template changes a default: %+v", c)
	}
}

// Every line of the template that is commented out must be right when the
// operator takes its # away.
func TestTemplateCommentsAreValid(t *testing.T) {
	text, err := Template([]string{"example.org"})
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`(?m)^# (\[dns.static\]|\[contact\]|\[\[component\]\]|\[\[service\]\]|"?[a-z_:.0-9]+"? = .*)$`)
	full := setting.ReplaceAllString(string(text), "$1")
	if full == string(text) {
		t.Fatal("no setting found in the template")
	}
	full = strings.Replace(full, `mode = "self-signed"`, `mode = "files"`, 1)
	full = strings.Replace(full, `mode = "closed"`, `mode = "token"`, 1)
	full = regexp.MustCompile(`(?m)^(tokens_file|extra_ca) =.*$`).ReplaceAllString(full, "")
	full = regexp.MustCompile(`(?m)^secret_file =.*$`).ReplaceAllString(full, `secret = "of 8 characters"`)
	c, err := parse(t, full)
	if err != nil {
		t.Fatalf("%v\n%s", err, full)
	}
	if len(c.Components) != 1 || c.Components[0].Host != "gateway.example.org" || len(c.Services) != 1 ||
		c.Services[0].TTL.D() != 24*time.Hour || len(c.Contact.Kinds()) != 3 {
		t.Errorf("components %v, services %v, contact %v", c.Components, c.Services, c.Contact)
	}
	def := Default()
	if c.Listen.XMPP != def.Listen.XMPP || c.Limits.UploadSize != def.Limits.UploadSize ||
		c.Limits.IdleTimeout != def.Limits.IdleTimeout || c.Limits.ClientQueue != def.Limits.ClientQueue {
		t.Errorf("a value of the template is not the default: %+v", c)
	}
	got := c.DNS.Routes.Lookup(ServiceXMPP, "example.net")
	if len(got) != 1 || got[0].String() != "10.0.0.2:5269" {
		t.Errorf("route = %v", got)
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	const head = "domains = [\"example.org\"]\n" // line 1
	cases := map[string]struct{ text, want string }{
		"operator":         {"operators = [\"alice@example.net\"]\n" + head, `operators: "alice@example.net" is no account of this server`},
		"push":             {head + "[xmpp]\npush = \"all\"\n", `xmpp.push: `},
		"unknown key":      {head + "[listen]\nhtp = \":1\"\n", `parley.toml:3: listen.htp: unknown key`},
		"unknown section":  {head + "\n[lisen]\nhttp = \":1\"\n", `parley.toml:3: lisen`},
		"syntax":           {head + "[listen\n", `parley.toml:2: `},
		"wrong type":       {head + "[limits]\nconnections_per_ip = \"many\"\n", `parley.toml:3: `},
		"bad address":      {head + "[listen]\nhttp = \"8008\"\n", `parley.toml:3: `},
		"bad port":         {head + "[listen]\nhttp = \":70000\"\n", `parley.toml:3: `},
		"bad duration":     {head + "[limits]\n\nidle_timeout = \"5 minutes\"\n", `parley.toml:4: `},
		"no unit":          {head + "[limits]\nidle_timeout = 5\n", `parley.toml:3: `},
		"size, no unit":    {head + "[limits]\nupload_size = 5\n", `parley.toml:3: `},
		"negative":         {head + "[limits]\nidle_timeout = \"-5m\"\n", `parley.toml:3: `},
		"zero":             {head + "[limits]\nclient_queue = 0\n", `parley.toml:3: limits.client_queue: must be more`},
		"bad size":         {head + "[limits]\nupload_size = \"50\"\n", `parley.toml:3: `},
		"bad network":      {head + "[limits]\nprivate_networks = [\n\"10.0.0.0/8\",\n\"10.0.0.1/8\"]\n", `parley.toml:5: `},
		"bad mode":         {head + "[tls]\nmode = \"none\"\n", `parley.toml:3: `},
		"files, no key":    {head + "[tls]\nmode = \"files\"\ncert=\"a\"\n", `parley.toml:3: tls.mode: mode "files" needs`},
		"more, no key":     {head + "[tls]\nmode = \"files\"\ncert=\"a\"\nkey=\"b\"\n[[tls.more]]\ncert=\"c\"\n", `parley.toml:6: tls.more.0: needs`},
		"cert, not files":  {head + "[tls]\ncert = \"a\"\n", `parley.toml:3: tls.cert: `},
		"room version":     {head + "[matrix]\nroom_version = \"9\"\n", `parley.toml:3: `},
		"encryption":       {head + "[matrix]\nencryption = \"on\"\n", `parley.toml:3: `},
		"bad domain":       {"\ndomains = [\"exa_mple.org\"]\n", `parley.toml:2: domains: "exa_mple.org" is not a domain`},
		"IP as domain":     {"domains = [\"10.0.0.1\"]\n", `parley.toml:1: domains: "10.0.0.1" is an IP`},
		"not ASCII":        {"domains = [\"bücher.example\"]\n", `must be written in its ASCII form "xn--bcher-kva.example"`},
		"twice":            {"domains = [\"a.org\", \"A.org\"]\n", `parley.toml:1: domains: "a.org" is there twice`},
		"service clash":    {"domains = [\"a.org\", \"rooms.a.org\"]\n", `is the name of a service of "a.org"`},
		"no domain":        {"[log]\nlevel = \"info\"\n", `parley.toml: domains: name at least one`},
		"database":         {head + "[database]\nurl = \"mysql://u:secret@h\"\n", `parley.toml:3: database.url: must be empty`},
		"token without":    {head + "[registration]\nmode = \"token\"\n", `parley.toml:3: registration.mode: `},
		"token characters": {head + "[registration]\nmode = \"token\"\ntokens = [\"has blanks\"]\n", `parley.toml:4: registration.tokens: `},
		"tokens but open":  {head + "[registration]\nmode = \"open\"\ntokens = [\"abcdefgh\"]\n", `parley.toml:3: registration.mode: `},
		"tokens file":      {head + "[registration]\nmode = \"token\"\ntokens_file = \"none\"\n", `parley.toml:4: registration.tokens_file: `},
		"profiles":         {head + "[metrics]\nlisten = \":9090\"\nprofiles = true\n", `parley.toml:4: metrics.profiles: needs`},
		"resolver":         {head + "[dns]\nresolver = \"ns.example.org\"\n", `parley.toml:3: dns.resolver: `},
		"route, service":   {head + "[dns.static]\n\"xmqp:a.test\" = \"10.0.0.2:1\"\n", `parley.toml:3: dns.static.xmqp:a.test: `},
		"route, target":    {head + "[dns.static]\n\"xmpp:b.test\" = \"10.0.0.2:1\"\n\"xmpp:a.test\" = \"10.0.0.2\"\n", `parley.toml:4: dns.static.xmpp:a.test: `},
		"route, host":      {head + "[dns]\nstatic = { \"host:a.test\" = \"b.test\" }\n", `parley.toml:3: dns.static.host:a.test: `},
		"listen twice":     {head + "[listen]\nhttp = \":7000\"\nhttps = \":7000\"\n", `parley.toml:4: listen.https: ":7000" is taken by listen.http`},
		"public URL":       {head + "[listen]\npublic_url = \"chat.example.org\"\n", `parley.toml:3: listen.public_url: `},
		"stanza size":      {head + "[limits]\nstanza_size = \"1kB\"\n", `parley.toml:3: limits.stanza_size: `},
		"message size":     {head + "[limits]\nmessage_size = \"1MB\"\n", `parley.toml:3: limits.message_size: `},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, c.text)
			if err == nil {
				t.Fatal("no error")
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is\n\t%v\nand should contain\n\t%s", err, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
}

func TestAllErrorsAtOnceInOrder(t *testing.T) {
	_, err := parse(t, "domains = [\"a_b\"]\n[dns]\nresolver = \"x\"\n[listen]\npublic_url = \"y\"\n")
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{"parley.toml:1:", "parley.toml:3:", "parley.toml:5:"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("errors are\n%v", err)
		}
	}
}

func TestValues(t *testing.T) {
	c, err := parse(t, `
domains = ["example.org"]
[listen]
http = ""
https = "[::1]:443"
[tls]
mode = "files"
cert = "a.pem"
key = "/etc/b.pem"
[dns.static]
"xmpp:peer.test" = "10.0.0.2:5269, ns.peer.test:5270"
"host:peer.test" = "10.0.0.2,fd00::2"
[limits]
private_networks = ["10.0.0.0/8", "fd00::2"]
upload_size = "3 MiB"
outbox_give_up = "1h30m"
`)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Listen.HTTP.Off() || c.Listen.HTTPS.Port() != 443 {
		t.Errorf("listen = %+v", c.Listen)
	}
	if c.TLS.Cert != "/srv/parley/a.pem" || c.TLS.Key != "/etc/b.pem" {
		t.Errorf("tls = %+v", c.TLS)
	}
	if c.Limits.UploadSize.Bytes() != 3<<20 || c.Limits.OutboxGiveUp.D() != 90*time.Minute {
		t.Errorf("limits = %+v", c.Limits)
	}
	if p := c.Limits.Prefixes(); len(p) != 2 || p[1] != netip.MustParsePrefix("fd00::2/128") {
		t.Errorf("networks = %v", p)
	}
	if got := c.DNS.Routes.Lookup(ServiceXMPP, "peer.test"); len(got) != 2 || got[1] != (Endpoint{"ns.peer.test", 5270}) {
		t.Errorf("route = %v", got)
	}
	if got := c.DNS.Routes.Hosts()["peer.test"]; len(got) != 2 || got[1] != netip.MustParseAddr("fd00::2") {
		t.Errorf("host = %v", got)
	}
	if got := c.DNS.Routes.Lookup(ServiceXMPPS, "peer.test"); got != nil {
		t.Errorf("a route that is not there: %v", got)
	}
}

func TestBaseURL(t *testing.T) {
	c := Default()
	check := func(domain, want string) {
		t.Helper()
		if got := c.BaseURL(domain); got != want {
			t.Errorf("BaseURL(%q) = %q, want %q", domain, got, want)
		}
	}
	check("example.org", "https://example.org:8448")
	check("localhost", "http://localhost:8008")
	c.Listen.HTTPS = ":443"
	check("example.org", "https://example.org")
	c.Listen.HTTPS = ""
	check("example.org", "http://example.org:8008")
	c.Listen.PublicURL = "https://chat.example.org"
	check("example.org", "https://chat.example.org")
}

func TestSizeAndDurationRoundTrip(t *testing.T) {
	for _, s := range []string{"1B", "50MB", "64KiB", "1GiB", "1500B", "0B"} {
		var v Size
		if err := v.UnmarshalText([]byte(s)); err != nil || v.String() != s {
			t.Errorf("%s became %v, %v", s, v, err)
		}
	}
	for _, s := range []string{"72h", "30s", "1h30m", "10m", "1m30s", "0s", "100ms", "1h0m5s"} {
		var v Duration
		if err := v.UnmarshalText([]byte(s)); err != nil || v.String() != s {
			t.Errorf("%s became %v, %v", s, v, err)
		}
	}
	for _, s := range []string{"", "MB", "-1MB", "1.5MB", "99999999999GiB", "10"} {
		if err := new(Size).UnmarshalText([]byte(s)); err == nil {
			t.Errorf("size %q is taken", s)
		}
	}
}

func TestKeys(t *testing.T) {
	d := Dir(t.TempDir())
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	if err := CreateKeys(d, []byte("ed25519 a_1 seed\n")); err != nil {
		t.Fatal(err)
	}
	k, err := LoadKeys(d)
	if err != nil {
		t.Fatal(err)
	}
	if string(k.Matrix) != "ed25519 a_1 seed" {
		t.Errorf("Matrix key %q", k.Matrix)
	}
	if len(k.Dialback) != 32 || len(k.ScramSalt) != 32 || string(k.Dialback) == string(k.ScramSalt) {
		t.Error("the secrets are not two secrets of 32 bytes")
	}
	if err := CreateKeys(d, []byte("ed25519 a_1 seed\n")); err == nil {
		t.Error("keys were overwritten")
	}
	again, err := LoadKeys(d)
	if err != nil || !bytes.Equal(again.Dialback, k.Dialback) {
		t.Errorf("the key changed: %v", err)
	}
	file := filepath.Join(d.KeysDir(), dialbackFile)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(d); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(d); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a key that is missing: %v", err)
	}
}

func TestLoad(t *testing.T) {
	d := Dir(t.TempDir())
	if _, err := Load(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	text, err := Template([]string{"example.org"})
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(d.ConfigFile(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(string(d)); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(d.ConfigFile(), text, 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("the file was overwritten: %v", err)
	}
}

// Whatever the file holds, it is taken or refused with a line, and what is
// taken holds what the rest of the server relies on.
func FuzzParse(f *testing.F) {
	text, err := Template([]string{"example.org"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("domains = [\"a.org\"]\n[[tls.more]]\ncert = \"x\"\n"))
	f.Add([]byte("dns.static = { \"xmpp:a.test\" = \"10.0.0.1:1\" }"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("/nonexistent", "parley.toml", data)
		if err != nil {
			return
		}
		if len(c.Domains) == 0 || c.Limits.StanzaSize.Bytes() <= 0 {
			t.Errorf("taken: %+v", c)
		}
		for _, d := range c.Domains {
			if again, err := CheckDomain(d); err != nil || again != d {
				t.Errorf("domain %q is not canonical: %q, %v", d, again, err)
			}
		}
	})
}

func TestRedacted(t *testing.T) {
	d := Database{URL: "postgres://user:secret@host/db"}
	if got := d.Redacted(); got != "postgres://user@host/db" {
		t.Errorf("Redacted = %q", got)
	}
}
