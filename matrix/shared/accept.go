package shared

import (
	"errors"
	"fmt"
	"slices"

	"parley/core"
	"parley/matrix/graph"
	"parley/matrix/wire"
)

// The verdicts on disk.
const (
	accepted   = "accepted"
	softFailed = "soft-failed"
	rejected   = "rejected"
	cited      = "cited"
)

// Incoming is an event of another server. Its hash and signatures were checked.
type Incoming struct {
	PDU *wire.PDU
	// ViaSigned says that the server which let a joiner in signed it.
	ViaSigned bool
	// Before are the events of the state before it, as a server in the room tells
	// it, for an event whose past is not known; all of them are known.
	Before []string
	// Below says that it is history.
	Below bool
	// Unwanted says that the room's policy server does not recommend it.
	Unwanted bool
}

// ErrUnwanted says that a room's policy server does not recommend an event.
var ErrUnwanted = errors.New("the policy server of the room does not recommend it")

// Outcome is what became of an event.
type Outcome struct {
	Verdict graph.Verdict
	// Why it was not accepted; nil where it was.
	Why error
	// Known says that it was there already, and nothing was done.
	Known bool
}

// Accept takes an event into a room. A [*MissingError] says that it cannot be
// judged before more is known.
//
// spec: MX 1.19 SS §5.1
func (t *Turn) Accept(conv core.ConvID, in Incoming) (Outcome, error) {
	rm, err := t.room(conv)
	if err != nil {
		return Outcome{}, err
	}
	pdu := in.PDU
	if pdu.RoomID != rm.id || pdu.Version != rm.version {
		return Outcome{Verdict: graph.Rejected, Why: errors.New("it is of another room")}, nil
	}
	if verdict, known, err := t.known(pdu.EventID); err != nil || known {
		return Outcome{Known: true, Verdict: verdictOf(verdict)}, err
	}
	e, err := t.link(rm, pdu, in.ViaSigned)
	if err != nil {
		return Outcome{}, err
	}
	if in.Below {
		return t.acceptBelow(rm, pdu, e)
	}
	return t.acceptLive(rm, in, e)
}

func verdictOf(s string) graph.Verdict {
	switch s {
	case accepted:
		return graph.Accepted
	case softFailed:
		return graph.SoftFailed
	}
	return graph.Rejected
}

// link ties a new event to what it cites.
func (t *Turn) link(rm *room, pdu *wire.PDU, viaSigned bool) (*graph.Event, error) {
	if e := rm.events[pdu.EventID]; e != nil {
		return e, nil
	}
	missing, err := t.want(rm, pdu.AuthEvents...)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, &MissingError{Auth: missing}
	}
	auth := make([]*graph.Event, len(pdu.AuthEvents))
	for i, id := range pdu.AuthEvents {
		auth[i] = rm.events[id]
	}
	e, err := graph.Link(pdu, rm.create, auth)
	if err != nil {
		return nil, err
	}
	e.ViaSigned = viaSigned
	return e, nil
}

// acceptLive is [Turn.Accept] for what is new.
func (t *Turn) acceptLive(rm *room, in Incoming, e *graph.Event) (Outcome, error) {
	before, group, err := t.before(rm, in)
	if err != nil {
		return Outcome{}, err
	}
	verdict, why := graph.Check(e, t.seen(rm, before, e), t.seen(rm, rm.current, e))
	switch {
	case verdict != graph.Accepted:
	case in.Unwanted:
		verdict, why = graph.SoftFailed, ErrUnwanted
	case len(rm.ends) >= maxEnds && !slices.ContainsFunc(in.PDU.PrevEvents, func(id string) bool { return slices.Contains(rm.ends, id) }):
		verdict, why = graph.SoftFailed, ErrForks
	}
	e.Rejected = verdict == graph.Rejected
	after := graph.After(before, e, verdict)
	afterGroup, err := t.group(rm, after, group, before)
	if err != nil {
		return Outcome{}, err
	}
	if t.learnState(rm, e); verdict != graph.Accepted {
		err := t.put(rm, entry{pdu: in.PDU, verdict: verdict.String(), prior: group, state: afterGroup, viaSigned: in.ViaSigned})
		return Outcome{Verdict: verdict, Why: why}, err
	}
	followed, err := t.found(rm, e.ID)
	if err != nil {
		return Outcome{}, err
	}
	followed = followed && !lost(rm, in.PDU)
	if err := t.put(rm, entry{pdu: in.PDU, verdict: accepted, prior: group, state: afterGroup, viaSigned: in.ViaSigned, shown: true}); err != nil {
		return Outcome{}, err
	}
	was := rm.head
	var failed error
	var missing []string
	rm.ends = graph.Extremities(rm.ends, e, verdict, followed, func(id string) []string {
		prev, known, err := t.past(rm, id)
		if failed = errors.Join(failed, err); !known {
			missing = append(missing, id)
		}
		return prev
	})
	if failed == nil {
		failed = t.note(rm, in.PDU, missing...)
	}
	if failed != nil {
		return Outcome{}, failed
	}
	rm.depth = max(rm.depth, in.PDU.Depth)
	next, nextGroup, err := t.resolveEnds(rm)
	if err != nil {
		return Outcome{}, err
	}
	feed, err := t.show(rm, in.PDU, e, before, next)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Verdict: verdict}, t.move(rm, was, next, nextGroup, feed)
}

// lost says that the room's state has no word of what a state event says. Where others told
// the state before an event that follows it, this one may have been left out, because it could
// not be checked in time. It is an end then, for all that is followed, so that it is brought in
// by whoever speaks here next.
func lost(rm *room, pdu *wire.PDU) bool {
	return pdu.StateKey != nil && rm.current.Get(pdu.Type, *pdu.StateKey) == nil
}

// maxEnds bounds the branches of a room. What would begin one more is soft-failed:
// whoever follows it brings it in.
const maxEnds = 500

// ErrForks says that a room has too many branches.
var ErrForks = errors.New("the room has too many branches")

// maxStates bounds the states of one room in memory.
const maxStates = 1000

// move makes a state the current one.
func (t *Turn) move(rm *room, was head, next graph.State, group int64, feed core.Feed) error {
	joined, parted := t.r.turnOut(&rm.head, next)
	rm.current, rm.group = next, group
	if len(rm.states) > maxStates {
		clear(rm.states)
	}
	rm.states[group] = next
	if len(joined)+len(parted) > 0 {
		if err := t.r.cfg.Outbox.Peers(t.tx, rm.conv, joined, parted, feed); err != nil {
			return err
		}
	}
	return t.saveHead(rm, was)
}

// learnState keeps a state event in memory: later ones may cite it.
func (t *Turn) learnState(rm *room, e *graph.Event) {
	if e.StateKey != nil && rm.events[e.ID] == nil {
		t.learn(rm, e)
	}
}

// before is the state before an event, and its group.
func (t *Turn) before(rm *room, in Incoming) (graph.State, int64, error) {
	if in.Before != nil {
		s, err := t.stateOf(rm, in.Before)
		if err != nil {
			return s, 0, err
		}
		// It is not far from where the room is, if it is of its present.
		group, err := t.group(rm, s, rm.group, rm.current)
		return s, group, err
	}
	var missing MissingError
	var groups []int64
	for _, id := range in.PDU.PrevEvents {
		group, found, err := t.after(rm, id)
		switch {
		case err != nil:
			return graph.State{}, 0, err
		case !found:
			missing.Prev = append(missing.Prev, id)
		case group == 0:
			missing.State = append(missing.State, id)
		case !slices.Contains(groups, group):
			groups = append(groups, group)
		}
	}
	if len(missing.Prev)+len(missing.State) > 0 {
		return graph.State{}, 0, &missing
	}
	if len(groups) == 0 {
		return graph.State{}, 0, fmt.Errorf("%w: it follows nothing", graph.ErrLink)
	}
	return t.resolve(rm, groups)
}

// note writes down which of the events that one follows are not known, so that
// they can be asked for as history.
func (t *Turn) note(rm *room, pdu *wire.PDU, prev ...string) error {
	for _, id := range prev {
		if _, known, err := t.known(id); err != nil {
			return err
		} else if known {
			continue
		}
		if _, err := t.sql.Exec(`INSERT INTO shared_missing (conv, event_id, follower) VALUES ($1, $2, $3)
			ON CONFLICT DO NOTHING`, string(rm.conv), id, pdu.EventID); err != nil {
			return err
		}
	}
	return nil
}

// found says that an event is no longer missing, and whether an accepted one
// follows it.
func (t *Turn) found(rm *room, id string) (followed bool, err error) {
	n, err := t.sql.Exec(`DELETE FROM shared_missing WHERE conv = $1 AND event_id = $2`, string(rm.conv), id)
	return n > 0, err
}

// past are the previous events of one that was rejected or soft-failed, nil of
// others. known says whether it was judged.
func (t *Turn) past(rm *room, id string) (prev []string, known bool, err error) {
	verdict, known, err := t.known(id)
	if err != nil || verdict != rejected && verdict != softFailed {
		return nil, known, err
	}
	got, err := read(t.sql, rm.version, []string{id})
	if err != nil {
		return nil, known, err
	}
	return got[id].pdu.PrevEvents, known, nil
}

// resolve is the state in which groups meet, and its group.
func (t *Turn) resolve(rm *room, groups []int64) (graph.State, int64, error) {
	states := make([]graph.State, len(groups))
	for i, g := range groups {
		var err error
		if states[i], err = t.state(rm, g); err != nil {
			return graph.State{}, 0, err
		}
	}
	if len(groups) == 1 {
		return states[0], groups[0], nil
	}
	s := graph.Resolve(rm.version, states...)
	for i := range states {
		if s.Equal(states[i]) {
			return states[i], groups[i], nil
		}
	}
	group, err := t.group(rm, s, groups[0], states[0])
	return s, group, err
}

// resolveEnds is the room's state after all its ends.
func (t *Turn) resolveEnds(rm *room) (graph.State, int64, error) {
	var groups []int64
	for _, id := range rm.ends {
		group, _, err := t.after(rm, id)
		if err != nil {
			return graph.State{}, 0, err
		}
		if group != 0 && !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	if len(groups) == 0 {
		return rm.current, rm.group, nil
	}
	slices.Sort(groups)
	return t.resolve(rm, groups)
}

// seen is a state as the rules see it. While members are missing from a room
// that was entered a short while ago, those that an event cites stand in.
//
// spec: MX 1.19 SS §10
func (t *Turn) seen(rm *room, s graph.State, e *graph.Event) graph.View {
	if rm.partial == "" {
		return s
	}
	return lenient{s, e}
}

type lenient struct {
	graph.State
	e *graph.Event
}

func (l lenient) Get(eventType, key string) *graph.Event {
	if e := l.State.Get(eventType, key); e != nil || eventType != wire.TypeMember {
		return e
	}
	for _, a := range l.e.Auth {
		if a.Is(eventType, key) && !a.Rejected {
			return a
		}
	}
	return nil
}

// acceptBelow is [Turn.Accept] for history: it is judged by what it cites alone,
// because the state before it is not known.
func (t *Turn) acceptBelow(rm *room, pdu *wire.PDU, e *graph.Event) (Outcome, error) {
	why := judgeCited(e)
	e.Rejected = why != nil
	t.learnState(rm, e)
	if _, err := t.found(rm, e.ID); err != nil {
		return Outcome{}, err
	}
	if err := t.note(rm, pdu, pdu.PrevEvents...); err != nil {
		return Outcome{}, err
	}
	if why != nil {
		return Outcome{Verdict: graph.Rejected, Why: why}, t.put(rm, entry{pdu: pdu, verdict: rejected})
	}
	if err := t.put(rm, entry{pdu: pdu, verdict: accepted, shown: true}); err != nil {
		return Outcome{}, err
	}
	return Outcome{Verdict: graph.Accepted}, t.showBelow(rm, pdu, e)
}

// judgeCited holds an event to the rules by what it cites.
func judgeCited(e *graph.Event) error {
	if err := graph.CheckCited(e); err != nil || e.Type == wire.TypeCreate {
		return err
	}
	return graph.Allowed(e, graph.StateOf(e.Auth...))
}

// Cite takes events that are known as state or as a cause of others. They are
// judged by what they cite; the order is such that an event comes after those it
// cites, or they are known.
func (t *Turn) Cite(conv core.ConvID, events ...Incoming) error {
	rm, err := t.room(conv)
	if err != nil {
		return err
	}
	return t.cite(rm, events)
}

func (t *Turn) cite(rm *room, events []Incoming) error {
	for _, in := range events {
		if rm.events[in.PDU.EventID] != nil {
			continue
		}
		if _, known, err := status(t.sql, in.PDU.EventID); err != nil {
			return err
		} else if known {
			continue
		}
		if in.PDU.RoomID != rm.id {
			return errors.New("an event of another room is cited")
		}
		e, err := t.link(rm, in.PDU, in.ViaSigned)
		if err != nil {
			return err
		}
		verdict := cited
		if e.Rejected = judgeCited(e) != nil; e.Rejected {
			verdict = rejected
		}
		t.learn(rm, e)
		if err := t.put(rm, entry{pdu: in.PDU, verdict: verdict, viaSigned: in.ViaSigned}); err != nil {
			return err
		}
	}
	return nil
}

// entry is a row of shared_events.
type entry struct {
	pdu     *wire.PDU
	verdict string
	// prior and state are the groups before and after it, 0 if not known.
	prior, state int64
	viaSigned    bool
	// shown says that the mirror has it, or will have in this turn.
	shown bool
}

// put writes what is known of an event.
func (t *Turn) put(rm *room, e entry) error {
	var json any
	if !e.shown {
		json = e.pdu.JSON
	}
	via := 0
	if e.viaSigned {
		via = 1
	}
	_, err := t.sql.Exec(`INSERT INTO shared_events (event_id, conv, verdict, state, via_signed, json, prior) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (event_id) DO UPDATE SET verdict = excluded.verdict, state = excluded.state, json = excluded.json, prior = excluded.prior`,
		e.pdu.EventID, string(rm.conv), e.verdict, e.state, via, json, e.prior)
	if err == nil {
		t.r.count("matrix_events", e.verdict)
	}
	return err
}
