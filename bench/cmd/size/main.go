// Size is `make size`: it enters simulated Matrix rooms of growing size and prints
// what that costs, as a table for docs/federation.md.
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

	"parley/bench/size"
)

func main() {
	sizes := flag.String("members", "6250,12500,25000,50000", "the numbers of members")
	perServer := flag.Int("per-server", 50, "members on each server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *sizes, *perServer); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sizes string, perServer int) error {
	fmt.Println("| members | servers | first messages | all members | message | member | fork | own message | after restart | memory | database | rows of states |")
	fmt.Println("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 20 {
			return fmt.Errorf("%q is no number of members of 20 or more", s)
		}
		r, err := size.Run(ctx, n, max(n/perServer, 1))
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %s | %s | %s | %s | %s | %s | %s | %.1f MB | %.1f MB | %d |\n", r.Members, r.Servers,
			round(r.First), round(r.Whole), round(r.Message), round(r.Member), round(r.Fork), round(r.Own), round(r.Cold),
			float64(r.Memory)/1e6, float64(r.Disk)/1e6, r.States)
	}
	return nil
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
