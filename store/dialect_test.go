package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ in, sqlite, postgres string }{
		{`SELECT $2, $1, $2`, `SELECT ?2, ?1, ?2`, `SELECT $2, $1, $2`},
		{`SELECT '$1', "$1", $1`, `SELECT '$1', "$1", ?1`, `SELECT '$1', "$1", $1`},
		{`SELECT 'it''s $1'`, `SELECT 'it''s $1'`, `SELECT 'it''s $1'`},
		{"SELECT 1 -- $1 'x\n+ $1", "SELECT 1 -- $1 'x\n+ ?1", "SELECT 1 -- $1 'x\n+ $1"},
		{`SELECT /* $1 ' */ $1`, `SELECT /* $1 ' */ ?1`, `SELECT /* $1 ' */ $1`},
		{`SELECT a$1 FROM t`, `SELECT a$1 FROM t`, `SELECT a$1 FROM t`},
		{`SELECT X'00fF'`, `SELECT X'00fF'`, `SELECT '\x00fF'::bytea`},
		{`SELECT X''`, `SELECT X''`, `SELECT '\x'::bytea`},
		{`SELECT CAST($1 AS BLOB)`, `SELECT CAST(?1 AS BLOB)`, `SELECT CAST($1 AS BYTEA)`},
		{`SELECT blob FROM t`, `SELECT blob FROM t`, `SELECT blob FROM t`},
		{`VALUES ($1,$10,$11)`, `VALUES (?1,?10,?11)`, `VALUES ($1,$10,$11)`},
		{`SELECT é, $1`, `SELECT é, ?1`, `SELECT é, $1`},
		{``, ``, ``},
	} {
		for kind, want := range map[kind]string{kindSQLite: c.sqlite, kindPostgres: c.postgres} {
			got, err := newDialect(kind).rewrite(c.in)
			if err != nil || got != want {
				t.Errorf("%v: %q: got %q, %v; want %q", kind, c.in, got, err, want)
			}
		}
	}
}

func TestRewriteRefuses(t *testing.T) {
	for _, in := range []string{
		`SELECT ?`, `SELECT ?1`, "SELECT `a`", `SELECT [a]`, `SELECT 'a`, `SELECT "a`, `SELECT /* a`,
		`SELECT /* /* */ */ 1`, `SELECT $0`, `SELECT $01`, `SELECT $`, `SELECT $a`, `SELECT $$a$$`, `SELECT $1a`,
		`SELECT $99999`, `SELECT X'0'`, `SELECT X'0g'`, `SELECT E'\x'`, "SELECT 1\x00", "SELECT '\x00'",
	} {
		if got, err := newDialect(kindSQLite).rewrite(in); err == nil {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// piece is a fragment of SQL with what it must become on SQLite.
type piece struct{ in, out string }

func genPiece(t *rapid.T) piece {
	quoted := func(q string) piece {
		s := rapid.StringMatching(`[a-z$0-9?\-/*" ]{0,8}`).Draw(t, "text")
		s = q + strings.ReplaceAll(s, q, q+q) + q
		return piece{s, s}
	}
	switch rapid.IntRange(0, 6).Draw(t, "piece") {
	case 0:
		n := rapid.IntRange(1, 300).Draw(t, "n")
		return piece{fmt.Sprintf("$%d", n), fmt.Sprintf("?%d", n)}
	case 1:
		return quoted("'")
	case 2:
		return quoted(`"`)
	case 3:
		s := "--" + rapid.StringMatching(`[a-z$0-9?'"/*]{0,8}`).Draw(t, "comment") + "\n"
		return piece{s, s}
	case 4:
		s := "/*" + rapid.StringMatching(`[a-z$0-9?'"\-]{0,8}`).Draw(t, "comment") + "*/"
		return piece{s, s}
	case 5:
		s := rapid.StringMatching(`[a-df-wyz_][a-z0-9_$]{1,6}`).Draw(t, "word")
		return piece{s, s}
	default:
		s := rapid.SampledFrom([]string{"(", ")", ",", "=", "<", "||", "1.5", "+"}).Draw(t, "punct")
		return piece{s, s}
	}
}

// Only placeholders outside of quotes and comments change, each into that of
// its own number, and lexing loses nothing.
func TestRewriteProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in, want []string
		for range rapid.IntRange(0, 12).Draw(t, "pieces") {
			p := genPiece(t)
			in, want = append(in, p.in), append(want, p.out)
		}
		query := strings.Join(in, " ")
		got, err := newDialect(kindSQLite).rewrite(query)
		if err != nil || got != strings.Join(want, " ") {
			t.Fatalf("%q became %q, %v", query, got, err)
		}
		if same, err := newDialect(kindPostgres).rewrite(query); err != nil || same != query {
			t.Fatalf("%q became %q, %v", query, same, err)
		}
	})
}

func FuzzLex(f *testing.F) {
	for _, s := range []string{`SELECT $1, 'a''b', "c", X'00' -- d`, `/* $1 */ a$1`, `CREATE TABLE a (b TEXT);`, "'", "$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		toks, err := lex(s)
		if err == nil && join(toks) != s {
			t.Errorf("%q became %q", s, join(toks))
		}
		for _, k := range []kind{kindSQLite, kindPostgres} {
			stmts, err := newDialect(k).definitions(s)
			for _, stmt := range stmts {
				if _, lerr := lex(stmt); err == nil && lerr != nil {
					t.Errorf("%q gave %q: %v", s, stmt, lerr)
				}
			}
		}
	})
}

func TestDefinitions(t *testing.T) {
	const in = `
-- A table; with a semicolon in a comment and 'a quote
CREATE TABLE IF NOT EXISTS "odd;name" (
	id bigint PRIMARY KEY, -- TEXT
	text TEXT NOT NULL DEFAULT ';',
	body BLOB NOT NULL DEFAULT X'',
	n BIGINT NOT NULL CHECK (n IN (1, 2)),
	PRIMARY KEY (id, text), UNIQUE (body),
	CONSTRAINT c FOREIGN KEY (n) REFERENCES other (id) ON DELETE CASCADE
);
CREATE TABLE small (a TEXT PRIMARY KEY) WITHOUT ROWID;
ALTER TABLE x ADD COLUMN y TEXT;
CREATE INDEX i ON x (y) WHERE y > 'a;b';
INSERT INTO x (y) VALUES ('BLOB');;`
	for _, c := range []struct {
		kind kind
		want []string
	}{
		{kindSQLite, []string{"id INTEGER PRIMARY KEY", "text TEXT NOT NULL DEFAULT ';'", "body BLOB NOT NULL DEFAULT X''", ") STRICT;", "a TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;", "y TEXT"}},
		{kindPostgres, []string{"id BIGINT PRIMARY KEY", `text TEXT COLLATE "C" NOT NULL DEFAULT ';'`, `body BYTEA NOT NULL DEFAULT '\x'::bytea`, "CASCADE\n);", `a TEXT COLLATE "C" PRIMARY KEY);`, `y TEXT COLLATE "C"`}},
	} {
		got, err := newDialect(c.kind).definitions(in)
		if err != nil || len(got) != 5 {
			t.Fatalf("%v: %q, %v", c.kind, got, err)
		}
		all := strings.Join(got, ";")
		for _, want := range c.want {
			if !strings.Contains(all, want) {
				t.Errorf("%v: no %q in %s", c.kind, want, all)
			}
		}
		if !strings.HasSuffix(got[4], "VALUES ('BLOB')") {
			t.Errorf("%q", got[4])
		}
	}
}

func TestDefinitionsRefuse(t *testing.T) {
	for _, in := range []string{
		`CREATE TABLE a (b INTEGER)`, `CREATE TABLE a (b SERIAL)`, `CREATE TABLE a (b BOOLEAN)`, `CREATE TABLE a (b)`,
		`CREATE TABLE a (b TEXT) WITHOUT OIDS`, `ALTER TABLE a ADD COLUMN b VARCHAR`, `CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END`,
		`BEGIN; SELECT 1`, `PRAGMA foreign_keys=off`, `INSERT INTO a VALUES ($1)`, `CREATE TABLE a (`, `SELECT 'a`,
	} {
		if got, err := newDialect(kindSQLite).definitions(in); err == nil {
			t.Errorf("%q became %q", in, got)
		}
	}
}

type name string

func TestConvertArgs(t *testing.T) {
	five := 5
	got, err := convertArgs([]any{true, false, name("x"), []byte(nil), []byte{}, &five, (*int)(nil), uint8(3), nil})
	want := []any{int64(1), int64(0), "x", nil, []byte{}, int64(5), nil, int64(3), nil}
	if err != nil || !slices.EqualFunc(got, want, func(a, b any) bool { return fmt.Sprintf("%T%v", a, a) == fmt.Sprintf("%T%v", b, b) }) {
		t.Errorf("%#v, %v", got, err)
	}
	for _, bad := range []any{time.Now(), "a\x00", "\xff", uint64(1 << 63), 1.5, struct{}{}, []int{1}} {
		if got, err := convertArgs([]any{bad}); err == nil {
			t.Errorf("%#v became %#v", bad, got)
		}
	}
}
