package foreign

import (
	"bytes"
	"context"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/talk"
	"parley/xmpp/translate"
)

// receive takes a stanza of the room's.
func (o *occupancy) receive(st *element.Element, from translate.JID) {
	if o.phase == inside {
		o.heard()
	}
	switch st.Name.Local {
	case "presence":
		o.presence(st, from)
	case "iq":
		if t := st.Attr("type"); t == "result" || t == "error" {
			o.replied(st)
		} else if t == "get" || t == "set" { // no occupant is asked what only a client could say
			o.s.Route(translate.Bounce(st, translate.Fail(translate.ServiceUnavailable, "")))
		}
	case "message":
		o.message(st, from)
	}
}

// message takes a message of the room's or of an occupant.
func (o *occupancy) message(st *element.Element, from translate.JID) {
	switch typ := st.Attr("type"); {
	case typ == "error":
		o.bounced(st)
	case st.Child(translate.NSMAM, "result") != nil:
		if from.Resource == "" {
			o.archived(st.Child(translate.NSMAM, "result"))
		}
	case o.phase == outside || o.phase == entering:
		o.s.Count.Count("foreign_dropped", "unknown")
	case typ == "groupchat":
		o.groupchat(st, from)
	case from.Resource == "":
		o.show(st) // a form, a changed affiliation: what the room says to its occupant
	default:
		o.private(st, from)
	}
}

// groupchat takes what is said to the whole room.
func (o *occupancy) groupchat(st *element.Element, from translate.JID) {
	if sub := st.Child("", "subject"); sub != nil && st.Child("", "body") == nil && st.Child("", "thread") == nil {
		o.topic(st, from.Resource)
		o.show(st)
		if from.Resource == o.self {
			o.agreed(st.Attr("id"), sub.Text())
		}
		return
	}
	for _, code := range st.Child(translate.NSMUCUser, "x").ChildrenNamed("", "status") {
		if code.Attr("code") == "104" {
			o.reconfigured()
		}
	}
	if o.phase == filling {
		o.hold(st)
		return
	}
	o.said(st, false)
}

// said takes what somebody has said in the room, now or as its archive has it.
func (o *occupancy) said(st *element.Element, archived bool) {
	from, err := translate.ParseJID(st.Attr("from"))
	if err != nil || from.Bare() != o.room {
		return
	}
	st = modernised(st)
	sid := o.stanzaID(st)
	if archived && o.ownNick(from.Resource) && o.reflected(st, sid, archived) {
		return
	}
	sender := o.senderOf(from.Resource, st, archived)
	if sender == o.account && o.reflected(st, sid, archived) {
		return
	}
	if len(translate.References(st).Messages) > 0 {
		o.flush() // it may be about something that waits there
	}
	ctx, cancel := o.timeout()
	defer cancel()
	reading := translate.Reading{Sender: sender, Names: o.s.Names, Occupant: func(nick string) (core.Address, bool) {
		c := o.occupants[nick]
		if c == nil {
			return core.Address{}, false
		}
		return c.address, true
	}}
	said, _, err := talk.Interpret(ctx, o.s.Hub, st, lookup.Place{Conv: o.conv}, o.s.Base, reading)
	if err != nil {
		o.s.Log.Error("reading what was said in a room elsewhere", "room", o.room.String(), "err", err)
		return
	}
	if sid == "" && said.Content != nil && st.Child(translate.NSDelay, "delay") != nil && o.heardBefore(st, sender, said.Content) {
		return
	}
	d := hub.Draft{
		Conv: o.conv, Sender: sender, Origin: said.Origin, Content: said.Content, Native: said.Native, Aliases: o.named(said.Aliases, sid),
		Below: o.digging,
	}
	switch {
	case said.Reactions != nil:
		o.flush()
		o.react(ctx, said.Reactions, d)
	case said.Content != nil:
		if o.mayRetract(ctx, said.Content, from.Resource, sender) {
			o.meet(sender, from.Resource)
			o.batch = append(o.batch, d)
		}
	case !archived:
		o.show(st)
	case o.about.archive:
		o.orphan(st)
	}
	if !archived && sender != o.account {
		o.signs(ctx, said, sender)
	}
}

// heardBefore says whether a room without archive repeats what it has said already: it names nothing, but its occupants mostly do.
//
// spec: XEP-0045 §7.2.14
func (o *occupancy) heardBefore(st *element.Element, sender core.Address, c core.Content) (known bool) {
	o.flush()
	same := func(e *core.Event) bool {
		if e.Sender != sender {
			return false
		}
		_, a, err1 := core.EncodeContent(e.Content)
		_, b, err2 := core.EncodeContent(c)
		return err1 == nil && err2 == nil && bytes.Equal(a, b)
	}
	if id := st.Attr("id"); id != "" {
		ctx, cancel := o.timeout()
		defer cancel()
		err := o.s.Hub.Read(ctx, func(v hub.View) error {
			found, err := lookup.Find(v, sender, lookup.Place{Conv: o.conv}, translate.Ref{ID: id, Author: translate.OwnMessage, Stanza: true})
			if err != nil || found == "" {
				return err
			}
			e, err := v.Event(found)
			known = err == nil && same(&e)
			return err
		})
		if err != nil || known {
			return known
		}
	}
	origin := delayOf(st)
	for _, e := range o.page(hub.Query{Conv: o.conv, Kinds: []core.Kind{core.KindMessage, core.KindEdit}, Latest: true, Limit: pageSize}) {
		if same(&e) && e.Origin.Sub(origin).Abs() < historySkew {
			return true
		}
	}
	return false
}

// historySkew is by how much the clock of a room may differ from ours when it says again what has no name.
const historySkew = 10 * time.Second

func delayOf(st *element.Element) time.Time {
	at, err := time.Parse(time.RFC3339Nano, st.Child(translate.NSDelay, "delay").Attr("stamp"))
	if err != nil {
		return time.Time{}
	}
	return at
}

// react takes somebody's set of reactions on a message.
func (o *occupancy) react(ctx context.Context, r *translate.Reactions, d hub.Draft) {
	d.Accepted = true
	if err := o.s.Hub.React(ctx, r.Target, r.Keys, d); err != nil && hub.CodeOf(err) == "" {
		o.s.Log.Error("reacting in a room elsewhere", "room", o.room.String(), "err", err)
	}
}

// signs passes on that somebody writes or has read something.
func (o *occupancy) signs(ctx context.Context, said translate.Said, who core.Address) {
	for _, r := range said.Receipts {
		if r.Stage == core.StageDisplayed {
			err := o.s.Hub.MarkDisplayed(ctx, hub.ReadingRequest{Conv: o.conv, Who: who, Event: r.Target, Thread: string(r.Thread)})
			if err != nil && hub.CodeOf(err) == "" {
				o.s.Log.Warn("a marker in a room elsewhere", "err", err)
			}
		}
	}
	if said.Typing == nil && said.Content == nil {
		return
	}
	var until time.Time
	if said.Typing != nil && *said.Typing {
		until = time.Now().Add(typingFor)
	}
	if err := o.s.Hub.Typing(ctx, o.conv, who, until, ""); err != nil && hub.CodeOf(err) == "" {
		o.s.Log.Warn("a chat state in a room elsewhere", "err", err)
	}
}

// typingFor is how long a chat state "composing" holds.
const typingFor = 30 * time.Second

// mayRetract says whether a retraction is of one's own message, or the room's word. Of what was taken back already there is nothing to
// take back.
//
// spec: XEP-0424 §5
// spec: XEP-0425 §4
func (o *occupancy) mayRetract(ctx context.Context, c core.Content, nick string, sender core.Address) (ok bool) {
	r, is := c.(core.Retract)
	if !is {
		return true
	}
	err := o.s.Hub.Read(ctx, func(v hub.View) error {
		target, err := v.Event(r.Target)
		ok = err == nil && target.Retracted == "" && (nick == "" || target.Sender == sender)
		return err
	})
	return err == nil && ok
}

// senderOf is who said something under a nick; without one it is the room, or the moderator for whom it speaks.
//
// What the room says of the sender's real address is believed in its archive only, which takes out what senders claim. There somebody
// else may have had our nick: what we did not send is ours only where the room says so.
//
// spec: XEP-0313 §8.4
// spec: XEP-0421 §3
func (o *occupancy) senderOf(nick string, st *element.Element, archived bool) core.Address {
	if nick == "" {
		by, err := translate.ParseJID(st.Child(translate.NSRetract, "retract").Child(translate.NSModerate, "moderated").Attr("by"))
		if c := o.occupants[by.Resource]; err == nil && by.Bare() == o.room && c != nil {
			return c.address
		}
		return o.addr
	}
	if id := st.Child(translate.NSOccupantID, "occupant-id").Attr("id"); id != "" && o.about.ids {
		if id == o.ownID {
			return o.account
		}
		if a, ok := o.ids[id]; ok {
			return a
		}
	} else if c := o.occupants[nick]; c != nil && (!archived || c.address != o.account) {
		return c.address
	} else if !archived && nick == o.self {
		return o.account
	}
	if j, err := translate.ParseJID(mucUser(st).Child("", "item").Attr("jid")); err == nil && archived {
		if j.Bare() == o.me.Bare() {
			return o.account
		}
		return o.addressOf(nick, j)
	}
	return core.OccupantAddress(o.addr, nick)
}

// ownNick says whether a nick is ours, as far as we know.
func (o *occupancy) ownNick(nick string) bool {
	return nick != "" && (nick == o.self || nick == o.nick)
}

// meet makes one who is in the room no more, but said something in it, known by name.
func (o *occupancy) meet(a core.Address, nick string) {
	if nick == "" || o.present(a) {
		return
	}
	st := o.state()
	if st == nil {
		return
	}
	if _, known := st.Members[a]; known {
		return
	}
	o.apply(hub.Draft{Conv: o.conv, Sender: a, Below: true, Content: core.Membership{
		Target: a, Standing: core.Left, Name: nick, Nick: nick,
	}})
}

// stanzaID is the room's name of a message.
//
// spec: XEP-0359 §3
func (o *occupancy) stanzaID(st *element.Element) string {
	if !o.about.names {
		return "" // whoever said it may have made it up
	}
	for _, sid := range st.ChildrenNamed(translate.NSSID, "stanza-id") {
		if by, err := translate.ParseJID(sid.Attr("by")); err == nil && by == o.room {
			return clip(sid.Attr("id"), 512)
		}
	}
	return ""
}

// named are the aliases of a message: the sender's, and the room's.
func (o *occupancy) named(aliases []core.Alias, sid string) []core.Alias {
	var out []core.Alias
	if sid != "" {
		out = append(out, core.Alias{Network: core.XMPP, Kind: translate.AliasStanza, Scope: translate.RoomScope(o.conv), Key: sid})
	}
	for _, a := range aliases {
		if a.Kind != translate.AliasStanza {
			out = append(out, a)
		}
	}
	return out
}

// reflected takes that the room has taken a message of ours; false for one that we know nothing of.
func (o *occupancy) reflected(st *element.Element, sid string, archived bool) bool {
	key := st.Attr("id")
	f := o.flights[key]
	if f == nil && !archived {
		f = o.unstable(st)
	}
	ctx, cancel := o.timeout()
	defer cancel()
	var event core.EventID
	again := false
	err := o.s.Hub.Read(ctx, func(v hub.View) error {
		id, err := o.ownEvent(v, st, f)
		if err != nil || id == "" {
			return err
		}
		e, err := v.Event(id)
		event, again = id, wasTaken(&e)
		return err
	})
	if err != nil || event == "" {
		return false
	}
	if !again {
		names := o.named(nil, sid)
		if sid == "" {
			names = []core.Alias{{Network: core.XMPP, Kind: aliasTaken, Scope: translate.RoomScope(o.conv), Key: string(event)}}
		}
		if err := o.s.Hub.Taken(ctx, event, o.addr, names...); err != nil {
			o.s.Log.Error("noting that a room took a message", "room", o.room.String(), "err", err)
		}
	}
	if f != nil {
		delete(o.flights, f.id)
		f.then(nil)
	}
	return true
}

// ownEvent finds our message by what we called it.
func (o *occupancy) ownEvent(v hub.View, st *element.Element, f *flight) (core.EventID, error) {
	if f != nil {
		return f.event, nil
	}
	for _, id := range []string{st.Child(translate.NSSID, "origin-id").Attr("id"), st.Attr("id")} {
		found, err := lookup.Find(v, o.account, lookup.Place{Conv: o.conv}, translate.Ref{ID: id, Author: translate.OwnMessage, Stanza: true})
		if err != nil || found != "" {
			return found, err
		}
	}
	return "", nil
}

// unstable finds the message on its way that a room has reflected under another id.
//
// spec: XEP-0045 §7.4
func (o *occupancy) unstable(st *element.Element) *flight {
	body := st.ChildText("", "body")
	var oldest *flight
	for _, f := range o.flights {
		if f.body == body && body != "" && (oldest == nil || f.sent.Before(oldest.sent)) {
			oldest = f
		}
	}
	return oldest
}

// bounced takes an error for a message of ours: what the room says no to.
func (o *occupancy) bounced(st *element.Element) {
	id, e := st.Attr("id"), translate.ReadError(st)
	if done := o.subjects[id]; done != nil {
		delete(o.subjects, id)
		done(e)
		return
	}
	if f := o.flights[id]; f != nil {
		if e.Name == "not-acceptable" && o.phase == inside && o.unheard != f.event { // we are in the room no more, and did not know
			o.unheard = f.event
			o.lost()
			return
		}
		delete(o.flights, id)
		f.then(e)
		return
	}
	ctx, cancel := o.timeout()
	defer cancel()
	var event core.EventID
	err := o.s.Hub.Read(ctx, func(v hub.View) (err error) {
		event, err = o.ownEvent(v, st, nil)
		return err
	})
	if err == nil && event != "" {
		err = o.s.Hub.Report(ctx, hub.Report{Event: event, To: o.addr, Stage: core.StageFailed, Reason: e.Reason()})
	} else if err == nil {
		o.show(st)
	}
	if err != nil {
		o.s.Log.Error("noting a room's error", "room", o.room.String(), "err", err)
	}
}

// private takes what an occupant says to us alone. Whatever real address the room may show, it is the room's word: the talk is with
// the occupant.
//
// spec: XEP-0045 §7.5
func (o *occupancy) private(st *element.Element, from translate.JID) {
	ctx, cancel := o.timeout()
	defer cancel()
	who := core.OccupantAddress(o.addr, from.Resource)
	if inv, ok := directInvitation(st); ok && st.ChildText("", "body") == "" {
		o.askedIn(ctx, who, inv)
		return
	}
	blocked, err := o.s.Hub.Blocks(ctx, o.account, who)
	if err == nil && !blocked {
		blocked, err = o.s.Hub.Blocks(ctx, o.account, o.addr)
	}
	if err != nil || blocked {
		return
	}
	speaker := talk.Speaker{Hub: o.s.Hub, Names: o.s.Names, Base: o.s.Base, Who: who, Peer: o.account}
	said, _, err := speaker.Interpret(ctx, st)
	if err == nil {
		var kept bool
		if kept, err = speaker.Say(ctx, said); err == nil {
			err = speaker.Tell(ctx, said)
		}
		if err == nil && !kept && talk.HasOther(st) {
			o.show(st)
		}
	}
	switch {
	case err == nil:
	case hub.CodeOf(err) != "":
		o.s.Route(translate.Bounce(st, err))
	default:
		o.s.Log.Error("private talk in a room elsewhere", "room", o.room.String(), "err", err)
	}
}

// nsModerate0 is the namespace of XEP-0425 before version 0.3.
const nsModerate0 = "urn:xmpp:message-moderate:0"

// modernised writes a room's retraction in the form of before as it is written now.
//
// spec: XEP-0425 §4
func modernised(st *element.Element) *element.Element {
	to := st.Child(translate.NSFasten, "apply-to")
	m := to.Child(nsModerate0, "moderated")
	if m == nil || strings.Contains(st.Attr("from"), "/") {
		return st
	}
	st = st.Copy()
	r := st.Add(translate.NSRetract, "retract").SetAttr("id", to.Attr("id"))
	r.Add(translate.NSModerate, "moderated").SetAttr("by", m.Attr("by"))
	if reason := m.ChildText("", "reason"); reason != "" {
		r.Append(element.NewText(translate.NSRetract, "reason", reason))
	}
	return st
}
