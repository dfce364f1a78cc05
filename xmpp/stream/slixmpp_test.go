package stream_test

import (
	"context"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// TestSlixmpp lets a real client log in. Debian's python3-slixmpp must be installed: see scripts/install-test-deps.sh.
func TestSlixmpp(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import slixmpp").Run(); err != nil {
		t.Fatalf("this test needs python3-slixmpp, which scripts/install-test-deps.sh installs: %v", err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := listen(t, clients(t, func(s *stream.Clients) { s.Handle = bindOnly }).Serve)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	// Its SCRAM knows no channel binding but tls-unique, which we do not have, and then says "y", which must be refused.
	//
	// spec: RFC 5802 §6
	for _, mechanism := range []string{"-", "PLAIN"} {
		t.Run(mechanism, func(t *testing.T) {
			out, err := exec.Command(python, "testdata/login.py", port, caFile, mechanism).Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			used, bound, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
			t.Logf("slixmpp used %s", used)
			if bound != "alice@example.org/test" || mechanism != "-" && used != mechanism {
				t.Errorf("got %s", out)
			}
		})
	}
}

// bindOnly is a session that can bind a resource and answers everything else with nothing.
func bindOnly(ctx context.Context, c *stream.Conn) {
	for {
		el, err := c.Next(ctx)
		if err != nil {
			c.Close(err)
			return
		}
		if el.Name.Local != "iq" || el.Attr("type") != "set" && el.Attr("type") != "get" {
			continue
		}
		answer := element.New(stream.NSClient, "iq").SetAttr("type", "result").SetAttr("id", el.Attr("id"))
		if b := el.Child("urn:ietf:params:xml:ns:xmpp-bind", "bind"); b != nil {
			answer.Add(b.Name.Space, "bind").Add("", "jid").SetText(c.Account() + "@" + c.LocalDomain() + "/" + b.ChildText("", "resource"))
		}
		if err := c.Send(answer); err != nil {
			c.Close(err)
			return
		}
	}
}
