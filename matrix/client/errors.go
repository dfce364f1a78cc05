package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"parley/hub"
)

// Errcode is a Matrix error code.
//
// spec: MX 1.19 CS §1.1
type Errcode string

// The error codes that this server answers with.
const (
	Forbidden          Errcode = "M_FORBIDDEN"
	UnknownToken       Errcode = "M_UNKNOWN_TOKEN"
	MissingToken       Errcode = "M_MISSING_TOKEN"
	UserLocked         Errcode = "M_USER_LOCKED"
	UserDeactivated    Errcode = "M_USER_DEACTIVATED"
	BadJSON            Errcode = "M_BAD_JSON"
	NotJSON            Errcode = "M_NOT_JSON"
	NotFound           Errcode = "M_NOT_FOUND"
	LimitExceeded      Errcode = "M_LIMIT_EXCEEDED"
	Unrecognized       Errcode = "M_UNRECOGNIZED"
	Unknown            Errcode = "M_UNKNOWN"
	InvalidParam       Errcode = "M_INVALID_PARAM"
	MissingParam       Errcode = "M_MISSING_PARAM"
	TooLarge           Errcode = "M_TOO_LARGE"
	Exclusive          Errcode = "M_EXCLUSIVE"
	UserInUse          Errcode = "M_USER_IN_USE"
	InvalidUsername    Errcode = "M_INVALID_USERNAME"
	WeakPassword       Errcode = "M_WEAK_PASSWORD"
	RoomInUse          Errcode = "M_ROOM_IN_USE"
	InvalidRoomState   Errcode = "M_INVALID_ROOM_STATE"
	UnsupportedVersion Errcode = "M_UNSUPPORTED_ROOM_VERSION"
	BadState           Errcode = "M_BAD_STATE"
	GuestForbidden     Errcode = "M_GUEST_ACCESS_FORBIDDEN"
	CannotLeaveNotices Errcode = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
	WrongKeysVersion   Errcode = "M_WRONG_ROOM_KEYS_VERSION"
	NotYetUploaded     Errcode = "M_NOT_YET_UPLOADED"
	CannotOverwrite    Errcode = "M_CANNOT_OVERWRITE_MEDIA"
	ProfileTooLarge    Errcode = "M_PROFILE_TOO_LARGE"
	KeyTooLarge        Errcode = "M_KEY_TOO_LARGE"
	DuplicateNote      Errcode = "M_DUPLICATE_ANNOTATION"
	InvalidSignature   Errcode = "M_INVALID_SIGNATURE"
)

// Error is an answer to a request that was not done. Text is for the user.
type Error struct {
	Status  int
	Errcode Errcode
	Text    string
	// Fields are further members of the answer's object.
	Fields map[string]any
	// RetryAfter is told to the client where it is not zero.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Errcode, e.Text) }

// Errorf makes an [Error].
func Errorf(status int, code Errcode, format string, args ...any) *Error {
	return &Error{Status: status, Errcode: code, Text: fmt.Sprintf(format, args...)}
}

// With returns a copy of e with one more member.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Fields = maps.Clone(e.Fields)
	if c.Fields == nil {
		c.Fields = map[string]any{}
	}
	c.Fields[key] = value
	return &c
}

func (e *Error) body() map[string]any {
	b := map[string]any{}
	maps.Copy(b, e.Fields)
	if e.Errcode != "" {
		b["errcode"], b["error"] = e.Errcode, e.Text
	}
	if e.RetryAfter > 0 {
		b["retry_after_ms"] = e.RetryAfter.Milliseconds()
	}
	return b
}

// refusals says how what the hub refused is told to a Matrix client.
var refusals = map[hub.Code]struct {
	status int
	code   Errcode
}{
	hub.NotFound:    {http.StatusNotFound, NotFound},
	hub.Forbidden:   {http.StatusForbidden, Forbidden},
	hub.NotMember:   {http.StatusForbidden, Forbidden},
	hub.MembersOnly: {http.StatusForbidden, Forbidden},
	hub.Outcast:     {http.StatusForbidden, Forbidden},
	hub.Blocked:     {http.StatusForbidden, Forbidden},
	hub.Conflict:    {http.StatusConflict, InvalidParam},
	hub.Bad:         {http.StatusBadRequest, InvalidParam},
	hub.TooLarge:    {http.StatusRequestEntityTooLarge, TooLarge},
	hub.TooMany:     {http.StatusTooManyRequests, LimitExceeded},
	hub.Gone:        {http.StatusNotFound, NotFound},
	hub.Unable:      {http.StatusServiceUnavailable, Unknown},
	hub.Unreachable: {http.StatusBadGateway, Unknown},
	hub.NoServer:    {http.StatusBadGateway, Unknown},
}

// statusGone is logged for a client that went away before its answer.
const statusGone = 499

// AsError turns what a handler returned into what the client is told. internal
// says that it is our own failure, of which the client learns nothing and the
// log everything.
func AsError(err error) (answer *Error, internal bool) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e, false
	}
	if r, ok := errors.AsType[*hub.Refusal](err); ok {
		if t, ok := refusals[r.Code]; ok {
			return &Error{Status: t.status, Errcode: t.code, Text: r.Text}, false
		}
	}
	switch {
	case errors.Is(err, hub.ErrNone):
		return Errorf(http.StatusNotFound, NotFound, "There is no such thing here."), false
	case errors.Is(err, context.Canceled):
		return Errorf(statusGone, Unknown, "The request was cancelled."), false
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(http.StatusServiceUnavailable, Unknown, "This took too long; try again."), true
	}
	return Errorf(http.StatusInternalServerError, Unknown, "Internal server error."), true
}
