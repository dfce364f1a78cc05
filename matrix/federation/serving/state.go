package serving

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// Bounds of a state with all that it cites.
const (
	maxChain      = 200_000  // events
	maxStateBytes = 64 << 20 // of a state that is told whole
)

// event is one event. What the server may not see of it is left out if it is
// state, which the room's rules need; else it is not told.
//
// spec: MX 1.19 SS §9
func (s *Serving) event(r *federation.Request) (answer any, err error) {
	err = s.cfg.Hub.Read(r.Context(), func(v hub.View) error {
		l, e, err := s.cfg.Rooms.LookFor(v, r.Var("eventId"))
		if errors.Is(err, shared.ErrNotShared) || err == nil && !serves(e) {
			return notFound("There is no such event.")
		}
		if err != nil {
			return err
		}
		w, err := s.enter(v, l, r.Origin)
		if err != nil {
			return err
		}
		if err := w.asks(e); err != nil {
			return err
		}
		whole, err := w.seesWhole(e)
		if err != nil {
			return err
		}
		raw, err := w.tell(e, whole)
		answer = newTransaction(r, []json.RawMessage{raw})
		return err
	})
	return answer, err
}

// seesWhole reports whether an event that is asked for by its ID is told whole.
// What is in force is told to all in the room, see [Serving.state].
func (w *visit) seesWhole(e shared.Event) (bool, error) {
	sees, err := w.sees([]shared.Event{e})
	if err != nil || sees[e.EventID] {
		return true, err
	}
	if e.StateKey == nil {
		return false, forbidden("Your server was not in this room when that was sent.")
	}
	now, err := w.s.cfg.Mirror.StateEvent(w.v, w.Conv, e.Type, *e.StateKey)
	if errors.Is(err, hub.ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	in, err := w.Has(w.origin)
	return in && now.EventID == e.EventID, err
}

// find finds an event of the room about which the server may ask.
func (w *visit) find(id string) (shared.Event, error) {
	found, err := w.Events(id)
	if err != nil {
		return shared.Event{}, err
	}
	e, ok := found[id]
	if !ok {
		if err := w.asks(); err != nil {
			return e, err
		}
		return e, notFound("There is no such event.")
	}
	if err := w.asks(e); err != nil {
		return e, err
	}
	if !serves(e) {
		return e, notFound("There is no such event.")
	}
	return e, nil
}

// at finds the state before the event of a request, and all that it cites.
func (w *visit) at(r *federation.Request) (state, chain []shared.Event, err error) {
	id := r.HTTP.URL.Query().Get("event_id")
	if id == "" {
		return nil, nil, federation.Errorf(http.StatusBadRequest, "M_MISSING_PARAM", "There is no event_id in the request.")
	}
	e, err := w.find(id)
	if err != nil {
		return nil, nil, err
	}
	if w.Partial {
		return nil, nil, shared.ErrUnknownState
	}
	pieces, err := w.StateBefore(e)
	if err != nil {
		return nil, nil, err
	}
	ids := make([]string, 0, len(pieces))
	for _, id := range pieces {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	events, err := w.Events(ids...)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		if e, ok := events[id]; ok {
			state = append(state, e)
		}
	}
	chain, err = w.AuthChain(state, maxChain)
	return state, chain, err
}

// state is the state before an event.
//
// spec: MX 1.19 SS §9
func (s *Serving) state(r *federation.Request) (any, error) {
	return s.inRoom(r, func(w *visit) (any, error) {
		state, chain, err := w.at(r)
		if err != nil {
			return nil, err
		}
		left := maxStateBytes
		pdus, err := w.wholes(state, &left)
		if err != nil {
			return nil, err
		}
		auth, err := w.wholes(chain, &left)
		return map[string]any{"pdus": pdus, "auth_chain": auth}, err
	})
}

// wholes writes events as they are. left is how many bytes they may have.
func (w *visit) wholes(events []shared.Event, left *int) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for _, e := range events {
		raw, err := w.tell(e, true)
		if err != nil {
			return nil, err
		}
		if *left -= len(raw); *left < 0 {
			return nil, shared.ErrTooMuch
		}
		out = append(out, raw)
	}
	return out, nil
}

// stateIDs is the state before an event, by the IDs of its events.
//
// spec: MX 1.19 SS §9
func (s *Serving) stateIDs(r *federation.Request) (any, error) {
	return s.inRoom(r, func(w *visit) (any, error) {
		state, chain, err := w.at(r)
		if err != nil {
			return nil, err
		}
		return map[string]any{"pdu_ids": idsOf(state), "auth_chain_ids": idsOf(chain)}, nil
	})
}

func idsOf(events []shared.Event) []string {
	out := make([]string, 0, len(events))
	for _, e := range events {
		out = append(out, e.EventID)
	}
	return out
}

// eventAuth is all that an event cites.
//
// spec: MX 1.19 SS §5.1.5
func (s *Serving) eventAuth(r *federation.Request) (any, error) {
	return s.inRoom(r, func(w *visit) (any, error) {
		id := r.Var("eventId")
		if wire.CheckEventID(id) != nil {
			return nil, badParam("That is no event ID.")
		}
		e, err := w.find(id)
		if err != nil {
			return nil, err
		}
		chain, err := w.AuthChain([]shared.Event{e}, maxChain)
		if err != nil {
			return nil, err
		}
		left := maxStateBytes
		auth, err := w.wholes(chain, &left)
		return map[string]any{"auth_chain": auth}, err
	})
}
