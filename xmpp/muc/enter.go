package muc

import (
	"context"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// presence is entering a room, changing what one shows there or one's nick,
// and leaving it.
func (s *Service) presence(ctx context.Context, v Visit, to translate.JID, el *element.Element) error {
	switch el.Attr("type") {
	case "unavailable", "error":
		c, err := s.find(ctx, to)
		if err != nil {
			return nil // nobody is in a room that is not there
		}
		return s.leave(ctx, c.ID, v, el)
	case "":
	default:
		return translate.Fail(translate.NotAllowed, "")
	}
	if to.Resource == "" {
		return translate.Fail(translate.JIDMalformed, "entering a room needs a nick")
	}
	if !v.admitted {
		if err := s.mayMove(v, to.Bare(), el); err != nil {
			return err
		}
	}
	c, created, err := s.findOrOpen(ctx, v, to)
	if err != nil {
		return err
	}
	if err := s.goesOn(ctx, c); err != nil {
		return err
	}
	join := el.Child(translate.NSMUC, "x")
	if join != nil || s.session(c.ID, v.From) == nil {
		return s.join(ctx, v, c, to, el, created)
	}
	return s.change(ctx, v, c, to, el)
}

// mayMove holds everybody, and the servers of those from elsewhere, to how often they may enter rooms, and move in one.
func (s *Service) mayMove(v Visit, room translate.JID, el *element.Element) error {
	if err := s.Guard.Allow(guard.RoomPresences, v.Who.String()+" "+room.String()); err != nil {
		return err
	}
	if el.Child(translate.NSMUC, "x") == nil {
		return nil
	}
	if !v.Who.IsLocal() {
		if err := s.Guard.Allow(guard.ServerJoins, guard.Organisation(v.From.Domain)); err != nil {
			return err
		}
	}
	return s.Guard.Allow(guard.Joins, v.Who.String())
}

// findOrOpen finds the room that one wants to enter; to a local account it is
// made, if it does not exist.
//
// spec: XEP-0045 §10.1.1
func (s *Service) findOrOpen(ctx context.Context, v Visit, to translate.JID) (core.Conversation, bool, error) {
	c, err := s.find(ctx, to)
	if e, ok := err.(*translate.Error); !ok || e.Condition != translate.ItemNotFound {
		return c, false, err
	}
	if !v.Who.IsLocal() {
		return c, false, err
	}
	a, err := s.Names.RoomAddress(to)
	if err != nil {
		return c, false, err
	}
	if !a.IsLocal() { // a room of another network, which was left meanwhile
		return c, false, translate.Fail(translate.ItemNotFound, "there is no such room")
	}
	if err := s.Guard.Allow(guard.Rooms, v.Who.String()); err != nil {
		return c, false, err
	}
	c, err = s.Hub.Open(ctx, hub.Opening{
		Creator: v.Who, Shape: core.Group, Address: a, Member: core.Membership{Nick: to.Resource},
		Initial: []hub.Draft{{Content: core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinPublic}}},
	})
	return c, err == nil, err
}

// join lets a session into a room: membership first, then all that it must
// know, in the order that the specification gives.
//
// spec: XEP-0045 §7.2
func (s *Service) join(ctx context.Context, v Visit, c core.Conversation, to translate.JID, el *element.Element, created bool) error {
	nick, err := s.wish(ctx, v, c, to.Resource)
	if err != nil {
		return err
	}
	if _, err := s.Hub.Join(ctx, hub.JoinRequest{Conv: c.ID, Who: v.Who, Nick: nick, With: v.With}); err != nil {
		return err
	}
	r := s.room(c.ID, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) >= s.MaxOccupants {
		return s.Guard.Over(guard.RoomOccupants, translate.ServiceUnavailable, "this room is full")
	}
	back := !s.occupied(r, v.Who)
	if err := s.remember(ctx, c.ID, v); err != nil {
		return err
	}
	return s.Hub.Read(ctx, func(view hub.View) error {
		st, err := view.State(c.ID)
		if err != nil {
			return err
		}
		feed, err := view.LastFeed()
		if err != nil {
			return err
		}
		me := &session{jid: v.From, who: v.Who, since: feed, extra: extras(el)}
		s.enter(c.ID, r, me)
		if back && v.Who.Network == core.XMPP {
			s.showTo(r, c, st, st.Members[v.Who], me.extra, v.From) // who had only been away
		}
		cr := r.crowd()
		list, all, err := s.shown(view, c, st, cr, v)
		if err != nil {
			return err
		}
		me.known = acquaintances(list, all)
		for _, m := range list {
			s.tell(v, s.occupant(c, st, m, cr.extra[m.Address]))
		}
		codes := []int{100, 110}
		if st.Members[v.Who].Nick != to.Resource {
			codes = append(codes, 210)
		}
		if created {
			codes = append(codes, 201)
		}
		s.tell(v, s.occupant(c, st, st.Members[v.Who], me.extra, codes...))
		if err := s.history(view, c, st, v, el.Child(translate.NSMUC, "x")); err != nil {
			return err
		}
		return s.subject(view, c, st, v)
	})
}

// wish is the nick that one who enters asks for; none for one who has a nick that stays: sessions of one account share it, and in a room
// with other Matrix servers every change of it would be an event for all of them.
func (s *Service) wish(ctx context.Context, v Visit, c core.Conversation, nick string) (string, error) {
	if !v.Who.IsLocal() {
		return nick, nil
	}
	if len(s.sessionsOf(c.ID, v.Who)) > 0 {
		return "", nil
	}
	if c.Authority != core.Graph {
		return nick, nil
	}
	err := s.Hub.Read(ctx, func(view hub.View) error {
		st, err := view.State(c.ID)
		if err == nil && st.Standing(v.Who) == core.Joined {
			nick = ""
		}
		return err
	})
	return nick, err
}

// occupied reports whether a person has a session in the room.
func (s *Service) occupied(r *room, who core.Address) bool {
	for _, o := range r.sessions {
		if o.who == who {
			return true
		}
	}
	return false
}

// extras are the parts of a presence that go to the other occupants.
func extras(el *element.Element) []*element.Element {
	var out []*element.Element
	for _, c := range el.Elements() {
		switch c.Name.Space {
		case translate.NSMUC, translate.NSMUCUser, translate.NSOccupantID, translate.NSDelay:
		default:
			if len(out) < 16 {
				out = append(out, c.Copy())
			}
		}
	}
	return out
}

// change is another presence of one who is in the room: another nick, or only
// another show and status.
//
// spec: XEP-0045 §7.6
// spec: XEP-0045 §7.7
func (s *Service) change(ctx context.Context, v Visit, c core.Conversation, to translate.JID, el *element.Element) error {
	var st *core.State
	err := s.Hub.Read(ctx, func(view hub.View) (err error) {
		st, err = view.State(c.ID)
		return err
	})
	if err != nil {
		return err
	}
	r := s.room(c.ID, true)
	shown := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if o := r.sessions[v.From]; o != nil {
			o.extra = extras(el)
		}
		me := st.Members[v.Who]
		if me.Nick == to.Resource {
			s.showTo(r, c, st, me, extras(el), translate.JID{})
		}
		return me.Nick == to.Resource
	}
	if shown() {
		return nil
	}
	if err := s.Guard.Allow(guard.Nicks, v.Who.String()+" "+string(c.ID)); err != nil {
		return err
	}
	req := hub.JoinRequest{Conv: c.ID, Who: v.Who, Nick: to.Resource, With: v.With}
	if c.Authority == core.Graph {
		req.Name = to.Resource // on other servers one is called by no other name
	}
	_, err = s.Hub.Join(ctx, req)
	return err
}

// leave takes a session out of a room. Members of this server stay members;
// one of another server is shown as gone when her last session is, and the
// membership ends after a grace.
//
// spec: XEP-0045 §7.14
func (s *Service) leave(ctx context.Context, id core.ConvID, v Visit, el *element.Element) error {
	jid := v.From
	r := s.room(id, false)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.sessions[jid]
	if o == nil {
		return nil
	}
	s.exit(id, r, jid)
	if err := s.forget(ctx, id, r, o); err != nil {
		return err
	}
	return s.Hub.Read(ctx, func(view hub.View) error {
		c, err := view.Conversation(id)
		if err != nil {
			return err
		}
		st, err := view.State(id)
		if err != nil {
			return err
		}
		m := st.Members[o.who]
		bye := s.away(c, st, m)
		if el != nil && el.Attr("type") == "unavailable" {
			s.tell(v, addStatus(bye.Copy(), 110))
		}
		if o.who.Network == core.XMPP && m.Standing == core.Joined && !s.occupied(r, o.who) {
			for to := range r.sessions {
				s.send(to, bye.Copy())
			}
		}
		return nil
	})
}

// showTo shows a member to everybody in the room but one session. The caller
// holds r.mu.
func (s *Service) showTo(r *room, c core.Conversation, st *core.State, m core.Member, extra []*element.Element, but translate.JID) {
	for jid, o := range r.sessions {
		if jid == but {
			continue
		}
		var codes []int
		if o.who == m.Address {
			codes = []int{110}
		}
		s.send(jid, s.occupant(c, st, m, extra, codes...))
	}
}

// send routes a copy of a stanza to one session.
func (s *Service) send(to translate.JID, el *element.Element) {
	if el == nil {
		return
	}
	el.SetAttr("to", to.String())
	s.Route(el)
}

// history sends what was said before, as much as the session asked for.
//
// spec: XEP-0045 §7.2.14
func (s *Service) history(view hub.View, c core.Conversation, st *core.State, v Visit, x *element.Element) error {
	q := hub.Query{Conv: c.ID, Kinds: []core.Kind{core.KindMessage, core.KindEdit}, Latest: true, Limit: min(20, s.MaxHistory), Aliases: true}
	most := -1
	if h := x.Child("", "history"); h != nil {
		if n, err := strconv.Atoi(h.Attr("maxstanzas")); err == nil && n >= 0 {
			q.Limit = min(n, s.MaxHistory)
		}
		if n, err := strconv.Atoi(h.Attr("maxchars")); err == nil && n >= 0 {
			most = n
		}
		if n, err := strconv.Atoi(h.Attr("seconds")); err == nil && n >= 0 {
			q.Since = time.Now().Add(-time.Duration(n) * time.Second)
		}
		if t, err := time.Parse(time.RFC3339Nano, h.Attr("since")); err == nil {
			q.Since = t
		}
	}
	if q.Limit == 0 || most == 0 {
		return nil
	}
	events, err := s.Hub.HistoryIn(view, v.Who, q)
	if err != nil {
		return err
	}
	var stanzas []*element.Element
	for i := range events {
		w, err := s.writing(view, &c, st, &events[i])
		if err != nil {
			return err
		}
		w.Delay, w.DelayFrom = events[i].Time, s.Names.RoomJID(c.Address).String()
		if el, _ := translate.Out(&events[i], w); el != nil {
			stanzas = append(stanzas, el)
		}
	}
	if most > 0 {
		size := 0
		for i := len(stanzas) - 1; i >= 0; i-- {
			if size += len(element.Marshal(stanzas[i])); size > most {
				stanzas = stanzas[i+1:]
				break
			}
		}
	}
	for _, el := range stanzas {
		s.tell(v, el)
	}
	return nil
}

// subject sends the topic, which ends the entering; a room without one has the
// empty subject.
//
// spec: XEP-0045 §7.2.15
func (s *Service) subject(view hub.View, c core.Conversation, st *core.State, v Visit) error {
	room := s.Names.RoomJID(c.Address)
	el := element.New(translate.NSClient, "message")
	el.SetAttr("type", "groupchat")
	el.SetAttr("from", room.String())
	if id, ok := st.Events[core.StateKey{Kind: string(core.AspectTopic)}]; ok {
		e, err := view.Event(id)
		if err != nil {
			return err
		}
		if m, ok := st.Members[e.Sender]; ok && m.Nick != "" {
			el.SetAttr("from", room.With(m.Nick).String())
		}
		el.SetAttr("id", string(e.ID))
		el.Append(translate.Delay(e.Time, room.String()))
	}
	el.Append(element.NewText(translate.NSClient, "subject", st.Topic))
	s.tell(v, el)
	return nil
}
