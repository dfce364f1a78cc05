package hub

import (
	"context"

	"parley/core"
)

// Mirror writes a protocol's own form of events within the turn that admits
// them, as the Matrix package does with PDUs.
type Mirror interface {
	// Admit is called for each event after the verdict and before it is kept.
	// It may add to e.Aliases and, at the creation, to c.Native. before is the
	// state without e. An error undoes the whole turn.
	Admit(tx Tx, c *core.Conversation, before *core.State, e *core.Event) error
}

// Judge is the authority of conversations that the hub's own rules do not
// govern. The hub asks it once, within the turn. [ErrAsk] says that other
// servers have to be asked, which the [Remote] does outside of it.
type Judge interface {
	Verdict(tx Tx, c *core.Conversation, s *core.State, e *core.Event) error
}

// Carrier takes what is owed to one network's servers. Its methods are called
// by one goroutine per destination.
type Carrier interface {
	Network() core.Network
	// Capabilities are what a's network, or a itself, can show.
	Capabilities(a core.Address) core.Capabilities
	// Deliver hands the parcels over, in order, and says what became of each.
	// It returns as many results as it got to; the rest are tried again.
	Deliver(ctx context.Context, dest string, parcels []Delivery) []Result
	// Whisper sends what is not owed: typing, presence. It must not block.
	Whisper(w Whisper)
}

// Delivery is a parcel with what it takes to write it.
type Delivery struct {
	Parcel
	Content core.Event        // the event with aliases, where there is one
	Room    core.Conversation // of the event
	State   *core.State
	Target  *core.Event // that the event is about, with aliases
	Links   []Link      // of its files
	// Reacted is the sender's whole set of reactions on the target.
	Reacted []string
	// losses are what [core.Carry] took away before the carrier saw it.
	losses []core.Loss
}

// Outcome is what became of a parcel.
type Outcome int

// The outcomes.
const (
	Accepted Outcome = iota // by the other server
	Retry                   // not now
	Failed                  // never
)

// Result is the outcome of one parcel.
type Result struct {
	Outcome Outcome
	Reason  string
	Losses  []core.Loss
}

// Whisper is something that is worth nothing later.
type Whisper struct {
	From, To core.Address
	// ToSession is one session of To; empty for all.
	ToSession string
	Conv      core.ConvID // empty for what is between two people
	Presence  *core.Presence
	Typing    *core.Typing
	// Displayed says that From has read up to an event, in a room: between two
	// people that is owed, and no whisper. Thread is as in [core.Receipt].
	Displayed core.EventID
	Thread    string
	// Probe asks for presence.
	Probe bool
}

// NoticeKind is what one did about consent.
type NoticeKind string

// The kinds of notices.
const (
	Ask     NoticeKind = "ask"     // may I see you?
	Approve NoticeKind = "approve" // yes
	Deny    NoticeKind = "deny"    // no, or no longer
	Unask   NoticeKind = "unask"   // I no longer want to see you
)

// ContactNotice is a step of consent between two people.
type ContactNotice struct {
	Kind     NoticeKind
	From, To core.Address
	Words    string
	// Moved is the address that one who asks says to have had before, if she says so. By itself it proves nothing.
	Moved core.Address
}

// Informer tells a sender of a late failure where her client has no error of
// its own for it. It is asked for the network in whose form the message came.
type Informer interface {
	Network() core.Network
	Inform(ctx context.Context, n ReportNews)
}

// Counter counts for the operator. Names are stable; labels are few.
type Counter interface {
	Count(name string, labels ...string)
}
