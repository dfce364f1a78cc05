package hub

import (
	"context"
	"time"

	"parley/core"
)

// Reacher is a [Remote] that can look in a room's history for a moment.
type Reacher interface {
	// Reach fetches history, from below what is known down to what was said
	// closest to a moment: before it, or (forward) after it. It does nothing
	// where that is known, unknown to others too, or too far.
	Reach(ctx context.Context, c core.Conversation, at time.Time, forward bool) error
}

// Reach asks others for a conversation's history down to a moment, if there are
// others who may know more of it.
func (h *Hub) Reach(ctx context.Context, conv core.ConvID, at time.Time, forward bool) error {
	c, _, err := h.conversation(ctx, conv)
	if err != nil {
		return err
	}
	if r, ok := h.remoteOf(c).(Reacher); ok {
		return r.Reach(ctx, c, at, forward)
	}
	return nil
}
