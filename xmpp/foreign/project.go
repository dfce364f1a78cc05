package foreign

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
)

// applyTimeout bounds one word with the hub.
const applyTimeout = 30 * time.Second

func (o *occupancy) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(o.ctx), applyTimeout)
}

// apply tells the hub what the room has done, after all that was said before.
func (o *occupancy) apply(drafts ...hub.Draft) []core.Event {
	o.flush()
	ctx, cancel := o.timeout()
	defer cancel()
	events, err := o.s.Hub.Apply(ctx, drafts...)
	if err == nil {
		return events
	}
	if len(drafts) > 1 { // one that cannot be kept takes no other with it
		for _, d := range drafts {
			events = append(events, o.apply(d)...)
		}
		return events
	}
	o.s.Count.Count("foreign_dropped", "unreadable")
	if hub.CodeOf(err) == "" {
		o.s.Log.Error("applying what a room elsewhere did", "room", o.room.String(), "err", err)
	}
	return nil
}

// maxBatch is how many messages are applied in one turn at most.
const maxBatch = 64

// flush applies what was said and waits.
func (o *occupancy) flush() {
	if len(o.batch) == 0 {
		return
	}
	batch := o.batch
	o.batch = nil
	o.apply(batch...)
}

// state is the projection's, nil if there is none.
func (o *occupancy) state() (st *core.State) {
	if o.conv == "" {
		return nil
	}
	ctx, cancel := o.timeout()
	defer cancel()
	err := o.s.Hub.Read(ctx, func(v hub.View) (err error) {
		st, err = v.State(o.conv)
		return err
	})
	if err != nil {
		o.s.Log.Error("reading a room elsewhere", "room", o.room.String(), "err", err)
		return nil
	}
	return st
}

// project brings the projection in step with the room as it is when we have entered it; the first time it begins it.
func (o *occupancy) project() error {
	if err := o.loadNames(); err != nil {
		return err
	}
	for _, c := range o.occupants {
		o.name(c)
	}
	if o.conv == "" {
		return o.beginProjection()
	}
	st := o.state()
	if st == nil {
		return errors.New("the projection cannot be read")
	}
	drafts := o.changes(st)
	for a, m := range st.Members {
		if m.Standing == core.Joined && a != o.account && !o.present(a) {
			if _, noted := o.away[a]; !noted {
				o.away[a] = time.Now()
			}
		}
	}
	for _, c := range o.occupants {
		delete(o.away, c.address)
		m := st.Members[c.address]
		if c.address != o.account && (m.Standing != core.Joined || m.Nick != c.nick && !o.calledBy(c.address, m.Nick)) {
			drafts = append(drafts, o.membership(c))
		}
	}
	if m := st.Members[o.account]; m.Standing != core.Joined || m.Nick != o.self {
		drafts = append(drafts, o.ownJoin())
	}
	if len(drafts) > 0 && !o.applyAll(drafts) {
		return errors.New("the projection took none of the changes")
	}
	return nil
}

// applyAll applies many drafts in turns of a bounded length, so that others get theirs between them; false if none was taken.
func (o *occupancy) applyAll(drafts []hub.Draft) (some bool) {
	for part := range slices.Chunk(drafts, maxBatch) {
		if len(o.apply(part...)) > 0 {
			some = true
		}
	}
	return some
}

func (o *occupancy) loadNames() error {
	if o.ids != nil {
		return nil
	}
	o.ids = map[string]core.Address{}
	if o.conv == "" {
		return nil
	}
	ctx, cancel := o.timeout()
	defer cancel()
	return o.s.Hub.Read(ctx, func(v hub.View) (err error) {
		o.ids, err = occupants(v, o.conv)
		return err
	})
}

// beginProjection makes the conversation: the room as it is, and then our own joining.
func (o *occupancy) beginProjection() error {
	var initial []hub.Draft
	initial = append(initial, o.changes(core.NewState())...)
	initial = append(initial, hub.Draft{Content: core.Change{Aspect: core.AspectVisibility, Visibility: core.VisibleShared}})
	var members []hub.Draft
	for _, c := range o.occupants {
		if c.address != o.account {
			members = append(members, o.membership(c))
		}
	}
	first := min(len(members), maxBatch)
	if err := o.begun(append(initial, members[:first]...)); err != nil {
		return err
	}
	for i := range members {
		members[i].Conv = o.conv
	}
	o.applyAll(members[first:])
	if len(o.apply(o.ownJoin())) == 0 {
		return errors.New("the projection does not take its own account")
	}
	return nil
}

// begun makes the conversation with a first state, and notes which it is.
func (o *occupancy) begun(initial []hub.Draft) error {
	ctx, cancel := o.timeout()
	defer cancel()
	r := o.row
	c, err := o.s.Hub.Project(ctx, o.addr, initial, func(tx hub.Tx, c core.Conversation) error {
		r.conv = c.ID
		return r.keep(tx)
	})
	if err != nil {
		return err
	}
	o.conv = c.ID
	o.s.mu.Lock()
	o.s.convs[o.conv] = o
	o.s.mu.Unlock()
	return nil
}

func (o *occupancy) ownJoin() hub.Draft {
	return hub.Draft{
		Conv: o.conv, Sender: o.account, Content: core.Membership{Target: o.account, Standing: core.Joined, Name: o.self, Nick: o.self},
		With: func(tx hub.Tx, _ *core.Event) error { return o.row.keep(tx) },
	}
}

// changes are what the room says of itself that a state does not show.
func (o *occupancy) changes(st *core.State) (out []hub.Draft) {
	add := func(c core.Change) {
		out = append(out, hub.Draft{Conv: o.conv, Sender: o.addr, Content: c})
	}
	if l := o.wantedLevels(); !st.HasLevels || !sameLevels(l, st.Levels) {
		add(core.Change{Aspect: core.AspectLevels, Levels: &l})
	}
	rule := core.JoinPublic
	if o.about.members {
		rule = core.JoinInvite
	}
	if _, set := st.Events[core.StateKey{Kind: string(core.AspectJoinRule)}]; !set || st.JoinRule != rule {
		add(core.Change{Aspect: core.AspectJoinRule, JoinRule: rule})
	}
	name := o.about.name
	if name == "" {
		name = o.room.Local
	}
	if st.Name != name && (o.about.known || st.Name == "") {
		add(core.Change{Aspect: core.AspectName, Text: name})
	}
	return out
}

// reconfigured shows what has changed about the room.
//
// spec: XEP-0045 §10.2.1
func (o *occupancy) reconfigured() {
	o.describe(func(err error) {
		if err != nil || o.phase == outside {
			return
		}
		if st := o.state(); st != nil {
			if drafts := o.changes(st); len(drafts) > 0 {
				o.apply(drafts...)
			}
		}
	})
}

// topic shows the room's subject.
//
// spec: XEP-0045 §8.1
func (o *occupancy) topic(st *element.Element, nick string) {
	o.subject = st
	defer o.settle()
	text := clip(st.Child("", "subject").Text(), 10_000)
	if s := o.state(); s != nil && s.Topic != text {
		o.apply(hub.Draft{Conv: o.conv, Sender: o.by(nick), Content: core.Change{Aspect: core.AspectTopic, Text: text}})
	}
}

func sameLevels(a, b core.Levels) bool {
	return a.Ban == b.Ban && a.Kick == b.Kick && a.Invite == b.Invite && a.Redact == b.Redact && a.Message == b.Message &&
		a.State == b.State && a.Default == b.Default && a.Notify == b.Notify && maps.Equal(a.Actions, b.Actions) && maps.Equal(a.Users, b.Users)
}
