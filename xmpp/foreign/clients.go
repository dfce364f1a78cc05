package foreign

import (
	"context"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/talk"
	"parley/xmpp/translate"
)

// visitor is a client of the account that is in the room, as far as it knows.
type visitor struct {
	// ready says that it has been told who is there; until then what happens waits in backlog.
	ready   bool
	backlog []*element.Element
	session *c2s.Session
}

// maxBacklog is how much may wait for a client that is being told who is there.
const maxBacklog = 2000

// visits is the value that a session keeps: up to which feed number it knows what was said, by conversation.
type visits map[core.ConvID]core.Feed

type visitsKey struct{}

func visitsOf(s *c2s.Session) visits {
	v, _ := s.Value(visitsKey{}).(visits)
	if v == nil {
		v = visits{}
		s.SetValue(visitsKey{}, v)
	}
	return v
}

// Takes says whether a client's stanza is for a room of another server: an entering, or what is to or from a room in which its account
// is. It implements [c2s.Elsewhere].
func (s *Service) Takes(sess *c2s.Session, st *element.Element, to translate.JID) bool {
	if to.Local == "" || s.Hub.Hosts(to.Domain) {
		return false
	}
	if st.Name.Local == "presence" && st.Child(translate.NSMUC, "x") != nil && to.Resource != "" {
		t := st.Attr("type")
		return t == ""
	}
	if st.Name.Local == "message" && st.Child(translate.NSMUCUser, "x").Child("", "decline") != nil {
		s.declined(sess.Account(), to.Bare())
		return false // the room is told by the client itself, which it has asked
	}
	return s.of(sess.Account(), to) != nil
}

// Stanza implements [c2s.Service].
func (s *Service) Stanza(ctx context.Context, sess *c2s.Session, st *element.Element) error {
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil {
		return translate.Fail(translate.JIDMalformed, "")
	}
	switch st.Name.Local {
	case "presence":
		return s.clientPresence(ctx, sess, st, to)
	case "message":
		return s.clientMessage(ctx, sess, st, to)
	}
	return s.clientIQ(ctx, sess, st, to)
}

// clientPresence is a client that enters, shows something else, or leaves.
//
// spec: XEP-0045 §7.2
func (s *Service) clientPresence(ctx context.Context, sess *c2s.Session, st *element.Element, to translate.JID) error {
	o := s.of(sess.Account(), to)
	x := st.Child(translate.NSMUC, "x")
	switch typ := st.Attr("type"); {
	case typ == "unavailable":
		if o != nil {
			o.later(func() { o.bye(sess.JID(), true) })
			delete(visitsOf(sess), o.conv)
		}
		return nil
	case typ != "":
		return translate.Fail(translate.NotAllowed, "")
	case to.Resource == "":
		return translate.Fail(translate.JIDMalformed, "entering a room needs a nick")
	}
	if o == nil {
		var err error
		if o, err = s.open(ctx, place{sess.Account(), to.Bare()}); err != nil {
			return err
		}
	}
	e := entry{nick: to.Resource, password: x.ChildText("", "password"), exact: true, create: true}
	o.later(func() { o.visit(sess, st, x, e) })
	return nil
}

// visit is a client's presence to the room.
func (o *occupancy) visit(sess *c2s.Session, st, x *element.Element, e entry) {
	if o.over { // it ended while this waited
		go sess.Call(func(ctx context.Context) {
			if err := o.s.Stanza(ctx, sess, st); err != nil {
				sess.Send(translate.Bounce(st, err))
			}
		})
		return
	}
	if o.visitors[sess.JID()] != nil && x == nil {
		if o.phase == inside { // another nick, or another status
			p := st.Copy()
			p.RemoveAttr("id")
			o.send(p, e.nick)
		}
		return
	}
	welcome := func() { o.welcome(sess, st, x, e.nick) }
	if o.phase != inside && o.wanted && o.conv != "" {
		welcome() // the room is away; we are not
		return
	}
	o.enter(e, func(err error) {
		if err != nil {
			o.s.Route(translate.Bounce(st, err))
			return
		}
		welcome()
	})
}

// welcome tells a client that it is in the room, and who else is; then what was said and the subject.
//
// spec: XEP-0045 §7.2.2
func (o *occupancy) welcome(sess *c2s.Session, st, x *element.Element, nick string) {
	v := &visitor{session: sess}
	o.visitors[sess.JID()] = v
	var all []*element.Element
	for _, c := range o.occupants {
		if c.address != o.account || c.nick != o.self {
			all = append(all, c.presence.Copy().SetAttr("to", sess.JID().String()))
		}
	}
	all = append(all, o.selfPresence(nick).SetAttr("to", sess.JID().String()))
	conv, subject, since := o.conv, o.subject, x.Child("", "history")
	o.flush()
	tell := func(ctx context.Context) {
		for _, el := range all {
			sess.Send(el)
		}
		if err := o.s.history(ctx, sess, o, conv, since); err != nil {
			sess.Log().Error("showing a room elsewhere", "room", o.room.String(), "err", err)
		}
		sess.Send(o.subjectFor(subject).SetAttr("to", sess.JID().String()))
		go o.later(func() {
			v.ready = true
			for _, el := range v.backlog {
				o.s.Route(el.SetAttr("to", sess.JID().String()))
			}
			v.backlog = nil
		})
	}
	go func() {
		if !sess.Call(tell) {
			o.later(func() { o.forget(sess.JID(), v) })
		}
	}()
}

// forget forgets a client whose session is over, unless there is another under its name.
func (o *occupancy) forget(jid translate.JID, v *visitor) {
	if o.visitors[jid] == v {
		delete(o.visitors, jid)
	}
}

// dispersed notes that no client is in the room any more.
func (o *occupancy) dispersed() {
	conv := o.conv
	for jid, v := range o.visitors {
		delete(o.visitors, jid)
		go v.session.Call(func(context.Context) { delete(visitsOf(v.session), conv) })
	}
}

// selfPresence is our own, as it stands or as it must be.
func (o *occupancy) selfPresence(asked string) *element.Element {
	var p *element.Element
	if c := o.occupants[o.self]; c != nil {
		p = c.presence.Copy()
	} else {
		p = element.New(translate.NSClient, "presence").SetAttr("from", o.room.With(o.nick).String())
		item := p.Add(translate.NSMUCUser, "x").Add("", "item")
		item.SetAttr("affiliation", "none").SetAttr("role", "participant")
	}
	x := p.Child(translate.NSMUCUser, "x")
	if x == nil {
		x = p.Add(translate.NSMUCUser, "x")
	}
	codes := map[string]bool{}
	for _, s := range x.ChildrenNamed("", "status") {
		codes[s.Attr("code")] = true
	}
	status := func(code int) {
		if c := strconv.Itoa(code); !codes[c] {
			x.Add("", "status").SetAttr("code", c)
		}
	}
	status(codeSelf)
	if o.about.plain {
		status(codePlain)
	}
	if asked != o.nick {
		status(210)
	}
	if o.created {
		o.created = false
		status(codeCreated)
	}
	return p
}

// subjectFor is the message that ends the entering.
//
// spec: XEP-0045 §7.2.15
func (o *occupancy) subjectFor(last *element.Element) *element.Element {
	if last != nil {
		return last.Copy()
	}
	m := element.New(translate.NSClient, "message").SetAttr("type", "groupchat").SetAttr("from", o.room.String())
	m.Append(element.New(translate.NSClient, "subject"))
	return m
}

// history sends what was said before, as much as the client asked for, and notes up to where that is.
//
// spec: XEP-0045 §7.2.14
func (s *Service) history(ctx context.Context, sess *c2s.Session, o *occupancy, conv core.ConvID, h *element.Element) error {
	q := hub.Query{Conv: conv, Kinds: []core.Kind{core.KindMessage, core.KindEdit}, Latest: true, Limit: 20, Aliases: true}
	if n, err := strconv.Atoi(h.Attr("maxstanzas")); err == nil && n >= 0 && n < 500 {
		q.Limit = n
	}
	if h.Attr("maxchars") == "0" {
		q.Limit = 0
	}
	if n, err := strconv.Atoi(h.Attr("seconds")); err == nil && n >= 0 {
		q.Since = time.Now().Add(-time.Duration(n) * time.Second)
	}
	if t, err := time.Parse(time.RFC3339Nano, h.Attr("since")); err == nil {
		q.Since = t
	}
	return s.Hub.Read(ctx, func(v hub.View) error {
		feed, err := v.LastFeed()
		if err != nil {
			return err
		}
		visitsOf(sess)[conv] = feed
		if q.Limit == 0 {
			return nil
		}
		events, err := s.Hub.HistoryIn(v, sess.Account(), q)
		if err != nil {
			return err
		}
		st, err := v.State(conv)
		if err != nil {
			return err
		}
		for i := range events {
			el, err := s.compose(v, o.room, st, &events[i], func(w *translate.Writing) {
				w.Delay, w.DelayFrom = events[i].Origin, o.room.String()
			})
			if err != nil {
				return err
			}
			if el != nil {
				sess.Send(el.SetAttr("to", sess.JID().String()))
			}
		}
		return nil
	})
}

// compose writes an event as the room has sent it; nil if the room has not.
func (s *Service) compose(v hub.View, room translate.JID, st *core.State, e *core.Event, change func(*translate.Writing)) (*element.Element, error) {
	sid := e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(e.Conv))
	nick := st.Members[e.Sender].Nick
	w := translate.Writing{
		Names: s.Names, From: room.With(nick).String(), Type: "groupchat", Elsewhere: true,
		Occupant: func(a core.Address) string { return room.With(st.Members[a].Nick).String() },
	}
	if sid != "" {
		w.StanzaIDs = []translate.StanzaID{{By: room.String(), ID: sid}}
	}
	var err error
	if w.OccupantID, err = occupantID(v, e.Conv, e.Sender); err != nil {
		return nil, err
	}
	if change != nil {
		change(&w)
	}
	if err := lookup.Writing(v, e, s.Base, &w); err != nil {
		return nil, err
	}
	el, _ := translate.Out(e, w)
	if el != nil { // when it was is said once: now, in the history, or by the archive around it
		el.RemoveChildren(func(c *element.Element) bool {
			return c.Is(translate.NSDelay, "delay") && (w.Delay.IsZero() || c.Attr("from") != w.DelayFrom)
		})
	}
	return el, nil
}

// show passes a stanza of the room's on to the clients that are in it.
func (o *occupancy) show(st *element.Element) {
	for jid, v := range o.visitors {
		el := st.Copy().SetAttr("to", jid.String())
		if v.ready {
			o.s.Route(el)
		} else {
			v.backlog = append(v.backlog, el)
		}
		if len(v.backlog) > maxBacklog { // it takes nothing; it may enter again
			o.s.Count.Count("foreign_dropped", "flood")
			o.bye(jid, true)
			go v.session.Call(func(context.Context) { delete(visitsOf(v.session), o.conv) })
		}
	}
}

// greet shows the clients that are in the room who is there, after we have entered it again.
func (o *occupancy) greet() {
	for nick, c := range o.before {
		if o.occupants[nick] == nil {
			bye := element.New(translate.NSClient, "presence").SetAttr("type", "unavailable").SetAttr("from", o.room.With(nick).String())
			bye.Add(translate.NSMUCUser, "x").Add("", "item").SetAttr("affiliation", c.affiliation).SetAttr("role", "none")
			o.show(bye)
		}
	}
	o.before = nil
	for _, c := range o.occupants {
		o.show(c.presence)
	}
}

// bye takes a client out of the room; the account stays.
//
// spec: XEP-0045 §7.14
func (o *occupancy) bye(jid translate.JID, tell bool) {
	if o.visitors[jid] == nil {
		return
	}
	delete(o.visitors, jid)
	if tell {
		p := o.selfPresence(o.nick).SetAttr("type", "unavailable").SetAttr("to", jid.String())
		p.Child(translate.NSMUCUser, "x").Child("", "item").SetAttr("role", "none")
		o.s.Route(p)
	}
}

// Gone implements [c2s.Service].
func (s *Service) Gone(sess *c2s.Session) {
	jid := sess.JID()
	for conv := range visitsOf(sess) {
		if o := s.in(conv); o != nil {
			go o.later(func() { o.bye(jid, false) })
		}
	}
	sess.SetValue(visitsKey{}, nil)
}

// clientMessage is what a client says to the room, to an occupant, or asks of the room by a message.
func (s *Service) clientMessage(ctx context.Context, sess *c2s.Session, st *element.Element, to translate.JID) error {
	o := s.of(sess.Account(), to)
	if o == nil {
		return translate.Fail(translate.NotAcceptable, "you are not in this room")
	}
	if to.Resource != "" {
		return sess.Talk(ctx, st, to, core.OccupantAddress(o.addr, to.Resource))
	}
	if _, in := visitsOf(sess)[o.conv]; !in {
		return translate.Fail(translate.NotAcceptable, "you are not in this room")
	}
	subject := st.Child("", "subject") != nil && st.Child("", "body") == nil && st.Child("", "thread") == nil
	if st.Attr("type") == "groupchat" && !subject {
		return s.clientSays(ctx, sess, o, st)
	}
	o.later(func() { o.pass(st) })
	return nil
}

// pass sends a client's message on to the room as it is.
func (o *occupancy) pass(st *element.Element) {
	if o.phase != inside {
		o.s.Route(translate.Bounce(st, errLost))
		return
	}
	o.send(st.Copy(), "")
}

// clientSays takes what a client says to the whole room.
//
// spec: XEP-0045 §7.4
func (s *Service) clientSays(ctx context.Context, sess *c2s.Session, o *occupancy, st *element.Element) error {
	said, losses, err := talk.Interpret(ctx, s.Hub, st, lookup.Place{Conv: o.conv}, s.Base, translate.Reading{Sender: sess.Account(), Names: s.Names})
	if err != nil {
		return err
	}
	with := func(tx hub.Tx, _ *core.Event) error { return sess.Counted(tx) }
	for _, r := range said.Receipts {
		if r.Stage != core.StageDisplayed {
			continue
		}
		req := hub.ReadingRequest{Conv: o.conv, Who: sess.Account(), Event: r.Target, Thread: string(r.Thread), From: sess.ID()}
		if err := s.Hub.MarkDisplayed(ctx, req); err != nil {
			return err
		}
	}
	if said.Typing != nil {
		var until time.Time
		if *said.Typing {
			until = time.Now().Add(typingFor)
		}
		if err := s.Hub.Typing(ctx, o.conv, sess.Account(), until, sess.ID()); err != nil {
			return err
		}
	}
	d := hub.Draft{
		Conv: o.conv, Sender: sess.Account(), Origin: said.Origin, Content: said.Content, Native: said.Native,
		Aliases: said.Aliases, From: sess.ID(), With: with,
	}
	switch {
	case said.Reactions != nil:
		return s.Hub.React(ctx, said.Reactions.Target, said.Reactions.Keys, d)
	case said.Content != nil:
		_, err := s.Hub.Submit(ctx, d)
		return err
	case len(losses) > 0:
		return translate.Fail(translate.ItemNotFound, losses[0].String())
	case talk.HasOther(st):
		o.later(func() { o.pass(st) })
	}
	return nil
}

// News implements [c2s.Service].
func (s *Service) News(ctx context.Context, sess *c2s.Session, n hub.News) error {
	switch n := n.(type) {
	case hub.EventNews:
		return s.eventNews(ctx, sess, n)
	case hub.ReportNews:
		if n.Report.Stage != core.StageThere {
			return nil
		}
		if _, in := visitsOf(sess)[n.Event.Conv]; in {
			return s.sendEvent(ctx, sess, n.Event.Conv, n.Event.ID)
		}
	}
	return nil
}

func (s *Service) eventNews(ctx context.Context, sess *c2s.Session, n hub.EventNews) error {
	e := &n.Event
	if m, ok := e.Content.(core.Membership); ok {
		if m.Target != sess.Account() {
			return nil
		}
		if m.Standing == core.Invited {
			room := s.Names.RoomJID(n.Conv.Address)
			sess.Send(translate.Invite(room, s.Names.JID(e.Sender).String(), sess.JID().String(), m.Reason))
		}
		return nil
	}
	since, in := visitsOf(sess)[n.Conv.ID]
	if !in || e.Feed <= since || core.KindOf(e.Content) == core.KindChange {
		return nil
	}
	if e.Sender == sess.Account() && !wasTaken(e) {
		return nil // shown when the room has taken it
	}
	return s.sendEvent(ctx, sess, n.Conv.ID, e.ID)
}

// sendEvent shows a client an event as the room has sent it.
func (s *Service) sendEvent(ctx context.Context, sess *c2s.Session, conv core.ConvID, id core.EventID) error {
	o := s.in(conv)
	if o == nil {
		return nil
	}
	return s.Hub.Read(ctx, func(v hub.View) error {
		e, err := v.Event(id)
		if err != nil {
			return err
		}
		st, err := v.State(conv)
		if err != nil {
			return err
		}
		el, err := s.compose(v, o.room, st, &e, nil)
		if err == nil && el != nil {
			sess.Send(el.SetAttr("to", sess.JID().String()))
		}
		return err
	})
}
