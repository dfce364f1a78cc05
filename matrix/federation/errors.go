package federation

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// Error is an answer other than 200: what another server answered, or what we
// do.
//
// spec: MX 1.19 CS §1.1
type Error struct {
	Status  int
	Errcode string // "M_FORBIDDEN"; empty where the answer had none
	Text    string
	// RetryAfter is how long to wait, where that was said.
	RetryAfter time.Duration
	// Server is who answered; empty for us.
	Server string
	// Body is what another server answered, if it was JSON.
	Body []byte
	// Fields are further members of an answer of ours.
	Fields map[string]any
}

func (e *Error) Error() string {
	if e.Server == "" {
		return fmt.Sprintf("%d %s: %s", e.Status, e.Errcode, e.Text)
	}
	return fmt.Sprintf("%s answered %d %s: %.200s", e.Server, e.Status, e.Errcode, e.Text)
}

// maxWords is how much of another server's words people are told, in bytes.
const maxWords = 200

// Words is the text of another server's answer as people may be told it: on one
// line, and not long.
func (e *Error) Words() string {
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(e.Text, ""))
	if s = strings.TrimSpace(s); len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

// Errorf makes an [Error] of ours.
func Errorf(status int, errcode, format string, args ...any) *Error {
	return &Error{Status: status, Errcode: errcode, Text: fmt.Sprintf(format, args...)}
}

// Missing reports whether a call failed because there is no server of that name,
// as far as name servers know.
func Missing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

func errUnauthorized(why error) *Error {
	return Errorf(http.StatusUnauthorized, "M_UNAUTHORIZED", "The request is not signed as it must be: %v", why)
}
