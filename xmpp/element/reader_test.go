package element_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"parley/xmpp/element"
)

const header = `<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' ` +
	`xmlns:db='jabber:server:dialback' to='example.org' version='1.0' xml:lang='en'>`

func opened(t testing.TB, rest string) *element.Reader {
	t.Helper()
	r := element.NewReader(iotest.OneByteReader(strings.NewReader(header+rest)), element.DefaultLimits)
	h, err := r.Header()
	if err != nil {
		t.Fatal(err)
	}
	if !h.Is("http://etherx.jabber.org/streams", "stream") || h.Attr("to") != "example.org" || h.Lang() != "en" {
		t.Fatalf("header %v", h)
	}
	return r
}

func TestStream(t *testing.T) {
	r := opened(t, " \n<presence/>\n<db:verify to='a'>k</db:verify><message a='b'><body>x &lt;<![CDATA[<&]]>&#x41;</body><e></e></message></stream:stream>")
	for _, want := range []string{
		`<presence xmlns='jabber:client'/>`,
		`<verify xmlns='jabber:server:dialback' to='a'>k</verify>`,
		`<message xmlns='jabber:client' a='b'><body>x &lt;&lt;&amp;A</body><e/></message>`,
	} {
		el, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if el.String() != want {
			t.Errorf("got %s want %s", el, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	deep := strings.Repeat("<a>", 100)
	for _, c := range []struct {
		name, in string
		cond     element.Condition
		limit    element.Limit
	}{
		{"comment", `<!-- x --><a/>`, element.RestrictedXML, ""},
		{"comment inside", `<a><!-- x --></a>`, element.RestrictedXML, ""},
		{"processing instruction", `<?php x?>`, element.RestrictedXML, ""},
		{"late XML declaration", `<a><?xml version='1.0'?></a>`, element.RestrictedXML, ""},
		{"doctype", `<!DOCTYPE a [<!ENTITY x "y">]>`, element.RestrictedXML, ""},
		{"entity", `<a>&nbsp;</a>`, element.RestrictedXML, ""},
		{"entity in attribute", `<a b='&x;'/>`, element.RestrictedXML, ""},
		{"broken reference", `<a>&amp</a>`, element.NotWellFormed, ""},
		{"reference to NUL", `<a>&#0;</a>`, element.NotWellFormed, ""},
		{"NUL", "<a>\x00</a>", element.NotWellFormed, ""},
		{"invalid UTF-8", "<a>\xff</a>", element.NotWellFormed, ""},
		{"overlong UTF-8", "<a>\xc0\xbc</a>", element.NotWellFormed, ""},
		{"invalid UTF-8 in attribute", "<a b='\xed\xa0\x80'/>", element.NotWellFormed, ""},
		{"end of CDATA in text", "<a>]]></a>", element.NotWellFormed, ""},
		{"mismatch", `<a></b>`, element.NotWellFormed, ""},
		{"mismatch of prefixes", `<a xmlns:p='u' xmlns:q='u'><p:b></q:b></a>`, element.NotWellFormed, ""},
		{"stray end tag", `</a>`, element.NotWellFormed, ""},
		{"stray end tag without prefix", `</stream>`, element.NotWellFormed, ""},
		{"unbound prefix", `<x:a/>`, element.NotWellFormed, ""},
		{"unbound prefix of attribute", `<a x:b='c'/>`, element.NotWellFormed, ""},
		{"prefix out of scope", `<a><b xmlns:p='u'/><p:c/></a>`, element.NotWellFormed, ""},
		{"prefix unbound", `<a xmlns:p=''/>`, element.NotWellFormed, ""},
		{"prefix xmlns declared", `<a xmlns:xmlns='u'/>`, element.NotWellFormed, ""},
		{"prefix xml moved", `<a xmlns:xml='u'/>`, element.NotWellFormed, ""},
		{"XML namespace taken", `<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>`, element.NotWellFormed, ""},
		{"element in xmlns", `<xmlns:a/>`, element.NotWellFormed, ""},
		{"duplicate attribute", `<a b='1' b='1'/>`, element.NotWellFormed, ""},
		{"duplicate by namespace", `<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>`, element.NotWellFormed, ""},
		{"duplicate declaration", `<a xmlns:p='u' xmlns:p='v'/>`, element.NotWellFormed, ""},
		{"colons", `<a:b:c/>`, element.NotWellFormed, ""},
		{"leading colon", `<:a/>`, element.NotWellFormed, ""},
		{"trailing colon", `<stream:/>`, element.NotWellFormed, ""},
		{"digit after the colon", `<a xmlns:p='u' p:0=''/>`, element.NotWellFormed, ""},
		{"colon in attribute", `<a :b=''/>`, element.NotWellFormed, ""},
		{"name", `<1/>`, element.NotWellFormed, ""},
		{"no quotes", `<a b=c/>`, element.NotWellFormed, ""},
		{"less-than in attribute", `<a b='<'/>`, element.NotWellFormed, ""},
		{"text between stanzas", `hello`, element.BadFormat, ""},
		{"entity between stanzas", `&#32;`, element.BadFormat, ""},
		{"bytes", `<a>` + strings.Repeat("x", 300<<10), element.PolicyViolation, element.LimitBytes},
		{"long comment", `<!--` + strings.Repeat("x", 300<<10), element.PolicyViolation, element.LimitBytes},
		{"namespace amplification", `<a xmlns:p='` + strings.Repeat("u", 500) + `'>` + strings.Repeat("<p:b/>", 2000),
			element.PolicyViolation, element.LimitBytes},
		{"depth", deep, element.PolicyViolation, element.LimitDepth},
		{"elements", `<a>` + strings.Repeat("<b/>", 5000), element.PolicyViolation, element.LimitElements},
		{"attributes", `<a` + strings.Repeat(" b=''", 65) + `/>`, element.PolicyViolation, element.LimitAttrs},
		{"name length", `<` + strings.Repeat("n", 600) + `/>`, element.PolicyViolation, element.LimitNames},
		{"attribute name length", `<a ` + strings.Repeat("n", 600) + `=''/>`, element.PolicyViolation, element.LimitNames},
		{"namespace length", `<a xmlns='` + strings.Repeat("n", 600) + `'/>`, element.PolicyViolation, element.LimitNames},
		{"declarations", strings.Repeat(`<a`+strings.Repeat(` xmlns='u'`, 1)+`>`, 10) + manyDeclarations(), element.PolicyViolation, element.LimitNamespaces},
	} {
		t.Run(c.name, func(t *testing.T) {
			el, err := opened(t, c.in).Next()
			pe, ok := errors.AsType[*element.ParseError](err)
			if !ok {
				t.Fatalf("element %v, error %v", el, err)
			}
			if pe.Condition != c.cond || pe.Limit != c.limit {
				t.Errorf("got %q %q (%v)", pe.Condition, pe.Limit, pe)
			}
		})
	}
}

func manyDeclarations() string {
	var b strings.Builder
	for i := range 3 {
		b.WriteString("<a")
		for j := range 50 {
			b.WriteString(" xmlns:p" + string(rune('a'+i)) + string(rune('A'+j%26)) + string(rune('a'+j/26)) + "='u'")
		}
		b.WriteString(">")
	}
	return b.String()
}

func TestHeaderRefusals(t *testing.T) {
	for _, c := range []struct {
		in   string
		cond element.Condition
	}{
		{`<?xml version='1.1'?><a>`, element.NotWellFormed},
		{`<?xml version='1.0' encoding='ISO-8859-1'?><a>`, element.UnsupportedEncoding},
		{`<?x y?><a>`, element.RestrictedXML},
		{`<?xml version='1.0'?><?xml version='1.0'?><a>`, element.RestrictedXML},
		{`<!DOCTYPE x><a>`, element.RestrictedXML},
		{`<stream:stream>`, element.NotWellFormed},
		{`<a/>`, element.BadFormat},
		{`GET / HTTP/1.1`, element.NotWellFormed},
		{"\x16\x03\x01\x02", element.NotWellFormed},
		{"\ufeff<a>", element.NotWellFormed},
	} {
		_, err := element.NewReader(strings.NewReader(c.in), element.NegotiationLimits).Header()
		if pe, ok := errors.AsType[*element.ParseError](err); !ok || pe.Condition != c.cond {
			t.Errorf("%q: %v", c.in, err)
		}
	}
}

func TestEnds(t *testing.T) {
	for _, in := range []string{"", " ", "<", "<a", "<a>", "<a>x", "<a><b/>", "<a b='", "<a>&am", "</stream:strea", "<![CDATA["} {
		if el, err := opened(t, in).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %v, %v", in, el, err)
		}
	}
	if _, err := element.Parse([]byte("<a>&foo;"), element.DefaultLimits); err == io.ErrUnexpectedEOF {
		t.Error("an error at the last byte was taken for the end")
	}
}

// pausing times out once between the parts of its text.
type pausing struct {
	parts []string
}

func (p *pausing) Read(b []byte) (int, error) {
	if len(p.parts) == 0 {
		return 0, io.EOF
	}
	if p.parts[0] == "" {
		p.parts = p.parts[1:]
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, p.parts[0])
	if p.parts[0] = p.parts[0][n:]; p.parts[0] == "" {
		p.parts = p.parts[1:]
	}
	return n, nil
}

func TestTimeouts(t *testing.T) {
	r := element.NewReader(&pausing{parts: []string{header, "", "<a/>", "<b>", "", "</b>"}}, element.DefaultLimits)
	if _, err := r.Header(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("pause between stanzas: %v", err)
	}
	if el, err := r.Next(); err != nil || el.Name.Local != "a" {
		t.Fatalf("after the pause: %v, %v", el, err)
	}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("pause inside a stanza must be final: %v", err)
		}
	}
}

func TestRestart(t *testing.T) {
	r := element.NewReader(strings.NewReader(header+"<auth/>"+header+"<x/>"), element.DefaultLimits)
	for range 2 {
		if _, err := r.Header(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Header(); err == nil {
			t.Fatal("a header was read twice")
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		r.Restart()
		if _, err := r.Next(); err == nil {
			t.Fatal("a stanza was read without a header")
		}
	}
	r = element.NewReader(strings.NewReader(header+"<starttls/>injected"), element.DefaultLimits)
	if _, err := r.Header(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil || r.Buffered() != len("injected") {
		t.Fatalf("%v, %d bytes buffered", err, r.Buffered())
	}
	r.Reset(strings.NewReader(header))
	if r.Buffered() != 0 {
		t.Error("Reset kept bytes")
	}
	if _, err := r.Header(); err != nil {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(header + "<message xml:lang='en'><body>x &lt;<![CDATA[&]]></body></message></stream:stream>")
	f.Add(header + "<a xmlns:p='u' p:x='&#10;'><p:b xmlns=''/></a>")
	f.Add(`<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>`)
	f.Fuzz(func(t *testing.T, in string) {
		r := element.NewReader(strings.NewReader(in), element.NegotiationLimits)
		h, err := r.Header()
		for err == nil {
			var el *element.Element
			if el, err = r.Next(); err != nil {
				break
			}
			wire := element.Marshal(el)
			back, err := element.Parse(wire, element.DefaultLimits)
			if err != nil || !element.Equal(el, back) {
				t.Fatalf("%v: %q is not %q", err, wire, in)
			}
		}
		if h == nil && err == nil {
			t.Fatal("neither header nor error")
		}
	})
}

const benchStanza = `<message from='alice@example.org/phone' to='bob@example.org' type='chat' id='5f2d2c3e-9'><body>Hello there, how ` +
	`are you today? I &lt;3 XML</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>` +
	`<origin-id xmlns='urn:xmpp:sid:0' id='5f2d2c3e-9'/></message>`

type endless struct {
	left string
	all  string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == "" {
		e.left = e.all
	}
	n := copy(p, e.left)
	e.left = e.left[n:]
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	r := element.NewReader(io.MultiReader(strings.NewReader(header), &endless{all: benchStanza}), element.DefaultLimits)
	if _, err := r.Header(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(benchStanza)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	el := mustParse(b, benchStanza)
	var buf []byte
	b.SetBytes(int64(len(benchStanza)))
	b.ReportAllocs()
	for b.Loop() {
		buf = element.Encoder{}.Append(buf[:0], el)
	}
}
