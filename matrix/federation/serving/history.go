package serving

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"parley/matrix/federation"
	"parley/matrix/shared"
)

// Bounds of one answer about the past.
const (
	maxBackfill      = 100 // events
	maxMissing       = 20
	defaultMissing   = 10
	maxAsked         = 100     // events that are asked from
	maxHistoryBytes  = 8 << 20 // of an answer
	scannedPerAnswer = 4       // events that are looked at for one that is told
)

// walk is the way down from some events through those that each follows, the
// deepest of a level first.
type walk struct {
	w     *visit
	limit int
	// seen are those that were met, or are not to be.
	seen     map[string]bool
	minDepth int64
	out      []shared.Event
}

// down goes on from some events, which are not met themselves.
func (k *walk) down(from []shared.Event) error {
	level := from
	for scanned := 0; len(level) > 0 && len(k.out) < k.limit && scanned < scannedPerAnswer*k.limit; {
		var ids []string
		for _, e := range level {
			for _, id := range e.PrevEvents {
				if !k.seen[id] {
					k.seen[id] = true
					ids = append(ids, id)
				}
			}
		}
		// One who makes an event with many branches below it is told of some.
		ids = ids[:min(len(ids), 2*k.limit)]
		scanned += len(ids)
		events, err := k.w.Events(ids...)
		if err != nil {
			return err
		}
		level = level[:0:0]
		for _, id := range ids {
			if e, ok := events[id]; ok && e.Depth >= k.minDepth {
				level = append(level, e)
			}
		}
		slices.SortStableFunc(level, func(a, b shared.Event) int { return int(min(max(b.Depth-a.Depth, -1), 1)) })
		for _, e := range level {
			k.meet(e)
		}
	}
	return nil
}

// meet adds an event that may be told.
func (k *walk) meet(e shared.Event) {
	if len(k.out) < k.limit && serves(e) {
		k.out = append(k.out, e)
	}
}

// asked finds the events that a server asks from, as far as they are known, if it
// may.
func (w *visit) asked(ids []string) ([]shared.Event, error) {
	if len(ids) > maxAsked {
		return nil, badParam("At most %d events can be asked about at once.", maxAsked)
	}
	found, err := w.Events(ids...)
	if err != nil {
		return nil, err
	}
	var out []shared.Event
	for _, id := range ids {
		if e, ok := found[id]; ok && !slices.ContainsFunc(out, func(o shared.Event) bool { return o.EventID == id }) {
			out = append(out, e)
		}
	}
	return out, w.asks(out...)
}

// backfill is what was said up to some events, they included, newest first.
//
// spec: MX 1.19 SS §8
func (s *Serving) backfill(r *federation.Request) (any, error) {
	q := r.HTTP.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 {
		return nil, badParam("limit must be a number greater than 0.")
	}
	ids := q["v"]
	if len(ids) == 0 {
		return nil, federation.Errorf(http.StatusBadRequest, "M_MISSING_PARAM", "There is no v in the request.")
	}
	return s.inRoom(r, func(w *visit) (any, error) {
		from, err := w.asked(ids)
		if err != nil {
			return nil, err
		}
		k := &walk{w: w, limit: min(limit, maxBackfill), seen: map[string]bool{}}
		for _, e := range from {
			k.seen[e.EventID] = true
			k.meet(e)
		}
		if err := k.down(from); err != nil {
			return nil, err
		}
		pdus, err := w.tellAll(k.out, maxHistoryBytes)
		return newTransaction(r, pdus), err
	})
}

// missing is what lies between some events and others that the server has, oldest
// first.
//
// spec: MX 1.19 SS §8
func (s *Serving) missing(r *federation.Request) (any, error) {
	var q struct {
		Limit    *int     `json:"limit"`
		MinDepth int64    `json:"min_depth"`
		Earliest []string `json:"earliest_events"`
		Latest   []string `json:"latest_events"`
	}
	if !json.Valid(r.Body) {
		return nil, federation.Errorf(http.StatusBadRequest, "M_NOT_JSON", "The body is no JSON.")
	}
	if err := json.Unmarshal(r.Body, &q); err != nil || q.Latest == nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "earliest_events and latest_events are lists of event IDs, limit and min_depth numbers.")
	}
	limit := defaultMissing
	if q.Limit != nil {
		limit = min(max(*q.Limit, 0), maxMissing)
	}
	return s.inRoom(r, func(w *visit) (any, error) {
		from, err := w.asked(q.Latest)
		if err != nil {
			return nil, err
		}
		k := &walk{w: w, limit: limit, seen: map[string]bool{}, minDepth: q.MinDepth}
		for _, id := range slices.Concat(q.Earliest, q.Latest) {
			k.seen[id] = true
		}
		if err := k.down(from); err != nil {
			return nil, err
		}
		events, err := w.tellAll(k.out, maxHistoryBytes)
		slices.Reverse(events)
		return map[string]any{"events": events}, err
	})
}
