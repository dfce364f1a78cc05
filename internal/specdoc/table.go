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
}

// row is one standard, or one part of the Matrix specification.
type row struct {
	ID     string `toml:"id"` // "RFC 6120", "XEP-0198", "MX CS §10.14", "MX RV v12"
	Name   string `toml:"name"`
	Status string `toml:"status"`
	Note   string `toml:"note"`

	cites []cite
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
	return t, errors.Join(errs...)
}

// assign gives each citation to its row, and finds citations without a row and
// rows that claim what nothing cites.
func (t *table) assign(cites []cite) error {
	rows := make(map[string]*row)
	for _, r := range t.Standards {
		rows[r.ID] = r
	}
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
