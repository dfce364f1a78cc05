package meter

import (
	"strconv"
	"strings"
)

// Direction says which of two values is the better one.
type Direction int

// The directions; of values that are neither, there is no ratio.
const (
	Neither Direction = iota
	More
	Less
)

// Row is one line of a table about servers, of each of which there is a result R.
type Row[R any] struct {
	What, Unit string
	Better     Direction
	// Value is the server's; false if it was not measured.
	Value func(R) (float64, bool)
}

// Line makes a [Row].
func Line[R any](what, unit string, better Direction, value func(R) (float64, bool)) Row[R] {
	return Row[R]{What: what, Unit: unit, Better: better, Value: value}
}

// Table is the results as Markdown: a column for each server, and for each but the first
// one with how many times better the first is. A line that no server has is left out.
func Table[R any](results []R, name func(R) string, rows []Row[R]) string {
	var b strings.Builder
	b.WriteString("| | unit |")
	line := "|---|---|"
	for _, r := range results {
		b.WriteString(" " + name(r) + " |")
		line += "--:|"
	}
	for _, r := range results[1:] {
		b.WriteString(" to " + name(r) + " |")
		line += "--:|"
	}
	b.WriteString("\n" + line + "\n")
	for _, row := range rows {
		b.WriteString(row.line(results))
	}
	return b.String()
}

// line is one line; empty if no server has the value.
func (row Row[R]) line(results []R) string {
	line, any := "| "+row.What+" | "+row.Unit+" |", false
	for _, r := range results {
		v, ok := row.Value(r)
		if !ok || v < 0 {
			line += " — |"
			continue
		}
		any = true
		line += " " + Number(v) + " |"
	}
	if !any {
		return ""
	}
	first, ok := row.Value(results[0])
	for _, r := range results[1:] {
		v, there := row.Value(r)
		switch {
		case !ok || !there || v <= 0 || first <= 0 || row.Better == Neither:
			line += " |"
		case row.Better == Less:
			line += " " + Number(v/first) + "× |"
		default:
			line += " " + Number(first/v) + "× |"
		}
	}
	return line + "\n"
}

// Number writes a value with three significant digits at most.
func Number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
