package incoming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/receiving"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// maxRooms is how many rooms of one transaction are done at a time.
const maxRooms = 4

// Receive takes events that a server sent, of any rooms. Of each whose ID can be
// told there is an entry: nil if it is dealt with, which includes that it is on
// disk until more is known; else why not.
//
// spec: MX 1.19 SS §5.1
func (n *Incoming) Receive(ctx context.Context, origin string, pdus []json.RawMessage) map[string]error {
	results := map[string]error{}
	byRoom := map[string][]json.RawMessage{}
	for _, raw := range pdus {
		if id := roomIDOf(raw); id != "" {
			byRoom[id] = append(byRoom[id], raw)
		} else {
			n.count("malformed")
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxRooms)
	for roomID, list := range byRoom {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var out map[string]error
			err := n.keep.Do(func() error {
				out = n.room(ctx, origin, roomID, list)
				return nil
			})
			if err != nil {
				n.count("failed")
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(results, out)
		})
	}
	wg.Wait()
	return results
}

// roomIDOf is the room of an event, "" where it does not say one that could be.
// A create event is not sent by itself.
func roomIDOf(raw json.RawMessage) string {
	var e struct {
		RoomID string `json:"room_id"`
	}
	if len(raw) > wire.MaxPDU || json.Unmarshal(raw, &e) != nil || wire.CheckRoomID(e.RoomID) != nil {
		return ""
	}
	return e.RoomID
}

// room takes the events of one room.
func (n *Incoming) room(ctx context.Context, origin, roomID string, pdus []json.RawMessage) map[string]error {
	out := map[string]error{}
	p, allowed, err := n.find(ctx, roomID, origin)
	if err != nil {
		if errors.Is(err, shared.ErrNotShared) {
			n.count("no-room")
			return out // nor is there a version by which to find the events' IDs
		}
		return failed(out, pdus, err)
	}
	var items []*item
	for _, raw := range pdus {
		pdu, err := p.parse(raw)
		switch {
		case err != nil:
			n.count("malformed")
			n.cfg.Log.Debug("an event of a Matrix server is malformed", "origin", origin, "room", roomID, "err", err)
		case !allowed:
			out[pdu.EventID] = errDenied
			n.count("denied")
		default:
			if _, twice := out[pdu.EventID]; !twice {
				out[pdu.EventID] = nil
				items = append(items, &item{pdu: pdu, origin: origin})
			}
		}
	}
	if items, err = n.unknown(ctx, items); err != nil {
		return failed(out, pdus, err)
	}
	bad := n.verify(ctx, items)
	items = slices.DeleteFunc(items, func(it *item) bool {
		err, is := bad[it.pdu.EventID]
		if is {
			out[it.pdu.EventID] = err
			n.count("unsigned")
		}
		return is
	})
	if len(items) == 0 {
		return out
	}
	n.recommend(ctx, p, items)
	maps.Copy(out, n.take(ctx, p, items))
	return out
}

// failed says of events that they could not be looked at.
func failed(out map[string]error, pdus []json.RawMessage, err error) map[string]error {
	err = fmt.Errorf("%w: %w", receiving.ErrLater, err)
	for id := range out {
		out[id] = err
	}
	if len(out) == 0 && len(pdus) > 0 {
		out[""] = err // the whole transaction is to come again
	}
	return out
}

// find finds a room, and whether its ACL lets a server in.
func (n *Incoming) find(ctx context.Context, roomID, origin string) (*place, bool, error) {
	p := &place{roomID: roomID}
	allowed := true
	err := n.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		p.conv, p.version, err = shared.Find(v, roomID)
		if errors.Is(err, shared.ErrNotShared) {
			return n.findOffered(v, p)
		}
		if err != nil {
			return err
		}
		p.shared = true
		allowed, err = n.cfg.Access.Allows(v, p.conv, origin)
		return err
	})
	return p, allowed, err
}

// findOffered finds a room of which no more is known than that one of ours is
// invited.
func (n *Incoming) findOffered(v hub.View, p *place) error {
	conv, err := v.ConversationNative(core.Matrix, p.roomID)
	if errors.Is(err, hub.ErrNone) {
		return shared.ErrNotShared
	}
	if err != nil {
		return err
	}
	c, err := v.Conversation(conv)
	if err != nil {
		return err
	}
	if c.Authority != core.Graph {
		return shared.ErrNotShared
	}
	s, err := v.State(conv)
	if err != nil {
		return err
	}
	if p.version, err = wire.VersionOf(s.Creation.Version); err != nil {
		return shared.ErrNotShared
	}
	p.conv = conv
	return nil
}

// unknown leaves of some events those that were not judged and do not wait.
func (n *Incoming) unknown(ctx context.Context, items []*item) ([]*item, error) {
	items, err := n.unjudged(ctx, items)
	return slices.DeleteFunc(items, func(it *item) bool {
		if it.waits {
			n.count("known")
		}
		return it.waits
	}), err
}

// unjudged leaves of some events those that were not judged, and notes which of them wait.
func (n *Incoming) unjudged(ctx context.Context, items []*item) ([]*item, error) {
	if len(items) == 0 {
		return nil, nil
	}
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.pdu.EventID
	}
	var judged map[string]bool
	var waits map[string]int
	err := n.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		if judged, err = shared.Judged(v, ids); err == nil && n.anyWait() {
			waits, err = areWaiting(v, ids)
		}
		return err
	})
	return slices.DeleteFunc(items, func(it *item) bool {
		if judged[it.pdu.EventID] {
			n.count("known")
			return true
		}
		if tries, ok := waits[it.pdu.EventID]; ok {
			it.waits, it.tries = true, tries
		}
		return false
	}), err
}

// take brings events into a room, as far as they can be judged, in one turn; the
// others wait.
func (n *Incoming) take(ctx context.Context, p *place, items []*item) map[string]error {
	out := map[string]error{}
	leave, err := n.rooms.take(ctx, p.conv)
	if err != nil {
		for _, it := range items {
			out[it.pdu.EventID] = fmt.Errorf("%w: %w", receiving.ErrLater, err)
		}
		return out
	}
	defer leave()
	byDepth(items)
	items = inOrder(items, previous)
	r := n.admit(ctx, p, items)
	if r.err != nil && len(items) > 1 { // find out which
		for _, it := range items {
			one := n.admit(ctx, p, []*item{it})
			n.settle(out, []*item{it}, one)
			r.waits = r.waits || one.waits
		}
	} else {
		n.settle(out, items, r)
	}
	if r.waits {
		n.stir()
	}
	return out
}

// settle writes down what came of a turn.
func (n *Incoming) settle(out map[string]error, items []*item, r *round) {
	for _, it := range items {
		id := it.pdu.EventID
		switch {
		case r.err == nil:
			out[id] = r.refused[id]
		case passing(r.err):
			out[id] = fmt.Errorf("%w: %w", receiving.ErrLater, r.err)
		default:
			n.count("failed")
			n.cfg.Log.Error("an event of a Matrix server could not be taken", "event", id, "err", r.err)
			out[id] = errors.New("internal error")
		}
	}
	if r.err == nil {
		for outcome, times := range r.counts {
			for range times {
				n.count(outcome)
			}
		}
	}
}

// passing says whether an error of a turn is about the time and not the events.
func passing(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isStoreError(err)
}

// round is what came of a turn.
type round struct {
	refused map[string]error
	// missing says of events that could not be judged what has to be known
	// first.
	missing map[*item]*shared.MissingError
	done    map[*item]bool
	counts  map[string]int
	waits   bool // some wait now
	outside bool // nobody of ours is in the room
	err     error
}

// admit runs a turn in which events are accepted, in order. Those that cannot be
// judged are kept.
func (n *Incoming) admit(ctx context.Context, p *place, items []*item) *round {
	var r *round
	err := n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error {
		r = &round{
			refused: map[string]error{}, missing: map[*item]*shared.MissingError{}, done: map[*item]bool{}, counts: map[string]int{},
		}
		inside, err := t.Inside(p.conv)
		if err != nil {
			return err
		}
		for _, it := range items {
			if !inside {
				r.outside = true
				err = n.revoke(t, p, it, r)
			} else {
				err = n.accept(t, p, it, r)
			}
			if err != nil {
				return fmt.Errorf("event %s: %w", it.pdu.EventID, err)
			}
		}
		return n.keepWaiting(t, p, items, r)
	})
	if err != nil {
		return &round{err: err}
	}
	return r
}

// revoke is for what is said of rooms that none of ours is in.
func (n *Incoming) revoke(t *shared.Turn, p *place, it *item, r *round) error {
	r.done[it] = true
	kept := false
	if !it.unchecked {
		var err error
		if kept, err = t.Revoked(p.conv, it.pdu); err != nil {
			return err
		}
	}
	if kept {
		r.counts["revoked"]++
		return nil
	}
	r.counts["no-room"]++
	r.refused[it.pdu.EventID] = errors.New("nobody here is in this room")
	return nil
}

// accept has the room judge an event.
func (n *Incoming) accept(t *shared.Turn, p *place, it *item, r *round) error {
	if it.unchecked {
		r.missing[it] = &shared.MissingError{}
		return nil
	}
	out, err := t.Accept(p.conv, it.incoming())
	if missing, ok := errors.AsType[*shared.MissingError](err); ok {
		r.missing[it] = missing
		return nil
	}
	if errors.Is(err, graph.ErrLink) || errors.Is(err, wire.ErrFormat) || errors.Is(err, wire.ErrJSON) {
		r.done[it] = true
		r.counts["malformed"]++
		r.refused[it.pdu.EventID] = err
		return nil
	}
	if err != nil {
		return err
	}
	r.done[it] = true
	switch {
	case out.Known:
		r.counts["known"]++
	default:
		r.counts[out.Verdict.String()]++
		if out.Verdict != graph.Accepted {
			n.cfg.Log.Debug("an event of a Matrix server is not accepted", "event", it.pdu.EventID, "verdict", out.Verdict.String(), "why", out.Why)
		}
	}
	return nil
}
