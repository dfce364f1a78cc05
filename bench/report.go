package bench

import (
	_ "embed"
	"fmt"
	"io"
	"parley/bench/meter"
	"strings"
	"text/template"
	"time"
)

//go:embed report.md.tmpl
var reportText string

// Report is everything that docs/benchmarks.md tells.
type Report struct {
	Date    time.Time
	Machine meter.Machine
	Size    Size
	Results []*Result
}

// row is one line of the table.
type row = meter.Row[*Result]

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
		meter.Line("Private messages", "1/s", meter.More, throughput(chat, (*Throughput).Rate)),
		meter.Line("… acknowledged (XEP-0198)", "1/s", meter.More, throughput(chat, func(t *Throughput) float64 { return float64(t.Acked) / t.Time.Seconds() })),
		meter.Line("… processor time of a message", "µs", meter.Less, throughput(chat, func(t *Throughput) float64 { return micros(t.PerMessage()) })),
		meter.Line("… core in use", "%", meter.Neither, throughput(chat, (*Throughput).Busy)),
		meter.Line("… the clients' core", "%", meter.Neither, throughput(chat, clientsBusy)),
		meter.Line("… fsyncs", "1/s", meter.Neither, throughput(chat, syncs)),
		meter.Line(fmt.Sprintf("Room of %d: deliveries", size.Occupants), "1/s", meter.More, throughput(room, (*Throughput).Rate)),
		meter.Line("… messages", "1/s", meter.More, throughput(room, func(t *Throughput) float64 { return t.Rate() / float64(size.Occupants) })),
		meter.Line("… processor time of a delivery", "µs", meter.Less, throughput(room, func(t *Throughput) float64 { return micros(t.PerMessage()) })),
		meter.Line("… core in use", "%", meter.Neither, throughput(room, (*Throughput).Busy)),
		meter.Line("… the clients' core", "%", meter.Neither, throughput(room, clientsBusy)),
		meter.Line("… fsyncs", "1/s", meter.Neither, throughput(room, syncs)),
		meter.Line("… until all are in", "s", meter.Less, throughput(room, func(t *Throughput) float64 { return t.Enter.Seconds() })),
	}
	return append(all, otherRows(size)...)
}

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
		meter.Line(fmt.Sprintf("Archive of %d: pages of %d", size.Archive, pageSize), "1/s", meter.More, have(paging, (*Paging).Rate)),
		meter.Line("… processor time of a page", "ms", meter.Less, have(paging, func(p *Paging) float64 { return millis(p.PerPage()) })),
		meter.Line("… messages that were in it", "", meter.Neither, have(paging, func(p *Paging) float64 { return float64(p.Filled) })),
		meter.Line(fmt.Sprintf("Memory of an idle session, of %d (RSS)", size.Idle), "KiB", meter.Less, have(idle, func(i *Idle) float64 { return session(i.RSS, i) })),
		meter.Line("… the same as PSS", "KiB", meter.Less, have(idle, func(i *Idle) float64 { return session(i.PSS, i) })),
		meter.Line("… server without them (RSS)", "MiB", meter.Less, have(idle, func(i *Idle) float64 { return float64(i.Base) / (1 << 20) })),
		meter.Line("… processor time of a login", "ms", meter.Less, have(idle, func(i *Idle) float64 { return millis(i.Login) })),
		meter.Line("First message after a restart", "ms", meter.Less, have(restart, func(r *Restart) float64 { return millis(r.First) })),
		meter.Line("First message after a crash", "ms", meter.Less, have(crash, func(r *Restart) float64 { return millis(r.First) })),
		meter.Line("Latency, XMPP to XMPP: median", "ms", meter.Less, have(latency, func(l *Latency) float64 { return millis(l.Median) })),
		meter.Line("… 99th percentile", "ms", meter.Less, have(latency, func(l *Latency) float64 { return millis(l.P99) })),
		meter.Line("Latency, Matrix to XMPP: median", "ms", meter.Less, have(across, func(a *Across) float64 { return millis(a.ToXMPP.Median) })),
		meter.Line("… 99th percentile", "ms", meter.Less, have(across, func(a *Across) float64 { return millis(a.ToXMPP.P99) })),
		meter.Line("Latency, XMPP to Matrix: median", "ms", meter.Less, have(across, func(a *Across) float64 { return millis(a.ToMatrix.Median) })),
		meter.Line("… 99th percentile", "ms", meter.Less, have(across, func(a *Across) float64 { return millis(a.ToMatrix.P99) })),
	}
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
	t, err := template.New("report").Funcs(template.FuncMap{"where": meter.WhereTable, "memory": memoryTable, "line": firstLine}).Parse(reportText)
	if err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	data := map[string]any{"Report": r, "Table": meter.Table(r.Results, func(r *Result) string { return r.Name }, rows(r.Size)), "Page": pageSize, "Fill": fill, "FillLimit": fillTimeout, "Openings": openings, "ServerCPU": ServerCPU, "ClientCPU": ClientCPU, "Text": len(text)}
	if err := t.Execute(w, data); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}
