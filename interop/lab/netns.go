package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Host is one machine of the lab: a network namespace with an IPv4 and an IPv6 address
// on the lab's bridge, the lab's DNS server in its resolv.conf, and a folder.
type Host struct {
	Name  string
	Dir   string // for configuration, data and logs
	Addr4 netip.Addr
	Addr6 netip.Addr

	lab *Lab
}

// firstHost is the last byte of the first host's addresses; the DNS server is .53.
const firstHost, dnsHost = 100, 53

func (l *Lab) switchNS() string { return "parley-" + l.ID + "-switch" }

func (h *Host) ns() string { return "parley-" + h.lab.ID + "-" + h.Name }

// address returns the lab address whose last byte is n.
func address(network netip.Prefix, n byte) netip.Addr {
	b := network.Addr().AsSlice()
	b[len(b)-1] = n
	a, _ := netip.AddrFromSlice(b)
	return a
}

func prefixed(network netip.Prefix, n byte) string {
	return netip.PrefixFrom(address(network, n), network.Bits()).String()
}

// buildSwitch makes the namespace that holds the bridge, which also is where the DNS
// server listens.
func (l *Lab) buildSwitch(ctx context.Context) error {
	ns := l.switchNS()
	return runAll(ctx, [][]string{
		{"ip", "netns", "add", ns},
		{"ip", "-n", ns, "link", "set", "lo", "up"},
		{"ip", "-n", ns, "link", "add", "bridge", "type", "bridge", "forward_delay", "0"},
		{"ip", "-n", ns, "link", "set", "bridge", "up"},
		{"ip", "-n", ns, "address", "add", prefixed(network4, dnsHost), "dev", "bridge"},
		{"ip", "-n", ns, "address", "add", prefixed(network6, dnsHost), "dev", "bridge", "nodad"},
	})
}

// AddHost adds a machine that is reached under the given domain names.
func (l *Lab) AddHost(ctx context.Context, name string, domains ...string) (*Host, error) {
	l.mu.Lock()
	n := byte(firstHost + len(l.hosts))
	h := &Host{
		Name: name, Dir: filepath.Join(l.Dir, name), lab: l,
		Addr4: address(network4, n), Addr6: address(network6, n),
	}
	l.hosts[name] = h
	l.mu.Unlock()

	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab: host %s: %w", name, err)
	}
	etc := filepath.Join("/etc/netns", h.ns())
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return nil, fmt.Errorf("lab: host %s: %w", name, err)
	}
	resolv := fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:2\n", address(network4, dnsHost))
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte(resolv), 0o644); err != nil {
		return nil, fmt.Errorf("lab: host %s: %w", name, err)
	}
	ns, port := h.ns(), fmt.Sprintf("port%d", n)
	err := runAll(ctx, [][]string{
		{"ip", "netns", "add", ns},
		{"ip", "-n", l.switchNS(), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns},
		{"ip", "-n", l.switchNS(), "link", "set", port, "master", "bridge", "up"},
		{"ip", "-n", ns, "link", "set", "lo", "up"},
		{"ip", "-n", ns, "link", "set", "eth0", "up"},
		{"ip", "-n", ns, "address", "add", prefixed(network4, n), "dev", "eth0"},
		{"ip", "-n", ns, "address", "add", prefixed(network6, n), "dev", "eth0", "nodad"},
	})
	if err != nil {
		return nil, fmt.Errorf("lab: host %s: %w", name, err)
	}
	for _, domain := range domains {
		l.DNS.AddAddress(domain, h.Addr4, h.Addr6)
	}
	return h, nil
}

func runAll(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		if err := run(ctx, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// Command prepares a program that runs on the host. `ip netns exec` becomes the program
// by exec, so the process ID and the signals are the program's.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.ns(), name}, args...)...)
}

// Dial connects as a program on the host would. The address must be literal.
func (h *Host) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	nsErr := inNamespace(h.ns(), func() {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, addr)
	})
	if nsErr != nil {
		return nil, nsErr
	}
	return conn, err
}

// Listen opens a port of the host to whoever runs the lab, who may play a server there. The
// address must be literal.
func (h *Host) Listen(network, addr string) (listener net.Listener, err error) {
	nsErr := inNamespace(h.ns(), func() { listener, err = net.Listen(network, addr) })
	if nsErr != nil {
		return nil, nsErr
	}
	return listener, err
}

// nowhere is a hardware address that no host of the lab has.
const nowhere = "02:00:00:00:00:00"

// Cut has everything that two hosts send each other get lost, without a word to either, as
// when a cable is cut. Connections that are open stay so until somebody gives up.
func (l *Lab) Cut(ctx context.Context, a, b *Host) error {
	return l.neighbours(ctx, a, b, func(addr string) []string {
		return []string{"replace", addr, "lladdr", nowhere, "nud", "permanent", "dev", "eth0"}
	})
}

// Mend undoes Cut.
func (l *Lab) Mend(ctx context.Context, a, b *Host) error {
	return l.neighbours(ctx, a, b, func(addr string) []string { return []string{"delete", addr, "dev", "eth0"} })
}

// neighbours changes what two hosts know about how to reach each other on the bridge.
func (l *Lab) neighbours(ctx context.Context, a, b *Host, change func(addr string) []string) error {
	for _, pair := range [][2]*Host{{a, b}, {b, a}} {
		for _, addr := range []netip.Addr{pair[1].Addr4, pair[1].Addr6} {
			args := append([]string{"-n", pair[0].ns(), "neighbour"}, change(addr.String())...)
			if err := run(ctx, "ip", args...); err != nil {
				return fmt.Errorf("lab: between %s and %s: %w", a.Name, b.Name, err)
			}
		}
	}
	return nil
}

// inNamespace runs f on an operating system thread that is inside the network namespace.
// Sockets that f opens stay there; goroutines that f starts do not.
func inNamespace(name string, f func()) error {
	target, err := os.Open(filepath.Join("/run/netns", name))
	if err != nil {
		return fmt.Errorf("lab: entering namespace: %w", err)
	}
	defer target.Close()
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err != nil {
			runtime.UnlockOSThread()
			errc <- fmt.Errorf("lab: entering namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			errc <- fmt.Errorf("lab: entering namespace %s: %w", name, err)
			return
		}
		f()
		// A thread that cannot go back stays locked and so ends with this goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		errc <- nil
	}()
	return <-errc
}
