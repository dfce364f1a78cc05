package joining

import (
	"context"
	"slices"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

// way is how one gets into a room.
type way struct {
	// here says that one of ours is in it, so that it is decided here.
	here    bool
	conv    core.ConvID // where the room is known
	at      core.Address
	servers []string
	profile core.Profile
	// invited is when one was invited to it; zero if one is not.
	invited time.Time
}

// find makes up a request and finds whom to ask.
func (j *Joining) find(ctx context.Context, idOrAlias string, via []string, who core.Address, k *kind) (*asking, way, error) {
	var w way
	roomID, servers := idOrAlias, []string(nil)
	if strings.HasPrefix(idOrAlias, "#") {
		var err error
		if roomID, servers, err = j.resolve(ctx, idOrAlias); err != nil {
			return nil, w, err
		}
	}
	if err := wire.CheckRoomID(roomID); err != nil {
		return nil, w, hub.Refuse(hub.Bad, "%.300q is no room ID or alias", roomID)
	}
	a := &asking{kind: k, roomID: roomID, who: who, member: core.Membership{Target: who, Standing: core.Standing(k.membership)}}
	err := j.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		names := j.cfg.Mirror.Names(v)
		if idOrAlias != roomID {
			if w.at, err = names.RoomAddress(idOrAlias); err != nil || w.at.IsLocal() {
				return hub.Refuse(hub.NotFound, "there is no room %.300s", idOrAlias)
			}
		}
		if w.profile, err = v.Profile(who); err != nil {
			return err
		}
		known, err := j.known(v, &w, roomID, who)
		if w.servers = candidates(j.ours, via, servers, known); err != nil {
			return err
		}
		a.userID, _ = names.UserID(who)
		return nil
	})
	return a, w, err
}

// known fills in what is known of a room here, and returns the servers that may be
// in it.
func (j *Joining) known(v hub.View, w *way, roomID string, who core.Address) ([]string, error) {
	_, maker, _ := strings.Cut(roomID, ":")
	id, err := v.ConversationNative(core.Matrix, roomID)
	if err != nil {
		return []string{maker}, noneIs(err)
	}
	c, err := v.Conversation(id)
	if err != nil {
		return nil, err
	}
	s, err := v.State(id)
	if err != nil {
		return nil, err
	}
	w.conv, w.here = id, c.Authority != core.Graph || j.anyOurs(s)
	if m := s.Members[who]; m.Standing == core.Invited {
		e, err := v.Event(m.Event)
		if err != nil {
			return nil, err
		}
		w.invited = e.Time
	}
	return append(likely(c, s, who), maker), nil
}

func (j *Joining) anyOurs(s *core.State) bool {
	return slices.ContainsFunc(s.Joined(), func(m core.Member) bool {
		return m.Address.Network != core.Matrix || j.ours(m.Address.Domain)
	})
}

// likely are the servers that may be in a room, the best first: that of who
// invited one, those of members, by their level, and that of who made it.
func likely(c core.Conversation, s *core.State, who core.Address) []string {
	var out []string
	add := func(a core.Address) {
		if a.Network == core.Matrix && a.Domain != "" && !slices.Contains(out, a.Domain) {
			out = append(out, a.Domain)
		}
	}
	add(s.Members[who].By)
	joined := s.Joined()
	slices.SortStableFunc(joined, func(a, b core.Member) int {
		return int(min(max(s.Level(b.Address)-s.Level(a.Address), -1), 1))
	})
	for _, m := range joined {
		if add(m.Address); len(out) >= maxCandidates {
			break
		}
	}
	add(c.Creator)
	return out
}
