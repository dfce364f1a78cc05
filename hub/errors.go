package hub

import (
	"errors"
	"fmt"
)

// Code says why something was refused; each protocol has a table from codes to
// its own conditions.
type Code string

// The codes.
const (
	NotFound    Code = "not-found"
	Forbidden   Code = "forbidden"
	NotMember   Code = "not-member" // forbidden, because not joined
	MembersOnly Code = "members-only"
	Outcast     Code = "banned"
	Blocked     Code = "blocked" // by the recipient
	Conflict    Code = "conflict"
	Bad         Code = "bad-request"
	TooLarge    Code = "too-large"
	TooMany     Code = "limit-exceeded"
	Gone        Code = "gone"
	Unable      Code = "unavailable"
	Unreachable Code = "unreachable" // the other server, now
	NoServer    Code = "no-server"   // there is none of that name
)

// Refusal is the error of every command that was understood and not done. Text
// is for the user who asked and holds nothing that she may not know.
type Refusal struct {
	Code Code
	Text string
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Text }

// Refuse makes a refusal.
func Refuse(code Code, format string, args ...any) error {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of a refusal, or "" for any other error.
func CodeOf(err error) Code {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Code
	}
	return ""
}

// ErrNone is what a [View] returns where there is no such row.
var ErrNone = errors.New("no such row")
