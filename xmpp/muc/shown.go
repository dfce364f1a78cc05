package muc

import (
	"cmp"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
)

// Rooms of other networks have tens of thousands of members, and a client that is shown them all has nothing else to do for minutes. Who
// enters such a room is shown those who were active last, and another one when that one says something.

// recent is how many of the last events of a room are looked at for who is active.
const recent = 1000

// shown are the members whom one who enters a room is shown, in the order of their addresses, and whether there are others. who is not
// among them.
func (s *Service) shown(view hub.View, c core.Conversation, st *core.State, cr crowd, v Visit) (list []core.Member, all bool, err error) {
	most := s.MaxShown
	if v.Room > 0 {
		most = min(most, v.Room)
	}
	for _, m := range st.Members {
		if m.Address != v.Who && cr.has(m) {
			list = append(list, m)
		}
	}
	all = len(list) <= most
	if !all {
		active, err := s.active(view, c.ID)
		if err != nil {
			return nil, false, err
		}
		slices.SortFunc(list, func(a, b core.Member) int {
			return cmp.Or(
				cmp.Compare(active[b.Address], active[a.Address]),
				cmp.Compare(st.Level(b.Address), st.Level(a.Address)),
				cmp.Compare(b.Since, a.Since),
				strings.Compare(a.Nick, b.Nick),
			)
		})
		list = list[:most]
	}
	keys := make(map[core.Address]string, len(list))
	for _, m := range list {
		keys[m.Address] = m.Address.String()
	}
	slices.SortFunc(list, func(a, b core.Member) int { return strings.Compare(keys[a.Address], keys[b.Address]) })
	return list, all, nil
}

// active says where in a room's timeline people have last done something.
func (s *Service) active(view hub.View, conv core.ConvID) (map[core.Address]core.Position, error) {
	events, err := view.Page(hub.Query{Conv: conv, Latest: true, Limit: recent})
	if err != nil {
		return nil, err
	}
	out := map[core.Address]core.Position{}
	for i := range events {
		if !hub.Found(&events[i]) {
			out[events[i].Sender] = max(out[events[i].Sender], events[i].Position)
		}
	}
	return out, nil
}

// acquaint notes that a session is shown somebody, and says whether it was not before.
func (s *Service) acquaint(id core.ConvID, o *session, who core.Address) bool {
	r := s.room(id, false)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.known == nil || o.known[who] {
		return false
	}
	o.known[who] = true
	return true
}

// introduced puts before what somebody does, for one session, that she is there, where it was not shown her on entering. That somebody
// goes of whom it does not know is no news.
func (s *Service) introduced(o *session, c core.Conversation, st *core.State, e *core.Event, out []*element.Element) []*element.Element {
	who := e.Sender
	if m, ok := e.Content.(core.Membership); ok {
		who = m.Target
	}
	if who == o.who || who.IsZero() || !s.acquaint(c.ID, o, who) {
		return out
	}
	m := st.Members[who]
	if _, ok := e.Content.(core.Membership); ok {
		if m.Standing != core.Joined && m.Standing != core.Banned {
			return slices.DeleteFunc(slices.Clone(out), func(el *element.Element) bool { return el.Name.Local == "presence" })
		}
		return out
	}
	cr := s.crowdOf(c.ID)
	if len(out) == 0 || !cr.has(m) {
		return out
	}
	return append([]*element.Element{s.occupant(c, st, m, cr.extra[who])}, out...)
}

// acquaintances are the people whom a session is shown when it enters; nil for all.
func acquaintances(list []core.Member, all bool) map[core.Address]bool {
	if all {
		return nil
	}
	known := make(map[core.Address]bool, len(list))
	for _, m := range list {
		known[m.Address] = true
	}
	return known
}
