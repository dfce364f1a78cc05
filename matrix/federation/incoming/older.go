package incoming

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// What one request for older history is worth.
const (
	olderCalls = 120
	olderTime  = 40 * time.Second
	// minPage and maxPage are how many events are asked for at once.
	minPage, maxPage = 30, 100
	// maxFrom is how many events one asks from.
	maxFrom = 20
	// maxServers is how many servers are asked.
	maxServers = 6
	// reachPages is how many pages [Incoming.Reach] goes down at most, and
	// reachDepth how far it does so by what the depths of events say.
	reachPages = 20
	reachDepth = reachPages * maxPage
)

// flight is a request for history that others wait for too.
type flight struct {
	done  chan struct{}
	found bool
	err   error
}

// Older asks servers in a room for history from before what is known of it, puts
// what they tell below that, and reports whether that was anything. One who asks
// while somebody else does gets what she gets.
//
// spec: MX 1.19 SS §8.1
func (n *Incoming) Older(ctx context.Context, c core.Conversation, limit int) (bool, error) {
	n.mu.Lock()
	if f := n.older[c.ID]; f != nil {
		n.mu.Unlock()
		select {
		case <-f.done:
			return f.found, f.err
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{})}
	n.older[c.ID] = f
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.older, c.ID)
		n.mu.Unlock()
		close(f.done)
	}()
	timed, cancel := context.WithTimeout(ctx, olderTime)
	defer cancel()
	f.err = n.keep.Do(func() (err error) {
		f.found, err = n.deepen(timed, c.ID, limit)
		return err
	})
	if f.err != nil && ctx.Err() == nil && timed.Err() != nil {
		f.err = nil // others took too long: what is known has to do
	}
	return f.found, f.err
}

// digging is one request for older history.
type digging struct {
	asker
	servers []string
	// missing are events to ask from, and known to have been asked for already.
	missing []string
}

// deepen asks one server after another, until one knows something.
func (n *Incoming) deepen(ctx context.Context, conv core.ConvID, limit int) (bool, error) {
	d, err := n.dig(ctx, conv)
	if d == nil || err != nil {
		return false, err
	}
	limit = min(max(limit, minPage), maxPage)
	for _, s := range d.servers {
		if len(d.missing) == 0 || ctx.Err() != nil {
			break
		}
		list, err := d.page(ctx, s, d.missing, limit)
		if err != nil {
			n.cfg.Log.Debug("a server does not tell a room's history", "server", s, "room", d.p.roomID, "err", err)
			continue
		}
		found, err := d.lay(ctx, s, list)
		if found > 0 || err != nil {
			return found > 0, err
		}
		if err := d.again(ctx); err != nil {
			return false, err
		}
	}
	return false, ctx.Err()
}

// dig prepares a request; nil if there is nothing to ask for.
func (n *Incoming) dig(ctx context.Context, conv core.ConvID) (*digging, error) {
	d := &digging{asker: asker{n: n, p: &place{conv: conv, shared: true}, calls: olderCalls}}
	if err := d.again(ctx); err != nil || len(d.missing) == 0 {
		return nil, err
	}
	inside := false
	err := n.cfg.Shared.Turn(ctx, func(t *shared.Turn) (err error) {
		if inside, err = t.Inside(conv); err != nil || !inside {
			return err
		}
		if d.p.roomID, d.p.version, err = shared.RoomOf(t.Tx(), conv); err != nil {
			return err
		}
		for _, domain := range n.cfg.Domains {
			in, err := t.Has(conv, domain)
			if err != nil {
				return err
			}
			if in {
				d.origin = domain
				break
			}
		}
		d.servers, err = n.elders(t, conv)
		return err
	})
	if errors.Is(err, shared.ErrNotShared) || err == nil && !inside {
		return nil, nil
	}
	return d, err
}

// again looks what is missing now.
func (d *digging) again(ctx context.Context) error {
	return d.n.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		d.missing, err = shared.Missing(v, d.p.conv, maxFrom)
		return err
	})
}

// elders are servers in a room, those first that are likely to know most: of its
// creators, then of who has the most to say.
func (n *Incoming) elders(t *shared.Turn, conv core.ConvID) ([]string, error) {
	in, err := t.Servers(conv)
	if err != nil {
		return nil, err
	}
	s, err := t.Tx().State(conv)
	if err != nil {
		return nil, err
	}
	var likely []core.Address
	likely = append(likely, s.Creator)
	likely = append(likely, s.Creation.Creators...)
	var staff []core.Address
	for a := range s.Levels.Users {
		if s.Level(a) >= 50 {
			staff = append(staff, a)
		}
	}
	slices.SortFunc(staff, func(a, b core.Address) int { return int(min(max(s.Level(b)-s.Level(a), -1), 1)) })
	rand.Shuffle(len(in), func(i, k int) { in[i], in[k] = in[k], in[i] })
	var out []string
	add := func(server string) {
		if len(out) < maxServers && slices.Contains(in, server) && !slices.Contains(out, server) {
			out = append(out, server)
		}
	}
	for _, a := range append(likely, staff...) {
		add(a.Domain)
	}
	for _, server := range in {
		add(server)
	}
	return out, nil
}

// lay puts history below what is known: from the newest down, each only if it is
// missing or comes right before one that was laid.
func (d *digging) lay(ctx context.Context, server string, list []json.RawMessage) (found int, err error) {
	told := map[string]*item{}
	var items []*item
	for _, raw := range list {
		pdu, err := d.p.parse(raw)
		if err != nil || told[pdu.EventID] != nil {
			continue
		}
		it := &item{pdu: pdu, origin: server}
		told[pdu.EventID] = it
		items = append(items, it)
	}
	if items, err = d.n.unknown(ctx, items); err != nil {
		return 0, err
	}
	bad := d.n.verify(ctx, items)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	byDepth(items)
	items = inOrder(items, previous)
	slices.Reverse(items)
	if err := d.prepare(ctx, items, bad); err != nil {
		return 0, err
	}
	due := map[string]bool{}
	for _, id := range d.missing {
		due[id] = true
	}
	for batch := range slices.Chunk(items, turnBatch) {
		laid := 0
		err := d.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error {
			laid = 0
			for _, it := range batch {
				if !due[it.pdu.EventID] {
					continue
				}
				ok, err := d.lower(t, it, bad)
				if err != nil {
					return err
				}
				laid += ok
				for _, id := range it.pdu.PrevEvents {
					due[id] = true
				}
			}
			return nil
		})
		if err != nil {
			return found, err
		}
		found += laid
	}
	for range found {
		d.n.count("history")
	}
	return found, nil
}

// lower puts one event below what is known, or goes past it where nobody vouches
// for it.
func (d *digging) lower(t *shared.Turn, it *item, bad map[string]error) (int, error) {
	if it.unchecked || bad[it.pdu.EventID] != nil {
		return 0, t.Pass(d.p.conv, it.pdu)
	}
	in := it.incoming()
	in.Below = true
	out, err := t.Accept(d.p.conv, in)
	if _, missing := errors.AsType[*shared.MissingError](err); missing || errors.Is(err, graph.ErrLink) {
		return 0, t.Pass(d.p.conv, it.pdu)
	}
	if err != nil || out.Verdict != graph.Accepted || out.Known {
		return 0, err
	}
	return 1, nil
}

// prepare fetches what the events of a page cite and is not known.
func (d *digging) prepare(ctx context.Context, items []*item, bad map[string]error) error {
	g := &gap{asker: asker{n: d.n, p: d.p, origin: d.origin, calls: olderCalls}}
	own := map[string]*wire.PDU{}
	var ids []string
	for _, it := range items {
		if !it.unchecked && bad[it.pdu.EventID] == nil {
			ids = append(ids, it.pdu.AuthEvents...)
			if it.pdu.StateKey != nil {
				own[it.pdu.EventID] = it.pdu
			}
		}
	}
	got := map[string]*wire.PDU{}
	todo := ids
	for range maxCausesDepth {
		var fetch []string
		var next []string
		for _, id := range g.unheard(ctx, todo, got) {
			if pdu := own[id]; pdu != nil { // in this very page
				got[id] = pdu
				next = append(next, pdu.AuthEvents...)
			} else {
				fetch = append(fetch, id)
			}
		}
		if len(got)+len(fetch) > maxCauses+len(own) {
			break
		}
		for _, pdu := range g.genuine(ctx, g.each(ctx, d.servers[:min(len(d.servers), maxAsked)], fetch), ofIDs(fetch)) {
			got[pdu.EventID] = pdu
			next = append(next, pdu.AuthEvents...)
		}
		if todo = next; len(todo) == 0 {
			break
		}
	}
	g.cite(ctx, got)
	return ctx.Err()
}

// Reach goes down a room's history until it has what was said closest to a
// moment, as far as others know it and it is not too far.
//
// spec: MX 1.19 SS §9.4
func (n *Incoming) Reach(ctx context.Context, c core.Conversation, at time.Time, forward bool) error {
	timed, cancel := context.WithTimeout(ctx, olderTime)
	defer cancel()
	d, err := n.dig(timed, c.ID)
	if d == nil || err != nil {
		return err
	}
	oldest, depth, err := n.oldest(timed, c.ID)
	if err != nil || oldest.Before(at) || oldest.Equal(at) {
		return err
	}
	id, goal := d.at(timed, at, forward, oldest, depth)
	for range reachPages {
		if id == "" || timed.Err() != nil {
			break
		}
		known := false
		err := n.cfg.Hub.Read(timed, func(v hub.View) error {
			_, err := n.cfg.Mirror.CoreID(v, id)
			known = err == nil
			if errors.Is(err, hub.ErrNone) {
				err = nil
			}
			return err
		})
		if err != nil || known {
			return err
		}
		found, err := n.Older(timed, c, maxPage)
		if err != nil || !found {
			return ignoreTime(ctx, err)
		}
		if oldest, _, err := n.oldest(timed, c.ID); err != nil || oldest.Before(goal) {
			return ignoreTime(ctx, err)
		}
	}
	return nil
}

// ignoreTime drops an error that is only about our own limit.
func ignoreTime(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}

// oldest is when the oldest event of a room's history was sent, and its depth.
func (n *Incoming) oldest(ctx context.Context, conv core.ConvID) (at time.Time, depth int64, err error) {
	err = n.cfg.Hub.Read(ctx, func(v hub.View) error {
		after, err := hub.Beginning(v, conv)
		if err != nil {
			return err
		}
		first, err := v.Page(hub.Query{Conv: conv, After: after, Limit: 1})
		if err != nil || len(first) == 0 {
			return err
		}
		at = first[0].Origin
		events, err := n.cfg.Mirror.ByCore(v, first[0].ID)
		if err == nil && len(events) == 1 {
			depth = events[0].Depth
		}
		return err
	})
	return at, depth, err
}

// at asks others what was said closest to a moment, and returns that if it is
// older than what is known and near enough, and when that was.
func (d *digging) at(ctx context.Context, at time.Time, forward bool, oldest time.Time, depth int64) (id string, sent time.Time) {
	dir := "b"
	if forward {
		dir = "f"
	}
	for _, s := range d.servers[:min(len(d.servers), 3)] {
		raw, err := d.get(ctx, s, maxEventAnswer, url.Values{"ts": {strconv.FormatInt(at.UnixMilli(), 10)}, "dir": {dir}}, "timestamp_to_event", d.p.roomID)
		if err != nil {
			continue
		}
		var answer struct {
			ID string `json:"event_id"`
			TS int64  `json:"origin_server_ts"`
		}
		if json.Unmarshal(raw, &answer) != nil || wire.CheckEventID(answer.ID) != nil {
			continue
		}
		sent := time.UnixMilli(answer.TS)
		if !sent.Before(oldest) {
			continue
		}
		if raw, err = d.event(ctx, s, answer.ID); err != nil {
			continue
		}
		pdu, err := d.p.parse(raw)
		if err != nil || pdu.EventID != answer.ID || depth-pdu.Depth > reachDepth {
			continue
		}
		return answer.ID, sent
	}
	return "", time.Time{}
}
