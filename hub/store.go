package hub

import (
	"context"
	"time"

	"parley/core"
)

// Store keeps what the hub knows. package store/hubstore implements it.
type Store interface {
	// Write runs f in the one writer, in a savepoint of a batch, and returns
	// nil only after the batch is on disk.
	Write(ctx context.Context, f func(Tx) error) error
	// Read runs f on a snapshot of what is committed.
	Read(ctx context.Context, f func(View) error) error
}

// View reads. A single row that is not there is [ErrNone].
type View interface {
	AccountView
	ConversationView
	EventView
	PrivateView
	MediaView
	OutboxView
	// LastFeed is the highest feed number in this snapshot.
	LastFeed() (core.Feed, error)
	Setting(key string) ([]byte, error)
}

// Tx reads and writes in the writer's turn; what it reads includes what it
// wrote.
type Tx interface {
	View
	AccountTx
	ConversationTx
	EventTx
	PrivateTx
	MediaTx
	OutboxTx
	NextFeed() core.Feed
	SetSetting(key string, value []byte) error
	// OnCommit runs f after the commit, in order, before Write returns.
	OnCommit(f func())
	// OnRollback runs f if what this turn did is undone.
	OnRollback(f func())
}

// Account is somebody who lives here.
type Account struct {
	Address   core.Address
	Created   time.Time
	Disabled  bool
	Strangers core.Strangers
	// Credentials are what passwords are checked against: see [Credentials].
	Credentials Credentials
}

// Credentials are SCRAM verifiers; the password itself is kept nowhere.
//
// spec: RFC 5802 §3
type Credentials struct {
	Salt                       []byte
	Iterations                 int
	StoredKey1, ServerKey1     []byte // SHA-1
	StoredKey256, ServerKey256 []byte // SHA-256
}

// AccountView reads accounts.
type AccountView interface {
	Account(a core.Address) (Account, error)
	Accounts() ([]Account, error)
	Profile(a core.Address) (core.Profile, error) // of anybody; empty if unknown
}

// AccountTx writes accounts.
type AccountTx interface {
	PutAccount(a Account) error
	DeleteAccount(a core.Address) error
	PutProfile(a core.Address, p core.Profile) error
}

// Place is one conversation from the point of view of one member.
type Place struct {
	Conv     core.ConvID
	Standing core.Standing
	Nick     string
	Since    core.Position // of the event that set the standing
	Feed     core.Feed     // of the same
	// Peer is the other person of a direct.
	Peer core.Address
	// Current marks the pair's current plain direct.
	Current bool
}

// Stay is one stretch of membership; it decides what history one may read.
// A zero Left means that it goes on; zero Joined, that it got no further than
// the invitation.
type Stay struct {
	Invited, Joined, Left core.Position
}

// ConversationView reads conversations.
type ConversationView interface {
	Conversation(id core.ConvID) (core.Conversation, error)
	// ConversationAt finds a room by any of its addresses.
	ConversationAt(a core.Address) (core.ConvID, error)
	// ConversationNative finds one by what a network calls it.
	ConversationNative(n core.Network, native string) (core.ConvID, error)
	// State is the current state; callers do not change it.
	State(id core.ConvID) (*core.State, error)
	// Places are all conversations in which a has or had a standing.
	Places(a core.Address) ([]Place, error)
	Place(a core.Address, id core.ConvID) (Place, error)
	Stays(id core.ConvID, a core.Address) ([]Stay, error)
	// Directs are the directs of a pair, the current one first.
	Directs(a, b core.Address) ([]core.ConvID, error)
	// RoomAddresses are the addresses that lead to a room.
	RoomAddresses(id core.ConvID) ([]core.Address, error)
	// PublicRooms are the rooms that anybody may find, in order of address.
	PublicRooms() ([]core.ConvID, error)
	// Affiliation is the right to return that outlives membership; ErrNone
	// where there is none.
	Affiliation(id core.ConvID, a core.Address) (grantedBy core.Address, err error)
	Affiliated(id core.ConvID) ([]core.Address, error)
}

// ConversationTx writes conversations.
type ConversationTx interface {
	PutConversation(c core.Conversation) error
	PutRoomAddress(a core.Address, id core.ConvID, by core.Address) error // Conflict if taken
	DeleteRoomAddress(a core.Address) error
	SetPublic(id core.ConvID, public bool) error
	// PutState records an event as the current state of its key, and members,
	// places and stays with it. s is the state with e applied.
	PutState(c *core.Conversation, s *core.State, e *core.Event) error
	// PutCorrected records what a correction, e, says of the state. s is the
	// state with it applied.
	PutCorrected(c *core.Conversation, s *core.State, e *core.Event) error
	PutDirect(id core.ConvID, a, b core.Address) error // becomes the current one
	EndDirect(id core.ConvID) error                    // has become a group, or was closed
	PutAffiliation(id core.ConvID, a, grantedBy core.Address) error
	DeleteAffiliation(id core.ConvID, a core.Address) error
}

// Query asks for a page of events. Bounds are exclusive; zero is no bound.
type Query struct {
	Conv core.ConvID // or, with none, all conversations of For
	For  core.Address
	// Before and After bound the position; BeforeFeed and AfterFeed the feed.
	Before, After         core.Position
	BeforeFeed, AfterFeed core.Feed
	Kinds                 []core.Kind  // none is all
	Peer                  core.Address // only in directs with Peer
	Directs               bool         // only in directs
	Since, Until          time.Time
	Limit                 int
	// Latest pages from the newest down; the events still come in order,
	// oldest first.
	Latest bool
	// ByFeed orders by feed and not by position.
	ByFeed  bool
	Aliases bool // fill in Event.Aliases
}

// EventView reads events.
type EventView interface {
	Event(id core.EventID) (core.Event, error) // with aliases
	// EventBy finds an event by what a network calls it, and the digest that
	// was kept with the alias.
	EventBy(a core.Alias) (id core.EventID, digest string, err error)
	Aliases(id core.EventID) ([]core.Alias, error)
	Page(q Query) ([]core.Event, error)
	// Related are the events that are about target, of the kinds, in order.
	Related(target core.EventID, kinds ...core.Kind) ([]core.Event, error)
	// Thread are the messages of a thread, in order, after a position.
	Thread(conv core.ConvID, root core.EventID, before core.Position, limit int) ([]core.Event, error)
	// Edge are the highest position and feed of a conversation.
	Edge(conv core.ConvID) (core.Position, core.Feed, error)
}

// EventTx writes events.
type EventTx interface {
	// PutEvent keeps e, its aliases and its native form.
	PutEvent(e *core.Event) error
	// PutAliases adds names for an event; a key that is taken by another
	// event is a Conflict.
	PutAliases(id core.EventID, aliases []core.Alias) error
	// PutPosition gives an event another place in its conversation.
	PutPosition(id core.EventID, at core.Position) error
	// Erase takes away content and native form, because of the event by.
	Erase(id, by core.EventID) error
}

// Reading is how far one member has come in a conversation.
type Reading struct {
	Conv    core.ConvID
	Who     core.Address
	Stage   core.Stage // delivered or displayed
	Thread  string
	Private bool
	Event   core.EventID
	At      core.Position
	Time    time.Time
	Feed    core.Feed
}

// Datum is one piece of an account's private data, for one conversation or
// (with an empty Conv) for all.
type Datum struct {
	Account core.Address
	Conv    core.ConvID
	// Type begins with the network and a colon ("xmpp:vcard-temp") unless the
	// data is JSON of Matrix clients, who name theirs as they like and are given
	// whatever has no such beginning.
	Type string
	Data []byte // nil: was deleted
	Feed core.Feed
}

// Report is what became of one message for one addressee.
type Report struct {
	Event  core.EventID
	To     core.Address
	Stage  core.Stage
	Reason string
	Losses []core.Loss
	Feed   core.Feed
}

// PrivateView reads what belongs to single accounts.
type PrivateView interface {
	Contact(account, a core.Address) (core.Contact, error)
	Contacts(account core.Address) ([]core.Contact, error)
	// Familiar says whether any account has a contact on a foreign server, or
	// is one of somebody there.
	Familiar(n core.Network, domain string) (bool, error)
	// ContactsOf are the accounts here that have a in their list.
	ContactsOf(a core.Address) ([]core.Contact, error)
	Blocks(account core.Address) ([]core.Address, error)
	Blocked(account, a core.Address) (bool, error)
	Datum(account core.Address, conv core.ConvID, typ string) (Datum, error)
	// Data are all data that changed after a feed number, deletions too.
	Data(account core.Address, after core.Feed) ([]Datum, error)
	// Readings are those of a conversation that changed after a feed number;
	// private ones only of viewer.
	Readings(conv core.ConvID, viewer core.Address, after core.Feed) ([]Reading, error)
	// Reading is one of them; only those that are Private differ from public.
	Reading(conv core.ConvID, who core.Address, stage core.Stage, thread string, private bool) (Reading, error)
	// Reports are those about viewer's own messages, after a feed number.
	Reports(viewer core.Address, after core.Feed) ([]Report, error)
	ReportsOn(id core.EventID) ([]Report, error)
}

// PrivateTx writes it.
type PrivateTx interface {
	PutContact(c core.Contact) error
	DeleteContact(account, a core.Address) error
	PutBlock(account, a core.Address) error
	DeleteBlock(account, a core.Address) error
	PutDatum(d Datum) error
	PutReading(r Reading) error
	PutReport(r Report) error
}

// Media is a file that is stored here, or one elsewhere that we name.
type Media struct {
	ID      core.MediaID
	Owner   core.Address
	Created time.Time
	File    core.File // Media is ID; URL is set for those elsewhere
	// Secret is in the link under which the owner uploaded it, if she did so
	// by a link.
	Secret string
	// Stored says that the bytes are here.
	Stored bool
}

// Link is the unguessable address of a file for one conversation. It lives
// until the message is withdrawn.
type Link struct {
	Secret string
	Media  core.MediaID
	Conv   core.ConvID
	Event  core.EventID
}

// MediaView reads media.
type MediaView interface {
	Media(id core.MediaID) (Media, error)
	// MediaBySecret finds a file by an upload's secret or a live link's.
	MediaBySecret(secret string) (Media, error)
	Links(event core.EventID) ([]Link, error)
	LinksTo(id core.MediaID) ([]Link, error)
	MediaUsed(owner core.Address) (bytes int64, err error)
}

// MediaTx writes media.
type MediaTx interface {
	PutMedia(m Media) error
	PutLink(l Link) error
	DeleteLinks(event core.EventID) error
}

// Parcel is one thing owed to one destination of another network.
type Parcel struct {
	ID      int64
	Network core.Network
	Dest    string // the domain
	To      []core.Address
	From    core.Address
	// Event is what to carry; or else Notice.
	Event  core.EventID
	Notice *ContactNotice
	// Report is a delivered or displayed report about another's message.
	Receipt  *core.Receipt
	Conv     core.ConvID
	Created  time.Time
	Next     time.Time
	Attempts int
	Expires  time.Time
}

// OutboxView reads what is owed.
type OutboxView interface {
	// Parcels are those of a destination, in order.
	Parcels(d Destination, limit int) ([]Parcel, error)
	// Destinations are those for which something is owed.
	Destinations() ([]Destination, error)
}

// OutboxTx keeps it.
type OutboxTx interface {
	PutParcel(p Parcel) error // ID is given by the store, in order
	DeleteParcel(id int64) error
	PostponeParcel(id int64, attempts int, next time.Time) error
}

// Destination is a server of another network.
type Destination struct {
	Network core.Network
	Dest    string
}
