package core

import (
	"encoding/json"
	"fmt"
	"time"
)

// Event is one thing that happened in a conversation.
type Event struct {
	ID     EventID
	Conv   ConvID
	Sender Address
	// Time is when it was accepted here, Origin when its sender says that it
	// happened; Origin is what clients show. Both in UTC, to the millisecond.
	Time   time.Time
	Origin time.Time
	// Position and Feed are the two orders; zero for events that are not kept.
	Position Position
	Feed     Feed
	Content  Content
	// Native is the event as its sender's protocol wrote it, so that between
	// two clients of one protocol nothing at all is lost. Nil if made here.
	Native *Native
	// Retracted is the event that took this one's content away, if any.
	Retracted EventID
	// Aliases are what the networks call it: filled in for drafts and where a
	// reader asks for them.
	Aliases []Alias
}

// AliasIn returns what the event is called in a scope, "" if nothing.
func (e *Event) AliasIn(n Network, kind, scope string) string {
	for _, a := range e.Aliases {
		if a.Network == n && a.Kind == kind && a.Scope == scope {
			return a.Key
		}
	}
	return ""
}

// Alias returns the event's first alias of that network and kind.
func (e *Event) Alias(n Network, kind string) (Alias, bool) {
	for _, a := range e.Aliases {
		if a.Network == n && a.Kind == kind {
			return a, true
		}
	}
	return Alias{}, false
}

// Native is a protocol's own form of an event: a Matrix type and content, or
// the children of an XMPP stanza.
type Native struct {
	Network Network
	Type    string
	Data    []byte
}

// Content is what an event says. The set is closed: Message, Edit, Retract,
// Reaction, Membership, Change and Extension are kept; Receipt, Typing and
// Presence pass by.
type Content interface{ kind() Kind }

// Kind names the type of a [Content] in the store and in metrics.
type Kind string

// The closed set of kinds.
const (
	KindMessage    Kind = "message"
	KindEdit       Kind = "edit"
	KindRetract    Kind = "retract"
	KindReaction   Kind = "reaction"
	KindMembership Kind = "membership"
	KindChange     Kind = "change"
	KindExtension  Kind = "extension"
	KindReceipt    Kind = "receipt"
	KindTyping     Kind = "typing"
	KindPresence   Kind = "presence"
)

// Message says something.
type Message struct {
	Body Body `json:"body"`
}

// Edit gives an earlier message of the same sender a new body.
type Edit struct {
	Target EventID `json:"target"`
	Body   Body    `json:"body"`
}

// Retract takes an earlier event's content away: one's own, or as a moderator.
type Retract struct {
	Target EventID `json:"target"`
	Reason string  `json:"reason,omitempty"`
}

// Reaction puts one key (an emoji, mostly) on a message. One person has each
// key at most once on a message; taking it off is a Retract of this event.
type Reaction struct {
	Target EventID `json:"target"`
	Key    string  `json:"key"`
}

// Extension is a named payload that means nothing to the core: kept and passed
// on untouched. With a StateKey it is part of the conversation's state.
type Extension struct {
	Type     string  `json:"type"`
	StateKey *string `json:"state_key,omitempty"`
	Data     []byte  `json:"data,omitempty"`
	// Target is the event it relates to, where it says so.
	Target EventID `json:"target,omitempty"`
}

// Stage is how far a message has come. Each network reports what it knows.
type Stage string

// The stages, in their order; StageFailed ends every one but Displayed.
const (
	StageAccepted  Stage = "accepted"  // on disk here
	StageThere     Stage = "there"     // accepted by the other server
	StageDelivered Stage = "delivered" // on a device
	StageDisplayed Stage = "displayed" // shown to a person
	StageFailed    Stage = "failed"
)

// Receipt says how far somebody has received or read a conversation.
type Receipt struct {
	Target EventID `json:"target"`
	Stage  Stage   `json:"stage"`
	// Thread is the root of the thread that it is about, "main" for what is
	// in no thread, empty for the whole conversation.
	Thread string `json:"thread,omitempty"`
	// Private receipts are for the account's own clients only.
	Private bool `json:"private,omitempty"`
}

// Typing says that somebody is writing, until Until (zero: has stopped).
type Typing struct {
	Until time.Time
}

// Show is how available somebody is.
type Show string

// The availabilities; ShowOffline is the only one without a session.
const (
	ShowOffline Show = "offline"
	ShowOnline  Show = "online"
	ShowChat    Show = "chat"
	ShowAway    Show = "away"
	ShowXA      Show = "xa"
	ShowDND     Show = "dnd"
)

// Presence says how available somebody is. Native keeps the protocol's own
// form for clients of that protocol (entity capabilities and such).
type Presence struct {
	Show   Show
	Status string
	// Session tells one of the sender's clients from another; empty for one
	// who does not say.
	Session  string
	Priority int
	// Active is when the person last did something; zero if unknown.
	Active time.Time
	Native *Native
}

func (Message) kind() Kind    { return KindMessage }
func (Edit) kind() Kind       { return KindEdit }
func (Retract) kind() Kind    { return KindRetract }
func (Reaction) kind() Kind   { return KindReaction }
func (Membership) kind() Kind { return KindMembership }
func (Change) kind() Kind     { return KindChange }
func (Extension) kind() Kind  { return KindExtension }
func (Receipt) kind() Kind    { return KindReceipt }
func (Typing) kind() Kind     { return KindTyping }
func (Presence) kind() Kind   { return KindPresence }

// KindOf returns the kind of c, or "" for nil.
func KindOf(c Content) Kind {
	if c == nil {
		return ""
	}
	return c.kind()
}

// Target returns the event that c is about, if it is about one.
func Target(c Content) EventID {
	switch c := c.(type) {
	case Edit:
		return c.Target
	case Retract:
		return c.Target
	case Reaction:
		return c.Target
	case Extension:
		return c.Target
	case Receipt:
		return c.Target
	}
	return ""
}

// BodyOf returns the body of a message or edit.
func BodyOf(c Content) (Body, bool) {
	switch c := c.(type) {
	case Message:
		return c.Body, true
	case Edit:
		return c.Body, true
	}
	return Body{}, false
}

// EncodeContent writes a kept content for the store; [DecodeContent] reads it
// back.
func EncodeContent(c Content) (Kind, []byte, error) {
	b, err := json.Marshal(c)
	return KindOf(c), b, err
}

// DecodeContent reads what [EncodeContent] wrote.
func DecodeContent(k Kind, data []byte) (Content, error) {
	switch k {
	case KindMessage:
		return decode[Message](data)
	case KindEdit:
		return decode[Edit](data)
	case KindRetract:
		return decode[Retract](data)
	case KindReaction:
		return decode[Reaction](data)
	case KindMembership:
		return decode[Membership](data)
	case KindChange:
		return decode[Change](data)
	case KindExtension:
		return decode[Extension](data)
	}
	return nil, fmt.Errorf("content of kind %q is not kept", k)
}

func decode[C Content](data []byte) (Content, error) {
	var c C
	err := json.Unmarshal(data, &c)
	return c, err
}
