package stream

import "testing"

// The example of the specification.
func TestOffered(t *testing.T) {
	const want = "G6k/rBLDqgOhRRaCuuatSDFkJ08="
	got := offered(ScramSHA1, []string{"SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"}, []string{"tls-server-end-point", "tls-exporter"})
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A client's first message that is none is refused, and the escapes of names are undone.
func TestScramFirst(t *testing.T) {
	for _, msg := range []string{"", "n", "n,,", "n,,n=alice", "x,,n=alice,r=abc", "n,b=bob,n=alice,r=abc", "n,a=,n=alice,r=abc",
		"n,,n=,r=abc", "n,,n=al=2Xice,r=abc", "n,,n=alice,r=", "n,,m=ext,n=alice,r=abc", "n,,r=abc,n=alice", "n,,n=\xff,r=abc"} {
		if err := new(scramConversation).first(msg); err == nil {
			t.Errorf("%q was taken", msg)
		}
	}
	c := &scramConversation{}
	if err := c.first("n,a=a=2Cb,n=a=3D=2Cb,r=abc,x=ext"); err != nil || c.authcid != "a=,b" || c.authzid != "a,b" {
		t.Errorf("got %q %q %v", c.authcid, c.authzid, err)
	}
}
