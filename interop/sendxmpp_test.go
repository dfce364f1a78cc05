package interop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// sendxmpp prepares go-sendxmpp, a client for scripts, for an account.
func (w *World) sendxmpp(ctx context.Context, who Address, args ...string) *exec.Cmd {
	args = append([]string{"--username=" + who.String(), "--password=" + password, "--timeout=60"}, args...)
	cmd := w.desk.Command(ctx, "go-sendxmpp", args...)
	cmd.Env = append(cmd.Environ(), "SSL_CERT_FILE="+w.Lab.ClientTrust, "HOME="+w.desk.Dir)
	return cmd
}

// pipe runs go-sendxmpp with a text on its standard input, as a script does.
func pipe(t *testing.T, cmd *exec.Cmd, text string) {
	t.Helper()
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args[4:], err, out)
	}
}

// readUntil reads lines until one holds a text; the program's end or the context's is an error.
func readUntil(ctx context.Context, lines *bufio.Scanner, text string) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	found := make(chan error, 1)
	go func() {
		var seen []string
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				found <- nil
				return
			}
			seen = append(seen, lines.Text())
		}
		found <- fmt.Errorf("it printed no %q but %q", text, seen)
	}()
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %q: %w", text, ctx.Err())
	}
}

// TestScripts has go-sendxmpp, a client for scripts, send a piped text, a file and a
// message to a room, and listen, to people with an XMPP and a Matrix client.
func TestScripts(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	s := &Session{World: w, SeatA: Seat{driver(t, "xmppjs"), w.Parley}, SeatB: Seat{driver(t, "matrixjs"), w.Parley}}
	if err := s.login(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { s.A.Close(); s.B.Close() }()
	script, err := w.NewAccount(ctx, w.Parley, "script")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("text", func(t *testing.T) { testPiped(ctx, t, s, script) })
	t.Run("file", func(t *testing.T) { testPipedFile(ctx, t, s, script) })
	t.Run("listen", func(t *testing.T) { testListening(ctx, t, s, script) })
	t.Run("room", func(t *testing.T) { testPipedToRoom(ctx, t, s, script) })
}

// testPiped sends to two who do not know the script: each is asked first, and reads it then.
func testPiped(ctx context.Context, t *testing.T, s *Session, script Address) {
	said := "Backup done " + token()
	watches := map[*Client]*Watch{s.A: s.A.Watch(), s.B: s.B.Watch()}
	pipe(t, s.World.sendxmpp(ctx, script, s.A.Address.String(), s.B.Address.String()), said+"\n")
	for c, watch := range watches {
		if _, err := watch.For(ctx, "a contact request", func(e *Event) bool {
			return e.Event == "contact_request" && e.From == script.String()
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Do(ctx, "approve_contact", Args{"user": script}); err != nil {
			t.Fatal(err)
		}
		if _, err := watch.For(ctx, "the piped text", func(e *Event) bool {
			return e.Event == "message" && e.From == script.String() && strings.TrimSpace(e.Body) == said
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func testPipedFile(ctx context.Context, t *testing.T, s *Session, script Address) {
	data := []byte("A report: " + token() + "\n")
	path, err := s.World.TempFile("report.txt", data)
	if err != nil {
		t.Fatal(err)
	}
	watch := s.A.Watch()
	pipe(t, s.World.sendxmpp(ctx, script, "--http-upload="+path, s.A.Address.String()), "")
	seen, err := watch.For(ctx, "the file", func(e *Event) bool {
		return e.Event == "message" && e.From == script.String() && strings.Contains(e.Body, "https://")
	})
	if err != nil {
		t.Fatal(err)
	}
	if outcome, err := checkFile(ctx, s.A, seen, data, "text/plain"); err != nil || outcome.Result != Works {
		t.Errorf("%+v, %v", outcome, err)
	}
}

// testListening has the script print what the two say to it.
func testListening(ctx context.Context, t *testing.T, s *Session, script Address) {
	cmd := s.World.sendxmpp(ctx, script, "--listen")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it listens for ever
		if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Error(err)
		}
	}()
	lines := bufio.NewScanner(io.LimitReader(out, 1<<20))
	for _, c := range []*Client{s.A, s.B} {
		said := "Hello script " + token()
		if _, err := c.Do(ctx, "send", Args{"to": script, "body": said}); err != nil {
			t.Fatal(err)
		}
		if err := readUntil(ctx, lines, said); err != nil {
			t.Fatal(err)
		}
	}
}

func testPipedToRoom(ctx context.Context, t *testing.T, s *Session, script Address) {
	if _, err := joinRoom(ctx, s); err != nil {
		t.Fatal(err)
	}
	said := "The build is green " + token()
	watches := []*Watch{s.A.Watch(), s.B.Watch()}
	room := s.room.Spell(XMPP, ParleyDomain)
	pipe(t, s.World.sendxmpp(ctx, script, "--chatroom", "--alias=builder", room), said+"\n")
	for _, watch := range watches {
		if _, err := watch.For(ctx, "what the script said in the room", func(e *Event) bool {
			return e.Event == "message" && e.Room == s.room.Local && strings.TrimSpace(e.Body) == said
		}); err != nil {
			t.Error(err)
		}
	}
}
