package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// table is docs/standards.toml.
type table struct {
	// Matrix is the version of the Matrix specification that is cited.
	Matrix    string `toml:"matrix"`
	Standards []*row `toml:"standard"`
	// Suite is the name of the compliance suite whose lines follow.
	Suite string  `toml:"suite"`
	Lines []*line `toml:"line"`
}

// row is one standard, or one part of the Matrix specification.
type row struct {
	ID     string `toml:"id"` // "RFC 6120", "XEP-0198", "MX CS §10.14", "MX RV v12"
	Name   string `toml:"name"`
	Status string `toml:"status"`
	Note   string `toml:"note"`
	// Test names what proves it: "xmpp/c2s TestFast; interop talk: edit".
	Test string `toml:"test"`
	// Version is the revision of an extension that was implemented.
	Version string `toml:"version"`

	cites []cite
}

// line is one feature of the compliance suite.
type line struct {
	Category string `toml:"category"`
	Feature  string `toml:"feature"`
	// Server and Advanced say what is asked of a server of either level: yes, no or N/A.
	Server    string   `toml:"server"`
	Advanced  string   `toml:"advanced"`
	Providers []string `toml:"providers"` // IDs of standards
}

// The statuses, with what they mean; "none" is the only one without citations.
var statuses = []struct{ name, meaning string }{
	{"complete", "all that concerns a server is done"},
	{"partial", "a part is done; the note says which, or what is missing"},
	{"library", "a library does it; cited is where it is used"},
	{"none", "not done"},
}

func readTable(path string) (*table, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := new(table)
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	seen := make(map[string]bool)
	var errs []error
	for _, r := range t.Standards {
		known := false
		for _, s := range statuses {
			known = known || s.name == r.Status
		}
		switch {
		case seen[r.ID]:
			errs = append(errs, fmt.Errorf("%s: %s is there twice", path, r.ID))
		case !known:
			errs = append(errs, fmt.Errorf("%s: %s has the status %q", path, r.ID, r.Status))
		case r.Name == "" || r.ID == "":
			errs = append(errs, fmt.Errorf("%s: row %q %q needs both id and name", path, r.ID, r.Name))
		}
		seen[r.ID] = true
	}
	for _, l := range t.Lines {
		for _, asked := range []string{l.Server, l.Advanced} {
			if asked != "yes" && asked != "no" && asked != "N/A" {
				errs = append(errs, fmt.Errorf("%s: the suite's %q asks %q of a server", path, l.Feature, asked))
			}
		}
	}
	return t, errors.Join(errs...)
}

// interopPrefix begins the name of a test that is a feature of the interop matrix.
const interopPrefix = "interop "

// matrixRow returns the feature of the interop matrix that a test's name means. Names of test
// functions of that folder ("interop TestOMEMO") mean none.
func matrixRow(name string) (feature string, ok bool) {
	feature, ok = strings.CutPrefix(name, interopPrefix)
	return feature, ok && !strings.HasPrefix(feature, "Test")
}

// testNames are the tests that prove a row.
func (r *row) testNames() []string {
	if r.Test == "" {
		return nil
	}
	names := strings.Split(r.Test, ";")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names
}

// checkTests finds rows that name test functions that there are not, as "xmpp/c2s TestFast".
func (t *table) checkTests(there map[string]bool) error {
	var errs []error
	for _, r := range t.Standards {
		for _, name := range r.testNames() {
			if _, isRow := matrixRow(name); !there[name] && !isRow {
				errs = append(errs, fmt.Errorf("docs/standards.toml: %s is proved by %q, and there is no such test", r.ID, name))
			}
		}
	}
	return errors.Join(errs...)
}

// named finds rows by their IDs.
func (t *table) named() map[string]*row {
	rows := make(map[string]*row)
	for _, r := range t.Standards {
		rows[r.ID] = r
	}
	return rows
}

// assign gives each citation to its row, and finds citations without a row and
// rows that claim what nothing cites.
func (t *table) assign(cites []cite) error {
	rows := t.named()
	var errs []error
	for _, c := range cites {
		if c.version != "" && c.version != t.Matrix {
			errs = append(errs, fmt.Errorf("%s:%d: cites Matrix %s; all else cites %s", c.file, c.line, c.version, t.Matrix))
		}
		r := rowFor(rows, c)
		if r == nil {
			errs = append(errs, fmt.Errorf("%s:%d: docs/standards.toml has no row for %s", c.file, c.line, c.name()))
			continue
		}
		r.cites = append(r.cites, c)
	}
	for _, r := range t.Standards {
		if cited := len(r.cites) > 0; cited == (r.Status == "none") {
			errs = append(errs, fmt.Errorf("docs/standards.toml: %s has the status %s, and the code cites it %d times", r.ID, r.Status, len(r.cites)))
		}
	}
	return errors.Join(errs...)
}

// name is the citation as in the table: "MX CS §10.14.2", "RFC 6120".
func (c cite) name() string {
	switch {
	case !strings.HasPrefix(c.standard, "MX ") || c.section == "":
		return c.standard
	case strings.HasPrefix(c.section, "v"):
		return c.standard + " " + c.section
	default:
		return c.standard + " §" + c.section
	}
}

// rowFor finds the row of the closest section.
func rowFor(rows map[string]*row, c cite) *row {
	name := c.name()
	for {
		if r, ok := rows[name]; ok {
			return r
		}
		i := strings.LastIndexAny(name, ". §")
		if i <= len("MX ") {
			return nil
		}
		name = strings.TrimSuffix(name[:i], "\xc2") // § has two bytes
	}
}
