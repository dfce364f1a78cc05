package bench

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
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
