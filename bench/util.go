package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"
)

// isMessage reports whether a stanza is a message with a body that is no error.
func isMessage(st []byte) bool {
	if !bytes.HasPrefix(st, []byte("<message")) || !bytes.Contains(st, []byte("<body")) {
		return false
	}
	return string(attr(st, "type")) != "error"
}

// runID is a prefix for the ids of one run, so that no server takes a message for one of
// an earlier run.
func runID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:]) + "-"
}

// sleep returns early, with an error, if the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitFor asks until the answer is yes and reports whether it came in time.
func waitFor(ctx context.Context, limit time.Duration, yes func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !yes() {
		if sleep(ctx, 20*time.Millisecond) != nil {
			return yes()
		}
	}
	return true
}
