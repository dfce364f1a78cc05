package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"parley/core"
)

func compareAddresses(a, b core.Address) int { return strings.Compare(a.String(), b.String()) }

// membership fills in what the hub decides about a membership: the name by
// which the person appears, and the stable nick that is hers alone.
func (t *turn) membership(p place, e *core.Event, c core.Membership) (core.Membership, error) {
	if c.Target.IsZero() {
		return c, Refuse(Bad, "a membership needs a person")
	}
	was := p.s.Members[c.Target]
	c.Before, c.OldNick = p.s.Standing(c.Target), was.Nick
	if c.Standing != core.Joined && c.Standing != core.Invited {
		c.Nick = was.Nick
		return c, nil
	}
	if c.Standing == core.Joined && p.s.Standing(c.Target) != core.Joined &&
		len(p.s.Members) >= t.h.cfg.MaxMembers {
		return c, Refuse(TooMany, "this room is full")
	}
	if c.Standing == core.Invited {
		if err := t.mayBeInvited(p, e.Sender, c.Target); err != nil {
			return c, err
		}
	}
	if c.Name == "" && e.Native == nil {
		if c.Name, c.Avatar = was.Name, was.Avatar; c.Name == "" {
			profile, err := t.tx.Profile(c.Target)
			if err != nil {
				return c, err
			}
			c.Name, c.Avatar = profile.Name, profile.Avatar
		}
	}
	if c.Nick != "" {
		if holder, taken := nickHolder(p.s, c.Nick); taken && holder != c.Target {
			return c, Refuse(Conflict, "somebody else is called %s here", c.Nick)
		}
		return c, nil
	}
	c.Nick = chooseNick(p.s, c.Target, was.Nick, c.Name)
	return c, nil
}

// mayBeInvited asks whether the invited one exists and wants to hear of it.
func (t *turn) mayBeInvited(p place, by, target core.Address) error {
	if !t.h.ours(target) {
		if t.h.carriers[target.Network] == nil {
			return Refuse(Unable, "this server does not reach %s", target.Bare())
		}
		return nil
	}
	return t.h.Invitable(t.tx, by, target)
}

// Invitable asks whether one who lives here may be invited by another: whether
// she is here, and wants to hear of it.
func (h *Hub) Invitable(v View, by, target core.Address) error {
	if a, err := v.Account(target); err != nil || a.Disabled {
		if err != nil && !errors.Is(err, ErrNone) {
			return err
		}
		return Refuse(NotFound, "there is no account %s", target.Bare())
	}
	if by == target {
		return nil
	}
	blocked, err := h.blocks.has(v, target, by)
	if err != nil {
		return err
	}
	if blocked {
		return Refuse(Blocked, "%s takes no messages from you", target.Bare())
	}
	known, policy, err := h.stranger(v, target, by)
	if err == nil && !known && policy == core.Refuse {
		err = Refuse(Forbidden, "%s takes no messages from people who are not among her contacts", target.Bare())
	}
	return err
}

func (t *turn) stranger(account, a core.Address) (known bool, policy core.Strangers, err error) {
	return t.h.stranger(t.tx, account, a)
}

// stranger reports whether account knows a, and what it wants done with those
// whom it does not know.
func (h *Hub) stranger(v View, account, a core.Address) (known bool, policy core.Strangers, err error) {
	acc, err := v.Account(account)
	if err != nil {
		return false, "", err
	}
	c, found, err := none(v.Contact(account, a))
	if err != nil {
		return false, "", err
	}
	policy = acc.Strangers
	if policy == "" {
		policy = h.cfg.Strangers
	}
	if found && (c.Listed || c.Sees || c.Approved) || a.Domain == account.Domain && a.Name == "parley" {
		return true, policy, nil
	}
	known, err = roommates(v, account, a)
	return known, policy, err
}

// nickHolder finds who has a nick, compared without case.
func nickHolder(s *core.State, nick string) (core.Address, bool) {
	for _, m := range s.Members {
		if (m.Standing == core.Joined || m.Standing == core.Invited) && strings.EqualFold(m.Nick, nick) {
			return m.Address, true
		}
	}
	return core.Address{}, false
}

// chooseNick keeps the nick that one had, or else makes one of the name, told
// apart by the server's name and then by a number.
func chooseNick(s *core.State, who core.Address, had, name string) string {
	return chooseFree(func(nick string) bool {
		holder, taken := nickHolder(s, nick)
		return !taken || holder == who
	}, who, had, name)
}

func chooseFree(free func(nick string) bool, who core.Address, had, name string) string {
	if name == "" {
		name = who.Name
	}
	if r := []rune(name); len(r) > 60 {
		name = string(r[:60])
	}
	try := []string{had, name, fmt.Sprintf("%s (%s)", name, who.Domain)}
	for i := 0; ; i++ {
		nick := fmt.Sprintf("%s (%s %d)", name, who.Domain, i)
		if i < len(try) {
			nick = try[i]
		}
		if nick != "" && free(nick) {
			return nick
		}
	}
}

// afterMembership does what a changed membership brings with it before others
// are told.
func (t *turn) afterMembership(p *place, before *core.State, e *core.Event, c core.Membership) error {
	switch {
	case c.Standing == core.Invited && p.c.Shape == core.Direct:
		return t.third(p, c)
	case c.Standing == core.Left && p.c.Shape == core.Direct && e.Sender == c.Target &&
		before.Standing(c.Target) == core.Invited && t.h.ours(c.Target):
		return t.declined(c.Target, before.Members[c.Target].By)
	case c.Standing == core.Banned:
		if err := t.tx.DeleteAffiliation(e.Conv, c.Target); err != nil {
			return err
		}
	}
	if e.Sender == c.Target {
		if err := t.answeredMatrix(p, before, c); err != nil {
			return err
		}
	}
	if p.c.Temporary && (c.Standing == core.Left || c.Standing == core.Banned) && len(p.s.Joined()) == 0 {
		return t.end(p)
	}
	return nil
}

// third makes a direct a group when one who is not of the pair is invited.
func (t *turn) third(p *place, c core.Membership) error {
	pair := 0
	for _, m := range p.s.Members {
		if m.Standing == core.Joined || m.Standing == core.Invited {
			pair++
		}
	}
	if pair <= 2 {
		return nil
	}
	if err := t.tx.EndDirect(p.c.ID); err != nil {
		return err
	}
	p.c.Shape = core.Group
	p.c.Address = core.LocalAddress(string(p.c.ID), t.h.domainOf(p.c.Creator))
	if err := t.tx.PutConversation(*p.c); err != nil {
		return err
	}
	return t.tx.PutRoomAddress(p.c.Address, p.c.ID, p.c.Creator)
}

// domainOf is the domain of ours under which a's rooms are made.
func (h *Hub) domainOf(a core.Address) string {
	if h.ours(a) {
		return a.Domain
	}
	return h.Home()
}

// end closes a temporary conversation: nothing leads to it any more.
func (t *turn) end(p *place) error {
	addresses, err := t.tx.RoomAddresses(p.c.ID)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := t.tx.DeleteRoomAddress(a); err != nil {
			return err
		}
	}
	return t.tx.SetPublic(p.c.ID, false)
}

// JoinRequest asks to join. Who joined already is told so by the event that
// stands, unless the request gives her another nick or name.
type JoinRequest struct {
	Conv core.ConvID
	Who  core.Address
	// Nick is the nick that she wants: exactly that, or none is a choice.
	Nick   string
	Name   string
	Reason string
	Native *core.Native
	From   string
	With   func(tx Tx, e *core.Event) error
}

// Join makes one a member. It uses her right to return, where she has one, and
// finds who can let her into a restricted conversation.
func (h *Hub) Join(ctx context.Context, r JoinRequest) (core.Event, error) {
	var e core.Event
	err := h.turn(ctx, func(t *turn) (err error) {
		e, err = t.join(r)
		return err
	})
	if errors.Is(err, ErrAsk) {
		return h.enter(ctx, r)
	}
	return e, err
}

func (t *turn) join(r JoinRequest) (core.Event, error) {
	p, err := t.place(r.Conv)
	if err != nil {
		return core.Event{}, err
	}
	m := p.s.Members[r.Who]
	if m.Standing == core.Joined && (r.Nick == "" || r.Nick == m.Nick) && (r.Name == "" || r.Name == m.Name) {
		e, err := t.tx.Event(m.Event)
		if err == nil && r.With != nil {
			err = r.With(t.tx, &e)
		}
		return e, err
	}
	c := core.Membership{
		Target: r.Who, Standing: core.Joined, Nick: r.Nick, Name: r.Name, Reason: r.Reason,
	}
	if m.Standing == core.Joined && c.Name == "" {
		c.Name, c.Avatar = m.Name, m.Avatar
	}
	if m.Standing != core.Joined && m.Standing != core.Invited && m.Standing != core.Banned {
		if err := t.right(p, &c); err != nil {
			return core.Event{}, err
		}
	}
	return t.admit(Draft{Conv: r.Conv, Sender: r.Who, Content: c, Native: r.Native, From: r.From, With: r.With, via: c.Via})
}

// right finds what lets a person in who was not invited.
func (t *turn) right(p place, c *core.Membership) error {
	switch p.s.JoinRule {
	case core.JoinPublic:
		if p.s.Standing(c.Target) != core.Knocked {
			return nil
		}
		_, err := t.admit(Draft{Conv: p.c.ID, Sender: c.Target, Content: core.Membership{Target: c.Target, Standing: core.Left}})
		return err
	case core.JoinRestricted, core.JoinKnockRestricted:
		ok, err := t.inAllowed(p.s, c.Target)
		if err != nil {
			return err
		}
		if ok {
			c.Via = letterIn(p.s)
			return nil
		}
	}
	by, found, err := none(t.tx.Affiliation(p.c.ID, c.Target))
	if err != nil || !found {
		return err // the verdict says that she needs an invitation
	}
	if p.s.Standing(by) != core.Joined {
		by = letterIn(p.s)
	}
	if by.IsZero() {
		return nil
	}
	_, err = t.admit(Draft{Conv: p.c.ID, Sender: by, Content: core.Membership{Target: c.Target, Standing: core.Invited}})
	return err
}

// inAllowed reports whether one is in a conversation whose members may join.
func (t *turn) inAllowed(s *core.State, who core.Address) (bool, error) {
	for _, native := range s.Allow {
		id, found, err := none(t.tx.ConversationNative(core.Matrix, native))
		if err != nil {
			return false, err
		}
		if !found {
			continue
		}
		other, err := t.tx.State(id)
		if err != nil {
			return false, err
		}
		if other.Standing(who) == core.Joined {
			return true, nil
		}
	}
	return false, nil
}

// letterIn finds a joined local member who may invite: the highest.
func letterIn(s *core.State) core.Address {
	var best core.Address
	for _, m := range s.Joined() {
		if m.Address.IsLocal() && s.Level(m.Address) >= s.Levels.Invite &&
			(best.IsZero() || s.Level(m.Address) > s.Level(best)) {
			best = m.Address
		}
	}
	return best
}

// Affiliation is a lasting relation to a room, as XMPP names them.
//
// spec: XEP-0045 §5.2
type Affiliation string

// The affiliations.
const (
	Owner        Affiliation = "owner"
	Admin        Affiliation = "admin"
	AsMember     Affiliation = "member"
	Unaffiliated Affiliation = "none"
	Outcasts     Affiliation = "outcast"
)

// AffiliationOf shows a's level and standing as the nearest affiliation, which
// never grants more. kept is the right to return.
func AffiliationOf(s *core.State, a core.Address, kept bool) Affiliation {
	level := s.Level(a)
	switch st := s.Standing(a); {
	case st == core.Banned:
		return Outcasts
	case level >= max(100, levelToGrant(s)):
		return Owner
	case level >= max(50, s.Levels.Ban, s.Levels.Kick):
		return Admin
	case kept, st == core.Invited, s.JoinRule != core.JoinPublic && st == core.Joined:
		return AsMember
	}
	return Unaffiliated
}

// levelToGrant is what changing levels needs.
func levelToGrant(s *core.State) int64 { return s.Needs(string(core.AspectLevels), true) }

// Affiliate gives a person an affiliation: a level, the right to return, or a
// ban.
//
// spec: XEP-0045 §9
func (h *Hub) Affiliate(ctx context.Context, conv core.ConvID, actor, target core.Address, to Affiliation, reason string) error {
	return h.turn(ctx, func(t *turn) error {
		p, err := t.place(conv)
		if err != nil {
			return err
		}
		if to == Outcasts {
			_, err := t.admit(Draft{Conv: conv, Sender: actor, Content: core.Membership{Target: target, Standing: core.Banned, Reason: reason}})
			return err
		}
		if p.s.Standing(target) == core.Banned {
			_, err := t.admit(Draft{Conv: conv, Sender: actor, Content: core.Membership{Target: target, Standing: core.Left, Reason: reason}})
			if err != nil {
				return err
			}
			if p, err = t.place(conv); err != nil {
				return err
			}
		}
		level := map[Affiliation]int64{Owner: 100, Admin: 50}[to]
		if err := t.setLevel(p, actor, target, level); err != nil {
			return err
		}
		return t.setMember(p, actor, target, to, reason)
	})
}

// setLevel sets one person's level, if that is a change.
func (t *turn) setLevel(p place, actor, target core.Address, level int64) error {
	if p.s.Level(target) == core.Supreme {
		if level == 100 {
			return nil
		}
		return Refuse(Forbidden, "%s made this room and stays its owner", target.Bare())
	}
	if max(p.s.Level(target), 0) == level || level == 0 && p.s.Level(target) < 50 {
		return nil
	}
	levels := p.s.Levels.Clone()
	if levels.Users[target] = level; level == levels.Default {
		delete(levels.Users, target)
	}
	_, err := t.admit(Draft{Conv: p.c.ID, Sender: actor, Content: core.Change{Aspect: core.AspectLevels, Levels: &levels}})
	return err
}

// setMember grants or revokes the right to return.
func (t *turn) setMember(p place, actor, target core.Address, to Affiliation, reason string) error {
	standing := p.s.Standing(target)
	if to == Unaffiliated {
		if err := needLevel(p.s, actor, levelOf(p.s, func(l core.Levels) int64 { return l.Kick })); err != nil {
			return err
		}
		if err := t.tx.DeleteAffiliation(p.c.ID, target); err != nil {
			return err
		}
		if p.s.JoinRule != core.JoinPublic && (standing == core.Joined || standing == core.Invited) {
			_, err := t.admit(Draft{Conv: p.c.ID, Sender: actor, Content: core.Membership{Target: target, Standing: core.Left, Reason: reason}})
			return err
		}
		return nil
	}
	if err := needLevel(p.s, actor, levelOf(p.s, func(l core.Levels) int64 { return l.Invite })); err != nil {
		return err
	}
	if p.s.Standing(actor) != core.Joined {
		return Refuse(NotMember, "you are not in this room")
	}
	if err := t.tx.PutAffiliation(p.c.ID, target, actor); err != nil {
		return err
	}
	if standing == core.Joined || standing == core.Invited || p.s.JoinRule == core.JoinPublic {
		return nil
	}
	_, err := t.admit(Draft{Conv: p.c.ID, Sender: actor, Content: core.Membership{Target: target, Standing: core.Invited, Reason: reason}})
	return err
}

// received is what becomes of an invitation to one who lives here: those who
// know the inviter, or take everybody, join a direct at once.
func (t *turn) received(p place, e *core.Event, c core.Membership) error {
	if p.c.Shape != core.Direct || e.Sender == c.Target {
		return nil
	}
	if !t.h.ours(c.Target) {
		return t.foreignInvited(p, e.Sender, c.Target)
	}
	known, policy, err := t.stranger(c.Target, e.Sender)
	if err != nil {
		return err
	}
	if known || policy == core.Deliver {
		err = t.joinLater(JoinRequest{Conv: p.c.ID, Who: c.Target})
	}
	return err
}

// ChangeLevels changes a conversation's levels as f does to a copy of them.
func (h *Hub) ChangeLevels(ctx context.Context, conv core.ConvID, actor core.Address, f func(s *core.State, l *core.Levels)) error {
	return h.turn(ctx, func(t *turn) error {
		p, err := t.place(conv)
		if err != nil {
			return err
		}
		levels := p.s.Levels.Clone()
		f(p.s, &levels)
		_, err = t.admit(Draft{Conv: conv, Sender: actor, Content: core.Change{Aspect: core.AspectLevels, Levels: &levels}})
		return err
	})
}
