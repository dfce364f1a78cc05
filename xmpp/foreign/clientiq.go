package foreign

import (
	"context"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/xmpp/archive"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// clientIQ is what a client asks the room or an occupant.
func (s *Service) clientIQ(_ context.Context, sess *c2s.Session, st *element.Element, to translate.JID) error {
	if t := st.Attr("type"); t != "get" && t != "set" {
		return nil // no occupant was let ask us anything
	}
	o := s.of(sess.Account(), to)
	body := st.First()
	if o == nil || body == nil {
		return translate.Fail(translate.BadRequest, "")
	}
	_, in := visitsOf(sess)[o.conv]
	switch {
	case body.Is(nsPing, "ping") && to.Resource != "":
		o.later(func() { o.pinged(sess.JID(), st, to.Resource, in) })
	case to.Resource == "" && body.Name.Space == translate.NSMAM && o.conv != "":
		go s.archive(sess, o, st, body)
	case to.Resource == "" && body.Is(nsDisco, "query") && body.Attr("node") == "":
		o.later(func() { o.described(sess.JID(), st) })
	default:
		o.later(func() { o.relay(sess.JID(), st, to.Resource) })
	}
	return nil
}

// result answers a client's request in the room's name.
func result(st, payload *element.Element) *element.Element {
	r := element.New(translate.NSClient, "iq").SetAttr("type", "result").SetAttr("id", st.Attr("id"))
	r.SetAttr("from", st.Attr("to")).SetAttr("to", st.Attr("from"))
	return r.Append(payload)
}

// pinged answers a self-ping; another occupant's client is asked.
//
// spec: XEP-0410 §3
func (o *occupancy) pinged(client translate.JID, st *element.Element, nick string, in bool) {
	switch {
	case !in:
		o.s.Route(translate.Bounce(st, translate.Fail(translate.NotAcceptable, "you are not in this room")))
	case nick == o.nick || nick == o.self:
		o.s.Route(result(st, nil))
	default:
		o.relay(client, st, nick)
	}
}

// described says what the room is like: as it last said itself, with what we do for it.
//
// spec: XEP-0045 §6.4
func (o *occupancy) described(client translate.JID, st *element.Element) {
	if o.about.info == nil {
		o.relay(client, st, "")
		return
	}
	q := o.about.info.Copy()
	have := map[string]bool{}
	for _, f := range q.ChildrenNamed("", "feature") {
		have[f.Attr("var")] = true
	}
	for _, f := range []string{nsSelfOpt, translate.NSMAM, translate.NSMAM + "#extended"} {
		if !have[f] && (o.about.archive || f == nsSelfOpt) {
			q.Add("", "feature").SetAttr("var", f)
		}
	}
	o.s.Route(result(st, q))
}

// archive answers a query of the room's archive from what is kept here, by the room's names. Where that ends the room is asked for
// more first.
//
// spec: XEP-0313 §6.1.2
func (s *Service) archive(sess *c2s.Session, o *occupancy, st, body *element.Element) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), 2*s.Answer)
	defer cancel()
	reply, results, err := s.answer(ctx, sess.Account(), o, st.Attr("type"), body)
	sess.Call(func(context.Context) {
		for _, r := range results {
			m := element.New(translate.NSClient, "message").SetAttr("from", o.room.String()).SetAttr("to", sess.JID().String())
			sess.Send(m.Append(r))
		}
		if err != nil {
			sess.Send(translate.Bounce(st, err))
			return
		}
		sess.Send(result(st, reply))
	})
}

func (s *Service) answer(ctx context.Context, who core.Address, o *occupancy, typ string, body *element.Element) (*element.Element, []*element.Element, error) {
	src := s.source(who, o)
	switch {
	case body.Name.Local == "query" && typ == "get":
		return archive.Form(), nil, nil
	case body.Name.Local == "metadata":
		el, err := src.Ends(ctx)
		return el, nil, err
	case body.Name.Local != "query":
		return nil, nil, translate.Fail(translate.FeatureNotImplemented, "")
	}
	r, err := archive.Parse(body)
	if err != nil {
		return nil, nil, err
	}
	a, err := src.Answer(ctx, r)
	for range 3 {
		if err != nil || !r.Last || a.Fin.Attr("complete") != "true" {
			break
		}
		var more bool
		if more, err = s.Older(ctx, core.Conversation{ID: o.conv}, r.Max); err != nil || !more {
			break
		}
		a, err = src.Answer(ctx, r)
	}
	return a.Fin, a.Results, err
}

// source is the archive of a projection.
func (s *Service) source(who core.Address, o *occupancy) archive.Source {
	return archive.Source{
		Hub: s.Hub, Who: who, Base: hub.Query{Conv: o.conv},
		Name: func(e *core.Event) string {
			if sid := e.AliasIn(core.XMPP, translate.AliasStanza, translate.RoomScope(e.Conv)); sid != "" {
				return sid
			}
			return string(e.ID)
		},
		Find: func(v hub.View, id string) (core.EventID, error) {
			found, err := lookup.Find(v, who, lookup.Place{Conv: o.conv}, translate.Ref{ID: id, Author: translate.AnyMessage})
			if err == nil && found == "" {
				err = hub.ErrNone
			}
			return found, err
		},
		Write: func(v hub.View, e *core.Event) (*element.Element, error) {
			st, err := v.State(e.Conv)
			if err != nil {
				return nil, err
			}
			el, err := s.compose(v, o.room, st, e, nil)
			if errors.Is(err, hub.ErrNone) {
				return nil, nil
			}
			return el, err
		},
	}
}
