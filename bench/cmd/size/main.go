// Size is `make size`: it enters simulated Matrix rooms of growing size and puts what
// that costs, as a table, into its part of docs/federation.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"parley/bench/meter"
	"parley/bench/size"
)

func main() {
	sizes := flag.String("members", "6250,12500,25000,50000", "the numbers of members")
	perServer := flag.Int("per-server", 50, "members on each server")
	out := flag.String("o", "", "put the report into the section \"size\" of this file; printed if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *sizes, *perServer, *out); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sizes string, perServer int, out string) error {
	report := size.Report{Date: time.Now().UTC(), Machine: meter.ThisMachine(ctx, ".")}
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 20 {
			return fmt.Errorf("%q is no number of members of 20 or more", s)
		}
		r, err := size.Run(ctx, n, max(n/perServer, 1))
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d members: known after %v, %v of processor time\n", n, r.Whole.Time, r.Whole.CPU)
		report.Results = append(report.Results, r)
	}
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		return err
	}
	if out == "" {
		fmt.Print(text.String())
		return nil
	}
	return meter.Section(out, "size", text.String())
}
