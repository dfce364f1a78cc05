package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Server is a server of the lab, Parley or a peer.
type Server interface {
	// Domain is the domain of its accounts.
	Domain() string
	// Host is the machine that it runs on.
	Host() *Host
	// Version is what the program says of itself, e.g. "Prosody 0.12.3".
	Version(context.Context) (string, error)
	// AddAccount makes an account, also while the server runs.
	AddAccount(ctx context.Context, local, password string) error
	// AddAccounts makes many, while the server runs.
	AddAccounts(ctx context.Context, locals []string, password string) error

	// Start starts the server and returns when its ports answer.
	Start(context.Context) error
	// Stop asks the server to end and returns when it has.
	Stop(context.Context) error
	// Kill ends the server as a crash would (SIGKILL).
	Kill()
	// Pin has the server run on one processor only, from its next start.
	Pin(cpu int)
	// PID is the running server's process ID.
	PID() int
	// Log returns the end of what the server logged.
	Log() string
}

// process is a server's program on a host: started, stopped, killed and started again.
// What it prints is appended to the file "log" in the host's folder.
type process struct {
	host    *Host
	command []string
	env     []string
	ready   []uint16 // TCP ports that answer when it has started
	logs    []string // further files that it logs to
	cpu     string   // the processor to run on, empty for any

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	err  error         // how, valid after done
}

// newProcess registers a program with the lab, which kills it on Close.
func (h *Host) newProcess(p *process) *process {
	p.host = h
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.lab.servers = append(h.lab.servers, p)
	return p
}

func (p *process) logFile() string { return filepath.Join(p.host.Dir, "log") }

// Host returns the machine that the program runs on.
func (p *process) Host() *Host { return p.host }

// Pin has the program run on one processor only, from its next start.
func (p *process) Pin(cpu int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cpu = strconv.Itoa(cpu)
}

// PID is the process ID of the running program, whose children belong to it.
func (p *process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Start starts the program and returns when its ports answer.
func (p *process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("lab: starting %s: %w", p.host.Name, err)
	}
	defer out.Close()
	command := p.command
	if p.cpu != "" {
		command = append([]string{"taskset", "-c", p.cpu}, command...) // becomes the program by exec
	}
	p.cmd = p.host.Command(context.Background(), command[0], command[1:]...)
	p.cmd.Dir, p.cmd.Env = p.host.Dir, append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("lab: starting %s: %w", p.host.Name, err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		p.err = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
	return p.waitReady(ctx)
}

// startTimeout is how long a server may take until its ports answer.
const startTimeout = time.Minute

func (p *process) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, port := range p.ready {
		addr := netip.AddrPortFrom(p.host.Addr4, port).String()
		for {
			conn, err := p.host.Dial(ctx, "tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case <-p.done:
				return fmt.Errorf("lab: %s ended while starting (%v):\n%s", p.host.Name, p.err, p.Log())
			case <-ctx.Done():
				return fmt.Errorf("lab: %s does not answer on %s: %w:\n%s", p.host.Name, addr, ctx.Err(), p.Log())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// Stop sends SIGTERM and waits for the end; a program that ignores it is killed, and
// that is an error.
func (p *process) Stop(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("lab: stopping %s: %w", p.host.Name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.killGroup()
		return fmt.Errorf("lab: %s did not stop when asked: %w", p.host.Name, ctx.Err())
	}
}

// Kill ends the program as a crash would.
func (p *process) Kill() { p.kill() }

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.killGroup()
	}
}

func (p *process) killGroup() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
	<-p.done
}

// Done is closed when the program has ended, by whatever cause.
func (p *process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Log returns the end of what the program printed and logged.
func (p *process) Log() string {
	var all string
	for _, file := range append([]string{p.logFile()}, p.logs...) {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err.Error()
		}
		if len(data) > 0 {
			all += "--- " + file + "\n" + lastLines(data, 60) + "\n"
		}
	}
	return all
}
