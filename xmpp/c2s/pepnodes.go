package c2s

import (
	"context"
	"crypto/sha1" //nolint:gosec // the hash that names avatars
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// nodeItems reads the latest items of a node, oldest first. Of the nodes that show what other networks show too, it is the profile
// and the memberships that count, and what a client has published only where it agrees with them.
func (srv *Server) nodeItems(ctx context.Context, v hub.View, account core.Address, node string, most int) ([]pepItem, error) {
	switch node {
	case nsBookmarks:
		return srv.bookmarks(v, account)
	case nodeNick:
		return nickItems(v, account)
	case nodeAvatar, nodePicture:
		return srv.avatarItems(ctx, v, account, node)
	}
	return stored(v, account, node, most)
}

// nickItems is the one item of the node with the name.
//
// spec: XEP-0172 §4.3
func nickItems(v hub.View, account core.Address) ([]pepItem, error) {
	p, err := v.Profile(account)
	if err != nil || p.Name == "" {
		return nil, err
	}
	return []pepItem{{ID: "current", Published: time.UnixMilli(0).UTC(), Payload: element.NewText(nodeNick, "nick", p.Name)}}, nil
}

// avatarItems is what was published, or what was made of a picture that came from another network's client.
//
// spec: XEP-0084 §3
func (srv *Server) avatarItems(ctx context.Context, v hub.View, account core.Address, node string) ([]pepItem, error) {
	p, err := v.Profile(account)
	if err != nil {
		return nil, err
	}
	if p.Avatar == nil {
		if node == nodePicture {
			return nil, nil
		}
		return stored(v, account, node, 1) // may say that there is none
	}
	id, picture, err := srv.avatarID(ctx, v, p.Avatar)
	if err != nil || id == "" {
		return nil, err
	}
	if it, found, err := readItem(hubstore.Querier(v), account, node, id); err != nil || found {
		return []pepItem{it}, err
	}
	it := pepItem{ID: id, Published: time.UnixMilli(0).UTC()}
	if node == nodePicture {
		it.Payload = element.NewText(nodePicture, "data", base64.StdEncoding.EncodeToString(picture))
		return []pepItem{it}, nil
	}
	it.Payload = element.New(nodeAvatar, "metadata")
	info := it.Payload.Add("", "info").SetAttr("id", id).SetAttr("bytes", strconv.Itoa(len(picture))).SetAttr("type", p.Avatar.Type)
	if p.Avatar.Width > 0 {
		info.SetAttr("width", strconv.Itoa(p.Avatar.Width)).SetAttr("height", strconv.Itoa(p.Avatar.Height))
	}
	return []pepItem{it}, nil
}

// avatarID is the SHA-1 of a picture; empty if the picture is not here or too large for a stanza.
func (srv *Server) avatarID(ctx context.Context, v hub.View, f *core.File) (string, []byte, error) {
	if srv.Files == nil || f.Media == "" {
		return "", nil, nil
	}
	if _, err := v.Media(f.Media); errors.Is(err, hub.ErrNone) {
		return "", nil, nil
	} else if err != nil {
		return "", nil, err
	}
	picture, _, err := srv.avatarBytes(ctx, f)
	if err != nil || len(picture) > maxAvatar {
		return "", nil, nil //nolint:nilerr // a picture that cannot be read is none
	}
	sum := sha1.Sum(picture) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:]), picture, nil
}

// published does what a publication means to the account on every network.
func (q *question) published(node string, items []pepItem) error {
	last := items[len(items)-1]
	switch node {
	case nodeNick:
		return q.changeProfile(func(p *core.Profile) { p.Name = strings.TrimSpace(last.Payload.Text()) })
	case nodeAvatar:
		return q.avatarPublished(last)
	case nsBookmarks:
		for _, it := range items {
			if c := it.Payload; c.Is(nsBookmarks, "conference") && !isTrue(c.Attr("autojoin")) {
				if err := q.leaveBookmarked(it.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func isTrue(s string) bool { return s == "true" || s == "1" }

// avatarPublished makes the published picture that of the profile.
//
// spec: XEP-0084 §3.2
func (q *question) avatarPublished(it pepItem) error {
	info := it.Payload.Child("", "info")
	if info == nil {
		return q.changeProfile(func(p *core.Profile) { p.Avatar = nil })
	}
	if q.srv.Files == nil {
		return nil
	}
	var data pepItem
	var found bool
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		data, found, err = readItem(hubstore.Querier(v), q.account, nodePicture, info.Attr("id"))
		return err
	})
	if err != nil || !found {
		return err
	}
	picture, err := decodeBase64(data.Payload.Text())
	if err != nil || len(picture) > maxAvatar {
		return translate.Fail(translate.BadRequest, "the picture cannot be read")
	}
	sum := sha1.Sum(picture) //nolint:gosec // see the import
	if hex.EncodeToString(sum[:]) != strings.ToLower(info.Attr("id")) {
		return translate.Fail(translate.BadRequest, "the picture is not the one that its id says")
	}
	f, err := q.srv.keepAvatar(q.ctx, q.account, picture, info.Attr("type"))
	if err != nil {
		return err
	}
	return q.changeProfile(func(p *core.Profile) { p.Avatar = f })
}

func (q *question) changeProfile(f func(*core.Profile)) error {
	p, err := q.srv.Hub.Profile(q.ctx, q.account)
	if err != nil {
		return err
	}
	was := p
	if f(&p); p == was {
		return nil
	}
	return q.srv.Hub.SetProfile(q.ctx, q.account, p)
}

// profileNews shows the client how somebody appears now, if that did not come from an XMPP client, which tells it itself.
func (s *Session) profileNews(ctx context.Context, n hub.ProfileNews) error {
	if !s.Available() || !n.Who.IsLocal() {
		return nil
	}
	for _, node := range []string{nodeNick, nodeAvatar} {
		if !s.notify[node] {
			continue
		}
		if seen, err := s.srv.sees(ctx, n.Who, s.account); err != nil || !seen && n.Who != s.account {
			return err
		}
		var items []pepItem
		err := s.srv.Hub.Read(ctx, func(v hub.View) (err error) {
			items, err = s.srv.nodeItems(ctx, v, n.Who, node, 1)
			return err
		})
		if err != nil {
			return err
		}
		if len(items) > 0 {
			s.Send(s.srv.pepMessage(&pepEvent{Account: n.Who, Node: node, Items: items}, s.jid))
		}
	}
	return nil
}

// nsPhoto is the namespace in which presence names the picture of the sender.
const nsPhoto = "vcard-temp:x:update"

// addPhoto names the account's picture in presence in which the client does not.
//
// spec: XEP-0153 §3.1
// spec: XEP-0398 §4
func (s *Session) addPhoto(ctx context.Context, presence *element.Element) error {
	x := presence.Child(nsPhoto, "x")
	if x != nil && x.Child("", "photo") != nil && x.ChildText("", "photo") != "" {
		return nil
	}
	id := ""
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		p, err := v.Profile(s.account)
		if err == nil && p.Avatar != nil {
			id, _, err = s.srv.avatarID(ctx, v, p.Avatar)
		}
		return err
	})
	if err != nil || id == "" {
		return err
	}
	presence.RemoveChildren(func(c *element.Element) bool { return c.Is(nsPhoto, "x") })
	presence.Add(nsPhoto, "x").Append(element.NewText(nsPhoto, "photo", id))
	return nil
}
