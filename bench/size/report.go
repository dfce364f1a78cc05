package size

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"parley/bench/meter"
)

//go:embed report.md.tmpl
var reportText string

// Report is what docs/federation.md tells of large rooms.
type Report struct {
	Date    time.Time
	Machine meter.Machine
	Results []Result
}

// column is one number of each room.
type column struct {
	name  string
	value func(Result) float64
	text  func(Result) string
	// each says that the number is for one event, which need not grow with the room.
	each bool
}

// costs is a column of times.
func costs(name string, each bool, of func(Result) Cost) column {
	return column{name, func(r Result) float64 { return of(r).CPU.Seconds() }, func(r Result) string {
		return short(of(r).CPU) + " (" + short(of(r).Time) + ")"
	}, each}
}

// sizes is a column of bytes.
func sizes(name string, of func(Result) int64) column {
	return column{name, func(r Result) float64 { return float64(of(r)) }, func(r Result) string {
		return meter.Number(float64(of(r))/1e6) + " MB"
	}, false}
}

var columns = []column{
	costs("first messages", true, func(r Result) Cost { return r.First }),
	costs("all members", false, func(r Result) Cost { return r.Whole }),
	costs("message", true, func(r Result) Cost { return r.Message }),
	costs("member", true, func(r Result) Cost { return r.Member }),
	costs("fork", true, func(r Result) Cost { return r.Fork }),
	costs("own message", true, func(r Result) Cost { return r.Own }),
	costs("after a restart", false, func(r Result) Cost { return r.Cold }),
	sizes("memory", func(r Result) int64 { return r.Memory }),
	sizes("database", func(r Result) int64 { return r.Disk }),
	{"rows of states", func(r Result) float64 { return float64(r.States) }, func(r Result) string { return fmt.Sprint(r.States) }, false},
}

// short rounds a time to three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return meter.Number(d.Seconds()) + " s"
	default:
		return meter.Number(float64(d)/float64(time.Millisecond)) + " ms"
	}
}

// table has a line for each room, and one for how much more the largest takes than the
// smallest.
func (r *Report) table() string {
	var b strings.Builder
	b.WriteString("| members | servers |")
	line := "|--:|--:|"
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
		line += "--:|"
	}
	b.WriteString("\n" + line + "\n")
	for _, res := range r.Results {
		fmt.Fprintf(&b, "| %d | %d |", res.Members, res.Servers)
		for _, c := range columns {
			b.WriteString(" " + c.text(res) + " |")
		}
		b.WriteString("\n")
	}
	first, last := r.Results[0], r.Results[len(r.Results)-1]
	if len(r.Results) < 2 {
		return b.String()
	}
	fmt.Fprintf(&b, "| %s× | %s× |", meter.Number(float64(last.Members)/float64(first.Members)), meter.Number(float64(last.Servers)/float64(first.Servers)))
	for _, c := range columns {
		ratio := "—"
		if c.value(first) > 0 {
			ratio = meter.Number(c.value(last)/c.value(first)) + "×"
		}
		b.WriteString(" " + ratio + " |")
	}
	b.WriteString("\n")
	return b.String()
}

// Write writes the report as Markdown.
func (r *Report) Write(w io.Writer) error {
	t, err := template.New("report").Parse(reportText)
	if err != nil {
		return fmt.Errorf("size: report: %w", err)
	}
	if err := t.Execute(w, map[string]any{"Report": r, "Table": r.table(), "Batch": batch, "Rounds": rounds}); err != nil {
		return fmt.Errorf("size: report: %w", err)
	}
	return nil
}
