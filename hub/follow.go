package hub

import (
	"context"
	"errors"

	"parley/core"
)

// Follower has accounts follow rooms that go on elsewhere.
type Follower interface {
	// Following reports whether the accounts in a conversation that went on are
	// being brought to where it did, so that they may soon be told where that is.
	Following(v View, conv core.ConvID) (bool, error)
}

// UseFollower sets who does. Call it before [Hub.Start].
func (h *Hub) UseFollower(f Follower) { h.follower = f }

// Following is that of the [Follower], if there is one.
func (h *Hub) Following(v View, conv core.ConvID) (bool, error) {
	if h.follower == nil {
		return false, nil
	}
	return h.follower.Following(v, conv)
}

// Successor finds the conversation in which one goes on that has the state s, if
// it went on and that one is known here.
func Successor(v View, s *core.State) (next core.Conversation, known bool, err error) {
	if s.MovedTo == nil {
		return next, false, nil
	}
	id := s.MovedTo.Conv
	if id == "" && s.MovedTo.Native != "" {
		id, err = v.ConversationNative(core.Matrix, s.MovedTo.Native)
	} else if id == "" && !s.MovedTo.Address.IsZero() {
		id, err = v.ConversationAt(s.MovedTo.Address)
	}
	if errors.Is(err, ErrNone) || err == nil && id == "" {
		return next, false, nil
	}
	if err != nil {
		return next, false, err
	}
	next, err = v.Conversation(id)
	return next, err == nil, err
}

// Retell tells again of an event that says where its conversation went on, now
// that this is known here, or is known not to be found out.
func (h *Hub) Retell(ctx context.Context, id core.EventID) error {
	return h.turn(ctx, func(t *turn) error {
		e, err := t.tx.Event(id)
		if err != nil {
			return refuseNone(err, "there is no such event")
		}
		p, err := t.place(e.Conv)
		if err != nil {
			return err
		}
		var to []core.Address
		for _, m := range p.s.Members {
			if t.h.ours(m.Address) && m.Standing == core.Joined {
				to = append(to, m.Address)
			}
		}
		t.tell(EventNews{Event: e, Conv: *p.c, State: p.s, Again: true}, to...)
		return t.post(p, p.s, &e, true)
	})
}
