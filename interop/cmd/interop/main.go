// Command interop runs every interoperability session against Parley and writes what it
// found to docs/interop.md and docs/interop.json. It fails if anything is worse than the
// last time. It needs root, and installs what it lacks; see ../../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"

	"parley/interop"
)

type options struct {
	session, feature string
	dir, binary      string
	dendrite         string
	atOnce           int
	accept, list     bool
	merge            bool
}

func main() {
	var o options
	flag.StringVar(&o.session, "session", "", "run only sessions that match this regular expression, e.g. 'nio@parley → .*@prosody'")
	flag.StringVar(&o.feature, "feature", "", "run only features that match this regular expression, and what they need")
	flag.StringVar(&o.dir, "dir", "", "keep the servers' data and all logs in this directory")
	flag.StringVar(&o.binary, "parley", "", "test this parley command instead of building one")
	flag.StringVar(&o.dendrite, "dendrite", "", "run the sessions with the Dendrite that has this path, and no others")
	flag.IntVar(&o.atOnce, "j", 2, "how many sessions run at once")
	flag.BoolVar(&o.accept, "accept", false, "write the report even where it is worse than the last")
	flag.BoolVar(&o.merge, "merge", false, "put sessions that were run by themselves, with all features, into the last report")
	flag.BoolVar(&o.list, "list", false, "print the features and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.list {
		for _, f := range interop.Features {
			fmt.Println(f.Name)
		}
		return nil
	}
	sessionPattern, err := regexp.Compile(o.session)
	if err != nil {
		return err
	}
	featurePattern, err := regexp.Compile(o.feature)
	if err != nil {
		return err
	}
	features := interop.Select(featurePattern.MatchString)
	all := o.dendrite == ""
	w, err := interop.NewWorld(ctx, interop.Parts{
		Parley: true, Prosody: true, Ejabberd: all, Second: all, Dendrite: o.dendrite, Binary: o.binary, Dir: o.dir,
	})
	if err != nil {
		return err
	}
	defer w.Close()
	sessions := slices.DeleteFunc(interop.Plan(w), func(s *interop.Session) bool {
		return !sessionPattern.MatchString(s.String())
	})
	cells, err := interop.RunAll(ctx, sessions, features, o.atOnce, func(c interop.Cell) {
		fmt.Printf("%-8s %s → %s: %s %s\n", c.Result, c.A, c.B, c.Feature, c.Note)
	})
	if err != nil {
		return err
	}
	// Not sooner: another run, of other sessions, may have added to it meanwhile.
	baseline, err := interop.Load(interop.BaselineFile())
	if err != nil {
		return err
	}
	return conclude(ctx, o, w, baseline, cells)
}

// conclude compares with the last report and writes the new one, if all was run.
func conclude(ctx context.Context, o options, w *interop.World, baseline *interop.Report, cells []interop.Cell) error {
	count := make(map[interop.Result]int)
	for _, c := range cells {
		count[c.Result]++
	}
	fmt.Printf("%d works, %d fallback, %d no\n", count[interop.Works], count[interop.Fallback], count[interop.No])
	worse := interop.Worse(baseline, cells)
	for _, w := range worse {
		fmt.Println("WORSE:", w)
	}
	if len(worse) > 0 && !o.accept {
		return fmt.Errorf("%d cells were better before (-accept writes the report all the same)", len(worse))
	}
	if o.feature != "" || o.session != "" && !o.merge {
		return nil
	}
	versions, err := interop.Versions(ctx, w)
	if err != nil {
		return err
	}
	return report(o, baseline, cells, versions).Save(interop.BaselineFile())
}

// report is the new one: the last, with what was run in the place of what it had of it.
func report(o options, last *interop.Report, cells []interop.Cell, versions map[string]string) *interop.Report {
	today := time.Now().UTC().Format(time.DateOnly)
	r := &interop.Report{Date: today, Versions: versions, Apart: last.Apart}
	switch {
	case o.dendrite != "":
		r.Date, r.Versions, r.Apart = last.Date, last.Versions, maps.Clone(last.Apart)
		if r.Apart == nil {
			r.Apart = make(map[string]interop.Run)
		}
		r.Apart["dendrite"] = interop.Run{Date: today, Versions: map[string]string{
			"parley": versions["parley"], "dendrite": versions["dendrite"],
		}}
		r.Cells = interop.Merge(last, cells)
	case o.session != "":
		r.Cells = interop.Merge(last, cells)
	default:
		r.Cells = interop.MergeApart(last, cells)
	}
	return r
}
