package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Error is one thing wrong with the file.
type Error struct {
	File string
	Line int    // from 1; 0 when the thing is missing and so has no line
	Key  string // dotted; may be empty
	Msg  string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// position is where a key is, and whether its value is a bare number.
type position struct {
	line   int
	number bool
}

// positions finds each key. Keys are dotted, elements of arrays of tables
// numbered: "tls.more.0.cert".
type positions map[string]position

// line is where a key is, or its nearest parent that is in the file.
func (p positions) line(key string) int {
	for {
		if at, ok := p[key]; ok {
			return at.line
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// readPositions reads a document as far as its first syntax error.
func readPositions(data []byte) positions {
	pos := make(positions)
	arrays := make(map[string]int)
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		parts, line := keyOf(&p, e)
		switch e.Kind {
		case unstable.Table:
			table = parts
			pos[strings.Join(table, ".")] = position{line: line}
		case unstable.ArrayTable:
			name := strings.Join(parts, ".")
			table = append(parts, strconv.Itoa(arrays[name]))
			arrays[name]++
			pos[strings.Join(table, ".")] = position{line: line}
		case unstable.KeyValue:
			key := slices.Concat(table, parts)
			pos.value(&p, key, line, e.Value())
		}
	}
	return pos
}

// value notes a value, and goes into { inline = "tables" }.
func (p positions) value(parser *unstable.Parser, key []string, line int, v *unstable.Node) {
	p[strings.Join(key, ".")] = position{line, v.Kind == unstable.Integer || v.Kind == unstable.Float}
	if v.Kind != unstable.InlineTable {
		return
	}
	for it := v.Children(); it.Next(); {
		child := it.Node()
		parts, line := keyOf(parser, child)
		p.value(parser, slices.Concat(key, parts), line, child.Value())
	}
}

func keyOf(p *unstable.Parser, n *unstable.Node) (parts []string, line int) {
	for it := n.Key(); it.Next(); {
		k := it.Node()
		if line == 0 {
			line = p.Shape(k.Raw).Start.Line
		}
		parts = append(parts, string(k.Data))
	}
	return parts, line
}

// decodeErrors turns the library's errors into ours.
func decodeErrors(file string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		errs := make([]*Error, len(strict.Errors))
		for i := range strict.Errors {
			e := &strict.Errors[i]
			line, _ := e.Position()
			errs[i] = &Error{File: file, Line: line, Key: strings.Join(e.Key(), "."), Msg: "unknown key"}
		}
		return join(errs)
	}
	var dec *toml.DecodeError
	if errors.As(err, &dec) {
		line, _ := dec.Position()
		return &Error{File: file, Line: line, Key: strings.Join(dec.Key(), "."),
			Msg: strings.TrimPrefix(dec.Error(), "toml: ")}
	}
	return fmt.Errorf("%s: %w", file, err)
}

// join orders errors as the operator meets them in the file.
func join(errs []*Error) error {
	slices.SortStableFunc(errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	out := make([]error, len(errs))
	for i, e := range errs {
		out[i] = e
	}
	return errors.Join(out...)
}
