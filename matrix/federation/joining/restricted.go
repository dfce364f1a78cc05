package joining

import (
	"errors"
	"net/http"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/wire"
)

// viaKey names who lets one into a restricted room.
const viaKey = "join_authorised_via_users_server"

// letIn finds who of ours lets a joiner into a restricted room; "" where nobody
// has to.
//
// spec: MX 1.19 SS §10.1
func (j *Joining) letIn(v hub.View, at place, user string) (string, error) {
	s := at.state
	restricted := at.version.Restricted && s.JoinRule == core.JoinRestricted ||
		at.version.KnockRestricted && s.JoinRule == core.JoinKnockRestricted
	names := j.cfg.Mirror.Names(v)
	who, err := names.Address(user)
	if err != nil {
		return "", invalid("%v", err)
	}
	if st := s.Standing(who); !restricted || st == core.Joined || st == core.Invited {
		return "", nil
	}
	if s.Standing(who) == core.Banned {
		return "", forbidden("%s is banned from this room.", user)
	}
	if err := j.meets(v, s, who); err != nil {
		return "", err
	}
	var best core.Member
	for _, m := range s.Joined() {
		id, _ := names.UserID(m.Address)
		if j.ours(serverOf(id)) && s.Level(m.Address) >= s.Levels.Invite &&
			(best.Address.IsZero() || s.Level(m.Address) > s.Level(best.Address)) {
			best = m
		}
	}
	if best.Address.IsZero() {
		return "", federation.Errorf(http.StatusBadRequest, "M_UNABLE_TO_GRANT_JOIN", "Nobody of this server may invite to the room; ask another one.")
	}
	id, _ := names.UserID(best.Address)
	return id, nil
}

// meets reports whether one is in a room whose members may join.
func (j *Joining) meets(v hub.View, s *core.State, who core.Address) error {
	unknown := false
	for _, id := range s.Allow {
		other, err := v.ConversationNative(core.Matrix, id)
		if errors.Is(err, hub.ErrNone) {
			unknown = true
			continue
		}
		if err != nil {
			return err
		}
		c, err := v.Conversation(other)
		if err != nil {
			return err
		}
		st, err := v.State(other)
		switch {
		case err != nil:
			return err
		case c.Authority != core.Here && !slices.ContainsFunc(st.Joined(), func(m core.Member) bool { return j.cfg.Hub.Hosts(m.Address.Domain) }):
			unknown = true // none of ours is there to see
		case st.Standing(who) == core.Joined:
			return nil
		}
	}
	if unknown {
		return federation.Errorf(http.StatusBadRequest, "M_UNABLE_TO_AUTHORISE_JOIN", "This server does not know all rooms whose members may join.")
	}
	return forbidden("One has to be invited to this room, or to be in a room whose members may join.")
}

// countersign signs a join for the one of ours who lets the joiner in, if she
// may come in that way.
//
// spec: MX 1.19 SS §10.1
func (j *Joining) countersign(v hub.View, a *arrival) error {
	content, err := wire.ParseObject(a.pdu.Content)
	if err != nil {
		return invalid("The content is no object.")
	}
	via, ok := content.String(viaKey)
	if !ok || !a.version.Restricted {
		return nil
	}
	a.via = true
	server := serverOf(via)
	if !j.ours(server) {
		return nil // that server has to have signed
	}
	if _, err := j.letIn(v, a.place, a.pdu.Sender); err != nil {
		return err
	}
	raw, err := a.pdu.Sign(wire.Signer{Server: server, Key: j.cfg.Signers[server]})
	if err != nil {
		return invalid("%v", err)
	}
	a.pdu, err = parseEvent(a.version, raw)
	return err
}
