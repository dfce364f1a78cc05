package foreign

import (
	"time"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The namespaces of what is asked of rooms.
const (
	nsDisco   = "http://jabber.org/protocol/disco#info"  // XEP-0030
	nsItems   = "http://jabber.org/protocol/disco#items" // XEP-0030
	nsAdmin   = "http://jabber.org/protocol/muc#admin"   // XEP-0045
	nsOwner   = "http://jabber.org/protocol/muc#owner"   // XEP-0045
	nsConfig  = "http://jabber.org/protocol/muc#roomconfig"
	nsPing    = "urn:xmpp:ping"                  // XEP-0199
	nsForm    = "jabber:x:data"                  // XEP-0004
	nsRSM     = "http://jabber.org/protocol/rsm" // XEP-0059
	nsStable  = "http://jabber.org/protocol/muc#stable_id"
	nsSelfOpt = "http://jabber.org/protocol/muc#self-ping-optimization"
)

// request is a question of ours to the room.
type request struct {
	timer *time.Timer
	then  func(reply *element.Element, err error)
}

func (r *request) end(reply *element.Element, err error) {
	stop(r.timer)
	r.then(reply, err)
}

// request asks the room, or with a nick an occupant; then hears the answer, an error of the room's or that there was no answer in time.
func (o *occupancy) request(iq *element.Element, nick string, then func(reply *element.Element, err error)) {
	id := core.NewToken()
	o.asked[id] = &request{then: then, timer: o.after(o.s.Answer, func() {
		if r := o.asked[id]; r != nil {
			delete(o.asked, id)
			r.end(nil, translate.Fail(translate.RemoteServerTimeout, "the room does not answer"))
		}
	})}
	o.send(iq.SetAttr("id", id), nick)
}

// relay is a request of a client that was passed on.
type relay struct {
	client translate.JID
	id     string
	since  time.Time
}

// maxRelayed bounds the requests of clients that have no answer yet.
const maxRelayed = 1000

// replied takes an answer of the room: to us, or to a client.
func (o *occupancy) replied(st *element.Element) {
	id := st.Attr("id")
	if r := o.asked[id]; r != nil {
		delete(o.asked, id)
		if st.Attr("type") == "error" {
			r.end(nil, translate.ReadError(st))
		} else {
			r.end(st, nil)
		}
		return
	}
	r, ok := o.relayed[id]
	if !ok {
		o.s.Count.Count("foreign_dropped", "unknown")
		return
	}
	delete(o.relayed, id)
	o.s.Route(st.Copy().SetAttr("id", r.id).SetAttr("to", r.client.String()))
}

// relay passes a client's request on to the room under our name.
func (o *occupancy) relay(client translate.JID, st *element.Element, nick string) {
	for id, r := range o.relayed {
		if time.Since(r.since) > 2*o.s.Answer {
			delete(o.relayed, id)
		}
	}
	if len(o.relayed) >= maxRelayed {
		o.s.Route(translate.Bounce(st, translate.Fail(translate.ResourceConstraint, "too many requests to this room have no answer yet")))
		return
	}
	id := core.NewToken()
	o.relayed[id] = relay{client: client, id: st.Attr("id"), since: time.Now()}
	o.send(st.Copy().SetAttr("id", id), nick)
}

// about is what a room says of itself.
type about struct {
	known bool
	room  bool             // it says that it is one
	info  *element.Element // the answer's query
	name  string
	// archive, plain (real addresses are shown to all), members (only those enter), moderated, ids (occupant-ids), subject (everybody
	// may change it).
	archive, plain, members, moderated, ids, subject bool
	// names says that stanza-ids by the room are the room's: it takes out what occupants claim.
	names      bool
	moderation string // namespace of XEP-0425, if any
}

// describe asks the room what it is like.
//
// spec: XEP-0045 §6.4
func (o *occupancy) describe(then func(error)) {
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "get")
	iq.Add(nsDisco, "query")
	o.request(iq, "", func(reply *element.Element, err error) {
		if err == nil {
			o.about = readAbout(reply.Child(nsDisco, "query"))
		}
		then(err)
	})
}

func readAbout(q *element.Element) about {
	a := about{known: true, info: q}
	if id := q.Child("", "identity"); id != nil {
		a.name = clip(id.Attr("name"), 255)
	}
	for _, f := range q.ChildrenNamed("", "feature") {
		switch f.Attr("var") {
		case translate.NSMUC:
			a.room = true
		case translate.NSMAM:
			a.archive, a.names = true, true
		case translate.NSSID:
			a.names = true
		case "muc_nonanonymous":
			a.plain = true
		case "muc_membersonly":
			a.members = true
		case "muc_moderated":
			a.moderated = true
		case translate.NSOccupantID:
			a.ids = true
		case translate.NSModerate, "urn:xmpp:message-moderate:0":
			if a.moderation != translate.NSModerate {
				a.moderation = f.Attr("var")
			}
		}
	}
	for _, x := range q.ChildrenNamed(nsForm, "x") {
		for _, f := range x.ChildrenNamed("", "field") {
			switch v := f.ChildText("", "value"); f.Attr("var") {
			case "muc#roominfo_subjectmod", "muc#roominfo_changesubject", "muc#roomconfig_changesubject":
				a.subject = v == "1" || v == "true"
			case "muc#roomconfig_roomname":
				if v != "" {
					a.name = clip(v, 255)
				}
			}
		}
	}
	return a
}

// clip cuts s to at most most bytes without splitting a character.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xC0 == 0x80 {
		most--
	}
	return s[:most]
}
