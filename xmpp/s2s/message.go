package s2s

import (
	"context"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/xmpp/guard"
	"parley/xmpp/lookup"
	"parley/xmpp/talk"
	"parley/xmpp/translate"
)

// message takes a message to an account.
//
// spec: RFC 6121 §8.5.2
func (c *Carrier) message(ctx context.Context, v visit) error {
	typ := v.st.Attr("type")
	if typ == "error" {
		return c.bounced(ctx, v)
	}
	account, err := c.account(ctx, v)
	if err != nil {
		return err
	}
	if taken, err := c.invited(ctx, v, account); taken || err != nil {
		return err
	}
	if passes, err := c.passes(ctx, v, account); err != nil {
		return err
	} else if passes {
		c.pass(ctx, v.st)
		return nil
	}
	speaker := talk.Speaker{Hub: c.hub, Names: c.names, Base: c.cfg.Base, Who: v.who, Peer: account}
	said, losses, err := speaker.Interpret(ctx, v.st)
	if err != nil {
		return err
	}
	for _, l := range losses {
		c.log.Debug("not carried", "remote", v.from.Domain, "loss", l.String())
	}
	if said.Content != nil || said.Reactions != nil {
		if err := c.stranger(ctx, v, account); err != nil {
			return err
		}
	}
	kept, err := speaker.Say(ctx, said)
	if err != nil {
		return err
	}
	if err := speaker.Tell(ctx, said); err != nil {
		return err
	}
	if !kept && talk.HasOther(v.st) {
		c.pass(ctx, v.st)
	}
	return nil
}

// passes says whether a message is not the hub's but goes to the clients that are there: what rooms elsewhere send to their occupants,
// their invitations, and headlines. It is no way around what the account wants done with strangers: to a client goes only what names
// one that is there, which strangers cannot know.
//
// spec: RFC 6121 §8.5.2.1.1
// spec: XEP-0045 §7.5
// spec: XEP-0045 §7.8.2
func (c *Carrier) passes(ctx context.Context, v visit, account core.Address) (bool, error) {
	own, err := c.hub.PresenceOf(ctx, account, account)
	if err != nil {
		return false, err
	}
	there := v.to.Resource != "" && slices.ContainsFunc(own, func(p core.Presence) bool { return p.Session == v.to.Resource })
	x := v.st.Child(translate.NSMUCUser, "x")
	switch typ := v.st.Attr("type"); {
	case typ == "groupchat" && !there:
		return false, errUnavailable // so that the room knows that its occupant has gone
	case typ == "groupchat":
		return true, nil
	case x.Child("", "invite") != nil:
		return true, c.stranger(ctx, v, account)
	case x != nil:
		return there, nil
	case typ == "headline" && v.st.Child("", "body") != nil && !there:
		return c.knows(ctx, account, v.who)
	default:
		return typ == "headline", nil
	}
}

// knows says whether the account knows somebody: as a contact, or because it let her into a direct, which one that takes everybody
// does not do itself.
func (c *Carrier) knows(ctx context.Context, account, who core.Address) (known bool, err error) {
	err = c.hub.Read(ctx, func(view hub.View) error {
		contact, err := view.Contact(account, who)
		if err == nil && (contact.Listed || contact.Sees || contact.Seen || contact.Approved) {
			known = true
			return nil
		} else if err != nil && !certain(err) {
			return err
		}
		acc, err := view.Account(account)
		if err != nil {
			return err
		}
		if acc.Strangers == core.Deliver || acc.Strangers == "" && c.hub.Config().Strangers == core.Deliver {
			return nil
		}
		directs, err := view.Directs(account, who)
		for _, id := range directs {
			place, err := view.Place(account, id)
			if err != nil && !certain(err) {
				return err
			}
			known = known || err == nil && place.Standing == core.Joined
		}
		return err
	})
	return known, err
}

// stranger holds a server to its quota of messages from people whom the account does not know.
func (c *Carrier) stranger(ctx context.Context, v visit, account core.Address) error {
	known, err := c.knows(ctx, account, v.who)
	if err != nil || known {
		return err
	}
	return c.approach(ctx, v, guard.Strangers)
}

// bounced takes a message that came back. It is the outcome of what is on its way, or a late failure of what was accepted before, of
// which its sender is told; anything else is for the client that it names.
//
// spec: RFC 6121 §8.5
func (c *Carrier) bounced(ctx context.Context, v visit) error {
	e, id := translate.ReadError(v.st), v.st.Attr("id")
	if c.flights.fail(flightKey{v.to.Bare(), v.from.Bare(), id}, e) {
		return nil
	}
	sender, err := c.names.Address(v.to.Bare())
	if err != nil {
		c.cfg.Count.Count("s2s_dropped", "error")
		return nil
	}
	event, err := c.sentBy(ctx, sender, v.who, id)
	switch {
	case err != nil:
		return err
	case event != "":
		return c.hub.Report(ctx, hub.Report{Event: event, To: v.who, Stage: core.StageFailed, Reason: e.Reason()})
	case v.to.Resource != "":
		c.pass(ctx, v.st)
	default:
		c.cfg.Count.Count("s2s_dropped", "error")
	}
	return nil
}

// sentBy finds the message that one sent to another under an id; "" if there is none.
func (c *Carrier) sentBy(ctx context.Context, sender, to core.Address, id string) (event core.EventID, err error) {
	if id == "" {
		return "", nil
	}
	err = c.hub.Read(ctx, func(view hub.View) error {
		ref := translate.Ref{ID: id, Author: translate.OwnMessage, Stanza: true}
		found, err := lookup.Find(view, sender, lookup.Place{Peer: to}, ref)
		if err != nil || found == "" {
			return err
		}
		e, err := view.Event(found)
		if err == nil && e.Sender == sender {
			event = e.ID
		}
		return err
	})
	return event, err
}
