package incoming

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"parley/core"
	"parley/matrix/shared"
)

// What one go at a room's gaps is worth.
const (
	maxCalls   = 400
	maxFetched = 1000 // events between what is known and what waits
	maxStates  = 8    // states that others are asked for
	maxSteps   = 60
	// fillBatch is how many events that wait are looked at.
	fillBatch = 200
	// turnBatch is how many events are judged in one turn.
	turnBatch = 50
	// maxAsked is how many servers are asked for the same.
	maxAsked = 4
)

// gap is one go at what is missing of a room.
type gap struct {
	asker
	// pending are the events that wait, and those that were found on the way to
	// them; each after those that it follows.
	pending []*item
	missing map[*item]*shared.MissingError
	have    map[string]bool // are or were in pending
	fetched int             // on the way to what waits
	states  int             // asked for
	others  []string        // servers that are in the room
	// late are those for whose servers enough has been asked for now.
	late map[*item]time.Time
	// silent says that something on the way could not be checked, because its server
	// did not answer.
	silent bool
}

// patience is how often an event is tried before a state is taken for that before it of
// which some cannot be checked because their servers do not answer: by default for a minute
// and a quarter, in which a server that is being started again is back. What is left out then
// is left out of all that follows, until somebody's next event brings it in.
const patience = 4

// patient says that an event is rather tried again than judged by less than there is.
func (g *gap) patient(it *item) bool { return g.silent && it.tries < patience }

// fill has one go at what waits for a room.
func (n *Incoming) fill(ctx context.Context, conv core.ConvID) error {
	g := &gap{
		asker:   asker{n: n, p: &place{conv: conv, shared: true}, calls: maxCalls},
		missing: map[*item]*shared.MissingError{}, have: map[string]bool{}, late: map[*item]time.Time{},
	}
	if inside, err := g.open(ctx); err != nil || !inside {
		return err
	}
	if err := g.check(ctx); err != nil {
		return err
	}
	changed := true
	for range maxSteps {
		if changed {
			if err := g.admit(ctx); err != nil {
				return err
			}
		}
		if len(g.pending) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		if changed = g.step(ctx); changed {
			continue
		}
		if err := g.giveUp(ctx, g.hopeless()...); err != nil {
			return err
		}
	}
	return g.giveUp(context.WithoutCancel(ctx), g.pending...)
}

// hopeless is the first of the pending events, for which nothing more can be
// done, and if that was found on the way to others, all that was found: the way
// leads nowhere.
func (g *gap) hopeless() (out []*item) {
	first := g.pending[0]
	if first.waits {
		return []*item{first}
	}
	for _, it := range g.pending {
		if !it.waits {
			out = append(out, it)
		}
	}
	return out
}

// open reads what waits.
func (g *gap) open(ctx context.Context) (inside bool, err error) {
	err = g.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) (err error) {
		inside, err = t.Inside(g.p.conv)
		if err != nil {
			return err
		}
		if !inside {
			return g.n.forgetRoom(t, g.p.conv)
		}
		if g.others, err = t.Servers(g.p.conv); err != nil {
			return err
		}
		for _, d := range g.n.cfg.Domains {
			if in, err := t.Has(g.p.conv, d); err != nil {
				return err
			} else if in {
				g.origin = d
				break
			}
		}
		if g.p.roomID, g.p.version, err = shared.RoomOf(t.Tx(), g.p.conv); err != nil {
			return err
		}
		g.pending, err = waitingIn(t.Tx(), g.p, time.Now(), fillBatch)
		return err
	})
	rand.Shuffle(len(g.others), func(i, k int) { g.others[i], g.others[k] = g.others[k], g.others[i] })
	for _, it := range g.pending {
		g.have[it.pdu.EventID] = true
	}
	g.pending = inOrder(g.pending, previous)
	return inside, err
}

// check looks at the signatures of those of which they were not seen.
func (g *gap) check(ctx context.Context) error {
	var todo []*item
	for _, it := range g.pending {
		if it.unchecked {
			todo = append(todo, it)
		}
	}
	if len(todo) == 0 {
		g.n.recommend(ctx, g.p, g.pending)
		return nil
	}
	bad := g.n.verify(ctx, todo)
	var later []*item
	err := g.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error {
		later = nil
		for _, it := range todo {
			switch err := bad[it.pdu.EventID]; {
			case it.unchecked || err != nil && passing(err):
				it.unchecked = true
				later = append(later, it)
				if err := g.n.postpone(t, it, true, time.Time{}); err != nil {
					return err
				}
			case err != nil:
				g.n.count("unsigned")
				later = append(later, it)
				if err := g.n.drop(t, it); err != nil {
					return err
				}
			}
		}
		return nil
	})
	g.pending = slices.DeleteFunc(g.pending, func(it *item) bool { return slices.Contains(later, it) })
	g.n.recommend(ctx, g.p, g.pending)
	return err
}

// admit judges what can be judged.
func (g *gap) admit(ctx context.Context) error {
	var left []*item
	clear(g.missing)
	for batch := range slices.Chunk(g.pending, turnBatch) {
		r := g.n.admit(ctx, g.p, batch)
		if r.err != nil && passing(r.err) {
			return r.err
		}
		if r.err == nil {
			g.n.settle(map[string]error{}, batch, r)
			maps.Copy(g.missing, r.missing)
		} else { // find out which
			for _, it := range batch {
				one := g.n.admit(ctx, g.p, []*item{it})
				g.n.settle(map[string]error{}, []*item{it}, one)
				if maps.Copy(g.missing, one.missing); one.err == nil {
					continue
				}
				if err := g.strike(ctx, it); err != nil {
					return err
				}
			}
		}
		for _, it := range batch {
			if g.missing[it] != nil {
				left = append(left, it)
			}
		}
	}
	g.pending = left
	return nil
}

// strike drops an event that cannot be kept.
func (g *gap) strike(ctx context.Context, it *item) error {
	if !it.waits {
		return nil
	}
	return g.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error { return g.n.drop(t, it) })
}

// giveUp puts events off. Those that follow them are tried by themselves.
func (g *gap) giveUp(ctx context.Context, items ...*item) error {
	if len(items) == 0 {
		return nil
	}
	err := g.n.cfg.Shared.Turn(ctx, func(t *shared.Turn) error {
		for _, it := range items {
			if !it.waits {
				continue
			}
			until, put := g.late[it]
			if err := g.n.postpone(t, it, !put, until); err != nil {
				return err
			}
		}
		return nil
	})
	g.pending = slices.DeleteFunc(slices.Clone(g.pending), func(it *item) bool { return slices.Contains(items, it) })
	return err
}

// step asks others for what the first of the pending events needs, and reports
// whether it is worth to try again.
func (g *gap) step(ctx context.Context) bool {
	it := g.pending[0]
	missing := g.missing[it]
	if it.unchecked {
		return false
	}
	if it.waits {
		r := g.n.budget(it.origin).Reserve()
		if wait := r.Delay(); wait > 0 {
			r.Cancel()
			g.late[it] = time.Now().Add(wait)
			return false
		}
	}
	switch {
	case len(missing.Auth) > 0 && !it.cites:
		it.cites = true
		return g.causes(ctx, it, missing.Auth)
	case len(missing.Auth) > 0:
		return false
	case len(missing.Prev) > 0 && !it.walked:
		it.walked = true
		g.walk(ctx, it)
		return true // and if nothing was found, there is the state
	case !it.told && g.states < maxStates && !g.patient(it):
		it.told = true
		g.states++
		return g.stateOf(ctx, it)
	}
	return false
}

// servers are those that may know what an event is about.
func (g *gap) servers(it *item) []string {
	out := make([]string, 0, maxAsked)
	for _, s := range slices.Concat([]string{it.origin, server(it.pdu.Sender)}, g.others) {
		if s != "" && len(out) < maxAsked && !slices.Contains(out, s) && !slices.Contains(g.n.cfg.Domains, s) {
			out = append(out, s)
		}
	}
	return out
}
