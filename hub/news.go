package hub

import (
	"time"

	"parley/core"
)

// News is one thing that a session hears of. The set is closed: EventNews,
// ReadingNews, TypingNews, PresenceNews, ContactNews, BlockNews, DataNews,
// ReportNews, ProfileNews, PokeNews and BehindNews.
type News interface{ news() }

// EventNews is an event in one of the account's conversations.
type EventNews struct {
	Event core.Event // with aliases
	Conv  core.Conversation
	// State is the conversation's state after the event. Nobody changes it.
	State *core.State
	// From is the session that said it, if one of this server's did.
	From string
	// Target is the event that Event is about, if it is about one.
	Target *core.Event
	// Before is the state before the event, where that is a correction.
	Before *core.State
	// Aside says that this state event is no part of the state: see [Draft].
	Aside bool
	// Again says that it is no news, but that more is known of it: see
	// [Hub.Retell].
	Again bool
}

// ReadingNews is a receipt, somebody else's or (Own) of the account itself.
type ReadingNews struct {
	Reading Reading
	Own     bool
	From    string
}

// TypingNews says who is writing now.
type TypingNews struct {
	Conv  core.ConvID
	Who   core.Address
	Until time.Time // zero: stopped
	From  string
}

// PresenceNews is the presence of an approved contact, of one of the
// account's other sessions, or of oneself.
type PresenceNews struct {
	Who      core.Address
	Presence core.Presence
}

// ContactNews is a changed contact. Removed says that it is gone from the list.
type ContactNews struct {
	Contact core.Contact
	Removed bool
	// Notice is what the contact did, where it was the contact who did it.
	Notice *ContactNotice
}

// BlockNews is a change of the account's block list.
type BlockNews struct {
	Who     core.Address
	Blocked bool
}

// DataNews is changed private data.
type DataNews struct {
	Datum Datum
	From  string
}

// ReportNews tells a sender what became of her message.
type ReportNews struct {
	Report Report
	Event  core.Event // hers, with aliases
}

// ProfileNews is a changed profile of a contact, a fellow member or oneself.
type ProfileNews struct {
	Who     core.Address
	Profile core.Profile
}

// PokeNews wakes the sessions of a protocol that keeps something of its own:
// to-device messages, device lists, PEP items. Feed is when.
type PokeNews struct {
	Topic string
	Feed  core.Feed
	Data  any
}

// BehindNews says that the session was too slow and its queue was dropped. It
// reads what it missed, after Feed, from the store, and goes on.
type BehindNews struct {
	Feed core.Feed
}

func (EventNews) news()    {}
func (ReadingNews) news()  {}
func (TypingNews) news()   {}
func (PresenceNews) news() {}
func (ContactNews) news()  {}
func (BlockNews) news()    {}
func (DataNews) news()     {}
func (ReportNews) news()   {}
func (ProfileNews) news()  {}
func (PokeNews) news()     {}
func (BehindNews) news()   {}

// FeedOf returns the feed number that n carries, zero for what is not kept.
func FeedOf(n News) core.Feed {
	switch n := n.(type) {
	case EventNews:
		return n.Event.Feed
	case ReadingNews:
		return n.Reading.Feed
	case ContactNews:
		return n.Contact.Feed
	case DataNews:
		return n.Datum.Feed
	case ReportNews:
		return n.Report.Feed
	case PokeNews:
		return n.Feed
	case BehindNews:
		return n.Feed
	}
	return 0
}
