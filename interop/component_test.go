package interop

import (
	"bufio"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"parley/interop/lab"
)

// TestComponentFromMatrix attaches a bot that is made with slixmpp to Parley, as a component of XEP-0114, and
// has a person at a Matrix client and one at an XMPP client take it for what it is: a contact
// that answers.
func TestComponentFromMatrix(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	host := lab.ComponentHost(w.Parley.Domain())
	cmd := w.Parley.Host().Command(ctx, "/usr/bin/python3", "../xmpp/s2s/testdata/echo.py", host, lab.ComponentSecret, lab.ComponentPort)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the component says %q, %v", line, err)
	}
	echo := Address{Local: "echo", Domain: host}
	for _, name := range []string{"nio", "slixmpp"} {
		d := driver(t, name)
		who, err := w.NewAccount(ctx, w.Parley, "alice")
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.Login(ctx, d, w.Parley, who)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		watch := c.Watch()
		if _, err := c.Do(ctx, "add_contact", Args{"user": echo}); err != nil {
			t.Fatal(err)
		}
		if _, err := watch.For(ctx, "a contact", func(e *Event) bool {
			return e.Event == "contact" && e.State == "both" && e.User == echo.String()
		}); err != nil {
			t.Fatal(err)
		}
		body := "Hello " + token()
		if _, err := c.Do(ctx, "send", Args{"to": echo, "body": body}); err != nil {
			t.Fatal(err)
		}
		if _, err := watch.For(ctx, "the echo", func(e *Event) bool {
			return e.Event == "message" && e.From == echo.String() && e.Body == "echo: "+body
		}); err != nil {
			t.Fatal(err)
		}
	}
}
