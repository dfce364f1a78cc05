package s2s

import (
	"context"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// maxClients is of how many clients of one contact presence is kept.
const maxClients = 50

// presence takes presence to an account: steps of consent, what a contact shows, questions for what the account shows, and what is
// directed to a client.
//
// spec: RFC 6121 §8.5.3
func (c *Carrier) presence(ctx context.Context, v visit) error {
	account, err := c.names.Address(v.to.Bare())
	if err != nil || !account.IsLocal() || account.Name == "" {
		c.cfg.Count.Count("s2s_dropped", "presence")
		return nil
	}
	if n, ok := translate.ReadNotice(v.st); ok {
		n.From, n.To = v.who, account
		return c.notice(ctx, v, n)
	}
	switch typ := v.st.Attr("type"); {
	case typ == "probe":
		return c.hub.RemoteProbe(ctx, v.who, account)
	case typ == "" && v.to.Resource != "" && !c.contactPresence(v):
		return nil
	case v.to.Resource != "" && (typ == "" || typ == "unavailable" || typ == "error"):
		if _, err := c.account(ctx, v); err == nil {
			c.pass(ctx, v.st)
		}
		return nil
	case typ == "":
		return c.available(ctx, v, account)
	case typ == "unavailable":
		return c.unavailable(ctx, v, account)
	}
	c.cfg.Count.Count("s2s_dropped", "presence")
	return nil
}

// notice takes a step of consent.
//
// spec: RFC 6121 §3
func (c *Carrier) notice(ctx context.Context, v visit, n hub.ContactNotice) error {
	if n.Kind == hub.Ask {
		known, err := c.knows(ctx, n.To, n.From)
		if err == nil && !known {
			err = c.approach(ctx, v, guard.Requests)
		}
		if err != nil {
			return err
		}
	}
	return c.sessions.Requested(ctx, v.st, n)
}

// available takes the presence of one client of a contact.
//
// spec: RFC 6121 §4.4
func (c *Carrier) available(ctx context.Context, v visit, account core.Address) error {
	if !c.contactPresence(v) {
		return nil
	}
	p := translate.ReadPresence(v.st, v.from)
	known, err := c.hub.PresenceOf(ctx, account, v.who)
	if err != nil {
		return err
	}
	same := func(k core.Presence) bool { return k.Session == p.Session }
	if len(known) >= maxClients && !slices.ContainsFunc(known, same) {
		c.cfg.Count.Count("s2s_dropped", "presence")
		return nil
	}
	if err := c.hub.RemotePresence(ctx, v.who, account, p); err != nil {
		return err
	}
	c.sessions.ForeignPresence(ctx, v.st)
	return nil
}

// unavailable takes that a client of a contact has gone; without a resource, that all have.
//
// spec: RFC 6121 §4.5
func (c *Carrier) unavailable(ctx context.Context, v visit, account core.Address) error {
	p := translate.ReadPresence(v.st, v.from)
	if p.Session != "" {
		return c.hub.RemotePresence(ctx, v.who, account, p)
	}
	known, err := c.hub.PresenceOf(ctx, account, v.who)
	if err != nil {
		return err
	}
	for _, k := range known {
		p.Session = k.Session
		if err := c.hub.RemotePresence(ctx, v.who, account, p); err != nil {
			return err
		}
	}
	return nil
}
