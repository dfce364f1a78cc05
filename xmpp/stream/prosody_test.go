package stream_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// TestProsody opens a stream to a real server, with certificates both ways. Debian's prosody must be installed: see
// scripts/install-test-deps.sh.
func TestProsody(t *testing.T) {
	bin, err := exec.LookPath("prosody")
	if err != nil {
		t.Fatalf("this test needs Prosody, which scripts/install-test-deps.sh installs: %v", err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}))
	writeCertificate(t, dir, "b.test", ca.Issue(t, "b.test"))
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port, for prosody to take
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	writeFile(t, dir, "prosody.cfg.lua", fmt.Appendf(nil, `
run_as_root = true
data_path = %[1]q
pidfile = %[2]q
log = { debug = %[3]q }
modules_enabled = { "tls", "saslauth", "ping", "disco" }
modules_disabled = { "s2s_auth_dane_in" }
interfaces = { "127.0.0.1" }
c2s_ports = {}
s2s_ports = { %[4]s }
s2s_secure_auth = true
ssl = { cafile = %[5]q, key = %[6]q, certificate = %[7]q }
VirtualHost "b.test"
`, dir, filepath.Join(dir, "pid"), filepath.Join(dir, "log"), port, filepath.Join(dir, "ca.pem"),
		filepath.Join(dir, "b.test.key"), filepath.Join(dir, "b.test.crt")))
	cmd := exec.Command(bin, "-F", "--config", filepath.Join(dir, "prosody.cfg.lua"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
			t.Logf("%s", log)
		}
	})
	for range 100 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(100 * time.Millisecond)
	}

	w := world{}
	w.add("xmpp-server", "b.test", addr)
	a := newServer(t, w, "a.test", ca.Issue(t, "a.test"), nil)
	conn, err := dial(t, a, "a.test", "b.test")
	if err != nil {
		t.Fatal(err)
	}
	pump(t, conn)
	if conn.Mechanism() != "EXTERNAL" || !conn.Authorized(stream.Pair{Local: "a.test", Remote: "b.test"}) {
		t.Errorf("mechanism %q", conn.Mechanism())
	}
	ping := element.New(stream.NSClient, "iq").SetAttr("type", "get").SetAttr("id", "1").SetAttr("from", "a.test").SetAttr("to", "b.test")
	ping.Add("urn:xmpp:ping", "ping")
	if err := conn.Send(ping); err != nil {
		t.Fatal(err)
	}
	conn.Close(nil)
}

func writeFile(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeCertificate(t testing.TB, dir, name string, cert *tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	writeFile(t, dir, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}
