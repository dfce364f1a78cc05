package rooms

import (
	"strings"
	"testing"
)

// What is read as a token is what was written, and nothing else is read.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "s1_1_2_3", "s1_zz_0_0", "s1_-1_0_0", "t1_-a", "t1_", Mark{5, 6, 7}.String(), Point(-9).String()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMark(s)
		if err != nil {
			return
		}
		again, err := ParseMark(m.String())
		if err != nil || again != m {
			t.Errorf("%q is %v, which is %q, which is %v, %v", s, m, m.String(), again, err)
		}
	})
}

// No filter makes the server fall, and what is excluded is never wanted.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"types":["m.*","*"],"not_types":["m.room.*"]}`, `{"contains_url":true}`, `{"senders":[]}`, `{"limit":-1}`, `{"types":"x"}`,
	} {
		f.Add(s, "m.room.message")
	}
	f.Fuzz(func(t *testing.T, raw, typ string) {
		filter, err := ParseEventFilter(raw)
		if err != nil {
			return
		}
		for _, not := range filter.NotTypes {
			if !strings.Contains(not, "*") && not == typ && filter.Wants(typ, "@a:b", []byte(`{"url":"x"}`)) {
				t.Errorf("%s wants %q", raw, typ)
			}
		}
	})
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"m.room.message", "m.room.message", true}, {"m.room", "m.room.message", false}, {"*", "", true}, {"m.*", "m.", true},
		{"*.message", "m.room.message", true}, {"m.*.x.*", "m.a.x.b", true}, {"a*a", "a", false}, {"a*b*a", "aba", true},
		{"", "", true}, {"", "x", false}, {"**", "x", true},
	} {
		if glob(c.pattern, c.s) != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.s, !c.want)
		}
	}
}
