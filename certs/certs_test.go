package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// authority is a certificate authority for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	a := &authority{cert: cert, key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	must(t, writePEM(a.file, "CERTIFICATE", der, 0o644))
	return a
}

func (a *authority) issue(t *testing.T, dir, file string, life time.Duration, names ...string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: names, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	p := Pair{Cert: filepath.Join(dir, file+".pem"), Key: filepath.Join(dir, file+".key")}
	must(t, writePEM(p.Cert, "CERTIFICATE", der, 0o644))
	must(t, writePEM(p.Key, "PRIVATE KEY", keyDER, 0o600))
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// handshake connects a client to a server and returns what the client saw and
// what the server saw.
func handshake(t *testing.T, server, client *tls.Config) (c, s tls.ConnectionState, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	done := make(chan tls.ConnectionState, 1)
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		tc := tls.Server(conn, server)
		if tc.Handshake() == nil {
			done <- tc.ConnectionState()
			io.WriteString(tc, "x")
		}
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		<-done
		return c, s, err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 a refusal comes after the handshake
	return conn.ConnectionState(), <-done, err
}

func TestSelfSigned(t *testing.T) {
	dir := t.TempDir()
	names := []string{"example.org", "rooms.example.org", "upload.example.org"}
	m, err := NewSelfSigned(Options{Names: names, Log: quiet}, dir)
	must(t, err)

	// A client that is told to trust the file can use every name.
	trusting, err := NewSelfSigned(Options{Names: []string{"peer.test"}, ExtraCA: SelfSignedFile(dir), Log: quiet}, t.TempDir())
	must(t, err)
	for _, n := range names {
		if _, _, err := handshake(t, m.Server(), trusting.Client(n)); err != nil {
			t.Errorf("%s: %v", n, err)
		}
		if p := m.Inspect(n, time.Now()); len(p) != 0 {
			t.Errorf("%s: %v", n, p)
		}
	}
	if _, _, err := handshake(t, m.Server(), trusting.Client("other.example")); err == nil {
		t.Error("the certificate is good for a name that it has not")
	}
	if _, _, err := handshake(t, m.Server(), m.Client("example.org")); err == nil {
		t.Error("a self-signed certificate is trusted by who was not told to")
	}

	info, err := os.Stat(filepath.Join(dir, selfKey))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
}

func TestSelfSignedIsKeptAndRenewed(t *testing.T) {
	dir := t.TempDir()
	leaf := func(names ...string) string {
		t.Helper()
		m, err := NewSelfSigned(Options{Names: names, Log: quiet}, dir)
		must(t, err)
		c, err := m.Certificate(names[0])
		must(t, err)
		return string(c.Certificate[0])
	}
	first := leaf("a.test")
	if leaf("a.test") != first {
		t.Error("a good certificate was replaced")
	}
	second := leaf("a.test", "b.test")
	if second == first {
		t.Error("a certificate without the new name was kept")
	}
	src := &selfSource{names: []string{"a.test"}, dir: dir, now: func() time.Time { return time.Now().Add(selfLife - 24*time.Hour) }}
	must(t, src.reload())
	if string(src.cert.Certificate[0]) == second {
		t.Error("a certificate near its end was kept")
	}
	must(t, os.WriteFile(SelfSignedFile(dir), []byte("my own"), 0o600))
	if _, err := NewSelfSigned(Options{Names: []string{"a.test"}, Log: quiet}, dir); err == nil {
		t.Error("a file that is no certificate was overwritten")
	}
}

func TestFilesBySNI(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	a := ca.issue(t, dir, "a", 1000*time.Hour, "a.test", "*.a.test")
	b := ca.issue(t, dir, "b", 1000*time.Hour, "b.test")
	m, err := NewFiles(Options{Names: []string{"a.test", "rooms.a.test", "b.test"}, ExtraCA: ca.file, Log: quiet}, []Pair{a, b})
	must(t, err)
	for name, want := range map[string]string{"a.test": "a.test", "rooms.a.test": "a.test", "b.test": "b.test"} {
		c, _, err := handshake(t, m.Server(), m.Client(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := c.PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%s: shown the certificate of %s", name, got)
		}
	}
	// No name, or a foreign one: the first domain's.
	for _, name := range []string{"", "foreign.test"} {
		conf := m.Client(name)
		conf.InsecureSkipVerify = true // only looks at which one is shown
		c, _, err := handshake(t, m.Server(), conf)
		if err != nil || c.PeerCertificates[0].DNSNames[0] != "a.test" {
			t.Errorf("SNI %q: %v", name, err)
		}
	}
	if _, err := m.Certificate("foreign.test"); err == nil {
		t.Error("a certificate for a name that is not ours")
	}
}

func TestReload(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	pair := ca.issue(t, dir, "a", 1000*time.Hour, "a.test")
	m, err := NewFiles(Options{Names: []string{"a.test"}, ExtraCA: ca.file, Log: quiet}, []Pair{pair})
	must(t, err)
	serial := func() string {
		t.Helper()
		c, _, err := handshake(t, m.Server(), m.Client("a.test"))
		must(t, err)
		return c.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	must(t, m.Reload())
	if serial() != first {
		t.Error("the certificate changed by itself")
	}
	ca.issue(t, dir, "a", 1000*time.Hour, "a.test")
	later := time.Now().Add(time.Minute) // whatever the file system's resolution
	must(t, os.Chtimes(pair.Cert, later, later))
	must(t, m.Reload())
	second := serial()
	if second == first {
		t.Error("the renewed certificate is not used")
	}
	must(t, os.WriteFile(pair.Cert, []byte("half a file"), 0o600))
	if err := m.Reload(); err == nil {
		t.Error("a broken file is no error")
	}
	must(t, os.Remove(pair.Cert))
	if err := m.Reload(); err == nil {
		t.Error("a missing file is no error")
	}
	if serial() != second {
		t.Error("the old certificate did not stay in use")
	}
}

func TestServerToServer(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	a := ca.issue(t, dir, "a", 1000*time.Hour, "a.test")
	b := ca.issue(t, dir, "b", 1000*time.Hour, "b.test")
	here, err := NewFiles(Options{Names: []string{"a.test"}, ExtraCA: ca.file, Log: quiet}, []Pair{a})
	must(t, err)
	there, err := NewFiles(Options{Names: []string{"b.test"}, ExtraCA: ca.file, Log: quiet}, []Pair{b})
	must(t, err)
	server := there.Server("xmpp-server")
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, there.Roots()
	client := here.ServerToServer("a.test", "b.test")
	client.NextProtos = []string{"xmpp-server"}
	c, s, err := handshake(t, server, client)
	must(t, err)
	if c.NegotiatedProtocol != "xmpp-server" {
		t.Errorf("ALPN = %q", c.NegotiatedProtocol)
	}
	if len(s.PeerCertificates) == 0 || s.PeerCertificates[0].DNSNames[0] != "a.test" {
		t.Error("our certificate was not shown")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	m, err := NewSelfSigned(Options{Names: []string{"a.test"}, Log: quiet}, t.TempDir())
	must(t, err)
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		_, _, err := handshake(t, m.Server(), &tls.Config{MinVersion: v, MaxVersion: v, InsecureSkipVerify: true})
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("TLS version %#x: %v", v, err)
		}
	}
	if _, _, err := handshake(t, m.Server(), &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestInspect(t *testing.T) {
	ca, other, dir := newAuthority(t), newAuthority(t), t.TempDir()
	pairs := []Pair{
		ca.issue(t, dir, "good", 1000*time.Hour, "good.test"),
		ca.issue(t, dir, "old", -time.Hour, "old.test"),
		ca.issue(t, dir, "soon", 48*time.Hour, "soon.test"),
		other.issue(t, dir, "foreign", 1000*time.Hour, "foreign.test"),
	}
	names := []string{"good.test", "old.test", "soon.test", "foreign.test", "missing.test"}
	m, err := NewFiles(Options{Names: names, ExtraCA: ca.file, Log: quiet}, pairs)
	must(t, err)
	for name, want := range map[string]string{
		"good.test": "", "old.test": "ended on", "soon.test": "should be renewed",
		"foreign.test": "no known authority", "missing.test": "not for missing.test",
	} {
		got := m.Inspect(name, time.Now())
		if want == "" {
			if len(got) != 0 {
				t.Errorf("%s: %v", name, got)
			}
			continue
		}
		if !slices.ContainsFunc(got, func(p Problem) bool { return strings.Contains(p.Err.Error(), want) }) {
			t.Errorf("%s: %v, want %q", name, got, want)
		}
		if soft := got[0].Soft; soft != (name == "soon.test") {
			t.Errorf("%s: soft is %v", name, soft)
		}
	}
}

func TestBadOptions(t *testing.T) {
	if _, err := NewFiles(Options{Log: quiet}, nil); err == nil {
		t.Error("no names is no error")
	}
	if _, err := NewFiles(Options{Names: []string{"a.test"}, Log: quiet}, []Pair{{Cert: "/nonexistent", Key: "/nonexistent"}}); err == nil {
		t.Error("a missing file is no error")
	}
	empty := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(empty, nil, 0o600))
	for _, ca := range []string{empty, "/nonexistent"} {
		if _, err := NewSelfSigned(Options{Names: []string{"a.test"}, ExtraCA: ca, Log: quiet}, t.TempDir()); err == nil {
			t.Errorf("extra_ca %s is no error", ca)
		}
	}
}

func TestHTTPHandler(t *testing.T) {
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	self, err := NewSelfSigned(Options{Names: []string{"a.test"}, Log: quiet}, t.TempDir())
	must(t, err)
	auto, err := NewACME(Options{Names: []string{"a.test"}, Log: quiet}, ACMEOptions{Dir: t.TempDir(), Directory: "https://127.0.0.1:1/"})
	must(t, err)
	get := func(m *Manager, path string) int {
		w := httptest.NewRecorder()
		m.HTTPHandler(next).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://a.test"+path, nil))
		return w.Code
	}
	const challenge = "/.well-known/acme-challenge/unknown"
	if got := get(self, challenge); got != http.StatusTeapot {
		t.Errorf("self-signed answers the challenge itself: %d", got)
	}
	if got := get(auto, challenge); got != http.StatusNotFound {
		t.Errorf("an unknown challenge: %d", got)
	}
	if got := get(auto, "/other"); got != http.StatusTeapot {
		t.Errorf("another path: %d", got)
	}
	if !slices.Contains(auto.Server("h2").NextProtos, "acme-tls/1") {
		t.Error("tls-alpn-01 is not offered")
	}
	if p := auto.Inspect("a.test", time.Now()); len(p) != 1 || !p[0].Soft {
		t.Errorf("Inspect without a certificate: %v", p)
	}
}
