package muc

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// form writes a data form.
//
// spec: XEP-0004 §3
type form struct{ x *element.Element }

func newForm(parent *element.Element, typ, formType string) form {
	x := parent.Add(nsForm, "x")
	x.SetAttr("type", typ)
	f := form{x}
	f.field("FORM_TYPE", "hidden", "", formType)
	return f
}

func (f form) field(name, typ, label string, values ...string) *element.Element {
	el := f.x.Add("", "field")
	el.SetAttr("var", name)
	el.SetAttr("type", typ)
	if label != "" {
		el.SetAttr("label", label)
	}
	for _, v := range values {
		el.Append(element.NewText(nsForm, "value", v))
	}
	return el
}

func (f form) boolean(name, label string, on bool) {
	v := "0"
	if on {
		v = "1"
	}
	f.field(name, "boolean", label, v)
}

// readForm returns the values of a submitted form.
func readForm(x *element.Element) map[string]string {
	out := map[string]string{}
	for _, f := range x.ChildrenNamed("", "field") {
		out[f.Attr("var")] = f.ChildText("", "value")
	}
	return out
}

func isTrue(s string) bool { return s == "1" || s == "true" }

// The settings of a room that owners see. Passwords, anonymity and the like
// are not offered, because members on other networks could not be held to them.
const (
	fName      = "muc#roomconfig_roomname"
	fTopicMay  = "muc#roomconfig_changesubject"
	fPublic    = "muc#roomconfig_publicroom"
	fLasting   = "muc#roomconfig_persistentroom"
	fMembers   = "muc#roomconfig_membersonly"
	fModerated = "muc#roomconfig_moderatedroom"
	fInvites   = "muc#roomconfig_allowinvites"
	fWhois     = "muc#roomconfig_whois"
	fHistory   = "muc#roomconfig_historyvisibility"
)

// config is the form in which owners change a room.
//
// spec: XEP-0045 §10.2
func (s *Service) config(ctx context.Context, q *question) (*element.Element, error) {
	if affiliationOf(q.st, q.Who) != hub.Owner {
		return nil, translate.Fail(translate.ForbiddenError, "only owners configure a room")
	}
	public, err := s.isPublic(ctx, q.conv.ID)
	if err != nil {
		return nil, err
	}
	out := element.New(nsOwner, "query")
	f := newForm(out, "form", nsConfig)
	f.field(fName, "text-single", "Name", q.st.Name)
	f.boolean(fLasting, "Lasting: the room stays when the last one leaves", !q.conv.Temporary)
	f.boolean(fPublic, "Listed: anybody can find the room", public)
	f.boolean(fMembers, "Members only", q.st.JoinRule != core.JoinPublic)
	f.boolean(fModerated, "Moderated: speaking needs permission", moderated(q.st))
	f.boolean(fTopicMay, "Anybody may change the subject", q.st.Needs(string(core.AspectTopic), true) <= q.st.Levels.Default)
	f.boolean(fInvites, "Anybody may invite", q.st.Levels.Invite <= q.st.Levels.Default)
	who := f.field(fWhois, "list-single", "Who sees real addresses", "anyone")
	option(who, "Anyone", "anyone")
	hist := f.field(fHistory, "list-single", "Who may read history", string(q.st.Visibility))
	option(hist, "Everybody", string(core.VisibleWorld))
	option(hist, "Members, all of it", string(core.VisibleShared))
	option(hist, "Members, from their invitation on", string(core.VisibleInvited))
	option(hist, "Members, from their joining on", string(core.VisibleJoined))
	return out, nil
}

func option(field *element.Element, label, value string) {
	o := field.Add("", "option")
	o.SetAttr("label", label)
	o.Append(element.NewText(nsForm, "value", value))
}

// configure takes the form back, or destroys the room.
//
// spec: XEP-0045 §10.1.3
func (s *Service) configure(ctx context.Context, q *question) (*element.Element, error) {
	if affiliationOf(q.st, q.Who) != hub.Owner {
		return nil, translate.Fail(translate.ForbiddenError, "only owners configure a room")
	}
	if d := q.body.Child("", "destroy"); d != nil {
		return nil, s.destroy(ctx, q, d)
	}
	x := q.body.Child(nsForm, "x")
	switch x.Attr("type") {
	case "cancel":
		return nil, nil
	case "submit":
	default:
		return nil, translate.Fail(translate.BadRequest, "a form that is submitted or cancelled, please")
	}
	drafts, public := s.changes(q, readForm(x))
	if public != nil {
		err := s.Hub.Write(ctx, func(tx hub.Tx) error { return tx.SetPublic(q.conv.ID, *public) })
		if err != nil {
			return nil, err
		}
	}
	_, err := s.Hub.SubmitAll(ctx, drafts)
	return nil, err
}

// changes turns a submitted form into what is different from the room as it is.
func (s *Service) changes(q *question, values map[string]string) (drafts []hub.Draft, public *bool) {
	change := func(c core.Change) {
		drafts = append(drafts, hub.Draft{Conv: q.conv.ID, Sender: q.Who, Content: c})
	}
	if v, ok := values[fName]; ok && v != q.st.Name {
		change(core.Change{Aspect: core.AspectName, Text: v})
	}
	if v, ok := values[fPublic]; ok {
		on := isTrue(v)
		public = &on
	}
	if v, ok := values[fMembers]; ok && isTrue(v) == (q.st.JoinRule == core.JoinPublic) {
		rule := core.JoinPublic
		if isTrue(v) {
			rule = core.JoinInvite
		}
		change(core.Change{Aspect: core.AspectJoinRule, JoinRule: rule})
	}
	if v, ok := values[fHistory]; ok && v != string(q.st.Visibility) {
		switch vis := core.Visibility(v); vis {
		case core.VisibleWorld, core.VisibleShared, core.VisibleInvited, core.VisibleJoined:
			change(core.Change{Aspect: core.AspectVisibility, Visibility: vis})
		}
	}
	levels, changed := q.st.Levels.Clone(), false
	set := func(name string, is bool, f func(on bool)) {
		if v, ok := values[name]; ok && isTrue(v) != is {
			f(isTrue(v))
			changed = true
		}
	}
	set(fModerated, moderated(q.st), func(on bool) { levels.Message = choose(on, levels.Default+1, levels.Default) })
	set(fTopicMay, q.st.Needs(string(core.AspectTopic), true) <= q.st.Levels.Default, func(on bool) {
		levels.Actions[string(core.AspectTopic)] = choose(on, levels.Default, 50)
	})
	set(fInvites, q.st.Levels.Invite <= q.st.Levels.Default, func(on bool) { levels.Invite = choose(on, levels.Default, 50) })
	if changed {
		change(core.Change{Aspect: core.AspectLevels, Levels: &levels})
	}
	return drafts, public
}

func choose(on bool, yes, no int64) int64 {
	if on {
		return yes
	}
	return no
}

// destroy ends a room: nobody may join any more, nothing leads to it, and all
// are told where to go on, if anywhere. What was said stays in their archives.
//
// spec: XEP-0045 §10.9
func (s *Service) destroy(ctx context.Context, q *question, d *element.Element) error {
	move := core.Move{Reason: d.ChildText("", "reason")}
	if alt, err := translate.ParseJID(d.Attr("jid")); err == nil {
		if a, err := s.Names.RoomAddress(alt); err == nil {
			move.Address = a
		} else {
			move.Address = core.Address{Network: core.XMPP, Name: alt.Local, Domain: alt.Domain}
		}
	}
	// On other networks the room has another name.
	err := s.Hub.Read(ctx, func(v hub.View) error {
		next, known, err := hub.Successor(v, &core.State{MovedTo: &move})
		if known {
			move.Conv, move.Native = next.ID, next.Native[core.Matrix]
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = s.Hub.SubmitAll(ctx, []hub.Draft{
		{Conv: q.conv.ID, Sender: q.Who, Content: core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinInvite}},
		{Conv: q.conv.ID, Sender: q.Who, Content: core.Change{Aspect: core.AspectMovedTo, MovedTo: &move}, With: func(tx hub.Tx, e *core.Event) error {
			addresses, err := tx.RoomAddresses(q.conv.ID)
			if err != nil {
				return err
			}
			for _, a := range addresses {
				if err := tx.DeleteRoomAddress(a); err != nil {
					return err
				}
			}
			return tx.SetPublic(q.conv.ID, false)
		}},
	})
	return err
}
