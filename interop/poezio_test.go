package interop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// nobody is a user without rights: some clients refuse to run as root.
const nobody = 65534

// startPoezio logs an account in at poezio, a client for terminals.
func startPoezio(ctx context.Context, t *testing.T, w *World, who Address) *terminal {
	t.Helper()
	home, err := os.MkdirTemp("", "poezio") // where nobody may go, as not in the test's own folder
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	ca, err := os.ReadFile(w.Lab.ClientTrust)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[Poezio]\njid = %s/poezio\npassword = %s\nca_cert_path = %s\nuse_log = false\nautorejoin = false\n",
		who, password, filepath.Join(home, "ca.pem"))
	for name, data := range map[string][]byte{"ca.pem": ca, "poezio.cfg": []byte(config)} {
		if err := os.WriteFile(filepath.Join(home, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(home, name), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	user := fmt.Sprint(nobody)
	term, err := startTerminal(ctx, w.desk, t.TempDir(), "setpriv", "--reuid="+user, "--regid="+user, "--clear-groups",
		"env", "HOME="+home, "TERM=screen-256color", "LANG=C.UTF-8", "XDG_CONFIG_HOME="+filepath.Join(home, "config"),
		"XDG_DATA_HOME="+filepath.Join(home, "data"), "XDG_CACHE_HOME="+filepath.Join(home, "cache"),
		"poezio", "--file", filepath.Join(home, "poezio.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.tmux(context.WithoutCancel(ctx), "kill-server") }) // it may have ended already
	if err := term.read(ctx, "Your JID is "+who.String()); err != nil {
		t.Fatal(err)
	}
	return term
}

// rosterCommand gives poezio a command in its list of contacts, which takes single keys;
// only "/" makes it take a line.
func (t *terminal) rosterCommand(ctx context.Context, command string) error {
	const keys = "Enter commands with"
	if err := t.read(ctx, keys); err != nil {
		return err
	}
	if err := t.tmux(ctx, "send-keys", "-l", "/"); err != nil {
		return err
	}
	if err := t.readGone(ctx, keys); err != nil {
		return err
	}
	return t.enter(ctx, command)
}

// enter types a line and, once it is read, the Enter key: poezio takes what comes at once
// for pasted, with an end of line in it.
func (t *terminal) enter(ctx context.Context, line string) error {
	if err := t.tmux(ctx, "send-keys", "-l", line); err != nil {
		return err
	}
	if err := t.read(ctx, line); err != nil {
		return err
	}
	return t.tmux(ctx, "send-keys", "Enter")
}

// TestPoezio has a person at poezio talk with one at a Matrix client, who asked her first,
// and with him and another in a room.
func TestPoezio(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	s := &Session{World: w, SeatA: Seat{driver(t, "matrixjs"), w.Parley}, SeatB: Seat{driver(t, "xmppjs"), w.Parley}}
	if err := s.login(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { s.A.Close(); s.B.Close() }()
	carol, err := w.NewAccount(ctx, w.Parley, "carol")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := joinRoom(ctx, s); err != nil {
		t.Fatal(err)
	}
	before, _, err := place{s, true}.say(ctx, s.A, s.B, nil)
	if err != nil {
		t.Fatal(err)
	}
	said := time.Now()
	term := startPoezio(ctx, t, w, carol)

	watch := s.A.Watch()
	if _, err := s.A.Do(ctx, "add_contact", Args{"user": carol}); err != nil {
		t.Fatal(err)
	}
	if err := term.read(ctx, s.A.Address.String()+" wants to subscribe"); err != nil {
		t.Fatal(err)
	}
	if err := term.rosterCommand(ctx, "accept "+s.A.Address.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "that she accepted", func(e *Event) bool {
		return e.Event == "contact" && e.User == carol.String() && e.State == "both"
	}); err != nil {
		t.Fatal(err)
	}
	asked := "Are you there? " + token()
	if _, err := s.A.Do(ctx, "send", Args{"to": carol, "body": asked}); err != nil {
		t.Fatal(err)
	}
	answer := "I am " + token()
	if err := term.rosterCommand(ctx, "message "+s.A.Address.String()); err != nil {
		t.Fatal(err)
	}
	if err := term.read(ctx, asked); err != nil {
		t.Fatal(err)
	}
	if err := term.enter(ctx, answer); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "the answer", func(e *Event) bool {
		return e.Event == "message" && e.From == carol.String() && e.Body == answer
	}); err != nil {
		t.Fatal(err)
	}
	// poezio asks for what was said until some whole second in the past.
	time.Sleep(time.Until(said.Add(3 * time.Second)))
	testPoezioRoom(ctx, t, s, term, before)
}

// testPoezioRoom has her enter the room of the two, read what was said before, and talk.
func testPoezioRoom(ctx context.Context, t *testing.T, s *Session, term *terminal, before *exchanged) {
	p := place{s, true}
	if err := term.enter(ctx, "/join "+s.room.Spell(XMPP, ParleyDomain)+"/Carol"); err != nil {
		t.Fatal(err)
	}
	if err := term.read(ctx, before.body); err != nil {
		t.Fatal(err)
	}
	said := "Good morning " + token()
	watches := []*Watch{s.A.Watch(), s.B.Watch()}
	if err := term.enter(ctx, said); err != nil {
		t.Fatal(err)
	}
	for _, watch := range watches {
		if _, err := watch.For(ctx, "what she said in the room", func(e *Event) bool {
			return e.Event == "message" && e.Room == s.room.Local && e.Body == said
		}); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []*Client{s.A, s.B} {
		said, _, err := p.say(ctx, c, s.other(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := term.read(ctx, said.body); err != nil {
			t.Error(err)
		}
	}
}
