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
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// The nodes that mean something to the server.
const (
	nsBookmarks   = "urn:xmpp:bookmarks:1"            // XEP-0402
	nodeNick      = "http://jabber.org/protocol/nick" // XEP-0172
	nodeAvatar    = "urn:xmpp:avatar:metadata"        // XEP-0084
	nodePicture   = "urn:xmpp:avatar:data"
	nodeVCard     = "urn:xmpp:vcard4"          // XEP-0292
	nodeDisplayed = "urn:xmpp:mds:displayed:0" // XEP-0490
)

// madeNode is a node of which the server makes up the items, in whole or in part, from what all networks share: the profile, the
// memberships, how far the account has read. It is there even where the account has not made it.
type madeNode struct {
	config  pep.Config // where the account has not made it
	private bool       // and stays so
	items   func(srv *Server, ctx context.Context, v hub.View, account core.Address) ([]pep.Item, error)
	// take, if not nil, does what an item means; an item that it takes is not kept as such.
	take func(q *question, it pep.Item) (taken bool, err error)
	// published and retracted, if not nil, do what they mean after the items are kept or gone.
	published func(q *question, items []pep.Item) error
	retracted func(q *question, id string) error
}

var madeNodes map[string]madeNode

func init() {
	shown := pep.Default()
	hidden := pep.Config{Access: pep.Whitelist, MaxItems: pep.MaxItems, SendLast: "never"}
	one := pep.Config{Access: pep.Whitelist, MaxItems: 1, SendLast: "on_sub_and_presence"}
	madeNodes = map[string]madeNode{
		nodeNick:    {config: shown, items: (*Server).nickItems, published: (*question).nickPublished},
		nodePicture: {config: pep.Config{Access: pep.Presence, MaxItems: 1, SendLast: "never"}, items: itemsOf(nodePicture)},
		nodeAvatar:  {config: shown, items: itemsOf(nodeAvatar), published: (*question).avatarPublished},
		nodeVCard:   {config: pep.Config{Access: pep.Presence, MaxItems: 1, SendLast: "never"}, items: (*Server).vcard4Items, published: (*question).vcard4Published},
		nsBookmarks: {config: hidden, private: true, items: (*Server).bookmarkItems, published: (*question).bookmarksPublished,
			retracted: (*question).leaveBookmarked},
		nsStorage:     {config: one, private: true, items: (*Server).storageItems, take: (*question).takeStorage},
		nodeDisplayed: {config: hidden, private: true, items: (*Server).displayedItems, take: (*question).takeDisplayed},
	}
}

// defaultConfig is that of a new node.
//
// spec: XEP-0163 §5
func defaultConfig(node string) pep.Config {
	if made, ok := madeNodes[node]; ok {
		return made.config
	}
	return pep.Default()
}

// nodeItems reads the latest items of a node, oldest first. Of the nodes that show what other networks show too, it is the profile
// and the memberships that count, and what a client has published only where it agrees with them.
func (srv *Server) nodeItems(ctx context.Context, v hub.View, account core.Address, node string, most int) ([]pep.Item, error) {
	if made, ok := madeNodes[node]; ok {
		return made.items(srv, ctx, v, account)
	}
	return pep.ReadItems(v, account, node, most)
}

// nickItems is the one item of the node with the name.
//
// spec: XEP-0172 §4.3
func (srv *Server) nickItems(_ context.Context, v hub.View, account core.Address) ([]pep.Item, error) {
	p, err := v.Profile(account)
	if err != nil || p.Name == "" {
		return nil, err
	}
	return []pep.Item{{ID: "current", Published: time.UnixMilli(0).UTC(), Payload: element.NewText(nodeNick, "nick", p.Name)}}, nil
}

// nickPublished makes a published name that of the profile.
//
// spec: XEP-0172 §4.3
func (q *question) nickPublished(items []pep.Item) error {
	return q.changeProfile(func(p *core.Profile) { p.Name = strings.TrimSpace(items[len(items)-1].Payload.Text()) })
}

func itemsOf(node string) func(*Server, context.Context, hub.View, core.Address) ([]pep.Item, error) {
	return func(srv *Server, ctx context.Context, v hub.View, account core.Address) ([]pep.Item, error) {
		return srv.avatarItems(ctx, v, account, node)
	}
}

// avatarItems is what was published, or what was made of a picture that came from another network's client.
//
// spec: XEP-0084 §3
func (srv *Server) avatarItems(ctx context.Context, v hub.View, account core.Address, node string) ([]pep.Item, error) {
	p, err := v.Profile(account)
	if err != nil {
		return nil, err
	}
	if p.Avatar == nil {
		if node == nodePicture {
			return nil, nil
		}
		return pep.ReadItems(v, account, node, 1) // may say that there is none
	}
	id, picture, err := srv.avatarID(ctx, v, p.Avatar)
	if err != nil || id == "" {
		return nil, err
	}
	if it, found, err := pep.ReadItem(v, account, node, id); err != nil || found {
		return []pep.Item{it}, err
	}
	it := pep.Item{ID: id, Published: time.UnixMilli(0).UTC()}
	if node == nodePicture {
		it.Payload = element.NewText(nodePicture, "data", base64.StdEncoding.EncodeToString(picture))
		return []pep.Item{it}, nil
	}
	it.Payload = element.New(nodeAvatar, "metadata")
	info := it.Payload.Add("", "info").SetAttr("id", id).SetAttr("bytes", strconv.Itoa(len(picture))).SetAttr("type", p.Avatar.Type)
	if p.Avatar.Width > 0 {
		info.SetAttr("width", strconv.Itoa(p.Avatar.Width)).SetAttr("height", strconv.Itoa(p.Avatar.Height))
	}
	return []pep.Item{it}, nil
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

func isTrue(s string) bool { return s == "true" || s == "1" }

// avatarPublished makes the published picture that of the profile.
//
// spec: XEP-0084 §3.2
func (q *question) avatarPublished(items []pep.Item) error {
	it := items[len(items)-1]
	info := it.Payload.Child("", "info")
	if info == nil {
		return q.changeProfile(func(p *core.Profile) { p.Avatar = nil })
	}
	if q.srv.Files == nil {
		return nil
	}
	var data pep.Item
	var found bool
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		data, found, err = pep.ReadItem(v, q.account, nodePicture, info.Attr("id"))
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
	if f(&p); sameProfile(p, was) {
		return nil
	}
	return q.srv.Hub.SetProfile(q.ctx, q.account, p)
}

// profileNews shows the client how somebody appears now, if that did not come from an XMPP client, which tells it itself.
func (s *Session) profileNews(ctx context.Context, n hub.ProfileNews) error {
	if s.Available() && abroad(n.Who) {
		return s.personEvents(ctx, n.Who)
	}
	if !s.Available() || !n.Who.IsLocal() {
		return nil
	}
	if n.Who == s.account {
		if err := s.freshPhoto(ctx); err != nil {
			return err
		}
	}
	for _, node := range []string{nodeNick, nodeAvatar} {
		if !s.notify[node] {
			continue
		}
		if seen, err := s.srv.sees(ctx, n.Who, s.account); err != nil || !seen && n.Who != s.account {
			return err
		}
		var items []pep.Item
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

// addPhoto names the account's picture in presence, whatever an older client takes for it.
//
// spec: XEP-0153 §3.1
// spec: XEP-0398 §4
func (s *Session) addPhoto(ctx context.Context, presence *element.Element) error {
	id, none := "", false
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		p, err := v.Profile(s.account)
		if none = err == nil && p.Avatar == nil; err == nil && !none {
			id, _, err = s.srv.avatarID(ctx, v, p.Avatar)
		}
		return err
	})
	x := presence.Child(nsPhoto, "x")
	if err != nil || id == "" && (!none || x == nil) {
		return err
	}
	presence.RemoveChildren(func(c *element.Element) bool { return c.Is(nsPhoto, "x") })
	presence.Add(nsPhoto, "x").Append(element.NewText(nsPhoto, "photo", id))
	return nil
}
