package shared

import (
	"errors"
	"fmt"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/mirror"
	"parley/matrix/wire"
)

// Share gives a room that was this server's alone to the graph, for good: a
// server other than this one is about to have a part in it. The state after its
// last event becomes the first group.
func (t *Turn) Share(conv core.ConvID) error {
	c, err := t.tx.Conversation(conv)
	if err != nil || c.Authority != core.Here {
		return err
	}
	s, err := t.tx.State(conv)
	if err != nil {
		return err
	}
	end, err := t.r.mirror.End(t.tx, &c)
	if err != nil {
		return err
	}
	current, err := t.r.mirror.State(t.tx, conv)
	if err != nil {
		return err
	}
	rm := &room{
		conv: conv, id: c.Native[core.Matrix], events: map[string]*graph.Event{}, states: map[int64]graph.State{},
	}
	if rm.version, err = wire.VersionOf(s.Creation.Version); err != nil {
		return err
	}
	ids := make([]string, len(current))
	for i, e := range current {
		ids[i] = e.EventID
	}
	st, err := t.stateOf(rm, ids)
	if err != nil {
		return err
	}
	if err := t.start(rm, st, end.Depth); err != nil {
		return err
	}
	if err := t.put(rm, entry{pdu: end.PDU, verdict: accepted, state: rm.group, viaSigned: true, shown: true}); err != nil {
		return err
	}
	if _, err := t.sql.Exec(`INSERT INTO shared_ends (conv, event_id) VALUES ($1, $2)`, string(conv), end.EventID); err != nil {
		return err
	}
	t.forget(conv)
	return t.Hub.Share(conv)
}

// start writes a room's first state, or the first after an absence. base is set
// for one that is entered.
func (t *Turn) start(rm *room, s graph.State, depth int64) (err error) {
	if rm.group, err = t.group(rm, s, 0, graph.State{}); err != nil {
		return err
	}
	if rm.base != 0 {
		rm.base = rm.group
	}
	_, err = t.sql.Exec(`INSERT INTO shared_rooms (conv, room_id, version, state, base, partial, depth)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (conv) DO UPDATE SET state = excluded.state, base = excluded.base, partial = excluded.partial, depth = excluded.depth`,
		string(rm.conv), rm.id, rm.version.ID, rm.group, rm.base, rm.partial, depth)
	return err
}

// Entry is a room of other servers that one of ours enters: what the server said
// that let her in. Hashes and signatures were checked.
type Entry struct {
	RoomID  string
	Version *wire.Version
	// State is the room's state before Join, Auth what its events cite besides;
	// both in such an order that an event comes after those it cites.
	State, Auth []Incoming
	Join        Incoming
	// Partial is the server that is to be asked for the members that are not in
	// State, "" where all are.
	Partial string
	// Peer makes it a direct of the joiner with another person.
	Peer core.Address
	// Address is an alias under which it was found; zero for none.
	Address core.Address
}

// Enter begins a room, or begins it anew where one returns after nobody of ours
// was in it, with the join as its first event.
//
// spec: MX 1.19 SS §10
func (t *Turn) Enter(in Entry) (core.ConvID, error) {
	conv, err := t.begin(in)
	if err != nil {
		return "", err
	}
	old, err := t.room(conv)
	again := err == nil
	if err != nil && !errors.Is(err, ErrNotShared) {
		return "", err
	}
	rm := &room{conv: conv, id: in.RoomID, version: in.Version, events: map[string]*graph.Event{}, states: map[int64]graph.State{}}
	if again {
		if t.r.inside(old.head) {
			return conv, t.late(conv, in)
		}
		rm.events, rm.create, rm.current = old.events, old.create, old.current
	}
	if err := t.cite(rm, slices.Concat(in.Auth, in.State)); err != nil {
		return "", err
	}
	ids := make([]string, 0, len(in.State))
	for _, e := range in.State {
		ids = append(ids, e.PDU.EventID)
	}
	if _, err := t.want(rm, ids...); err != nil { // an invitation was kept before
		return "", err
	}
	ids = ids[:0]
	for _, e := range in.State {
		if ev := rm.events[e.PDU.EventID]; ev != nil && !ev.Rejected {
			ids = append(ids, e.PDU.EventID)
		}
	}
	s, err := t.stateOf(rm, ids)
	if err != nil {
		return "", err
	}
	if s.Get(wire.TypeCreate, "") == nil {
		return "", fmt.Errorf("%w: there is no create event", graph.ErrLink)
	}
	was := rm.current
	rm.base, rm.partial = -1, in.Partial
	if err := t.start(rm, s, 0); err != nil {
		return "", err
	}
	if _, err := t.sql.Exec(`DELETE FROM shared_ends WHERE conv = $1`, string(conv)); err != nil {
		return "", err
	}
	t.forget(conv)
	t.r.rooms[conv] = rm
	if err := t.furnish(rm, s, was, again); err != nil {
		return "", err
	}
	return conv, t.enterWith(rm, in, s)
}

// begin finds or makes the conversation.
func (t *Turn) begin(in Entry) (core.ConvID, error) {
	conv, err := t.tx.ConversationNative(core.Matrix, in.RoomID)
	if err == nil {
		return conv, t.r.mirror.DropPreview(t.tx, conv)
	}
	if !errors.Is(err, hub.ErrNone) {
		return "", err
	}
	names := t.r.mirror.Names(t.tx)
	var creator core.Address
	for _, e := range in.State {
		if e.PDU.Type == wire.TypeCreate {
			if creator, err = names.Address(e.PDU.Sender); err != nil {
				return "", err
			}
		}
	}
	who, err := names.Address(in.Join.PDU.Sender)
	if err != nil {
		return "", err
	}
	return t.make(in.RoomID, in.Address, creator, who, in.Peer)
}

// make makes a conversation of a room: a direct where there is a peer. at is an
// alias under which it was found, zero for none.
func (t *Turn) make(roomID string, at, creator, who, peer core.Address) (core.ConvID, error) {
	c := core.Conversation{Shape: core.Group, Address: at, Creator: creator, Native: map[core.Network]string{core.Matrix: roomID}}
	if !peer.IsZero() {
		c.Shape, c.Address = core.Direct, core.Address{}
	}
	if !c.Address.IsZero() {
		if err := t.vacate(at); err != nil {
			return "", err
		}
	}
	c, err := t.Hub.Begin(c)
	if err != nil || peer.IsZero() {
		return c.ID, err
	}
	return c.ID, t.tx.PutDirect(c.ID, who, peer)
}

// furnish gives the hub the state in which a room is entered, or what has
// changed in it during an absence.
func (t *Turn) furnish(rm *room, s, was graph.State, again bool) error {
	var pieces []mirror.Piece
	var ids []string
	was.Diff(s, func(old, is *graph.Event) {
		pieces = append(pieces, piece(old, is))
		if is != nil {
			ids = append(ids, is.ID)
		}
	})
	slices.SortFunc(ids, func(a, b string) int { return order(rm.events[a], rm.events[b]) })
	for _, id := range ids {
		if _, err := t.ensure(rm, id, hub.Draft{Found: true, Aside: again}); err != nil {
			return err
		}
	}
	if !again {
		return t.replacePreview(rm, pieces)
	}
	return t.correct(rm, pieces, was)
}

// replacePreview is [Turn.correct] for a room of which at most a preview was
// known: what that said is no part of the state unless the room says so too.
func (t *Turn) replacePreview(rm *room, pieces []mirror.Piece) error {
	list, err := t.corrections(rm, pieces, graph.State{})
	if err != nil {
		return err
	}
	had, err := t.tx.State(rm.conv)
	if err != nil {
		return err
	}
	set := map[core.StateKey]bool{}
	for _, c := range list {
		set[c.StateKey()] = true
	}
	for k, id := range had.Events {
		if !set[k] {
			list = append(list, core.Correction{Kind: k.Kind, Key: k.Key, Was: id})
		}
	}
	for i := range pieces {
		pieces[i].Quiet = true
	}
	t.r.mirror.Correcting(t.tx, rm.conv, pieces)
	_, err = t.Hub.Correct(rm.conv, list)
	return err
}

// order is that in which state is shown: as it was made, as far as clocks tell.
func order(a, b *graph.Event) int {
	switch {
	case a.Type == wire.TypeCreate:
		return -1
	case b.Type == wire.TypeCreate:
		return 1
	case a.Time != b.Time:
		return int(min(max(a.Time-b.Time, -1), 1))
	}
	return 0
}

// enterWith makes the join the room's one end.
func (t *Turn) enterWith(rm *room, in Entry, s graph.State) error {
	rm.current, rm.ends, rm.joined = s, nil, map[string]int{}
	for e := range s.All() {
		if e.Membership() == "join" {
			rm.joined[serverOf(*e.StateKey)]++
		}
	}
	join := in.Join
	if join.Before = []string{}; len(join.PDU.PrevEvents) > 0 {
		for e := range s.All() {
			join.Before = append(join.Before, e.ID)
		}
	}
	e, err := t.link(rm, join.PDU, join.ViaSigned)
	if err != nil {
		return err
	}
	if err := t.note(rm, join.PDU, join.PDU.PrevEvents...); err != nil {
		return err
	}
	verdict, why := graph.Check(e, t.seen(rm, s, e), t.seen(rm, s, e))
	if verdict != graph.Accepted {
		return hub.Refuse(hub.Forbidden, "the room does not let you in: %v", why)
	}
	after := graph.After(s, e, verdict)
	group, err := t.group(rm, after, rm.group, s)
	if err != nil {
		return err
	}
	t.learn(rm, e)
	if err := t.put(rm, entry{pdu: join.PDU, verdict: accepted, prior: rm.group, state: group, viaSigned: join.ViaSigned, shown: true}); err != nil {
		return err
	}
	shown, err := t.apply(rm, join.PDU, e, s, hub.Draft{})
	if err != nil {
		return err
	}
	was := rm.head
	rm.ends, rm.depth = []string{e.ID}, join.PDU.Depth
	// Nobody's server was told anything so far, whatever the state says of ours.
	rm.current, rm.joined = graph.State{}, map[string]int{}
	if !in.Address.IsZero() {
		if err := t.address(rm.conv, in.Address); err != nil {
			return err
		}
	}
	return t.move(rm, was, after, group, shown.Feed)
}

// address notes that a room was found under an alias of another server.
func (t *Turn) address(conv core.ConvID, a core.Address) error {
	known, err := t.tx.ConversationAt(a)
	if err == nil && known == conv {
		return nil
	}
	if err := t.vacate(a); err != nil {
		return err
	}
	return t.tx.PutRoomAddress(a, conv, a)
}

// vacate takes an alias of another server, which leads to another room now, from
// the room to which it led. That one goes by its own name here from now on.
func (t *Turn) vacate(a core.Address) error {
	conv, err := t.tx.ConversationAt(a)
	if errors.Is(err, hub.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.tx.DeleteRoomAddress(a); err != nil {
		return err
	}
	c, err := t.tx.Conversation(conv)
	if err != nil || c.Address != a {
		return err
	}
	c.Address = core.LocalAddress(string(conv), t.r.hub.Home())
	if err := t.tx.PutConversation(c); err != nil {
		return err
	}
	return t.tx.PutRoomAddress(c.Address, conv, c.Creator)
}

// late is a join that another server has let in where one of ours had joined
// meanwhile: an event as any other.
func (t *Turn) late(conv core.ConvID, in Entry) error {
	if err := t.Cite(conv, slices.Concat(in.Auth, in.State)...); err != nil {
		return err
	}
	join := in.Join
	out, err := t.Accept(conv, join)
	if missing := (*MissingError)(nil); errors.As(err, &missing) {
		join.Before = []string{}
		for _, e := range in.State {
			join.Before = append(join.Before, e.PDU.EventID)
		}
		out, err = t.Accept(conv, join)
	}
	if err == nil && out.Verdict != graph.Accepted {
		err = hub.Refuse(hub.Forbidden, "the room does not let you in: %v", out.Why)
	}
	return err
}

// Complete adds members that were missing to a room that was entered with part
// of its state; last says that these are all. In such an order that an event
// comes after those it cites.
//
// spec: MX 1.19 SS §10
func (t *Turn) Complete(conv core.ConvID, events []Incoming, last bool) error {
	rm, err := t.room(conv)
	if err != nil {
		return err
	}
	if rm.partial == "" {
		return nil
	}
	if err := t.cite(rm, events); err != nil {
		return err
	}
	was := rm.head
	added := graph.State{}
	for _, in := range events {
		e := rm.events[in.PDU.EventID]
		if e == nil || e.Rejected || e.StateKey == nil || rm.current.Get(e.Type, *e.StateKey) != nil {
			continue
		}
		n, err := t.sql.Exec(`INSERT INTO shared_states (grp, type, state_key, event_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			rm.base, e.Type, *e.StateKey, e.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		if _, err := t.ensure(rm, e.ID, hub.Draft{Found: true}); err != nil {
			return err
		}
		added = added.With(e)
	}
	next := rm.current
	var pieces []mirror.Piece
	for e := range added.All() {
		next = next.With(e)
		pieces = append(pieces, piece(nil, e))
	}
	if err := t.correct(rm, pieces, rm.current); err != nil {
		return err
	}
	joined, parted := t.r.turnOut(&rm.head, next)
	if len(joined)+len(parted) > 0 {
		if err := t.r.cfg.Outbox.Peers(t.tx, conv, joined, parted, 0); err != nil {
			return err
		}
	}
	rm.current = next
	clear(rm.states) // all of them have more members now
	rm.states[rm.group] = next
	if last {
		rm.partial = ""
		t.forget(conv)
	}
	return t.saveHead(rm, was)
}
