package joining

import (
	"context"
	"errors"
	"net/http"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
)

// Network implements [hub.Remote].
func (j *Joining) Network() core.Network { return core.Matrix }

// noneIs makes nothing of [hub.ErrNone].
func noneIs(err error) error {
	if errors.Is(err, hub.ErrNone) {
		return nil
	}
	return err
}

// Aliases finds the room to which an alias of another server leads, and servers
// that are in it. Package directory does.
type Aliases interface {
	Resolve(ctx context.Context, alias string) (roomID string, servers []string, err error)
}

// resolve asks for an alias, and says what came of it to people of any network.
//
// spec: MX 1.19 SS §10
func (j *Joining) resolve(ctx context.Context, alias string) (roomID string, servers []string, err error) {
	_, server, err := wire.ParseAlias(alias)
	if err != nil {
		return "", nil, hub.Refuse(hub.Bad, "%.300q is no room alias", alias)
	}
	roomID, servers, err = j.cfg.Aliases.Resolve(ctx, alias)
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case !ok:
		return roomID, servers, err
	case e.Status == http.StatusNotFound:
		return "", nil, hub.Refuse(hub.NotFound, "there is no room %.300s", alias)
	case federation.Missing(err):
		return "", nil, hub.Refuse(hub.NoServer, "there is no Matrix server %s", server)
	case e.Status == http.StatusBadGateway:
		return "", nil, hub.Refuse(hub.Unreachable, "%s cannot be reached", server)
	}
	return "", nil, hub.Refuse(hub.Unable, "%s does not say to which room %.300s leads", server, alias)
}

// alias spells the address of a room of another Matrix server.
func (j *Joining) alias(ctx context.Context, room core.Address) (alias string, known core.ConvID, err error) {
	err = j.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		if alias = j.cfg.Mirror.Names(v).Alias(room); alias == "" {
			return hub.Refuse(hub.NotFound, "there is no room %s", room.Bare())
		}
		known, err = v.ConversationAt(room)
		return noneIs(err)
	})
	return alias, known, err
}

// Enter implements [hub.Remote].
func (j *Joining) Enter(ctx context.Context, room core.Address, r hub.JoinRequest) (core.ConvID, error) {
	alias, _, err := j.alias(ctx, room)
	if err != nil {
		return "", err
	}
	return j.Join(ctx, alias, nil, r)
}

// Look implements [hub.Remote]. What is in a room is only known to who is in it,
// so it finds those in which one of ours is or was, or to which one was invited.
func (j *Joining) Look(ctx context.Context, _, room core.Address) (core.ConvID, error) {
	alias, known, err := j.alias(ctx, room)
	if err != nil || known != "" {
		return known, err
	}
	roomID, _, err := j.resolve(ctx, alias)
	if err != nil {
		return "", err
	}
	err = j.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		known, err = v.ConversationNative(core.Matrix, roomID)
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		err = hub.Refuse(hub.NotFound, "there is no room %s", room.Bare())
	}
	return known, err
}

// Older implements [hub.Remote].
func (j *Joining) Older(ctx context.Context, c core.Conversation, limit int) (bool, error) {
	if j.cfg.History == nil {
		return false, nil
	}
	return j.cfg.History.Older(ctx, c, limit)
}

// Join makes one a member of a room that is named by its ID or an alias. via are
// servers that are said to be in it. r.Conv is not looked at.
func (j *Joining) Join(ctx context.Context, idOrAlias string, via []string, r hub.JoinRequest) (core.ConvID, error) {
	a, way, err := j.find(ctx, idOrAlias, via, r.Who, join)
	if err != nil {
		return "", err
	}
	if way.here {
		r.Conv = way.conv
		_, err := j.cfg.Hub.Accept(ctx, r)
		return way.conv, err
	}
	a.member.Name, a.member.Reason, a.native = r.Name, r.Reason, r.Native
	if a.member.Name == "" {
		a.member.Name, a.member.Avatar = way.profile.Name, way.profile.Avatar
	}
	conv, err := j.enter(ctx, a, way)
	if err != nil || r.With == nil {
		return conv, err
	}
	return conv, j.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		s, err := tx.State(conv)
		if err != nil {
			return err
		}
		e, err := tx.Event(s.Members[r.Who].Event)
		if err != nil {
			return err
		}
		return r.With(tx, &e)
	})
}

// Knock asks to be invited to a room that is named by its ID or an alias.
func (j *Joining) Knock(ctx context.Context, idOrAlias string, via []string, who core.Address, reason string) (core.ConvID, error) {
	a, way, err := j.find(ctx, idOrAlias, via, who, knock)
	if err != nil {
		return "", err
	}
	a.member.Reason = reason
	if way.here {
		_, err := j.cfg.Hub.Submit(ctx, hub.Draft{Conv: way.conv, Sender: who, Content: a.member})
		return way.conv, err
	}
	a.member.Name, a.member.Avatar = way.profile.Name, way.profile.Avatar
	var conv core.ConvID
	err = j.detached(ctx, func(ctx context.Context) error {
		return j.byAny(ctx, a, way.servers, func(server string) (err error) {
			conv, err = j.knockBy(ctx, server, a)
			return err
		})
	})
	return conv, err
}

// Ask implements [hub.Remote]: it is one's own membership in a room that has to be
// asked for.
func (j *Joining) Ask(ctx context.Context, c core.Conversation, s *core.State, d hub.Draft) error {
	m, ok := d.Content.(core.Membership)
	k := map[core.Standing]*kind{core.Joined: join, core.Left: leave, core.Knocked: knock}[m.Standing]
	if !ok || m.Target != d.Sender || k == nil {
		return hub.ErrAsk
	}
	a := &asking{kind: k, roomID: c.Native[core.Matrix], who: d.Sender, member: m, native: d.Native}
	w := way{conv: c.ID}
	err := j.cfg.Hub.Read(ctx, func(v hub.View) error {
		a.userID, _ = j.cfg.Mirror.Names(v).UserID(d.Sender)
		known, err := j.known(v, &w, a.roomID, d.Sender)
		if err != nil {
			return err
		}
		others, err := j.cfg.Outbox.Servers(v, c.ID)
		w.servers = candidates(j.ours, known, others)
		return err
	})
	if err != nil {
		return err
	}
	switch k {
	case join:
		_, err = j.enter(ctx, a, w)
	case leave:
		err = j.depart(ctx, a, w)
	case knock:
		err = j.detached(ctx, func(ctx context.Context) error {
			return j.byAny(ctx, a, w.servers, func(server string) error {
				_, err := j.knockBy(ctx, server, a)
				return err
			})
		})
	}
	return err
}

// A server that has invited somebody asks hers first and knows it afterwards: one
// who follows at once may be there before it does.
const (
	fresh     = time.Minute
	lingering = 3 // times
)

// enter enters a room, once at a time for each of ours.
func (j *Joining) enter(ctx context.Context, a *asking, w way) (conv core.ConvID, err error) {
	err = j.detached(ctx, func(ctx context.Context) error {
		open, err := j.queue(ctx, door{a.roomID, a.userID, !w.here})
		if err != nil {
			return err
		}
		defer open()
		if conv, err = j.joined(ctx, a); err != nil || conv != "" {
			return err // by who was before us in the queue
		}
		for i := 0; ; i++ {
			err := j.byAny(ctx, a, w.servers, func(server string) (err error) {
				conv, err = j.enterBy(ctx, server, a, w.at)
				return err
			})
			if hub.CodeOf(err) != hub.Forbidden || i == lingering || time.Since(w.invited) > fresh {
				if err != nil && !errors.Is(err, store.ErrInDoubt) {
					j.retreat(ctx, a)
				}
				return err
			}
			if !pause(ctx, j.cfg.Linger<<i) {
				return ctx.Err()
			}
		}
	})
	return conv, err
}

// pause waits, unless ctx ends.
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

// joined is the conversation of a room in which one is already; "" if she is not.
func (j *Joining) joined(ctx context.Context, a *asking) (conv core.ConvID, err error) {
	err = j.cfg.Hub.Read(ctx, func(v hub.View) error {
		id, err := v.ConversationNative(core.Matrix, a.roomID)
		if err != nil {
			return noneIs(err)
		}
		s, err := v.State(id)
		if err == nil && s.Standing(a.who) == core.Joined {
			conv = id
		}
		return err
	})
	return conv, err
}

// queue waits until nobody else enters through the same door, and there is room.
func (j *Joining) queue(ctx context.Context, d door) (open func(), err error) {
	for {
		j.mu.Lock()
		wait := j.doors[d]
		if wait == nil {
			mine := make(chan struct{})
			j.doors[d] = mine
			j.mu.Unlock()
			open = func() {
				j.mu.Lock()
				delete(j.doors, d)
				j.mu.Unlock()
				close(mine)
			}
			break
		}
		j.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	leave := open
	select {
	case j.slots <- struct{}{}:
		return func() { <-j.slots; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// depart leaves a room in which none of ours is: an invitation is declined, a
// knock taken back. If no server takes it, it is so here alone: nobody has to keep
// an invitation because a server is gone.
//
// spec: MX 1.19 SS §13
func (j *Joining) depart(ctx context.Context, a *asking, w way) error {
	return j.detached(ctx, func(ctx context.Context) error {
		var pdu *wire.PDU
		err := j.byAny(ctx, a, w.servers, func(server string) (err error) {
			pdu, err = j.leaveBy(ctx, server, a)
			return err
		})
		if hub.CodeOf(err) != "" {
			pdu, err = j.alone(ctx, a, w.conv)
		}
		if err != nil {
			return err
		}
		return j.cfg.Rooms.Turn(ctx, func(t *shared.Turn) error { return t.Declined(w.conv, pdu) })
	})
}

// alone is a leave that no server has taken: it follows the event that it undoes,
// and is for clients here.
func (j *Joining) alone(ctx context.Context, a *asking, conv core.ConvID) (*wire.PDU, error) {
	var t template
	err := j.cfg.Hub.Read(ctx, func(v hub.View) error {
		e, err := j.cfg.Mirror.StateEvent(v, conv, wire.TypeMember, a.userID)
		if errors.Is(err, hub.ErrNone) {
			return hub.Refuse(hub.NotMember, "you are not in this room")
		}
		if err == nil {
			t = template{version: e.Version, prev: []string{e.EventID}, auth: []string{e.EventID}, depth: e.Depth + 1}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return j.build(ctx, a, &t)
}
