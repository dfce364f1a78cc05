package c2s

import (
	"context"
	"slices"

	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// configElement shows a configuration.
func configElement(c pep.Config) *element.Element {
	x := newForm("form", pep.NSConfig)
	for _, f := range c.Fields() {
		addOptions(addField(x, f.Name, f.Type, f.Values...), f.Options...)
	}
	return x
}

// defaultForm shows how a new node is configured.
//
// spec: XEP-0060 §8.3
func (q *question) defaultForm(*element.Element) (answer, error) {
	out := element.New(nsPubSubOwn, "pubsub")
	out.Add("", "default").Append(configElement(pep.Default()))
	return out, nil
}

// configForm shows how a node is configured.
//
// spec: XEP-0060 §8.2
func (q *question) configForm(c *element.Element) (answer, error) {
	out := element.New(nsPubSubOwn, "pubsub")
	err := q.ofOwned(c, func(_ hub.View, cfg pep.Config) error {
		out.Add("", "configure").SetAttr("node", c.Attr("node")).Append(configElement(cfg))
		return nil
	})
	return out, err
}

// ofOwned reads something of a node for its owner.
func (q *question) ofOwned(c *element.Element, f func(hub.View, pep.Config) error) error {
	node, err := named(c)
	if err != nil {
		return err
	}
	return q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		cfg, err := q.owned(v, node)
		if err != nil {
			return err
		}
		return f(v, cfg)
	})
}

// changeOwned changes something of a node for its owner.
func (q *question) changeOwned(c *element.Element, f func(tx hub.Tx, node string, cfg pep.Config) error) (answer, error) {
	node, err := named(c)
	if err != nil {
		return nil, err
	}
	return nil, q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		cfg, err := q.owned(tx, node)
		if err != nil {
			return err
		}
		return f(tx, node, cfg)
	})
}

// configure changes how a node is configured.
//
// spec: XEP-0060 §8.2.4
func (q *question) configure(c *element.Element) (answer, error) {
	x := c.Child(nsData, "x")
	if x.Attr("type") == "cancel" {
		return nil, nil
	}
	f, ok := readForm(x, pep.NSConfig)
	if !ok {
		return nil, translate.Fail(translate.BadRequest, "this is no configuration of a node")
	}
	return q.changeOwned(c, func(tx hub.Tx, node string, cfg pep.Config) error {
		cfg, err := q.configured(node, cfg, f, false)
		if err != nil {
			return err
		}
		_, found, err := pep.ReadNode(tx, q.account, node)
		if err != nil {
			return err
		}
		write := pep.WriteNode
		if !found { // one that the server makes up
			write = pep.CreateNode
		}
		if err := write(tx, q.account, node, cfg); err != nil || !cfg.TellConfig {
			return err
		}
		return q.announce(tx, &pepEvent{Account: q.account, Node: node, Whole: "configuration", Config: cfg})
	})
}

// deleteNode deletes a node.
//
// spec: XEP-0060 §8.4
func (q *question) deleteNode(c *element.Element) (answer, error) {
	return q.changeOwned(c, func(tx hub.Tx, node string, cfg pep.Config) error {
		if !cfg.SilentEnd {
			if err := q.announce(tx, &pepEvent{Account: q.account, Node: node, Whole: "delete", Config: cfg}); err != nil {
				return err
			}
		}
		return pep.DeleteNode(tx, q.account, node)
	})
}

// purge empties a node.
//
// spec: XEP-0060 §8.5
func (q *question) purge(c *element.Element) (answer, error) {
	return q.changeOwned(c, func(tx hub.Tx, node string, cfg pep.Config) error {
		if cfg.Transient {
			return pep.Unsupported("persistent-items")
		}
		if err := pep.DeleteItems(tx, q.account, node); err != nil || cfg.Silent {
			return err
		}
		return q.announce(tx, &pepEvent{Account: q.account, Node: node, Whole: "purge", Config: cfg})
	})
}

// nodeAffiliations lists who is what to a node.
//
// spec: XEP-0060 §8.9.1
func (q *question) nodeAffiliations(c *element.Element) (answer, error) {
	out := element.New(nsPubSubOwn, "pubsub")
	list := out.Add("", "affiliations").SetAttr("node", c.Attr("node"))
	err := q.ofOwned(c, func(v hub.View, _ pep.Config) error {
		list.Add("", "affiliation").SetAttr("jid", q.srv.names.JID(q.account).String()).SetAttr("affiliation", pep.Owner)
		all, err := pep.Affiliations(v, q.account, c.Attr("node"), translate.JID{})
		for _, a := range all {
			list.Add("", "affiliation").SetAttr("jid", a.Who.String()).SetAttr("affiliation", a.As)
		}
		return err
	})
	return out, err
}

// setAffiliations changes them. The account itself stays an owner.
//
// spec: XEP-0060 §8.9.2
func (q *question) setAffiliations(c *element.Element) (answer, error) {
	return q.changeOwned(c, func(tx hub.Tx, node string, _ pep.Config) error {
		for _, el := range c.ChildrenNamed("", "affiliation") {
			j, err := translate.ParseJID(el.Attr("jid"))
			if err != nil {
				return translate.Fail(translate.JIDMalformed, "")
			}
			if j.Bare() == q.srv.names.JID(q.account) {
				return translate.Fail(translate.NotAcceptable, "the account is an owner of its nodes")
			}
			a := pep.Affiliated{Node: node, Who: j.Bare(), As: el.Attr("affiliation")}
			if err := pep.SetAffiliation(tx, q.account, a); err != nil {
				return err
			}
			if err := q.endForOutcast(tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// endForOutcast ends the subscriptions of one who is cast out.
func (q *question) endForOutcast(tx hub.Tx, a pep.Affiliated) error {
	if a.As != pep.Outcast {
		return nil
	}
	subs, err := pep.SubscriptionsOf(tx, q.account, a.Node, a.Who)
	if err != nil {
		return err
	}
	for _, s := range subs {
		s.State = pep.Unsubscribed
		if err := pep.SetSubscription(tx, q.account, s); err != nil {
			return err
		}
	}
	return nil
}

// nodeSubscriptions lists who has subscribed to a node.
//
// spec: XEP-0060 §8.8.1
func (q *question) nodeSubscriptions(c *element.Element) (answer, error) {
	out := element.New(nsPubSubOwn, "pubsub")
	list := out.Add("", "subscriptions").SetAttr("node", c.Attr("node"))
	err := q.ofOwned(c, func(v hub.View, _ pep.Config) error {
		subs, err := pep.Subscriptions(v, q.account, c.Attr("node"))
		for _, s := range subs {
			list.Append(subscriptionElement(nsPubSubOwn, s).RemoveAttr("node"))
		}
		return err
	})
	return out, err
}

// setSubscriptions changes them; so are those approved that wait. Who is concerned is told.
//
// spec: XEP-0060 §8.8.2
func (q *question) setSubscriptions(c *element.Element) (answer, error) {
	return q.changeOwned(c, func(tx hub.Tx, node string, cfg pep.Config) error {
		for _, el := range c.ChildrenNamed("", "subscription") {
			j, err := translate.ParseJID(el.Attr("jid"))
			if err != nil {
				return translate.Fail(translate.JIDMalformed, "")
			}
			s := pep.Subscription{Node: node, JID: j, State: el.Attr("subscription")}
			had, err := pep.SubscriptionsOf(tx, q.account, node, j)
			if err != nil {
				return err
			}
			known := slices.ContainsFunc(had, func(h pep.Subscription) bool { return h.JID == j })
			if !known && s.State != pep.Unsubscribed && j.Domain != q.to.Domain {
				// Nobody on another server is made to hear of what she did not ask for.
				return translate.Fail(translate.NotAcceptable, "this person has not asked to subscribe")
			}
			if err := pep.SetSubscription(tx, q.account, s); err != nil {
				return err
			}
			tx.OnCommit(func() { q.tellState(s) })
		}
		return nil
	})
}

// tellState tells a subscriber what has become of a subscription.
//
// spec: XEP-0060 §8.8.4
func (q *question) tellState(s pep.Subscription) {
	m := element.New(translate.NSClient, "message").SetAttr("type", "headline").SetAttr("from", q.srv.names.JID(q.account).String())
	m.Add(nsPubSubEv, "event").Append(subscriptionElement(nsPubSubEv, s))
	q.srv.post(m.SetAttr("to", s.JID.String()), s.JID)
}

// askOwner asks the account's clients to approve a subscription.
//
// spec: XEP-0060 §8.6
func (q *question) askOwner(s pep.Subscription) {
	me := q.srv.names.JID(q.account)
	m := element.New(translate.NSClient, "message").SetAttr("from", me.String()).SetAttr("to", me.String())
	x := newForm("form", nsSubAuthorization)
	addField(x, "pubsub#node", "text-single", s.Node)
	addField(x, "pubsub#subscriber_jid", "jid-single", s.JID.String())
	addField(x, "pubsub#allow", "boolean", "0")
	q.srv.post(m.Append(x), me)
}

const nsSubAuthorization = nsPubSub + "#subscribe_authorization"

// approval takes a client's answer to askOwner; false if the message is none.
//
// spec: XEP-0060 §8.6
func (s *Session) approval(ctx context.Context, st *element.Element) (bool, error) {
	f, ok := readForm(st.Child(nsData, "x"), nsSubAuthorization)
	if !ok {
		return false, nil
	}
	state := pep.Unsubscribed
	if f.yes("pubsub#allow", false) {
		state = pep.Subscribed
	}
	c := element.New(nsPubSubOwn, "subscriptions").SetAttr("node", f.get("pubsub#node"))
	c.Add("", "subscription").SetAttr("jid", f.get("pubsub#subscriber_jid")).SetAttr("subscription", state)
	q := &question{srv: s.srv, ctx: ctx, from: s.jid, who: s.account, s: s, account: s.account, to: s.jid.Bare(), iq: st}
	_, err := q.setSubscriptions(c)
	return true, err
}
