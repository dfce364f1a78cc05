package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"

	"parley/core"
	"parley/xmpp/element"
)

// Limits on one message, beyond those of the parser.
const (
	maxID        = 512 // bytes of a message's id, and of one that is referred to
	maxKey       = 256 // bytes of one reaction
	maxReactions = 32  // reactions of one person on one message
	maxMentions  = 64
	maxLanguages = 16
	maxFiles     = 16
	maxRanges    = 16 // parts of a body that are fallback
)

// Author says whose message a reference is about, as far as the stanza's form tells.
type Author int

// The authors.
const (
	OwnMessage Author = iota // the sender's own
	AnyMessage               // anybody's in the conversation
)

// Ref is what a stanza calls another message.
type Ref struct {
	ID     string
	Author Author
	// Stanza says that the ID is the `id` attribute of the earlier stanza also in a room, where all others are stanza-ids.
	Stanza bool
}

// Refs are the things that a stanza names and that the caller looks up before [In].
type Refs struct {
	Messages []Ref
	URLs     []string // of files
}

// References lists what In must know about a message stanza. What it returns is bounded.
func References(m *element.Element) Refs {
	var out Refs
	add := func(id string, a Author, stanza bool) {
		if id != "" && len(id) <= maxID {
			out.Messages = append(out.Messages, Ref{id, a, stanza})
		}
	}
	add(m.Child(NSCorrect, "replace").Attr("id"), OwnMessage, true)
	id, _ := retracted(m)
	add(id, AnyMessage, true) // in a room the stanza-id is due, but converse.js names its own messages by their id
	add(m.Child(NSReactions, "reactions").Attr("id"), AnyMessage, false)
	add(m.Child(NSReply, "reply").Attr("id"), AnyMessage, false)
	add(m.ChildText("", "thread"), AnyMessage, false)
	for _, r := range receipts(m) {
		add(r.ID, AnyMessage, r.delivered)
	}
	for _, f := range readFiles(m) {
		out.URLs = append(out.URLs, f.URL)
	}
	return out
}

// Reading is what In knows beside the stanza.
type Reading struct {
	Sender core.Address // authenticated
	// Group says that it is said in a room.
	Group bool
	// Scope is what the sender's ids are unique in: see [Scope].
	Scope string
	// Messages are the events that [References] named and that were found.
	Messages map[string]core.EventID
	// Files are those of the URLs that are stored here.
	Files map[string]core.File
	// Occupant finds the member of the room with that nick; may be nil.
	Occupant func(nick string) (core.Address, bool)
	Names    Names
	Now      time.Time
}

// Said is what a message stanza means. A stanza may mean several things at once, or none that Parley knows: then it is passed on to
// other XMPP clients and forgotten.
type Said struct {
	// Content is what to keep: Message, Edit, Retract or Extension; or nil.
	Content core.Content
	// Reactions is the sender's new set of reactions on a message, or nil.
	Reactions *Reactions
	Native    *core.Native
	Aliases   []core.Alias
	// Origin is when it was written, if not now.
	Origin   time.Time
	Receipts []Receipt
	// Typing is nil where the stanza says nothing of it; true is composing.
	Typing     *bool
	Invitation *Invitation
	Hints      Hints
	// AsksReceipt and Markable are what the sender wants to hear of.
	AsksReceipt, Markable bool
}

// Reactions is the whole set of one person on one message.
//
// spec: XEP-0444 §3.2
type Reactions struct {
	Target core.EventID
	Keys   []string
}

// Receipt says that a message has arrived or was displayed.
type Receipt struct {
	ID     string // as the stanza says it
	Target core.EventID
	Stage  core.Stage
	// Thread is the stanza's thread, if it is one of ours.
	Thread core.EventID

	delivered bool // by XEP-0184, which names the stanza's own id
}

// Invitation asks somebody into a room.
//
// spec: XEP-0249 §2
// spec: XEP-0045 §7.8
type Invitation struct {
	Room     JID
	To       JID // of a mediated one, else zero
	Reason   string
	Password string
}

// Hints say what the sender wants done with a stanza.
//
// spec: XEP-0334 §4
type Hints struct {
	NoStore, NoPermanentStore, NoCopy, Store, Private bool
}

// In says what a message stanza means. Its to and from are not looked at: r says what they mean.
func In(m *element.Element, r Reading) (Said, []core.Loss) {
	s := Said{Hints: readHints(m), Origin: readDelay(m, r.Now), Typing: readTyping(m)}
	s.AsksReceipt = m.Child(NSReceipts, "request") != nil
	s.Markable = m.Child(NSMarkers, "markable") != nil
	for _, rc := range receipts(m) {
		if rc.Target = r.Messages[rc.ID]; rc.Target != "" {
			rc.Thread = r.Messages[m.ChildText("", "thread")]
			s.Receipts = append(s.Receipts, rc)
		}
	}
	s.Invitation = readInvitation(m)
	losses := s.readContent(m, r)
	if s.Content == nil && s.Reactions == nil {
		return s, losses
	}
	s.Native = &core.Native{Network: core.XMPP, Type: "message", Data: element.Marshal(strip(m, r))}
	s.Aliases = aliases(m, r, s)
	return s, losses
}

// readContent decides what kind of thing was said.
func (s *Said) readContent(m *element.Element, r Reading) []core.Loss {
	if id, reason := retracted(m); id != "" {
		if target := r.Messages[id]; target != "" {
			s.Content = core.Retract{Target: target, Reason: reason}
			return nil
		}
		return []core.Loss{{Feature: core.FeatureRetract, Detail: "the message is not known here"}}
	}
	if el := m.Child(NSReactions, "reactions"); el != nil {
		target := r.Messages[el.Attr("id")]
		if target == "" {
			return []core.Loss{{Feature: core.FeatureReaction, Detail: "the message is not known here"}}
		}
		s.Reactions = &Reactions{Target: target, Keys: readKeys(el)}
		return nil
	}
	body, has, losses := readBody(m, r)
	if !has {
		s.readOpaque(m)
		return losses
	}
	if id := m.Child(NSCorrect, "replace").Attr("id"); id != "" {
		if target := r.Messages[id]; target != "" {
			s.Content = core.Edit{Target: target, Body: body}
			return losses
		}
		losses = append(losses, core.Loss{Feature: core.FeatureEdit, Fallback: "a new message", Detail: "the corrected message is not known here"})
	}
	s.Content = core.Message{Body: body}
	return losses
}

// readOpaque keeps a payload that means nothing here, if its sender wants it kept.
func (s *Said) readOpaque(m *element.Element) {
	if !s.Hints.Store || s.Hints.NoStore {
		return
	}
	for _, c := range m.Elements() {
		if c.Name.Space != NSHints && c.Name.Space != NSSID && c.Name.Space != m.Name.Space && c.Name.Space != NSChatStates {
			s.Content = core.Extension{Type: clip(c.Name.Space+"#"+c.Name.Local, 255)}
			return
		}
	}
}

// retracted returns the ID that a retraction names.
//
// spec: XEP-0424 §3
func retracted(m *element.Element) (id, reason string) {
	if el := m.Child(NSRetract, "retract"); el != nil {
		return el.Attr("id"), clip(el.ChildText("", "reason"), 1000)
	}
	if to := m.Child(NSFasten, "apply-to"); to.Child(NSRetract0, "retract") != nil {
		return to.Attr("id"), ""
	}
	return "", ""
}

// receipts reads delivery receipts and chat markers.
//
// spec: XEP-0184 §7
// spec: XEP-0333 §4
func receipts(m *element.Element) []Receipt {
	var out []Receipt
	for _, k := range [...]struct {
		ns, name string
		stage    core.Stage
	}{
		{NSReceipts, "received", core.StageDelivered},
		{NSMarkers, "received", core.StageDelivered},
		{NSMarkers, "displayed", core.StageDisplayed},
		{NSMarkers, "acknowledged", core.StageDisplayed},
	} {
		if id := m.Child(k.ns, k.name).Attr("id"); id != "" && len(id) <= maxID {
			out = append(out, Receipt{ID: id, Stage: k.stage, delivered: k.ns == NSReceipts})
		}
	}
	return out
}

func readKeys(el *element.Element) []string {
	keys := []string{}
	seen := map[string]bool{}
	for _, c := range el.ChildrenNamed("", "reaction") {
		k := c.Text()
		if k == "" || len(k) > maxKey || seen[k] || len(keys) == maxReactions {
			continue
		}
		seen[k] = true
		keys = append(keys, k)
	}
	return keys
}

// spec: XEP-0085 §5.1
func readTyping(m *element.Element) *bool {
	yes, no := true, false
	for _, c := range m.Elements() {
		if c.Name.Space != NSChatStates {
			continue
		}
		if c.Name.Local == "composing" {
			return &yes
		}
		return &no
	}
	return nil
}

func readHints(m *element.Element) Hints {
	has := func(name string) bool { return m.Child(NSHints, name) != nil }
	return Hints{
		NoStore: has("no-store"), NoPermanentStore: has("no-permanent-store"),
		NoCopy: has("no-copy"), Store: has("store"), Private: m.Child(NSCarbons, "private") != nil,
	}
}

// readDelay is when the sender's client says that it wrote the message; never in the future.
//
// spec: XEP-0203 §2
func readDelay(m *element.Element, now time.Time) time.Time {
	t, err := time.Parse(time.RFC3339Nano, m.Child(NSDelay, "delay").Attr("stamp"))
	if err != nil || t.After(now) || t.Year() < 1999 {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

func readInvitation(m *element.Element) *Invitation {
	if x := m.Child(NSConference, "x"); x != nil && m.Attr("type") != "groupchat" {
		if room, err := ParseJID(x.Attr("jid")); err == nil && room.Local != "" {
			return &Invitation{Room: room.Bare(), Reason: clip(x.Attr("reason"), 1000), Password: x.Attr("password")}
		}
	}
	if x := m.Child(NSMUCUser, "x"); x.Child("", "invite") != nil {
		inv := x.Child("", "invite")
		to, _ := ParseJID(inv.Attr("to"))
		room, err := ParseJID(m.Attr("to"))
		if err == nil && !to.IsZero() {
			return &Invitation{Room: room.Bare(), To: to, Reason: clip(inv.ChildText("", "reason"), 1000)}
		}
	}
	return nil
}

// strip copies the message without what only a server may say. Its addresses stay, because they tell the clients between which it
// went; Out writes those that others are to see.
//
// spec: XEP-0359 §3
func strip(m *element.Element, r Reading) *element.Element {
	return m.Copy().RemoveChildren(func(e *element.Element) bool {
		switch e.Name.Space {
		case NSSID:
			return e.Name.Local == "stanza-id" && !r.mayName(e.Attr("by"))
		case NSDelay, nsLegacyDelay:
			by, err := ParseJID(e.Attr("from"))
			return e.Attr("from") != "" && (err != nil || r.Names.ours(by.Domain))
		case NSCarbons:
			return e.Name.Local != "private"
		case NSMAM:
			return true
		case NSOccupantID:
			return r.Group
		case NSMUCUser:
			return r.Group || e.Child("", "status") != nil || e.Child("", "item") != nil
		}
		return false
	})
}

// mayName says whether the sender may have got a stanza-id from by: only its own server says so.
func (r Reading) mayName(by string) bool {
	j, err := ParseJID(by)
	return err == nil && r.Sender.Network == core.XMPP && (j.Domain == r.Sender.Domain) && !r.Names.ours(j.Domain)
}

// Scope is what the ids that sender gives are unique in: the room, or what was said to one person.
func Scope(sender core.Address, conv core.ConvID, peer core.Address) string {
	if !peer.IsZero() {
		return sender.String() + " " + peer.String()
	}
	return sender.String() + " " + string(conv)
}

// RoomScope is what the stanza-ids are unique in that a room elsewhere gives: each account that is in it has a conversation of its own.
func RoomScope(conv core.ConvID) string { return string(conv) }

// The kinds of aliases that XMPP gives.
const (
	AliasOrigin = "origin-id" // XEP-0359, in [Scope]
	AliasID     = "id"        // the stanza's own, in [Scope]
	AliasStanza = "stanza-id" // XEP-0359, in the `by` that gave it
)

// uniqueID is how long an `id` must be to be unique. RFC 6120 wants it to be so within a stream only, and there are clients that
// count from one in each: what such a client says again is not a repetition.
const uniqueID = 10

// aliases are the names of the message. The digest is of what was said, so that a client that sends the same again after a lost
// connection is recognised, while one that uses an id twice for different things is not.
func aliases(m *element.Element, r Reading, s Said) []core.Alias {
	digest := digestOf(s)
	var out []core.Alias
	add := func(kind, scope, key string) {
		if key == "" || len(key) > maxID || !utf8.ValidString(key) {
			return
		}
		d := digest
		if kind == AliasID && len(key) < uniqueID {
			d += "@" + strconv.FormatInt(r.Now.UnixNano(), 36)
		}
		out = append(out, core.Alias{Network: core.XMPP, Kind: kind, Scope: scope, Key: key, Digest: d})
	}
	add(AliasOrigin, r.Scope, m.Child(NSSID, "origin-id").Attr("id"))
	if len(out) == 0 || m.Attr("id") != out[0].Key { // clients mostly give one name twice
		add(AliasID, r.Scope, m.Attr("id"))
	}
	for _, sid := range m.ChildrenNamed(NSSID, "stanza-id") {
		if r.mayName(sid.Attr("by")) {
			add(AliasStanza, sid.Attr("by"), sid.Attr("id"))
			break
		}
	}
	return out
}

func digestOf(s Said) string {
	h := sha256.New()
	if s.Content != nil {
		kind, b, _ := core.EncodeContent(s.Content)
		h.Write([]byte(kind))
		h.Write(b)
	}
	if s.Reactions != nil {
		h.Write([]byte(s.Reactions.Target))
		for _, k := range s.Reactions.Keys {
			h.Write([]byte{0})
			h.Write([]byte(k))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
