package c2s

import (
	"errors"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// bookmarks are the rooms that the account is in, whether or not a client has bookmarked them, and what else clients have.
//
// spec: XEP-0402 §3
func (srv *Server) bookmarks(v hub.View, account core.Address) ([]pepItem, error) {
	items, err := stored(v, account, nsBookmarks, maxPEPItems)
	if err != nil {
		return nil, err
	}
	places, err := v.Places(account)
	if err != nil {
		return nil, err
	}
	joined := map[string]bool{}
	for _, p := range places {
		if p.Standing != core.Joined || !p.Peer.IsZero() {
			continue
		}
		c, err := v.Conversation(p.Conv)
		if err != nil {
			return nil, err
		}
		if c.Shape != core.Group || c.Address.IsZero() {
			continue
		}
		s, err := v.State(p.Conv)
		if err != nil {
			return nil, err
		}
		if s.Creation.Type != "" {
			continue // a space, for one: not a room of people
		}
		id := srv.names.RoomJID(c.Address).String()
		joined[id] = true
		i := slices.IndexFunc(items, func(it pepItem) bool { return it.ID == id })
		if i < 0 {
			items = append(items, pepItem{ID: id, Published: c.Created, Payload: element.New(nsBookmarks, "conference")})
			i = len(items) - 1
		}
		items[i].Payload = bookmark(items[i].Payload, s.Name, p.Nick)
	}
	for i, it := range items {
		if j, err := translate.ParseJID(it.ID); err == nil && !joined[it.ID] && it.Payload != nil {
			if _, ours := srv.names.RoomsOf(j.Domain); ours {
				items[i].Payload.SetAttr("autojoin", "false")
			}
		}
	}
	return items, nil
}

// bookmark fills in what the room says of itself where the client's bookmark does not.
func bookmark(c *element.Element, name, nick string) *element.Element {
	if c == nil || !c.Is(nsBookmarks, "conference") {
		c = element.New(nsBookmarks, "conference")
	}
	c.SetAttr("autojoin", "true")
	if c.Attr("name") == "" && name != "" {
		c.SetAttr("name", name)
	}
	if c.Child("", "nick") == nil && nick != "" {
		c.Append(element.NewText(nsBookmarks, "nick", nick))
	}
	return c
}

// nsStorage is the namespace of the bookmarks of older clients.
const nsStorage = "storage:bookmarks"

// oldBookmarks writes the bookmarks as older clients read them.
//
// spec: XEP-0048 §2
// spec: XEP-0402 §5.3
func (q *question) oldBookmarks() (*element.Element, error) {
	var items []pepItem
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		items, err = q.srv.bookmarks(v, q.who)
		return err
	})
	out := element.New(nsStorage, "storage")
	for _, it := range items {
		if it.Payload.Is(nsBookmarks, "conference") {
			c := it.Payload.Copy().Rename(nsBookmarks, nsStorage).SetAttr("jid", it.ID)
			out.Append(c.RemoveChildren(func(e *element.Element) bool { return e.Name.Local == "extensions" }))
		}
	}
	return out, err
}

// oldBookmarksSet publishes what an older client has changed. A room that it leaves out is not left: such clients write the whole
// list, and may not know of what others have added meanwhile.
func (q *question) oldBookmarksSet(storage *element.Element) error {
	old, err := q.oldBookmarks()
	if err != nil {
		return err
	}
	publish := element.New(nsPubSub, "publish").SetAttr("node", nsBookmarks)
	for _, c := range storage.ChildrenNamed("", "conference") {
		same := slices.ContainsFunc(old.Elements(), func(o *element.Element) bool { return element.Equal(o, c) })
		j, err := translate.ParseJID(c.Attr("jid"))
		if same || err != nil || j.Local == "" {
			continue
		}
		it := publish.Add("", "item").SetAttr("id", j.Bare().String())
		it.Append(c.Copy().RemoveAttr("jid").Rename(nsStorage, nsBookmarks))
	}
	if len(publish.Elements()) == 0 {
		return nil
	}
	_, err = q.publish(publish)
	return err
}

// bookmarkNews shows the client that the account has entered or left a room, by whatever network's client.
func (s *Session) bookmarkNews(n hub.EventNews, c core.Membership) {
	if !s.notify[nsBookmarks] || !s.Available() || n.State.Creation.Type != "" {
		return
	}
	ev := &pepEvent{Account: s.account, Node: nsBookmarks}
	id := s.srv.names.RoomJID(n.Conv.Address).String()
	switch c.Standing {
	case core.Joined:
		ev.Items = []pepItem{{ID: id, Published: time.Now(), Payload: bookmark(nil, n.State.Name, c.Nick)}}
	case core.Left, core.Banned:
		ev.Retracted = []string{id}
	default:
		return
	}
	s.Send(s.srv.pepMessage(ev, s.jid))
}

// leaveBookmarked ends the membership in a room of ours whose bookmark was taken away or joins no longer.
func (q *question) leaveBookmarked(id string) error {
	j, err := translate.ParseJID(id)
	if err != nil {
		return nil //nolint:nilerr // then it is no room
	}
	if _, ours := q.srv.names.RoomsOf(j.Domain); !ours {
		return nil
	}
	room, err := q.srv.names.RoomAddress(j.Bare())
	if err != nil {
		return nil //nolint:nilerr // likewise
	}
	var conv core.ConvID
	in := false
	err = q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		if conv, err = v.ConversationAt(room); err != nil {
			return err
		}
		s, err := v.State(conv)
		in = err == nil && s.Standing(q.account) == core.Joined
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		return nil
	}
	if err != nil || !in {
		return err
	}
	_, err = q.srv.Hub.Submit(q.ctx, hub.Draft{Conv: conv, Sender: q.account, From: q.s.ID(),
		Content: core.Membership{Target: q.account, Standing: core.Left}})
	return err
}
