package devices

import (
	"slices"

	"parley/core"
	"parley/hub"
)

// circle are the shared rooms in which an account is.
type circle struct {
	convs  []core.ConvID
	states []*core.State
}

// circleOf finds the shared rooms of an account.
func circleOf(v hub.View, account core.Address) (c circle, err error) {
	places, err := v.Places(account)
	if err != nil {
		return c, err
	}
	for _, p := range places {
		if p.Standing != core.Joined {
			continue
		}
		conv, err := v.Conversation(p.Conv)
		if err != nil {
			return c, err
		}
		if conv.Authority != core.Graph {
			continue
		}
		s, err := v.State(p.Conv)
		if err != nil {
			return c, err
		}
		c.convs, c.states = append(c.convs, p.Conv), append(c.states, s)
	}
	return c, nil
}

// anchor is a room of the circle in which somebody is; ok is false where there is
// none.
func (c circle) anchor(who core.Address) (conv core.ConvID, ok bool) {
	for i, s := range c.states {
		if s.Standing(who) == core.Joined {
			return c.convs[i], true
		}
	}
	return "", false
}

// anchorOf finds a room that somebody elsewhere shares with an account here, and
// the account's domain.
func anchorOf(v hub.View, who core.Address) (conv core.ConvID, domain string, err error) {
	c, err := circleOf(v, who)
	if err != nil {
		return "", "", err
	}
	for i, s := range c.states {
		for a, m := range s.Members {
			if m.Standing == core.Joined && a.IsLocal() {
				return c.convs[i], a.Domain, nil
			}
		}
	}
	return "", "", nil
}

// Admit implements [hub.Mirror]: who comes into a shared room and who leaves
// decides whose lists are kept, and who is told of ours. It is called for what is
// news only to the graph, too, of which it takes no notice.
func (d *Devices) Admit(tx hub.Tx, c *core.Conversation, before *core.State, e *core.Event) error {
	if c.Authority != core.Graph || e.Feed < 0 {
		return nil
	}
	switch content := e.Content.(type) {
	case core.Membership:
		was, is := before.Standing(content.Target) == core.Joined, content.Standing == core.Joined
		switch {
		case was == is:
		case was:
			return d.parted(tx, c.ID, before, content.Target)
		case content.Target.IsLocal():
			return d.entered(tx, c.ID, before, content.Target)
		}
	case core.Change:
		for _, piece := range content.Corrected {
			if piece.Kind != string(core.KindMembership) {
				continue
			}
			who, err := core.ParseAddress(piece.Key)
			if err != nil {
				return err
			}
			if before.Standing(who) != core.Joined {
				continue
			}
			if err := d.parted(tx, c.ID, before, who); err != nil {
				return err
			}
		}
	}
	return nil
}

// parted is what comes of somebody's leaving a shared room.
func (d *Devices) parted(tx hub.Tx, conv core.ConvID, before *core.State, who core.Address) error {
	if who.Network == core.Matrix {
		d.watching.touch(who)
		return setAdrift(tx, `address = $1 AND conv = $2`, key(who), string(conv))
	}
	if !who.IsLocal() {
		return nil
	}
	for a, m := range before.Members {
		if m.Standing == core.Joined && a.IsLocal() && a != who {
			return nil
		}
	}
	d.watching.touchAll()
	return setAdrift(tx, `conv = $1`, string(conv))
}

// entered sends the servers that are new in an account's circle her last change.
//
// spec: MX 1.19 SS §22
func (d *Devices) entered(tx hub.Tx, conv core.ConvID, before *core.State, account core.Address) error {
	servers, err := d.cfg.Sender.Servers(tx, conv)
	if err != nil {
		return err
	}
	set := map[string]bool{}
	for _, s := range servers {
		set[s] = true
	}
	for a, m := range before.Members {
		if m.Standing == core.Joined && a.Network == core.Matrix {
			set[a.Domain] = true
		}
	}
	if len(set) == 0 {
		return nil
	}
	others, err := d.serversOf(tx, account, conv)
	if err != nil {
		return err
	}
	for _, s := range others {
		delete(set, s)
	}
	return d.introduce(tx, account, set)
}

// serversOf are the servers that share rooms with an account, but for one room.
func (d *Devices) serversOf(v hub.View, account core.Address, but core.ConvID) ([]string, error) {
	c, err := circleOf(v, account)
	if err != nil {
		return nil, err
	}
	set := map[string]bool{}
	var list []string
	for _, conv := range c.convs {
		if conv == but {
			continue
		}
		servers, err := d.cfg.Sender.Servers(v, conv)
		if err != nil {
			return nil, err
		}
		for _, s := range servers {
			if !set[s] {
				set[s] = true
				list = append(list, s)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}
