package incoming

import (
	"context"
	"errors"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/shared"
)

// schedule has gaps filled when their time has come, in several rooms at a time.
func (n *Incoming) schedule() {
	n.mu.Lock()
	ctx := n.ctx
	n.mu.Unlock()
	if ctx == nil {
		return
	}
	slots := make(chan struct{}, maxFillers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-timer.C:
		}
		var convs []core.ConvID
		var next time.Time
		err := n.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
			convs, next, err = due(v, time.Now())
			return err
		})
		if err != nil {
			if ctx.Err() == nil {
				n.cfg.Log.Error("looking for Matrix events that wait", "err", err)
			}
			next = time.Now().Add(n.cfg.FirstRetry)
		}
		for _, conv := range convs {
			if !n.begin(conv) {
				continue // when it ends, it stirs
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				n.end(conv)
				return
			}
			n.wg.Go(func() {
				defer func() { <-slots }()
				defer n.end(conv)
				n.fillRoom(ctx, conv)
			})
		}
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
		}
	}
}

// begin says that a room's gaps are being filled, unless they are already.
func (n *Incoming) begin(conv core.ConvID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.filling[conv] {
		return false
	}
	n.filling[conv] = true
	return true
}

func (n *Incoming) end(conv core.ConvID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.filling, conv)
	n.stir()
}

// fillTime is for one go at a room's gaps.
const fillTime = 2 * time.Minute

// fillRoom has one go at what waits for a room. Whatever comes of it, nothing is
// due that was before.
func (n *Incoming) fillRoom(ctx context.Context, conv core.ConvID) {
	timed, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	err := n.keep.Do(func() error { return n.fill(timed, conv) })
	if ctx.Err() != nil || err == nil {
		return
	}
	n.cfg.Log.Error("filling gaps of a Matrix room", "conversation", conv, "err", err)
	err = n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error {
		p := &place{conv: conv}
		var err error
		if p.roomID, p.version, err = shared.RoomOf(t.Tx(), conv); errors.Is(err, shared.ErrNotShared) {
			return n.forgetRoom(t, conv)
		}
		if err != nil {
			return err
		}
		items, err := waitingIn(t.Tx(), p, time.Now(), maxWaitingRoom)
		for _, it := range items {
			if err == nil {
				err = n.postpone(t, it, true, time.Time{})
			}
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		n.cfg.Log.Error("putting off Matrix events that wait", "conversation", conv, "err", err)
		select { // or it would be due again at once
		case <-ctx.Done():
		case <-time.After(n.cfg.FirstRetry):
		}
	}
}
