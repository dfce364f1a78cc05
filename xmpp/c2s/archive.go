package c2s

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// Pages of the archive, in messages.
const (
	pageDefault = 50
	pageMost    = 250
	// readAhead is how many events are looked at for one page at the most: not all of them are messages that the asker may read.
	readAhead = 10_000
)

// archiveForm says by what the archive can be asked.
//
// spec: XEP-0313 §4.1.4
func (q *question) archiveForm() (answer, error) {
	x := newForm("form", translate.NSMAM)
	addField(x, "with", "jid-single")
	for _, name := range []string{"start", "end", "before-id", "after-id"} {
		addField(x, name, "text-single")
	}
	addField(x, "ids", "list-multi")
	addField(x, "include-groupchat", "boolean")
	return element.New(translate.NSMAM, "query").Append(x), nil
}

// archiveQuery is what was asked of an archive.
type archiveQuery struct {
	id   string
	peer core.Address
	self bool // with oneself: nothing is kept of that
	hub.Query
	ids    []core.EventID
	page   rsm
	flip   bool
	before core.EventID
	after  core.EventID
}

// rsm is result set management.
//
// spec: XEP-0059 §2
type rsm struct {
	max       int
	before    core.EventID
	hasBefore bool
	after     core.EventID
}

// ReadPage reads a request for a page of results. Max is at most most.
func readRSM(set *element.Element, usual, most int) (rsm, error) {
	r := rsm{max: usual}
	if set == nil {
		return r, nil
	}
	if m := set.Child("", "max"); m != nil {
		n, err := strconv.Atoi(m.Text())
		if err != nil || n < 0 {
			return r, translate.Fail(translate.BadRequest, "max is a number")
		}
		r.max = min(n, most)
	}
	if b := set.Child("", "before"); b != nil {
		r.before, r.hasBefore = core.EventID(b.Text()), true
	}
	r.after = core.EventID(set.ChildText("", "after"))
	if set.Child("", "index") != nil {
		return r, translate.Fail(translate.FeatureNotImplemented, "pages are asked for by id")
	}
	return r, nil
}

// archive returns a page of the account's archive: every message of its directs, of whatever network.
//
// spec: XEP-0313 §4
func (q *question) archive() (answer, error) {
	if !q.own() {
		return nil, errNobody
	}
	aq, err := q.readArchiveQuery()
	if err != nil {
		return nil, err
	}
	var page []*element.Element
	var fin *element.Element
	err = q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		a := &archivist{q: q, v: v, aq: aq, shapes: map[core.ConvID]*talk{}}
		page, fin, err = a.page()
		return err
	})
	if err != nil {
		return nil, err
	}
	q.s.sawMAM = true
	for _, m := range page {
		q.s.Send(m)
	}
	return fin, nil
}

func (q *question) readArchiveQuery() (*archiveQuery, error) {
	aq := &archiveQuery{id: q.payload.Attr("queryid"), flip: q.payload.Child("", "flip-page") != nil}
	aq.Query = hub.Query{For: q.account, Directs: true, ByFeed: true, Kinds: spokenKinds, Aliases: true}
	if x := q.payload.Child(nsData, "x"); x != nil {
		f, ok := readForm(x, translate.NSMAM)
		if !ok {
			return nil, translate.Fail(translate.BadRequest, "this is no query of an archive")
		}
		if err := q.readFilter(aq, f); err != nil {
			return nil, err
		}
	}
	var err error
	aq.page, err = readRSM(q.payload.Child(nsRSM, "set"), pageDefault, pageMost)
	return aq, err
}

func (q *question) readFilter(aq *archiveQuery, f form) error {
	if with := f.get("with"); with != "" {
		j, err := translate.ParseJID(with)
		if err != nil {
			return translate.Fail(translate.JIDMalformed, "")
		}
		if aq.peer, err = q.srv.names.Address(j.Bare()); err != nil {
			return translate.Fail(translate.ItemNotFound, "")
		}
		aq.Peer, aq.self = aq.peer, aq.peer == q.account
	}
	for name, t := range map[string]*time.Time{"start": &aq.Since, "end": &aq.Until} {
		if s := f.get(name); s != "" {
			at, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return translate.Fail(translate.BadRequest, name+" is no time")
			}
			*t = at
		}
	}
	aq.before, aq.after = core.EventID(f.get("before-id")), core.EventID(f.get("after-id"))
	if len(f["ids"]) > pageMost {
		return translate.Fail(translate.BadRequest, "too many ids")
	}
	for _, id := range f["ids"] {
		aq.ids = append(aq.ids, core.EventID(id))
	}
	return nil
}

// archivist makes one page.
type archivist struct {
	q      *question
	v      hub.View
	aq     *archiveQuery
	shapes map[core.ConvID]*talk
}

// talk is what is to be known of a conversation to show its messages.
type talk struct {
	direct  bool // one of the account's own
	peer    core.Address
	blocked bool
}

// page collects the results and makes the end of the answer.
func (a *archivist) page() ([]*element.Element, *element.Element, error) {
	fin := element.New(translate.NSMAM, "fin")
	set := element.New(nsRSM, "set")
	if a.aq.self {
		return nil, fin.SetAttr("complete", "true").Append(set), nil
	}
	results, complete, err := a.results()
	if err != nil {
		return nil, nil, err
	}
	if complete {
		fin.SetAttr("complete", "true")
	}
	if len(results) > 0 {
		set.Append(element.NewText(nsRSM, "first", string(results[0].e.ID)), element.NewText(nsRSM, "last", string(results[len(results)-1].e.ID)))
	}
	if a.aq.flip {
		slices.Reverse(results)
	}
	var out []*element.Element
	for _, r := range results {
		m := element.New(translate.NSClient, "message").SetAttr("to", a.q.from.String()).SetAttr("from", a.q.s.jid.Bare().String())
		res := m.Add(translate.NSMAM, "result").SetAttr("id", string(r.e.ID))
		if a.aq.id != "" {
			res.SetAttr("queryid", a.aq.id)
		}
		out = append(out, m)
		res.Append(translate.Forwarded(r.m, r.e.Time))
	}
	return out, fin.Append(set), nil
}

// result is one message of a page.
type result struct {
	e core.Event
	m *element.Element
}

// results reads events until the page is full or there are no more.
func (a *archivist) results() (out []result, complete bool, err error) {
	if len(a.aq.ids) > 0 {
		return a.byID()
	}
	query := a.aq.Query
	bounds := []struct {
		id     core.EventID
		before bool
	}{{a.aq.before, true}, {a.aq.after, false}, {a.aq.page.before, true}, {a.aq.page.after, false}}
	for _, b := range bounds {
		if b.id == "" {
			continue
		}
		e, err := a.v.Event(b.id)
		if errors.Is(err, hub.ErrNone) {
			return nil, false, translate.Fail(translate.ItemNotFound, "no such message in the archive")
		} else if err != nil {
			return nil, false, err
		}
		if b.before && (query.BeforeFeed == 0 || e.Feed < query.BeforeFeed) {
			query.BeforeFeed = e.Feed
		} else if !b.before && e.Feed > query.AfterFeed {
			query.AfterFeed = e.Feed
		}
	}
	query.Latest = a.aq.page.hasBefore
	// One more than is asked for tells whether there are more.
	most := a.aq.page.max + 1
	for looked := 0; len(out) < most && looked < readAhead; {
		query.Limit = most + 20
		events, err := a.v.Page(query)
		if err != nil {
			return nil, false, err
		}
		batch, err := a.show(events)
		if err != nil {
			return nil, false, err
		}
		if query.Latest {
			out = append(batch, out...)
		} else {
			out = append(out, batch...)
		}
		if len(events) < query.Limit {
			complete = true
			break
		}
		looked += len(events)
		if query.Latest {
			query.BeforeFeed = events[0].Feed
		} else {
			query.AfterFeed = events[len(events)-1].Feed
		}
	}
	if len(out) > a.aq.page.max {
		complete = false
		if query.Latest {
			out = out[len(out)-a.aq.page.max:]
		} else {
			out = out[:a.aq.page.max]
		}
	}
	return out, complete, nil
}

// byID finds single messages.
//
// spec: XEP-0313 §4.1.2
func (a *archivist) byID() ([]result, bool, error) {
	var events []core.Event
	for _, id := range a.aq.ids {
		e, err := a.v.Event(id)
		if errors.Is(err, hub.ErrNone) {
			return nil, false, translate.Fail(translate.ItemNotFound, "no such message in the archive")
		} else if err != nil {
			return nil, false, err
		}
		events = append(events, e)
	}
	out, err := a.show(events)
	if err == nil && len(out) < len(events) {
		return nil, false, translate.Fail(translate.ItemNotFound, "no such message in the archive")
	}
	return out, true, err
}

// show writes those of the events that are messages which the account may read.
func (a *archivist) show(events []core.Event) ([]result, error) {
	var out []result
	for _, e := range events {
		t, err := a.talk(&e)
		if err != nil {
			return nil, err
		}
		if !t.direct || t.blocked && e.Sender != a.q.account {
			continue
		}
		if may, err := a.q.srv.Hub.MayRead(a.v, a.q.account, &e); err != nil || !may {
			if err != nil {
				return nil, err
			}
			continue
		}
		if e.Retracted != "" && core.KindOf(e.Content) != core.KindMessage {
			continue // a reaction taken off leaves no trace
		}
		m, err := a.q.srv.compose(a.v, a.q.account, t.peer, &e, time.Time{})
		if err != nil {
			return nil, err
		}
		if m != nil && m.Child(translate.NSHints, "no-store") == nil && m.Child(translate.NSHints, "no-permanent-store") == nil {
			out = append(out, result{e, m})
		}
	}
	return out, nil
}

// talk finds out about the conversation of an event, once.
func (a *archivist) talk(e *core.Event) (*talk, error) {
	if t := a.shapes[e.Conv]; t != nil {
		return t, nil
	}
	t := &talk{}
	a.shapes[e.Conv] = t
	c, err := a.v.Conversation(e.Conv)
	if err != nil || c.Shape != core.Direct {
		return t, err
	}
	s, err := a.v.State(e.Conv)
	if err != nil {
		return t, err
	}
	_, t.direct = s.Members[a.q.account]
	t.peer = peerOf(s, a.q.account)
	t.blocked, err = a.v.Blocked(a.q.account, t.peer)
	return t, err
}

// archiveEnds says between which messages the archive reaches.
//
// spec: XEP-0313 §5.1
func (q *question) archiveEnds() (answer, error) {
	meta := element.New(translate.NSMAM, "metadata")
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		for _, end := range []string{"start", "end"} {
			aq := &archiveQuery{Query: hub.Query{For: q.account, Directs: true, ByFeed: true, Kinds: spokenKinds, Aliases: true}}
			aq.page = rsm{max: 1, hasBefore: end == "end"}
			a := &archivist{q: q, v: v, aq: aq, shapes: map[core.ConvID]*talk{}}
			found, _, err := a.results()
			if err != nil || len(found) == 0 {
				return err
			}
			meta.Add("", end).SetAttr("id", string(found[0].e.ID)).SetAttr("timestamp", translate.Stamp(found[0].e.Time))
		}
		return nil
	})
	return meta, err
}

// archivePrefs says what is archived: everything, because every client and network of the account reads the same history.
//
// spec: XEP-0441 §2
func (q *question) archivePrefs() (answer, error) {
	p := element.New(translate.NSMAM, "prefs").SetAttr("default", "always")
	p.Append(element.New(translate.NSMAM, "always"), element.New(translate.NSMAM, "never"))
	return p, nil
}

// archivePrefsSet takes no other preference than the one that there is.
func (q *question) archivePrefsSet() (answer, error) {
	if q.payload.Attr("default") != "always" || len(q.payload.Child("", "never").Elements()) > 0 {
		return nil, translate.Fail(translate.NotAllowed, "the archive is the history that all clients of the account share")
	}
	return q.archivePrefs()
}
