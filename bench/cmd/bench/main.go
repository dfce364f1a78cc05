// Bench is `make bench`: it measures Parley beside ejabberd and Prosody and writes
// docs/benchmarks.md. It needs root on Linux, two cores, and perf to count fsyncs.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"parley/bench"
	"parley/bench/meter"
)

// flags are the command line.
type flags struct {
	servers, scenarios, parley, dir, out, profiles string
	duration                                       time.Duration
	divide                                         int
}

func main() {
	var f flags
	flag.StringVar(&f.servers, "servers", strings.Join(bench.Names, ","), "which servers to measure")
	flag.StringVar(&f.scenarios, "scenarios", strings.Join(bench.Scenarios(), ","), "what to measure")
	flag.StringVar(&f.parley, "parley", "", "a parley command; built from this tree if empty")
	flag.StringVar(&f.dir, "dir", "", "keep data and logs there")
	flag.StringVar(&f.out, "o", "", "write the report there; printed if empty")
	flag.StringVar(&f.profiles, "profiles", "", "keep Parley's profiles in this directory")
	flag.DurationVar(&f.duration, "for", bench.Full.For, "how long to measure a throughput")
	flag.IntVar(&f.divide, "divide", 1, "divide all sizes by this, for a quick look")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := f.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (f *flags) run(ctx context.Context) error {
	if err := meter.Pin(bench.ClientCPU, bench.ServerCPU); err != nil {
		return err
	}
	size := bench.Full.Divide(f.divide)
	size.For = f.duration
	names := strings.Split(f.scenarios, ",")
	want := func(name string) bool { return slices.Contains(names, name) }
	report := bench.Report{Date: time.Now().UTC(), Machine: meter.ThisMachine(ctx, "."), Size: size}
	for name := range strings.SplitSeq(f.servers, ",") {
		r, err := f.measure(ctx, name, size, want)
		if err != nil {
			return err
		}
		report.Results = append(report.Results, r)
		if err := f.keepProfiles(r); err != nil {
			return err
		}
	}
	return f.write(&report)
}

// measure measures one server.
func (f *flags) measure(ctx context.Context, name string, size bench.Size, want func(string) bool) (r *bench.Result, err error) {
	site, err := bench.Open(ctx, name, f.parley, f.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	return site.Measure(ctx, size, want, os.Stderr)
}

// write writes the report, whole or not at all, and says what failed.
func (f *flags) write(report *bench.Report) error {
	var errs []error
	for _, r := range report.Results {
		for name, err := range r.Failed {
			errs = append(errs, fmt.Errorf("%s: %s: %w", r.Name, name, err))
		}
	}
	var b bytes.Buffer
	if err := report.Write(&b); err != nil {
		return err
	}
	if f.out == "" {
		_, err := os.Stdout.Write(b.Bytes())
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, os.WriteFile(f.out, b.Bytes(), 0o644))...)
}

// keepProfiles writes the profiles where they are wanted.
func (f *flags) keepProfiles(r *bench.Result) error {
	if f.profiles == "" {
		return nil
	}
	profiles := make(map[string][]byte)
	for name, t := range map[string]*bench.Throughput{"chat": r.Chat, "room": r.Room} {
		if t != nil {
			profiles["cpu-"+name] = t.Profile
		}
	}
	if r.Idle != nil {
		profiles["heap-idle"] = r.Idle.Profile
	}
	for name, data := range profiles {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(f.profiles, name+".pprof"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
