// Bench is `make bench`: it measures Parley beside ejabberd and Prosody and writes
// docs/benchmarks.md. It needs root on Linux, two cores, and perf to count fsyncs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"parley/bench"
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
	flag.StringVar(&f.out, "o", "", "write the report there; if empty, none is written")
	flag.StringVar(&f.profiles, "profiles", "", "keep Parley's CPU profiles in this directory")
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

func (f *flags) run(ctx context.Context) (err error) {
	if err := pin(); err != nil {
		return err
	}
	sites, err := bench.Open(ctx, strings.Split(f.servers, ","), f.parley, f.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sites.Close()) }()
	size := bench.Full.Divide(f.divide)
	size.For = f.duration
	names := strings.Split(f.scenarios, ",")
	want := func(name string) bool { return slices.Contains(names, name) }
	for _, site := range sites.All {
		if _, err := site.Measure(ctx, size, want, os.Stderr); err != nil {
			return err
		}
	}
	return nil
}

// pin has this process run on the clients' core only. The threads that exist already stay
// where they are, so it starts again.
func pin() error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return err
	}
	if set.Count() == 1 && set.IsSet(bench.ClientCPU) {
		return nil
	}
	if runtime.NumCPU() <= max(bench.ClientCPU, bench.ServerCPU) {
		return errors.New("needs two cores, one for the servers and one for the clients")
	}
	set.Zero()
	set.Set(bench.ClientCPU)
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
