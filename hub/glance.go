package hub

import (
	"context"

	"parley/core"
)

// Glance is what a room on another server tells of itself to one who is not in
// it. Nobody says that it is true. What is not told is empty.
type Glance struct {
	Address     core.Address
	Name, Topic string
	Members     int
	JoinRule    core.JoinRule
	// Type is that of [core.Creation], Scheme how its members' clients encrypt.
	Type, Scheme string
}

// Glancer is a [Remote] that can ask for such a thing without anybody entering.
// A room that is known to exist and tells nothing has a Glance with its address
// alone.
type Glancer interface {
	Glance(ctx context.Context, who, room core.Address) (Glance, error)
}

// Glance asks a room on another server what it is like, on behalf of an account
// that has not entered it. It takes as long as the other server.
func (h *Hub) Glance(ctx context.Context, who, room core.Address) (Glance, error) {
	g, ok := h.remotes[room.Network].(Glancer)
	if !ok || h.ours(room) || !h.ours(who) {
		return Glance{}, Refuse(NotFound, "there is no room %s", room.Bare())
	}
	return g.Glance(ctx, who, room)
}

// Abroad reports whether it takes other servers to let an account into a
// conversation: it is elsewhere, or a graph that none of ours is in.
func (h *Hub) Abroad(v View, conv core.ConvID, who core.Address) (bool, error) {
	c, err := v.Conversation(conv)
	if err != nil || c.Authority == core.Here {
		return false, err
	}
	s, err := v.State(conv)
	if err != nil || s.Standing(who) == core.Joined {
		return false, err
	}
	if c.Authority == core.Elsewhere {
		return true, nil
	}
	switch s.JoinRule {
	case core.JoinRestricted, core.JoinKnockRestricted:
		return true, nil // perhaps
	}
	for _, m := range s.Members {
		if m.Standing == core.Joined && m.Address.Network != core.Matrix {
			return false, nil
		}
	}
	return true, nil
}
