// Federation is `make bench-federation`: it measures Parley as one Matrix server among
// others, beside Dendrite where there is one, and writes its part of docs/federation.md.
// It needs root on Linux, two cores, and perf to count fsyncs.
package main

import (
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

	"parley/bench/federation"
	"parley/bench/meter"
)

// flags are the command line.
type flags struct {
	dendrite, parley, scenarios, dir, out, profiles string
	duration                                        time.Duration
	divide                                          int
}

func main() {
	var f flags
	flag.StringVar(&f.dendrite, "dendrite", "", "the program of a Dendrite server; Parley is measured alone if empty")
	flag.StringVar(&f.parley, "parley", "", "a parley command; built from this tree if empty, not measured if \"none\"")
	flag.StringVar(&f.scenarios, "scenarios", strings.Join(federation.Scenarios(), ","), "what to measure")
	flag.StringVar(&f.dir, "dir", "", "keep data and logs there")
	flag.StringVar(&f.out, "o", "", "put the report into the section \"federation\" of this file; printed if empty")
	flag.StringVar(&f.profiles, "profiles", "", "keep Parley's profiles in this directory")
	flag.DurationVar(&f.duration, "for", federation.Full.For, "how long to measure a throughput")
	flag.IntVar(&f.divide, "divide", 1, "divide the large room by this, for a quick look")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := f.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "federation:", err)
		os.Exit(1)
	}
}

func (f *flags) run(ctx context.Context) error {
	if err := meter.Pin(federation.PeerCPU, federation.ServerCPU); err != nil {
		return err
	}
	size := federation.Full.Divide(f.divide)
	size.For = f.duration
	names := strings.Split(f.scenarios, ",")
	want := func(name string) bool { return slices.Contains(names, name) }
	report := federation.Report{Date: time.Now().UTC(), Machine: meter.ThisMachine(ctx, "."), Size: size}
	binaries := []struct{ name, path string }{{"parley", f.parley}}
	if f.parley == "none" {
		binaries = nil
	}
	if f.dendrite == "" {
		fmt.Fprintln(os.Stderr, "federation: there is no Dendrite: Parley is measured alone")
	} else {
		binaries = append(binaries, struct{ name, path string }{"dendrite", f.dendrite})
	}
	var errs []error
	for _, b := range binaries {
		r, err := federation.Measure(ctx, b.name, b.path, f.dir, size, want, os.Stderr)
		if err != nil {
			return err
		}
		report.Results = append(report.Results, r)
		for scenario, err := range r.Failed {
			errs = append(errs, fmt.Errorf("%s: %s: %w", b.name, scenario, err))
		}
		if err := f.keepProfiles(r); err != nil {
			return err
		}
	}
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		return err
	}
	if f.out == "" {
		fmt.Print(text.String())
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, meter.Section(f.out, "federation", text.String()))...)
}

// keepProfiles writes the profiles where they are wanted.
func (f *flags) keepProfiles(r *federation.Result) error {
	if f.profiles == "" {
		return nil
	}
	profiles := map[string][]byte{}
	if r.Received != nil {
		profiles["received"] = r.Received.Profile
	}
	if r.Sent != nil {
		profiles["sent"] = r.Sent.Profile
	}
	if r.Join != nil {
		profiles["join"] = r.Join.Profile
	}
	for name, data := range profiles {
		if len(data) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(f.profiles, "cpu-"+name+".pprof"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
