package c2s

import (
	"errors"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// dataPrivate begins the types of the private data that XMPP clients keep.
const dataPrivate = "xmpp:private:"

// maxPrivate is how many pieces of private data an account may keep for its XMPP clients; the hub bounds the bytes of each.
const maxPrivate = 300

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
		typ := dataPrivate + el.Name.Space + " " + el.Name.Local
		if err := q.roomFor(typ); err != nil {
			return nil, err
		}
		if err := q.putDatum(typ, el); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// roomFor refuses a new piece of private data where there are too many.
func (q *question) roomFor(typ string) error {
	return q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		all, err := v.Data(q.who, 0)
		if err != nil {
			return err
		}
		n := 0
		for _, d := range all {
			if d.Type == typ {
				return nil
			}
			if strings.HasPrefix(d.Type, dataPrivate) {
				n++
			}
		}
		if n >= maxPrivate {
			return translate.Fail(translate.ResourceConstraint, "this account keeps too many pieces of private data")
		}
		return nil
	})
}
