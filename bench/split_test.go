package bench

import (
	"fmt"
	"slices"
	"testing"
)

// TestSplitter feeds a stream in pieces of every length and gets the same stanzas.
func TestSplitter(t *testing.T) {
	stanzas := []string{
		`<stream:features><bind xmlns='x'/></stream:features>`,
		`<r xmlns='urn:xmpp:sm:3'/>`,
		`<message id='a>b' to="it's"><body>1 &lt; 2 > 0</body><x><y/></x></message>`,
		`<iq type='result'><query><item a="/>"/></query></iq>`,
	}
	stream := `<?xml version='1.0'?><stream:stream xmlns='jabber:client' id='1'>`
	for _, s := range stanzas {
		stream += s + "\n"
	}
	stream += "</stream:stream>"
	for size := 1; size <= len(stream); size++ {
		var s splitter
		var got []string
		for piece := range slices.Chunk([]byte(stream), size) {
			if err := s.feed(piece); err != nil {
				t.Fatal(err)
			}
			for st := s.next(); st != nil; st = s.next() {
				got = append(got, string(st))
			}
			s.drop()
		}
		if !slices.Equal(got, stanzas) {
			t.Fatalf("in pieces of %d: %q", size, got)
		}
	}
}

func TestSplitterBoundsAStanza(t *testing.T) {
	var s splitter
	if err := s.feed(make([]byte, maxStanza+1)); err == nil {
		t.Error("took more than maxStanza")
	}
}

func TestAttr(t *testing.T) {
	st := []byte(`<message xid='no' id='yes' to="it's"><body id='inner'>b</body></message>`)
	for name, want := range map[string]string{"id": "yes", "to": "it's", "xid": "no", "type": ""} {
		if got := string(attr(st, name)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// TestRow sees that a ratio says how many times better the first server is, whichever way
// better is.
func TestRow(t *testing.T) {
	r := &Report{Results: []*Result{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	values := map[string]float64{"a": 10, "b": 5}
	value := func(r *Result) (float64, bool) { v, ok := values[r.Name]; return v, ok }
	for better, ratio := range map[direction]string{more: " 2.00×", less: " 0.50×", neither: ""} {
		want := fmt.Sprintf("| x | s | 10.0 | 5.00 | — |%s | |\n", ratio)
		if got := r.row(row{"x", "s", better, value}); got != want {
			t.Errorf("%d: %q, want %q", better, got, want)
		}
	}
}

func TestPackageOf(t *testing.T) {
	for name, want := range map[string]string{
		"parley/xmpp/c2s.(*Session).run": "parley/xmpp/c2s",
		"runtime.mallocgc":               "runtime",
		"github.com/a/b-c/d.F.G.func1":   "github.com/a/b-c/d",
		"memeqbody":                      "memeqbody",
	} {
		if got := packageOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestPerfTotal(t *testing.T) {
	text := "3,,syscalls:sys_enter_fsync,1,100.00,,\n4,,syscalls:sys_enter_fdatasync,1,100.00,,\n"
	if n := perfTotal(text); n != 7 {
		t.Errorf("total %d", n)
	}
	if n := perfTotal("<not supported>,,syscalls:sys_enter_fsync\n"); n != -1 {
		t.Errorf("of nothing: %d", n)
	}
}
