package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/bench/meter"
	"parley/matrix/federation"
)

// maxPDUs is how many events a transaction has at most.
//
// spec: MX 1.19 SS §4
const maxPDUs = 50

// transact sends events from one server in one transaction, and tells how many the other
// takes.
//
// spec: MX 1.19 SS §4
func (p *Peer) transact(ctx context.Context, origin string, pdus []json.RawMessage) (int, error) {
	body, err := json.Marshal(map[string]any{"origin": origin, "origin_server_ts": time.Now().UnixMilli(), "pdus": pdus})
	if err != nil {
		return 0, err
	}
	raw, err := p.client.Do(ctx, federation.Call{
		Origin: origin, Destination: p.target, Method: http.MethodPut, Body: body, Insist: true,
		URI: federation.URI(nil, "_matrix", "federation", "v1", "send", "t"+p.id()),
	})
	if err != nil {
		return 0, err
	}
	var answer struct {
		PDUs map[string]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return 0, fmt.Errorf("bench: the answer to a transaction: %w", err)
	}
	for id, res := range answer.PDUs {
		if res.Error != "" {
			return 0, fmt.Errorf("bench: %s is refused: %s", id, res.Error)
		}
	}
	return len(pdus), nil
}

// stream is what one server sends: its rooms in turn, as fast as the other takes it, with
// one transaction under way.
type stream struct {
	peer   *Peer
	origin string
	rooms  []*room
	// senders speak in each room; window is how many messages of a room may be sent
	// that its user was not shown.
	senders int
	window  int64
	acked   *atomic.Int64
}

// aWhile is the pause of a stream of which the user has too much to see.
const aWhile = 5 * time.Millisecond

// run sends until ctx ends.
func (s *stream) run(ctx context.Context) error {
	for ctx.Err() == nil {
		pdus, err := s.next()
		if err != nil {
			return err
		}
		if len(pdus) == 0 {
			_ = meter.Sleep(ctx, aWhile) // the loop sees that it ended
			continue
		}
		// A transaction that has begun is sent to its end, or the rooms would have gaps.
		n, err := s.peer.transact(context.WithoutCancel(ctx), s.origin, pdus)
		if e, ok := errors.AsType[*federation.Error](err); ok && e.Status == http.StatusTooManyRequests {
			if n, err = s.again(ctx, pdus, e.RetryAfter); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		s.acked.Add(int64(n))
	}
	return nil
}

// next are the events of the next transaction, of all rooms that have not too much under
// way.
func (s *stream) next() (pdus []json.RawMessage, err error) {
	share := max(maxPDUs/len(s.rooms), 1)
	for _, rm := range s.rooms {
		if said, seen := rm.counts(); said-seen+int64(share) > s.window {
			continue
		}
		some, err := rm.say(share, s.senders)
		if err != nil {
			return nil, err
		}
		pdus = append(pdus, some...)
	}
	return pdus, nil
}

// again sends a transaction once more that was too much for the other server.
func (s *stream) again(ctx context.Context, pdus []json.RawMessage, wait time.Duration) (int, error) {
	for range 100 {
		if err := meter.Sleep(context.WithoutCancel(ctx), max(wait, 100*time.Millisecond)); err != nil {
			return 0, err
		}
		n, err := s.peer.transact(context.WithoutCancel(ctx), s.origin, pdus)
		e, ok := errors.AsType[*federation.Error](err)
		if !ok || e.Status != http.StatusTooManyRequests {
			return n, err
		}
		wait = e.RetryAfter
	}
	return 0, fmt.Errorf("bench: %s takes no more transactions", s.peer.target)
}

// streams has several servers send until stop is called, which returns what went wrong.
func (p *Peer) streams(ctx context.Context, rooms []*room, size Size, acked *atomic.Int64) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	byHome := map[string][]*room{}
	for _, rm := range rooms {
		byHome[rm.home] = append(byHome[rm.home], rm)
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(byHome))
	for _, home := range slices.Sorted(maps.Keys(byHome)) {
		s := &stream{peer: p, origin: home, rooms: byHome[home], senders: size.Senders, window: int64(size.Window), acked: acked}
		wg.Go(func() { errs <- s.run(ctx) })
	}
	return func() error {
		cancel()
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil { // the others are of the same kind
				return err
			}
		}
		return nil
	}
}
