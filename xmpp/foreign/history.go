package foreign

import (
	"slices"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/archive"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// fill is a query of the room's archive that is being answered.
type fill struct {
	id       string
	got      []*element.Element // with what says when it was
	complete bool
	last     string
}

// pageSize is how many messages are asked for at a time.
const pageSize = 100

// query asks the room's archive for one page: after or before a message or from a time on, or with none the newest.
//
// spec: XEP-0313 §4
func (o *occupancy) query(after, before string, since time.Time, n int, then func(*fill, error)) {
	f := &fill{id: core.NewToken()}
	o.fills[f.id] = f
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "set")
	q := iq.Add(translate.NSMAM, "query").SetAttr("queryid", f.id)
	if !since.IsZero() {
		x := q.Add(nsForm, "x").SetAttr("type", "submit")
		field := func(name, value string) {
			x.Add("", "field").SetAttr("var", name).Append(element.NewText(nsForm, "value", value))
		}
		field("FORM_TYPE", translate.NSMAM)
		field("start", translate.Stamp(since))
	}
	set := q.Add(nsRSM, "set")
	set.Append(element.NewText(nsRSM, "max", strconv.Itoa(n)))
	if after != "" {
		set.Append(element.NewText(nsRSM, "after", after))
	} else if since.IsZero() {
		set.Append(element.NewText(nsRSM, "before", before))
	}
	o.request(iq, "", func(reply *element.Element, err error) {
		delete(o.fills, f.id)
		fin := reply.Child(translate.NSMAM, "fin")
		f.complete = fin.Attr("complete") == "true"
		f.last = fin.Child(nsRSM, "set").ChildText("", "last")
		then(f, err)
	})
}

// archived takes one result of a query.
func (o *occupancy) archived(r *element.Element) {
	f := o.fills[r.Attr("queryid")]
	fwd := r.Child(translate.NSForward, "forwarded")
	m := fwd.Child(translate.NSClient, "message")
	if f == nil || m == nil || len(f.got) >= 2*pageSize {
		o.s.Count.Count("foreign_dropped", "unknown")
		return
	}
	m = m.Copy()
	if d := fwd.Child(translate.NSDelay, "delay"); d != nil {
		m.RemoveChildren(func(e *element.Element) bool { return e.Name.Space == translate.NSDelay })
		m.Append(element.New(translate.NSDelay, "delay").SetAttr("stamp", d.Attr("stamp")))
	}
	if o.stanzaID(m) == "" { // the result's id is the same as the live message's stanza-id; spec: XEP-0313 §5.1.1
		m.Append(element.New(translate.NSSID, "stanza-id").SetAttr("by", o.room.String()).SetAttr("id", r.Attr("id")))
	}
	f.got = append(f.got, m)
}

// catchUp fetches what was said since we were last in the room, or when we are in it for the first time what was said last.
func (o *occupancy) catchUp(then func()) {
	if !o.about.archive {
		then() // the room itself sends some of it
		return
	}
	last, when := o.lastKnown()
	if last == "" && when.IsZero() {
		o.query("", "", time.Time{}, pageSize, func(f *fill, err error) {
			o.filled(f, err)
			o.oldest = err == nil && f.complete
			then()
		})
		return
	}
	o.since(last, when, 0, then)
}

// since fetches page after page.
func (o *occupancy) since(after string, when time.Time, total int, then func()) {
	from := time.Time{}
	if after == "" {
		from = when
	}
	o.query(after, "", from, pageSize, func(f *fill, err error) {
		e, _ := err.(*translate.Error) //nolint:errorlint // it is returned bare
		switch {
		case o.phase == outside:
			return
		case e != nil && e.Name == "item-not-found" && after != "": // the archive has forgotten it
			o.since("", when, total, then)
			return
		}
		o.filled(f, err)
		total += len(f.got)
		if err == nil && !f.complete && f.last != "" && f.last != after && total < o.s.Fill {
			o.since(f.last, when, total, then)
			return
		}
		then()
	})
}

func (o *occupancy) filled(f *fill, err error) {
	if err != nil {
		o.s.Log.Info("a room's archive does not answer", "room", o.room.String(), "err", err)
	}
	for _, m := range f.got {
		o.said(m, true)
	}
	o.flush()
}

// lastKnown is the newest message that the room has given a name, and when it was.
func (o *occupancy) lastKnown() (id string, when time.Time) {
	events := o.page(hub.Query{Conv: o.conv, Kinds: archive.Kinds, Latest: true, Limit: pageSize, Aliases: true})
	for _, e := range slices.Backward(events) {
		if sid := e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(o.conv)); sid != "" {
			return sid, e.Origin
		}
	}
	return "", time.Time{}
}

// firstKnown is the oldest.
func (o *occupancy) firstKnown() string {
	for _, e := range o.page(hub.Query{Conv: o.conv, Kinds: archive.Kinds, Limit: pageSize, Aliases: true}) {
		if sid := e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(o.conv)); sid != "" {
			return sid
		}
	}
	return ""
}

func (o *occupancy) page(q hub.Query) (events []core.Event) {
	ctx, cancel := o.timeout()
	defer cancel()
	err := o.s.Hub.Read(ctx, func(v hub.View) (err error) {
		events, err = v.Page(q)
		return err
	})
	if err != nil {
		o.s.Log.Error("reading a room elsewhere", "room", o.room.String(), "err", err)
	}
	return events
}

// older fetches history from before what is known; then hears whether there was any.
func (o *occupancy) older(limit int, then func(found bool)) {
	first := o.firstKnown()
	if o.phase != inside || !o.about.archive || o.oldest || o.deep != nil || first == "" {
		then(false)
		return
	}
	o.deep = &fill{}
	o.query("", first, time.Time{}, min(max(limit, 10), pageSize), func(f *fill, err error) {
		o.deep = nil
		if err != nil {
			then(false)
			return
		}
		o.oldest = f.complete
		o.below(f.got)
		then(len(f.got) > 0)
	})
}

// below puts a page below what is known: messages from the newest down, then what is about them.
func (o *occupancy) below(page []*element.Element) {
	var messages, others []*element.Element
	for _, m := range page {
		if len(translate.References(m).Messages) == 0 {
			messages = append(messages, m)
		} else {
			others = append(others, m)
		}
	}
	slices.Reverse(messages)
	o.digging = true
	for _, m := range append(messages, others...) {
		o.said(m, true)
	}
	o.flush()
	o.digging = false
}
