package foreign

import (
	"context"
	"maps"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// Ask implements [hub.Remote].
func (s *Service) Ask(ctx context.Context, c core.Conversation, st *core.State, d hub.Draft) error {
	if m, ok := d.Content.(core.Membership); ok && m.Target == d.Sender {
		return s.askOwn(ctx, c, d, m)
	}
	o := s.in(c.ID)
	if o == nil || d.Sender != o.account {
		return errGone
	}
	ctx, cancel := context.WithTimeout(ctx, 2*s.Answer)
	defer cancel()
	return refusal(o.do(ctx, func(then func(error)) {
		if o.phase != inside {
			then(errLost)
			return
		}
		o.command(st, d, then)
	}))
}

// askOwn is what one does about one's own membership. Leaving needs nobody's leave, and works while the room is away.
func (s *Service) askOwn(ctx context.Context, c core.Conversation, d hub.Draft, m core.Membership) error {
	switch m.Standing {
	case core.Joined:
		if o := s.in(c.ID); o != nil {
			if taken, err := s.askName(ctx, o, d, m); taken {
				return err
			}
		}
		_, err := s.Enter(ctx, c.Address, hub.JoinRequest{Who: d.Sender, Nick: m.Nick, Name: m.Name, Reason: m.Reason})
		return err
	case core.Left:
		if o := s.in(c.ID); o != nil {
			return s.Leave(ctx, d.Sender, o.room, m.Reason)
		}
		s.decline(ctx, c, d)
		_, err := s.Hub.Apply(ctx, hub.Draft{Conv: c.ID, Sender: d.Sender, Content: m})
		return err
	}
	return hub.Refuse(hub.Unable, "rooms of XMPP know no such thing")
}

// askName is one who is in the room and wants to be called or shown otherwise there.
//
// spec: XEP-0045 §7.6
func (s *Service) askName(ctx context.Context, o *occupancy, d hub.Draft, m core.Membership) (taken bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.Answer)
	defer cancel()
	err = o.do(ctx, func(then func(error)) {
		st := o.state()
		if taken = st != nil && st.Standing(o.account) == core.Joined; !taken {
			then(nil)
			return
		}
		was, nick := st.Members[o.account], m.Nick
		if nick == "" && m.Name != was.Name {
			nick = m.Name
		}
		if nick == "" || nick == was.Nick || nick == o.self { // another picture, or what she is called everywhere
			m.Nick = was.Nick
			o.applied(m, then)
			return
		}
		o.rename(nick, then)
	})
	return taken, refusal(err)
}

// decline tells the inviter no, through the room.
//
// spec: XEP-0045 §7.8.2
func (s *Service) decline(ctx context.Context, c core.Conversation, d hub.Draft) {
	var by core.Address
	err := s.Hub.Read(ctx, func(v hub.View) error {
		st, err := v.State(c.ID)
		if err == nil && st.Standing(d.Sender) == core.Invited {
			by = st.Members[d.Sender].By
		}
		return err
	})
	if err != nil || by.IsZero() || by == c.Address {
		return
	}
	m := element.New(translate.NSClient, "message").SetAttr("from", s.Names.JID(d.Sender).String())
	m.SetAttr("to", s.Names.RoomJID(c.Address).String())
	inviter := s.Names.JID(by)
	if room, nick, ok := by.Occupant(); ok {
		inviter = s.Names.RoomJID(room).With(nick)
	}
	no := m.Add(translate.NSMUCUser, "x").Add("", "decline").SetAttr("to", inviter.String())
	if reason := d.Content.(core.Membership).Reason; reason != "" { //nolint:forcetypeassert // askOwn was called for it
		no.Append(element.NewText(translate.NSMUCUser, "reason", reason))
	}
	s.Route(m)
}

// command has the room do something to others or to itself.
func (o *occupancy) command(st *core.State, d hub.Draft, then func(error)) {
	switch c := d.Content.(type) {
	case core.Membership:
		o.askMembership(st, c, then)
	case core.Retract:
		o.moderate(c, then)
	case core.Change:
		switch c.Aspect {
		case core.AspectTopic:
			o.askTopic(c.Text, then)
		case core.AspectLevels:
			o.askLevels(st, c, then)
		case core.AspectName:
			o.configure(c, then, "muc#roomconfig_roomname", c.Text)
		case core.AspectJoinRule:
			o.configure(c, then, "muc#roomconfig_membersonly", map[bool]string{true: "0", false: "1"}[c.JoinRule == core.JoinPublic])
		default:
			then(hub.Refuse(hub.Unable, "rooms of XMPP have no such setting"))
		}
	default:
		then(hub.Refuse(hub.Unable, "rooms of XMPP know no such thing"))
	}
}

// applied applies what the room has just said yes to, and says so.
func (o *occupancy) applied(c core.Content, then func(error)) {
	o.apply(hub.Draft{Conv: o.conv, Sender: o.account, Content: c})
	then(nil)
}

// askMembership invites, kicks, bans and takes a ban back.
//
// spec: XEP-0045 §7.8.2
// spec: XEP-0045 §8.2
// spec: XEP-0045 §9.1
func (o *occupancy) askMembership(st *core.State, m core.Membership, then func(error)) {
	was := st.Members[m.Target]
	m.Name, m.Nick = was.Name, was.Nick
	switch {
	case m.Standing == core.Invited:
		o.invite(m, then)
	case m.Standing == core.Banned:
		o.affiliate(m.Target, "outcast", m.Reason, func(err error) { o.afterwards(err, m, then) })
	case m.Standing == core.Left && was.Standing == core.Banned:
		o.affiliate(m.Target, "none", m.Reason, func(err error) { o.afterwards(err, m, then) })
	case m.Standing == core.Left && was.Standing == core.Invited:
		o.applied(m, then) // the room keeps no list of those who were asked
	case m.Standing == core.Left:
		item := element.New(nsAdmin, "item").SetAttr("nick", was.Nick).SetAttr("role", "none")
		o.administer(item, m.Reason, func(err error) { o.afterwards(err, m, then) })
	default:
		then(hub.Refuse(hub.Unable, "rooms of XMPP know no such thing"))
	}
}

// afterwards applies a membership to which the room said yes, unless it has shown it already.
func (o *occupancy) afterwards(err error, m core.Membership, then func(error)) {
	if err != nil {
		then(err)
		return
	}
	if st := o.state(); st != nil && st.Standing(m.Target) == m.Standing {
		then(nil)
		return
	}
	o.applied(m, then)
}

// invite asks somebody in, through the room.
func (o *occupancy) invite(m core.Membership, then func(error)) {
	msg := element.New(translate.NSClient, "message").SetAttr("id", core.NewToken())
	inv := msg.Add(translate.NSMUCUser, "x").Add("", "invite").SetAttr("to", o.s.Names.JID(m.Target).String())
	if m.Reason != "" {
		inv.Append(element.NewText(translate.NSMUCUser, "reason", m.Reason))
	}
	id := msg.Attr("id")
	send := func() {
		o.subjects[id] = then
		o.send(msg, "")
		o.describe(func(error) { // the room answers in order: a refusal would have come before
			if o.subjects[id] != nil {
				delete(o.subjects, id)
				o.applied(m, then)
			}
		})
	}
	if !o.about.members {
		send()
		return
	}
	// Rooms that only members enter make an invited one a member themselves, if the inviter may; where they do not, we ask for it.
	o.affiliate(m.Target, "member", m.Reason, func(error) { send() })
}

// administer asks for one change of a role or an affiliation.
func (o *occupancy) administer(item *element.Element, reason string, then func(error)) {
	if reason != "" {
		item.Append(element.NewText(nsAdmin, "reason", reason))
	}
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "set")
	iq.Add(nsAdmin, "query").Append(item)
	o.request(iq, "", func(_ *element.Element, err error) { then(err) })
}

// affiliate gives somebody an affiliation, by the real address; where the room does not show us that, by the nick, which rooms take too.
func (o *occupancy) affiliate(who core.Address, to, reason string, then func(error)) {
	item := element.New(nsAdmin, "item").SetAttr("affiliation", to)
	if _, _, nicked := who.Occupant(); !nicked {
		o.administer(item.SetAttr("jid", o.s.Names.JID(who).Bare().String()), reason, then)
		return
	}
	for _, c := range o.occupants {
		switch {
		case c.address != who:
			continue
		case c.jid.IsZero():
			item.SetAttr("nick", c.nick)
		default:
			item.SetAttr("jid", c.jid.Bare().String())
		}
		o.administer(item, reason, then)
		return
	}
	if jid, seen := o.jids[who]; seen { // one who was banned, for one
		o.administer(item.SetAttr("jid", jid.String()), reason, then)
		return
	}
	then(hub.Refuse(hub.Unable, "%s is not there, and the room has not shown you the address by which it knows who is not", who.Bare()))
}

// moderate retracts what another has said.
//
// spec: XEP-0425 §3.1
func (o *occupancy) moderate(r core.Retract, then func(error)) {
	id := o.stanzaIDOf(r.Target)
	if o.about.moderation == "" || id == "" {
		then(hub.Refuse(hub.Unable, "this room cannot retract what another has said"))
		return
	}
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "set")
	if o.about.moderation == translate.NSModerate {
		m := iq.Add(translate.NSModerate, "moderate").SetAttr("id", id)
		m.Add(translate.NSRetract, "retract")
		if r.Reason != "" {
			m.Append(element.NewText(translate.NSModerate, "reason", r.Reason))
		}
	} else {
		m := iq.Add(translate.NSFasten, "apply-to").SetAttr("id", id).Add(nsModerate0, "moderate")
		m.Add(translate.NSRetract0, "retract")
		if r.Reason != "" {
			m.Append(element.NewText(nsModerate0, "reason", r.Reason))
		}
	}
	o.request(iq, "", func(_ *element.Element, err error) {
		if err == nil && o.retracted(r.Target) {
			then(nil)
			return
		}
		if err != nil {
			then(err)
			return
		}
		o.applied(r, then)
	})
}

// retracted says whether a message was taken back.
func (o *occupancy) retracted(id core.EventID) (yes bool) {
	e, ok := o.event(id)
	return ok && e.Retracted != ""
}

// stanzaIDOf is what the room calls a message.
func (o *occupancy) stanzaIDOf(id core.EventID) string {
	e, _ := o.event(id)
	return e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(o.conv))
}

func (o *occupancy) event(id core.EventID) (e core.Event, ok bool) {
	o.flush()
	ctx, cancel := o.timeout()
	defer cancel()
	err := o.s.Hub.Read(ctx, func(v hub.View) (err error) {
		e, err = v.Event(id)
		return err
	})
	return e, err == nil
}

// askTopic changes the subject; the room shows it to all when it agrees.
//
// spec: XEP-0045 §8.1
func (o *occupancy) askTopic(text string, then func(error)) {
	id := core.NewToken()
	m := element.New(translate.NSClient, "message").SetAttr("type", "groupchat").SetAttr("id", id)
	m.Append(element.NewText(translate.NSClient, "subject", text))
	o.subjects[id], o.topics[id] = then, text
	o.after(o.s.Answer, func() {
		if f := o.subjects[id]; f != nil {
			delete(o.subjects, id)
			f(translate.Fail(translate.RemoteServerTimeout, "the room does not answer"))
		}
		delete(o.topics, id)
	})
	o.send(m, "")
}

// agreed takes that the room shows our subject to all. Some rooms show it under the id that we gave it, and some under none.
func (o *occupancy) agreed(id, text string) {
	for asked, topic := range o.topics {
		if asked != id && topic != text {
			continue
		}
		delete(o.topics, asked)
		if done := o.subjects[asked]; done != nil {
			delete(o.subjects, asked)
			done(nil)
		}
	}
}

// askLevels asks for the affiliations and roles that changed levels mean, one after another.
func (o *occupancy) askLevels(st *core.State, c core.Change, then func(error)) {
	if c.Levels == nil {
		then(hub.Refuse(hub.Bad, "there are no levels in this"))
		return
	}
	rest := *c.Levels
	rest.Users = st.Levels.Users
	if !sameLevels(rest, st.Levels) {
		then(hub.Refuse(hub.Unable, "in rooms of XMPP only people's levels can be changed"))
		return
	}
	var steps []func(func(error))
	for a := range union(c.Levels.Users, st.Levels.Users) {
		is, was := c.Levels.Users[a], st.Levels.Users[a]
		if is == was {
			continue
		}
		steps = append(steps, func(next func(error)) { o.askLevel(a, was, is, next) })
	}
	var run func(i int)
	run = func(i int) {
		if i == len(steps) {
			o.applied(core.Change{Aspect: core.AspectLevels, Levels: c.Levels}, then)
			return
		}
		steps[i](func(err error) {
			if err != nil {
				then(err)
				return
			}
			run(i + 1)
		})
	}
	run(0)
}

// askLevel gives one person the affiliation or role that a level means.
func (o *occupancy) askLevel(a core.Address, was, is int64, then func(error)) {
	switch {
	case is < 0, was < 0 && is < 50:
		role := map[bool]string{true: "visitor", false: "participant"}[is < 0]
		for _, c := range o.occupants {
			if c.address == a {
				o.administer(element.New(nsAdmin, "item").SetAttr("nick", c.nick).SetAttr("role", role), "", then)
				return
			}
		}
		then(hub.Refuse(hub.NotFound, "%s is not in the room", a.Bare()))
	case is >= 100:
		o.affiliate(a, "owner", "", then)
	case is >= 50:
		o.affiliate(a, "admin", "", then)
	default:
		o.affiliate(a, map[bool]string{true: "member", false: "none"}[o.about.members], "", then)
	}
}

func union(a, b map[core.Address]int64) map[core.Address]int64 {
	out := maps.Clone(a)
	if out == nil {
		out = map[core.Address]int64{}
	}
	maps.Copy(out, b)
	return out
}

// configure sets one field of the room's configuration, and leaves the rest.
//
// spec: XEP-0045 §10.2
func (o *occupancy) configure(c core.Change, then func(error), field, value string) {
	get := element.New(translate.NSClient, "iq").SetAttr("type", "get")
	get.Add(nsOwner, "query")
	o.request(get, "", func(reply *element.Element, err error) {
		if err != nil {
			then(err)
			return
		}
		x := reply.Child(nsOwner, "query").Child(nsForm, "x")
		set := element.New(translate.NSClient, "iq").SetAttr("type", "set")
		form := set.Add(nsOwner, "query").Add(nsForm, "x").SetAttr("type", "submit")
		found := false
		for _, f := range x.ChildrenNamed("", "field") {
			if f.Attr("type") == "fixed" {
				continue
			}
			out := form.Add("", "field").SetAttr("var", f.Attr("var"))
			if f.Attr("var") == field {
				found = true
				out.Append(element.NewText(nsForm, "value", value))
				continue
			}
			for _, v := range f.ChildrenNamed("", "value") {
				out.Append(v.Copy())
			}
		}
		if !found {
			then(hub.Refuse(hub.Unable, "this room has no such setting"))
			return
		}
		o.request(set, "", func(_ *element.Element, err error) {
			if err != nil {
				then(err)
				return
			}
			o.applied(c, then)
		})
	})
}
