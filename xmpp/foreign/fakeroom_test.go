package foreign_test

import (
	"slices"
	"strconv"
	"strings"

	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// handle deals with what comes from the server under test.
func (r *room) handle(st *element.Element) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, st)
	if r.hook != nil && r.hook(st) {
		return
	}
	t := st.Attr("type")
	if r.down {
		if t == "get" || t == "set" || st.Name.Local == "presence" && t == "" {
			r.fail(st, translate.RemoteServerTimeout, "")
		}
		return
	}
	to, _ := translate.ParseJID(st.Attr("to"))
	switch st.Name.Local {
	case "presence":
		r.comes(st, to.Resource)
	case "message":
		r.message(st, to.Resource)
	case "iq":
		if t == "get" || t == "set" {
			r.iq(st, to.Resource)
		}
	}
}

func (r *room) fail(st *element.Element, c translate.Condition, text string) {
	r.w.take(translate.Bounce(st, translate.Fail(c, text)))
}

func bare(jid string) string {
	b, _, _ := strings.Cut(jid, "/")
	return b
}

func (r *room) comes(st *element.Element, nick string) {
	me := st.Attr("from")
	g := r.by(me)
	if st.Attr("type") == "unavailable" {
		if g != nil {
			was := g.role
			g.role = "none"
			r.all(func(to *guest) *element.Element { return r.presence(g, to, " type='unavailable'", "", "") })
			g.role = was
			r.guests = slices.DeleteFunc(r.guests, func(o *guest) bool { return o == g })
		}
		return
	}
	x := st.Child(translate.NSMUC, "x")
	other := r.at(nick)
	switch {
	case other != nil && other != g:
		r.fail(st, translate.ConflictError, "that nick is taken")
		return
	case g != nil && g.nick != nick:
		r.rename(g, nick)
		return
	case x == nil && g == nil:
		return
	case r.banned[bare(me)]:
		r.fail(st, translate.ForbiddenError, "you are banned")
		return
	case r.onlyFor != nil && !r.onlyFor[bare(me)]:
		r.fail(st, translate.RegistrationRequired, "members only")
		return
	case r.password != "" && x.ChildText("", "password") != r.password:
		r.fail(st, translate.NotAuthorizedError, "a password is needed")
		return
	}
	created := len(r.guests) == 0 && r.n == 0
	if g == nil {
		g = &guest{nick: nick, jid: me, ours: true}
		r.put(g)
	}
	for _, o := range r.guests {
		if o != g {
			r.w.take(r.presence(o, g, "", "", ""))
		}
	}
	codes := ""
	if created {
		codes = "201"
		g.affiliation, g.role = "owner", "moderator"
	}
	for _, o := range r.guests {
		if o != g && o.ours {
			r.w.take(r.presence(g, o, "", "", ""))
		}
	}
	r.w.take(r.presence(g, g, "", codes, ""))
	if n, err := strconv.Atoi(x.Child("", "history").Attr("maxstanzas")); err != nil || n > 0 {
		for _, s := range r.archive {
			m := s.el.Copy().SetAttr("to", me)
			m.RemoveChildren(func(e *element.Element) bool { return e.Name.Space == translate.NSDelay })
			m.Append(translate.Delay(s.at, r.jid))
			r.w.take(m)
		}
	}
	r.w.take(xml(r.w.t, `<message type='groupchat' from='%s' to='%s'><subject>%s</subject></message>`, r.jid, me, r.subject))
}

func (r *room) message(st *element.Element, nick string) {
	g := r.by(st.Attr("from"))
	if st.Attr("type") == "error" {
		return
	}
	if g == nil {
		if st.Child(translate.NSMUCUser, "x") == nil {
			r.fail(st, translate.NotAcceptable, "you are not here")
		}
		return
	}
	if nick != "" || st.Attr("type") != "groupchat" {
		return // heard is enough
	}
	if g.role == "visitor" {
		r.fail(st, translate.ForbiddenError, "visitors may not speak")
		return
	}
	if sub := st.Child("", "subject"); sub != nil && st.Child("", "body") == nil {
		if g.role != "moderator" {
			r.fail(st, translate.ForbiddenError, "only moderators change the subject")
			return
		}
		r.subject = sub.Text()
		m := st.Copy().SetAttr("from", r.jid+"/"+g.nick)
		r.all(func(to *guest) *element.Element { return m.Copy().SetAttr("to", to.jid) })
		return
	}
	if st.Child("", "body") == nil && len(translate.References(st).Messages) == 0 || st.Child(translate.NSMarkers, "displayed") != nil {
		r.all(func(to *guest) *element.Element {
			return st.Copy().SetAttr("from", r.jid+"/"+g.nick).SetAttr("to", to.jid)
		})
		return
	}
	r.reflect(g.nick, st)
}

func (r *room) result(st *element.Element, payload *element.Element) {
	iq := xml(r.w.t, `<iq type='result' id='%s' from='%s' to='%s'/>`, st.Attr("id"), st.Attr("to"), st.Attr("from"))
	r.w.take(iq.Append(payload))
}

func (r *room) iq(st *element.Element, nick string) {
	q := st.First()
	g := r.by(st.Attr("from"))
	switch {
	case q.Is(nsPing, "ping") && g != nil && g.nick == nick:
		r.result(st, nil)
	case g == nil && !q.Is(nsDisco, "query"):
		r.fail(st, translate.NotAcceptable, "you are not here")
	case nick != "":
		if o := r.at(nick); o == nil {
			r.fail(st, translate.ItemNotFound, "nobody is called so")
		} else {
			r.result(st, xml(r.w.t, `<vCard xmlns='vcard-temp'><FN>%s</FN></vCard>`, o.nick))
		}
	case q.Is(nsDisco, "query"):
		info := xml(r.w.t, `<query xmlns='%s'><identity category='conference' type='text' name='The room'/></query>`, nsDisco)
		for _, f := range r.features {
			info.Add("", "feature").SetAttr("var", f)
		}
		r.result(st, info)
	case q.Is(translate.NSMAM, "query"):
		r.mam(st, q)
	case q.Is(nsAdmin, "query"):
		r.admin(st, q, g)
	case q.Is(translate.NSModerate, "moderate"):
		if g.role != "moderator" {
			r.fail(st, translate.ForbiddenError, "only moderators retract")
			return
		}
		r.result(st, nil)
		m := xml(r.w.t, `<message type='groupchat'><retract xmlns='urn:xmpp:message-retract:1' id='%s'><moderated xmlns='%s' by='%s'/></retract></message>`,
			q.Attr("id"), translate.NSModerate, r.jid+"/"+g.nick)
		r.reflect("", m)
	case q.Is(nsOwner, "query") && g.affiliation != "owner":
		r.fail(st, translate.ForbiddenError, "only owners configure")
	case q.Is(nsOwner, "query") && st.Attr("type") == "get":
		r.result(st, xml(r.w.t, `<query xmlns='%s'><x xmlns='%s' type='form'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/muc#roomconfig</value></field>
			<field var='muc#roomconfig_roomname'><value>The room</value></field></x></query>`, nsOwner, nsForm))
	case q.Is(nsOwner, "query"):
		r.result(st, nil)
	default:
		r.fail(st, translate.ServiceUnavailable, "")
	}
}

func (r *room) admin(st, q *element.Element, g *guest) {
	item := q.Child("", "item")
	if o := r.at(item.Attr("nick")); o != nil && item.Attr("affiliation") != "" {
		item.SetAttr("jid", bare(o.jid))
	}
	if g.role != "moderator" {
		r.fail(st, translate.ForbiddenError, "you are no moderator")
		return
	}
	reason := ""
	if text := item.ChildText("", "reason"); text != "" {
		reason = "<reason>" + element.Escape(text) + "</reason>"
	}
	actor := "<actor nick='" + g.nick + "'/>" + reason
	r.result(st, nil)
	out := func(o *guest, code string) {
		was := *o
		o.role = "none"
		r.all(func(to *guest) *element.Element { return r.presence(o, to, " type='unavailable'", code, actor) })
		*o = was
		r.guests = slices.DeleteFunc(r.guests, func(x *guest) bool { return x == o })
	}
	for _, o := range slices.Clone(r.guests) {
		switch {
		case item.Attr("role") == "none" && o.nick == item.Attr("nick"):
			out(o, "307")
		case item.Attr("role") != "" && o.nick == item.Attr("nick"):
			o.role = item.Attr("role")
			r.all(func(to *guest) *element.Element { return r.presence(o, to, "", "", "") })
		case item.Attr("affiliation") != "" && bare(o.jid) == item.Attr("jid"):
			o.affiliation = item.Attr("affiliation")
			if o.affiliation == "outcast" {
				out(o, "301")
				continue
			}
			r.all(func(to *guest) *element.Element { return r.presence(o, to, "", "", "") })
		}
	}
	if a := item.Attr("affiliation"); a != "" {
		r.banned[item.Attr("jid")] = a == "outcast"
	}
}

// mam answers a query of the archive, in pages.
func (r *room) mam(st, q *element.Element) {
	if !r.has(translate.NSMAM) {
		r.fail(st, translate.ServiceUnavailable, "")
		return
	}
	set := q.Child(nsRSM, "set")
	most, _ := strconv.Atoi(set.ChildText("", "max"))
	most = min(most, r.page)
	all := r.archive
	for _, f := range q.Child(nsForm, "x").ChildrenNamed("", "field") {
		if f.Attr("var") == "start" {
			start := f.ChildText("", "value")
			all = slices.Clone(all)
			all = slices.DeleteFunc(all, func(s said) bool { return translate.Stamp(s.at) < start })
		}
	}
	index := func(id string) int { return slices.IndexFunc(all, func(s said) bool { return s.id == id }) }
	complete := false
	if after := set.ChildText("", "after"); after != "" {
		i := index(after)
		if i < 0 {
			r.fail(st, translate.ItemNotFound, "")
			return
		}
		all = all[i+1:]
	}
	if b := set.Child("", "before"); b != nil {
		if id := b.Text(); id != "" {
			i := index(id)
			if i < 0 {
				r.fail(st, translate.ItemNotFound, "")
				return
			}
			all = all[:i]
		}
		complete = len(all) <= most
		all = all[max(0, len(all)-most):]
	} else {
		complete = len(all) <= most
		all = all[:min(most, len(all))]
	}
	for _, s := range all {
		m := xml(r.w.t, `<message from='%s' to='%s'><result xmlns='%s' queryid='%s' id='%s'/></message>`, r.jid, st.Attr("from"), translate.NSMAM,
			q.Attr("queryid"), s.id)
		m.First().Append(translate.Forwarded(s.el.Copy(), s.at))
		r.w.take(m)
	}
	fin := element.New(translate.NSMAM, "fin").SetAttr("complete", strconv.FormatBool(complete))
	rs := fin.Add(nsRSM, "set")
	if len(all) > 0 {
		rs.Append(element.NewText(nsRSM, "first", all[0].id), element.NewText(nsRSM, "last", all[len(all)-1].id))
	}
	r.result(st, fin)
}
