package lab_test

import (
	"context"
	"net"
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

// TestCut has a host be out of another's reach while the two are cut off from each other, and
// nobody else.
func TestCut(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var hosts []*lab.Host
	for _, name := range []string{"a", "b", "c"} {
		host, err := l.AddHost(ctx, name, name+".test")
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, host)
	}
	a, b, c := hosts[0], hosts[1], hosts[2]
	if err := l.Delegate(b, "b.test", "matrix.b.test:8448"); err != nil {
		t.Fatal(err)
	}
	reach := func(from *lab.Host, want bool) {
		t.Helper()
		for _, addr := range []string{b.Addr4.String(), b.Addr6.String()} {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			conn, err := from.Dial(ctx, "tcp", net.JoinHostPort(addr, "443"))
			cancel()
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s reaches %s: %v, want %v (%v)", from.Name, addr, err == nil, want, err)
			}
		}
	}
	reach(a, true)
	if err := l.Cut(ctx, a, b); err != nil {
		t.Fatal(err)
	}
	reach(a, false)
	reach(c, true)
	if err := l.Mend(ctx, a, b); err != nil {
		t.Fatal(err)
	}
	reach(a, true)
}
