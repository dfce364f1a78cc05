package durability

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/certs"
)

// The accounts of every server, which have one password.
const (
	domain   = "example.org"
	password = "correct horse battery"
)

var people = []string{"mona", "milo", "xena", "xavi"}

// target is where clients find a server.
type target struct {
	http  string // base URL, plain HTTP
	https string // host and port
	xmpp  string // host and port, STARTTLS
	tls   *tls.Config
}

// process is the built command, with a directory of its own.
type process struct {
	target
	t      *testing.T
	binary string
	dir    string
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended
}

// command builds the command once.
var command = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "parley-durability-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "parley")
	if out, err := exec.Command("go", "build", "-o", path, "parley/cmd/parley").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building parley: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := command(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// newProcess makes a server with its accounts on the database at url, SQLite in its directory if that is empty, and starts it.
// limits is appended to its section of the configuration.
func newProcess(t *testing.T, url, limits string) *process {
	t.Helper()
	path, err := command()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, binary: path, dir: filepath.Join(t.TempDir(), "d")}
	p.command("init", "--domain", domain, "--dir", p.dir)
	ports := freePorts(t, 4)
	config := fmt.Sprintf(`domains = [%q]
[listen]
http = %q
https = %q
xmpp = %q
xmpp_tls = ""
xmpp_s2s = %q
[database]
url = %q
[limits]
messages_per_minute = 1000000
message_burst = 1000000
%s
[log]
level = "info"
`, domain, ports[0], ports[1], ports[2], ports[3], url, limits)
	if err := os.WriteFile(filepath.Join(p.dir, "parley.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p.target = target{http: "http://" + ports[0], https: ports[1], xmpp: ports[2]}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", p.log())
		}
	})
	p.start()
	for _, name := range people {
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.command("account", "add", name+"@"+domain, "--password-file", file, "--dir", p.dir)
	}
	p.target.tls = trust(t, certs.SelfSignedFile(filepath.Join(p.dir, "tls")))
	return p
}

func (p *process) command(args ...string) {
	p.t.Helper()
	if out, err := exec.Command(p.binary, args...).CombinedOutput(); err != nil {
		p.t.Fatalf("parley %s: %v\n%s", args[0], err, out)
	}
}

// trust is for clients that believe one certificate.
func trust(t testing.TB, file string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", file)
	}
	return &tls.Config{RootCAs: roots, ServerName: domain, MinVersion: tls.VersionTLS12}
}

// freePorts finds addresses that nobody listens on. Servers keep theirs over restarts, so the kernel cannot choose them each time.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		out = append(out, ln.Addr().String())
	}
	return out
}

// start starts the server and returns when it takes connections. One whose forerunner was killed must first wait until that one's
// lease on a PostgreSQL database has run out; what looks after servers would start it again as this does.
func (p *process) start() {
	p.t.Helper()
	for !p.launch() {
		if !strings.Contains(p.log(), "opening the database") {
			p.t.Fatalf("the server does not start:\n%s", p.log())
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// launch starts the server once; false if it ended before it took connections.
func (p *process) launch() bool {
	p.t.Helper()
	out, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(p.binary, "serve", "--dir", p.dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	p.cmd, p.done = cmd, done
	for _, addr := range []string{strings.TrimPrefix(p.http, "http://"), p.xmpp} {
		for {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case <-done:
				return false
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return true
}

// kill ends the server as nothing can prepare for.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended, which alive tells
	<-p.done
	p.cmd = nil
}

// alive fails the test if the server has ended by itself.
func (p *process) alive() {
	p.t.Helper()
	select {
	case <-p.done:
		p.t.Fatalf("the server has ended: %v\n%s", p.cmd.ProcessState, p.log())
	default:
	}
}

func (p *process) logFile() string { return filepath.Join(p.dir, "log") }

// log is the end of what the server has logged.
func (p *process) log() string {
	b, err := os.ReadFile(p.logFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

// pause waits a little between two tries; false if there is to be no other.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(20 * time.Millisecond):
		return true
	}
}
