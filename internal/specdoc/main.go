// Command specdoc is the librarian: it reads which section of which standard
// each line of the code says it implements, and writes docs/standards.md and,
// for the lists of XMPP software, docs/parley.doap.
//
// A reference is a comment, or the end of one, that consists of the word spec,
// a colon, and a citation: RFC 6120 §4.2, XEP-0198 §5, MX 1.19 CS §10.4 (CS is
// Matrix' client-server API, SS its server-server API, RV its room versions
// and AP its appendices), MIMI-content §3.3. Several are separated by
// semicolons, and words in parentheses may follow.
//
// What cannot be read off the code, the names of the standards and how much
// of each is done, is kept by hand in docs/standards.toml. The two hold each
// other to account: a standard that is cited must have a row, and a row that
// claims anything must be cited. A row may name the tests that prove it, which
// must exist: "xmpp/c2s TestFast", a folder and a function, or "interop" and a
// feature of the interop matrix, several separated by semicolons.
//
// Run it at the top of the tree: go run ./internal/specdoc
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "the top of the tree")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root string) error {
	made, err := generate(root)
	if err != nil {
		return err
	}
	for _, d := range made {
		if err := os.WriteFile(filepath.Join(root, "docs", d.name), d.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// document is a file in docs.
type document struct {
	name string
	text []byte
}

// generate makes the documents.
func generate(root string) ([]document, error) {
	t, err := readTable(filepath.Join(root, "docs", "standards.toml"))
	if err != nil {
		return nil, err
	}
	found, err := scanTree(root)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.assign(found.cites), t.checkTests(found.tests)); err != nil {
		return nil, err
	}
	doap, err := renderDOAP(t)
	if err != nil {
		return nil, err
	}
	return []document{{"standards.md", render(t)}, {"parley.doap", doap}}, nil
}
