package c2s

import (
	"context"
	"errors"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// bookmarkItems are the rooms that the account is in, whether or not a client has bookmarked them, and what else clients have.
//
// spec: XEP-0402 §3
func (srv *Server) bookmarkItems(_ context.Context, v hub.View, account core.Address) ([]pep.Item, error) {
	items, err := pep.ReadItems(v, account, nsBookmarks, pep.MaxItems)
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
		if gone, err := srv.wentOn(v, p.Conv, s); err != nil {
			return nil, err
		} else if gone {
			continue
		}
		id := srv.names.RoomJID(c.Address).String()
		joined[id] = true
		i := slices.IndexFunc(items, func(it pep.Item) bool { return it.ID == id })
		if i < 0 {
			items = append(items, pep.Item{ID: id, Published: c.Created, Payload: element.New(nsBookmarks, "conference")})
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

// storageItems is the one list of bookmarks as older clients read it, in private storage and in a node.
//
// spec: XEP-0048 §2
// spec: XEP-0411 §3
func (srv *Server) storageItems(ctx context.Context, v hub.View, account core.Address) ([]pep.Item, error) {
	items, err := srv.bookmarkItems(ctx, v, account)
	if err != nil {
		return nil, err
	}
	out := element.New(nsStorage, "storage")
	for _, it := range items {
		if it.Payload.Is(nsBookmarks, "conference") {
			c := it.Payload.Copy().Rename(nsBookmarks, nsStorage).SetAttr("jid", it.ID)
			out.Append(c.RemoveChildren(func(e *element.Element) bool { return e.Name.Local == "extensions" }))
		}
	}
	urls, err := v.Datum(account, "", dataURLs)
	if err == nil && urls.Data != nil {
		kept, err := element.Parse(urls.Data, element.DefaultLimits)
		if err != nil {
			return nil, err
		}
		out.Append(kept.Elements()...)
	} else if err != nil && !errors.Is(err, hub.ErrNone) {
		return nil, err
	}
	return []pep.Item{{ID: "current", Published: time.UnixMilli(0).UTC(), Payload: out}}, nil
}

// dataURLs is the private data with the bookmarks of web pages, of which only older clients know.
const dataURLs = "xmpp:bookmarks.url"

// shownKey is under which a session notes which bookmarks its client has seen in the old form.
type shownKey struct{}

// shownBookmarks notes what the client knows of the old list, so that what it leaves out of the next one is known to be taken away by it
// and not something of which it has not heard.
func (s *Session) shownBookmarks(items []pep.Item) {
	shown := map[string]bool{}
	for _, it := range items {
		for _, c := range it.Payload.ChildrenNamed("", "conference") {
			shown[c.Attr("jid")] = true
		}
	}
	s.SetValue(shownKey{}, shown)
}

// oldBookmarks is the list for the client, which is noted to have seen it.
//
// spec: XEP-0402 §5.3
func (q *question) oldBookmarks() (*element.Element, error) {
	var items []pep.Item
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		items, err = q.srv.storageItems(q.ctx, v, q.who)
		return err
	})
	if err != nil {
		return nil, err
	}
	q.s.shownBookmarks(items)
	return items[0].Payload, nil
}

// takeStorage takes the old list as an older client publishes it.
//
// spec: XEP-0411 §3
func (q *question) takeStorage(it pep.Item) (taken bool, err error) {
	if !it.Payload.Is(nsStorage, "storage") {
		return false, pep.Fail(translate.BadRequest, "invalid-payload")
	}
	return true, q.oldBookmarksSet(it.Payload)
}

// oldBookmarksSet does what an older client has changed in the whole list that it writes. A bookmark that it leaves out is taken away
// only if it had seen it: others may have added it meanwhile.
func (q *question) oldBookmarksSet(storage *element.Element) error {
	var had, native []pep.Item
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		if native, err = q.srv.bookmarkItems(q.ctx, v, q.who); err == nil {
			had, err = q.srv.storageItems(q.ctx, v, q.who)
		}
		return err
	})
	if err != nil {
		return err
	}
	var changed []pep.Item
	named := map[string]bool{}
	for _, c := range storage.ChildrenNamed("", "conference") {
		j, err := translate.ParseJID(c.Attr("jid"))
		if err != nil || j.Local == "" {
			continue
		}
		id := j.Bare().String()
		same := slices.ContainsFunc(had[0].Payload.Elements(), func(o *element.Element) bool { return element.Equal(o, c) })
		if named[id] = true; !same {
			changed = append(changed, q.converted(id, c, native))
		}
	}
	for part := range slices.Chunk(changed, maxPublished) {
		if err := q.put(publication{node: nsBookmarks, items: part}); err != nil {
			return err
		}
	}
	shown, _ := q.s.Value(shownKey{}).(map[string]bool)
	for _, it := range native {
		if shown[it.ID] && !named[it.ID] {
			if err := q.takeOff(nsBookmarks, []string{it.ID}, true); err != nil {
				return err
			}
		}
	}
	q.s.shownBookmarks([]pep.Item{{Payload: storage}})
	return q.putURLs(storage)
}

// converted is a bookmark of an older client as a native one, with the extensions that the native one had: whether it is pinned, when to
// notify.
//
// spec: XEP-0402 §5.3
// spec: XEP-0469 §3
// spec: XEP-0492 §3
func (q *question) converted(id string, c *element.Element, native []pep.Item) pep.Item {
	it := pep.Item{ID: id, Publisher: q.from.String(), Published: time.Now().UTC()}
	it.Payload = c.Copy().RemoveAttr("jid").Rename(nsStorage, nsBookmarks)
	if i := slices.IndexFunc(native, func(n pep.Item) bool { return n.ID == id }); i >= 0 {
		if x := native[i].Payload.Child("", "extensions"); x != nil {
			it.Payload.Append(x.Copy())
		}
	}
	return it
}

// putURLs keeps the bookmarks of web pages.
func (q *question) putURLs(storage *element.Element) error {
	urls := element.New(nsStorage, "storage").Append(storage.ChildrenNamed("", "url")...)
	old, err := q.datum(q.who, dataURLs)
	if err != nil || old == nil && len(urls.Elements()) == 0 || old != nil && element.Equal(old, urls) {
		return err
	}
	return q.putDatum(dataURLs, urls)
}

// oldBookmarkNews shows an older client the whole list after a change of any of its forms.
//
// spec: XEP-0411 §3
func (s *Session) oldBookmarkNews(ctx context.Context) error {
	if !s.notify[nsStorage] || !s.Available() {
		return nil
	}
	ev := &pepEvent{Account: s.account, Node: nsStorage, Config: defaultConfig(nsStorage)}
	err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		ev.Items, err = s.srv.storageItems(ctx, v, s.account)
		return err
	})
	if err == nil {
		s.shownBookmarks(ev.Items)
		s.Send(s.srv.pepMessage(ev, s.jid))
	}
	return err
}

// bookmarksPublished leaves the rooms that are to be joined no longer.
//
// spec: XEP-0402 §3.4
func (q *question) bookmarksPublished(items []pep.Item) error {
	for _, it := range items {
		if c := it.Payload; c.Is(nsBookmarks, "conference") && !isTrue(c.Attr("autojoin")) {
			if err := q.leaveBookmarked(it.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// bookmarkNews shows the client that the account has entered or left a room, by whatever network's client.
func (s *Session) bookmarkNews(ctx context.Context, n hub.EventNews, c core.Membership) error {
	if !s.Available() || n.State.Creation.Type != "" || n.Conv.Address.IsZero() {
		return nil
	}
	ev := &pepEvent{Account: s.account, Node: nsBookmarks, Config: defaultConfig(nsBookmarks)}
	id := s.srv.names.RoomJID(n.Conv.Address).String()
	switch c.Standing {
	case core.Joined:
		err := s.srv.Hub.Read(ctx, func(v hub.View) error {
			all, err := s.srv.bookmarkItems(ctx, v, s.account)
			ev.Items = slices.DeleteFunc(all, func(it pep.Item) bool { return it.ID != id })
			return err
		})
		if err != nil || len(ev.Items) == 0 {
			return err
		}
	case core.Left, core.Banned:
		ev.Retracted = []string{id}
	default:
		return nil
	}
	if s.notify[nsBookmarks] {
		s.Send(s.srv.pepMessage(ev, s.jid))
	}
	return s.oldBookmarkNews(ctx)
}

// wentOn says whether a room went on in another, and nobody need wait any longer to be told so.
func (srv *Server) wentOn(v hub.View, conv core.ConvID, s *core.State) (bool, error) {
	if s.MovedTo == nil {
		return false, nil
	}
	waits, err := srv.Hub.Following(v, conv)
	return !waits, err
}

// bookmarkGone takes the bookmark off that leads to where a room was before it went on in another. The other one's comes with the
// account's entering it.
//
// spec: XEP-0402 §3.3
func (s *Session) bookmarkGone(ctx context.Context, n hub.EventNews) error {
	if !s.Available() || n.State.MovedTo == nil || n.Conv.Address.IsZero() {
		return nil
	}
	gone := false
	err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		gone, err = s.srv.wentOn(v, n.Conv.ID, n.State)
		return err
	})
	if err != nil || !gone {
		return err
	}
	if s.notify[nsBookmarks] {
		s.Send(s.srv.pepMessage(&pepEvent{Account: s.account, Node: nsBookmarks, Config: defaultConfig(nsBookmarks),
			Retracted: []string{s.srv.names.RoomJID(n.Conv.Address).String()}}, s.jid))
	}
	return s.oldBookmarkNews(ctx)
}

// leaveBookmarked ends the membership in a room of ours whose bookmark was taken away or joins no longer.
func (q *question) leaveBookmarked(id string) error {
	j, err := translate.ParseJID(id)
	if err != nil {
		return nil //nolint:nilerr // then it is no room
	}
	if _, ours := q.srv.names.RoomsOf(j.Domain); !ours {
		if q.srv.elsewhere != nil {
			return q.srv.elsewhere.Leave(q.ctx, q.account, j.Bare(), "")
		}
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
