package stream

import (
	"errors"
	"fmt"

	"parley/xmpp/element"
)

// Namespaces of the protocol's own elements.
const (
	NSStream   = "http://etherx.jabber.org/streams"
	NSClient   = "jabber:client"
	NSServer   = "jabber:server"
	NSDialback = "jabber:server:dialback"
	NSTLS      = "urn:ietf:params:xml:ns:xmpp-tls"
	NSSASL     = "urn:ietf:params:xml:ns:xmpp-sasl"
	NSSASL2    = "urn:xmpp:sasl:2"
	NSStreams  = "urn:ietf:params:xml:ns:xmpp-streams"
	NSStanzas  = "urn:ietf:params:xml:ns:xmpp-stanzas"

	nsChannelBinding  = "urn:xmpp:sasl-cb:0"
	nsDialbackFeature = "urn:xmpp:features:dialback"
)

// Condition is the defined condition of a stream error.
//
// spec: RFC 6120 §4.9.3
type Condition = element.Condition

// The conditions that this package or its callers use.
const (
	BadFormat              Condition = element.BadFormat
	BadNamespacePrefix     Condition = "bad-namespace-prefix"
	Conflict               Condition = "conflict"
	ConnectionTimeout      Condition = "connection-timeout"
	HostGone               Condition = "host-gone"
	HostUnknown            Condition = "host-unknown"
	ImproperAddressing     Condition = "improper-addressing"
	InternalServerError    Condition = "internal-server-error"
	InvalidFrom            Condition = "invalid-from"
	InvalidNamespace       Condition = "invalid-namespace"
	InvalidXML             Condition = "invalid-xml"
	NotAuthorized          Condition = "not-authorized"
	NotWellFormed          Condition = element.NotWellFormed
	PolicyViolation        Condition = element.PolicyViolation
	RemoteConnectionFailed Condition = "remote-connection-failed"
	Reset                  Condition = "reset"
	ResourceConstraint     Condition = "resource-constraint"
	RestrictedXML          Condition = element.RestrictedXML
	SystemShutdown         Condition = "system-shutdown"
	UndefinedCondition     Condition = "undefined-condition"
	UnsupportedEncoding    Condition = element.UnsupportedEncoding
	UnsupportedFeature     Condition = "unsupported-feature"
	UnsupportedStanzaType  Condition = "unsupported-stanza-type"
	UnsupportedVersion     Condition = "unsupported-version"
)

// Error is a stream error: what we tell the peer before we close or, with FromPeer, what the peer told us.
//
// spec: RFC 6120 §4.9
type Error struct {
	Condition Condition
	// Text is for people. Ours says nothing that a stranger must not know; that of a peer is hostile input.
	Text string
	// Extra is an application-specific condition, or nil.
	Extra *element.Element
	// FromPeer says that the error was received.
	FromPeer bool
	// Err is the cause, which is not told to the peer, or nil.
	Err error
}

func (e *Error) Error() string {
	who := "stream error"
	if e.FromPeer {
		who = "stream error from the peer"
	}
	s := who + ": " + string(e.Condition)
	if e.Text != "" {
		s += fmt.Sprintf(" (%q)", e.Text)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes a stream error to be told to the peer, with this text.
func Errorf(c Condition, format string, args ...any) *Error {
	return &Error{Condition: c, Text: fmt.Sprintf(format, args...)}
}

// Errors which are not stream errors.
var (
	// ErrClosed is returned by a Conn that this side has closed.
	ErrClosed = errors.New("stream: closed")
	// ErrQueueFull is returned by Send when the peer reads more slowly than we write. Nothing of the element was queued.
	ErrQueueFull = errors.New("stream: write queue is full")
	// ErrIdle is returned by Next when the peer has sent nothing, not even white space, for the idle time-out.
	ErrIdle = errors.New("stream: idle for too long")
)

// element serialises the error for the wire.
func (e *Error) element() *element.Element {
	el := element.New(NSStream, "error")
	el.Add(NSStreams, string(e.Condition))
	if e.Text != "" {
		el.Add(NSStreams, "text").SetText(e.Text).SetLang("en")
	}
	return el.Append(e.Extra)
}

// parseError reads a stream error that the peer sent.
func parseError(el *element.Element) *Error {
	e := &Error{Condition: UndefinedCondition, FromPeer: true}
	for _, c := range el.Elements() {
		switch {
		case c.Name.Space != NSStreams:
			e.Extra = c
		case c.Name.Local == "text":
			e.Text = c.Text()
		default:
			e.Condition = Condition(c.Name.Local)
		}
	}
	return e
}

// asStreamError turns what went wrong into what the peer is to be told, or nil if there is nothing to tell.
func asStreamError(err error) *Error {
	if se, ok := errors.AsType[*Error](err); ok {
		if se.FromPeer {
			return nil
		}
		return se
	}
	if pe, ok := errors.AsType[*element.ParseError](err); ok {
		return &Error{Condition: pe.Condition, Text: string(pe.Limit), Err: pe}
	}
	if errors.Is(err, ErrIdle) {
		return &Error{Condition: ConnectionTimeout}
	}
	return nil
}
