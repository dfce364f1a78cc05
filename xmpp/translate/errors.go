package translate

import (
	"errors"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
)

// Condition is a defined condition of a stanza error with its customary type.
//
// spec: RFC 6120 §8.3.3
type Condition struct {
	Type string // auth, cancel, continue, modify or wait
	Name string
}

// The conditions that Parley uses.
var (
	BadRequest            = Condition{"modify", "bad-request"}
	ConflictError         = Condition{"cancel", "conflict"}
	FeatureNotImplemented = Condition{"cancel", "feature-not-implemented"}
	ForbiddenError        = Condition{"auth", "forbidden"}
	GoneError             = Condition{"cancel", "gone"}
	InternalServerError   = Condition{"cancel", "internal-server-error"}
	ItemNotFound          = Condition{"cancel", "item-not-found"}
	JIDMalformed          = Condition{"modify", "jid-malformed"}
	NotAcceptable         = Condition{"modify", "not-acceptable"}
	NotAllowed            = Condition{"cancel", "not-allowed"}
	NotAuthorizedError    = Condition{"auth", "not-authorized"}
	PolicyViolation       = Condition{"modify", "policy-violation"}
	RecipientUnavailable  = Condition{"wait", "recipient-unavailable"}
	RegistrationRequired  = Condition{"auth", "registration-required"}
	RemoteServerNotFound  = Condition{"cancel", "remote-server-not-found"}
	RemoteServerTimeout   = Condition{"wait", "remote-server-timeout"}
	ResourceConstraint    = Condition{"wait", "resource-constraint"}
	ServiceUnavailable    = Condition{"cancel", "service-unavailable"}
	SubscriptionRequired  = Condition{"auth", "subscription-required"}
	UndefinedCondition    = Condition{"cancel", "undefined-condition"}
	UnexpectedRequest     = Condition{"wait", "unexpected-request"}
)

// conditions is the table from the hub's codes.
var conditions = map[hub.Code]Condition{
	hub.NotFound:    ItemNotFound,
	hub.Forbidden:   ForbiddenError,
	hub.NotMember:   NotAcceptable, // spec: XEP-0045 §7.4
	hub.MembersOnly: RegistrationRequired,
	hub.Outcast:     ForbiddenError,
	hub.Blocked:     ServiceUnavailable, // as if nobody were there; spec: XEP-0191 §3.3
	hub.Conflict:    ConflictError,
	hub.Bad:         BadRequest,
	hub.TooLarge:    PolicyViolation,
	hub.TooMany:     ResourceConstraint,
	hub.Gone:        GoneError,
	hub.Unable:      ServiceUnavailable,
	hub.Unreachable: RemoteServerTimeout,
	hub.NoServer:    RemoteServerNotFound,
}

// ErrorOf makes the stanza error that tells err: a refusal by the table with its words, an [*Error] as itself, anything else as an
// internal error without words.
func ErrorOf(err error) *element.Element {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Element()
	}
	if r, ok := errors.AsType[*hub.Refusal](err); ok {
		c, known := conditions[r.Code]
		if !known {
			c = UndefinedCondition
		}
		text := r.Text
		if r.Code == hub.Blocked {
			text = ""
		}
		return (&Error{Condition: c, Text: text}).Element()
	}
	return (&Error{Condition: InternalServerError}).Element()
}

// Error is a stanza error as a Go error.
type Error struct {
	Condition
	// Text is for the user who asked.
	Text string
	// Extra is an application-specific condition, or nil.
	Extra *element.Element
}

func (e *Error) Error() string {
	if e.Text != "" {
		return e.Name + ": " + e.Text
	}
	return e.Name
}

// Fail makes a stanza error with words.
func Fail(c Condition, text string) error { return &Error{Condition: c, Text: text} }

// Element is the error as it stands in a stanza.
func (e *Error) Element() *element.Element {
	el := element.New(NSClient, "error").SetAttr("type", e.Type)
	el.Add(NSStanzas, e.Name)
	if e.Text != "" {
		el.Add(NSStanzas, "text").SetText(e.Text).SetLang("en")
	}
	return el.Append(e.Extra)
}

// Bounce makes the error reply to a stanza: addresses turned round, its id, and the error.
//
// spec: RFC 6120 §8.3.1
func Bounce(stanza *element.Element, err error) *element.Element {
	out := element.New(stanza.Name.Space, stanza.Name.Local).SetAttr("type", "error")
	for _, at := range [...][2]string{{"from", "to"}, {"to", "from"}, {"id", "id"}} {
		if v := stanza.Attr(at[1]); v != "" {
			out.SetAttr(at[0], v)
		}
	}
	// Whoever tries to enter a room knows by this what the error is about; some clients wait for it.
	if stanza.Name.Local == "presence" && stanza.Child(NSMUC, "x") != nil {
		out.Append(element.New(NSMUC, "x"))
	}
	return out.Append(ErrorOf(err))
}

// ReadError reads the error of a stanza of type error. Its text is a stranger's.
func ReadError(stanza *element.Element) *Error {
	out := &Error{Condition: UndefinedCondition}
	el := stanza.Child("", "error")
	if t := el.Attr("type"); t != "" {
		out.Type = t
	}
	for _, c := range el.Elements() {
		switch {
		case c.Name.Space != NSStanzas:
			out.Extra = c
		case c.Name.Local == "text":
			out.Text = clip(c.Text(), 500)
		default:
			out.Name = c.Name.Local
		}
	}
	return out
}

// Reason is what became of a message, for its sender, in words.
func (e *Error) Reason() string {
	if e.Text != "" {
		return e.Name + " (" + e.Text + ")"
	}
	return e.Name
}

// ConditionIn finds the condition with which a reason in words begins, as [Error.Reason] writes it; else that the other server did
// not take the message in time.
func ConditionIn(reason string) Condition {
	name, _, _ := strings.Cut(reason, " ")
	for _, c := range []Condition{BadRequest, ConflictError, FeatureNotImplemented, ForbiddenError, GoneError, InternalServerError,
		ItemNotFound, JIDMalformed, NotAcceptable, NotAllowed, NotAuthorizedError, PolicyViolation, RecipientUnavailable,
		RegistrationRequired, RemoteServerNotFound, ResourceConstraint, ServiceUnavailable, SubscriptionRequired, UndefinedCondition} {
		if c.Name == name {
			return c
		}
	}
	return RemoteServerTimeout
}

// Permanent says whether sending the same again is of no use.
func (e *Error) Permanent() bool { return e.Type != "wait" }

// clip cuts s to at most most bytes without splitting a character.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xC0 == 0x80 {
		most--
	}
	return s[:most]
}

// Capabilities are what an XMPP client can show.
func Capabilities() core.Capabilities {
	return core.Capabilities{MaxText: MaxText, Grades: map[core.Feature]core.Grade{
		core.FeatureText: core.Whole, core.FeatureLanguages: core.Whole, core.FeatureFormatting: core.Fallback,
		core.FeatureEmote: core.Whole, core.FeatureReply: core.Whole, core.FeatureThread: core.Whole,
		core.FeatureMentions: core.Whole, core.FeatureFile: core.Whole, core.FeatureVoice: core.Fallback,
		core.FeatureEdit: core.Whole, core.FeatureRetract: core.Whole, core.FeatureReaction: core.Whole,
		core.FeatureDelivered: core.Whole, core.FeatureDisplayed: core.Whole, core.FeatureTyping: core.Whole,
		core.FeaturePresence: core.Whole, core.FeatureEncrypted: core.Fallback, core.FeatureName: core.Whole,
		core.FeatureTopic: core.Whole, core.FeatureAvatar: core.Whole, core.FeatureLevels: core.Fallback,
		core.FeatureMembership: core.Whole, core.FeatureModeration: core.Whole,
	}}
}

// MaxText is the longest text of one message, in bytes.
const MaxText = 64 << 10
