package hub

import "parley/core"

// Capabilities are what the network of one who is elsewhere can carry; nothing
// where this server does not reach it.
func (h *Hub) Capabilities(a core.Address) core.Capabilities {
	c := h.carriers[a.Network]
	if c == nil || h.ours(a) {
		return core.Capabilities{}
	}
	return c.Capabilities(a)
}

// Loser is a [Mirror] whose form of events is also what members on servers of its
// network are sent, without the outbox: it knows what that does not carry.
type Loser interface {
	Network() core.Network
	// Lost is what the mirror's form of an event that it has just admitted does
	// not carry.
	Lost(id core.EventID) []core.Loss
}

// tellLost tells the sender of an event what of it members on other servers do
// not get by a mirror's form.
func (t *turn) tellLost(p place, e *core.Event) error {
	for _, m := range t.h.mirrors {
		l, ok := m.(Loser)
		if !ok {
			continue
		}
		losses := l.Lost(e.ID)
		if len(losses) == 0 || !t.h.ours(e.Sender) || e.Native == nil || e.Native.Network == l.Network() {
			continue
		}
		to := p.c.Address
		there := false
		for _, m := range p.s.Members {
			if m.Address.Network == l.Network() && (m.Standing == core.Joined || m.Standing == core.Invited) {
				if there = true; p.c.Shape == core.Direct {
					to = m.Address
				}
			}
		}
		if !there {
			continue
		}
		if _, err := t.report(Report{Event: e.ID, To: to, Stage: core.StageAccepted, Losses: losses}); err != nil {
			return err
		}
	}
	return nil
}
