package muc

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
)

// corrected tells one viewer what has become another in a room without anybody
// having done it, because servers that could not hear each other agree now. Who
// was shown as coming, going or in charge is shown as it stands. before is found
// where it is nil.
//
// spec: XEP-0045 §7
func (s *Service) corrected(ctx context.Context, c core.Conversation, before, st *core.State, ch core.Change, viewer core.Address) ([]*element.Element, error) {
	if before == nil {
		err := s.Hub.Read(ctx, func(v hub.View) (err error) {
			before, err = hub.Uncorrected(v, st, ch)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	cr := s.crowdOf(c.ID)
	var out []*element.Element
	config := false
	for _, piece := range ch.Corrected {
		switch piece.Kind {
		case string(core.KindMembership):
			if a, err := core.ParseAddress(piece.Key); err == nil {
				out = append(out, s.correctedMember(cr, c, before, st, a, viewer)...)
			}
		case string(core.AspectLevels):
			was := before.Levels
			out = append(out, s.levels(cr, c, st, core.Change{OldLevels: &was}, viewer)...)
		case string(core.AspectTopic):
			el, err := s.correctedTopic(ctx, c, st, piece)
			if err != nil {
				return nil, err
			}
			out = append(out, el)
		case string(core.AspectMovedTo):
			told, err := s.moved(ctx, c, st, viewer)
			if err != nil {
				return nil, err
			}
			out = append(out, told...)
		default:
			config = true
		}
	}
	if config {
		out = append(out, s.configChanged(c))
	}
	return out, nil
}

// correctedMember shows one member as she stands.
func (s *Service) correctedMember(cr crowd, c core.Conversation, before, st *core.State, a, viewer core.Address) []*element.Element {
	was, is := before.Members[a], st.Members[a]
	var codes []int
	if a == viewer {
		codes = []int{110}
	}
	gone := func(m core.Member) *element.Element { return addStatus(s.away(c, st, m), codes...) }
	switch {
	case is.Standing == core.Joined && was.Standing == core.Joined && was.Nick != is.Nick:
		m := core.Membership{Target: a, Standing: core.Joined, Nick: is.Nick, OldNick: was.Nick}
		return []*element.Element{addStatus(s.renamed(c, st, m), codes...), s.occupant(c, st, is, cr.extra[a], codes...)}
	case is.Standing == core.Joined && was.Standing != core.Joined && cr.has(is):
		return []*element.Element{s.occupant(c, st, is, cr.extra[a], codes...)}
	case is.Standing != core.Joined && was.Standing == core.Joined:
		if is.Standing == core.Banned {
			codes = append(codes, 301)
		}
		return []*element.Element{gone(was)}
	case is.Standing != was.Standing:
		return s.affiliationChanged(c, core.Membership{Target: a, Standing: is.Standing, Before: was.Standing})
	}
	return nil
}

// correctedTopic tells the subject that is in force.
func (s *Service) correctedTopic(ctx context.Context, c core.Conversation, st *core.State, piece core.Correction) (el *element.Element, err error) {
	e := core.Event{ID: piece.Is}
	if piece.Is == "" {
		e.ID = piece.Was // there is no topic any more
	}
	err = s.Hub.Read(ctx, func(v hub.View) error {
		e, err = v.Event(e.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.topic(c, st, &e, core.Change{Aspect: core.AspectTopic, Text: st.Topic}), nil
}
