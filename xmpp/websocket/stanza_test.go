package websocket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"parley/hub/hubtest"
)

// TestStanza lets a library that web clients are made of log in, talk and resume.
func TestStanza(t *testing.T) {
	dir := filepath.Join("testdata", "js")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // nothing takes as long but a registry that does not answer
	defer cancel()
	run := func(name string, args ...string) []byte {
		t.Helper()
		var errs bytes.Buffer
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Stderr = dir, &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s (Node.js 20 with npm is needed): %v\n%s%s", name, err, out, errs.String())
		}
		return out
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "stanza", "package.json")); err != nil {
		run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	}
	s := open(t, nil)
	s.Account("alice")
	s.Account("bob")
	var got struct{ From, Body, Answer, Missed, JID string }
	if err := json.Unmarshal(run("node", "talk.mjs", s.http.URL, hubtest.Domain, hubtest.Password), &got); err != nil {
		t.Fatal(err)
	}
	if got.From != "alice@example.org/web" || got.JID != "bob@example.org/web" || got.Body != "hello <over> WebSocket ☎" ||
		got.Answer != "heard you" || got.Missed != "while you were away" {
		t.Errorf("got %+v", got)
	}
}
