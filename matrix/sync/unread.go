package sync

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
)

// Unread notifications are worked out from the log when they are asked for:
// the events after what the account has read, as its push rules take them.
// Nothing is stored that an edit, a redaction, a receipt or a restart could
// make wrong. A cache keeps what was found, so that an answer looks only at
// the events since the last one.
//
// spec: MX 1.19 CS §10.15.6
type unreadCache struct {
	mu sync.Mutex
	m  map[unreadKey]*unreadRoom
}

type unreadKey struct {
	account core.Address
	conv    core.ConvID
}

// unreadRoom is what is known of one room. It is replaced and never changed.
type unreadRoom struct {
	// from and to are the points between which the log was looked at.
	from, to rooms.Point
	notes    []note
	// spoke is where the account last said something, by thread: that is
	// reading up to there as well.
	spoke map[string]core.Position
}

// note is one event that notifies.
type note struct {
	id        core.EventID
	at        core.Position
	thread    string // event ID in core, or [rooms.MainThread]
	highlight bool
}

const (
	// maxUnread is how many of the newest events are looked at.
	maxUnread = 1000
	// maxUnreadRooms bounds the cache.
	maxUnreadRooms = 20_000
)

func newUnreadCache() *unreadCache { return &unreadCache{m: map[unreadKey]*unreadRoom{}} }

func (c *unreadCache) get(k unreadKey) *unreadRoom {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[k]
}

func (c *unreadCache) put(k unreadKey, u *unreadRoom) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= maxUnreadRooms {
		for old := range c.m { // any one
			delete(c.m, old)
			break
		}
	}
	c.m[k] = u
}

// counts puts the room's unread notifications into the answer.
//
// spec: MX 1.19 CS §10.15.5.2
func (r *roomBuild) counts() error {
	read, err := r.readUpTo("", rooms.MainThread)
	if err != nil {
		return err
	}
	u, err := r.lookUnread(read[""])
	if err != nil {
		return err
	}
	threads := map[string]*counts{}
	positions := map[string]core.Position{rooms.MainThread: read[rooms.MainThread]}
	for _, n := range u.notes {
		if _, ok := positions[n.thread]; !ok {
			one, err := r.readUpTo(n.thread)
			if err != nil {
				return err
			}
			positions[n.thread] = one[n.thread]
		}
		if n.at <= max(read[""], positions[n.thread], u.spoke[n.thread]) {
			continue
		}
		c := threads[n.thread]
		if c == nil {
			c = &counts{}
			threads[n.thread] = c
		}
		c.Notify++
		if n.highlight {
			c.Highlight++
		}
	}
	return r.putCounts(threads)
}

// putCounts writes the counts for each thread, or all in one.
func (r *roomBuild) putCounts(threads map[string]*counts) error {
	r.out.Unread = &counts{}
	for thread, c := range threads {
		if thread == rooms.MainThread || !r.q.filter.Room.Timeline.ThreadCounts {
			r.out.Unread.Notify += c.Notify
			r.out.Unread.Highlight += c.Highlight
			continue
		}
		events, err := r.s.mirror.ByCore(r.v, core.EventID(thread))
		if err != nil {
			return err
		}
		if len(events) == 0 {
			continue
		}
		if r.out.UnreadThreads == nil {
			r.out.UnreadThreads = map[string]*counts{}
		}
		r.out.UnreadThreads[events[0].EventID] = c
	}
	return nil
}

// readUpTo are the positions up to which the account has read threads, by
// whichever of her receipts is ahead.
//
// spec: MX 1.19 CS §10.6.2.2
func (r *roomBuild) readUpTo(threads ...string) (map[string]core.Position, error) {
	out := map[string]core.Position{}
	for _, t := range threads {
		for _, private := range []bool{false, true} {
			rd, err := r.v.Reading(r.conv, r.q.account, core.StageDisplayed, t, private)
			if errors.Is(err, hub.ErrNone) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out[t] = max(out[t], rd.At)
		}
	}
	return out, nil
}

// lookUnread finds the events after a position that notify.
func (r *roomBuild) lookUnread(read core.Position) (*unreadRoom, error) {
	stays, err := r.v.Stays(r.conv, r.q.account)
	if err != nil {
		return nil, err
	}
	edge, _, err := r.v.Edge(r.conv)
	if err != nil {
		return nil, err
	}
	from := read
	if len(stays) > 0 {
		from = max(from, stays[len(stays)-1].Joined) // what was before is not hers to have read
	}
	k := unreadKey{r.q.account, r.conv}
	old := r.s.unread.get(k)
	if old == nil || old.from > rooms.Point(from) || old.to > rooms.Point(edge) {
		old = &unreadRoom{from: rooms.Point(from), to: rooms.Point(from)}
	}
	if old.to == rooms.Point(edge) {
		return old, nil
	}
	q := old.to.Within(hub.Query{Conv: r.conv, Latest: true, Limit: maxUnread})
	events, err := r.v.Page(q)
	if err != nil {
		return nil, err
	}
	next := &unreadRoom{from: old.from, to: rooms.Point(edge), spoke: map[string]core.Position{}}
	for t, at := range old.spoke {
		next.spoke[t] = at
	}
	for _, n := range old.notes {
		if n.at > from {
			next.notes = append(next.notes, n)
		}
	}
	if err := r.notify(next, events); err != nil {
		return nil, err
	}
	next.notes = next.notes[max(0, len(next.notes)-maxUnread):]
	r.s.unread.put(k, next)
	return next, nil
}

// notify adds to u those of the events that notify, and takes out what a
// redaction took away.
func (r *roomBuild) notify(u *unreadRoom, events []core.Event) error {
	var ids []core.EventID
	about := map[core.EventID]*core.Event{}
	for i := range events {
		e := &events[i]
		if c, ok := e.Content.(core.Retract); ok {
			u.notes = slices.DeleteFunc(u.notes, func(n note) bool { return n.id == c.Target })
		}
		if e.Sender == r.q.account {
			thread, err := r.threadOf(e)
			if err != nil {
				return err
			}
			u.spoke[thread] = e.Position
			continue
		}
		if e.Retracted == "" && !r.blocks1(e.Sender) {
			ids = append(ids, e.ID)
			about[e.ID] = e
		}
	}
	if len(ids) == 0 {
		return nil
	}
	mirrored, err := r.s.mirror.ByCore(r.v, ids...)
	if err != nil {
		return err
	}
	pc, err := r.pushContext()
	if err != nil {
		return err
	}
	for _, m := range mirrored {
		verdict := r.rules.Evaluate(pushEvent(m), pc)
		if !verdict.Notify {
			continue
		}
		thread, err := r.threadOf(about[m.ID])
		if err != nil {
			return err
		}
		u.notes = append(u.notes, note{m.ID, m.Position, thread, verdict.Highlight})
	}
	return nil
}

// pushContext is what push rules ask of the room.
func (r *roomBuild) pushContext() (client.PushContext, error) {
	if r.rules == nil {
		rules, err := r.s.api.PushRules(r.v, r.q.account)
		if err != nil {
			return client.PushContext{}, err
		}
		r.rules = rules.Evaluator(r.q.userID)
	}
	state, err := r.v.State(r.conv)
	if err != nil {
		return client.PushContext{}, err
	}
	joined := 0
	for _, m := range state.Members {
		if m.Standing == core.Joined {
			joined++
		}
	}
	return client.PushContext{
		Members:     joined,
		DisplayName: state.Members[r.q.account].Name,
		MayNotify: func(sender, key string) bool {
			a, err := r.names.Address(sender)
			return err == nil && key == "room" && state.Level(a) >= state.Levels.Notify
		},
	}, nil
}

// pushEvent is an event as push rules look at it.
func pushEvent(m mirror.Event) map[string]any {
	e := map[string]any{"type": m.Type, "sender": m.Sender, "room_id": m.RoomID, "event_id": m.EventID}
	if m.StateKey != nil {
		e["state_key"] = *m.StateKey
	}
	var content map[string]any
	if json.Unmarshal(m.Content, &content) == nil {
		e["content"] = content
	}
	return e
}

// maxHops is how far a thread is looked for along relations.
//
// spec: MX 1.19 CS §10.6.2.2
const maxHops = 3

// threadOf is the thread that an event is in: its own, or that of what it is
// about.
func (r *roomBuild) threadOf(e *core.Event) (string, error) {
	for range maxHops {
		if m, ok := e.Content.(core.Message); ok {
			if m.Body.Thread != "" {
				return string(m.Body.Thread), nil
			}
			break
		}
		target := core.Target(e.Content)
		if target == "" {
			break
		}
		about, err := r.v.Event(target)
		if errors.Is(err, hub.ErrNone) {
			break
		}
		if err != nil {
			return "", err
		}
		e = &about
	}
	return rooms.MainThread, nil
}
