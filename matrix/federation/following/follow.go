package following

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

const (
	// maxHops is how many rooms in a row are followed that each go on in the next.
	maxHops = 5
	// maxFirst is how many accounts in a row try to be the first in a room.
	maxFirst = 5
)

// move is a room that goes on in another.
type move struct {
	conv        core.ConvID
	event       core.EventID
	native      string
	server      string
	told        bool
	tries, hops int
	next        time.Time
	old         core.Conversation
	state       *core.State
	sender      core.Address
	there       core.ConvID // the other room, where it is known
	around      []string    // servers that may be in it
	entered     []core.Address
}

// read reads what is to be done about a room; nil if nothing is.
func (f *Following) read(ctx context.Context, conv core.ConvID) (m *move, err error) {
	err = f.cfg.Hub.Read(ctx, func(v hub.View) error {
		r := move{conv: conv}
		var event string
		var told, tries, hops, next int64
		err := hubstore.Querier(v).QueryRow(`SELECT event, native, server, told, tries, hops, next FROM following_moves WHERE conv = $1`,
			string(conv)).Scan(&event, &r.native, &r.server, &told, &tries, &hops, &next)
		if store.NotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		r.event, r.told, r.tries, r.hops, r.next = core.EventID(event), told == 1, int(tries), int(hops), time.UnixMilli(next)
		if r.old, err = v.Conversation(conv); err != nil {
			return err
		}
		if r.state, err = v.State(conv); err != nil {
			return err
		}
		e, err := v.Event(r.event)
		if err != nil {
			return err
		}
		r.sender = e.Sender
		if r.there, err = v.ConversationNative(core.Matrix, r.native); none(err) != nil {
			return err
		}
		others, err := f.cfg.Servers(v, conv)
		if r.server != "" {
			r.around = append(r.around, r.server)
		}
		r.around = append(r.around, others...)
		m = &r
		return err
	})
	return m, err
}

// follow does what is to be done about a room, and waits where that is not yet.
func (f *Following) follow(ctx context.Context, conv core.ConvID) {
	for ctx.Err() == nil {
		m, err := f.read(ctx, conv)
		if err == nil && m != nil && m.state.Events[core.StateKey{Kind: string(core.AspectMovedTo)}] != m.event {
			m, err = f.readAgain(ctx, conv)
		}
		if err == nil && m == nil {
			return
		}
		if err == nil {
			if !pause(ctx, time.Until(m.next)) {
				return
			}
			err = f.round(ctx, m)
		}
		if err != nil && ctx.Err() == nil {
			f.cfg.Log.Error("following a room that goes on elsewhere", "conversation", conv, "err", err)
			if !pause(ctx, time.Minute) {
				return
			}
		}
	}
}

// readAgain is read where the state does not have the event: woken while the event
// is committed, one may find it on disk before readers are shown the state that it
// made. After a turn of one's own they are.
func (f *Following) readAgain(ctx context.Context, conv core.ConvID) (*move, error) {
	if err := f.cfg.Hub.Write(ctx, func(hub.Tx) error { return nil }); err != nil {
		return nil, err
	}
	return f.read(ctx, conv)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// round brings everybody over whom the other room lets in. Clients are told when
// it is over, or have waited long enough.
func (f *Following) round(ctx context.Context, m *move) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if set := m.state.Events[core.StateKey{Kind: string(core.AspectMovedTo)}]; set != m.event {
		return f.instead(ctx, m, set)
	}
	if !m.told {
		enough := time.AfterFunc(f.cfg.Wait, func() {
			if err := f.tell(ctx, m); err != nil && ctx.Err() == nil {
				f.cfg.Log.Error("telling where a room goes on", "conversation", m.conv, "err", err)
			}
		})
		defer enough.Stop()
	}
	missing, err := f.bring(ctx, m)
	if errors.Is(err, errOther) {
		f.cfg.Log.Info("a room says that it goes on in one that does not say so", "room", m.old.Native[core.Matrix], "other", m.native)
		return f.over(ctx, m)
	}
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if err := f.further(ctx, m); err != nil {
		return err
	}
	if !missing || m.tries >= len(f.cfg.Retries) {
		return f.over(ctx, m)
	}
	if err := f.tell(ctx, m); err != nil {
		return err
	}
	return f.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		_, err := hubstore.Tx(tx).Exec(`UPDATE following_moves SET tries = $3, next = $4 WHERE conv = $1 AND event = $2`,
			string(m.conv), string(m.event), int64(m.tries+1), time.Now().Add(f.cfg.Retries[m.tries]).UnixMilli())
		return err
	})
}

// instead looks at what says where the room goes on in place of the event that did
// when it was kept, if anything does.
func (f *Following) instead(ctx context.Context, m *move, set core.EventID) error {
	if set == "" {
		return f.over(ctx, m)
	}
	return f.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		e, err := tx.Event(set)
		if err == nil {
			err = f.forget(tx, m.conv)
		}
		if err != nil {
			return err
		}
		return f.note(tx, &m.old, m.state, &e, m.hops)
	})
}

// tell lets those be told who wait for where the room goes on, once.
func (f *Following) tell(ctx context.Context, m *move) error {
	var first bool
	err := f.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		n, err := hubstore.Tx(tx).Exec(`UPDATE following_moves SET told = 1 WHERE conv = $1 AND event = $2 AND told = 0`,
			string(m.conv), string(m.event))
		first = n > 0
		return err
	})
	if err != nil || !first {
		return err
	}
	return f.cfg.Hub.Retell(ctx, m.event)
}

// over ends it.
func (f *Following) over(ctx context.Context, m *move) error {
	if err := f.tell(ctx, m); err != nil {
		return err
	}
	return f.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		_, err := hubstore.Tx(tx).Exec(`DELETE FROM following_moves WHERE conv = $1 AND event = $2`, string(m.conv), string(m.event))
		return err
	})
}

// errOther says that the other room is none in which this one goes on.
var errOther = errors.New("the room does not name the other one as its predecessor")

// bring brings over everybody whom the other room lets in. missing says that
// somebody was not let in.
func (f *Following) bring(ctx context.Context, m *move) (missing bool, err error) {
	all := f.followers(m.state)
	for i, who := range all {
		if ctx.Err() != nil {
			return true, ctx.Err()
		}
		wants, err := f.wants(ctx, m, who)
		if err != nil {
			return false, err
		}
		if !wants {
			continue
		}
		err = f.enter(ctx, m, who)
		switch {
		case errors.Is(err, errOther):
			return false, err
		case hub.CodeOf(err) != "":
			f.cfg.Log.Info("an account is not let into the room in which its own goes on", "account", who, "room", m.native, "err", err)
			missing = true
			if m.there == "" && i+1 >= maxFirst {
				return true, nil // the others would not fare better
			}
		case err != nil:
			return false, err
		}
	}
	return missing, nil
}

// wants says whether somebody is to be brought over: she is still in the one room,
// and not in the other, which she has not left either.
func (f *Following) wants(ctx context.Context, m *move, who core.Address) (wants bool, err error) {
	err = f.cfg.Hub.Read(ctx, func(v hub.View) error {
		s, err := v.State(m.conv)
		if err != nil || s.Standing(who) != core.Joined {
			return err
		}
		if m.there == "" {
			if m.there, err = v.ConversationNative(core.Matrix, m.native); m.there == "" {
				wants = none(err) == nil
				return none(err)
			}
		}
		if s, err = v.State(m.there); err != nil {
			return err
		}
		is, been := s.Members[who]
		wants = !been || is.Standing == core.Invited || is.Standing == core.Left && is.By != who
		return nil
	})
	return wants, err
}

// enter brings one account over. In a room here that is not open to it, who says
// that the room goes on there invites it, if that one may.
func (f *Following) enter(ctx context.Context, m *move, who core.Address) error {
	if m.there != "" {
		if err := f.check(ctx, m); err != nil {
			return err
		}
	}
	r := hub.JoinRequest{Who: who}
	there, err := f.cfg.Door.Join(ctx, m.native, m.around, r)
	if code := hub.CodeOf(err); (code == hub.MembersOnly || code == hub.Forbidden) && m.there != "" && m.sender.IsLocal() {
		_, err = f.cfg.Hub.Submit(ctx, hub.Draft{Conv: m.there, Sender: m.sender, Content: core.Membership{Target: who, Standing: core.Invited}})
		if err == nil {
			there, err = f.cfg.Door.Join(ctx, m.native, m.around, r)
		}
	}
	if err != nil {
		return err
	}
	if m.there = there; len(m.entered) == 0 {
		if err := f.check(ctx, m); err != nil {
			_, left := f.cfg.Hub.Submit(ctx, hub.Draft{Conv: there, Sender: who, Content: core.Membership{Target: who, Standing: core.Left}})
			return errors.Join(err, left)
		}
	}
	m.entered = append(m.entered, who)
	return nil
}

// check holds the other room to what it says of itself, as far as that is known
// here already.
//
// spec: MX 1.19 CS §10.34.1
func (f *Following) check(ctx context.Context, m *move) error {
	return f.cfg.Hub.Read(ctx, func(v hub.View) error {
		e, err := f.cfg.Mirror.StateEvent(v, m.there, wire.TypeCreate, "")
		if errors.Is(err, hub.ErrNone) {
			return nil // it was an invitation: nothing is known
		}
		if err != nil {
			return fmt.Errorf("how %s was made: %w", m.native, err)
		}
		o, err := wire.ParseObject(e.Content)
		if err != nil {
			return errOther
		}
		p, err := wire.ParseObject(o.Get("predecessor"))
		if err != nil {
			return errOther
		}
		if id, _ := p.String("room_id"); id != m.old.Native[core.Matrix] {
			return errOther
		}
		return nil
	})
}

// further follows on where the other room has gone on itself meanwhile: those who
// were brought into it were not there when that was said.
func (f *Following) further(ctx context.Context, m *move) error {
	if len(m.entered) == 0 || m.hops+1 >= maxHops {
		return nil
	}
	return f.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		c, err := tx.Conversation(m.there)
		if err != nil {
			return err
		}
		s, err := tx.State(m.there)
		if err != nil || s.MovedTo == nil || !slices.ContainsFunc(m.entered, func(a core.Address) bool { return s.Standing(a) == core.Joined }) {
			return err
		}
		e, err := tx.Event(s.Events[core.StateKey{Kind: string(core.AspectMovedTo)}])
		if err != nil {
			return none(err)
		}
		return f.note(tx, &c, s, &e, m.hops+1)
	})
}
