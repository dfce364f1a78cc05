package translate

import (
	"slices"
	"strings"
	"time"

	"parley/core"
	"parley/xmpp/element"
)

// StanzaID is the name that an archive gives a message.
//
// spec: XEP-0359 §2.1
type StanzaID struct{ By, ID string }

// Writing is what Out knows beside the event.
type Writing struct {
	Names Names
	// From and To are the stanza's addresses. In a room From is the occupant's; else it is bare, and the client's own stands in its
	// place where it is known.
	From, To string
	// Type is chat, groupchat, normal or headline. If it is empty it is what its writer gave, else chat.
	Type string
	// Messages are the events that [Targets] named, with aliases, as far as they are known.
	Messages map[core.EventID]core.Event
	// Links are where the receiver finds the files that are stored here.
	Links map[core.MediaID]string
	// Reacted is the sender's whole set of reactions on ReactedTo, where the event is a reaction or takes one off.
	Reacted   []string
	ReactedTo core.EventID
	// StanzaIDs are put on the message by the archives that keep it.
	StanzaIDs []StanzaID
	// Delay, if not zero, is put on the message as when it was accepted; DelayFrom says by whom.
	Delay     time.Time
	DelayFrom string
	// Ask asks the receiver for a receipt and a marker, where the writer's own client did not decide on it.
	Ask bool
	// Elsewhere says that the room is one on another server, which gives the stanza-ids.
	Elsewhere bool
	// Occupant is the JID in the room under which a member is known; nil outside of rooms.
	Occupant func(core.Address) string
	// OccupantID is the sender's in the room, if there is one.
	//
	// spec: XEP-0421 §3
	OccupantID string
}

func (w Writing) group() bool { return w.Type == "groupchat" }

// Targets lists the events that Out must know to write e.
func Targets(e *core.Event) []core.EventID {
	var out []core.EventID
	if t := core.Target(e.Content); t != "" {
		out = append(out, t)
	}
	if b, ok := core.BodyOf(e.Content); ok {
		for _, id := range []core.EventID{b.ReplyTo, b.Thread} {
			if id != "" {
				out = append(out, id)
			}
		}
	}
	return out
}

// Out writes an event as a message stanza in the namespace jabber:client. It is nil where XMPP has no message for it.
func Out(e *core.Event, w Writing) (*element.Element, []core.Loss) {
	if e.Retracted != "" {
		return w.tombstone(e), nil
	}
	m, losses, ok := w.native(e), []core.Loss(nil), false
	if m == nil {
		m = element.New(NSClient, "message").SetAttr("id", MessageID(e)).SetAttr("type", w.Type)
		if losses, ok = w.content(m, e); !ok {
			return nil, losses
		}
	}
	return w.envelope(m, e), losses
}

// native is the message as its writer's client wrote it.
func (w Writing) native(e *core.Event) *element.Element {
	if e.Native == nil || e.Native.Network != core.XMPP || w.reactions(e) {
		return nil
	}
	m, err := element.Parse(e.Native.Data, element.DefaultLimits)
	if err != nil || !m.Is(NSClient, "message") {
		return nil
	}
	if w.Type == "" && m.Attr("type") != "" {
		w.Type = m.Attr("type")
	}
	if m.Attr("id") == "" {
		m.SetAttr("id", string(e.ID))
	}
	m.SetAttr("type", w.Type)
	if from, err := ParseJID(m.Attr("from")); err != nil || w.group() || from.Bare().String() != w.From {
		m.RemoveAttr("from")
	}
	// The receiver believes what these say of its own archives, which only we may.
	return m.RemoveChildren(func(c *element.Element) bool {
		return c.Name.Space == NSCarbons || c.Is(NSSID, "stanza-id") && slices.ContainsFunc(w.StanzaIDs, func(s StanzaID) bool { return s.By == c.Attr("by") })
	})
}

// envelope puts on the message what the server says about it.
func (w Writing) envelope(m *element.Element, e *core.Event) *element.Element {
	if m.Attr("type") == "" {
		m.SetAttr("type", "chat")
	}
	if w.From != "" && m.Attr("from") == "" {
		m.SetAttr("from", w.From)
	}
	if w.To != "" {
		m.SetAttr("to", w.To)
	}
	if w.OccupantID != "" {
		m.Append(element.New(NSOccupantID, "occupant-id").SetAttr("id", w.OccupantID))
	}
	for _, s := range w.StanzaIDs {
		m.Append(element.New(NSSID, "stanza-id").SetAttr("by", s.By).SetAttr("id", s.ID))
	}
	if !w.Delay.IsZero() {
		m.Append(Delay(w.Delay, w.DelayFrom))
	}
	return m
}

// Delay says when a stanza was first sent.
//
// spec: XEP-0203 §2
func Delay(t time.Time, from string) *element.Element {
	d := element.New(NSDelay, "delay").SetAttr("stamp", Stamp(t))
	if from != "" {
		d.SetAttr("from", from)
	}
	return d
}

// Stamp writes a time.
//
// spec: XEP-0082 §3.2
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Hint is a message processing hint: store, no-store, no-copy.
func Hint(name string) *element.Element { return element.New(NSHints, name) }

// MessageID is the `id` with which an event goes out.
func MessageID(e *core.Event) string {
	for _, kind := range [...]string{AliasID, AliasOrigin} {
		if a, ok := e.Alias(core.XMPP, kind); ok {
			return a.Key
		}
	}
	return string(e.ID)
}

// ReferenceID is how others refer to an event: by the stanza-id of the room, or between two people by the sender's own. A room
// elsewhere gives stanza-ids of its own; in one that gives none the sender's must do.
//
// spec: XEP-0461 §4.1
// spec: XEP-0444 §4.2
// spec: XEP-0424 §5.1
func ReferenceID(e *core.Event, group, elsewhere bool) string {
	if group && !elsewhere {
		return string(e.ID)
	}
	if id := e.AliasIn(core.XMPP, AliasStanza, RoomScope(e.Conv)); group && id != "" {
		return id
	}
	for _, kind := range [...]string{AliasOrigin, AliasID} {
		if a, ok := e.Alias(core.XMPP, kind); ok {
			return a.Key
		}
	}
	return string(e.ID)
}

// refer is ReferenceID of an event that may not be known.
func (w Writing) refer(id core.EventID) string {
	if e, ok := w.Messages[id]; ok {
		return ReferenceID(&e, w.group(), w.Elsewhere)
	}
	return string(id)
}

// content writes what a new message element must contain; ok is false where XMPP has no message for e.
func (w Writing) content(m *element.Element, e *core.Event) (losses []core.Loss, ok bool) {
	if w.reactions(e) {
		w.writeReactions(m)
		return nil, true
	}
	switch c := e.Content.(type) {
	case core.Message:
		return w.body(m, c.Body), true
	case core.Edit:
		losses = w.body(m, c.Body)
		id := string(c.Target)
		if t, known := w.Messages[c.Target]; known {
			id = MessageID(&t)
		}
		m.Append(element.New(NSCorrect, "replace").SetAttr("id", id)) // spec: XEP-0308 §3
		return losses, true
	case core.Retract:
		w.writeRetraction(m, e, c)
		return nil, true
	case core.Extension:
		return []core.Loss{{Feature: core.FeatureExtension, Detail: c.Type}}, false
	}
	return nil, false
}

// reactions says whether e puts a reaction on a message or takes one off.
func (w Writing) reactions(e *core.Event) bool {
	switch e.Content.(type) {
	case core.Reaction:
		return true
	case core.Retract:
		return w.ReactedTo != ""
	}
	return false
}

// spec: XEP-0444 §3.2
func (w Writing) writeReactions(m *element.Element) {
	r := element.New(NSReactions, "reactions").SetAttr("id", w.refer(w.ReactedTo))
	for _, k := range w.Reacted {
		r.Append(element.NewText(NSReactions, "reaction", k))
	}
	m.Append(r, Hint("store"))
}

// retractedText is what clients without retraction show.
const retractedText = "/me retracted a previous message, but it is unsupported by your client."

// spec: XEP-0424 §3
// spec: XEP-0425 §3.1
func (w Writing) writeRetraction(m *element.Element, e *core.Event, c core.Retract) {
	r := element.New(NSRetract, "retract").SetAttr("id", w.refer(c.Target))
	if target, known := w.Messages[c.Target]; known && target.Sender != e.Sender && w.group() {
		r.Append(w.moderated(e.Sender))
	}
	if c.Reason != "" {
		r.Append(element.NewText(NSRetract, "reason", c.Reason))
	}
	m.Append(r,
		element.New(NSFallback, "fallback").SetAttr("for", NSRetract),
		element.NewText(NSClient, "body", retractedText),
		Hint("store"))
}

func (w Writing) moderated(by core.Address) *element.Element {
	el := element.New(NSModerate, "moderated")
	if w.Occupant != nil {
		el.SetAttr("by", w.Occupant(by))
	}
	if w.OccupantID != "" {
		el.Append(element.New(NSOccupantID, "occupant-id").SetAttr("id", w.OccupantID))
	}
	return el
}

// tombstone stands in an archive for a message that was taken back.
//
// spec: XEP-0424 §4
func (w Writing) tombstone(e *core.Event) *element.Element {
	m := element.New(NSClient, "message").SetAttr("id", MessageID(e)).SetAttr("type", w.Type)
	r := m.Add(NSRetract, "retracted")
	by, known := w.Messages[e.Retracted]
	if !known {
		r.SetAttr("id", string(e.Retracted))
		return w.envelope(m, e)
	}
	r.SetAttr("id", MessageID(&by)).SetAttr("stamp", Stamp(by.Time))
	if by.Sender != e.Sender && w.group() {
		o := w
		o.OccupantID = ""
		r.Append(o.moderated(by.Sender))
	}
	return w.envelope(m, e)
}

// ReactionsOf is a person's whole set on a message, of the reactions on it in order.
func ReactionsOf(who core.Address, related []core.Event) []string {
	var keys []string
	for _, e := range related {
		r, ok := e.Content.(core.Reaction)
		if ok && e.Sender == who && e.Retracted == "" && !slices.Contains(keys, r.Key) {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// ChatState makes the message that says whether somebody is writing.
//
// spec: XEP-0085 §5.6
func ChatState(composing bool, from, to, typ string) *element.Element {
	state := "paused"
	if composing {
		state = "composing"
	}
	m := element.New(NSClient, "message").SetAttr("from", from).SetAttr("to", to).SetAttr("type", typ)
	return m.Append(element.New(NSChatStates, state), Hint("no-store"))
}

// ReceiptFor makes the message that says how far e has come. Displayed says so also by what older clients know.
//
// spec: XEP-0184 §7
// spec: XEP-0333 §4.2
func ReceiptFor(e *core.Event, stage core.Stage, group bool, from, to string) *element.Element {
	return receipt(e, stage, group, false, from, to)
}

// ReceiptElsewhere is [ReceiptFor] in a room on another server.
func ReceiptElsewhere(e *core.Event, stage core.Stage, from, to string) *element.Element {
	return receipt(e, stage, true, true, from, to)
}

func receipt(e *core.Event, stage core.Stage, group, elsewhere bool, from, to string) *element.Element {
	m := element.New(NSClient, "message").SetAttr("from", from).SetAttr("to", to).SetAttr("id", string(core.NewEventID()))
	m.SetAttr("type", "chat")
	if group {
		m.SetAttr("type", "groupchat")
	}
	if stage == core.StageDisplayed {
		id := MessageID(e)
		if group {
			id = ReferenceID(e, group, elsewhere)
		}
		m.Append(element.New(NSMarkers, "displayed").SetAttr("id", id))
	} else {
		m.Append(element.New(NSReceipts, "received").SetAttr("id", MessageID(e)))
	}
	return m.Append(Hint("store"))
}

// Invite makes the message with which a room passes on an invitation, in both forms.
//
// spec: XEP-0045 §7.8.2
// spec: XEP-0249 §2
func Invite(room JID, inviter, invitee, reason string) *element.Element {
	m := element.New(NSClient, "message").SetAttr("from", room.String()).SetAttr("to", invitee)
	inv := m.Add(NSMUCUser, "x").Add("", "invite").SetAttr("from", inviter)
	x := m.Add(NSConference, "x").SetAttr("jid", room.String())
	if reason = strings.TrimSpace(reason); reason != "" {
		inv.Append(element.NewText(NSMUCUser, "reason", reason))
		x.SetAttr("reason", reason)
	}
	return m
}

// InviteWords are the words of an invitation. XMPP has no place for the name of the room but its JID: where that says nothing, the words
// begin with the name.
func InviteWords(c core.Conversation, st *core.State, words string) string {
	if c.Address.Name != string(c.ID) || st.Name == "" {
		return words
	}
	if words = strings.TrimSpace(words); words == "" {
		return st.Name
	}
	return st.Name + ": " + words
}

// Forwarded wraps a stanza as one that was sent at another time.
//
// spec: XEP-0297 §3.1
func Forwarded(stanza *element.Element, at time.Time) *element.Element {
	f := element.New(NSForward, "forwarded")
	if !at.IsZero() {
		f.Append(Delay(at, ""))
	}
	return f.Append(stanza)
}
