package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// groups are the chapters of the document.
var groups = []struct{ prefix, title string }{
	{"RFC ", "RFCs"},
	{"XEP-", "XMPP extensions"},
	{"MIMI-", "MIMI drafts"},
	{"MX CS", "Matrix: client-server API"},
	{"MX SS", "Matrix: server-server API"},
	{"MX RV", "Matrix: room versions"},
	{"MX AP", "Matrix: appendices"},
}

func render(t *table) []byte {
	var b bytes.Buffer
	b.WriteString("# Standards\n\n")
	b.WriteString("Written by `make docs` from the references in the code and from docs/standards.toml; not to be edited.\n\n")
	for _, s := range statuses {
		fmt.Fprintf(&b, "- *%s*: %s\n", s.name, s.meaning)
	}
	fmt.Fprintf(&b, "\nMatrix is cited by version %s of its specification.\n", t.Matrix)
	renderSuite(&b, t)
	for _, g := range groups {
		var rows []*row
		for _, r := range t.Standards {
			if strings.HasPrefix(r.ID, g.prefix) {
				rows = append(rows, r)
			}
		}
		if len(rows) == 0 {
			continue
		}
		slices.SortFunc(rows, func(a, b *row) int { return compareSections(a.ID, b.ID) })
		fmt.Fprintf(&b, "\n## %s\n\n| | | status | tests | proved by | note |\n|---|---|---|---|---|---|\n", g.title)
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %d | %s | %s |\n", r.ID, r.Name, r.Status, r.tests(), strings.Join(r.testNames(), "; "),
				strings.ReplaceAll(r.Note, "|", `\|`))
		}
		for _, r := range rows {
			r.render(&b)
		}
	}
	return b.Bytes()
}

// render lists where a standard is cited, by section.
func (r *row) render(b *bytes.Buffer) {
	if len(r.cites) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### %s: %s\n\n", r.ID, r.Name)
	slices.SortStableFunc(r.cites, func(x, y cite) int {
		return cmp.Or(compareSections(x.section, y.section), strings.Compare(x.file, y.file), cmp.Compare(x.line, y.line))
	})
	for i := 0; i < len(r.cites); {
		section := r.cites[i].section
		label := "as a whole"
		if strings.HasPrefix(section, "v") {
			label = section
		} else if section != "" {
			label = "§" + section
		}
		var links []string
		for ; i < len(r.cites) && r.cites[i].section == section; i++ {
			c := r.cites[i]
			links = append(links, fmt.Sprintf("[%s:%d](../%s#L%d)", c.file, c.line, c.file, c.line))
		}
		fmt.Fprintf(b, "- %s: %s\n", label, strings.Join(links, ", "))
	}
}

// tests counts the test functions that cite the standard.
func (r *row) tests() int {
	seen := make(map[string]bool)
	for _, c := range r.cites {
		if c.test != "" && strings.HasSuffix(c.file, "_test.go") {
			dir := c.file[:strings.LastIndexByte(c.file, '/')+1]
			seen[dir+c.test] = true
		}
	}
	return len(seen)
}

// compareSections orders "4.2" before "4.10", and "RFC 822" before "RFC 6120".
func compareSections(a, b string) int {
	x, y := pieces(a), pieces(b)
	for i := range min(len(x), len(y)) {
		n, errN := strconv.Atoi(x[i])
		m, errM := strconv.Atoi(y[i])
		if errN == nil && errM == nil {
			if c := cmp.Compare(n, m); c != 0 {
				return c
			}
			continue
		}
		if c := strings.Compare(x[i], y[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x), len(y))
}

// pieces cuts a name where digits begin and end.
func pieces(s string) []string {
	var out []string
	for i, c := range s {
		digit := c >= '0' && c <= '9'
		if i == 0 || digit != (s[i-1] >= '0' && s[i-1] <= '9') {
			out = append(out, "")
		}
		out[len(out)-1] += string(c)
	}
	return out
}
