package sync

import (
	"encoding/json"
	"errors"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	"parley/matrix/wire"
)

// roomBuild makes one room's part of an answer.
type roomBuild struct {
	*builder
	place hub.Place
	conv  core.ConvID
	id    string // Matrix room ID
	out   *roomAnswer

	// stay is the account's last stretch of membership.
	stay hub.Stay
	// from is where the client's knowledge of the timeline ends, to where what
	// the account may know of the state does.
	from, to rooms.Point
	// whole says that the client is told the room from scratch.
	whole bool
	// fresh says that the account came into the room after the token.
	fresh bool
	// had is up to where the client may have the timeline already; nil if it
	// has nothing.
	had *rooms.Point
	// readings are the members' positions that the client does not know.
	readings []hub.Reading

	slice rooms.Slice // the timeline, oldest first
	start rooms.Point // where the timeline begins
}

// build finds out in which list the room is, if it is in any.
func (r *roomBuild) build() error {
	switch r.place.Standing {
	case core.Joined:
		return r.joined()
	case core.Invited, core.Knocked:
		return r.outside()
	}
	return r.left()
}

// bounds reads where the client and the account stand in the timeline.
func (r *roomBuild) bounds() error {
	stays, err := r.v.Stays(r.conv, r.q.account)
	if err != nil {
		return err
	}
	if n := len(stays); n > 0 {
		r.stay, stays = stays[n-1], stays[:n-1]
	}
	edge, _, err := r.v.Edge(r.conv)
	if err != nil {
		return err
	}
	if r.to = rooms.Point(edge); r.q.initial() {
		r.whole = true
		return nil
	}
	if r.from, err = rooms.PointAt(r.v, r.conv, r.q.feed()); err != nil {
		return err
	}
	r.fresh = rooms.Point(r.stay.Joined) > r.from
	r.whole = r.fresh
	if !r.fresh {
		r.had = &r.from
	}
	// Who has come back may have what there was until she left.
	for _, st := range stays {
		if r.fresh && st.Joined != 0 && rooms.Point(st.Joined) <= r.from {
			at := min(r.from, rooms.Point(st.Left))
			r.had = &at
		}
	}
	return nil
}

// joined answers for a room in which the account is.
func (r *roomBuild) joined() error {
	happened := r.allChanged || r.changed[r.conv] || r.place.Feed > r.q.feed()
	if happened {
		if err := r.bounds(); err != nil {
			return err
		}
		if err := r.timeline(); err != nil {
			return err
		}
		if err := r.states(); err != nil {
			return err
		}
	}
	if err := r.ephemeral(); err != nil {
		return err
	}
	if err := r.accountData(); err != nil {
		return err
	}
	if r.out.quiet() && !r.whole {
		return nil
	}
	if r.out.Timeline == nil {
		if err := r.nothingNew(); err != nil {
			return err
		}
	}
	if err := r.counts(); err != nil {
		return err
	}
	put(&r.a.Rooms.Join, r.id, r.out)
	return nil
}

// quiet reports whether the room has nothing to tell.
func (a *roomAnswer) quiet() bool {
	return (a.Timeline == nil || len(a.Timeline.Events) == 0 && !a.Timeline.Limited) && a.Summary == nil &&
		listEmpty(a.State) && listEmpty(a.StateAfter) && a.Ephemeral == nil && a.AccountData == nil
}

func listEmpty(l *eventList) bool { return l == nil || len(l.Events) == 0 }

// nothingNew is the timeline and state of a room where only something else
// happened.
func (r *roomBuild) nothingNew() error {
	at, err := rooms.PointAt(r.v, r.conv, r.now.Feed)
	r.out.Timeline = &timeline{Events: []json.RawMessage{}, PrevBatch: at.String()}
	r.setState(nil)
	return err
}

func (r *roomBuild) setState(events []json.RawMessage) {
	if events == nil {
		events = []json.RawMessage{}
	}
	if r.q.after {
		r.out.StateAfter = &eventList{events}
	} else {
		r.out.State = &eventList{events}
	}
}

const (
	defaultTimeline = 10
	maxTimeline     = 200
)

// timeline reads the events since the token, or the newest ones.
func (r *roomBuild) timeline() error {
	f := &r.q.filter.Room.Timeline
	limit := defaultTimeline
	if f.Limit > 0 {
		limit = min(f.Limit, maxTimeline)
	}
	p := rooms.Page{
		Conv: r.conv, Viewer: mirror.Viewer{User: r.q.account, Device: r.q.device},
		Before: &r.to, Limit: limit, Filter: f, Own: r.own,
	}
	p.After = r.had
	var err error
	wanted := f.WantsRoom(r.id)
	if wanted {
		if r.slice, err = r.s.rooms.Collect(r.v, p); err != nil {
			return err
		}
	}
	slices.Reverse(r.slice.Events)
	switch {
	case !wanted:
		r.start = r.to // the state says it all
	case r.slice.More, r.had == nil:
		r.start = r.slice.End
	default:
		r.start = *r.had
	}
	if err := r.settle(); err != nil {
		return err
	}
	shown, err := r.show(r.slice.Events)
	if err != nil {
		return err
	}
	r.out.Timeline = &timeline{
		// One who has just come in may have an older timeline, to which this one
		// does not connect.
		Events: shown, Limited: wanted && (r.slice.More || r.fresh), PrevBatch: r.start.String(),
	}
	return nil
}

// own reports whether an event is about the account's own membership, of which
// it always may know.
func (r *roomBuild) own(e *core.Event) bool {
	m, ok := e.Content.(core.Membership)
	return ok && m.Target == r.q.account
}

// states tells the state: what the client cannot learn from the timeline.
//
// spec: MX 1.19 CS §7.6
func (r *roomBuild) states() error {
	set := newStateSet()
	var err error
	switch {
	case r.q.after:
		err = r.stateTo(set, r.to)
	default:
		if err = r.stateTo(set, r.start); err == nil {
			err = r.passedOver(set)
		}
	}
	if err != nil {
		return err
	}
	news, err := r.membershipNews()
	if err != nil {
		return err
	}
	corrected, err := r.membersCorrected()
	if err != nil {
		return err
	}
	var heroes []core.Address
	if len(news) > 0 || corrected || r.whole || r.q.full {
		if heroes, err = r.summary(news); err != nil {
			return err
		}
	}
	if r.q.filter.Room.State.LazyMembers {
		if err := r.lazily(set, heroes); err != nil {
			return err
		}
	}
	f := &r.q.filter.Room.State
	events := set.events(func(e mirror.Event) bool { return f.WantsRoom(r.id) && f.Wants(e.Type, e.Sender, e.Content) })
	shown, err := r.show(events)
	r.setState(shown)
	return err
}

// stateTo adds the state at a point: all of it, or what is not as the client
// knows it. Of a whole state, a client that loads its members lazily is told
// those that it needs by [roomBuild.lazily].
func (r *roomBuild) stateTo(set *stateSet, at rooms.Point) error {
	var events []mirror.Event
	var err error
	switch {
	case (r.whole || r.q.full) && r.q.filter.Room.State.LazyMembers:
		events, err = r.s.mirror.StateBut(r.v, r.conv, core.Position(at), wire.TypeMember)
	case r.whole || r.q.full:
		if at == r.to && r.place.Standing == core.Joined {
			events, err = r.s.mirror.State(r.v, r.conv)
		} else {
			events, err = r.s.mirror.StateAt(r.v, r.conv, core.Position(at))
		}
	case at > r.from:
		events, err = r.s.mirror.StateChanged(r.v, r.conv, core.Position(r.from), core.Position(at))
	}
	for _, e := range events {
		set.put(e)
	}
	return err
}

// passedOver adds what lies in the stretch of the timeline and is not shown
// there, because of the filter or because the account may not read it there:
// the state is hers to know all the same.
func (r *roomBuild) passedOver(set *stateSet) error {
	if !r.slice.Hidden || r.start >= r.to {
		return nil
	}
	changed, err := r.s.mirror.StateChanged(r.v, r.conv, core.Position(r.start), core.Position(r.to))
	if err != nil {
		return err
	}
	shown := newStateSet()
	for _, e := range r.slice.Events {
		if e.StateKey != nil {
			shown.put(e)
		}
	}
	for _, e := range changed {
		if !shown.has(keyOf(e)) {
			set.put(e)
		}
	}
	return nil
}

// maxNews is how many of the newest memberships are looked at.
const maxNews = 50

// membershipNews are the newest of the events by which somebody came, went or
// changed how she appears since the token.
func (r *roomBuild) membershipNews() ([]core.Event, error) {
	q := hub.Query{Conv: r.conv, Kinds: []core.Kind{core.KindMembership}, Latest: true, Limit: maxNews}
	if !r.q.initial() {
		q = r.from.Within(q)
	}
	return r.v.Page(q)
}

// membersCorrected reports whether since the token members became others though
// nobody did anything: where branches of a room met, or because they became
// known.
func (r *roomBuild) membersCorrected() (bool, error) {
	q := hub.Query{Conv: r.conv, Kinds: []core.Kind{core.KindChange}, Latest: true, Limit: maxNews}
	if r.q.initial() {
		return false, nil
	}
	changes, err := r.v.Page(r.from.Within(q))
	if err != nil {
		return false, err
	}
	return len(changes) == maxNews || slices.ContainsFunc(changes, func(e core.Event) bool {
		c, _ := e.Content.(core.Change)
		return slices.ContainsFunc(c.Corrected, func(c core.Correction) bool { return c.Kind == string(core.KindMembership) })
	}), nil
}

// accountData is what the account notes down about the room. One who has just
// come in gets all of it.
func (r *roomBuild) accountData() error {
	f := &r.q.filter.Room.AccountData
	data := r.data[r.conv]
	if r.fresh {
		all, err := r.v.Data(r.q.account, 0)
		if err != nil {
			return err
		}
		data = slices.DeleteFunc(all, func(d hub.Datum) bool { return d.Conv != r.conv })
	}
	var out []json.RawMessage
	for _, d := range data {
		if !f.WantsType(d.Type) || !f.WantsRoom(r.id) || foreign(d.Type) || d.Data == nil && r.whole {
			continue
		}
		content := json.RawMessage(d.Data)
		if content == nil {
			content = json.RawMessage("{}")
		}
		e, err := event(d.Type, content, "")
		if err != nil {
			return err
		}
		out = append(out, e)
	}
	r.out.AccountData = eventsOf(out)
	return nil
}

// left answers for a room that the account has left, once; and on request at
// the beginning.
func (r *roomBuild) left() error {
	fresh := !r.q.initial() && r.place.Feed > r.q.feed()
	if !fresh && (!r.q.filter.Room.IncludeLeave || !r.q.initial() && !r.q.full) {
		return nil
	}
	if gone, err := r.forgotten(); err != nil || gone {
		return err
	}
	if err := r.bounds(); err != nil {
		return err
	}
	if r.stay == (hub.Stay{}) {
		return nil // banned without ever having been there
	}
	// Of what came after she left she hears no more than of her own membership.
	r.to = rooms.Point(r.place.Since)
	if r.stay.Joined == 0 {
		r.whole, r.had = true, nil // a declined invitation: nothing is known of the room
	}
	if err := r.timeline(); err != nil {
		return err
	}
	r.to = min(r.to, rooms.Point(r.stay.Left))
	if err := r.leftState(); err != nil {
		return err
	}
	if err := r.accountData(); err != nil {
		return err
	}
	put(&r.a.Rooms.Leave, r.id, r.out)
	return nil
}

// leftState is the state of a room as it was when the account left.
func (r *roomBuild) leftState() error {
	if r.stay.Joined == 0 {
		r.setState(nil)
		return nil
	}
	set := newStateSet()
	err := r.stateTo(set, r.to)
	if !r.q.after {
		set = newStateSet()
		if err = r.stateTo(set, min(r.start, r.to)); err == nil {
			err = r.passedOver(set)
		}
	}
	if err != nil {
		return err
	}
	if r.q.filter.Room.State.LazyMembers {
		if err := r.lazily(set, nil); err != nil {
			return err
		}
	}
	f := &r.q.filter.Room.State
	shown, err := r.show(set.events(func(e mirror.Event) bool { return f.Wants(e.Type, e.Sender, e.Content) }))
	r.setState(shown)
	return err
}

func (r *roomBuild) forgotten() (bool, error) {
	d, err := rooms.Forgotten(r.v, r.q.account, r.place)
	return d, err
}

// shownToInvited is the state that one sees who is invited.
//
// spec: MX 1.19 CS §7.3
var shownToInvited = []string{
	wire.TypeCreate, wire.TypeJoinRules, "m.room.name", "m.room.avatar", "m.room.topic", "m.room.canonical_alias", "m.room.encryption",
}

// outside answers for a room to which the account is invited, or on whose door
// it knocks.
func (r *roomBuild) outside() error {
	if !r.q.initial() && r.place.Feed <= r.q.feed() && !r.q.full {
		return nil
	}
	own, err := r.s.mirror.StateEvent(r.v, r.conv, wire.TypeMember, r.q.userID)
	if err != nil {
		return err
	}
	if own.Sender != r.q.userID {
		by, err := r.names.Address(own.Sender)
		if err == nil && r.blocks1(by) {
			return nil
		}
	}
	list, err := r.stripped(own)
	if err != nil {
		return err
	}
	list.Events = append(list.Events, mirror.Stripped(own))
	if r.place.Standing == core.Knocked {
		r.out.KnockState = list
		put(&r.a.Rooms.Knock, r.id, r.out)
		return nil
	}
	r.out.InviteState = list
	put(&r.a.Rooms.Invite, r.id, r.out)
	return nil
}

// stripped is what one sees of a room that one is not in: what the server said
// that offered it, where that is all that is known, and else of its state.
func (r *roomBuild) stripped(own mirror.Event) (*eventList, error) {
	list := &eventList{Events: []json.RawMessage{}}
	preview, err := r.s.mirror.Preview(r.v, r.conv)
	if err != nil {
		return nil, err
	}
	if preview != nil {
		for _, raw := range preview {
			if e, ok := stripOther(raw, r.q.userID); ok {
				list.Events = append(list.Events, e)
			}
		}
		return list, nil
	}
	for _, typ := range shownToInvited {
		if err := r.strip(list, typ, ""); err != nil {
			return nil, err
		}
	}
	if own.Sender != r.q.userID {
		err = r.strip(list, wire.TypeMember, own.Sender)
	}
	return list, err
}

// stripOther leaves of a state event that another server has shown what a
// stripped one has. The account's own membership is known better.
func stripOther(raw []byte, userID string) (json.RawMessage, bool) {
	o, err := wire.ParseObject(raw)
	if err != nil {
		return nil, false
	}
	typ, isState := o.String("type")
	key, ok := o.String("state_key")
	_, hasSender := o.String("sender")
	if _, err := wire.ParseObject(o.Get("content")); !isState || !ok || !hasSender || err != nil || typ == wire.TypeMember && key == userID {
		return nil, false
	}
	out := wire.Object{}
	for _, k := range []string{"content", "sender", "state_key", "type"} {
		out = out.With(k, o.Get(k))
	}
	return out.JSON(), true
}

// strip adds one piece of the state, if it is set.
func (r *roomBuild) strip(list *eventList, typ, key string) error {
	e, err := r.s.mirror.StateEvent(r.v, r.conv, typ, key)
	if errors.Is(err, hub.ErrNone) {
		return nil
	}
	if err == nil {
		list.Events = append(list.Events, mirror.Stripped(e))
	}
	return err
}
