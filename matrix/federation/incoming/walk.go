package incoming

import (
	"context"
	"encoding/json"
	"slices"

	"parley/hub"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// walk asks for what lies between what is known and an event, in rounds, until
// it meets what is known. What was found is pending then.
//
// spec: MX 1.19 SS §8.2
func (g *gap) walk(ctx context.Context, it *item) {
	var ends []string
	err := g.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) (err error) {
		ends, _, err = t.Ends(g.p.conv)
		return err
	})
	if err != nil {
		return
	}
	if len(ends) > missingLimit {
		ends = ends[:missingLimit]
	}
	way := []*item{it}
	for _, s := range g.servers(it) {
		asked := map[*item]bool{}
		for g.fetched < maxFetched && ctx.Err() == nil {
			loose, err := g.loose(ctx, way)
			if err != nil || len(loose) == 0 {
				g.pending = inOrder(append(way[1:], g.pending...), previous)
				return
			}
			var latest []string
			for _, l := range loose {
				if !asked[l] && len(latest) < missingLimit {
					asked[l] = true
					latest = append(latest, l.pdu.EventID)
				}
			}
			if len(latest) == 0 {
				break
			}
			list, err := g.between(ctx, s, ends, latest)
			if err != nil {
				g.n.cfg.Log.Debug("events are missing, and a server does not tell them", "server", s, "room", g.p.roomID, "err", err)
				break
			}
			way = append(way, g.found(ctx, s, way, list)...)
		}
	}
	g.pending = inOrder(append(way[1:], g.pending...), previous)
}

// loose are those of some events that follow others of which nothing is known.
func (g *gap) loose(ctx context.Context, way []*item) (out []*item, err error) {
	var ids []string
	for _, it := range way {
		for _, id := range it.pdu.PrevEvents {
			if !g.have[id] {
				ids = append(ids, id)
			}
		}
	}
	var judged map[string]bool
	err = g.n.cfg.Hub.Read(ctx, func(v hub.View) error {
		judged, err = shared.Judged(v, ids)
		return err
	})
	for _, it := range way {
		if slices.ContainsFunc(it.pdu.PrevEvents, func(id string) bool { return !g.have[id] && !judged[id] }) {
			out = append(out, it)
		}
	}
	return out, err
}

// found makes items of what a server told, as far as it leads to way, is signed,
// and is not judged. Some may be waiting for their own time.
func (g *gap) found(ctx context.Context, server string, way []*item, list []json.RawMessage) []*item {
	var all []*item
	for _, raw := range list {
		pdu, err := g.p.parse(raw)
		if err == nil && !g.have[pdu.EventID] {
			all = append(all, &item{pdu: pdu, origin: server, found: true, walked: true})
		}
	}
	// The way ends at what was judged: what lies behind that is the past, which may be unknown.
	all, err := g.n.unjudged(ctx, all)
	if err != nil {
		return nil
	}
	told := make(map[string]*item, len(all))
	for _, it := range all {
		told[it.pdu.EventID] = it
	}
	var fresh []*item
	for todo := slices.Clone(way); len(todo) > 0 && g.fetched+len(fresh) < maxFetched; todo = todo[1:] {
		for _, id := range todo[0].pdu.PrevEvents {
			if it := told[id]; it != nil {
				delete(told, id)
				fresh = append(fresh, it)
				todo = append(todo, it)
			}
		}
	}
	bad := g.n.verify(ctx, fresh)
	fresh = slices.DeleteFunc(fresh, func(it *item) bool {
		g.silent = g.silent || it.unchecked
		return it.unchecked || bad[it.pdu.EventID] != nil
	})
	g.n.recommend(ctx, g.p, fresh)
	for _, it := range fresh {
		g.have[it.pdu.EventID] = true
	}
	g.fetched += len(fresh)
	return fresh
}

// Bounds of what is asked for because it is cited.
const (
	maxCausesDepth = 5  // steps from cause to cause
	maxCauses      = 60 // events, one by one
	// maxStateEach is how many events of a state are asked for one by one.
	maxStateEach = 150
)

// causes asks for what an event cites: one by one if that leads to what is
// known soon, else all of it at once.
//
// spec: MX 1.19 SS §5.1.5
func (g *gap) causes(ctx context.Context, it *item, ids []string) bool {
	servers := g.servers(it)
	got := map[string]*wire.PDU{}
	todo := ids
	for range maxCausesDepth {
		if todo = g.unheard(ctx, todo, got); len(todo) == 0 || len(got)+len(todo) > maxCauses {
			break
		}
		list := g.genuine(ctx, g.each(ctx, servers, todo), ofIDs(todo))
		todo = nil
		for _, pdu := range list {
			got[pdu.EventID] = pdu
			todo = append(todo, pdu.AuthEvents...)
		}
	}
	rest := slices.Clone(ids)
	for _, pdu := range got {
		rest = append(rest, pdu.AuthEvents...)
	}
	if len(g.unheard(ctx, rest, got)) > 0 {
		for _, s := range servers {
			list, err := g.chain(ctx, s, it.pdu.EventID)
			if err != nil {
				continue
			}
			for _, pdu := range g.genuine(ctx, list, nil) {
				got[pdu.EventID] = pdu
			}
			break
		}
	}
	return g.cite(ctx, got) > 0
}

// unheard are those of some events that are not known and not in got.
func (g *gap) unheard(ctx context.Context, ids []string, got map[string]*wire.PDU) []string {
	var out []string
	for _, id := range ids {
		if got[id] == nil && wire.CheckEventID(id) == nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	err := g.n.cfg.Hub.Read(ctx, func(v hub.View) error {
		known, err := shared.Known(v, out)
		out = slices.DeleteFunc(out, func(id string) bool { return known[id] })
		return err
	})
	if err != nil {
		return nil
	}
	return out
}

func ofIDs(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// genuine are those of some events that are of the room, signed, and among ids,
// if that is not nil; each once.
func (g *gap) genuine(ctx context.Context, list []json.RawMessage, ids map[string]bool) []*wire.PDU {
	out, silent := g.n.genuine(ctx, g.p, list, ids)
	g.silent = g.silent || silent
	return out
}

// verifyBatch is how many events are checked before it is looked whether anybody
// still waits for them.
const verifyBatch = 500

// genuine is [gap.genuine]. silent says that some were left out whose servers did not answer.
func (n *Incoming) genuine(ctx context.Context, p *place, list []json.RawMessage, ids map[string]bool) (out []*wire.PDU, silent bool) {
	seen := map[string]bool{}
	for batch := range slices.Chunk(list, verifyBatch) {
		var items []*item
		for _, raw := range batch {
			pdu, err := p.parse(raw)
			if err != nil || seen[pdu.EventID] || ids != nil && !ids[pdu.EventID] {
				continue
			}
			seen[pdu.EventID] = true
			items = append(items, &item{pdu: pdu})
		}
		bad := n.verify(ctx, items)
		for _, it := range items {
			silent = silent || it.unchecked
			if !it.unchecked && bad[it.pdu.EventID] == nil {
				out = append(out, it.pdu)
			}
		}
		if ctx.Err() != nil {
			return nil, silent
		}
	}
	return out, silent
}

// citeBatch is how many events are cited in one turn.
const citeBatch = 200

// cite keeps events as causes and pieces of state, those that lead to what is
// known, and returns how many those are.
func (g *gap) cite(ctx context.Context, events map[string]*wire.PDU) int {
	return g.n.cite(ctx, g.p, events)
}

func (n *Incoming) cite(ctx context.Context, p *place, events map[string]*wire.PDU) int {
	var items []*item
	var ids []string
	for id, pdu := range events {
		items = append(items, &item{pdu: pdu})
		ids = append(ids, id)
		ids = append(ids, pdu.AuthEvents...)
	}
	var known map[string]bool
	err := n.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		known, err = shared.Known(v, ids)
		return err
	})
	if err != nil {
		return 0
	}
	byDepth(items)
	var list []shared.Incoming
	for _, it := range inOrder(items, causes(p.createOf())) {
		if known[it.pdu.EventID] {
			continue
		}
		if slices.ContainsFunc(it.pdu.AuthEvents, func(id string) bool { return !known[id] }) {
			continue
		}
		known[it.pdu.EventID] = true
		list = append(list, it.incoming())
	}
	cited := 0
	for batch := range slices.Chunk(list, citeBatch) {
		all := n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error { return t.Cite(p.conv, batch...) })
		if all == nil {
			cited += len(batch)
			continue
		}
		for _, one := range batch {
			err := n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error { return t.Cite(p.conv, one) })
			if err == nil {
				cited++
			} else if ctx.Err() == nil {
				n.count("malformed")
				n.cfg.Log.Debug("an event cannot be cited", "event", one.PDU.EventID, "err", err)
			}
		}
	}
	return cited
}

// stateOf asks for the state before an event, and reports whether it got one.
//
// spec: MX 1.19 SS §9.3
func (g *gap) stateOf(ctx context.Context, it *item) bool {
	for _, s := range g.servers(it) {
		state, auth, err := g.stateIDs(ctx, s, it.pdu.EventID)
		if err != nil {
			g.n.cfg.Log.Debug("the state before an event is not told", "server", s, "event", it.pdu.EventID, "err", err)
			continue
		}
		if missing := g.unheard(ctx, slices.Concat(state, auth), nil); len(missing) > 0 {
			got := map[string]*wire.PDU{}
			var list []json.RawMessage
			if len(missing) <= maxStateEach {
				list = g.each(ctx, []string{s}, missing)
			} else if list, err = g.state(ctx, s, it.pdu.EventID); err != nil {
				continue
			}
			for _, pdu := range g.genuine(ctx, list, ofIDs(missing)) {
				got[pdu.EventID] = pdu
			}
			if g.cite(ctx, got); g.patient(it) {
				return false
			}
		}
		if before, err := g.usable(ctx, state); err == nil {
			it.before = before
			return true
		}
	}
	return false
}

// usable are the events of a state that are known now, if that is enough of it:
// all that decides who may do what, and at least half. Events of servers that
// are gone for good cannot be checked by anybody.
func (g *gap) usable(ctx context.Context, state []string) (out []string, err error) {
	total := len(state)
	err = g.n.cfg.Hub.Read(ctx, func(v hub.View) error {
		known, err := shared.Known(v, state)
		state = slices.DeleteFunc(slices.Clone(state), func(id string) bool { return !known[id] })
		return err
	})
	if err != nil {
		return nil, err
	}
	if 2*len(state) < total {
		return nil, shared.ErrNoState
	}
	err = g.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error {
		out, err = t.Usable(g.p.conv, state)
		return err
	})
	if err == nil && 2*len(out) < total {
		err = shared.ErrNoState
	}
	return out, err
}
