package hub

import (
	"time"

	"parley/core"
)

// Draft is an event that somebody asks for.
type Draft struct {
	Conv    core.ConvID
	Sender  core.Address
	Origin  time.Time // zero: now
	Content core.Content
	Native  *core.Native
	// Aliases are what its sender's network and client call it. One that is
	// known already, with the same digest, makes the draft a repetition: the
	// event that it named is returned and nothing is done.
	Aliases []core.Alias
	// From is the session that asks, if one here does.
	From string
	// With runs in the same turn, before or after the event is admitted, also
	// for a repetition: a protocol's own rows that must be on disk with it.
	With func(tx Tx, e *core.Event) error
	// Accepted says that an authority elsewhere has accepted it: it is applied
	// without asking again, and goes nowhere. Only a [Remote] says so.
	Accepted bool
	// Below puts it below what is known of a conversation elsewhere, as history
	// that was learnt later: it is no news. Only for what is Accepted.
	Below bool
	// Aside keeps an accepted state event in the timeline without making it part
	// of the state: another one stands there.
	Aside bool
	// Found puts an accepted event below all of the timeline, with the state in
	// which a room was found: it is no news either, and no part of the state
	// until a correction makes it that, with all of the others at once.
	Found bool
	// at, if not zero, is its position.
	at core.Position
	// via is who lets the joiner of a restricted conversation in: what a
	// draft's own content says of it is not believed.
	via core.Address
}

// Opening asks for a new conversation.
type Opening struct {
	Creator core.Address
	Shape   core.Shape
	// Address is the room's; zero for one that nobody need find.
	Address   core.Address
	Temporary bool
	Public    bool         // listed for everybody
	Peer      core.Address // the other person of a direct
	Version   string       // Matrix room version; "" is the configured one
	Type      string
	// Creators are further supreme creators; Native is the creation's own form.
	Creators []core.Address
	Native   *core.Native
	// Initial is what follows the creation, in order; Conv and Sender are
	// filled in. The creator's own joining comes first and is not listed here.
	Initial []Draft
	// Member is how the creator appears.
	Member core.Membership
	From   string
	With   func(tx Tx, c core.Conversation) error
}
