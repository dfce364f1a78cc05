package c2s

import (
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// maxPublished bounds the items of one publication.
const maxPublished = 50

// publication is what is to be published on a node.
type publication struct {
	node    string
	items   []pep.Item // as the publisher wrote them
	options form       // nil for none
}

// publish puts items on a node, which is made if there is none.
//
// spec: XEP-0060 §7.1
// spec: XEP-0163 §3
func (q *question) publish(c *element.Element) (answer, error) {
	p, err := q.readPublication(c)
	if err != nil {
		return nil, err
	}
	if err := q.put(p); err != nil {
		return nil, err
	}
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "publish").SetAttr("node", p.node)
	for _, it := range p.items {
		list.Add("", "item").SetAttr("id", it.ID)
	}
	return out, nil
}

// readPublication reads what is to be published, and with what options.
//
// spec: XEP-0060 §7.1.5
func (q *question) readPublication(c *element.Element) (p publication, err error) {
	if p.node, err = named(c); err != nil {
		return p, err
	}
	if p.items, err = q.newItems(c); err != nil {
		return p, err
	}
	if x := q.payload.Child("", "publish-options").Child(nsData, "x"); x != nil {
		var ok bool
		if p.options, ok = readForm(x, publishNS); !ok {
			return p, translate.Fail(translate.BadRequest, "these are no publish options")
		}
	}
	return p, nil
}

// newItems reads the items.
//
// spec: XEP-0060 §7.1.3
func (q *question) newItems(c *element.Element) ([]pep.Item, error) {
	var out []pep.Item
	for _, el := range c.ChildrenNamed("", "item") {
		it := pep.Item{ID: el.Attr("id"), Publisher: q.from.String(), Published: time.Now().UTC(), Payload: el.First()}
		if it.ID == "" {
			it.ID = core.NewToken()[:16]
		}
		if len(it.ID) > pep.MaxItemID || len(el.Elements()) > 1 {
			return nil, pep.Fail(translate.BadRequest, "invalid-payload")
		}
		out = append(out, it)
	}
	if len(out) > maxPublished {
		return nil, &translate.Error{Condition: translate.NotAllowed, Text: "at most 50 items at a time",
			Extra: element.New(nsPubSubErr, "max-items-exceeded")}
	}
	return out, nil
}

// put publishes. What a node of the server's own makes of it happens first, in the hub: those items are not kept as such.
func (q *question) put(p publication) error {
	made, own := madeNodes[p.node]
	if own && !q.own() {
		return translate.Fail(translate.ForbiddenError, "")
	}
	kept := p.items
	if made.take != nil {
		kept = nil
		for _, it := range p.items {
			taken, err := made.take(q, it)
			if err != nil {
				return err
			}
			if !taken {
				kept = append(kept, it)
			}
		}
	}
	err := q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		c, err := q.nodeToPublishOn(tx, p)
		if err != nil {
			return err
		}
		if len(p.items) == 0 && !(c.Transient && c.Bare) {
			return pep.Fail(translate.BadRequest, "item-required")
		}
		for _, it := range kept {
			if it.Payload == nil && !c.Bare {
				return pep.Fail(translate.BadRequest, "payload-required")
			}
			if err := pep.WriteItem(tx, q.account, p.node, c, it); err != nil {
				return err
			}
		}
		if len(kept) == 0 && len(p.items) > 0 {
			return nil
		}
		return q.announce(tx, &pepEvent{Account: q.account, Node: p.node, Items: kept, Config: c})
	})
	if err == nil && made.published != nil && len(p.items) > 0 {
		err = made.published(q, p.items)
	}
	return err
}

// nodeToPublishOn finds the node, or makes it for the account itself, and holds it to the publisher's options.
//
// spec: XEP-0060 §7.1.4
// spec: XEP-0060 §7.1.5
// spec: XEP-0222 §3
// spec: XEP-0223 §3
func (q *question) nodeToPublishOn(tx hub.Tx, p publication) (pep.Config, error) {
	c, found, err := pep.ReadNode(tx, q.account, p.node)
	if err != nil {
		return c, err
	}
	if found {
		if err := pep.MayPublish(tx, q.account, p.node, c, q.reader()); err != nil {
			return c, err
		}
		return c, c.Meets(p.options)
	}
	if !q.own() {
		return c, errNobody
	}
	if c, err = q.configured(p.node, defaultConfig(p.node), p.options, true); err != nil {
		return c, err
	}
	return c, pep.CreateNode(tx, q.account, p.node, c)
}

// configured is a configuration with what a form asks for. What the server keeps private stays so.
func (q *question) configured(node string, c pep.Config, f form, strict bool) (pep.Config, error) {
	c, err := c.With(f, strict)
	if err == nil && madeNodes[node].private && c.Access != pep.Whitelist {
		err = pep.Fail(translate.NotAcceptable, "unsupported-access-model")
	}
	return c, err
}

// retract takes items off a node.
//
// spec: XEP-0060 §7.2
func (q *question) retract(c *element.Element) (answer, error) {
	node, err := named(c)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, it := range c.ChildrenNamed("", "item") {
		ids = append(ids, it.Attr("id"))
	}
	if len(ids) == 0 || len(ids) > maxPublished || slices.Contains(ids, "") {
		return nil, pep.Fail(translate.BadRequest, "item-required")
	}
	return nil, q.takeOff(node, ids, isTrue(c.Attr("notify")))
}

// takeOff takes items off a node, and tells even where the node is silent if notify says so. Publishers take off their own.
func (q *question) takeOff(node string, ids []string, notify bool) error {
	made, ours := madeNodes[node]
	err := q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		c, err := q.node(tx, node)
		if err != nil {
			return err
		}
		owner := pep.MayOwn(tx, q.account, node, q.reader())
		if owner != nil && !isStanzaError(owner) {
			return owner
		}
		for _, id := range ids {
			it, found, err := pep.ReadItem(tx, q.account, node, id)
			if err != nil {
				return err
			}
			if !found && !ours {
				return translate.Fail(translate.ItemNotFound, "there is no such item")
			}
			if by, _ := translate.ParseJID(it.Publisher); owner != nil && by.Bare() != q.from.Bare() {
				return owner
			}
			if _, err := pep.DeleteItem(tx, q.account, node, id); err != nil {
				return err
			}
		}
		if c.Silent && !notify {
			return nil
		}
		return q.announce(tx, &pepEvent{Account: q.account, Node: node, Retracted: ids, Config: c})
	})
	if err != nil || made.retracted == nil {
		return err
	}
	for _, id := range ids {
		if err := made.retracted(q, id); err != nil {
			return err
		}
	}
	return nil
}

// create makes a node.
//
// spec: XEP-0060 §8.1
func (q *question) create(c *element.Element) (answer, error) {
	if !q.own() {
		return nil, translate.Fail(translate.ForbiddenError, "")
	}
	node, instant := c.Attr("node"), c.Attr("node") == ""
	if instant { // spec: XEP-0060 §8.1.2
		node = core.NewToken()[:20]
	}
	var options form
	if x := q.payload.Child("", "configure").Child(nsData, "x"); x != nil {
		var ok bool
		if options, ok = readForm(x, pep.NSConfig); !ok {
			return nil, translate.Fail(translate.BadRequest, "this is no configuration of a node")
		}
	}
	err := q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		_, found, err := pep.ReadNode(tx, q.account, node)
		if err != nil {
			return err
		}
		if found {
			return translate.Fail(translate.ConflictError, "there is such a node")
		}
		c, err := q.configured(node, defaultConfig(node), options, false)
		if err != nil {
			return err
		}
		return pep.CreateNode(tx, q.account, node, c)
	})
	if err != nil || !instant {
		return nil, err
	}
	out := element.New(nsPubSub, "pubsub")
	out.Add("", "create").SetAttr("node", node)
	return out, nil
}

// subscriber reads who is to be subscribed: the asker, in whatever spelling.
//
// spec: XEP-0060 §6.1.3.1
func (q *question) subscriber(c *element.Element) (translate.JID, error) {
	j, err := translate.ParseJID(c.Attr("jid"))
	if err != nil || j.Bare() != q.from.Bare() {
		return j, pep.Fail(translate.BadRequest, "invalid-jid")
	}
	return j, nil
}

// subscribe has the asker hear of a node whatever its clients' capabilities.
//
// spec: XEP-0060 §6.1
func (q *question) subscribe(c *element.Element) (answer, error) {
	node, err := named(c)
	if err != nil {
		return nil, err
	}
	jid, err := q.subscriber(c)
	if err != nil {
		return nil, err
	}
	sub := pep.Subscription{Node: node, JID: jid, State: pep.Subscribed}
	var last *pepEvent
	err = q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		cfg, err := q.node(tx, node)
		if err != nil {
			return err
		}
		err = pep.MayRead(tx, q.account, node, cfg, q.reader())
		if cfg.Access == pep.Authorize && isStanzaError(err) {
			if sub.State, err = q.pend(tx, sub); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if sub.State == pep.Subscribed && cfg.SendLast != "never" {
			if last, err = q.srv.lastEvent(q.ctx, tx, q.account, node, cfg); err != nil {
				return err
			}
		}
		return pep.SetSubscription(tx, q.account, sub)
	})
	if err != nil {
		return nil, err
	}
	if last != nil {
		q.tell(last, jid)
	}
	if sub.State == pep.Pending {
		q.askOwner(sub)
	}
	return element.New(nsPubSub, "pubsub").Append(subscriptionElement(nsPubSub, sub)), nil
}

// pend says what becomes of a subscription that an owner is to approve: outcasts are refused, and one that waits is refused again.
//
// spec: XEP-0060 §6.1.3.6
func (q *question) pend(tx hub.Tx, sub pep.Subscription) (string, error) {
	as, err := pep.Affiliation(tx, q.account, sub.Node, q.from)
	if err == nil && (as == pep.Outcast || as == pep.PublishOnly) {
		err = translate.Fail(translate.ForbiddenError, "")
	}
	if err != nil {
		return "", err
	}
	had, err := pep.SubscriptionsOf(tx, q.account, sub.Node, q.from)
	if slices.ContainsFunc(had, func(s pep.Subscription) bool { return s.State == pep.Pending && s.JID == sub.JID }) {
		return "", pep.Fail(translate.NotAuthorizedError, "pending-subscription")
	}
	return pep.Pending, err
}

// unsubscribe ends a subscription.
//
// spec: XEP-0060 §6.2
func (q *question) unsubscribe(c *element.Element) (answer, error) {
	node, err := named(c)
	if err != nil {
		return nil, err
	}
	jid, err := q.subscriber(c)
	if err != nil {
		return nil, err
	}
	return nil, q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		if _, err := q.node(tx, node); err != nil {
			return err
		}
		had, err := pep.SubscriptionsOf(tx, q.account, node, q.from)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(had, func(s pep.Subscription) bool { return s.JID == jid }) {
			return pep.Fail(translate.UnexpectedRequest, "not-subscribed")
		}
		return pep.SetSubscription(tx, q.account, pep.Subscription{Node: node, JID: jid, State: pep.Unsubscribed})
	})
}
