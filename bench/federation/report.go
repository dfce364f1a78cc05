package federation

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

// Report is what docs/federation.md tells of a measurement.
type Report struct {
	Date    time.Time
	Machine meter.Machine
	Size    Size
	Results []*Result
}

// of makes a row's value of a scenario that may not have been run.
func of[T any](part func(*Result) *T, f func(*T) float64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) {
		if v := part(r); v != nil {
			return f(v), true
		}
		return 0, false
	}
}

func always(f func(*Result) float64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) { return f(r), true }
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func mebi(n int64) float64           { return float64(n) / (1 << 20) }

func received(f func(*Received) float64) func(*Result) (float64, bool) {
	return of(func(r *Result) *Received { return r.Received }, f)
}

func sent(f func(*Sent) float64) func(*Result) (float64, bool) {
	return of(func(r *Result) *Sent { return r.Sent }, f)
}

func joined(f func(*Join) float64) func(*Result) (float64, bool) {
	return of(func(r *Result) *Join { return r.Join }, f)
}

// rows are the lines of the table.
func rows(size Size) []meter.Row[*Result] {
	per := func(n int64, t *Throughput) float64 { return float64(n) / t.Time.Seconds() }
	fsyncs := func(t *Throughput) float64 { return per(t.Syncs, t) }
	return []meter.Row[*Result]{
		meter.Line("Events received and shown", "1/s", meter.More, received(func(r *Received) float64 { return r.Rate() })),
		meter.Line("… acknowledged", "1/s", meter.Neither, received(func(r *Received) float64 { return per(r.Acked, &r.Throughput) })),
		meter.Line("… processor time of an event", "µs", meter.Less, received(func(r *Received) float64 { return micros(r.PerEvent()) })),
		meter.Line("… so many for a second of it", "", meter.More, received(func(r *Received) float64 { return r.PerSecond() })),
		meter.Line("… core in use", "%", meter.Neither, received(func(r *Received) float64 { return r.Busy() })),
		meter.Line("… the other servers' core", "%", meter.Neither, received(func(r *Received) float64 { return r.PeerBusy() })),
		meter.Line("… fsyncs", "1/s", meter.Neither, received(func(r *Received) float64 { return fsyncs(&r.Throughput) })),
		meter.Line("One event alone until it is shown: median", "ms", meter.Less, received(func(r *Received) float64 { return millis(r.Median) })),
		meter.Line("… 99th percentile", "ms", meter.Less, received(func(r *Received) float64 { return millis(r.P99) })),
		meter.Line("Events sent", "1/s", meter.More, sent(func(r *Sent) float64 { return r.Rate() })),
		meter.Line("… processor time of an event", "µs", meter.Less, sent(func(r *Sent) float64 { return micros(r.PerEvent()) })),
		meter.Line("… so many for a second of it", "", meter.More, sent(func(r *Sent) float64 { return r.PerSecond() })),
		meter.Line("… core in use", "%", meter.Neither, sent(func(r *Sent) float64 { return r.Busy() })),
		meter.Line("… the other servers' core", "%", meter.Neither, sent(func(r *Sent) float64 { return r.PeerBusy() })),
		meter.Line("… fsyncs", "1/s", meter.Neither, sent(func(r *Sent) float64 { return fsyncs(&r.Throughput) })),
		meter.Line(fmt.Sprintf("Entering a room of %d: until it is answered", size.JoinMembers), "s", meter.Less, joined(func(r *Join) float64 { return r.Answered.Seconds() })),
		meter.Line("… until the first message is shown", "s", meter.Less, joined(func(r *Join) float64 { return r.First.Seconds() })),
		meter.Line("… until all members are known", "s", meter.Less, joined(func(r *Join) float64 { return r.Whole.Seconds() })),
		meter.Line("… processor time of all", "s", meter.Less, joined(func(r *Join) float64 { return r.CPU.Seconds() })),
		meter.Line("… memory at most (RSS)", "MiB", meter.Less, joined(func(r *Join) float64 { return mebi(r.Peak) })),
		meter.Line("… memory after it (RSS)", "MiB", meter.Less, joined(func(r *Join) float64 { return mebi(r.Rest) })),
		meter.Line("Memory of an idle server (RSS)", "MiB", meter.Less, always(func(r *Result) float64 { return mebi(r.Idle) })),
		meter.Line("… after the load of messages", "MiB", meter.Less, func(r *Result) (float64, bool) { return mebi(r.Loaded), r.Loaded > 0 }),
		meter.Line("… at the end of all", "MiB", meter.Less, always(func(r *Result) float64 { return mebi(r.After) })),
	}
}

// aim is what was to be reached beside the second server, and what was.
type aim struct{ What, Wanted, Reached string }

// aims are those of the issue, of a report with two servers.
func (r *Report) aims() (out []aim) {
	if len(r.Results) < 2 {
		return nil
	}
	a, b := r.Results[0], r.Results[1]
	add := func(what, wanted string, first, second float64) {
		if first > 0 && second > 0 {
			out = append(out, aim{what, wanted, meter.Number(first / second)})
		}
	}
	if a.Received != nil && b.Received != nil {
		add("events received a second", "10", a.Received.Rate(), b.Received.Rate())
		add("events received for a second of processor time", "10", a.Received.PerSecond(), b.Received.PerSecond())
	}
	if a.Sent != nil && b.Sent != nil {
		add("events sent a second", "10", a.Sent.Rate(), b.Sent.Rate())
		add("events sent for a second of processor time", "10", a.Sent.PerSecond(), b.Sent.PerSecond())
	}
	add("memory after the load of messages", "0.5", mebi(a.Loaded), mebi(b.Loaded))
	add("memory at the end of all", "0.5", mebi(a.After), mebi(b.After))
	return out
}

// firstLine shortens an error for the report.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// Write writes the report as Markdown.
func (r *Report) Write(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{"where": meter.WhereTable, "line": firstLine}).Parse(reportText)
	if err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	table := meter.Table(r.Results, func(r *Result) string { return r.Name }, rows(r.Size))
	data := map[string]any{"Report": r, "Table": table, "Aims": r.aims(), "ServerCPU": ServerCPU, "PeerCPU": PeerCPU, "MaxPDUs": maxPDUs}
	if err := t.Execute(w, data); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}
