package foreign

import (
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// occupant is somebody who is in the room now.
type occupant struct {
	nick        string
	address     core.Address
	jid         translate.JID // real, as far as it is shown to us
	id          string        // spec: XEP-0421 §3
	affiliation string
	role        string
	presence    *element.Element
}

// sight is a presence of an occupant, read.
type sight struct {
	occupant
	codes   map[int]bool
	newNick string
	actor   string // nick
	reason  string
	destroy *element.Element
}

// readSight reads the presence that a room sends of an occupant.
//
// spec: XEP-0045 §7.2.2
func readSight(p *element.Element, from translate.JID) sight {
	s := sight{occupant: occupant{nick: from.Resource, presence: p}, codes: map[int]bool{}}
	s.id = clip(p.Child(translate.NSOccupantID, "occupant-id").Attr("id"), 255)
	x := mucUser(p)
	item := x.Child("", "item")
	s.affiliation, s.role, s.newNick = item.Attr("affiliation"), item.Attr("role"), item.Attr("nick")
	if j, err := translate.ParseJID(item.Attr("jid")); err == nil {
		s.jid = j
	}
	s.actor, s.reason = item.Child("", "actor").Attr("nick"), clip(item.ChildText("", "reason"), 1000)
	for _, st := range x.ChildrenNamed("", "status") {
		if n, err := strconv.Atoi(st.Attr("code")); err == nil {
			s.codes[n] = true
		}
	}
	s.destroy = x.Child("", "destroy")
	return s
}

// mucUser is what the room says in a stanza: the last of its kind, because a room adds its own behind what an occupant may have sent.
func mucUser(st *element.Element) (x *element.Element) {
	for _, c := range st.ChildrenNamed(translate.NSMUCUser, "x") {
		x = c
	}
	return x
}

// maxPresence is how long a presence may be that is kept whole, in bytes.
const maxPresence = 4096

// kept is a presence as it is kept for clients that enter later: a long one without what is not the room's word.
func kept(p *element.Element) *element.Element {
	if len(element.Marshal(p)) <= maxPresence {
		return p
	}
	short := element.New(translate.NSClient, "presence").SetAttr("from", p.Attr("from"))
	if show := p.ChildText("", "show"); show != "" {
		short.Append(element.NewText(translate.NSClient, "show", clip(show, 16)))
	}
	if item := mucUser(p).Child("", "item"); item != nil {
		to := short.Add(translate.NSMUCUser, "x").Add("", "item")
		for _, name := range []string{"affiliation", "role", "jid"} {
			if v := item.Attr(name); v != "" {
				to.SetAttr(name, clip(v, 3071))
			}
		}
	}
	return short
}

// The codes that decide something.
//
// spec: XEP-0045 §15.6
const (
	codeSelf     = 110
	codePlain    = 100
	codeCreated  = 201
	codeBanned   = 301
	codeRenamed  = 303
	codeKicked   = 307
	codeUnlisted = 321 // not a member, and only members are let in any more
	codeClosed   = 322 // the same for all who are no members
	codeShutdown = 332
	codeBroken   = 333 // a technical problem; the kick means no harm
)

// presence takes the presence of an occupant.
func (o *occupancy) presence(p *element.Element, from translate.JID) {
	if o.phase == outside {
		return
	}
	switch p.Attr("type") {
	case "error":
		o.refused(p)
		return
	case "", "unavailable":
	default:
		return
	}
	if from.Resource == "" {
		return
	}
	s := readSight(p, from)
	if !o.about.ids {
		s.id = "" // an occupant may have made it up; spec: XEP-0421 §5
	}
	self := o.isSelf(&s)
	if p.Attr("type") == "unavailable" {
		o.departed(s, self)
		return
	}
	if self && s.codes[codePlain] {
		o.about.plain = true
	}
	s.occupant.presence = kept(p)
	known := o.occupants[s.nick]
	if known == nil && !self && len(o.occupants) >= o.s.MaxOccupants {
		o.s.Count.Count("foreign_dropped", "flood")
		return
	}
	here := s.occupant
	if self {
		here.address, o.ownID = o.account, s.id
	} else if known != nil {
		here.address = known.address
	}
	o.put(&here)
	switch {
	case self && o.phase == entering:
		o.entered(s.nick, s.codes[codeCreated])
		return
	case o.phase == entering:
		return // everybody is shown at once, when all are known
	}
	if !self && known == nil {
		o.name(&here)
	}
	o.show(p)
	if self && known == nil {
		o.self, o.nick = s.nick, s.nick
	}
	o.arrived(&here)
	o.levels()
}

// departed takes that an occupant is gone, or is called otherwise from now on.
func (o *occupancy) departed(s sight, self bool) {
	known := o.occupants[s.nick]
	o.remove(s.nick)
	if o.phase == entering {
		return
	}
	o.show(s.presence)
	switch {
	case s.codes[codeRenamed] && s.newNick != "":
		if known != nil {
			renamed := *known
			renamed.nick = s.newNick
			renamed.presence = known.presence.Copy().SetAttr("from", o.room.With(s.newNick).String())
			o.put(&renamed)
			if self {
				o.self, o.nick = s.newNick, s.newNick
			}
			o.arrived(&renamed)
			if self {
				o.renamed(nil)
			}
		}
	case self && s.destroy != nil:
		o.destroyed(s.destroy)
	case self:
		o.dismissed(s)
	case known != nil && !o.present(known.address):
		if known.address == o.account {
			return
		}
		if standing, sent := s.sentAway(); sent {
			o.apply(hub.Draft{Conv: o.conv, Sender: o.by(s.actor), Content: core.Membership{
				Target: known.address, Standing: standing, Reason: s.reason, Name: s.nick, Nick: s.nick,
			}})
			return
		}
		o.away[known.address] = time.Now()
	}
}

// sentAway says whether somebody was sent away, and to what end.
func (s sight) sentAway() (core.Standing, bool) {
	switch {
	case s.codes[codeBanned]:
		return core.Banned, true
	case s.codes[codeBroken]:
		return "", false
	case s.codes[codeKicked], s.codes[codeUnlisted], s.codes[codeClosed]:
		return core.Left, true
	}
	return "", false
}

// dismissed takes that we ourselves are in the room no longer.
func (o *occupancy) dismissed(s sight) {
	standing, sent := s.sentAway()
	if s.codes[codeShutdown] || !sent {
		o.lost()
		return
	}
	o.expelled(standing, o.by(s.actor), s.reason)
}

// by is who did something, by nick; the room itself where it does not say.
func (o *occupancy) by(nick string) core.Address {
	if a := o.occupants[nick]; a != nil {
		return a.address
	}
	return o.addr
}

// present says whether a person is in the room under any nick.
func (o *occupancy) present(a core.Address) bool {
	return o.people[a] > 0
}

// put keeps who is under a nick, and remove forgets it: all that changes who is there goes through them.
func (o *occupancy) put(c *occupant) {
	o.remove(c.nick)
	o.occupants[c.nick] = c
	if !c.address.IsZero() {
		o.people[c.address]++
		o.remember(c)
	}
}

// remember notes the real address that the room has shown us of somebody: by it alone can a ban be taken back.
func (o *occupancy) remember(c *occupant) {
	if !c.jid.IsZero() && (len(o.jids) < o.s.MaxOccupants || !o.jids[c.address].IsZero()) {
		o.jids[c.address] = c.jid.Bare()
	}
}

func (o *occupancy) remove(nick string) {
	c := o.occupants[nick]
	if c == nil {
		return
	}
	delete(o.occupants, nick)
	if o.people[c.address]--; o.people[c.address] <= 0 {
		delete(o.people, c.address)
	}
}

// isSelf says whether a presence is our own. While we are in, it is by our nick: code 110 on another's is nothing a room sends. When
// we enter, the room may have given us another nick, but not one with somebody else's address.
//
// spec: XEP-0045 §7.2.2
func (o *occupancy) isSelf(s *sight) bool {
	switch {
	case o.phase != entering:
		return s.nick == o.self || s.codes[codeSelf] && o.occupants[o.self] == nil
	case s.nick == o.nick:
		return true
	}
	return s.codes[codeSelf] && (s.jid.IsZero() || s.jid.Bare() == o.me.Bare())
}

// destroyed takes that the room is no more. Where it says that it goes on elsewhere, we go there too.
//
// spec: XEP-0045 §10.9
func (o *occupancy) destroyed(d *element.Element) {
	reason := clip(d.ChildText("", "reason"), 1000)
	move := core.Move{Reason: reason}
	if alt, err := translate.ParseJID(d.Attr("jid")); err == nil && alt.Local != "" {
		if move.Address, err = o.s.Names.RoomAddress(alt.Bare()); err != nil {
			move.Address = core.Address{}
		}
	}
	o.apply(hub.Draft{Conv: o.conv, Sender: o.addr, Content: core.Change{Aspect: core.AspectMovedTo, MovedTo: &move}})
	if !move.Address.IsZero() {
		o.s.follow(o.account, move.Address, entry{nick: o.nick, password: d.ChildText("", "password")})
	}
	o.expelled(core.Left, o.addr, "the room was closed: "+reason)
}

// name finds what an occupant is called in the core, if she has no address yet.
func (o *occupancy) name(c *occupant) {
	if !c.address.IsZero() {
		return
	}
	o.remove(c.nick)
	defer o.put(c)
	if a, ok := o.ids[c.id]; ok && c.id != "" {
		c.address = a
		return
	}
	c.address = o.addressOf(c.nick, c.jid)
	for n := 2; o.taken(c); n++ {
		c.address = core.OccupantAddress(o.addr, c.nick+" ("+strconv.Itoa(n)+")")
	}
	if c.id != "" {
		o.ids[c.id] = c.address
	}
}

// taken says whether somebody else who is here is called as c, who is not among them, would be.
func (o *occupancy) taken(c *occupant) bool {
	_, _, nicked := c.address.Occupant()
	return nicked && o.present(c.address)
}

// addressOf is what somebody is called in the core of whom no more is known. An account of this server is known by her nick alone:
// this conversation is not hers.
func (o *occupancy) addressOf(nick string, jid translate.JID) core.Address {
	if o.about.plain && jid.Local != "" {
		if a, err := o.s.Names.Address(jid.Bare()); err == nil && !a.IsLocal() {
			return a
		}
	}
	return core.OccupantAddress(o.addr, nick)
}

// membership is what makes an occupant a member.
func (o *occupancy) membership(c *occupant) hub.Draft {
	d := hub.Draft{Conv: o.conv, Sender: c.address, Content: core.Membership{
		Target: c.address, Standing: core.Joined, Name: c.nick, Nick: c.nick,
	}}
	if c.id != "" && c.address != o.account {
		id, a := c.id, c.address
		d.With = func(tx hub.Tx, e *core.Event) error { return keepOccupant(tx, e.Conv, id, a) }
	}
	return d
}

// arrived makes an occupant a member, or gives her another nick.
func (o *occupancy) arrived(c *occupant) {
	delete(o.away, c.address)
	st := o.state()
	if st == nil {
		return
	}
	if m := st.Members[c.address]; m.Standing != core.Joined || m.Nick != c.nick && !o.calledBy(c.address, m.Nick) {
		o.apply(o.membership(c))
	}
}

// calledBy says whether a person is in the room under a nick.
func (o *occupancy) calledBy(a core.Address, nick string) bool {
	c := o.occupants[nick]
	return c != nil && c.address == a
}

// sweep ends the membership of those who have been away for long, and an occupancy that nobody needs.
func (o *occupancy) sweep() {
	if o.idle() {
		if o.idled++; o.idled > 1 {
			o.over = true
		}
		return
	}
	o.idled = 0
	if o.phase != inside {
		return
	}
	for a, since := range o.away {
		if time.Since(since) < o.s.Grace {
			continue
		}
		delete(o.away, a)
		if st := o.state(); st != nil && st.Standing(a) == core.Joined {
			m := st.Members[a]
			o.apply(hub.Draft{Conv: o.conv, Sender: a, Content: core.Membership{
				Target: a, Standing: core.Left, Name: m.Name, Nick: m.Nick,
			}})
		}
	}
}

// level is the level that shows what an occupant may do.
//
// spec: XEP-0045 §5
func (c *occupant) level() int64 {
	switch {
	case c.affiliation == "owner":
		return 100
	case c.affiliation == "admin", c.role == "moderator":
		return 50
	case c.role == "visitor":
		return -1
	}
	return 0
}

// wantedLevels are the levels that show the room's rules and occupants.
func (o *occupancy) wantedLevels() core.Levels {
	l := core.Levels{
		Ban: 50, Kick: 50, Redact: 50, State: 100, Notify: 50, Users: map[core.Address]int64{},
		Actions: map[string]int64{string(core.AspectTopic): 50, string(core.AspectName): 100, string(core.AspectLevels): 50},
	}
	if o.about.members {
		l.Invite = 50
	}
	if o.about.subject {
		l.Actions[string(core.AspectTopic)] = 0
	}
	for _, c := range o.occupants {
		n := c.level()
		if old, has := l.Users[c.address]; n != 0 && (!has || n > old) {
			l.Users[c.address] = n
		}
	}
	return l
}

// levels shows changed affiliations and roles.
func (o *occupancy) levels() {
	st := o.state()
	if st == nil {
		return
	}
	want := o.wantedLevels()
	for a, n := range st.Levels.Users { // those who are away keep what they have
		if _, here := want.Users[a]; !here && !o.present(a) {
			want.Users[a] = n
		}
	}
	if !sameLevels(want, st.Levels) {
		o.apply(hub.Draft{Conv: o.conv, Sender: o.addr, Content: core.Change{Aspect: core.AspectLevels, Levels: &want}})
	}
}
