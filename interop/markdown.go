package interop

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

var groupTitles = map[string]string{
	"parley":   "Among users of one Parley server",
	"prosody":  "With users on Prosody",
	"ejabberd": "With users on ejabberd",
	"second":   "With users on another Parley, by Matrix federation",
	"dendrite": "With users on Dendrite",
}

// markdown writes the report as a page: a table for each group of servers, with a row for
// each feature and a column for each ordered pair of clients.
func (r *Report) markdown() string {
	var b strings.Builder
	b.WriteString("# Interoperability\n\n" +
		"Written by `make interop`, which drives real clients and servers; never by hand.\n" +
		"A column \"a → b\" says what b sees of what a does. Rooms are on Parley.\n" +
		"A dash means that the feature is not tested for the pair.\n\n")
	run(&b, r.Date, r.Versions)
	notes := new(footnotes)
	for _, group := range groups {
		r.table(&b, group, notes)
	}
	if len(notes.list) > 0 {
		b.WriteString("\n## Notes\n\n")
		for i, note := range notes.list {
			fmt.Fprintf(&b, "%d. `%s`\n", i+1, strings.ReplaceAll(note, "`", "'"))
		}
	}
	return b.String()
}

// run writes when something was run and with what.
func run(b *strings.Builder, date string, versions map[string]string) {
	fmt.Fprintf(b, "Run on %s with:\n\n", date)
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(b, "- %s: %s\n", name, versions[name])
	}
}

func (r *Report) table(b *strings.Builder, group string, notes *footnotes) {
	var columns []string
	rows := make(map[string]map[string]Outcome)
	for _, c := range r.Cells {
		if c.group() != group {
			continue
		}
		column := strings.ReplaceAll(c.A+" → "+c.B, "@parley", "")
		if !slices.Contains(columns, column) {
			columns = append(columns, column)
		}
		if rows[c.Feature] == nil {
			rows[c.Feature] = make(map[string]Outcome)
		}
		rows[c.Feature][column] = c.Outcome
	}
	if len(columns) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", groupTitles[group])
	if apart, ok := r.Apart[group]; ok {
		run(b, apart.Date, apart.Versions)
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "| feature | %s |\n|---|%s\n",
		strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, f := range Features {
		row, ok := rows[f.Name]
		if !ok {
			continue
		}
		fmt.Fprintf(b, "| %s |", f.Name)
		for _, column := range columns {
			b.WriteString(" " + notes.cell(row[column]) + " |")
		}
		b.WriteString("\n")
	}
}

// footnotes are the distinct notes of cells, in the order of their first use.
type footnotes struct{ list []string }

func (f *footnotes) cell(o Outcome) string {
	switch {
	case o.Result == "":
		return "—"
	case o.Note == "":
		return string(o.Result)
	}
	i := slices.Index(f.list, o.Note)
	if i < 0 {
		i = len(f.list)
		f.list = append(f.list, o.Note)
	}
	return fmt.Sprintf("%s [%d]", o.Result, i+1)
}
