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
	first    string
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
		f.first = fin.Child(nsRSM, "set").ChildText("", "first")
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
	// The result's id is the same as the live message's stanza-id, and nobody but the room has made it.
	//
	// spec: XEP-0313 §8.3
	m.RemoveChildren(func(e *element.Element) bool { return e.Is(translate.NSSID, "stanza-id") })
	m.Append(element.New(translate.NSSID, "stanza-id").SetAttr("by", o.room.String()).SetAttr("id", r.Attr("id")))
	f.got = append(f.got, m)
}

// catchUp fetches what was said since we were last in the room, or when we are in it for the first time what was said last.
func (o *occupancy) catchUp(then func()) {
	if !o.about.archive { // the room itself sends some of it, and then the subject
		o.settled = then
		o.after(o.s.Answer, func() { o.settle() })
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
		switch more := err == nil && !f.complete && f.last != "" && f.last != after; {
		case more && total < o.s.Fill:
			o.since(f.last, when, total, then)
		case more:
			o.s.Log.Warn("a gap in a room elsewhere is too large to fill", "room", o.room.String(), "filled", total)
			o.newest(then)
		default:
			then()
		}
	})
}

// newest fetches the last page.
func (o *occupancy) newest(then func()) {
	o.query("", "", time.Time{}, pageSize, func(f *fill, err error) {
		o.filled(f, err)
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
func (o *occupancy) firstKnown() (id string) {
	var when time.Time
	for _, e := range o.page(hub.Query{Conv: o.conv, Kinds: archive.Kinds, Limit: 2 * pageSize, Aliases: true}) {
		sid := e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(o.conv))
		if sid != "" && (id == "" || e.Origin.Before(when)) { // what is about a message may stand below it
			id, when = sid, e.Origin
		}
	}
	return id
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
	first := o.dug
	if first == "" {
		first = o.firstKnown()
	}
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
		if len(f.got) > 0 {
			o.dug = f.first
		}
		o.below(f.got)
		then(len(f.got) > 0)
	})
}

// below puts a page below what is known: messages from the newest down, then what is about them. Of that too the newest comes first,
// so that it stands above; of several sets of reactions of one person on one message it alone counts.
func (o *occupancy) below(page []*element.Element) {
	var messages, others []*element.Element
	reacted := map[[2]string]bool{}
	for _, m := range slices.Backward(append(page, o.adopted(page)...)) {
		if len(translate.References(m).Messages) == 0 {
			messages = append(messages, m)
			continue
		}
		if r := m.Child(translate.NSReactions, "reactions"); r != nil {
			key := [2]string{m.Attr("from"), r.Attr("id")}
			if reacted[key] {
				continue
			}
			reacted[key] = true
		}
		others = append(others, m)
	}
	o.digging = true
	for _, m := range append(messages, others...) {
		o.said(m, true)
	}
	o.flush()
	o.digging = false
}

// maxOrphans bounds what is remembered that is about messages which are not known yet.
const maxOrphans = 1000

// orphan remembers what is about a message that is older than what is known.
func (o *occupancy) orphan(st *element.Element) {
	for _, ref := range translate.References(st).Messages {
		if o.orphaned < maxOrphans {
			o.orphaned++
			o.orphans[ref.ID] = append(o.orphans[ref.ID], st)
		}
	}
}

// adopted are the orphans that are about the messages of a page, by time.
func (o *occupancy) adopted(page []*element.Element) (out []*element.Element) {
	for _, m := range page {
		sid := o.stanzaID(m)
		out = append(out, o.orphans[sid]...)
		o.orphaned -= len(o.orphans[sid])
		delete(o.orphans, sid)
	}
	slices.SortStableFunc(out, func(a, b *element.Element) int { return delayOf(a).Compare(delayOf(b)) })
	return out
}
