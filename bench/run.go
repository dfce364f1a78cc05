package bench

import (
	"context"
	"fmt"
	"io"
	"parley/bench/meter"
	"time"
)

// Result is what was measured of one server; a scenario that was not run, or failed, is nil.
type Result struct {
	Name, Version string
	Chat, Room    *Throughput
	Paging        *Paging
	Restart       *Restart // after it was asked to stop
	Crash         *Restart // after it was killed
	Latency       *Latency
	Across        *Across // of Parley
	Idle          *Idle
	Failed        map[string]error // by scenario
}

// scenario is one measurement. The order of the table is the order of the run: the restart
// comes after what fills the database, and idle sessions after a restart, so that memory
// that was needed for the load is not taken for theirs.
type scenario struct {
	name string
	run  func(context.Context, *Site, Size, *Result) error
}

var scenarios = []scenario{
	{"chat", func(ctx context.Context, s *Site, size Size, r *Result) (err error) {
		r.Chat, err = s.Chat(ctx, size)
		return err
	}},
	{"room", func(ctx context.Context, s *Site, size Size, r *Result) (err error) {
		r.Room, err = s.Room(ctx, size)
		return err
	}},
	{"archive", func(ctx context.Context, s *Site, size Size, r *Result) (err error) {
		r.Paging, err = s.Archive(ctx, size)
		return err
	}},
	{"restart", func(ctx context.Context, s *Site, _ Size, r *Result) (err error) {
		r.Restart, err = s.Restart(ctx, false)
		return err
	}},
	{"latency", func(ctx context.Context, s *Site, size Size, r *Result) (err error) {
		if r.Latency, err = s.Latency(ctx, size); err == nil && s.Matrix {
			r.Across, err = s.Across(ctx, size)
		}
		return err
	}},
	{"idle", func(ctx context.Context, s *Site, size Size, r *Result) (err error) {
		r.Idle, err = s.Idle(ctx, size)
		return err
	}},
	{"crash", func(ctx context.Context, s *Site, _ Size, r *Result) (err error) {
		r.Crash, err = s.Restart(ctx, true)
		return err
	}},
}

// Scenarios are the names of what there is to measure.
func Scenarios() []string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.name
	}
	return names
}

// stopTimeout bounds how long a server may take to stop at the end.
const stopTimeout = time.Minute

// Measure starts the server, runs the scenarios that are wanted one after the other, and
// stops it. A scenario that fails is told in the result; the others still run.
func (s *Site) Measure(ctx context.Context, size Size, want func(string) bool, progress io.Writer) (*Result, error) {
	r := &Result{Name: s.Name, Failed: make(map[string]error)}
	var err error
	if r.Version, err = s.Version(ctx); err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	for _, sc := range scenarios {
		if !want(sc.name) {
			continue
		}
		err := meter.Rest(ctx, s.PID())
		start := time.Now()
		if err == nil {
			err = sc.run(ctx, s, size, r)
		}
		if err != nil {
			r.Failed[sc.name] = err
			fmt.Fprintf(progress, "%s: %s: %v\n%s\n", s.Name, sc.name, err, s.Log())
		} else {
			fmt.Fprintf(progress, "%s: %s: took %v: %s\n", s.Name, sc.name, time.Since(start).Round(time.Second/10), r.line(sc.name))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return r, s.Stop(ctx)
}

// line is the result of a scenario in a line.
func (r *Result) line(name string) string {
	switch name {
	case "chat":
		return r.Chat.line()
	case "room":
		return r.Room.line() + fmt.Sprintf(", entered in %v", r.Room.Enter.Round(time.Second/10))
	case "archive":
		return fmt.Sprintf("%.1f pages/s (%d messages on %d pages), %v CPU a page", r.Paging.Rate(), r.Paging.Messages, r.Paging.Pages, r.Paging.PerPage())
	case "restart":
		return fmt.Sprintf("logged in after %v, first message after %v", r.Restart.Login, r.Restart.First)
	case "crash":
		return fmt.Sprintf("logged in after %v, first message after %v", r.Crash.Login, r.Crash.First)
	case "latency":
		text := fmt.Sprintf("median %v, p99 %v", r.Latency.Median, r.Latency.P99)
		if a := r.Across; a != nil {
			text += fmt.Sprintf("; Matrix to XMPP %v, %v; XMPP to Matrix %v, %v", a.ToXMPP.Median, a.ToXMPP.P99, a.ToMatrix.Median, a.ToMatrix.P99)
		}
		return text
	default:
		n := int64(r.Idle.Sessions)
		text := fmt.Sprintf("%d B a session (PSS %d B) above %d MiB, %v CPU a login", r.Idle.RSS/n, r.Idle.PSS/n, r.Idle.Base>>20, r.Idle.Login)
		for _, p := range r.Idle.Parts {
			text += fmt.Sprintf("; %s %d B", p.What, p.Size/n)
		}
		return text
	}
}

func (t *Throughput) line() string {
	return fmt.Sprintf("%.0f deliveries/s, sent %.0f/s, acknowledged %.0f/s, %v CPU a delivery, server %.0f%%, clients %.0f%% of a core, %.1f syncs/s, %d lost, %d twice",
		t.Rate(), float64(t.Sent)/t.Time.Seconds(), float64(t.Acked)/t.Time.Seconds(), t.PerMessage(),
		100*t.CPU.Seconds()/t.Time.Seconds(), 100*t.Mine.Seconds()/t.Time.Seconds(), float64(t.Syncs)/t.Time.Seconds(), t.Lost, t.Again)
}
