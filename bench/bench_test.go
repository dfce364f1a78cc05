package bench

import (
	"context"
	"strings"
	"testing"
	"time"
)

// tiny is large enough for every line of the scenarios to run.
var tiny = Size{
	Sessions: 4, Window: 2, Occupants: 4, Speakers: 2, Idle: 6, PerUser: 2, Archive: 120, Pings: 5,
	Warm: 200 * time.Millisecond, For: time.Second, Settle: 200 * time.Millisecond,
}

// TestScenarios runs all of them in a tiny size against Parley.
func TestScenarios(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	site, err := Open(ctx, Names[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	}()
	var progress strings.Builder
	r, err := site.Measure(ctx, tiny, func(string) bool { return true }, &progress)
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
		"chats": r.Chat.Delivered, "acknowledged": r.Chat.Acked, "deliveries in the room": r.Room.Delivered,
		"processor time": int64(r.Chat.CPU), "profile": int64(len(r.Room.Profile)), "restart": int64(r.Restart.First), "crash": int64(r.Crash.First),
		"latency": int64(r.Latency.P99), "to XMPP": int64(r.Across.ToXMPP.Median), "to Matrix": int64(r.Across.ToMatrix.Median),
		"memory": r.Idle.Base, "heap": int64(len(r.Idle.Profile)), "parts of memory": int64(len(r.Idle.Parts)), "archive": int64(r.Paging.Messages - tiny.Archive + 1),
	} {
		if got <= 0 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if r.Chat.Lost != 0 || r.Room.Lost != 0 {
		t.Errorf("lost %d in chats, %d in the room", r.Chat.Lost, r.Room.Lost)
	}
}
