package federation

import (
	"context"
	"strings"
	"testing"
	"time"
)

// tiny is large enough for every line of the scenarios to run.
var tiny = Size{
	Version: "11", Rooms: 2, Origins: 2, Senders: 3, Window: 60, Users: 2, Pings: 2, JoinMembers: 60, JoinServers: 3,
	Warm: 100 * time.Millisecond, For: time.Second, Settle: 100 * time.Millisecond,
}

// TestScenarios runs all of them in a tiny size against Parley.
func TestScenarios(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var progress strings.Builder
	r, err := Measure(ctx, "parley", "", "", tiny, func(string) bool { return true }, &progress)
	t.Logf("%s", &progress)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range r.Failed {
		t.Errorf("%s: %v", name, err)
	}
	if t.Failed() {
		return
	}
	for name, got := range map[string]int64{
		"received": r.Received.Events, "acknowledged": r.Received.Acked, "alone": int64(r.Received.Median), "profile": int64(len(r.Received.Profile)),
		"sent": r.Sent.Events, "said": r.Sent.Said, "transactions": r.Sent.Transactions, "processor time": int64(r.Sent.CPU),
		"answered": int64(r.Join.Answered), "first": int64(r.Join.First - r.Join.Answered), "whole": int64(r.Join.Whole - r.Join.First),
		"peak": r.Join.Peak, "idle": r.Idle, "loaded": r.Loaded, "after": r.After,
	} {
		if got <= 0 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if r.Sent.Lost != 0 {
		t.Errorf("%d events were answered to clients and did not arrive", r.Sent.Lost)
	}
}
