package bench

import (
	_ "embed"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed report.md.tmpl
var reportText string

// Report is everything that docs/benchmarks.md tells.
type Report struct {
	Date    time.Time
	Machine Machine
	Size    Size
	Results []*Result
}

// direction says which of two values is the better one.
type direction int

const (
	neither direction = iota
	more
	less
)

// row is one line of the table.
type row struct {
	what, unit string
	better     direction
	value      func(*Result) (float64, bool)
}

func throughput(of func(*Result) *Throughput, f func(*Throughput) float64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) {
		if t := of(r); t != nil {
			return f(t), true
		}
		return 0, false
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func rows(size Size) []row {
	chat := func(r *Result) *Throughput { return r.Chat }
	room := func(r *Result) *Throughput { return r.Room }
	all := []row{
		{"Private messages", "1/s", more, throughput(chat, (*Throughput).Rate)},
		{"… acknowledged (XEP-0198)", "1/s", more, throughput(chat, func(t *Throughput) float64 { return float64(t.Acked) / t.Time.Seconds() })},
		{"… processor time of a message", "µs", less, throughput(chat, func(t *Throughput) float64 { return micros(t.PerMessage()) })},
		{"… core in use", "%", neither, throughput(chat, busy)},
		{"… the clients' core", "%", neither, throughput(chat, clientsBusy)},
		{"… fsyncs", "1/s", neither, throughput(chat, syncs)},
		{fmt.Sprintf("Room of %d: deliveries", size.Occupants), "1/s", more, throughput(room, (*Throughput).Rate)},
		{"… messages", "1/s", more, throughput(room, func(t *Throughput) float64 { return t.Rate() / float64(size.Occupants) })},
		{"… processor time of a delivery", "µs", less, throughput(room, func(t *Throughput) float64 { return micros(t.PerMessage()) })},
		{"… core in use", "%", neither, throughput(room, busy)},
		{"… the clients' core", "%", neither, throughput(room, clientsBusy)},
		{"… fsyncs", "1/s", neither, throughput(room, syncs)},
		{"… until all are in", "s", less, throughput(room, func(t *Throughput) float64 { return t.Enter.Seconds() })},
	}
	return append(all, otherRows(size)...)
}

func busy(t *Throughput) float64        { return 100 * t.CPU.Seconds() / t.Time.Seconds() }
func clientsBusy(t *Throughput) float64 { return 100 * t.Mine.Seconds() / t.Time.Seconds() }
func syncs(t *Throughput) float64       { return float64(t.Syncs) / t.Time.Seconds() }

// have makes a row's value of a scenario that may not have been run.
func have[T any](of func(*Result) *T, f func(*T) float64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) {
		if v := of(r); v != nil {
			return f(v), true
		}
		return 0, false
	}
}

func otherRows(size Size) []row {
	paging := func(r *Result) *Paging { return r.Paging }
	idle := func(r *Result) *Idle { return r.Idle }
	restart := func(r *Result) *Restart { return r.Restart }
	crash := func(r *Result) *Restart { return r.Crash }
	latency := func(r *Result) *Latency { return r.Latency }
	across := func(r *Result) *Across { return r.Across }
	session := func(n int64, i *Idle) float64 { return float64(n) / float64(i.Sessions) / 1024 }
	return []row{
		{fmt.Sprintf("Archive of %d: pages of %d", size.Archive, pageSize), "1/s", more, have(paging, (*Paging).Rate)},
		{"… processor time of a page", "ms", less, have(paging, func(p *Paging) float64 { return millis(p.PerPage()) })},
		{"… messages that were in it", "", neither, have(paging, func(p *Paging) float64 { return float64(p.Filled) })},
		{fmt.Sprintf("Memory of an idle session, of %d (RSS)", size.Idle), "KiB", less, have(idle, func(i *Idle) float64 { return session(i.RSS, i) })},
		{"… the same as PSS", "KiB", less, have(idle, func(i *Idle) float64 { return session(i.PSS, i) })},
		{"… server without them (RSS)", "MiB", less, have(idle, func(i *Idle) float64 { return float64(i.Base) / (1 << 20) })},
		{"… processor time of a login", "ms", less, have(idle, func(i *Idle) float64 { return millis(i.Login) })},
		{"First message after a restart", "ms", less, have(restart, func(r *Restart) float64 { return millis(r.First) })},
		{"First message after a crash", "ms", less, have(crash, func(r *Restart) float64 { return millis(r.First) })},
		{"Latency, XMPP to XMPP: median", "ms", less, have(latency, func(l *Latency) float64 { return millis(l.Median) })},
		{"… 99th percentile", "ms", less, have(latency, func(l *Latency) float64 { return millis(l.P99) })},
		{"Latency, Matrix to XMPP: median", "ms", less, have(across, func(a *Across) float64 { return millis(a.ToXMPP.Median) })},
		{"… 99th percentile", "ms", less, have(across, func(a *Across) float64 { return millis(a.ToXMPP.P99) })},
		{"Latency, XMPP to Matrix: median", "ms", less, have(across, func(a *Across) float64 { return millis(a.ToMatrix.Median) })},
		{"… 99th percentile", "ms", less, have(across, func(a *Across) float64 { return millis(a.ToMatrix.P99) })},
	}
}

// table is the results as Markdown: a column for each server, and for each but the first
// one with how many times better the first is.
func (r *Report) table() string {
	var b strings.Builder
	b.WriteString("| | unit |")
	line := "|---|---|"
	for _, s := range r.Results {
		b.WriteString(" " + s.Name + " |")
		line += "--:|"
	}
	for _, s := range r.Results[1:] {
		b.WriteString(" to " + s.Name + " |")
		line += "--:|"
	}
	b.WriteString("\n" + line + "\n")
	for _, row := range rows(r.Size) {
		b.WriteString(r.row(row))
	}
	return b.String()
}

// row is one line; empty if no server has the value.
func (r *Report) row(row row) string {
	line, any := "| "+row.what+" | "+row.unit+" |", false
	for _, s := range r.Results {
		v, ok := row.value(s)
		if !ok || v < 0 {
			line += " — |"
			continue
		}
		any = true
		line += " " + number(v) + " |"
	}
	if !any {
		return ""
	}
	first, ok := row.value(r.Results[0])
	for _, s := range r.Results[1:] {
		v, there := row.value(s)
		switch {
		case !ok || !there || v <= 0 || first <= 0 || row.better == neither:
			line += " |"
		case row.better == less:
			line += " " + number(v/first) + "× |"
		default:
			line += " " + number(first/v) + "× |"
		}
	}
	return line + "\n"
}

// number has three significant digits at most.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// leastShare is the percentage that a package has at least to be in the report.
const leastShare = 3

// where is a profile as a table in Markdown.
func where(data []byte) (string, error) {
	shares, err := whereTime(data, leastShare)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| package | with what it calls | itself | most in |\n|---|--:|--:|---|\n")
	for _, s := range shares {
		fmt.Fprintf(&b, "| `%s` | %.0f %% | %.0f %% | `%s` |\n", s.Package, s.Total, s.Self, s.Top)
	}
	return b.String(), nil
}

// memoryTable is what an idle session takes, as a table in Markdown.
func memoryTable(i *Idle) string {
	var b strings.Builder
	b.WriteString("| an idle session | bytes |\n|---|--:|\n")
	for _, p := range i.Parts {
		fmt.Fprintf(&b, "| %s | %d |\n", p.What, p.Size/int64(i.Sessions))
	}
	fmt.Fprintf(&b, "| all | %d |\n", i.RSS/int64(i.Sessions))
	return b.String()
}

// firstLine shortens an error for the report.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// Write writes the report as Markdown.
func (r *Report) Write(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{"where": where, "memory": memoryTable, "line": firstLine}).Parse(reportText)
	if err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	data := map[string]any{"Report": r, "Table": r.table(), "Page": pageSize, "Fill": fill, "FillLimit": fillTimeout, "Openings": openings, "ServerCPU": ServerCPU, "ClientCPU": ClientCPU, "Text": len(text)}
	if err := t.Execute(w, data); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}
