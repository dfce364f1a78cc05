package serving

import (
	"encoding/json"

	"parley/core"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// serves reports whether an event is told to anybody. What was rejected is not;
// what was soft-failed takes part in the protocol as any other.
//
// spec: MX 1.19 SS §5.1.3
// spec: MX 1.19 SS §5.1.4
func serves(e shared.Event) bool { return e.Verdict != graph.Rejected }

// sees picks the events that the server may see. A visibility may be seen by it
// or by the one before it, and so may the memberships of the server's own.
//
// spec: MX 1.19 CS §10.14
func (w *visit) sees(events []shared.Event) (map[string]bool, error) {
	before, after, err := w.Sights(w.origin, events...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool, len(events))
	for _, e := range events {
		sees := after[e.EventID].Lets(w.inside)
		if !sees && (e.Type == wire.TypeVisibility || w.ownMember(e)) {
			sees = before[e.EventID].Lets(w.inside)
		}
		out[e.EventID] = sees
	}
	return out, nil
}

// open reports whether anybody may read an event.
func (w *visit) open(e *core.Event) (bool, error) {
	events, err := w.s.cfg.Mirror.ByCore(w.v, e.ID)
	if err != nil || len(events) == 0 {
		return false, err
	}
	id := events[0].EventID
	known, err := w.Events(id)
	if err != nil {
		return false, err
	}
	_, after, err := w.Sights(w.origin, known[id])
	return after[id].Visibility == core.VisibleWorld, err
}

// ownMember reports whether an event is about the membership of somebody of the
// server.
func (w *visit) ownMember(e shared.Event) bool {
	if e.Type != wire.TypeMember || e.StateKey == nil {
		return false
	}
	_, server, err := wire.ParseUserID(*e.StateKey)
	return err == nil && server == w.origin
}

// tell writes an event, or what a redaction leaves of it.
func (w *visit) tell(e shared.Event, whole bool) (json.RawMessage, error) {
	pdu := e.PDU
	if !whole {
		var err error
		if pdu, err = pdu.Redact(); err != nil {
			return nil, err
		}
	}
	return w.s.cfg.Rooms.Outgoing(pdu)
}

// tellAll writes events in order, each as the server may see it, up to most
// bytes.
func (w *visit) tellAll(events []shared.Event, most int) ([]json.RawMessage, error) {
	sees, err := w.sees(events)
	if err != nil {
		return nil, err
	}
	out, size := []json.RawMessage{}, 0
	for _, e := range events {
		raw, err := w.tell(e, sees[e.EventID])
		if err != nil {
			return nil, err
		}
		if size += len(raw); size > most && len(out) > 0 {
			break
		}
		out = append(out, raw)
	}
	return out, nil
}
