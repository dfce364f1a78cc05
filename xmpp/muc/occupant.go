package muc

import (
	"strconv"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The roles.
//
// spec: XEP-0045 §5.1
const (
	moderator   = "moderator"
	participant = "participant"
	visitor     = "visitor"
	noRole      = "none"
)

// roleOf shows what a member may do now as the nearest role, which never
// grants more.
func roleOf(st *core.State, who core.Address) string {
	switch level := st.Level(who); {
	case st.Standing(who) != core.Joined:
		return noRole
	case level >= max(50, st.Levels.Kick):
		return moderator
	case level >= st.Needs("message", false):
		return participant
	}
	return visitor
}

// called finds the occupant with a nick.
func called(st *core.State, nick string) (core.Address, bool) {
	for _, m := range st.Members {
		if m.Nick == nick && m.Standing == core.Joined {
			return m.Address, true
		}
	}
	return core.Address{}, false
}

// affiliationOf asks only the state; the right to return is shown in lists.
func affiliationOf(st *core.State, who core.Address) hub.Affiliation {
	return hub.AffiliationOf(st, who, false)
}

// occupant is the presence by which a member is shown.
//
// spec: XEP-0045 §7.2.2
func (s *Service) occupant(c core.Conversation, st *core.State, m core.Member, extra []*element.Element, codes ...int) *element.Element {
	p := element.New(translate.NSClient, "presence")
	p.SetAttr("from", s.Names.RoomJID(c.Address).With(m.Nick).String())
	for _, e := range extra {
		p.Append(e.Copy())
	}
	x := p.Add(translate.NSMUCUser, "x")
	item := x.Add("", "item")
	item.SetAttr("affiliation", string(affiliationOf(st, m.Address)))
	item.SetAttr("role", roleOf(st, m.Address))
	item.SetAttr("jid", s.Names.JID(m.Address).String())
	addStatus(p, codes...)
	id := p.Add(translate.NSOccupantID, "occupant-id")
	id.SetAttr("id", s.occupantID(c.ID, m.Address))
	return p
}

// away is the presence by which a member is shown as gone.
//
// spec: XEP-0045 §7.14
func (s *Service) away(c core.Conversation, st *core.State, m core.Member) *element.Element {
	p := s.occupant(c, st, m, nil)
	p.SetAttr("type", "unavailable")
	p.Child(translate.NSMUCUser, "x").Child("", "item").SetAttr("role", noRole)
	return p
}

func addStatus(p *element.Element, codes ...int) *element.Element {
	x := p.Child(translate.NSMUCUser, "x")
	for _, code := range codes {
		st := x.Add("", "status")
		st.SetAttr("code", strconv.Itoa(code))
	}
	return p
}

// membership writes a changed membership for one session: arriving, leaving,
// being sent away, another nick or another name.
func (s *Service) membership(c core.Conversation, st *core.State, e *core.Event, m core.Membership, viewer core.Address, extra []*element.Element) []*element.Element {
	member := st.Members[m.Target]
	self := m.Target == viewer
	if m.Standing == core.Joined {
		var out []*element.Element
		var codes []int
		if self {
			codes = []int{110}
		}
		if m.Before == core.Joined && m.OldNick != m.Nick && m.OldNick != "" {
			out = append(out, addStatus(s.renamed(c, st, m), codes...))
		} else if m.Before == core.Joined {
			return nil // a name or picture: MUC has no word for it
		}
		return append(out, s.occupant(c, st, member, extra, codes...))
	}
	if m.Before != core.Joined {
		return s.affiliationChanged(c, m)
	}
	bye := s.away(c, st, member)
	x := bye.Child(translate.NSMUCUser, "x")
	switch {
	case m.Standing == core.Banned:
		addStatus(bye, 301)
	case e.Sender != m.Target && st.JoinRule != core.JoinPublic:
		addStatus(bye, 321)
	case e.Sender != m.Target:
		addStatus(bye, 307)
	}
	if self {
		addStatus(bye, 110)
	}
	if e.Sender != m.Target {
		item := x.Child("", "item")
		if by := st.Members[e.Sender]; by.Nick != "" {
			item.Add("", "actor").SetAttr("nick", by.Nick)
		}
		if m.Reason != "" {
			item.Append(element.NewText(translate.NSMUCUser, "reason", m.Reason))
		}
	}
	return []*element.Element{bye}
}

// renamed is the presence that ends an old nick.
//
// spec: XEP-0045 §7.6
func (s *Service) renamed(c core.Conversation, st *core.State, m core.Membership) *element.Element {
	old := st.Members[m.Target]
	old.Nick = m.OldNick
	p := s.occupant(c, st, old, nil)
	p.SetAttr("type", "unavailable")
	p.Child(translate.NSMUCUser, "x").Child("", "item").SetAttr("nick", m.Nick)
	return addStatus(p, 303)
}

// affiliationChanged tells of one who is not in the room and got another
// affiliation.
//
// spec: XEP-0045 §9.3
func (s *Service) affiliationChanged(c core.Conversation, m core.Membership) []*element.Element {
	if m.Standing != core.Banned && m.Before != core.Banned {
		return nil
	}
	a := hub.Unaffiliated
	if m.Standing == core.Banned {
		a = hub.Outcasts
	}
	el := element.New(translate.NSClient, "message")
	el.SetAttr("from", s.Names.RoomJID(c.Address).String())
	item := el.Add(translate.NSMUCUser, "x").Add("", "item")
	item.SetAttr("affiliation", string(a))
	item.SetAttr("jid", s.Names.JID(m.Target).String())
	item.SetAttr("role", noRole)
	return []*element.Element{el}
}

// levels shows those again whose affiliation or role has changed.
//
// spec: XEP-0045 §9.6
func (s *Service) levels(cr crowd, c core.Conversation, st *core.State, ch core.Change, viewer core.Address) []*element.Element {
	if ch.OldLevels == nil {
		return nil
	}
	before := *st
	before.Levels = *ch.OldLevels
	var out []*element.Element
	for _, m := range st.Joined() {
		same := affiliationOf(&before, m.Address) == affiliationOf(st, m.Address) && roleOf(&before, m.Address) == roleOf(st, m.Address)
		if same || !cr.has(m) {
			continue
		}
		var codes []int
		if m.Address == viewer {
			codes = []int{110}
		}
		out = append(out, s.occupant(c, st, m, cr.extra[m.Address], codes...))
	}
	return out
}

// configChanged tells that something about the room has changed, for which
// clients ask by service discovery.
//
// spec: XEP-0045 §10.2.1
func (s *Service) configChanged(c core.Conversation) *element.Element {
	el := element.New(translate.NSClient, "message")
	el.SetAttr("type", "groupchat")
	el.SetAttr("from", s.Names.RoomJID(c.Address).String())
	el.Add(translate.NSMUCUser, "x")
	st := el.Child(translate.NSMUCUser, "x").Add("", "status")
	st.SetAttr("code", "104")
	return el
}
