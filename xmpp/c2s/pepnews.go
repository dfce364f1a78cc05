package c2s

import (
	"context"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// pepTopic is that of [hub.PokeNews] about personal eventing.
const pepTopic = "xmpp-pep"

// pepEvent is what happened to a node.
type pepEvent struct {
	Account   core.Address
	Node      string
	Access    string
	Items     []pepItem
	Retracted []string
	Whole     string // "delete" or "purge" of the node, else ""
}

// element writes the event as it stands in a notification.
//
// spec: XEP-0060 §7.1.2.1
func (ev *pepEvent) element() *element.Element {
	e := element.New(nsPubSubEv, "event")
	if ev.Whole != "" {
		e.Add("", ev.Whole).SetAttr("node", ev.Node)
		return e
	}
	list := e.Add("", "items").SetAttr("node", ev.Node)
	for _, it := range ev.Items {
		list.Append(itemElement(nsPubSubEv, it, false))
	}
	for _, id := range ev.Retracted {
		list.Add("", "retract").SetAttr("id", id)
	}
	return e
}

// message is the notification for one JID.
//
// spec: XEP-0163 §4.3
func (srv *Server) pepMessage(ev *pepEvent, to translate.JID) *element.Element {
	m := element.New(translate.NSClient, "message").SetAttr("type", "headline")
	m.SetAttr("from", srv.names.JID(ev.Account).String()).SetAttr("to", to.String()).SetAttr("id", core.NewToken()[:16])
	return m.Append(ev.element())
}

// announce tells, after the commit, the account's own clients and those who see its presence.
func (q *question) announce(tx hub.Tx, ev *pepEvent) error {
	to := []core.Address{ev.Account}
	var foreign []core.Address
	if ev.Access != accessWhitelist {
		contacts, err := tx.Contacts(ev.Account)
		if err != nil {
			return err
		}
		for _, c := range contacts {
			switch {
			case !c.Sees:
			case c.Address.IsLocal():
				to = append(to, c.Address)
			case c.Address.Network == core.XMPP:
				foreign = append(foreign, c.Address)
			}
		}
	}
	tx.OnCommit(func() {
		q.srv.Hub.Poke(to, hub.PokeNews{Topic: pepTopic, Data: ev})
		if len(foreign) > 0 && q.srv.Router != nil {
			go q.srv.announceForeign(context.WithoutCancel(q.ctx), ev, foreign)
		}
	})
	return nil
}

// announceForeign tells those clients of contacts on other servers that are there and want to hear of it.
//
// spec: XEP-0163 §4.2
func (srv *Server) announceForeign(ctx context.Context, ev *pepEvent, contacts []core.Address) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, a := range contacts {
		there, err := srv.Hub.PresenceOf(ctx, ev.Account, a)
		if err != nil {
			srv.Log.Error("announcing to another server", "err", err)
			return
		}
		for _, p := range there {
			if p.Session == "" || !srv.caps.wants(capsIn(p.Native), ev.Node) {
				continue
			}
			srv.Router.Route(srv.pepMessage(ev, srv.names.JID(a).With(p.Session)))
		}
	}
}

// pepNews shows the client a notification that it asked for.
func (s *Session) pepNews(n hub.PokeNews) {
	ev, ok := n.Data.(*pepEvent)
	if !ok || n.Topic != pepTopic || !s.Available() || !s.notify[ev.Node] {
		return
	}
	s.Send(s.srv.pepMessage(ev, s.jid))
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
	return nil
}

func (s *Session) lastItemsOf(ctx context.Context, a core.Address) error {
	if s.lastSent[a] {
		return nil
	}
	s.lastSent[a] = true
	events, err := s.srv.lastEvents(ctx, a, func(node string, c nodeConfig) bool {
		return s.notify[node] && (a == s.account || c.Access != accessWhitelist)
	})
	for _, ev := range events {
		m := s.srv.pepMessage(ev, s.jid)
		s.Send(m.Append(translate.Delay(ev.Items[0].Published, s.srv.names.JID(a).String())))
	}
	return err
}

// lastEvents makes the notifications of the latest items of an account's nodes.
func (srv *Server) lastEvents(ctx context.Context, a core.Address, wanted func(node string, c nodeConfig) bool) ([]*pepEvent, error) {
	var out []*pepEvent
	err := srv.Hub.Read(ctx, func(v hub.View) error {
		nodes, err := readNodes(hubstore.Querier(v), a)
		if err != nil {
			return err
		}
		for _, made := range []string{nodeAvatar, nodeNick} {
			if _, ok := nodes[made]; !ok {
				nodes[made] = defaultConfig(made)
			}
		}
		names := make([]string, 0, len(nodes))
		for n := range nodes {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			if c := nodes[n]; c.SendLast == "never" || !wanted(n, c) {
				continue
			}
			items, err := srv.nodeItems(ctx, v, a, n, 1)
			if err != nil {
				return err
			}
			if len(items) > 0 {
				out = append(out, &pepEvent{Account: a, Node: n, Items: items[len(items)-1:], Access: nodes[n].Access})
			}
		}
		return nil
	})
	return out, err
}

// contactArrived sends what one who has just become visible has published.
func (s *Session) contactArrived(who core.Address, _ *element.Element) {
	if who.IsLocal() && len(s.notify) > 0 && !s.lastSent[who] {
		if err := s.lastItemsOf(context.Background(), who); err != nil {
			s.log.Error("sending last items", "err", err)
		}
	}
}

// ForeignPresence is told, besides the hub, that a client on another server has sent available presence to an account here: it then
// gets what the account has published and it wants to hear of.
func (srv *Server) ForeignPresence(ctx context.Context, st *element.Element) {
	from, err1 := translate.ParseJID(st.Attr("from"))
	to, err2 := translate.ParseJID(st.Attr("to"))
	c := st.Child(nsCaps, "c")
	if err1 != nil || err2 != nil || from.Resource == "" || c == nil || srv.Router == nil || st.Attr("type") != "" {
		return
	}
	account, err1 := srv.names.Address(to.Bare())
	who, err2 := srv.names.Address(from.Bare())
	if err1 != nil || err2 != nil || !account.IsLocal() {
		return
	}
	if seen, err := srv.sees(ctx, account, who); err != nil || !seen {
		return
	}
	send := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		events, err := srv.lastEvents(ctx, account, func(node string, cfg nodeConfig) bool {
			return cfg.Access != accessWhitelist && srv.caps.wants(c, node)
		})
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
