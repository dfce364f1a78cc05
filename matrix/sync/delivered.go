package sync

import (
	"context"
	"encoding/json"
	"sync"

	"parley/core"
	"parley/hub"
)

// mostDelivered is how many of the newest messages are looked at when it is
// not known up to where a device had confirmed before.
const mostDelivered = 100

// confirmations remember up to where each device has confirmed, so that the
// same messages are not looked at again. Forgetting costs that look.
type confirmations struct {
	mu sync.Mutex
	m  map[deviceKey]core.Feed
}

// maxConfirmations is how many devices are remembered.
const maxConfirmations = 20_000

func (c *confirmations) get(k deviceKey) core.Feed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[k]
}

func (c *confirmations) set(k deviceKey, f core.Feed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxConfirmations {
		c.m = map[deviceKey]core.Feed{}
	}
	c.m[k] = f
}

// confirm notes what has arrived on a device: a token that comes back says
// that everything up to it has. It counts for the messages of others in
// directs, whose senders are told.
func (s *Syncer) confirm(ctx context.Context, q *request) error {
	if q.initial() {
		return nil
	}
	k := deviceKey{q.account, q.device}
	after := s.confirmed.get(k)
	if after >= q.feed() {
		return nil
	}
	events, err := s.hub.History(ctx, q.account, hub.Query{
		Directs: true, For: q.account, AfterFeed: after, BeforeFeed: q.feed() + 1, ByFeed: true, Latest: true,
		Kinds: []core.Kind{core.KindMessage, core.KindEdit}, Limit: mostDelivered,
	})
	if err != nil {
		return err
	}
	last := map[core.ConvID]core.EventID{}
	for _, e := range events {
		if e.Sender != q.account {
			last[e.Conv] = e.ID
		}
	}
	for conv, id := range last {
		err := s.hub.MarkDelivered(ctx, hub.ReadingRequest{Conv: conv, Who: q.account, Event: id})
		if err != nil && hub.CodeOf(err) == "" {
			return err
		}
	}
	s.confirmed.set(k, q.feed())
	return nil
}

// delivered tells of the account's own messages that have arrived on a device
// of the other. Matrix has no receipt for that; clients of bridges know this
// event. Only the sender hears of it.
func (r *roomBuild) delivered() ([]json.RawMessage, error) {
	if r.fresh || r.q.initial() {
		return nil, nil
	}
	var out []json.RawMessage
	for _, rd := range r.readings {
		if rd.Stage != core.StageDelivered || rd.Who == r.q.account {
			continue
		}
		events, err := r.s.mirror.ByCore(r.v, rd.Event)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 || events[0].PDU.Sender != r.q.userID {
			continue
		}
		user, _ := r.names.UserID(rd.Who)
		e, err := event(typeSendStatus, map[string]any{
			"m.relates_to": map[string]any{"rel_type": "m.reference", "event_id": events[0].EventID},
			"network":      string(rd.Who.Network), "status": "SUCCESS", "delivered_to_users": []string{user},
		}, r.q.userID)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}
