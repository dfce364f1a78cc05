package muc

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
)

// Local serves the sessions of local clients: it implements [c2s.Service].
type Local struct{ *Service }

// Stanza implements [c2s.Service].
func (l Local) Stanza(ctx context.Context, s *c2s.Session, st *element.Element) error {
	v := Visit{
		From: s.JID(), Who: s.Account(), Send: s.Send, Room: s.Room(),
		With: func(tx hub.Tx, _ *core.Event) error { return s.Counted(tx) },
	}
	switch st.Attr("type") {
	case "error", "result":
		l.Handle(ctx, v, st)
		return nil
	}
	if abroad, err := l.errandOf(ctx, s, v, st); abroad {
		return err
	}
	return l.handle(ctx, v, st)
}

// News implements [c2s.Service].
func (l Local) News(ctx context.Context, s *c2s.Session, n hub.News) error {
	if b, ok := n.(hub.BehindNews); ok {
		return l.catchUp(ctx, s, b.Feed)
	}
	out, losses, err := l.Service.News(ctx, s.JID(), s.Account(), n)
	for _, loss := range losses {
		s.Log().Debug("a room's event was carried with a loss", "loss", loss)
	}
	for _, el := range out {
		s.SendAway(el) // presence and chat states of a room wait while nobody looks
	}
	return err
}

// catchUp sends a session that was too slow what it missed in its rooms.
func (l Local) catchUp(ctx context.Context, s *c2s.Session, after core.Feed) error {
	l.mu.Lock()
	var ids []core.ConvID
	for id := range l.in[s.JID()] {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	for _, id := range ids {
		events, err := l.Hub.History(ctx, s.Account(), hub.Query{Conv: id, AfterFeed: after, ByFeed: true, Aliases: true})
		if err != nil {
			return err
		}
		var c core.Conversation
		var st *core.State
		err = l.Hub.Read(ctx, func(v hub.View) (err error) {
			if c, err = v.Conversation(id); err != nil {
				return err
			}
			st, err = v.State(id)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := l.News(ctx, s, hub.EventNews{Event: e, Conv: c, State: st}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Gone implements [c2s.Service].
func (l Local) Gone(s *c2s.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l.Service.Gone(ctx, s.JID())
}
