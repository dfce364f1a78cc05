package config

import (
	"bytes"
	"fmt"
	"io"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds the configuration and the token file, in bytes.
const maxFile = 1 << 20

// Load reads and checks DIR/parley.toml. Its errors are one or several
// [Error] values, joined in the order of their lines.
func Load(dir string) (*Config, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", dir, err)
	}
	file := Dir(abs).ConfigFile()
	data, err := readLimited(file)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(Dir(abs), file, data)
}

// Parse reads and checks a configuration; file is its name in errors.
func Parse(dir Dir, file string, data []byte) (*Config, error) {
	c := Default()
	c.Dir = dir
	v := validator{cfg: &c, file: file, pos: readPositions(data)}
	if v.units(); len(v.errs) > 0 {
		return nil, join(v.errs)
	}
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, decodeErrors(file, err)
	}
	v.all()
	if len(v.errs) > 0 {
		return nil, join(v.errs)
	}
	return &c, nil
}

func readLimited(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	return data, nil
}

// validator checks what one value alone cannot tell, and brings values into
// their canonical form.
type validator struct {
	cfg  *Config
	file string
	pos  positions
	errs []*Error
}

func (v *validator) fail(key, format string, args ...any) {
	v.errs = append(v.errs, &Error{File: v.file, Line: v.pos.line(key), Key: key, Msg: fmt.Sprintf(format, args...)})
}

func (v *validator) all() {
	v.words()
	v.domains()
	v.operators()
	v.federation()
	v.listen()
	v.tls()
	v.database()
	v.registration()
	v.dns()
	v.components()
	v.externalServices()
	v.contact()
	v.metrics()
	v.limits()
}

// words checks the values that are one of a set.
func (v *validator) words() {
	c := v.cfg
	for _, w := range []struct {
		key   string
		value interface{ check() error }
	}{
		{"listen.http", c.Listen.HTTP}, {"listen.https", c.Listen.HTTPS}, {"listen.xmpp", c.Listen.XMPP},
		{"listen.xmpp_tls", c.Listen.XMPPTLS}, {"listen.xmpp_s2s", c.Listen.XMPPS2S},
		{"listen.xmpp_component", c.Listen.XMPPComponent}, {"metrics.listen", c.Metrics.Listen},
		{"tls.mode", c.TLS.Mode}, {"registration.mode", c.Registration.Mode},
		{"xmpp.push", c.XMPP.Push}, {"matrix.room_version", c.Matrix.RoomVersion}, {"matrix.encryption", c.Matrix.Encryption},
		{"log.level", c.Log.Level}, {"log.format", c.Log.Format},
	} {
		if err := w.value.check(); err != nil {
			v.fail(w.key, "%v", err)
		}
	}
}

// operators are accounts here, whether or not they have been made yet.
func (v *validator) operators() {
	for i, o := range v.cfg.Operators {
		o = strings.ToLower(strings.TrimSpace(o))
		if name, domain, ok := strings.Cut(o, "@"); !ok || name == "" || !v.cfg.IsLocal(domain) {
			v.fail("operators", "%q is no account of this server, like \"alice@%s\"", o, strings.Join(v.cfg.Domains[:min(1, len(v.cfg.Domains))], ""))
		}
		v.cfg.Operators[i] = o
	}
}

func (v *validator) domains() {
	if len(v.cfg.Domains) == 0 {
		v.fail("domains", "name at least one domain, as in domains = [\"example.org\"]")
	}
	for i, d := range v.cfg.Domains {
		canon, err := CheckDomain(d)
		if err != nil {
			v.fail("domains", "%v", err)
			continue
		}
		if slices.Contains(v.cfg.Domains[:i], canon) {
			v.fail("domains", "%q is there twice", canon)
		}
		v.cfg.Domains[i] = canon
	}
	services := make(map[string]string)
	for _, d := range v.cfg.Domains {
		services[RoomsPrefix+d], services[UploadPrefix+d] = d, d
	}
	for _, d := range v.cfg.Domains {
		if owner, clash := services[d]; clash {
			v.fail("domains", "%q is the name of a service of %q", d, owner)
		}
	}
}

func (v *validator) listen() {
	l := &v.cfg.Listen
	addrs := []struct {
		key  string
		addr ListenAddr
	}{
		{"listen.http", l.HTTP}, {"listen.https", l.HTTPS}, {"listen.xmpp", l.XMPP},
		{"listen.xmpp_tls", l.XMPPTLS}, {"listen.xmpp_s2s", l.XMPPS2S}, {"listen.xmpp_component", l.XMPPComponent},
		{"metrics.listen", v.cfg.Metrics.Listen},
	}
	seen := make(map[ListenAddr]string)
	for _, a := range addrs {
		if a.addr.Port() == 0 {
			continue // off, or any free port
		}
		if other, twice := seen[a.addr]; twice {
			v.fail(a.key, "%q is taken by %s", a.addr, other)
		}
		seen[a.addr] = a.key
	}
	if l.PublicURL == "" {
		return
	}
	l.PublicURL = strings.TrimRight(l.PublicURL, "/")
	v.httpURL("listen.public_url", l.PublicURL)
}

// metrics keeps profiles, which tell much about a server, to this machine.
func (v *validator) metrics() {
	m := v.cfg.Metrics
	if !m.Profiles {
		return
	}
	if a, err := netip.ParseAddrPort(string(m.Listen)); err != nil || !a.Addr().IsLoopback() {
		v.fail("metrics.profiles", "needs metrics.listen to be a loopback address, as in \"127.0.0.1:9090\"")
	}
}

func (v *validator) httpURL(key, s string) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		v.fail(key, "%q is not a URL like \"https://chat.example.org\"", s)
	}
}

func (v *validator) tls() {
	t := &v.cfg.TLS
	if t.Mode == TLSFiles {
		if t.Cert == "" || t.Key == "" {
			v.fail("tls.mode", "mode \"files\" needs both cert and key")
		}
	} else if t.Cert != "" || t.Key != "" || len(t.More) > 0 {
		v.fail("tls.cert", "cert, key and [[tls.more]] are for mode \"files\", not %q", t.Mode)
	}
	for i, p := range t.More {
		if p.Cert == "" || p.Key == "" {
			v.fail(fmt.Sprintf("tls.more.%d", i), "needs both cert and key")
		}
		t.More[i] = KeyPair{Cert: v.cfg.abs(p.Cert), Key: v.cfg.abs(p.Key)}
	}
	if t.Mode != TLSACME {
		if t.ACMEEmail != "" {
			v.fail("tls.acme_email", "is for mode \"acme\", not %q", t.Mode)
		}
		if t.ACMEDirectory != "" {
			v.fail("tls.acme_directory", "is for mode \"acme\", not %q", t.Mode)
		}
	}
	if t.ACMEEmail != "" {
		if a, err := mail.ParseAddress(t.ACMEEmail); err != nil || a.Address != t.ACMEEmail {
			v.fail("tls.acme_email", "%q is not an e-mail address", t.ACMEEmail)
		}
	}
	if t.ACMEDirectory != "" {
		v.httpURL("tls.acme_directory", t.ACMEDirectory)
	}
	t.Cert, t.Key, t.ExtraCA = v.cfg.abs(t.Cert), v.cfg.abs(t.Key), v.cfg.abs(t.ExtraCA)
}

func (v *validator) database() {
	u := v.cfg.Database.URL
	if u == "" {
		return
	}
	// The URL may hold a password: it is never put into an error.
	p, err := url.Parse(u)
	if err != nil || (p.Scheme != "postgres" && p.Scheme != "postgresql") {
		v.fail("database.url", "must be empty (SQLite in DIR) or begin with postgres://")
	}
}

func (v *validator) registration() {
	r := &v.cfg.Registration
	if r.Mode != RegistrationToken && (len(r.Tokens) > 0 || r.TokensFile != "") {
		v.fail("registration.mode", "tokens are for mode \"token\", not %q", r.Mode)
		return
	}
	if r.TokensFile != "" {
		r.TokensFile = v.cfg.abs(r.TokensFile)
		data, err := readLimited(r.TokensFile)
		if err != nil {
			v.fail("registration.tokens_file", "%v", err)
			return
		}
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				r.Tokens = append(r.Tokens, line)
			}
		}
	}
	for _, t := range r.Tokens {
		if err := checkToken(t); err != nil {
			v.fail("registration.tokens", "%v", err)
		}
	}
	if r.Mode == RegistrationToken && len(r.Tokens) == 0 {
		v.fail("registration.mode", "mode \"token\" needs tokens or tokens_file")
	}
}

// checkToken holds tokens to what clients may send. The token is a secret and
// so not in the error.
//
// spec: MX 1.19 CS §4.9.1.3.7
func checkToken(t string) error {
	if len(t) < 8 || len(t) > 64 {
		return fmt.Errorf("a token must have 8 to 64 characters, one has %d", len(t))
	}
	for _, c := range []byte(t) {
		if !strings.ContainsRune("._~-", rune(c)) && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return fmt.Errorf("a token may have only letters, digits and . _ ~ -")
		}
	}
	return nil
}

func (v *validator) dns() {
	d := &v.cfg.DNS
	if d.Resolver != "" {
		if _, err := netip.ParseAddrPort(d.Resolver); err != nil {
			v.fail("dns.resolver", "%q is not IP:PORT, as in \"10.0.0.1:53\"", d.Resolver)
		}
	}
	keys := make([]string, 0, len(d.Static))
	for k := range d.Static {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := d.Routes.add(k, d.Static[k]); err != nil {
			v.fail("dns.static."+k, "%v", err)
		}
	}
}

// federation brings the names of servers into canonical spelling.
func (v *validator) federation() {
	f := &v.cfg.Federation
	for key, list := range map[string][]string{"federation.refuse": f.Refuse, "federation.only": f.Only} {
		for i, name := range list {
			rest, below := strings.CutPrefix(name, "*.")
			canon, err := CheckDomain(rest)
			if err != nil {
				v.fail(key, "%v", err)
				continue
			}
			if below {
				canon = "*." + canon
			}
			list[i] = canon
		}
	}
	for i, name := range v.cfg.Matrix.Notaries {
		canon, err := CheckDomain(name)
		if err != nil {
			v.fail("matrix.notaries", "%v", err)
			continue
		}
		v.cfg.Matrix.Notaries[i] = canon
	}
}

// units finds sizes and durations that are bare numbers. It runs before the
// file is decoded, since the decoder does not say where it met one.
func (v *validator) units() {
	for f := range reflect.TypeFor[Limits]().Fields() {
		key := "limits." + f.Tag.Get("toml")
		if !v.pos[key].number {
			continue
		}
		switch f.Type {
		case reflect.TypeFor[Size]():
			v.fail(key, "needs a unit, as in \"64KiB\" or \"50MB\"")
		case reflect.TypeFor[Duration]():
			v.fail(key, "needs a unit, as in \"90s\" or \"72h\"")
		}
	}
}

func (v *validator) limits() {
	l := v.cfg.Limits
	fields := reflect.ValueOf(l)
	for i := range fields.NumField() {
		key := fields.Type().Field(i).Tag.Get("toml")
		switch n := fields.Field(i).Interface().(type) {
		case Size:
			v.positive(key, n.Bytes())
		case Duration:
			v.positive(key, int64(n.D()))
		case int:
			v.positive(key, int64(n))
		}
	}
	// spec: RFC 6120 §13.12
	if n := l.StanzaSize.Bytes(); n > 0 && n < 10000 {
		v.fail("limits.stanza_size", "%v is less than the 10,000 bytes that XMPP asks every server to take", l.StanzaSize)
	}
	// spec: MX 1.19 CS §7.4
	if l.MessageSize.Bytes() > 64<<10 {
		v.fail("limits.message_size", "%v is more than the 65,536 bytes of a Matrix event", l.MessageSize)
	}
}

func (v *validator) positive(key string, n int64) {
	if n <= 0 {
		v.fail("limits."+key, "must be more than nothing")
	}
}
