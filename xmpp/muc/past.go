package muc

import (
	"context"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/xmpp/archive"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// asksPast says whether a stanza asks something of a room's archive.
func asksPast(el *element.Element) bool {
	return el.Name.Local == "iq" && el.Attr("type") == "set" && el.Child(translate.NSMAM, "query") != nil
}

// digging has the other servers in a room tell what was said there before anybody of ours came, if the page that is asked for may reach
// down to that. A client that goes back through the archive reads it all, and one that asks from the beginning what is known here.
//
// spec: XEP-0313 §6.1.2
func (s *Service) digging(ctx context.Context, v Visit, p place, el *element.Element) (*errand, error) {
	r, err := archive.Parse(el.First())
	if err != nil || p.conv == "" || !r.Last || r.CountOnly || len(r.IDs) > 0 {
		return nil, nil //nolint:nilerr // handle says so
	}
	shared := false
	var before core.Position
	err = s.Hub.Read(ctx, func(view hub.View) error {
		c, err := view.Conversation(p.conv)
		if err != nil || c.Authority != core.Graph {
			return err
		}
		st, err := view.State(p.conv)
		if err != nil || st.Standing(v.Who) != core.Joined {
			return err
		}
		shared = true
		if r.BeforeID == "" {
			return nil
		}
		e, err := view.Event(core.EventID(r.BeforeID))
		if errors.Is(err, hub.ErrNone) || err == nil && e.Conv != p.conv {
			shared = false // handle says so
			return nil
		}
		before = e.Position
		return err
	})
	if err != nil || !shared {
		return nil, err
	}
	ask := func(ctx context.Context) error {
		if err := s.Hub.Older(ctx, p.conv, before, min(r.Max, s.MaxPage)); hub.CodeOf(err) == "" {
			return err
		}
		return nil // what is known has to do
	}
	return &errand{ask: ask, then: func(ctx context.Context) error { return s.handle(ctx, v, el) }}, nil
}
