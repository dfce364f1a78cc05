package joining

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
)

// Reach implements [hub.Reacher], if the history does.
func (j *Joining) Reach(ctx context.Context, c core.Conversation, at time.Time, forward bool) error {
	if r, ok := j.cfg.History.(hub.Reacher); ok {
		return r.Reach(ctx, c, at, forward)
	}
	return nil
}
