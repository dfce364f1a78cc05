package shared

import (
	"fmt"
	"strings"
	"testing"
)

// spec: MX 1.19 CS §10.32
func TestServerList(t *testing.T) {
	for _, c := range []struct{ content, in, out string }{
		{`{"allow":["*"]}`, "a.test a.test:8448 1.2.3.4 [::1]:8448", ""},
		{`{"allow":["*"],"allow_ip_literals":false}`, "a.test a.test:1 1.2.3.4.test", "1.2.3.4 1.2.3.4:80 [::1] [2001:db8::1]:8448"},
		{`{"allow":["*"],"allow_ip_literals":"false"}`, "1.2.3.4", ""},
		{`{"allow":["*"],"deny":["*.Evil.test","evil.test","?.test"]}`, "good.test xevil.test bb.test", "evil.test evil.test:8448 x.evil.test EVIL.test a.test"},
		{`{"allow":["*.good.test"],"deny":["bad.good.test"]}`, "a.good.test a.b.good.test:443", "good.test bad.good.test bad.good.test:443 other.test"},
		{`{"allow":["a*b*c"]}`, "abc axxbxxc abbcbc", "ab acb xabc abcx"},
		{`{"allow":["[::1]","1.2.*"]}`, "[::1] [::1]:80 1.2.3.4:5", "[::2] 1.3.2.4"},
		{`{"allow":["a.test",5,null,"b.test"],"deny":"*"}`, "a.test b.test", "c.test"},
		{`{}`, "", "a.test"},
		{`{"deny":["x.test"]}`, "", "a.test x.test"},
		{`{"allow":"*"}`, "", "a.test"},
		{`{"allow":[""]}`, "", "a.test"},
	} {
		l := newServerList([]byte(c.content))
		for range 2 { // from memory as well
			for _, s := range strings.Fields(c.in) {
				if !l.allows(s) {
					t.Errorf("%s keeps %s out", c.content, s)
				}
			}
			for _, s := range strings.Fields(c.out) {
				if l.allows(s) {
					t.Errorf("%s lets %s in", c.content, s)
				}
			}
		}
	}
}

// A list that is made to take long takes no longer than its size times a name's.
func TestServerListHostile(t *testing.T) {
	var all []string
	for i := range 200 {
		all = append(all, fmt.Sprintf("%q", strings.Repeat("a*", 150)+fmt.Sprint("b", i)))
	}
	l := newServerList([]byte(`{"allow":[` + strings.Join(all, ",") + `]}`))
	steps := 0
	for range 1000 {
		if l.allows(strings.Repeat("a", 250)) {
			t.Fatal("let in")
		}
		steps++
	}
	if len(l.said) != 1 || len(newServerList([]byte(`{"allow":["`+strings.Repeat("a", 300)+`*"]}`)).allow) != 0 {
		t.Errorf("after %d questions %d answers are kept", steps, len(l.said))
	}
	for i := range 2 * maxSaid {
		l.allows(fmt.Sprint("s", i, ".test"))
	}
	if len(l.said) > maxSaid {
		t.Errorf("%d answers are kept", len(l.said))
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?", "axxbc")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 12 {
			return
		}
		if got, want := fitsGlob(pattern, s), slowGlob(pattern, s); got != want {
			t.Errorf("%q fits %q: %v", s, pattern, got)
		}
	})
}

// slowGlob is what the definition says.
func slowGlob(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return slowGlob(pattern[1:], s) || s != "" && slowGlob(pattern, s[1:])
	case s == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == s[0]) && slowGlob(pattern[1:], s[1:])
}
