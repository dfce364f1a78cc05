package size

import (
	"context"
	"strings"
	"testing"
)

// TestRun enters a small room, and sees that every number is there and the report too.
func TestRun(t *testing.T) {
	var report Report
	for _, members := range []int{40, 80} {
		r, err := Run(context.Background(), members, members/20)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]int64{
			"first": int64(r.First.Time), "whole": int64(r.Whole.Time - r.First.Time), "message": int64(r.Message.Time), "member": int64(r.Member.Time),
			"fork": int64(r.Fork.Time), "own": int64(r.Own.Time), "cold": int64(r.Cold.Time), "processor": int64(r.Whole.CPU),
			"database": r.Disk, "rows": r.States - int64(members),
		} {
			if got <= 0 {
				t.Errorf("%d members: %s: %d", members, name, got)
			}
		}
		report.Results = append(report.Results, r)
	}
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n| 40 | 2 |", "\n| 80 | 4 |", "\n| 2.00× | 2.00× |"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("there is no %q in\n%s", want, text.String())
		}
	}
}
