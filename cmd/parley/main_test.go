package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"parley/config"
)

// binary is the command, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "parley")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// result is what a finished command left.
type result struct {
	stdout, stderr string
	code           int
}

// parley runs the command to its end.
func parley(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	// A command that does not end is a failure; the time is for a busy machine.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), "PARLEY_DIR=")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// want fails the test unless a command ended with the code, and printed the
// texts on either output.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\n%s%s", r.code, code, r.stdout, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("the output has no %q:\n%s%s", text, r.stdout, r.stderr)
		}
	}
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "d")
}

func TestInit(t *testing.T) {
	dir := shortDir(t)
	parley(t, "", "init", "--domain", "Example.org", "--domain", "example.net", "--dir", dir).want(t, 0,
		"_xmpp-client._tcp.example.org.               IN SRV   5 0 5222 example.org.",
		"_xmpps-client._tcp.example.org.", "_xmpps-server._tcp.rooms.example.net.",
		"/.well-known/matrix/client", "/.well-known/host-meta")
	cfg, err := config.Load(dir)
	if err != nil || strings.Join(cfg.Domains, " ") != "example.org example.net" {
		t.Fatalf("configuration: %+v, %v", cfg, err)
	}
	if _, err := config.LoadKeys(cfg.Dir); err != nil {
		t.Error(err)
	}
	for _, path := range []string{dir, cfg.Dir.KeysDir(), cfg.Dir.ConfigFile()} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if _, err := os.Stat(cfg.Dir.DatabaseFile()); err != nil {
		t.Error(err)
	}

	before := read(t, cfg.Dir.ConfigFile())
	parley(t, "", "init", "--domain", "other.example", "--dir", dir).want(t, 1, "is there already; nothing was changed")
	if read(t, cfg.Dir.ConfigFile()) != before {
		t.Error("the configuration was changed")
	}
	if err := os.Remove(cfg.Dir.ConfigFile()); err != nil {
		t.Fatal(err)
	}
	parley(t, "", "init", "--domain", "other.example", "--dir", dir).want(t, 1, "is there already; nothing was changed")
}

func TestInitRefusesBadDomains(t *testing.T) {
	for _, d := range []string{"exa mple.org", "10.0.0.1", "a-.org", ""} {
		dir := shortDir(t)
		parley(t, "", "init", "--domain", d, "--dir", dir).want(t, 1)
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: something was made: %v", d, err)
		}
	}
	parley(t, "", "init", "--dir", shortDir(t)).want(t, 2, "--domain")
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestVersionAndUsage(t *testing.T) {
	if r := parley(t, "", "version"); r.code != 0 || !regexp.MustCompile(`^parley \S+ \(go1\..*\)\n$`).MatchString(r.stdout) {
		t.Errorf("version: %+v", r)
	}
	parley(t, "", "--help").want(t, 0, "PARLEY_DIR", "account")
	parley(t, "", "frobnicate").want(t, 2, "unexpected argument frobnicate")
	parley(t, "").want(t, 2)
}

func TestNoServerThere(t *testing.T) {
	dir := shortDir(t)
	for _, args := range [][]string{{"serve"}, {"check"}, {"account", "list"}} {
		parley(t, "", append(args, "--dir", dir)...).want(t, 1, "there is no server in "+dir, "parley init")
	}
}

// edit replaces text in the configuration.
func edit(t *testing.T, dir, old, with string) {
	t.Helper()
	file := config.Dir(dir).ConfigFile()
	text := read(t, file)
	if !strings.Contains(text, old) {
		t.Fatalf("the configuration has no %q", old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(text, old, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newServer makes a server for localhost that listens on free ports.
func newServer(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	parley(t, "", "init", "--domain", "localhost", "--dir", dir).want(t, 0)
	edit(t, dir, "[listen]\n", "[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\nxmpp = \"127.0.0.1:0\"\nxmpp_tls = \"127.0.0.1:0\"\nxmpp_s2s = \"127.0.0.1:0\"\n")
	return dir
}

func TestConfigErrorsNameTheLine(t *testing.T) {
	dir := newServer(t)
	edit(t, dir, "[listen]\n", "[listen]\nhtpp = \"x\"\n")
	line := 1 + strings.Count(strings.SplitN(read(t, config.Dir(dir).ConfigFile()), "htpp", 2)[0], "\n")
	want := fmt.Sprintf("parley.toml:%d: listen.htpp: unknown key", line)
	for _, args := range [][]string{{"serve"}, {"check"}, {"account", "list"}} {
		parley(t, "", append(args, "--dir", dir)...).want(t, 1, want)
	}
}

func TestAccountsWithoutServer(t *testing.T) {
	dir := newServer(t)
	testAccounts(t, dir)
	// What one process wrote, the next one reads.
	parley(t, "", "account", "list", "--dir", dir).want(t, 0, "carol@localhost")
}

// testAccounts does everything that can be done with accounts.
func testAccounts(t *testing.T, dir string) {
	t.Helper()
	account := func(stdin string, args ...string) result {
		t.Helper()
		return parley(t, stdin, append(append([]string{"account"}, args...), "--dir", dir)...)
	}
	r := account("", "add", "Alice@localhost", "--generate")
	r.want(t, 0)
	if !regexp.MustCompile(`^[a-z2-7]{6}(-[a-z2-7]{6}){3}\n$`).MatchString(r.stdout) {
		t.Errorf("the generated password is not alone on standard output: %q", r.stdout)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	account("", "add", "bob@localhost", "--password-file", file).want(t, 0)
	account("battery staple\n", "add", "carol@localhost").want(t, 0)
	account("battery staple\n", "add", "dave@localhost", "--password-file", "-").want(t, 0)

	account("", "add", "erin@localhost").want(t, 1, "no password")
	account("\n", "add", "erin@localhost").want(t, 1, "the password is empty")
	account("", "add", "erin@localhost", "--password-file", "/nonexistent").want(t, 1, "reading the password")
	account("", "add", "alice@localhost", "--generate").want(t, 1, "taken")
	account("", "add", "alice@elsewhere.example", "--generate").want(t, 1, "not a domain of this server")
	account("", "add", "postmaster@localhost", "--generate").want(t, 1, "reserved")
	for _, bad := range []string{"alice", "@localhost", ".a@localhost", "a..b@localhost", "a b@localhost", strings.Repeat("x", 65) + "@localhost"} {
		account("", "add", bad, "--generate").want(t, 1)
	}
	account("", "add", "erin@localhost", "--generate", "--password-file", file).want(t, 2)

	account("another one\n", "passwd", "bob@localhost").want(t, 0)
	account("another one\n", "passwd", "nobody@localhost").want(t, 1, "no account")
	account("", "disable", "bob@localhost").want(t, 0)
	account("", "disable", "nobody@localhost").want(t, 1, "no account")
	account("", "delete", "dave@localhost").want(t, 0)
	account("", "delete", "nobody@localhost").want(t, 1, "no account")

	list := account("", "list")
	list.want(t, 0)
	state := regexp.MustCompile(`(?m)^(\S+) +(\S+) +\d{4}-\d\d-\d\d$`).FindAllStringSubmatch(list.stdout, -1)
	var got []string
	for _, m := range state {
		got = append(got, m[1]+" "+m[2])
	}
	if s := strings.Join(got, ", "); s != "alice@localhost active, bob@localhost disabled, carol@localhost active" {
		t.Errorf("the list is %s\n%s", s, list.stdout)
	}
	account("", "enable", "bob@localhost").want(t, 0)
	account("", "list").want(t, 0, "bob@localhost    active")
}

// running is a server process.
type running struct {
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan error
}

// start runs a server until it answers on its socket.
func start(t *testing.T, dir string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(binary, "serve", "--dir", dir), log: new(bytes.Buffer), done: make(chan error, 1)}
	r.cmd.Stderr = r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() { r.cmd.Process.Kill() })
	for {
		if _, err := dialAdmin(t.Context(), config.Dir(dir)); err == nil {
			return r
		}
		select {
		case err := <-r.done:
			t.Fatalf("the server ended: %v\n%s", err, r.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop signals the server and waits for its end.
func (r *running) stop(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := <-r.done; err != nil && sig == syscall.SIGTERM {
		t.Fatalf("the server did not stop cleanly: %v\n%s", err, r.log)
	}
}

func TestServe(t *testing.T) {
	dir := newServer(t)
	r := start(t, dir)
	testAccounts(t, dir)
	socket := config.Dir(dir).AdminSocket()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	parley(t, "", "serve", "--dir", dir).want(t, 1, "in use")
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	parley(t, "", "check", "--dir", dir).want(t, 0, "running since", "0 broken")
	r.stop(t, syscall.SIGTERM)
	if !strings.Contains(r.log.String(), "certificates reloaded") {
		t.Errorf("SIGHUP did nothing:\n%s", r.log)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	// A killed server leaves its socket behind; neither the account commands
	// nor the next start mind.
	r = start(t, dir)
	r.stop(t, syscall.SIGKILL)
	parley(t, "", "account", "list", "--dir", dir).want(t, 0, "alice@localhost")
	r = start(t, dir)
	r.stop(t, syscall.SIGTERM)
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := newServer(t)
	edit(t, dir, "https = \"127.0.0.1:0\"", fmt.Sprintf("https = %q", ln.Addr()))
	parley(t, "", "serve", "--dir", dir).want(t, 1, "[listen] https = ", "another program uses port")
	parley(t, "", "check", "--dir", dir).want(t, 1, "BROKEN  ports", "another program uses port", "1 broken")
}

func TestCheckKeysAndDatabase(t *testing.T) {
	dir := newServer(t)
	parley(t, "", "check", "--dir", dir).want(t, 0, "ok      keys", "ok      database       SQLite", "0 broken")
	if err := os.Chmod(filepath.Join(dir, "keys", "matrix-signing.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(config.Dir(dir).DatabaseFile()); err != nil {
		t.Fatal(err)
	}
	parley(t, "", "check", "--dir", dir).want(t, 1, "chmod 600", "BROKEN  database", "2 broken")
	if _, err := os.Stat(config.Dir(dir).DatabaseFile()); err == nil {
		t.Error("check made a database")
	}
}

// zone answers DNS questions on loopback from the lines of a zone file.
func zone(t *testing.T, lines ...string) string {
	t.Helper()
	var records []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rr)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Rcode = dns.RcodeNameError
		for _, rr := range records {
			if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				m.Rcode = dns.RcodeSuccess
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})}
	go srv.ActivateAndServe()
	<-started
	t.Cleanup(func() { srv.Shutdown() })
	return pc.LocalAddr().String()
}

func TestCheckDNS(t *testing.T) {
	init := func(resolver string) string {
		dir := shortDir(t)
		parley(t, "", "init", "--domain", "example.test", "--dir", dir).want(t, 0)
		edit(t, dir, "[listen]\n", "[listen]\nhttp = \"\"\nhttps = \"\"\nxmpp_tls = \"127.0.0.1:15223\"\nxmpp = \"127.0.0.1:15222\"\nxmpp_s2s = \"127.0.0.1:15269\"\n")
		edit(t, dir, "[dns]\n", fmt.Sprintf("[dns]\nresolver = %q\n", resolver))
		return dir
	}
	good := []string{
		"example.test. A 127.0.0.1",
		"_xmpp-client._tcp.example.test. SRV 5 0 15222 example.test.",
		"_xmpps-client._tcp.example.test. SRV 5 0 15223 example.test.",
		"_xmpp-server._tcp.example.test. SRV 5 0 15269 example.test.",
		"_xmpps-server._tcp.example.test. SRV 5 0 15269 example.test.",
		"_xmpp-server._tcp.rooms.example.test. SRV 5 0 15269 example.test.",
		"_xmpps-server._tcp.rooms.example.test. SRV 5 0 15269 example.test.",
	}
	parley(t, "", "check", "--dir", init(zone(t, good...))).want(t, 0,
		"ok      DNS            _xmpp-client._tcp.example.test", "example.test has 127.0.0.1", "self-signed", "0 broken, 1 warnings")

	wrong := append([]string(nil), good...)
	wrong[1] = "_xmpp-client._tcp.example.test. SRV 5 0 5222 example.test."
	wrong[3] = "_xmpp-server._tcp.example.test. SRV 5 0 15269 nowhere.test."
	parley(t, "", "check", "--dir", init(zone(t, wrong...))).want(t, 1,
		"_xmpp-client._tcp.example.test leads to example.test. port 5222; this server listens on port 15222",
		"_xmpp-server._tcp.example.test leads to nowhere.test., which has no address", "2 broken")

	parley(t, "", "check", "--dir", init(zone(t, good[0]))).want(t, 1,
		"_xmpp-client._tcp.example.test is not published: XMPP clients try port 5222",
		"publish: _xmpps-client._tcp.example.test. IN SRV 5 0 15223",
		"rooms.example.test has no address")
}

// realMain is also run in this process, for what needs no process of its own.
func TestHelpOfEveryCommand(t *testing.T) {
	for _, args := range [][]string{{"init"}, {"serve"}, {"account"}, {"account", "add"}, {"account", "passwd"}, {"check"}, {"version"}} {
		var out bytes.Buffer
		code := realMain(context.Background(), append(args, "--help"), strings.NewReader(""), &out, io.Discard)
		if code != 0 || !strings.Contains(out.String(), "Usage: parley "+strings.Join(args, " ")) {
			t.Errorf("%v --help: code %d\n%s", args, code, out.String())
		}
	}
}

// TestUntilStopped: a job that is stopped while it reads has not failed; others have.
func TestUntilStopped(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	reading := func(context.Context) error { return fmt.Errorf("reading: %w", context.Canceled) }
	if err := untilStopped(stopped, reading); err != nil {
		t.Errorf("told to stop: %v", err)
	}
	if err := untilStopped(t.Context(), reading); err == nil {
		t.Error("a job that was not told to stop may not end so")
	}
	if err := untilStopped(stopped, func(context.Context) error { return io.ErrUnexpectedEOF }); err == nil {
		t.Error("another failure is one, also then")
	}
}
