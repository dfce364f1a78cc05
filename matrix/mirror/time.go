package mirror

import (
	"slices"
	"time"

	"parley/core"
	"parley/hub"
)

const (
	timePage = 100 // events
	// maxTimeScan is how many events from the right place on are looked at for
	// one that may be told.
	maxTimeScan = 4000
)

// AtTime finds the event next to a time (milliseconds since 1970) that may be
// told: the first at or after it, or the last at or before it. [hub.ErrNone] says
// that there is none. Clocks of servers differ, so a timeline is not quite in the
// order of its times; it is taken to be.
//
// spec: MX 1.19 CS §7.7
func (m *Mirror) AtTime(v hub.View, conv core.ConvID, ts int64, forward bool, may func(*core.Event) (bool, error)) (Event, error) {
	when := time.UnixMilli(ts)
	if !forward {
		when = when.Add(time.Millisecond)
	}
	at, err := firstSince(v, conv, when)
	if err != nil {
		return Event{}, err
	}
	begin, err := hub.Beginning(v, conv)
	if err != nil {
		return Event{}, err
	}
	q := hub.Query{Conv: conv, Limit: timePage, After: at - 1}
	if !forward {
		q = hub.Query{Conv: conv, Limit: timePage, After: begin, Before: at, Latest: true}
	}
	for scanned := 0; scanned < maxTimeScan; scanned += timePage {
		page, err := v.Page(q)
		if err != nil || len(page) == 0 {
			return Event{}, noneUnless(err)
		}
		if !forward {
			slices.Reverse(page)
		}
		found, ok, err := m.firstAt(v, page, func(e Event) bool { return e.Time == ts || e.Time > ts == forward }, may)
		if err != nil || ok {
			return found, err
		}
		if edge := page[len(page)-1].Position; forward {
			q.After = edge
		} else {
			q.Before = edge
		}
	}
	return Event{}, hub.ErrNone
}

func noneUnless(err error) error {
	if err == nil {
		return hub.ErrNone
	}
	return err
}

// firstAt is the first event of a page that fits and may be told.
func (m *Mirror) firstAt(v hub.View, page []core.Event, fits func(Event) bool, may func(*core.Event) (bool, error)) (Event, bool, error) {
	ids := make([]core.EventID, len(page))
	for i, e := range page {
		ids[i] = e.ID
	}
	mirrored, err := m.ByCore(v, ids...)
	if err != nil {
		return Event{}, false, err
	}
	about := map[core.EventID]*core.Event{}
	for i := range page {
		about[page[i].ID] = &page[i]
	}
	for _, e := range mirrored {
		if !fits(e) || hub.Found(about[e.ID]) {
			continue
		}
		if ok, err := may(about[e.ID]); err != nil || ok {
			return e, ok, err
		}
	}
	return Event{}, false, nil
}

// firstSince is the position of the first event of a timeline that was said at
// some time or later, or the one after the last.
func firstSince(v hub.View, conv core.ConvID, t time.Time) (core.Position, error) {
	begin, err := hub.Beginning(v, conv)
	if err != nil {
		return 0, err
	}
	low, err := v.Page(hub.Query{Conv: conv, After: begin, Limit: 1})
	if err != nil || len(low) == 0 {
		return begin + 1, err
	}
	edge, _, err := v.Edge(conv)
	if err != nil {
		return 0, err
	}
	from, to := low[0].Position, edge+1
	for from < to {
		mid := from + (to-from)/2
		next, err := v.Page(hub.Query{Conv: conv, After: mid - 1, Limit: 1})
		switch {
		case err != nil:
			return 0, err
		case len(next) == 0 || !next[0].Origin.Before(t):
			to = mid
		default:
			from = next[0].Position + 1
		}
	}
	return from, nil
}
