package rooms

import (
	"encoding/json"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

// Summary is a room as those see it who are not in it.
//
// spec: MX 1.19 CS §8.6
type Summary struct {
	RoomID     string   `json:"room_id"`
	Name       string   `json:"name,omitempty"`
	Topic      string   `json:"topic,omitempty"`
	Avatar     string   `json:"avatar_url,omitempty"`
	Alias      string   `json:"canonical_alias,omitempty"`
	Members    int      `json:"num_joined_members"`
	World      bool     `json:"world_readable"`
	Guests     bool     `json:"guest_can_join"`
	JoinRule   string   `json:"join_rule"`
	Type       string   `json:"room_type,omitempty"`
	Version    string   `json:"room_version,omitempty"`
	Encryption string   `json:"encryption,omitempty"`
	Allowed    []string `json:"allowed_room_ids,omitempty"`

	Membership string `json:"membership,omitempty"`
}

// SpaceRoom is a summary with what a space says of its rooms: stripped events.
type SpaceRoom struct {
	Summary
	Children []json.RawMessage `json:"children_state"`
}

// Space is what a server tells another of a room, which may be a space.
//
// spec: MX 1.19 SS §16
type Space struct {
	Room SpaceRoom `json:"room"`
	// Children are those of its rooms that the other may find; Inaccessible are
	// those that it may not.
	Children     []Summary `json:"children"`
	Inaccessible []string  `json:"inaccessible_children"`
}

// summarise reads a room's summary.
func (s *Rooms) summarise(v hub.View, id core.ConvID) (Summary, error) {
	c, err := v.Conversation(id)
	if err != nil {
		return Summary{}, err
	}
	state, err := v.State(id)
	if err != nil {
		return Summary{}, err
	}
	names := s.mirror.Names(v)
	sum := Summary{
		RoomID: c.Native[core.Matrix], Name: state.Name, Topic: state.Topic, Members: countJoined(state),
		World: state.Visibility == core.VisibleWorld, JoinRule: string(state.JoinRule),
		Type: state.Creation.Type, Version: state.Creation.Version, Allowed: state.Allow,
	}
	if !state.Main.IsZero() {
		sum.Alias = names.Alias(state.Main)
	}
	if state.Avatar != nil {
		if uri, ok := names.URI(*state.Avatar); ok {
			sum.Avatar = uri
		}
	}
	if state.Encryption != nil {
		sum.Encryption = state.Encryption.Scheme
	}
	return sum, nil
}

// countJoined counts without the sorting of [core.State.Joined].
func countJoined(state *core.State) (n int) {
	for _, m := range state.Members {
		if m.Standing == core.Joined {
			n++
		}
	}
	return n
}

// mayFind reports whether one may see a room's summary.
//
// spec: MX 1.19 CS §10.38.2
func (s *Rooms) mayFind(v hub.View, rm *room) (bool, error) {
	switch rm.mine {
	case core.Joined, core.Invited, core.Knocked:
		return true, nil
	case core.Banned:
		return false, nil
	}
	if rm.state.Visibility == core.VisibleWorld {
		return true, nil
	}
	switch rm.state.JoinRule {
	case core.JoinPublic, core.JoinKnock, core.JoinKnockRestricted:
		return true, nil
	case core.JoinRestricted:
		return joinedAny(v, rm.state.Allow, rm.who)
	}
	return false, nil
}

// roomSummary is what one may know of a room before joining.
//
// spec: MX 1.19 CS §8.7
func (s *Rooms) roomSummary(r *client.Request) (any, error) {
	var sum Summary
	unknown, idOrAlias := false, r.Var("roomIdOrAlias")
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, err := s.resolve(v, idOrAlias, r.Account)
		if err != nil {
			e, ok := errors.AsType[*client.Error](err)
			unknown = ok && e.Errcode == client.NotFound
			return err
		}
		ok, err := s.mayFind(v, rm)
		if err == nil && !ok {
			err = notFound("There is no such room.")
		}
		if err != nil {
			return err
		}
		if sum, err = s.summarise(v, rm.conv.ID); !r.Account.IsZero() {
			sum.Membership = string(rm.mine)
		}
		return err
	})
	if unknown {
		return s.summaryThere(r, idOrAlias, via(r))
	}
	return sum, err
}
