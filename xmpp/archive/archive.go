// Package archive answers queries of message archives in the XMPP house, for
// the archives of accounts and of rooms alike: what is asked for, which page
// of it, and how the answer is written. Which events there are and who may
// read them is the hub's; how one looks as a stanza is the caller's.
package archive

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The namespaces of forms and of paging.
const (
	nsForm = "jabber:x:data"
	nsRSM  = "http://jabber.org/protocol/rsm"
)

// Page sizes, in messages.
const (
	defaultMax = 50
	mostMax    = 1000 // the services may have smaller ones
	mostIDs    = 100
)

// Kinds are the events that an archive holds.
var Kinds = []core.Kind{core.KindMessage, core.KindEdit, core.KindRetract, core.KindReaction, core.KindExtension}

// Request is one query.
//
// spec: XEP-0313 §4
type Request struct {
	ID         string        // queryid
	With       translate.JID // zero for everybody
	Start, End time.Time
	BeforeID   string
	AfterID    string
	IDs        []string
	Max        int
	// Last asks for the newest page; Flip for the page in reverse order.
	Last, Flip bool
	// CountOnly asks for no messages.
	CountOnly bool
}

// Parse reads a query element.
func Parse(query *element.Element) (Request, error) {
	r := Request{ID: query.Attr("queryid"), Max: defaultMax, Flip: query.Child(translate.NSMAM, "flip-page") != nil}
	if err := r.form(query.Child(nsForm, "x")); err != nil {
		return r, err
	}
	set := query.Child(nsRSM, "set")
	if set == nil {
		return r, nil
	}
	if set.Child("", "index") != nil { // spec: XEP-0059 §2.3
		return r, translate.Fail(translate.FeatureNotImplemented, "pages have no numbers here")
	}
	if m := set.Child("", "max"); m != nil {
		n, err := strconv.Atoi(m.Text())
		if err != nil || n < 0 {
			return r, translate.Fail(translate.BadRequest, "max is a number")
		}
		r.Max, r.CountOnly = min(n, mostMax), n == 0
	}
	if a := set.Child("", "after"); a != nil {
		r.AfterID = a.Text()
	}
	if b := set.Child("", "before"); b != nil {
		r.Last = true
		if b.Text() != "" {
			r.BeforeID = b.Text()
		}
	}
	return r, nil
}

// form reads the fields that narrow a query.
//
// spec: XEP-0313 §4.1
func (r *Request) form(x *element.Element) error {
	for _, f := range x.ChildrenNamed("", "field") {
		value := f.ChildText("", "value")
		var err error
		switch f.Attr("var") {
		case "FORM_TYPE":
			if value != translate.NSMAM {
				return translate.Fail(translate.BadRequest, "this is not a form for an archive")
			}
		case "with":
			if r.With, err = translate.ParseJID(value); err != nil {
				return translate.Fail(translate.JIDMalformed, "")
			}
		case "start":
			r.Start, err = time.Parse(time.RFC3339Nano, value)
		case "end":
			r.End, err = time.Parse(time.RFC3339Nano, value)
		case "before-id":
			r.BeforeID = value
		case "after-id":
			r.AfterID = value
		case "ids":
			for _, v := range f.ChildrenNamed("", "value") {
				r.IDs = append(r.IDs, v.Text())
			}
			if len(r.IDs) > mostIDs {
				return translate.Fail(translate.PolicyViolation, "that is too many ids")
			}
		default:
			return translate.Fail(translate.FeatureNotImplemented, "this archive knows no such field")
		}
		if err != nil {
			return translate.Fail(translate.BadRequest, "a time looks like 2020-01-31T12:00:00Z")
		}
	}
	return nil
}

// Form is the form that a client may fill in.
func Form() *element.Element {
	q := element.New(translate.NSMAM, "query")
	x := q.Add(nsForm, "x")
	x.SetAttr("type", "form")
	for _, f := range [][2]string{{"FORM_TYPE", "hidden"}, {"with", "jid-single"}, {"start", "text-single"},
		{"end", "text-single"}, {"before-id", "text-single"}, {"after-id", "text-single"}, {"ids", "list-multi"}} {
		field := x.Add("", "field")
		field.SetAttr("type", f[1])
		field.SetAttr("var", f[0])
		if f[0] == "FORM_TYPE" {
			field.Append(element.NewText(nsForm, "value", translate.NSMAM))
		}
	}
	return q
}

// Source is one archive, as one reader may read it.
type Source struct {
	Hub *hub.Hub
	Who core.Address
	// Base says which events there are; its bounds are set here.
	Base hub.Query
	// Write writes an event as the stanza that the archive holds; nil where
	// there is none.
	Write func(v hub.View, e *core.Event) (*element.Element, error)
	// Name is what the archive calls an event, and Find finds it again, with [hub.ErrNone] where there is none: nil where the archive
	// goes by our own IDs.
	Name func(e *core.Event) string
	Find func(v hub.View, id string) (core.EventID, error)
}

func (s Source) name(e *core.Event) string {
	if s.Name != nil {
		return s.Name(e)
	}
	return string(e.ID)
}

func (s Source) find(v hub.View, id string) (core.Event, error) {
	found := core.EventID(id)
	if s.Find != nil {
		var err error
		if found, err = s.Find(v, id); err != nil {
			return core.Event{}, err
		}
	}
	return v.Event(found)
}

// Answer is what a query found: result elements in order, each to be sent in a
// message of its own, and the fin that ends them.
type Answer struct {
	Results []*element.Element
	Fin     *element.Element
}

// Answer runs a query.
//
// spec: XEP-0313 §4.3
func (s Source) Answer(ctx context.Context, r Request) (Answer, error) {
	var a Answer
	err := s.Hub.Read(ctx, func(v hub.View) (err error) {
		var events []core.Event
		if len(r.IDs) > 0 {
			if events, err = s.byIDs(v, r); err == nil {
				a.Fin = s.fin(events, true)
			}
		} else {
			events, a.Fin, err = s.page(v, r)
		}
		if err != nil {
			return err
		}
		if r.Flip {
			slices.Reverse(events)
		}
		for i := range events {
			el, err := s.Write(v, &events[i])
			if err != nil {
				return err
			}
			if el == nil {
				continue
			}
			res := element.New(translate.NSMAM, "result")
			if r.ID != "" {
				res.SetAttr("queryid", r.ID)
			}
			res.SetAttr("id", s.name(&events[i]))
			res.Append(translate.Forwarded(el, events[i].Time))
			a.Results = append(a.Results, res)
		}
		return nil
	})
	return a, err
}

// page reads one page and what ends it. The page's bounds are those of what
// matched: of it the reader may perhaps not see everything, and pages on.
func (s Source) page(v hub.View, r Request) ([]core.Event, *element.Element, error) {
	q := s.Base
	q.Kinds, q.Since, q.Until, q.Aliases = Kinds, r.Start, r.End, true
	q.Latest = r.Last
	if err := s.bound(v, r.BeforeID, q.ByFeed, &q.Before, &q.BeforeFeed); err != nil {
		return nil, nil, err
	}
	if err := s.bound(v, r.AfterID, q.ByFeed, &q.After, &q.AfterFeed); err != nil {
		return nil, nil, err
	}
	if r.CountOnly {
		return nil, s.fin(nil, false), nil
	}
	q.Limit = r.Max + 1
	events, err := v.Page(q)
	if err != nil {
		return nil, nil, err
	}
	complete := len(events) <= r.Max
	if !complete && r.Last {
		events = events[1:]
	} else if !complete {
		events = events[:r.Max]
	}
	end := s.fin(events, complete)
	events, err = s.Hub.Readable(v, s.Who, q.Conv, events)
	return events, end, err
}

// bound finds where an id stands in the archive's order.
//
// spec: XEP-0313 §4.3.2
func (s Source) bound(v hub.View, id string, byFeed bool, pos *core.Position, feed *core.Feed) error {
	if id == "" {
		return nil
	}
	e, err := s.find(v, id)
	if errors.Is(err, hub.ErrNone) || err == nil && s.Base.Conv != "" && e.Conv != s.Base.Conv {
		return translate.Fail(translate.ItemNotFound, "the archive has no message "+id)
	}
	if err != nil {
		return err
	}
	if byFeed {
		*feed = e.Feed
	} else {
		*pos = e.Position
	}
	return nil
}

// byIDs reads single messages; one that is not there fails the query.
//
// spec: XEP-0313 §4.1.3
func (s Source) byIDs(v hub.View, r Request) ([]core.Event, error) {
	var events []core.Event
	for _, id := range r.IDs {
		e, err := s.find(v, id)
		if errors.Is(err, hub.ErrNone) || err == nil && s.Base.Conv != "" && e.Conv != s.Base.Conv {
			return nil, translate.Fail(translate.ItemNotFound, "the archive has no message "+id)
		}
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	readable, err := s.Hub.Readable(v, s.Who, s.Base.Conv, events)
	if err == nil && len(readable) != len(r.IDs) {
		return nil, translate.Fail(translate.ItemNotFound, "the archive has no such message for you")
	}
	slices.SortFunc(readable, func(a, b core.Event) int { return int(a.Feed - b.Feed) })
	return readable, err
}

// fin ends an answer.
//
// spec: XEP-0059 §2.1
func (s Source) fin(events []core.Event, complete bool) *element.Element {
	f := element.New(translate.NSMAM, "fin")
	if complete {
		f.SetAttr("complete", "true")
	}
	set := f.Add(nsRSM, "set")
	if len(events) > 0 {
		set.Append(element.NewText(nsRSM, "first", s.name(&events[0])))
		set.Append(element.NewText(nsRSM, "last", s.name(&events[len(events)-1])))
	}
	return f
}

// Ends names the first and the last message of the archive.
//
// spec: XEP-0313 §5
func (s Source) Ends(ctx context.Context) (*element.Element, error) {
	out := element.New(translate.NSMAM, "metadata")
	err := s.Hub.Read(ctx, func(v hub.View) error {
		for _, end := range []struct {
			name   string
			latest bool
		}{{"start", false}, {"end", true}} {
			q := s.Base
			q.Kinds, q.Latest, q.Limit, q.Aliases = Kinds, end.latest, 1, true
			events, err := v.Page(q)
			if err != nil {
				return err
			}
			if events, err = s.Hub.Readable(v, s.Who, q.Conv, events); err != nil || len(events) == 0 {
				return err
			}
			el := out.Add("", end.name)
			el.SetAttr("id", s.name(&events[0]))
			el.SetAttr("timestamp", translate.Stamp(events[0].Time))
		}
		return nil
	})
	return out, err
}
