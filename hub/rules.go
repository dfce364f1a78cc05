package hub

import (
	"maps"
	"slices"

	"parley/core"
)

// judge is the verdict of the hub's own rules on e, given the state before it:
// Matrix event authorisation (room version 12) restated in core terms, and
// what every protocol here agrees on besides. It asks nobody and changes
// nothing. A property test replays what it admits through a library's event
// authorisation.
//
// spec: MX 1.19 RV v12
func judge(s *core.State, e *core.Event) error {
	if c, ok := e.Content.(core.Change); ok && c.Aspect == core.AspectCreated {
		if len(s.Events) > 0 {
			return Refuse(Forbidden, "the conversation exists already")
		}
		return nil
	}
	if len(s.Events) == 0 {
		return Refuse(Forbidden, "the conversation does not exist yet")
	}
	if c, ok := e.Content.(core.Membership); ok {
		return judgeMembership(s, e.Sender, c)
	}
	if st := s.Standing(e.Sender); st != core.Joined {
		if st == core.Banned {
			return Refuse(Outcast, "you are banned from this room")
		}
		return Refuse(NotMember, "you are not in this room")
	}
	action, state := core.Action(e.Content)
	if have, need := s.Level(e.Sender), s.Needs(action, state); have < need {
		return Refuse(Forbidden, "this needs level %d, and you have %d", need, have)
	}
	if c, ok := e.Content.(core.Change); ok && c.Aspect == core.AspectLevels {
		return judgeLevels(s, e.Sender, c.Levels)
	}
	return nil
}

// judgeMembership has one rule for each standing that can be given.
//
// spec: MX 1.19 RV v12
func judgeMembership(s *core.State, sender core.Address, c core.Membership) error {
	switch c.Standing {
	case core.Joined:
		return judgeJoin(s, sender, c)
	case core.Invited:
		return judgeInvite(s, sender, c)
	case core.Knocked:
		return judgeKnock(s, sender, c)
	case core.Left:
		return judgeLeave(s, sender, c)
	case core.Banned:
		return judgeBan(s, sender, c)
	}
	return Refuse(Bad, "there is no standing %q", c.Standing)
}

func judgeJoin(s *core.State, sender core.Address, c core.Membership) error {
	if sender != c.Target {
		return Refuse(Forbidden, "nobody can make another join")
	}
	standing := s.Standing(sender)
	if standing == core.Banned {
		return Refuse(Outcast, "you are banned from this room")
	}
	// The creator joins right after the creation.
	if len(s.Members) == 0 && len(s.Events) == 1 && sender == s.Creator {
		return nil
	}
	if standing == core.Joined || standing == core.Invited && s.JoinRule != core.JoinPublic {
		return nil
	}
	// The specification lets one who knocked into a room that is public by
	// now; Dendrite's library does not. [Hub.Join] takes the knock back first.
	if standing == core.Knocked && s.JoinRule == core.JoinPublic {
		return Refuse(Forbidden, "take your request to join back first")
	}
	switch s.JoinRule {
	case core.JoinPublic:
		return nil
	case core.JoinRestricted, core.JoinKnockRestricted:
		if !c.Via.IsZero() && s.Standing(c.Via) == core.Joined && s.Level(c.Via) >= s.Levels.Invite {
			return nil
		}
	}
	return Refuse(MembersOnly, "you need an invitation to join this room")
}

func judgeInvite(s *core.State, sender core.Address, c core.Membership) error {
	if s.Standing(sender) != core.Joined {
		return Refuse(NotMember, "you are not in this room")
	}
	switch s.Standing(c.Target) {
	case core.Joined:
		return Refuse(Forbidden, "%s is in this room already", c.Target.Bare())
	case core.Banned:
		return Refuse(Forbidden, "%s is banned from this room", c.Target.Bare())
	}
	return needLevel(s, sender, levelOf(s, func(l core.Levels) int64 { return l.Invite }))
}

func judgeKnock(s *core.State, sender core.Address, c core.Membership) error {
	if s.JoinRule != core.JoinKnock && s.JoinRule != core.JoinKnockRestricted {
		return Refuse(Forbidden, "this room takes no requests to join")
	}
	if sender != c.Target {
		return Refuse(Forbidden, "nobody can knock for another")
	}
	switch s.Standing(sender) {
	case core.Banned:
		return Refuse(Outcast, "you are banned from this room")
	case core.Joined, core.Invited:
		return Refuse(Forbidden, "you need not knock")
	}
	return nil
}

func judgeLeave(s *core.State, sender core.Address, c core.Membership) error {
	target := s.Standing(c.Target)
	if sender == c.Target {
		switch target {
		case core.Joined, core.Invited, core.Knocked:
			return nil
		case core.Banned:
			return Refuse(Outcast, "you are banned from this room")
		}
		return Refuse(NotMember, "you are not in this room")
	}
	if s.Standing(sender) != core.Joined {
		return Refuse(NotMember, "you are not in this room")
	}
	if target == core.Banned {
		if err := needLevel(s, sender, levelOf(s, func(l core.Levels) int64 { return l.Ban })); err != nil {
			return err
		}
	}
	return above(s, sender, c.Target, levelOf(s, func(l core.Levels) int64 { return l.Kick }))
}

func judgeBan(s *core.State, sender core.Address, c core.Membership) error {
	if s.Standing(sender) != core.Joined {
		return Refuse(NotMember, "you are not in this room")
	}
	return above(s, sender, c.Target, levelOf(s, func(l core.Levels) int64 { return l.Ban }))
}

// levelOf reads one of the levels for acting on members. Before there are any
// levels, acting on others needs 50 and inviting nothing.
func levelOf(s *core.State, f func(core.Levels) int64) int64 {
	if !s.HasLevels {
		return f(core.DefaultLevels())
	}
	return f(s.Levels)
}

func needLevel(s *core.State, sender core.Address, need int64) error {
	if have := s.Level(sender); have < need {
		return Refuse(Forbidden, "this needs level %d, and you have %d", need, have)
	}
	return nil
}

// above asks for the level and that the target is strictly lower.
func above(s *core.State, sender, target core.Address, need int64) error {
	if err := needLevel(s, sender, need); err != nil {
		return err
	}
	if s.Level(target) >= s.Level(sender) {
		return Refuse(Forbidden, "%s stands as high as you or higher", target.Bare())
	}
	return nil
}

// judgeLevels holds a change of levels to the rule that nobody gives or takes
// more than she has, nor touches another who stands as high.
//
// spec: MX 1.19 RV v12
func judgeLevels(s *core.State, sender core.Address, next *core.Levels) error {
	if next == nil {
		return Refuse(Bad, "there are no levels in this")
	}
	if s.Creation.Supreme {
		for _, c := range s.Creation.Creators {
			if _, listed := next.Users[c]; listed {
				return Refuse(Bad, "a creator's level cannot be set")
			}
		}
	}
	if !s.HasLevels {
		return nil
	}
	have, old := s.Level(sender), s.Levels
	change := func(was, is int64) error {
		if was != is && (was > have || is > have) {
			return Refuse(Forbidden, "you cannot set a level from %d to %d with %d", was, is, have)
		}
		return nil
	}
	pairs := [][2]int64{
		{old.Ban, next.Ban}, {old.Kick, next.Kick}, {old.Invite, next.Invite}, {old.Redact, next.Redact},
		{old.Message, next.Message}, {old.State, next.State}, {old.Default, next.Default},
	}
	for _, a := range keys(old.Actions, next.Actions) {
		was, had := old.Actions[a]
		is, has := next.Actions[a]
		if had != has || was != is {
			if had && was > have || has && is > have {
				return Refuse(Forbidden, "you cannot change the level of %s", a)
			}
		}
	}
	pairs = append(pairs, [2]int64{old.Notify, next.Notify})
	for _, p := range pairs {
		if err := change(p[0], p[1]); err != nil {
			return err
		}
	}
	for _, u := range keys(old.Users, next.Users) {
		was, had := old.Users[u]
		is, has := next.Users[u]
		if had == has && was == is {
			continue
		}
		if had && u != sender && was >= have || has && is > have {
			return Refuse(Forbidden, "you cannot change the level of %s", u.Bare())
		}
		if had && was > have {
			return Refuse(Forbidden, "you cannot change the level of %s", u.Bare())
		}
	}
	return nil
}

// keys returns the keys of both maps, each once.
func keys[K comparable](a, b map[K]int64) []K {
	out := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}
