package c2s

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The types of the private data that XMPP clients keep.
const (
	dataVCard   = "xmpp.vcard-temp"
	dataPrivate = "xmpp.private:"
)

// datum reads one piece of an account's data; nil if there is none.
func (q *question) datum(account core.Address, typ string) (*element.Element, error) {
	d, err := q.srv.Hub.Datum(q.ctx, account, "", typ)
	if errors.Is(err, hub.ErrNone) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	el, err := element.Parse(d.Data, element.DefaultLimits)
	if err != nil {
		return nil, err
	}
	return el, nil
}

func (q *question) putDatum(typ string, el *element.Element) error {
	return q.srv.Hub.PutDatum(q.ctx, hub.Datum{Account: q.who, Type: typ, Data: element.Marshal(el)}, q.s.ID())
}

// private returns what a client keeps here.
//
// spec: XEP-0049 §2.2
func (q *question) private() (answer, error) {
	asked := q.payload.First()
	if asked == nil || len(q.payload.Elements()) != 1 || asked.Name.Space == nsPrivate {
		return nil, translate.Fail(translate.BadRequest, "ask for one element")
	}
	if asked.Is(nsStorage, "storage") {
		el, err := q.oldBookmarks()
		return element.New(nsPrivate, "query").Append(el), err
	}
	el, err := q.datum(q.who, dataPrivate+asked.Name.Space+" "+asked.Name.Local)
	if err != nil {
		return nil, err
	}
	if el == nil {
		el = element.New(asked.Name.Space, asked.Name.Local)
	}
	return element.New(nsPrivate, "query").Append(el), nil
}

// privateSet keeps what a client wants kept.
func (q *question) privateSet() (answer, error) {
	all := q.payload.Elements()
	if len(all) == 0 {
		return nil, translate.Fail(translate.BadRequest, "there is nothing to keep")
	}
	for _, el := range all {
		if el.Name.Space == nsPrivate || strings.HasPrefix(el.Name.Space, "jabber:client") {
			return nil, translate.Fail(translate.NotAcceptable, "an element has a namespace of its own")
		}
	}
	for _, el := range all {
		if el.Is(nsStorage, "storage") {
			if err := q.oldBookmarksSet(el); err != nil {
				return nil, err
			}
			continue
		}
		if err := q.putDatum(dataPrivate+el.Name.Space+" "+el.Name.Local, el); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// vcard returns how a person appears: the card that was set, with the name and picture of the one profile that all networks share.
//
// spec: XEP-0054 §3.1
func (q *question) vcard() (answer, error) {
	card, err := q.datum(q.account, dataVCard)
	if err != nil {
		return nil, err
	}
	profile, err := q.srv.Hub.Profile(q.ctx, q.account)
	if err != nil {
		return nil, err
	}
	if card == nil {
		card = element.New(nsVCard, "vCard")
	}
	if profile.Name != "" && card.Child("", "FN") == nil {
		card.Append(element.NewText(nsVCard, "FN", profile.Name))
	}
	if profile.Avatar != nil && card.Child("", "PHOTO") == nil && q.srv.Files != nil {
		if picture, typ, err := q.srv.avatarBytes(q.ctx, profile.Avatar); err == nil && len(picture) <= maxAvatar {
			photo := card.Add("", "PHOTO")
			photo.Append(element.NewText(nsVCard, "TYPE", typ), element.NewText(nsVCard, "BINVAL", base64.StdEncoding.EncodeToString(picture)))
		}
	}
	return card, nil
}

// vcardSet keeps a card, and makes its name and picture those of the profile.
//
// spec: XEP-0054 §3.2
func (q *question) vcardSet() (answer, error) {
	if err := q.putDatum(dataVCard, q.payload); err != nil {
		return nil, err
	}
	profile, err := q.srv.Hub.Profile(q.ctx, q.who)
	if err != nil {
		return nil, err
	}
	was := profile
	for _, name := range []string{"NICKNAME", "FN"} {
		if n := strings.TrimSpace(q.payload.ChildText("", name)); n != "" && len(n) <= 256 {
			profile.Name = n
		}
	}
	if photo := q.payload.Child("", "PHOTO"); photo != nil {
		picture, err := decodeBase64(photo.ChildText("", "BINVAL"))
		if err == nil && len(picture) > 0 && len(picture) <= maxAvatar && q.srv.Files != nil {
			if profile.Avatar, err = q.srv.keepAvatar(q.ctx, q.who, picture, http.DetectContentType(picture)); err != nil {
				return nil, err
			}
		}
	}
	if profile == was {
		return nil, nil
	}
	return nil, q.srv.Hub.SetProfile(q.ctx, q.who, profile)
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
