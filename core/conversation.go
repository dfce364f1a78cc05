package core

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Shape says what sort of conversation it is to people.
type Shape string

// The shapes. A direct is between two people and becomes a group when a third
// is invited.
const (
	Direct Shape = "direct"
	Group  Shape = "group"
)

// Authority says who decides what happens in a conversation.
type Authority string

// The authorities.
const (
	Here      Authority = "here"      // the hub, by its own rules
	Graph     Authority = "graph"     // Matrix state resolution; for good
	Elsewhere Authority = "elsewhere" // a foreign server; we hold a projection
)

// Conversation is what everything is said in.
type Conversation struct {
	ID        ConvID
	Shape     Shape
	Authority Authority
	Creator   Address
	Created   time.Time
	// Address is the room's own, "#garden:example.org" and
	// "garden@rooms.example.org" in two of its spellings. It does not change
	// as long as the conversation is hosted here; a direct has none.
	Address Address
	// Temporary conversations end when the last member leaves.
	Temporary bool
	// Native is what the authority's or minting protocol calls it, by network:
	// the Matrix room ID for one.
	Native map[Network]string
}

// Standing is a person's membership.
type Standing string

// The standings.
const (
	Joined  Standing = "join"
	Invited Standing = "invite"
	Knocked Standing = "knock"
	Left    Standing = "leave"
	Banned  Standing = "ban"
)

// Membership changes a person's standing. A kick is Left by another sender,
// an unban too.
type Membership struct {
	Target   Address  `json:"target"`
	Standing Standing `json:"standing"`
	Reason   string   `json:"reason,omitempty"`
	// Name and Avatar are how the person appears in the conversation.
	Name   string `json:"name,omitempty"`
	Avatar *File  `json:"avatar,omitempty"`
	// Nick is the person's stable name among the members, unique in the
	// conversation. A draft may ask for one; the hub sees to it that it is set.
	Nick string `json:"nick,omitempty"`
	// Before and OldNick are what this changes; the hub fills them in.
	Before  Standing `json:"before,omitempty"`
	OldNick string   `json:"old_nick,omitempty"`
	// Direct marks an invitation as the opening of a direct conversation.
	Direct bool `json:"direct,omitempty"`
	// Via is the member in whose power it was to let a joiner into a
	// restricted conversation.
	Via Address `json:"via,omitzero"`
}

// Aspect names what a [Change] changes.
type Aspect string

// The aspects.
const (
	AspectCreated    Aspect = "created"
	AspectName       Aspect = "name"
	AspectTopic      Aspect = "topic"
	AspectAvatar     Aspect = "avatar"
	AspectLevels     Aspect = "levels"
	AspectJoinRule   Aspect = "join-rule"
	AspectVisibility Aspect = "visibility"
	AspectAddresses  Aspect = "addresses"
	AspectEncryption Aspect = "encryption"
	AspectMovedTo    Aspect = "moved-to"
	AspectCorrected  Aspect = "corrected" // by state resolution; has no actor
)

// Change changes the conversation itself. Only the fields of its Aspect count.
type Change struct {
	Aspect Aspect `json:"aspect"`
	// Text is the name or the topic.
	Text   string  `json:"text,omitempty"`
	Avatar *File   `json:"avatar,omitempty"`
	Levels *Levels `json:"levels,omitempty"`
	// OldLevels are those before; the hub fills them in.
	OldLevels  *Levels     `json:"old_levels,omitempty"`
	JoinRule   JoinRule    `json:"join_rule,omitempty"`
	Allow      []string    `json:"allow,omitempty"` // native IDs of conversations whose members may join
	Visibility Visibility  `json:"visibility,omitempty"`
	Main       Address     `json:"main,omitzero"`
	Others     []Address   `json:"others,omitempty"`
	Encryption *Encryption `json:"encryption,omitempty"`
	MovedTo    *Move       `json:"moved_to,omitempty"`
	Creation   *Creation   `json:"creation,omitempty"`
	// Corrected are the pieces of the state that are not what they were,
	// though nobody changed them: AspectCorrected.
	Corrected []Correction `json:"corrected,omitempty"`
}

// Correction is one piece of the state that another event sets than did before.
type Correction struct {
	Kind string  `json:"kind"` // with Key a [StateKey]
	Key  string  `json:"key,omitempty"`
	Was  EventID `json:"was,omitempty"`
	Is   EventID `json:"is,omitempty"` // empty: nothing sets it now
}

// StateKey is the piece of state that is corrected.
func (c Correction) StateKey() StateKey { return StateKey{c.Kind, c.Key} }

// Creation is the first event of a conversation. Supreme creators stand above
// every level, for good: Matrix room version 12 on.
type Creation struct {
	Shape    Shape     `json:"shape"`
	Creators []Address `json:"creators"` // the sender first
	Supreme  bool      `json:"supreme,omitempty"`
	// Version is the Matrix room version to which the conversation is minted.
	Version string `json:"version"`
	// Type is empty for a conversation of people, else a Matrix room type
	// such as "m.space".
	Type string `json:"type,omitempty"`
}

// Move says where a conversation went on.
type Move struct {
	Conv    ConvID  `json:"conv,omitempty"`
	Address Address `json:"address,omitzero"`
	Native  string  `json:"native,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// Encryption says which scheme the members' clients use.
type Encryption struct {
	Scheme string `json:"scheme"`
}

// JoinRule says who may join.
type JoinRule string

// The join rules.
const (
	JoinPublic          JoinRule = "public"
	JoinInvite          JoinRule = "invite"
	JoinKnock           JoinRule = "knock"
	JoinRestricted      JoinRule = "restricted"
	JoinKnockRestricted JoinRule = "knock_restricted"
)

// Visibility says who may read which history.
type Visibility string

// The visibilities: for everybody; for members, all of it; for members from
// their invitation on; for members from their joining on.
const (
	VisibleWorld   Visibility = "world_readable"
	VisibleShared  Visibility = "shared"
	VisibleInvited Visibility = "invited"
	VisibleJoined  Visibility = "joined"
)

// Levels are the permissions: what an action needs, and what members have.
type Levels struct {
	Ban    int64 `json:"ban"`
	Kick   int64 `json:"kick"`
	Invite int64 `json:"invite"`
	Redact int64 `json:"redact"` // retracting what others said
	// Actions are the levels for single actions, by [Action]; Message and
	// State are for all others.
	Actions map[string]int64  `json:"actions,omitempty"`
	Message int64             `json:"message"`
	State   int64             `json:"state"`
	Users   map[Address]int64 `json:"users,omitempty"`
	Default int64             `json:"default"`
	// Notify is what addressing the whole room needs.
	Notify int64 `json:"notify"`
}

// DefaultLevels are those of a new conversation.
func DefaultLevels() Levels {
	return Levels{
		Ban: 50, Kick: 50, Invite: 0, Redact: 50, Message: 0, State: 50, Default: 0, Notify: 50,
		Actions: map[string]int64{
			string(AspectName): 50, string(AspectLevels): 100, string(AspectVisibility): 100,
			string(AspectAddresses): 50, string(AspectAvatar): 50, string(AspectMovedTo): 150,
			string(AspectEncryption): 100, "m.room.server_acl": 100,
		},
		Users: map[Address]int64{},
	}
}

// Clone copies l so that the copy can be changed.
func (l Levels) Clone() Levels {
	l.Actions, l.Users = maps.Clone(l.Actions), maps.Clone(l.Users)
	if l.Actions == nil {
		l.Actions = map[string]int64{}
	}
	if l.Users == nil {
		l.Users = map[Address]int64{}
	}
	return l
}

// Action names what c does, as a key of [Levels.Actions]; state says whether
// it changes the state of the conversation.
func Action(c Content) (action string, state bool) {
	switch c := c.(type) {
	case Message:
		if c.Body.Encrypted != nil {
			return "encrypted", false
		}
		return "message", false
	case Edit:
		if c.Body.Encrypted != nil {
			return "encrypted", false
		}
		return "message", false
	case Reaction:
		return "reaction", false
	case Retract:
		return "retract", false
	case Membership:
		return "membership", true
	case Change:
		return string(c.Aspect), true
	case Extension:
		return c.Type, c.StateKey != nil
	}
	return string(KindOf(c)), false
}

// StateKey names one piece of a conversation's state.
type StateKey struct{ Kind, Key string }

// StateKeyOf returns which piece of the state c sets, if any.
func StateKeyOf(c Content) (StateKey, bool) {
	switch c := c.(type) {
	case Membership:
		return StateKey{string(KindMembership), c.Target.String()}, true
	case Change:
		if c.Aspect == AspectCorrected {
			return StateKey{}, false
		}
		return StateKey{string(c.Aspect), ""}, true
	case Extension:
		if c.StateKey != nil {
			return StateKey{"ext:" + c.Type, *c.StateKey}, true
		}
	}
	return StateKey{}, false
}

// Member is a person's place in a conversation.
type Member struct {
	Address  Address
	Standing Standing
	Name     string
	Avatar   *File
	Nick     string
	Direct   bool
	// By set the standing, in Event, at Since.
	By    Address
	Event EventID
	Since Position
}

// State is a conversation's current state, folded from its log by
// [State.Apply]. It holds pointers to nothing that changes: an applied state
// shares no map with the one that it came from after [State.Clone].
type State struct {
	Creation   Creation
	Creator    Address
	Name       string
	Topic      string
	Avatar     *File
	Levels     Levels
	HasLevels  bool
	JoinRule   JoinRule
	Allow      []string
	Visibility Visibility
	Main       Address
	Others     []Address
	Encryption *Encryption
	MovedTo    *Move
	Members    map[Address]Member
	// Events holds the event that set each piece of the state.
	Events map[StateKey]EventID
}

// NewState is the state before the first event.
func NewState() *State {
	return &State{
		JoinRule: JoinInvite, Visibility: VisibleShared, Levels: DefaultLevels(),
		Members: map[Address]Member{}, Events: map[StateKey]EventID{},
	}
}

// Clone copies s.
func (s *State) Clone() *State {
	c := *s
	c.Members, c.Events = maps.Clone(s.Members), maps.Clone(s.Events)
	c.Levels = s.Levels.Clone()
	return &c
}

// Apply folds an admitted event into s.
func (s *State) Apply(e *Event) {
	if k, ok := StateKeyOf(e.Content); ok {
		s.Events[k] = e.ID
	}
	switch c := e.Content.(type) {
	case Membership:
		s.Members[c.Target] = Member{
			Address: c.Target, Standing: c.Standing, Name: c.Name, Avatar: c.Avatar, Nick: c.Nick,
			Direct: c.Direct, By: e.Sender, Event: e.ID, Since: e.Position,
		}
	case Change:
		s.change(e.Sender, c)
	}
}

// Clear takes a piece of the state away, as if nothing had ever set it.
func (s *State) Clear(k StateKey) {
	delete(s.Events, k)
	if k.Kind == string(KindMembership) {
		if a, err := ParseAddress(k.Key); err == nil {
			delete(s.Members, a)
		}
		return
	}
	blank := NewState()
	switch Aspect(k.Kind) {
	case AspectCreated:
		s.Creator, s.Creation = blank.Creator, blank.Creation
	case AspectLevels:
		s.Levels, s.HasLevels = blank.Levels, false
	case AspectJoinRule:
		s.JoinRule, s.Allow = blank.JoinRule, nil
	case AspectVisibility:
		s.Visibility = blank.Visibility
	default:
		s.change(Address{}, Change{Aspect: Aspect(k.Kind)})
	}
}

func (s *State) change(sender Address, c Change) {
	switch c.Aspect {
	case AspectCreated:
		s.Creator = sender
		if c.Creation != nil {
			s.Creation = *c.Creation
		}
	case AspectName:
		s.Name = c.Text
	case AspectTopic:
		s.Topic = c.Text
	case AspectAvatar:
		s.Avatar = c.Avatar
	case AspectLevels:
		if c.Levels != nil {
			s.Levels, s.HasLevels = c.Levels.Clone(), true
		}
	case AspectJoinRule:
		s.JoinRule, s.Allow = c.JoinRule, c.Allow
	case AspectVisibility:
		s.Visibility = c.Visibility
	case AspectAddresses:
		s.Main, s.Others = c.Main, c.Others
	case AspectEncryption:
		s.Encryption = c.Encryption
	case AspectMovedTo:
		s.MovedTo = c.MovedTo
	}
}

// Supreme is the level of a creator who stands above all levels.
const Supreme int64 = 1 << 53

// Level is what a may do. Before any levels are set the creator has 100 and
// all others nothing.
//
// spec: MX 1.19 RV v12
func (s *State) Level(a Address) int64 {
	if s.Creation.Supreme && slices.Contains(s.Creation.Creators, a) {
		return Supreme
	}
	if !s.HasLevels {
		if a == s.Creator {
			return 100
		}
		return 0
	}
	if l, ok := s.Levels.Users[a]; ok {
		return l
	}
	return s.Levels.Default
}

// Needs is the level that an action needs.
func (s *State) Needs(action string, state bool) int64 {
	if !s.HasLevels {
		return 0
	}
	if l, ok := s.Levels.Actions[action]; ok {
		return l
	}
	if state {
		return s.Levels.State
	}
	return s.Levels.Message
}

// Standing is a's standing, Left for one who was never there.
func (s *State) Standing(a Address) Standing {
	if m, ok := s.Members[a]; ok {
		return m.Standing
	}
	return Left
}

// Other is the other person of a direct: one who is in it rather than one who
// was asked into it, and that one rather than one who has been in it.
func (s *State) Other(who Address) (Address, bool) {
	rank := map[Standing]int{Joined: 3, Invited: 2, Knocked: 1}
	var best Address
	for a, m := range s.Members {
		if a == who {
			continue
		}
		was, is := rank[s.Members[best].Standing], rank[m.Standing]
		if best.IsZero() || is > was || is == was && a.String() < best.String() {
			best = a
		}
	}
	return best, !best.IsZero()
}

// Joined returns the joined members, in the order of their addresses.
func (s *State) Joined() []Member { return s.With(Joined) }

// With returns the members of any of the standings, in the order of their
// addresses.
func (s *State) With(standings ...Standing) []Member {
	var out []Member
	for _, m := range s.Members {
		if slices.Contains(standings, m.Standing) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Member) int {
		return strings.Compare(a.Address.String(), b.Address.String())
	})
	return out
}
