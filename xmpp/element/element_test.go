package element_test

import (
	"encoding/xml"
	"strings"
	"testing"

	"parley/xmpp/element"
	"pgregory.net/rapid"
)

func TestHelpers(t *testing.T) {
	m := element.New("jabber:client", "message").SetAttr("to", "bob@example.org").SetAttr("type", "chat").SetLang("de")
	m.Add("", "body").SetText("hello")
	m.Append(element.New("urn:xmpp:receipts", "request"), nil)
	if got := m.ChildText("", "body"); got != "hello" {
		t.Errorf("body = %q", got)
	}
	if m.Child("urn:xmpp:receipts", "request") == nil || m.Child("", "request") != nil {
		t.Error("Child does not tell namespaces apart")
	}
	if m.Lang() != "de" || m.SetLang("").Lang() != "" {
		t.Error("Lang")
	}
	c := m.Copy()
	c.Child("", "body").SetText("changed")
	c.SetAttr("to", "x")
	if m.ChildText("", "body") != "hello" || m.Attr("to") != "bob@example.org" {
		t.Error("Copy shares with its origin")
	}
	if _, ok := m.RemoveAttr("to").LookupAttr("", "to"); ok {
		t.Error("RemoveAttr")
	}
	var none *element.Element
	if none.Child("a", "b") != nil || none.Text() != "" || none.Attr("x") != "" || none.First() != nil {
		t.Error("nil is not a usable absent element")
	}
}

func TestRenameStopsAtForeignNamespaces(t *testing.T) {
	m := mustParse(t, `<message xmlns='jabber:client'><body/><forwarded xmlns='urn:xmpp:forward:0'>`+
		`<message xmlns='jabber:client'/></forwarded></message>`)
	m.Rename("jabber:client", "jabber:server")
	want := `<message xmlns='jabber:server'><body/><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<message xmlns='jabber:client'/></forwarded></message>`
	if got := m.String(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestEncoder(t *testing.T) {
	stream := element.Encoder{Default: "jabber:client", Prefixes: map[string]string{
		"http://etherx.jabber.org/streams": "stream", "jabber:server:dialback": "db"}}
	features := element.New("http://etherx.jabber.org/streams", "features")
	features.Add("urn:ietf:params:xml:ns:xmpp-tls", "starttls").Add("", "required")
	attrs := element.New("jabber:client", "x").SetAttrNS("urn:a", "q", "1").SetAttrNS("urn:b", "q", "2").SetAttrNS("urn:a", "r", "3")
	for _, c := range []struct {
		enc  element.Encoder
		el   *element.Element
		want string
	}{
		{stream, features, `<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>`},
		{stream, element.NewText("jabber:server:dialback", "result", "k"), `<db:result>k</db:result>`},
		{stream, element.New("jabber:client", "presence"), `<presence/>`},
		{stream, element.New("jabber:server", "presence"), `<presence xmlns='jabber:server'/>`},
		{stream, element.New("jabber:client", "iq").Append(element.New("", "bare")), `<iq><bare xmlns=''/></iq>`},
		{element.Encoder{}, element.New("", "bare"), `<bare/>`},
		{element.Encoder{}, element.New("urn:x", "a").SetLang("en"), `<a xmlns='urn:x' xml:lang='en'/>`},
		{stream, attrs, `<x xmlns:ns1='urn:a' ns1:q='1' xmlns:ns2='urn:b' ns2:q='2' ns1:r='3'/>`},
		{stream, element.NewText("jabber:client", "a", "<&>'\"\r\n\t\x00\xff\ufffe]]>"),
			"<a>&lt;&amp;&gt;'\"&#xD;\n\t\ufffd\ufffd\ufffd]]&gt;</a>"},
		{stream, element.New("jabber:client", "a").SetAttr("k", "<&>'\"\r\n\t\x01"),
			"<a k='&lt;&amp;&gt;&apos;&quot;&#xD;&#xA;&#x9;\ufffd'/>"},
		{stream, element.New("jabber:client", "a b<c:d").SetAttr("1x", ""), `<a_b_c_d _x=''/>`},
	} {
		if got := string(c.enc.Append(nil, c.el)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// genElement makes elements with nasty namespaces and any text that XML can carry.
func genElement(depth int) *rapid.Generator[*element.Element] {
	space := rapid.SampledFrom([]string{"", "jabber:client", "jabber:server", "urn:a", "urn:b'\"<&>", "xmlns", "ns1",
		"http://etherx.jabber.org/streams"})
	attrSpace := rapid.SampledFrom([]string{"", "", element.XMLNamespace, "urn:a", "urn:q&amp;", "ns2"})
	name := rapid.SampledFrom([]string{"a", "message", "xmlns_", "x-1.y", "ä", "_", "ns1"})
	text := rapid.Custom(func(t *rapid.T) string {
		s := rapid.StringN(0, 20, -1).Draw(t, "text")
		return strings.Map(func(r rune) rune {
			if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r >= 0xd800 && r <= 0xdfff || r == 0xfffe || r == 0xffff {
				return -1
			}
			return r
		}, s)
	})
	return rapid.Custom(func(t *rapid.T) *element.Element {
		e := element.New(space.Draw(t, "space"), name.Draw(t, "name"))
		for range rapid.IntRange(0, 4).Draw(t, "attrs") {
			e.SetAttrNS(attrSpace.Draw(t, "attr space"), name.Draw(t, "attr"), text.Draw(t, "value"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "children") {
			if depth > 0 && rapid.Bool().Draw(t, "element") {
				e.Append(genElement(depth-1).Draw(t, "child"))
			} else {
				e.AppendText(text.Draw(t, "child text"))
			}
		}
		return e
	})
}

func TestParseUndoesMarshal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genElement(3).Draw(t, "element")
		wire := element.Marshal(e)
		back, err := element.Parse(wire, element.DefaultLimits)
		if err != nil {
			t.Fatalf("%v: %s", err, wire)
		}
		if !element.Equal(e, back) {
			t.Fatalf("wire %s\nback %s", wire, element.Marshal(back))
		}
		if again := element.Marshal(back); string(again) != string(wire) {
			t.Fatalf("not deterministic:\n%s\n%s", wire, again)
		}
	})
}

// Whatever is put into an element, a strict parser must be able to read it.
func TestMarshalIsAlwaysWellFormed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) })
		name := string(rapid.SliceOf(rapid.ByteMax(0x7f)).Draw(t, "name"))
		e := element.New("urn:x", name).SetAttr("a", any.Draw(t, "value")).SetText(any.Draw(t, "text"))
		lim := element.DefaultLimits
		lim.Names = 1 << 20
		if back, err := element.Parse(element.Marshal(e), lim); err != nil {
			t.Fatalf("%v: %q", err, element.Marshal(e))
		} else if back.Name.Space != "urn:x" {
			t.Fatalf("namespace %q", back.Name.Space)
		}
	})
}

func mustParse(t testing.TB, s string) *element.Element {
	t.Helper()
	e, err := element.Parse([]byte(s), element.DefaultLimits)
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return e
}

func TestEqual(t *testing.T) {
	a := mustParse(t, `<a x='1' y='2'>b<c/></a>`)
	if !element.Equal(a, mustParse(t, `<a y='2' x='1'><![CDATA[b]]><c></c></a>`)) {
		t.Error("equal documents differ")
	}
	for _, s := range []string{`<a x='1'>b<c/></a>`, `<a x='1' y='3'>b<c/></a>`, `<a x='1' y='2'>b</a>`, `<a x='1' y='2'><c/>b</a>`,
		`<a x='1' y='2' xmlns='u'>b<c/></a>`} {
		if element.Equal(a, mustParse(t, s)) {
			t.Errorf("equal to %s", s)
		}
	}
	if element.Equal(a, nil) || !element.Equal(nil, nil) {
		t.Error("nil")
	}
	if a.Attrs[0].Name != (xml.Name{Local: "x"}) {
		t.Error("attributes are not in document order")
	}
}
