package c2s

import (
	"context"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// nsAssist is the feature of an account whose messages may say how far it has read.
const nsAssist = "urn:xmpp:mds:server-assist:0"

// chat is the conversation that a JID names to an account.
type chat struct {
	place lookup.Place
	convs []core.ConvID
	by    translate.JID // who gives its messages their stanza-ids
}

// chatAt finds the conversations that a JID names; none where there are none.
func (srv *Server) chatAt(v hub.View, account core.Address, j translate.JID) (c chat, err error) {
	if _, ours := srv.names.RoomsOf(j.Domain); !ours {
		peer, err := srv.names.Address(j.Bare())
		if err != nil {
			return c, nil //nolint:nilerr // it names nobody
		}
		c.convs, err = v.Directs(account, peer)
		c.place, c.by = lookup.Place{Peer: peer}, srv.names.JID(account)
		if err != nil || len(c.convs) > 0 {
			return c, err
		}
	}
	room, err := srv.names.RoomAddress(j.Bare())
	if err != nil {
		return chat{}, nil //nolint:nilerr // likewise
	}
	id, err := v.ConversationAt(room)
	if errors.Is(err, hub.ErrNone) {
		return chat{}, nil
	}
	return chat{lookup.Place{Conv: id}, []core.ConvID{id}, j.Bare()}, err
}

// displayedItems says how far the account has read each of its conversations, on whatever network's client, and what else clients
// have published.
//
// spec: XEP-0490 §4.1
func (srv *Server) displayedItems(_ context.Context, v hub.View, account core.Address) ([]pep.Item, error) {
	kept, err := pep.ReadItems(v, account, nodeDisplayed, pep.MaxItems)
	if err != nil {
		return nil, err
	}
	places, err := v.Places(account)
	if err != nil {
		return nil, err
	}
	made := map[string]pep.Item{}
	var order []string
	for _, p := range places {
		r, found, err := lastDisplayed(v, account, p.Conv)
		if err != nil {
			return nil, err
		}
		if !found || p.Standing != core.Joined {
			continue
		}
		it, ok, err := srv.displayedItem(v, account, r)
		if err != nil {
			return nil, err
		}
		old, again := made[it.ID]
		if !ok || again && old.Published.After(it.Published) {
			continue
		}
		if !again {
			order = append(order, it.ID)
		}
		made[it.ID] = it
	}
	var out []pep.Item
	for _, it := range kept {
		if _, again := made[it.ID]; !again {
			out = append(out, it)
		}
	}
	for _, id := range order {
		out = append(out, made[id])
	}
	return out[max(0, len(out)-pep.MaxItems):], nil
}

// lastDisplayed is how far somebody has read a conversation, publicly or not.
func lastDisplayed(v hub.View, who core.Address, conv core.ConvID) (last hub.Reading, found bool, err error) {
	for _, private := range []bool{false, true} {
		r, err := v.Reading(conv, who, core.StageDisplayed, "", private)
		switch {
		case errors.Is(err, hub.ErrNone):
		case err != nil:
			return last, false, err
		case !found || r.At > last.At:
			last, found = r, true
		}
	}
	return last, found, nil
}

// displayedItem is the item that says a reading; ok is false where XMPP has no name for the conversation.
func (srv *Server) displayedItem(v hub.View, account core.Address, r hub.Reading) (it pep.Item, ok bool, err error) {
	c, err := v.Conversation(r.Conv)
	if err != nil {
		return it, false, err
	}
	id, by := string(r.Event), srv.names.JID(account)
	var name translate.JID
	if c.Shape == core.Direct {
		s, err := v.State(r.Conv)
		if err != nil {
			return it, false, err
		}
		peer := peerOf(s, account)
		if peer.IsZero() {
			return it, false, nil
		}
		name = srv.names.JID(peer)
	} else {
		if c.Address.IsZero() {
			return it, false, nil
		}
		name = srv.names.RoomJID(c.Address)
		by = name
		if id, err = roomsID(v, r); err != nil {
			return it, false, err
		}
	}
	payload := element.New(nodeDisplayed, "displayed")
	payload.Add(translate.NSSID, "stanza-id").SetAttr("by", by.String()).SetAttr("id", id)
	return pep.Item{ID: name.String(), Published: r.Time.UTC(), Payload: payload}, true, nil
}

// roomsID is what a room calls a message: one elsewhere has given it an id of its own.
func roomsID(v hub.View, r hub.Reading) (string, error) {
	aliases, err := v.Aliases(r.Event)
	for _, a := range aliases {
		if a.Kind == translate.AliasStanza && a.Scope == translate.RoomScope(r.Conv) {
			return a.Key, err
		}
	}
	return string(r.Event), err
}

// takeDisplayed moves the account's displayed position, which is the same on every network, to where an item says. Contacts do not
// hear of it. What names nothing here is kept as it stands.
//
// spec: XEP-0490 §4.2
func (q *question) takeDisplayed(it pep.Item) (taken bool, err error) {
	return q.srv.moveDisplayed(q.ctx, q.account, q.s.ID(), it)
}

func (srv *Server) moveDisplayed(ctx context.Context, account core.Address, session string, it pep.Item) (taken bool, err error) {
	sid := it.Payload.Child(translate.NSSID, "stanza-id")
	if !it.Payload.Is(nodeDisplayed, "displayed") || sid == nil || sid.Attr("id") == "" {
		return false, pep.Fail(translate.BadRequest, "invalid-payload")
	}
	j, err := translate.ParseJID(it.ID)
	if err != nil || j.Resource != "" {
		return false, nil //nolint:nilerr // it may be anything
	}
	var e core.Event
	err = srv.Hub.Read(ctx, func(v hub.View) error {
		c, err := srv.chatAt(v, account, j)
		if err != nil || len(c.convs) == 0 {
			return err
		}
		id, err := lookup.Find(v, account, c.place, translate.Ref{ID: sid.Attr("id"), Author: translate.AnyMessage})
		if err == nil && id != "" {
			e, err = v.Event(id)
		}
		return err
	})
	if err != nil || e.ID == "" {
		return false, err
	}
	err = srv.Hub.MarkDisplayed(ctx, hub.ReadingRequest{Conv: e.Conv, Who: account, Event: e.ID, Private: true, From: session})
	if hub.CodeOf(err) != "" {
		return false, nil
	}
	return err == nil, err
}

// displayedNews shows the client how far the account has read, which is told to the one that said so too, as of every node.
//
// spec: XEP-0490 §4.3
func (s *Session) displayedNews(ctx context.Context, n hub.ReadingNews) error {
	if !s.notify[nodeDisplayed] || !s.Available() || !n.Own || n.Reading.Stage != core.StageDisplayed || n.Reading.Thread != "" {
		return nil
	}
	var ev *pepEvent
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		it, ok, err := s.srv.displayedItem(v, s.account, n.Reading)
		if err != nil || !ok {
			return err
		}
		c, err := pep.Node(v, s.account, nodeDisplayed)
		if isStanzaError(err) {
			c, err = defaultConfig(nodeDisplayed), nil
		}
		ev = &pepEvent{Account: s.account, Node: nodeDisplayed, Items: []pep.Item{it}, Config: c}
		return err
	})
	if err == nil && ev != nil {
		s.Send(s.srv.pepMessage(ev, s.jid))
	}
	return err
}

// assist takes what a message says of how far its sender has read, which is nobody else's concern, off the message.
//
// spec: XEP-0490 §4.4
func (s *Session) assist(ctx context.Context, st *element.Element) error {
	said := st.Child(nodeDisplayed, "displayed")
	if said == nil {
		return nil
	}
	st.RemoveChildren(func(c *element.Element) bool { return c.Is(nodeDisplayed, "displayed") })
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil || to.Resource != "" {
		return nil //nolint:nilerr // the message itself is refused, or says it to nobody
	}
	q := &question{srv: s.srv, ctx: ctx, from: s.jid, who: s.account, s: s, account: s.account, to: s.jid.Bare(), iq: st,
		payload: element.New(nsPubSub, "pubsub")}
	publish := element.New(nsPubSub, "publish").SetAttr("node", nodeDisplayed)
	publish.Add("", "item").SetAttr("id", to.String()).Append(said)
	_, err = q.publish(publish)
	if isStanzaError(err) {
		return nil // the message has not failed
	}
	return err
}
