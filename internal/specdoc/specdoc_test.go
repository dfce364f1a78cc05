package main

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"parley/interop"
)

// lineNumbers are not held to be up to date: every edit moves some.
var lineNumbers = regexp.MustCompile(`(\.go):\d+\]\(([^)#]*)#L\d+\)`)

// The documents say what the code and docs/standards.toml say.
func TestStandardsAreUpToDate(t *testing.T) {
	root := filepath.Join("..", "..")
	made, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(b []byte) []byte { return lineNumbers.ReplaceAll(b, []byte("$1]($2)")) }
	for _, d := range made {
		got, err := os.ReadFile(filepath.Join(root, "docs", d.name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(plain(got), plain(d.text)) {
			t.Errorf("docs/%s is out of date: run `make docs`", d.name)
		}
	}
}

// What the table says is proved by the interop matrix is a row of it.
func TestInteropFeatures(t *testing.T) {
	table, err := readTable(filepath.Join("..", "..", "docs", "standards.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range table.Standards {
		for _, name := range r.testNames() {
			feature, isInterop := matrixRow(name)
			if isInterop && !slices.ContainsFunc(interop.Features, func(f *interop.Feature) bool { return f.Name == feature }) {
				t.Errorf("%s is proved by the interop matrix's %q, and it has no such row", r.ID, feature)
			}
		}
	}
}

func TestCitations(t *testing.T) {
	for text, want := range map[string]cite{
		"RFC 6120 §4.2":                  {standard: "RFC 6120", section: "4.2"},
		"RFC 6890":                       {standard: "RFC 6890"},
		"RFC 3920 §B":                    {standard: "RFC 3920", section: "B"},
		"XEP-0198 §5":                    {standard: "XEP-0198", section: "5"},
		"MX 1.19 CS §10.4":               {standard: "MX CS", version: "1.19", section: "10.4"},
		"MX 1.19 RV v12":                 {standard: "MX RV", version: "1.19", section: "v12"},
		"MX 1.19 RV v11 redactions":      {standard: "MX RV", version: "1.19", section: "v11"},
		"MIMI-content §3.3":              {standard: "MIMI-content", section: "3.3"},
		"MX 1.19 CS §10.9 (Thumbnails)":  {standard: "MX CS", version: "1.19", section: "10.9"},
		"XEP-0045 §7.2.13, Example 30":   {standard: "XEP-0045", section: "7.2.13"},
		" RFC 6120 §4.2 and its example": {standard: "RFC 6120", section: "4.2"},
	} {
		got, err := parseCitation(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "RFC6120", "XEP-198 §5", "MX CS §1", "RFC 6120 4.2", "RFC 6120 §", "ISO 8601"} {
		if c, err := parseCitation(text); err == nil {
			t.Errorf("%q was read as %+v", text, c)
		}
	}
}

// tree writes files and a table, and generates the documents.
func tree(t *testing.T, table string, files map[string]string) (string, error) {
	t.Helper()
	root := t.TempDir()
	files["docs/standards.toml"] = "matrix = \"1.19\"\n" + table
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := generate(root)
	if err != nil {
		return "", err
	}
	return string(made[0].text) + string(made[1].text), nil
}

const code = `package a

// F does it.
//
// spec: RFC 1 §10; XEP-0001
func F() {} // and more. spec: RFC 1 §9.2

// The text "inspec: nothing" is none.
var x = "spec: RFC 2"

// spec: MX 1.19 CS §10.4.2
var y int
`

const codeTest = `package a

// spec: RFC 1 §10
func TestF(t *testing.T) {
	// spec: RFC 1 §9.2
}

// spec: RFC 1 §10
func helper() {}
`

const rows = `
[[standard]]
id = "RFC 1"
name = "Host software"
status = "complete"
[[standard]]
id = "XEP-0001"
name = "Extensions"
status = "partial"
note = "a | b"
[[standard]]
id = "MX CS §10"
name = "Modules"
status = "partial"
`

func TestDocument(t *testing.T) {
	text, err := tree(t, rows, map[string]string{"p/a.go": code, "p/a_test.go": codeTest, "p/testdata/b.go": "not Go"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| RFC 1 | Host software | complete | 1 |  |  |\n",
		`| a \| b |`,
		"- §9.2: [p/a.go:6](../p/a.go#L6), [p/a_test.go:5](../p/a_test.go#L5)\n- §10: [p/a.go:5](../p/a.go#L5), ",
		"### MX CS §10: Modules\n\n- §10.4.2: [p/a.go:11]",
		"- as a whole: [p/a.go:5]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document has no\n%s\nIt is\n%s", want, text)
		}
	}
}

func TestDOAP(t *testing.T) {
	text, err := tree(t, strings.Replace(rows, "Host software", "XMPP <Core>", 1)+"[[standard]]\nid = \"XEP-0002\"\nname = \"n\"\nstatus = \"none\"\n",
		map[string]string{"a.go": code})
	if err != nil {
		t.Fatal(err)
	}
	_, doap, _ := strings.Cut(text, xml.Header)
	var got struct {
		Implements []struct {
			At  string `xml:"http://www.w3.org/1999/02/22-rdf-syntax-ns# resource,attr"`
			XEP struct {
				XEP struct {
					At string `xml:"http://www.w3.org/1999/02/22-rdf-syntax-ns# resource,attr"`
				} `xml:"https://linkmauve.fr/ns/xmpp-doap# xep"`
				Status string `xml:"https://linkmauve.fr/ns/xmpp-doap# status"`
				Note   string `xml:"https://linkmauve.fr/ns/xmpp-doap# note"`
			} `xml:"https://linkmauve.fr/ns/xmpp-doap# SupportedXep"`
		} `xml:"http://usefulinc.com/ns/doap# Project>implements"`
	}
	if err := xml.Unmarshal([]byte(doap), &got); err != nil {
		t.Fatalf("%v\n%s", err, doap)
	}
	if len(got.Implements) != 2 {
		t.Fatalf("it lists %+v", got.Implements)
	}
	if at := got.Implements[0].At; at != "https://xmpp.org/rfcs/rfc1.html" {
		t.Errorf("the RFC is %q", at)
	}
	x := got.Implements[1].XEP
	if x.XEP.At != "https://xmpp.org/extensions/xep-0001.html" || x.Status != "partial" || x.Note != "a | b" {
		t.Errorf("the extension is %+v", x)
	}
}

func TestSuite(t *testing.T) {
	lines := `
[[line]]
category = "Core"
feature = "Features"
server = "no"
advanced = "yes"
providers = ["XEP-0001", "XEP-0009"]
[[line]]
category = "Core"
feature = "Calls"
server = "N/A"
advanced = "N/A"
providers = ["XEP-0008"]
`
	text, err := tree(t, "suite = \"Suite\"\n"+strings.Replace(rows, "note =", "test = \"p TestF\"\nnote =", 1)+lines,
		map[string]string{"p/a.go": code, "p/a_test.go": codeTest})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## Suite\n", "### Core\n",
		"| Features | no | yes | XEP-0001, XEP-0009 | XEP-0001 partial, XEP-0009 none | p TestF |\n",
		"| Calls | N/A | N/A | XEP-0008 | clients' own |  |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document has no\n%s\nIt is\n%s", want, text)
		}
	}
}

func TestTableAndCodeDisagree(t *testing.T) {
	more := func(id, status string) string {
		return rows + "[[standard]]\nid = \"" + id + "\"\nname = \"n\"\nstatus = \"" + status + "\"\n"
	}
	plain := func() map[string]string { return map[string]string{"a.go": code} }
	for name, c := range map[string]struct {
		table string
		files map[string]string
		want  string
	}{
		"no row":         {strings.Replace(rows, "XEP-0001", "XEP-0002", 1), plain(), "a.go:5: docs/standards.toml has no row for XEP-0001"},
		"not cited":      {more("RFC 7", "complete"), plain(), "RFC 7 has the status complete, and the code cites it 0 times"},
		"cited, none":    {strings.Replace(rows, "complete", "none", 1), plain(), "RFC 1 has the status none, and the code cites it 2 times"},
		"twice":          {more("RFC 1", "partial"), plain(), "RFC 1 is there twice"},
		"status":         {more("RFC 7", "done"), plain(), `the status "done"`},
		"citation":       {rows, map[string]string{"a.go": code, "b.go": "package a\n\n// spec: rfc1\n"}, "b.go:3: "},
		"Matrix version": {rows, map[string]string{"a.go": code, "b.go": "package a\n\n// spec: MX 1.2 CS §10\n"}, "b.go:3: cites Matrix 1.2"},
		"Matrix section": {rows, map[string]string{"a.go": code, "b.go": "package a\n\n// spec: MX 1.19 CS §1\n"}, "b.go:3: docs/standards.toml has no row for MX CS §1"},
		"no such test":   {strings.Replace(rows, "note =", "test = \"p TestF; p TestG\"\nnote =", 1), map[string]string{"p/a.go": code, "p/a_test.go": codeTest}, `XEP-0001 is proved by "p TestG"`},
		"suite":          {rows + "[[line]]\nfeature = \"TLS\"\nserver = \"maybe\"\n", plain(), `"TLS" asks "maybe"`},
		"unknown key":    {rows + "more = 1\n", plain(), "strict mode"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tree(t, c.table, c.files)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %s", err, c.want)
			}
		})
	}
	if _, err := tree(t, more("RFC 7", "none"), plain()); err != nil {
		t.Errorf("a row with status none: %v", err)
	}
}

func TestOrder(t *testing.T) {
	s := []string{"4.10", "4.2", "RFC 6120", "RFC 822", "", "4", "MX RV v9", "MX RV v12"}
	slices.SortFunc(s, compareSections)
	if got := strings.Join(s, ","); got != ",4,4.2,4.10,MX RV v9,MX RV v12,RFC 822,RFC 6120" {
		t.Errorf("order is %s", got)
	}
}
