package translate

import (
	"testing"

	"parley/core"
)

// Matrix people see a file by the URI that its own server gave it, also where
// it has another name here for the clients of other networks.
func TestURI(t *testing.T) {
	n := Names{Home: "example.org", Hosts: func(d string) bool { return d == "example.org" }}
	for _, c := range []struct {
		f    core.File
		want string
		ok   bool
	}{
		{core.File{Media: "m"}, "mxc://example.org/m", true},
		{core.File{Media: "m", URL: "https://a.net/p.png"}, "mxc://example.org/m", true},
		{core.File{Media: "m", URL: "mxc://other.test/x"}, "mxc://other.test/x", true},
		{core.File{URL: "mxc://other.test/x"}, "mxc://other.test/x", true},
		{core.File{URL: "https://a.net/p.png"}, "https://a.net/p.png", false},
	} {
		if got, ok := n.URI(c.f); got != c.want || ok != c.ok {
			t.Errorf("%+v: %q, %v", c.f, got, ok)
		}
	}
}
