package muc

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/archive"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// source is a room's archive for one reader.
func (s *Service) source(q *question) archive.Source {
	return archive.Source{
		Hub: s.Hub, Who: q.Who, Base: hub.Query{Conv: q.conv.ID},
		Write: func(v hub.View, e *core.Event) (*element.Element, error) {
			w, err := s.writing(v, &q.conv, q.st, e)
			if err != nil {
				return nil, err
			}
			el, _ := translate.Out(e, w)
			if el != nil {
				item := el.Add(translate.NSMUCUser, "x").Add("", "item")
				item.SetAttr("affiliation", string(affiliationOf(q.st, e.Sender)))
				item.SetAttr("role", roleOf(q.st, e.Sender))
				item.SetAttr("jid", s.Names.JID(e.Sender).String())
			}
			return el, nil
		},
	}
}

// archive answers a query of the room's archive.
//
// spec: XEP-0313 §6.1.2
func (s *Service) archive(ctx context.Context, q *question) (*element.Element, error) {
	r, err := archive.Parse(q.body)
	if err != nil {
		return nil, err
	}
	r.Max = min(r.Max, s.MaxPage)
	if !q.Who.IsLocal() {
		if err := s.Guard.Allow(guard.ServerArchivePages, guard.Organisation(q.From.Domain)); err != nil {
			return nil, err
		}
	}
	if err := s.Guard.Allow(guard.ArchivePages, q.Who.String()); err != nil {
		return nil, err
	}
	a, err := s.source(q).Answer(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, res := range a.Results {
		m := element.New(translate.NSClient, "message")
		m.SetAttr("from", s.Names.RoomJID(q.conv.Address).String())
		m.Append(res)
		s.tell(q.Visit, m)
	}
	return a.Fin, nil
}

func (s *Service) archiveForm(context.Context, *question) (*element.Element, error) {
	return archive.Form(), nil
}

func (s *Service) archiveEnds(ctx context.Context, q *question) (*element.Element, error) {
	return s.source(q).Ends(ctx)
}
