package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/interop/lab"
)

// terminal is a program in a terminal of its own (tmux), which a test types into and
// reads the screen of.
type terminal struct {
	host   *lab.Host
	socket string
}

func startTerminal(ctx context.Context, host *lab.Host, dir string, command ...string) (*terminal, error) {
	term := &terminal{host: host, socket: filepath.Join(dir, "tmux")}
	args := append([]string{"-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "50"}, command...)
	return term, term.tmux(ctx, args...)
}

func (t *terminal) command(ctx context.Context, args ...string) *exec.Cmd {
	return t.host.Command(ctx, "tmux", append([]string{"-u", "-S", t.socket}, args...)...)
}

func (t *terminal) tmux(ctx context.Context, args ...string) error {
	if out, err := t.command(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("tmux %s: %w: %s", args[0], err, out)
	}
	return nil
}

// typeLine types a line and the Enter key.
func (t *terminal) typeLine(ctx context.Context, line string) error {
	if err := t.tmux(ctx, "send-keys", "-l", line); err != nil {
		return err
	}
	return t.tmux(ctx, "send-keys", "Enter")
}

// read waits until the screen shows a text.
func (t *terminal) read(ctx context.Context, text string) error {
	return t.wait(ctx, text, true)
}

// readGone waits until the screen does not show a text any more.
func (t *terminal) readGone(ctx context.Context, text string) error {
	return t.wait(ctx, text, false)
}

func (t *terminal) wait(ctx context.Context, text string, shown bool) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	for {
		screen, err := t.command(context.WithoutCancel(ctx), "capture-pane", "-p", "-J").Output()
		if err != nil {
			return fmt.Errorf("reading the screen: %w", err)
		}
		if strings.Contains(string(screen), text) == shown {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the screen should show %q: %v; it shows:\n%s", text, shown, strings.TrimSpace(string(screen)))
		case <-time.After(100 * time.Millisecond): // a screen has no events to wait for
		}
	}
}

// startProfanity logs an account in at Profanity, a client for terminals.
func startProfanity(ctx context.Context, t *testing.T, w *World, who Address) *terminal {
	t.Helper()
	home := t.TempDir()
	data := filepath.Join(home, "data", "profanity")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	account := fmt.Sprintf("[%[1]s]\nenabled=true\njid=%[1]s\npassword=%[2]s\nresource=terminal\ntls.policy=force\n", who, password)
	if err := os.WriteFile(filepath.Join(data, "accounts"), []byte(account), 0o600); err != nil {
		t.Fatal(err)
	}
	term, err := startTerminal(ctx, w.desk, home, "env", "HOME="+home, "TERM=screen", "LANG=C.UTF-8",
		"XDG_CONFIG_HOME="+filepath.Join(home, "config"), "XDG_DATA_HOME="+filepath.Join(home, "data"),
		"SSL_CERT_FILE="+w.Lab.ClientTrust, "profanity", "-a", who.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.tmux(context.WithoutCancel(ctx), "kill-server") }) // it may have ended already
	if err := term.read(ctx, "logged in successfully"); err != nil {
		t.Fatal(err)
	}
	return term
}

// testTerminal has a person at Profanity, a client for terminals, talk with one at
// slixmpp on the same server.
func testTerminal(ctx context.Context, t *testing.T, w *World, site *Site) {
	alice, err := w.NewAccount(ctx, site, "alice")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := w.NewAccount(ctx, site, "bob")
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Login(ctx, driver(t, "slixmpp"), site, bob)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	term := startProfanity(ctx, t, w, alice)
	watch := b.Watch()
	asked := "Hello from a terminal " + token()
	steps := []string{"/sub request " + bob.String(), "/msg " + bob.String() + " " + asked}
	if err := term.typeLine(ctx, steps[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "a contact request", func(e *Event) bool { return e.Event == "contact_request" }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Do(ctx, "approve_contact", Args{"user": alice}); err != nil {
		t.Fatal(err)
	}
	if err := term.typeLine(ctx, steps[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "the typed message", func(e *Event) bool {
		return e.Event == "message" && e.Body == asked && e.From == alice.String()
	}); err != nil {
		t.Fatal(err)
	}
	answer := "Hello " + token()
	if _, err := b.Do(ctx, "send", Args{"to": alice, "body": answer}); err != nil {
		t.Fatal(err)
	}
	if err := term.read(ctx, answer); err != nil {
		t.Fatal(err)
	}
}
