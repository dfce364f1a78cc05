package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxMigration bounds a migration file, in bytes.
const maxMigration = 1 << 20

// migration is one file of an owner.
type migration struct {
	number int64
	name   string
	sum    [sha256.Size]byte
	stmts  []string // in the spelling of the database
}

// Migrate brings the tables of owner ("hub", "matrix", …) up to date. fsys
// holds files named 0001_what_it_does.sql, numbered from 1 without gaps, at
// its root; each is applied in a transaction of its own, once. A file that was
// applied and has changed since, or has vanished, is an error, as is a
// database from a newer version with migrations that fsys does not have.
func (db *DB) Migrate(ctx context.Context, owner string, fsys fs.FS) error {
	list, err := readMigrations(fsys, db.backend.dialect())
	if err == nil {
		err = db.checkApplied(ctx, owner, list)
	}
	if err != nil {
		return fmt.Errorf("store: migrations of %s: %w", owner, err)
	}
	for _, m := range list {
		if err := db.applyMigration(ctx, owner, m); err != nil {
			return fmt.Errorf("store: migration %s/%s: %w", owner, m.name, err)
		}
	}
	return nil
}

// checkApplied refuses to touch a database that is ahead of the files.
func (db *DB) checkApplied(ctx context.Context, owner string, list []migration) error {
	return db.Read(ctx, func(q Querier) error {
		var last int64
		err := q.QueryRow(`SELECT COALESCE(MAX(number), 0) FROM parley_migrations WHERE owner = $1`, owner).Scan(&last)
		if err == nil && last > int64(len(list)) {
			err = fmt.Errorf("the database has migration %d, this program knows %d: it is older than the database", last, len(list))
		}
		return err
	})
}

func (db *DB) applyMigration(ctx context.Context, owner string, m migration) error {
	return db.Write(ctx, func(tx *Tx) error {
		var sum []byte
		err := tx.QueryRow(`SELECT sha256 FROM parley_migrations WHERE owner = $1 AND number = $2`,
			owner, m.number).Scan(&sum)
		switch {
		case err == nil && bytes.Equal(sum, m.sum[:]):
			return nil
		case err == nil:
			return fmt.Errorf("the file has changed since it was applied")
		case !NotFound(err):
			return err
		}
		for _, stmt := range m.stmts {
			if err := tx.s.command(tx.ctx, stmt); err != nil {
				return tx.fail(stmt, err)
			}
		}
		_, err = tx.Exec(`INSERT INTO parley_migrations (owner, number, name, sha256, applied) VALUES ($1, $2, $3, $4, $5)`,
			owner, m.number, m.name, m.sum[:], time.Now().UnixMicro())
		return err
	})
}

func readMigrations(fsys fs.FS, d *dialect) ([]migration, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var list []migration
	for i, name := range names {
		digits, _, ok := strings.Cut(name, "_")
		number, err := strconv.ParseInt(digits, 10, 64)
		if !ok || len(digits) != 4 || err != nil || number != int64(i+1) {
			return nil, fmt.Errorf("%s: files are named 0001_name.sql and numbered without gaps", name)
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if len(text) > maxMigration {
			return nil, fmt.Errorf("%s: larger than %d bytes", name, maxMigration)
		}
		stmts, err := d.definitions(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, migration{number, name, sha256.Sum256(text), stmts})
	}
	return list, nil
}

// definitions splits a migration file at its semicolons and spells each
// statement for the database.
func (d *dialect) definitions(text string) ([]string, error) {
	toks, err := lex(text)
	if err != nil {
		return nil, err
	}
	var out []string
	for len(toks) > 0 {
		end := slices.IndexFunc(toks, func(t token) bool { return t.kind == tokPunct && t.text == ";" })
		stmt := toks
		if end >= 0 {
			stmt, toks = toks[:end], toks[end+1:]
		} else {
			toks = nil
		}
		if !slices.ContainsFunc(stmt, func(t token) bool { return t.kind != tokSpace }) {
			continue
		}
		s, err := d.define(stmt)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// definition spells one statement of a migration.
func (d *dialect) definition(stmt string) (string, error) {
	toks, err := lex(stmt)
	if err != nil {
		return "", err
	}
	return d.define(toks)
}

// columnTypes are the types of the dialect and their spelling on SQLite and
// PostgreSQL.
var columnTypes = map[string][2]string{
	"BIGINT": {"INTEGER", "BIGINT"},
	"TEXT":   {"TEXT", `TEXT COLLATE "C"`},
	"BLOB":   {"BLOB", "BYTEA"},
}

// define spells one statement: the column types of CREATE TABLE and ALTER
// TABLE … ADD COLUMN, and STRICT at the end of a table on SQLite.
func (d *dialect) define(toks []token) (string, error) {
	out := slices.Clone(toks)
	var words []int // indexes of the tokens that are not space
	for i, t := range toks {
		if t.kind != tokSpace {
			words = append(words, i)
		}
		if t.kind == tokParam {
			return "", fmt.Errorf("store: a placeholder in a migration: %q", excerpt(join(toks)))
		}
	}
	word := func(n int) token {
		if n < len(words) {
			return toks[words[n]]
		}
		return token{}
	}
	strict, options := false, ""
	switch {
	case word(0).is("CREATE") && word(1).is("TABLE"):
		strict = true
		if n := len(words); n > 2 && word(n-2).is("WITHOUT") && word(n-1).is("ROWID") {
			// SQLite's alone: the rows are in the tree of the primary key.
			options = ", WITHOUT ROWID"
			out, words = out[:words[n-2]], words[:n-2]
		}
		if err := d.defineColumns(out, words); err != nil {
			return "", err
		}
	case word(0).is("ALTER") && word(1).is("TABLE"):
		for n := range words {
			if word(n).is("ADD") && word(n+1).is("COLUMN") {
				if err := d.defineColumn(out, words, n+2); err != nil {
					return "", err
				}
			}
		}
	case word(0).is("CREATE") && word(1).is("TRIGGER"), word(0).is("BEGIN"), word(0).is("COMMIT"), word(0).is("PRAGMA"):
		return "", fmt.Errorf("store: %s is not in the dialect of migrations", strings.ToUpper(word(0).text+" "+word(1).text))
	}
	s := strings.TrimSpace(d.render(out))
	if strict && d.kind == kindSQLite {
		s += " STRICT" + options
	}
	return s, nil
}

// notColumns are the words that start an entry of CREATE TABLE that is not a
// column.
var notColumns = []string{"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}

func (d *dialect) defineColumns(out []token, words []int) error {
	depth := 0
	for n, i := range words {
		t := out[i]
		switch {
		case t.kind != tokPunct:
			continue
		case t.text == "(":
			depth++
		case t.text == ")":
			depth--
			if depth == 0 && n+1 < len(words) {
				return fmt.Errorf("store: table options are not in the dialect: %q", excerpt(join(out)))
			}
			continue
		}
		if depth != 1 || t.text != "(" && t.text != "," || n+1 >= len(words) {
			continue
		}
		next := out[words[n+1]]
		if slices.ContainsFunc(notColumns, next.is) {
			continue
		}
		if err := d.defineColumn(out, words, n+1); err != nil {
			return err
		}
	}
	if depth != 0 {
		return fmt.Errorf("store: unbalanced parentheses: %q", excerpt(join(out)))
	}
	return nil
}

// defineColumn replaces the type of the column whose name is words[n].
func (d *dialect) defineColumn(out []token, words []int, n int) error {
	if n+1 >= len(words) {
		return fmt.Errorf("store: column without a type: %q", excerpt(join(out)))
	}
	name, typ := out[words[n]].text, &out[words[n+1]]
	spelling, ok := columnTypes[strings.ToUpper(typ.text)]
	if !ok {
		return fmt.Errorf("store: column %s: type %s is not in the dialect (BIGINT, TEXT, BLOB)", name, typ.text)
	}
	typ.text = spelling[d.kind]
	return nil
}

func join(toks []token) string {
	var b strings.Builder
	for _, t := range toks {
		b.WriteString(t.text)
	}
	return b.String()
}
