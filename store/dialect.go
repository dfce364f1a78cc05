package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// kind names the database that a dialect rewrites for.
type kind int

const (
	kindSQLite kind = iota
	kindPostgres
)

func (k kind) String() string {
	if k == kindPostgres {
		return "PostgreSQL"
	}
	return "SQLite"
}

// maxRewrites bounds the memory spent on remembering rewritten statements.
// Statements are constants of the program; only a bug makes more.
const maxRewrites = 4096

// dialect rewrites statements and arguments for one kind of database.
type dialect struct {
	kind kind

	mu       sync.RWMutex
	rewrites map[string]string
}

func newDialect(k kind) *dialect {
	return &dialect{kind: k, rewrites: make(map[string]string)}
}

// rewrite returns query in the spelling of the database.
func (d *dialect) rewrite(query string) (string, error) {
	d.mu.RLock()
	out, ok := d.rewrites[query]
	d.mu.RUnlock()
	if ok {
		return out, nil
	}
	toks, err := lex(query)
	if err != nil {
		return "", err
	}
	out = d.render(toks)
	d.mu.Lock()
	if len(d.rewrites) >= maxRewrites {
		clear(d.rewrites)
	}
	d.rewrites[query] = out
	d.mu.Unlock()
	return out, nil
}

// render spells tokens for the database: placeholders, bytes literals, and
// the type in CAST(… AS BLOB).
func (d *dialect) render(toks []token) string {
	var b strings.Builder
	for i, t := range toks {
		switch {
		case t.kind == tokParam && d.kind == kindSQLite:
			b.WriteByte('?')
			b.WriteString(t.text[1:])
		case t.kind == tokBytes && d.kind == kindPostgres:
			b.WriteString(`'\x`)
			b.WriteString(t.text[2:])
			b.WriteString(`::bytea`)
		case d.kind == kindPostgres && t.is("BLOB") && prevWord(toks, i).is("AS"):
			b.WriteString("BYTEA")
		default:
			b.WriteString(t.text)
		}
	}
	return b.String()
}

// prevWord returns the last token before i that is neither space nor comment.
func prevWord(toks []token, i int) token {
	for i--; i >= 0; i-- {
		if toks[i].kind != tokSpace {
			return toks[i]
		}
	}
	return token{}
}

// tokKind classifies a token of the dialect.
type tokKind int

const (
	tokSpace  tokKind = iota // white space or a comment
	tokWord                  // keyword or bare identifier
	tokQuoted                // "identifier" or 'string'
	tokBytes                 // X'00ff'
	tokParam                 // $1
	tokNumber
	tokPunct // one byte of anything else
)

type token struct {
	kind tokKind
	text string
}

// is reports whether t is the bare word w (upper case), in any case.
func (t token) is(w string) bool {
	return t.kind == tokWord && strings.EqualFold(t.text, w)
}

// lex cuts a statement into tokens whose texts concatenate to the input. It
// refuses what the two databases would read differently.
func lex(s string) ([]token, error) {
	var toks []token
	for i := 0; i < len(s); {
		kind, n, err := lexOne(s[i:])
		if err != nil {
			return nil, fmt.Errorf("store: at byte %d of %q: %w", i, excerpt(s), err)
		}
		toks = append(toks, token{kind, s[i : i+n]})
		i += n
	}
	return toks, nil
}

func excerpt(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func lexOne(s string) (tokKind, int, error) {
	c := s[0]
	switch {
	case isSpace(c):
		return tokSpace, span(s, isSpace), nil
	case strings.HasPrefix(s, "--"):
		if n := strings.IndexByte(s, '\n'); n >= 0 {
			return tokSpace, n + 1, nil
		}
		return tokSpace, len(s), nil
	case strings.HasPrefix(s, "/*"):
		n, err := lexComment(s)
		return tokSpace, n, err
	case (c == 'x' || c == 'X') && len(s) > 1 && s[1] == '\'':
		n, err := lexBytes(s)
		return tokBytes, n, err
	case c == '\'' || c == '"':
		n, err := lexQuoted(s)
		return tokQuoted, n, err
	case c == '$':
		n, err := lexParam(s)
		return tokParam, n, err
	case isWordStart(c):
		n := span(s, isWordPart)
		if n == 1 && (c == 'e' || c == 'E') && len(s) > 1 && s[1] == '\'' {
			return 0, 0, errors.New("strings of the form E'' are not in the dialect")
		}
		return tokWord, n, nil
	case isDigit(c):
		return tokNumber, span(s, func(c byte) bool { return isDigit(c) || c == '.' }), nil
	case c == '?' || c == '`' || c == '[' || c == '\\' || c == 0:
		return 0, 0, fmt.Errorf("%q is not in the dialect", c)
	}
	return tokPunct, 1, nil
}

func lexComment(s string) (int, error) {
	end := strings.Index(s[2:], "*/")
	if end < 0 {
		return 0, errors.New("comment without end")
	}
	if strings.Contains(s[2:2+end], "/*") {
		return 0, errors.New("nested comments are not in the dialect")
	}
	return end + 4, nil
}

// lexQuoted measures a quoted token; a doubled quote is the quote itself.
func lexQuoted(s string) (int, error) {
	q := s[0]
	for i := 1; i < len(s); i++ {
		if s[i] == 0 {
			return 0, errors.New("NUL in a quoted token")
		}
		if s[i] != q {
			continue
		}
		if i+1 < len(s) && s[i+1] == q {
			i++
			continue
		}
		return i + 1, nil
	}
	return 0, fmt.Errorf("%q without end", q)
}

func lexBytes(s string) (int, error) {
	n := 2 + span(s[2:], isHex)
	if n >= len(s) || s[n] != '\'' || n%2 != 0 {
		return 0, errors.New("malformed bytes literal")
	}
	return n + 1, nil
}

// maxParams is PostgreSQL's 65535 and SQLite's 32766, whichever is smaller.
const maxParams = 32766

func lexParam(s string) (int, error) {
	n := 1 + span(s[1:], isDigit)
	num, err := strconv.Atoi(s[1:n])
	if err != nil || num < 1 || num > maxParams || s[1] == '0' {
		return 0, errors.New("a placeholder is $1, $2, …; other uses of $ are not in the dialect")
	}
	if n < len(s) && isWordPart(s[n]) {
		return 0, errors.New("placeholder runs into a word")
	}
	return n, nil
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func isSpace(c byte) bool     { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isDigit(c byte) bool     { return '0' <= c && c <= '9' }
func isHex(c byte) bool       { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
func isWordStart(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80 }
func isWordPart(c byte) bool  { return isWordStart(c) || isDigit(c) || c == '$' }

// convertArgs turns arguments into int64, []byte, string or nil, so
// that both drivers see the same and refuse the same.
func convertArgs(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, arg := range args {
		v, err := convert(arg)
		if err != nil {
			return nil, fmt.Errorf("store: argument $%d (%T): %w", i+1, arg, err)
		}
		out[i] = v
	}
	return out, nil
}

func convert(arg any) (any, error) {
	switch arg.(type) {
	case int64, string, []byte, nil:
		return convertArg(arg)
	}
	v, err := driver.DefaultParameterConverter.ConvertValue(arg)
	if err != nil {
		return nil, err
	}
	return convertArg(v)
}

func convertArg(v any) (any, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case string:
		if strings.IndexByte(v, 0) >= 0 || !utf8.ValidString(v) {
			return nil, errors.New("text with a NUL or invalid UTF-8; pass []byte to a BLOB column")
		}
	case []byte:
		if v == nil {
			return nil, nil
		}
	case float64:
		return nil, errors.New("there are no fractions in the dialect")
	case time.Time:
		return nil, errors.New("a time is stored as BIGINT in a unit that the column names")
	}
	return v, nil
}
