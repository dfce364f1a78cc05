package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	slashpath "path"
	"path/filepath"
	"regexp"
	"strings"
)

// cite is one reference from one line.
type cite struct {
	standard string // "RFC 6120", "XEP-0198", "MX CS", "MIMI-content"
	version  string // of Matrix: "1.19"
	section  string // "4.2", "v12", or ""
	file     string // slash-separated, from the top of the tree
	line     int
	test     string // the test function that it is in, or ""
}

var (
	// reference finds the text behind the marker in a line of a comment.
	reference = regexp.MustCompile(`(?:^|\s)spec: (.+)$`)
	citation  = regexp.MustCompile(`^(RFC \d+|XEP-\d{4}|MIMI-[a-z]+|MX (\d+\.\d+) (?:CS|SS|RV|AP))(?: (?:§([A-Z0-9][0-9.]*[0-9]|[A-Z0-9])|(v\d+)))?(?: \([^)]*\)|, [^;]*| [a-z ]+)?$`)
)

// parseCitation reads one citation.
func parseCitation(s string) (cite, error) {
	m := citation.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return cite{}, fmt.Errorf("%q is not a citation like \"RFC 6120 §4.2\", \"XEP-0198 §5\" or \"MX 1.19 CS §10.4\"", s)
	}
	c := cite{standard: m[1], version: m[2], section: cmp.Or(m[3], m[4])}
	if c.version != "" {
		c.standard = strings.Replace(c.standard, c.version+" ", "", 1)
	}
	return c, nil
}

// scan is what was read in the code.
type scan struct {
	cites []cite
	tests map[string]bool // the test functions, as "xmpp/c2s TestFast"
}

// scanTree reads all Go files below root.
func scanTree(root string) (*scan, error) {
	all := &scan{tests: make(map[string]bool)}
	var errs []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "parley-data") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if err := all.file(path, filepath.ToSlash(rel)); err != nil {
			errs = append(errs, err)
		}
		return nil
	})
	return all, errors.Join(append(errs, err)...)
}

// file reads one file; rel is its name in the citations.
func (all *scan) file(path, rel string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if strings.HasSuffix(rel, "_test.go") {
		for _, d := range f.Decls {
			if name := testName(d); name != "" {
				all.tests[slashpath.Dir(rel)+" "+name] = true
			}
		}
	}
	var errs []error
	for _, group := range f.Comments {
		for _, c := range group.List {
			start := fset.Position(c.Pos()).Line
			for i, text := range strings.Split(c.Text, "\n") {
				text = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(text, "//"), "/*"), "*/"))
				m := reference.FindStringSubmatch(text)
				if m == nil {
					continue
				}
				for part := range strings.SplitSeq(m[1], ";") {
					found, err := parseCitation(strings.TrimSuffix(part, "."))
					if err != nil {
						errs = append(errs, fmt.Errorf("%s:%d: %w", rel, start+i, err))
						continue
					}
					found.file, found.line = rel, start+i
					found.test = testAround(f, c.Pos())
					all.cites = append(all.cites, found)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// testName is the name of a test function, "" for all else.
func testName(d ast.Decl) string {
	fn, ok := d.(*ast.FuncDecl)
	if ok && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
		return fn.Name.Name
	}
	return ""
}

// testAround names the test function that a comment is in or above.
func testAround(f *ast.File, pos token.Pos) string {
	for _, d := range f.Decls {
		name := testName(d)
		if name == "" {
			continue
		}
		from := d.Pos()
		if doc := d.(*ast.FuncDecl).Doc; doc != nil {
			from = doc.Pos()
		}
		if from <= pos && pos < d.End() {
			return name
		}
	}
	return ""
}
