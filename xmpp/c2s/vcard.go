package c2s

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
	"parley/xmpp/vcard"
)

// dataVCard is the type of the private data that is the account's card.
const dataVCard = "xmpp:vcard-temp"

// vcard returns how a person appears: the card that was set, with the name and picture of the one profile that all networks share.
//
// spec: XEP-0054 §3.1
func (q *question) vcard() (answer, error) {
	if q.account.IsZero() {
		return nil, errNobody
	}
	card, err := q.datum(q.account, dataVCard)
	if err != nil {
		return nil, err
	}
	look, err := q.look()
	if err != nil {
		return nil, err
	}
	if card == nil {
		card = element.New(nsVCard, "vCard")
	}
	if look.Name != "" && card.Child("", "FN") == nil {
		card.Append(element.NewText(nsVCard, "FN", look.Name))
	}
	setText(card, "NICKNAME", look.Name)
	card.RemoveChildren(func(c *element.Element) bool { return c.Name.Local == "PHOTO" })
	if look.photo != nil {
		photo := card.Add("", "PHOTO")
		photo.Append(element.NewText(nsVCard, "TYPE", look.typ), element.NewText(nsVCard, "BINVAL", base64.StdEncoding.EncodeToString(look.photo)))
	}
	return card, nil
}

// setText makes the profile's name the nickname of a card.
func setText(card *element.Element, name, text string) {
	if text == "" {
		return
	}
	c := card.Child("", name)
	if c == nil {
		c = card.Add("", name)
	}
	c.SetText(text)
}

// picture reads the profile's picture; ok is false if there is none that fits in a stanza.
func (srv *Server) picture(ctx context.Context, p core.Profile) (picture []byte, typ string, ok bool) {
	if p.Avatar == nil || p.Avatar.Media == "" || srv.Files == nil {
		return nil, "", false
	}
	picture, typ, err := srv.avatarBytes(ctx, p.Avatar)
	return picture, typ, err == nil && len(picture) > 0 && len(picture) <= maxAvatar
}

// vcardSet keeps a card, and makes its name and picture those of the profile. One without a picture takes the picture off.
//
// spec: XEP-0054 §3.2
// spec: XEP-0398 §3.2
func (q *question) vcardSet() (answer, error) {
	card := q.payload.Copy()
	profile, err := q.srv.Hub.Profile(q.ctx, q.who)
	if err != nil {
		return nil, err
	}
	was := profile
	profile.Name = nameIn(profile.Name, card.ChildText("", "NICKNAME"), card.ChildText("", "FN"))
	if profile.Avatar, err = q.pictureIn(card, was.Avatar); err != nil {
		return nil, err
	}
	card.RemoveChildren(func(c *element.Element) bool { return c.Name.Local == "PHOTO" })
	if err := q.putDatum(dataVCard, card); err != nil {
		return nil, err
	}
	if err := q.keepCard4(vcard.Four(card, q.card4())); err != nil {
		return nil, err
	}
	if sameProfile(profile, was) {
		return nil, nil
	}
	return nil, q.srv.Hub.SetProfile(q.ctx, q.who, profile)
}

// nameIn is the first of a card's names that is one, or the one before.
func nameIn(before string, names ...string) string {
	for _, n := range names {
		if n = strings.TrimSpace(n); n != "" && len(n) <= 256 {
			return n
		}
	}
	return before
}

// pictureIn keeps the picture in a card. One that has not changed stays the same file.
func (q *question) pictureIn(card *element.Element, had *core.File) (*core.File, error) {
	photo := card.Child("", "PHOTO")
	if photo == nil || photo.ChildText("", "BINVAL") == "" || q.srv.Files == nil {
		if photo.Child("", "EXTVAL") != nil {
			return had, nil
		}
		return nil, nil
	}
	picture, err := decodeBase64(photo.ChildText("", "BINVAL"))
	if err != nil || len(picture) == 0 {
		return nil, translate.Fail(translate.BadRequest, "the picture cannot be read")
	}
	if len(picture) > maxAvatar {
		return nil, translate.Fail(translate.NotAcceptable, "the picture is too large")
	}
	if had != nil {
		if old, _, ok := q.srv.picture(q.ctx, core.Profile{Avatar: had}); ok && string(old) == string(picture) {
			return had, nil
		}
	}
	typ := http.DetectContentType(picture)
	if !strings.HasPrefix(typ, "image/") {
		return nil, translate.Fail(translate.NotAcceptable, "that is no picture")
	}
	return q.srv.keepAvatar(q.ctx, q.who, picture, typ)
}

// sameProfile compares profiles by what they show.
func sameProfile(a, b core.Profile) bool {
	return a.Name == b.Name && (a.Avatar == nil) == (b.Avatar == nil) && (a.Avatar == nil || *a.Avatar == *b.Avatar)
}

// card4 is the vCard4 that the account has published, nil for none.
func (q *question) card4() (card *element.Element) {
	_ = q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		items, err := pep.ReadItems(v, q.account, nodeVCard, 1)
		if err == nil && len(items) > 0 {
			card = items[0].Payload
		}
		return err
	})
	return card
}

// keepCard4 keeps and announces a vCard4 that was made of an older card.
func (q *question) keepCard4(card *element.Element) error {
	it := pep.Item{ID: "current", Publisher: q.from.String(), Published: time.Now().UTC(), Payload: card}
	return q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		c, err := q.nodeToPublishOn(tx, publication{node: nodeVCard})
		if err != nil {
			return err
		}
		if err := pep.WriteItem(tx, q.account, nodeVCard, c, it); err != nil {
			return err
		}
		return q.announce(tx, &pepEvent{Account: q.account, Node: nodeVCard, Items: []pep.Item{it}, Config: c})
	})
}

// vcard4Items is the one card of the account as vCard4, with the name and picture of the profile.
//
// spec: XEP-0292 §4.1
func (srv *Server) vcard4Items(ctx context.Context, v hub.View, account core.Address) ([]pep.Item, error) {
	profile, err := v.Profile(account)
	if err != nil {
		return nil, err
	}
	kept, err := pep.ReadItems(v, account, nodeVCard, 1)
	if err != nil {
		return nil, err
	}
	it := pep.Item{ID: "current", Published: time.UnixMilli(0).UTC()}
	if len(kept) > 0 {
		it = kept[0]
	} else if it.Payload, err = srv.tempAsFour(v, account); err != nil {
		return nil, err
	}
	if profile.Name != "" {
		for _, name := range []string{"nickname", "fn"} {
			if p := it.Payload.Child("", name); p != nil && name == "fn" {
				continue
			} else if p != nil {
				p.RemoveChildren(func(c *element.Element) bool { return c.Name.Local == "text" }).Append(element.NewText(vcard.NS4, "text", profile.Name))
				continue
			}
			it.Payload.Add("", name).Append(element.NewText(vcard.NS4, "text", profile.Name))
		}
	}
	it.Payload.RemoveChildren(func(c *element.Element) bool { return c.Name.Local == "photo" })
	if picture, typ, ok := srv.picture(ctx, profile); ok {
		uri := "data:" + typ + ";base64," + base64.StdEncoding.EncodeToString(picture)
		it.Payload.Add("", "photo").Append(element.NewText(vcard.NS4, "uri", uri))
	}
	if len(it.Payload.Elements()) == 0 {
		return nil, nil
	}
	return []pep.Item{it}, nil
}

// tempAsFour makes a vCard4 of the card of older clients.
func (srv *Server) tempAsFour(v hub.View, account core.Address) (*element.Element, error) {
	d, err := v.Datum(account, "", dataVCard)
	if errors.Is(err, hub.ErrNone) || err == nil && d.Data == nil {
		return element.New(vcard.NS4, "vcard"), nil
	} else if err != nil {
		return nil, err
	}
	temp, err := element.Parse(d.Data, element.DefaultLimits)
	if err != nil {
		return nil, err
	}
	return vcard.Four(temp, nil), nil
}

// vcard4Published makes a published card that of older clients too, and its name and picture those of the profile.
//
// spec: XEP-0292 §4.1
func (q *question) vcard4Published(items []pep.Item) error {
	card := items[len(items)-1].Payload
	if !card.Is(vcard.NS4, "vcard") {
		return nil
	}
	old, err := q.datum(q.account, dataVCard)
	if err != nil {
		return err
	}
	if err := q.putDatum(dataVCard, vcard.Temp(card, old)); err != nil {
		return err
	}
	text := func(name string) string { return card.Child("", name).ChildText("", "text") }
	profile, err := q.srv.Hub.Profile(q.ctx, q.account)
	if err != nil {
		return err
	}
	avatar := profile.Avatar
	uri := card.Child("", "photo").ChildText("", "uri")
	if _, data, ok := strings.Cut(uri, ";base64,"); ok && strings.HasPrefix(uri, "data:image/") {
		photo := element.New(nsVCard, "vCard")
		photo.Add("", "PHOTO").Append(element.NewText(nsVCard, "BINVAL", data))
		if avatar, err = q.pictureIn(photo, avatar); err != nil {
			return err
		}
	}
	return q.changeProfile(func(p *core.Profile) {
		p.Name, p.Avatar = nameIn(p.Name, text("nickname"), text("fn")), avatar
	})
}

// decodeBase64 reads base64 with line breaks in it.
func decodeBase64(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' || r == '\r' || r == '\t' {
			return -1
		}
		return r
	}, s))
}
