package lab_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"parley/interop/lab"
)

// TestLab builds a lab with both peers and looks at it as its programs do: names resolve
// to addresses that answer, accounts can be made, and Close leaves nothing behind.
func TestLab(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			l.Close()
		}
	}()

	prosody, err := l.AddProsody(ctx, "prosody.test", lab.Certificates)
	if err != nil {
		t.Fatal(err)
	}
	ejabberd, err := l.AddEjabberd(ctx, "ejabberd.test", lab.Certificates)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []lab.Server{prosody, ejabberd} {
		if err := server.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := server.AddAccount(ctx, "carol", "secret"); err != nil {
			t.Fatalf("%v\n%s", err, server.Log())
		}
		if err := server.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	out, err := ejabberd.Host().Command(ctx, "getent", "ahosts", "conference.prosody.test").CombinedOutput()
	if err != nil || !strings.Contains(string(out), prosody.Host().Addr4.String()) {
		t.Errorf("looking up conference.prosody.test from ejabberd's host: %v: %s", err, out)
	}

	closed = true
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command("ip", "netns", "list").CombinedOutput()
	if err != nil || strings.Contains(string(out), l.ID) {
		t.Errorf("left behind: %v: %s", err, out)
	}
}
