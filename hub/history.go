package hub

import (
	"context"
	"slices"

	"parley/core"
)

// readable is the visibility rule's view of one reader.
type readable struct {
	s     *core.State
	stays []Stay
	who   core.Address
}

// readableBy prepares the one rule of history visibility for a reader.
func readableBy(v View, conv core.ConvID, who core.Address) (*readable, error) {
	s, err := v.State(conv)
	if err != nil {
		return nil, refuseNone(err, "there is no such conversation")
	}
	stays, err := v.Stays(conv, who)
	return &readable{s, stays, who}, err
}

// may holds one position to the rule. Visibility is the conversation's
// current one: a room that was opened later is open for its past too, as long
// as the reader is or was a member.
//
// spec: MX 1.19 CS §10.14
func (r *readable) may(at core.Position) bool {
	if r.s.Visibility == core.VisibleWorld {
		return true
	}
	joined := false
	for _, st := range r.stays {
		joined = joined || st.Joined != 0
		if st.Left != 0 && at > st.Left {
			continue
		}
		switch r.s.Visibility {
		case core.VisibleShared:
			if st.Joined != 0 {
				return true
			}
		case core.VisibleInvited:
			if st.Joined != 0 && (st.Invited != 0 && at >= st.Invited || at >= st.Joined) {
				return true
			}
		}
		if st.Joined != 0 && at >= st.Joined {
			return true
		}
	}
	return false
}

// History is a page of events, held to what its reader may read.
func (h *Hub) History(ctx context.Context, who core.Address, q Query) ([]core.Event, error) {
	var out []core.Event
	err := h.Read(ctx, func(v View) (err error) {
		out, err = h.HistoryIn(v, who, q)
		return err
	})
	return out, err
}

// HistoryIn is [Hub.History] on a snapshot that the caller holds.
func (h *Hub) HistoryIn(v View, who core.Address, q Query) ([]core.Event, error) {
	if q.Conv == "" {
		q.For = who
	}
	events, err := v.Page(q)
	if err != nil {
		return nil, err
	}
	return h.Readable(v, who, q.Conv, events)
}

// Readable leaves of events those that who may read and whose senders she does
// not block, without the state in which a room was found. With a conversation it
// refuses one who was never in it.
func (h *Hub) Readable(v View, who core.Address, conv core.ConvID, events []core.Event) ([]core.Event, error) {
	rules := map[core.ConvID]*readable{}
	if conv != "" {
		r, err := readableBy(v, conv, who)
		if err != nil {
			return nil, err
		}
		if len(r.stays) == 0 && r.s.Visibility != core.VisibleWorld {
			return nil, Refuse(NotMember, "you are not in this room")
		}
		rules[conv] = r
	}
	var failed error
	events = slices.DeleteFunc(events, func(e core.Event) bool {
		if failed != nil {
			return false
		}
		if Found(&e) {
			return true
		}
		r := rules[e.Conv]
		if r == nil {
			if r, failed = readableBy(v, e.Conv, who); failed != nil {
				return false
			}
			rules[e.Conv] = r
		}
		if !r.may(e.Position) {
			return true
		}
		if !talks(e.Content) || e.Sender == who {
			return false
		}
		var blocked bool
		blocked, failed = h.blocks.has(v, who, e.Sender)
		return blocked
	})
	return events, failed
}

// MayRead reports whether one may read an event.
func (h *Hub) MayRead(v View, who core.Address, e *core.Event) (bool, error) {
	r, err := readableBy(v, e.Conv, who)
	if err != nil {
		return false, err
	}
	return r.may(e.Position), nil
}
