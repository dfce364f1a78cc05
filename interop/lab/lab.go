// Package lab builds a small closed internet on one machine: network namespaces
// joined by a bridge, a DNS server, a certificate authority, and in it the servers
// under test, each with its own address and the standard ports. Parley runs there as
// a black box, beside the servers of others that it federates with (Prosody, ejabberd).
//
// Everything is private to one [Lab]: the bridge lives in a namespace of its own, so
// two labs use the same addresses and never meet. A janitor process takes the lab down
// when its owner closes it or dies, so that nothing outlives a killed test.
package lab

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

//go:embed janitor.sh
var janitorScript string

// Options says how a lab is kept.
type Options struct {
	// Dir keeps configuration, data and logs of every server there after the lab is
	// closed. Empty means a temporary directory, removed on Close.
	Dir string
	// Load configures the servers to be measured instead of looked into: they log
	// warnings only, and nothing holds back a client that sends fast.
	Load bool
	// SQLite has peers keep archives in SQLite, as they recommend for small servers,
	// and not where Debian's packages keep them.
	SQLite bool
}

// Lab is one closed internet. Its methods may be called from several goroutines.
type Lab struct {
	ID  string // random, part of every name on the machine
	Dir string // one folder per host
	CA  *CA
	DNS *DNS
	// ClientTrust is a file with the certificates of all authorities that people's
	// clients trust: the lab's, and those of peers whose servers nobody else can check.
	ClientTrust string

	load, sqlite bool // see Options
	janitor      *exec.Cmd
	janitorStdin io.Closer

	mu      sync.Mutex
	hosts   map[string]*Host
	servers []*process
	webs    []*http.Server // see Delegate
}

// The lab's networks. They exist in the lab's own namespaces only.
var (
	network4 = netip.MustParsePrefix("10.77.0.0/24")
	network6 = netip.MustParsePrefix("fd77::/64")
)

// Networks returns the address ranges that hosts of a lab live in, for servers that
// must be told which private networks they may reach.
func Networks() []netip.Prefix { return []netip.Prefix{network4, network6} }

// Start installs what is missing (see ../install.sh), cleans up after killed labs and
// builds an empty lab. It needs root on Linux, and says so.
func Start(ctx context.Context, opts Options) (*Lab, error) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return nil, errors.New("lab: needs Linux and root, for network namespaces and port 53")
	}
	if err := install(ctx); err != nil {
		return nil, err
	}
	if err := run(ctx, "bash", "-c", janitorScript, "janitor", "sweep"); err != nil {
		return nil, fmt.Errorf("lab: cleaning up after a killed lab: %w", err)
	}
	l := &Lab{ID: randomID(), load: opts.Load, sqlite: opts.SQLite, hosts: make(map[string]*Host)}
	if err := l.makeDir(opts); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := l.startJanitor(opts.Dir != ""); err != nil {
		return nil, fmt.Errorf("lab: starting the janitor: %w", err)
	}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	var err error
	if l.CA, err = NewCA(filepath.Join(l.Dir, "ca.pem")); err != nil {
		return fmt.Errorf("lab: making the certificate authority: %w", err)
	}
	l.ClientTrust = filepath.Join(l.Dir, "client-trust.pem")
	if err := l.trust(l.CA); err != nil {
		return err
	}
	if err := l.buildSwitch(ctx); err != nil {
		return fmt.Errorf("lab: building the network (are network namespaces allowed here?): %w", err)
	}
	if l.DNS, err = startDNS(l.switchNS()); err != nil {
		return fmt.Errorf("lab: starting DNS: %w", err)
	}
	return nil
}

// trust has the clients trust an authority.
func (l *Lab) trust(ca *CA) error {
	cert, err := os.ReadFile(ca.File)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	f, err := os.OpenFile(l.ClientTrust, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if _, err := f.Write(cert); err != nil {
		f.Close()
		return fmt.Errorf("lab: %w", err)
	}
	return f.Close()
}

// Close stops every server and removes all traces but a kept directory.
func (l *Lab) Close() error {
	l.mu.Lock()
	servers := l.servers
	l.servers = nil
	l.mu.Unlock()
	for _, s := range servers {
		s.kill()
	}
	for _, web := range l.webs {
		_ = web.Close() // the sockets go with their namespace in any case
	}
	if l.DNS != nil {
		l.DNS.close()
	}
	if err := l.janitorStdin.Close(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := l.janitor.Wait(); err != nil {
		return fmt.Errorf("lab: janitor: %w", err)
	}
	return nil
}

func (l *Lab) makeDir(opts Options) error {
	if opts.Dir == "" {
		dir, err := os.MkdirTemp("", "parley-lab-"+l.ID+"-")
		l.Dir = dir
		if err != nil {
			return err
		}
		return os.Chmod(dir, 0o755)
	}
	dir, err := filepath.Abs(opts.Dir)
	l.Dir = dir
	if err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// startJanitor starts the process that cleans up when this one is gone. It has its own
// session, so that an interrupt from the terminal does not reach it.
func (l *Lab) startJanitor(keep bool) error {
	args := []string{"-c", janitorScript, "janitor", "watch", l.ID, l.Dir}
	if keep {
		args = append(args, "keep")
	}
	l.janitor = exec.Command("bash", args...)
	l.janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := l.janitor.StdinPipe()
	if err != nil {
		return err
	}
	l.janitorStdin = stdin
	stdout, err := l.janitor.StdoutPipe()
	if err != nil {
		return err
	}
	if err := l.janitor.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return fmt.Errorf("it ended at once: %w", err)
	}
	return nil
}

// Root returns the directory of the interop package's sources, where install.sh and
// the drivers are.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(file))
}

func install(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, filepath.Join(Root(), "install.sh")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: interop/install.sh: %w\n%s", err, lastLines(out, 20))
	}
	return nil
}

// run runs a command to its end; what it printed is in the error.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", summary(name, args), err, lastLines(out, 20))
	}
	return nil
}

func summary(name string, args []string) string {
	s := strings.Join(append([]string{name}, args...), " ")
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return s
}

func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

func randomID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}
