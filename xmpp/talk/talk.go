// Package talk turns what XMPP message stanzas say into the hub's commands. It stands above package translate, which knows what a
// stanza means, and is shared by the sessions of local clients, the rooms and what comes from other servers: whoever says it, it is
// interpreted, admitted and refused in one way.
package talk

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// composingFor is for how long one is said to be writing who does not say it again: clients say it once and then when it ends.
//
// spec: XEP-0085 §5.1
const composingFor = 90 * time.Second

// Interpret says what a stanza means that r.Sender says at a place. r brings Sender, Names and, in a room, Occupant.
func Interpret(ctx context.Context, h *hub.Hub, st *element.Element, at lookup.Place, base string, r translate.Reading) (translate.Said, []core.Loss, error) {
	r.Now = time.Now()
	err := h.Read(ctx, func(v hub.View) (err error) {
		r, err = lookup.Reading(v, st, at, base, r)
		return err
	})
	if err != nil {
		return translate.Said{}, nil, err
	}
	said, losses := translate.In(st, r)
	return said, losses, nil
}

// Speaker is one who says something to one other person.
type Speaker struct {
	Hub   *hub.Hub
	Names translate.Names
	// Base is "https://" and the host of links to files.
	Base      string
	Who, Peer core.Address
	// Session is hub.Draft.From: the session here that says it, if one does.
	Session string
	// With is committed with what is said; nil for nothing.
	With func(tx hub.Tx) error
}

// Interpret says what the speaker's stanza means.
func (s Speaker) Interpret(ctx context.Context, st *element.Element) (translate.Said, []core.Loss, error) {
	return Interpret(ctx, s.Hub, st, lookup.Place{Peer: s.Peer}, s.Base, translate.Reading{Sender: s.Who, Names: s.Names})
}

// Say has the hub keep what is to be kept of what was said; it reports whether there was anything.
func (s Speaker) Say(ctx context.Context, said translate.Said) (kept bool, err error) {
	d := hub.Draft{Sender: s.Who, Origin: said.Origin, Content: said.Content, Native: said.Native, Aliases: said.Aliases, From: s.Session}
	if s.With != nil {
		d.With = func(tx hub.Tx, _ *core.Event) error { return s.With(tx) }
	}
	switch {
	case said.Reactions != nil:
		e, err := s.event(ctx, said.Reactions.Target)
		if err != nil {
			return true, err
		}
		d.Conv = e.Conv
		return true, s.Hub.React(ctx, said.Reactions.Target, said.Reactions.Keys, d)
	case said.Content != nil:
		_, err = s.Hub.SubmitDirect(ctx, s.Peer, d)
		return true, err
	}
	return false, nil
}

// Tell passes on what is worth nothing later: that somebody writes, and how far she has read. Refusals are nobody's concern, because
// the sender expects no answer.
func (s Speaker) Tell(ctx context.Context, said translate.Said) error {
	for _, r := range said.Receipts {
		e, err := s.event(ctx, r.Target)
		if err != nil {
			return err
		}
		if e.Sender == s.Who {
			continue // one has read one's own
		}
		mark := s.Hub.MarkDelivered
		if r.Stage == core.StageDisplayed {
			mark = s.Hub.MarkDisplayed
		}
		err = mark(ctx, hub.ReadingRequest{Conv: e.Conv, Who: s.Who, Event: e.ID, Thread: string(r.Thread), From: s.Session, With: s.With})
		if err != nil && hub.CodeOf(err) == "" {
			return err
		}
	}
	if said.Typing == nil {
		return nil
	}
	conv, err := s.direct(ctx)
	if err != nil || conv == "" {
		return err
	}
	var until time.Time
	if *said.Typing {
		until = time.Now().Add(composingFor)
	}
	err = s.Hub.Typing(ctx, conv, s.Who, until, s.Session)
	if hub.CodeOf(err) != "" {
		return nil
	}
	return err
}

func (s Speaker) event(ctx context.Context, id core.EventID) (e core.Event, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		e, err = v.Event(id)
		return err
	})
	return e, err
}

// direct is the current direct of the two, or "" if there is none yet: that somebody writes does not open one.
func (s Speaker) direct(ctx context.Context) (conv core.ConvID, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		all, err := v.Directs(s.Who, s.Peer)
		if err == nil && len(all) > 0 {
			conv = all[0]
		}
		return err
	})
	return conv, err
}

// HasOther says whether a message holds something that means nothing here, and is passed on to the receiver's clients as it is.
func HasOther(m *element.Element) bool {
	for _, c := range m.Elements() {
		switch c.Name.Space {
		case translate.NSChatStates, translate.NSReceipts, translate.NSMarkers, translate.NSHints, translate.NSSID,
			translate.NSCarbons, translate.NSDelay:
		case translate.NSClient:
			if c.Name.Local == "subject" {
				return true
			}
		default:
			return true
		}
	}
	return false
}
