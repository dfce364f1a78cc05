package rooms

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

// The two types of account data in which the server has a say.
const (
	TypeDirect  = "m.direct"
	TypeIgnored = "m.ignored_user_list"
)

// Direct is an account's m.direct: what its clients wrote, and every direct
// conversation that the hub knows of, the current one of a pair first. What is
// in it that is no direct any more is what a client says of a group, and stays.
// written is the datum's content, nil for none.
//
// spec: MX 1.19 CS §10.23
func (s *Rooms) Direct(v hub.View, account core.Address, written []byte) (json.RawMessage, error) {
	lists := map[string][]string{}
	if len(written) > 0 {
		raw := map[string]json.RawMessage{}
		if err := json.Unmarshal(written, &raw); err != nil {
			return written, nil // not ours to mend
		}
		for user, list := range raw {
			var ids []string
			if json.Unmarshal(list, &ids) == nil {
				lists[user] = ids
			}
		}
	}
	places, err := v.Places(account)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.Peer.IsZero() || p.Standing != core.Joined && p.Standing != core.Invited {
			continue
		}
		id, err := roomIDOf(v, p.Conv)
		if err != nil {
			return nil, err
		}
		user := s.userID(v, p.Peer)
		has := slices.Contains(lists[user], id)
		switch {
		case id == "" || has && !p.Current:
		case p.Current:
			rest := slices.DeleteFunc(lists[user], func(other string) bool { return other == id })
			lists[user] = append([]string{id}, rest...)
		default:
			lists[user] = append(lists[user], id)
		}
	}
	if len(lists) == 0 {
		return nil, nil
	}
	return json.Marshal(lists)
}

// Ignored is an account's m.ignored_user_list: its block list, with what its
// clients wrote beside each user. Whole servers on the list have no form here.
//
// spec: MX 1.19 CS §10.29
func (s *Rooms) Ignored(v hub.View, account core.Address, written []byte) (json.RawMessage, error) {
	list, err := v.Blocks(account)
	if err != nil {
		return nil, err
	}
	content := object{}
	old, _ := ignoredUsers(written) // of what is malformed nothing is kept
	if len(written) > 0 && json.Unmarshal(written, &content) != nil {
		content = object{}
	}
	users := map[string]json.RawMessage{}
	for _, a := range list {
		if a.Name == "" {
			continue
		}
		id := s.userID(v, a)
		if users[id] = old[id]; users[id] == nil {
			users[id] = json.RawMessage("{}")
		}
	}
	if len(users) == 0 && len(written) == 0 {
		return nil, nil
	}
	content["ignored_users"] = users
	return json.Marshal(content)
}

func ignoredUsers(content []byte) (map[string]json.RawMessage, error) {
	var c struct {
		Users map[string]json.RawMessage `json:"ignored_users"`
	}
	if len(content) == 0 {
		return nil, nil
	}
	err := client.DecodeJSON(content, &c)
	return c.Users, err
}

// maxIgnored bounds the block list that a client sets.
const maxIgnored = 10_000

// SetIgnored makes the block list what a client's m.ignored_user_list says.
// Whole servers that are on it stay.
//
// spec: MX 1.19 CS §10.29
func (s *Rooms) SetIgnored(ctx context.Context, account core.Address, content []byte) error {
	users, err := ignoredUsers(content)
	if err != nil {
		return err
	}
	if len(users) > maxIgnored {
		return badParam("At most %d people can be ignored.", maxIgnored)
	}
	var block, unblock []core.Address
	err = s.hub.Read(ctx, func(v hub.View) error {
		have, err := v.Blocks(account)
		if err != nil {
			return err
		}
		want := map[core.Address]bool{}
		for id := range users {
			a, err := s.address(v, id)
			if err != nil {
				return err
			}
			if a != account { // nobody ignores herself
				want[a] = true
			}
		}
		for _, a := range have {
			if a.Name != "" && !want[a] {
				unblock = append(unblock, a)
			}
			delete(want, a)
		}
		block = slices.Collect(maps.Keys(want))
		return nil
	})
	if err != nil {
		return err
	}
	if len(block) > 0 {
		if err := s.hub.Block(ctx, account, block...); err != nil {
			return err
		}
	}
	if len(unblock) > 0 {
		return s.hub.Unblock(ctx, account, unblock...)
	}
	return nil
}
