package interop

import (
	"slices"
	"strings"
	"testing"

	"parley/interop/lab"
)

// named is a server of which no more is known than its domain.
type named struct {
	lab.Server
	domain string
}

func (n named) Domain() string { return n.domain }

// TestReportApart has a full run leave what a run with a Dendrite found, with the date and the
// version of that run, and a run with a Dendrite leave all else.
func TestReportApart(t *testing.T) {
	feature := Features[0].Name
	works := Outcome{Result: Works}
	here := Cell{Feature: feature, A: "nio@parley", B: "nio@parley", Outcome: works}
	before := Cell{Feature: feature, A: "nio@parley", B: "nio@dendrite", Outcome: Outcome{Result: No}}
	after := Cell{Feature: feature, A: "nio@parley", B: "nio@dendrite", Outcome: works}
	last := &Report{
		Date: "2026-01-02", Versions: map[string]string{"parley": "parley 1"}, Cells: []Cell{here, before},
		Apart: map[string]Run{"dendrite": {Date: "2026-01-01", Versions: map[string]string{"dendrite": "Dendrite 0"}}},
	}
	if got := MergeApart(last, []Cell{here}); !slices.Equal(got, []Cell{here, before}) {
		t.Errorf("after a full run the report has %v", got)
	}
	if got := Merge(last, []Cell{after}); !slices.Equal(got, []Cell{here, after}) {
		t.Errorf("after a run with a Dendrite the report has %v", got)
	}
	page := last.markdown()
	full, apart, found := strings.Cut(page, "## With users on Dendrite")
	if !found || !strings.Contains(full, "2026-01-02") || !strings.Contains(apart, "2026-01-01") || !strings.Contains(apart, "Dendrite 0") {
		t.Errorf("the page is\n%s", page)
	}
}

// TestPlanDendrite has the sessions with a Dendrite be those of Matrix clients there, each with
// every client on Parley and in both directions, and no others.
func TestPlanDendrite(t *testing.T) {
	site := func(name string) *Site { return &Site{Name: name, Server: named{domain: name + ".test"}} }
	w := &World{Parley: site("parley"), Prosody: site("prosody"), Dendrite: site("dendrite")}
	plan := Plan(w)
	if want := 2 * 2 * len(Drivers); len(plan) != want {
		t.Errorf("%d sessions, want %d: %v", len(plan), want, plan)
	}
	for _, s := range plan {
		if !oneAbroad(s) || !s.overMatrix() {
			t.Errorf("%s is not with a Dendrite", s)
		}
	}
}
