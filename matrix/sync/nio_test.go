package sync_test

import (
	"os/exec"
	"strings"
	"testing"

	"parley/hub/hubtest"
	"parley/matrix/rooms/roomstest"
)

// A real client, matrix-nio, talks to the server; make interop runs more.
func TestNio(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import nio").Run(); err != nil {
		t.Fatal("matrix-nio is not there: scripts/install-test-deps.sh installs it (Debian: python3-matrix-nio)")
	}
	s := roomstest.New(t)
	hubtest.Account(t, s.Hub, "alice")
	hubtest.Account(t, s.Hub, "bob")
	out, err := exec.Command(python, "testdata/nio_client.py", s.URL, hubtest.Password).CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
		t.Errorf("%v\n%s", err, out)
	}
}
