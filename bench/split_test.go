package bench

import (
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
