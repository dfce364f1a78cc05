// Command specdoc is the librarian: it reads which section of which standard
// each line of the code says it implements, and writes docs/standards.md.
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
// claims anything must be cited.
//
// Run it at the top of the tree: go run ./internal/specdoc
package main

import (
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
	text, err := generate(root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "docs", "standards.md"), text, 0o644)
}

// generate makes the text of docs/standards.md.
func generate(root string) ([]byte, error) {
	t, err := readTable(filepath.Join(root, "docs", "standards.toml"))
	if err != nil {
		return nil, err
	}
	cites, err := scanTree(root)
	if err != nil {
		return nil, err
	}
	if err := t.assign(cites); err != nil {
		return nil, err
	}
	return render(t), nil
}
