package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the prefix of our own packages.
const module = "parley/"

// protocols each have a folder, and know nothing of each other.
var protocols = []string{"matrix", "xmpp", "irc", "mail", "activitypub"}

// plain are packages below the model: they know neither it nor what is above.
var plain = []string{"config", "netguard", "certs"}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// room is the first part of one of our import paths: "matrix" of
// "parley/matrix/sync"; "" for a package that is not ours.
func room(path string) string {
	rest, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// support reports whether a package helps tests, as net/http/httptest does. It
// may stand on anything that a test may, and only tests and its like use it.
func support(path string) bool { return room(path) != "" && strings.HasSuffix(path, "test") }

// stdlib reports whether a path is in the standard library: its first element
// has no dot, and it is not ours.
func stdlib(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return room(path) == "" && !strings.Contains(first, ".")
}

// forbidden says why from may not import to, or "" if it may.
func forbidden(from, to string) string {
	a, b := room(from), room(to)
	switch {
	case a == "cmd" || a == "interop" || a == "bench":
		return "" // they know everything
	case support(from) && !slices.Contains(protocols, a):
		return ""
	case support(to) && !support(from):
		return "only tests use it"
	case b == "cmd":
		return "only the command itself knows the command"
	case b == "interop":
		return "only interop knows the tests"
	case a == "core":
		if b != "core" && !stdlib(to) {
			return "core is the standard library and nothing else"
		}
	case a == "hub":
		if b != "hub" && b != "core" && !stdlib(to) {
			return "the hub stands on core and the standard library alone"
		}
	case slices.Contains(protocols, a):
		if b != a && slices.Contains(protocols, b) {
			return "no protocol knows another"
		}
		if b == "config" {
			return "a protocol is told its settings; only the command reads the configuration"
		}
	case a == "store":
		if b != "" && !slices.Contains([]string{"store", "core", "hub"}, b) {
			return "the store knows core and hub at most"
		}
	case a == "media":
		if slices.Contains(protocols, b) {
			return "media belongs to no protocol"
		}
	case slices.Contains(plain, a):
		if b != "" && b != a {
			return a + " knows nothing else of ours"
		}
	}
	return ""
}

// TestImportDirections fails with each edge that goes the wrong way.
func TestImportDirections(t *testing.T) {
	rooms := make(map[string]bool)
	for _, p := range list(t) {
		rooms[room(p.ImportPath)] = true
		for _, to := range p.Imports {
			if why := forbidden(p.ImportPath, to); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, to, why)
			}
		}
		// Tests may use libraries and the layers below them, but a protocol's
		// tests need no other protocol either: that is what interop is for.
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			if room(p.ImportPath) != room(to) && slices.Contains(protocols, room(p.ImportPath)) && slices.Contains(protocols, room(to)) {
				t.Errorf("a test of %s imports %s: %s", p.ImportPath, to, "no protocol knows another")
			}
		}
	}
	for _, r := range []string{"core", "hub", "store", "cmd", "config", "matrix", "xmpp"} {
		if !rooms[r] {
			t.Errorf("there is no package in %s: this test looks in the wrong place", r)
		}
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Standard,Imports,TestImports,XTestImports", "parley/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(out); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	return pkgs
}

func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"parley/core", "encoding/json", true},
		{"parley/core", "golang.org/x/text/language", false},
		{"parley/core", "parley/hub", false},
		{"parley/hub", "parley/core", true},
		{"parley/hub", "parley/store", false},
		{"parley/hub", "parley/matrix/wire", false},
		{"parley/hub/hubtest", "parley/store/hubstore", true},
		{"parley/hub", "parley/hub/hubtest", false},
		{"parley/hub", "maunium.net/go/mautrix/id", false},
		{"parley/matrix/sync", "parley/matrix/wire", true},
		{"parley/matrix/sync", "parley/hub", true},
		{"parley/matrix/sync", "parley/xmpp/element", false},
		{"parley/xmpp", "parley/matrix/wire", false},
		{"parley/xmpp", "parley/config", false},
		{"parley/store/hubstore", "parley/hub", true},
		{"parley/store", "github.com/jackc/pgx/v5", true},
		{"parley/store", "parley/matrix/wire", false},
		{"parley/config", "parley/core", false},
		{"parley/media", "parley/matrix/wire", false},
		{"parley/media", "parley/core", true},
		{"parley/hub", "parley/cmd/parley", false},
		{"parley/cmd/parley", "parley/matrix/client", true},
		{"parley/interop/lab", "parley/xmpp/element", true},
		{"parley/xmpp", "parley/interop", false},
	} {
		if why := forbidden(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%s -> %s: %q", c.from, c.to, why)
		}
	}
}
