package c2s

import (
	"context"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// pepTopic is that of [hub.PokeNews] about personal eventing.
const pepTopic = "xmpp-pep"

// pepEvent is what happened to a node.
type pepEvent struct {
	Account   core.Address
	Node      string
	Config    pep.Config
	Items     []pep.Item
	Retracted []string
	Whole     string // "delete", "purge" or "configuration" of the node, else ""
	// Subscribers are local JIDs, bare or full, that asked to hear of the node whatever their capabilities.
	Subscribers []translate.JID
}

// element writes the event as it stands in a notification.
//
// spec: XEP-0060 §7.1.2.1
// spec: XEP-0060 §7.1.2.2
func (ev *pepEvent) element() *element.Element {
	e := element.New(nsPubSubEv, "event")
	if ev.Whole != "" {
		c := e.Add("", ev.Whole).SetAttr("node", ev.Node)
		if ev.Whole == "configuration" && !ev.Config.Bare {
			c.Append(configElement(ev.Config).SetAttr("type", "result"))
		}
		return e
	}
	list := e.Add("", "items").SetAttr("node", ev.Node)
	for _, it := range ev.Items {
		list.Append(itemElement(nsPubSubEv, it, false, ev.Config.Bare))
	}
	for _, id := range ev.Retracted {
		list.Add("", "retract").SetAttr("id", id)
	}
	return e
}

// pepMessage is the notification for one JID.
//
// spec: XEP-0163 §4.3
func (srv *Server) pepMessage(ev *pepEvent, to translate.JID) *element.Element {
	m := element.New(translate.NSClient, "message").SetAttr("type", ev.Config.MessageType())
	m.SetAttr("from", srv.names.JID(ev.Account).String()).SetAttr("to", to.String()).SetAttr("id", core.NewToken()[:16])
	return m.Append(ev.element())
}

// post sends a stanza of the server's own to a JID, here or on another server.
func (srv *Server) post(st *element.Element, to translate.JID) {
	switch {
	case srv.Hub.Hosts(to.Domain):
		_ = srv.route(st, to) // nobody is there: then nobody hears of it
	case srv.Router != nil:
		srv.Router.Route(st)
	}
}

// tell sends one JID the notification of what was published before it asked.
func (q *question) tell(ev *pepEvent, to translate.JID) {
	m := q.srv.pepMessage(ev, to)
	if len(ev.Items) > 0 {
		m.Append(translate.Delay(ev.Items[0].Published, q.srv.names.JID(ev.Account).String()))
	}
	q.srv.post(m, to)
}

// announce tells, after the commit, the account's own clients, those who see its presence and may read the node, and subscribers.
func (q *question) announce(tx hub.Tx, ev *pepEvent) error {
	contacts, subs, err := pep.Audience(tx, q.srv.names, ev.Account, ev.Node, ev.Config)
	if err != nil {
		return err
	}
	to := []core.Address{ev.Account}
	var foreign []core.Address
	var away []translate.JID
	for _, s := range subs {
		who, err := q.srv.names.Address(s.JID.Bare())
		switch {
		case err != nil:
		case who.IsLocal():
			ev.Subscribers = append(ev.Subscribers, s.JID)
			to = append(to, who)
		default:
			away = append(away, s.JID)
		}
	}
	for _, c := range contacts {
		switch {
		case c.IsLocal() && !slices.Contains(to, c):
			to = append(to, c)
		case c.Network == core.XMPP && !slices.Contains(away, q.srv.names.JID(c)):
			foreign = append(foreign, c)
		}
	}
	tx.OnCommit(func() {
		q.srv.Hub.Poke(to, hub.PokeNews{Topic: pepTopic, Data: ev})
		if len(foreign)+len(away) > 0 && q.srv.Router != nil {
			go q.srv.announceForeign(context.WithoutCancel(q.ctx), ev, foreign, away)
		}
	})
	return nil
}

// announceForeign tells subscribers on other servers, and those clients of contacts there that are there and want to hear of it.
//
// spec: XEP-0163 §4.2
func (srv *Server) announceForeign(ctx context.Context, ev *pepEvent, contacts []core.Address, subscribers []translate.JID) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, j := range subscribers {
		srv.Router.Route(srv.pepMessage(ev, j))
	}
	for _, a := range contacts {
		there, err := srv.Hub.PresenceOf(ctx, ev.Account, a)
		if err != nil {
			srv.Log.Error("announcing to another server", "err", err)
			return
		}
		for _, p := range there {
			to := srv.names.JID(a).With(p.Session)
			if p.Session == "" || !srv.caps.wants(capsIn(p.Native), ev.Node) || slices.Contains(subscribers, to) {
				continue
			}
			srv.Router.Route(srv.pepMessage(ev, to))
		}
	}
}

// pepNews shows the client a notification that it asked for.
func (s *Session) pepNews(ctx context.Context, n hub.PokeNews) error {
	ev, ok := n.Data.(*pepEvent)
	if !ok || n.Topic != pepTopic || !s.Available() {
		return nil
	}
	if s.notify[ev.Node] || slices.Contains(ev.Subscribers, s.jid) || slices.Contains(ev.Subscribers, s.jid.Bare()) {
		s.Send(s.srv.pepMessage(ev, s.jid))
	}
	if ev.Node == nsBookmarks && ev.Account == s.account {
		return s.oldBookmarkNews(ctx)
	}
	return nil
}

// lastItems sends the client the latest item of each node of which it wants to hear, of the account itself and of those whom it sees.
//
// spec: XEP-0163 §4.3.2
func (s *Session) lastItems(ctx context.Context) error {
	contacts, _, err := s.srv.Hub.Contacts(ctx, s.account)
	if err != nil {
		return err
	}
	whose := []core.Address{s.account}
	for _, c := range contacts {
		if c.Seen && c.Address.IsLocal() {
			whose = append(whose, c.Address)
		}
	}
	for _, a := range whose {
		if err := s.lastItemsOf(ctx, a); err != nil {
			return err
		}
	}
	for _, c := range contacts {
		if c.Seen && abroad(c.Address) && !s.lastSent[c.Address] {
			s.lastSent[c.Address] = true
			if err := s.personEvents(ctx, c.Address); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Session) lastItemsOf(ctx context.Context, a core.Address) error {
	if s.lastSent[a] {
		return nil
	}
	s.lastSent[a] = true
	events, err := s.srv.lastEvents(ctx, a, pep.Asker{Who: s.account, JID: s.jid}, func(node string) bool { return s.notify[node] })
	for _, ev := range events {
		m := s.srv.pepMessage(ev, s.jid)
		s.Send(m.Append(translate.Delay(ev.Items[0].Published, s.srv.names.JID(a).String())))
	}
	return err
}

// lastEvents makes the notifications of the latest items of those of an account's nodes that one may read and wants.
func (srv *Server) lastEvents(ctx context.Context, a core.Address, by pep.Asker, wanted func(node string) bool) ([]*pepEvent, error) {
	var out []*pepEvent
	err := srv.Hub.Read(ctx, func(v hub.View) error {
		nodes, err := pep.ReadNodes(v, a)
		if err != nil {
			return err
		}
		for name, made := range madeNodes {
			if _, ok := nodes[name]; !ok {
				nodes[name] = made.config
			}
		}
		for _, n := range sortedNames(nodes) {
			c := nodes[n]
			if c.SendLast != "on_sub_and_presence" || !wanted(n) {
				continue
			}
			if err := pep.MayRead(v, a, n, c, by); isStanzaError(err) {
				continue
			} else if err != nil {
				return err
			}
			ev, err := srv.lastEvent(ctx, v, a, n, c)
			if err != nil {
				return err
			}
			if ev != nil {
				out = append(out, ev)
			}
		}
		return nil
	})
	return out, err
}

// lastEvent makes the notification of a node's latest item; nil if it has none.
func (srv *Server) lastEvent(ctx context.Context, v hub.View, a core.Address, node string, c pep.Config) (*pepEvent, error) {
	items, err := srv.nodeItems(ctx, v, a, node, 1)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	return &pepEvent{Account: a, Node: node, Items: items[len(items)-1:], Config: c}, nil
}

// contactArrived sends what one who has just become visible has published.
func (s *Session) contactArrived(who core.Address, _ *element.Element) {
	if who.IsLocal() && len(s.notify) > 0 && !s.lastSent[who] {
		if err := s.lastItemsOf(context.Background(), who); err != nil {
			s.Log().Error("sending last items", "err", err)
		}
	}
}

// ForeignPresence is told, besides the hub, that a client on another server has sent available presence to an account here: it then
// gets what the account has published and it wants to hear of, and the account learns how the sender appears.
func (srv *Server) ForeignPresence(ctx context.Context, st *element.Element) {
	from, err1 := translate.ParseJID(st.Attr("from"))
	to, err2 := translate.ParseJID(st.Attr("to"))
	if err1 != nil || err2 != nil || from.Resource == "" || srv.Router == nil || st.Attr("type") != "" {
		return
	}
	account, err1 := srv.names.Address(to.Bare())
	who, err2 := srv.names.Address(from.Bare())
	if err1 != nil || err2 != nil || !account.IsLocal() {
		return
	}
	srv.profiles.presence(ctx, account, who, st)
	c := st.Child(nsCaps, "c")
	if c == nil {
		return
	}
	if seen, err := srv.sees(ctx, account, who); err != nil || !seen {
		return
	}
	send := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		events, err := srv.lastEvents(ctx, account, pep.Asker{Who: who, JID: from}, func(node string) bool { return srv.caps.wants(c, node) })
		if err != nil {
			srv.Log.Error("sending last items to another server", "err", err)
		}
		for _, ev := range events {
			srv.Router.Route(srv.pepMessage(ev, from))
		}
	}
	if srv.caps.known(c) {
		send()
		return
	}
	id := srv.caps.ask(c, from, func() { go send() })
	if id == "" {
		return
	}
	iq := capsQuestion(c).SetAttr("id", id).SetAttr("from", to.Bare().String()).SetAttr("to", from.String())
	srv.Router.Route(iq)
}
