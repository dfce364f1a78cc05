package c2s

import (
	"slices"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The nodes that mean something to the server.
const (
	nsBookmarks  = "urn:xmpp:bookmarks:1"            // XEP-0402
	nodeNick     = "http://jabber.org/protocol/nick" // XEP-0172
	nodeAvatar   = "urn:xmpp:avatar:metadata"        // XEP-0084
	nodePicture  = "urn:xmpp:avatar:data"
	nodeConfigNS = nsPubSub + "#node_config"
	publishNS    = nsPubSub + "#publish-options"
)

func pubsubError(c translate.Condition, name string) error {
	return &translate.Error{Condition: c, Extra: element.New(nsPubSubErr, name)}
}

// pepGet answers requests for items, of anybody who has access.
//
// spec: XEP-0060 §6.5
func (q *question) pepGet() (answer, error) {
	items := q.payload.Child("", "items")
	if items == nil {
		return nil, translate.Fail(translate.FeatureNotImplemented, "")
	}
	if q.account.IsZero() || !q.account.IsLocal() {
		return nil, errNobody
	}
	node := items.Attr("node")
	if node == "" {
		return nil, pubsubError(translate.BadRequest, "nodeid-required")
	}
	var found []pepItem
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		c, exists, err := q.node(v, node)
		if err != nil {
			return err
		}
		if !exists {
			return translate.Fail(translate.ItemNotFound, "")
		}
		if err := q.access(v, c); err != nil {
			return err
		}
		found, err = q.items(v, node, items)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "items").SetAttr("node", node)
	for _, it := range found {
		list.Append(itemElement(nsPubSub, it, q.own()))
	}
	return out, nil
}

// node reads the configuration of one of the account's nodes; those that the server makes up exist always.
func (q *question) node(v hub.View, node string) (nodeConfig, bool, error) {
	c, found, err := readNode(hubstore.Querier(v), q.account, node)
	if err == nil && !found && (node == nsBookmarks || node == nodeAvatar || node == nodePicture || node == nodeNick) {
		return defaultConfig(node), true, nil
	}
	return c, found, err
}

// items reads those of a node's items that were asked for.
func (q *question) items(v hub.View, node string, asked *element.Element) ([]pepItem, error) {
	most := maxPEPItems
	if n, err := strconv.Atoi(asked.Attr("max_items")); err == nil && n > 0 {
		most = min(n, most)
	}
	all, err := q.srv.nodeItems(q.ctx, v, q.account, node, most)
	if err != nil {
		return nil, err
	}
	wanted := asked.ChildrenNamed("", "item")
	if len(wanted) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(it pepItem) bool {
		return !slices.ContainsFunc(wanted, func(w *element.Element) bool { return w.Attr("id") == it.ID })
	}), nil
}

// access refuses those who may not read.
//
// spec: XEP-0060 §4.5
func (q *question) access(v hub.View, c nodeConfig) error {
	if q.own() || c.Access == accessOpen {
		return nil
	}
	if c.Access == accessPresence {
		contact, err := v.Contact(q.account, q.who)
		if err == nil && contact.Sees {
			return nil
		}
		return pubsubError(translate.NotAuthorizedError, "presence-subscription-required")
	}
	return pubsubError(translate.NotAllowed, "closed-node")
}

// readableNodes lists the nodes that the asker may read.
func (q *question) readableNodes() ([]string, error) {
	var out []string
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		all, err := readNodes(hubstore.Querier(v), q.account)
		for node, c := range all {
			if q.access(v, c) == nil {
				out = append(out, node)
			}
		}
		return err
	})
	slices.Sort(out)
	return out, err
}

func itemElement(ns string, it pepItem, publisher bool) *element.Element {
	el := element.New(ns, "item").SetAttr("id", it.ID)
	if publisher && it.Publisher != "" {
		el.SetAttr("publisher", it.Publisher)
	}
	return el.Append(it.Payload)
}

// pepSet publishes, retracts and creates, for the account itself.
func (q *question) pepSet() (answer, error) {
	if !q.own() {
		return nil, translate.Fail(translate.ForbiddenError, "")
	}
	for _, c := range q.payload.Elements() {
		switch c.Name.Local {
		case "publish":
			return q.publish(c)
		case "retract":
			return q.retract(c)
		case "create":
			return q.create(c)
		}
	}
	return nil, translate.Fail(translate.FeatureNotImplemented, "")
}

// publish puts items on a node, which is made if there is none.
//
// spec: XEP-0060 §7.1
// spec: XEP-0163 §3
func (q *question) publish(p *element.Element) (answer, error) {
	node := p.Attr("node")
	items, err := q.newItems(p)
	if err != nil {
		return nil, err
	}
	var options form
	if x := q.payload.Child("", "publish-options").Child(nsData, "x"); x != nil {
		var ok bool
		if options, ok = readForm(x, publishNS); !ok {
			return nil, translate.Fail(translate.BadRequest, "these are no publish options")
		}
	}
	ev := &pepEvent{Account: q.account, Node: node, Items: items}
	err = q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		c, found, err := readNode(hubstore.Tx(tx), q.account, node)
		if err != nil {
			return err
		}
		if !found {
			if c, err = defaultConfig(node).with(options); err == nil {
				err = createNode(hubstore.Tx(tx), q.account, node, c)
			}
		} else {
			err = c.meets(options)
		}
		if err != nil {
			return err
		}
		for _, it := range items {
			if err := writeItem(tx, q.account, node, c, it); err != nil {
				return err
			}
		}
		ev.Access = c.Access
		return q.announce(tx, ev)
	})
	if err != nil {
		return nil, err
	}
	if err := q.published(node, items); err != nil {
		return nil, err
	}
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "publish").SetAttr("node", node)
	for _, it := range items {
		list.Add("", "item").SetAttr("id", it.ID)
	}
	return out, nil
}

// newItems reads what is to be published.
func (q *question) newItems(p *element.Element) ([]pepItem, error) {
	if p.Attr("node") == "" {
		return nil, pubsubError(translate.BadRequest, "nodeid-required")
	}
	var out []pepItem
	for _, el := range p.ChildrenNamed("", "item") {
		it := pepItem{ID: el.Attr("id"), Publisher: q.from.String(), Published: time.Now().UTC(), Payload: el.First()}
		if it.ID == "" {
			it.ID = core.NewToken()[:16]
		}
		if len(it.ID) > maxItemID || len(el.Elements()) > 1 {
			return nil, pubsubError(translate.BadRequest, "invalid-payload")
		}
		out = append(out, it)
	}
	if len(out) == 0 || len(out) > 50 {
		return nil, pubsubError(translate.BadRequest, "item-required")
	}
	return out, nil
}

// retract takes an item off a node.
//
// spec: XEP-0060 §7.2
func (q *question) retract(p *element.Element) (answer, error) {
	node, id := p.Attr("node"), p.Child("", "item").Attr("id")
	if node == "" || id == "" {
		return nil, pubsubError(translate.BadRequest, "item-required")
	}
	err := q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		c, found, err := readNode(hubstore.Tx(tx), q.account, node)
		if err != nil {
			return err
		}
		if found {
			found, err = deleteItem(hubstore.Tx(tx), q.account, node, id)
		}
		if err != nil {
			return err
		}
		if !found && node != nsBookmarks {
			return translate.Fail(translate.ItemNotFound, "")
		}
		if notify := p.Attr("notify"); c.Silent && notify != "1" && notify != "true" {
			return nil
		}
		return q.announce(tx, &pepEvent{Account: q.account, Node: node, Retracted: []string{id}, Access: c.Access})
	})
	if err == nil && node == nsBookmarks {
		err = q.leaveBookmarked(id)
	}
	return nil, err
}

// create makes a node.
//
// spec: XEP-0060 §8.1
func (q *question) create(p *element.Element) (answer, error) {
	node := p.Attr("node")
	var options form
	if x := q.payload.Child("", "configure").Child(nsData, "x"); x != nil {
		options, _ = readForm(x, nodeConfigNS)
	}
	return nil, q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		_, found, err := readNode(hubstore.Tx(tx), q.account, node)
		if err != nil {
			return err
		}
		if found {
			return translate.Fail(translate.ConflictError, "there is such a node")
		}
		c, err := defaultConfig(node).with(options)
		if err != nil {
			return err
		}
		return createNode(hubstore.Tx(tx), q.account, node, c)
	})
}

// with is the configuration with what a form asks for.
func (c nodeConfig) with(f form) (nodeConfig, error) {
	if a := f.get("pubsub#access_model"); a != "" {
		if a != accessOpen && a != accessPresence && a != accessWhitelist {
			return c, pubsubError(translate.NotAcceptable, "unsupported-access-model")
		}
		c.Access = a
	}
	if m := f.get("pubsub#max_items"); m != "" {
		n, err := strconv.Atoi(m)
		if m == "max" {
			n, err = maxPEPItems, nil
		}
		if err != nil || n < 1 {
			return c, translate.Fail(translate.NotAcceptable, "max_items is a number or max")
		}
		c.MaxItems = min(n, maxPEPItems)
	}
	if s := f.get("pubsub#send_last_published_item"); s != "" {
		c.SendLast = s
	}
	if f.has("pubsub#title") {
		c.Title = f.get("pubsub#title")
	}
	c.Silent = !f.yes("pubsub#notify_retract", !c.Silent)
	return c, nil
}

// meets says whether a node is configured as the publisher takes for granted.
//
// spec: XEP-0060 §7.1.5
func (c nodeConfig) meets(f form) error {
	want, err := c.with(f)
	if err != nil {
		return err
	}
	if want.Access != c.Access || want.MaxItems > c.MaxItems {
		return pubsubError(translate.ConflictError, "precondition-not-met")
	}
	return nil
}

// form shows a configuration.
func (c nodeConfig) form() *element.Element {
	x := newForm("form", nodeConfigNS)
	addField(x, "pubsub#title", "text-single", c.Title)
	addOptions(addField(x, "pubsub#access_model", "list-single", c.Access), accessOpen, accessPresence, accessWhitelist)
	addField(x, "pubsub#max_items", "text-single", strconv.Itoa(c.MaxItems))
	addField(x, "pubsub#persist_items", "boolean", "1")
	addField(x, "pubsub#deliver_payloads", "boolean", "1")
	addOptions(addField(x, "pubsub#send_last_published_item", "list-single", c.SendLast), "never", "on_sub", "on_sub_and_presence")
	silent := "1"
	if c.Silent {
		silent = "0"
	}
	addField(x, "pubsub#notify_retract", "boolean", silent)
	return x
}

// pepOwnerGet shows how a node is configured.
//
// spec: XEP-0060 §8.2
func (q *question) pepOwnerGet() (answer, error) {
	c := q.payload.First()
	out := element.New(nsPubSubOwn, "pubsub")
	if c.Is(nsPubSubOwn, "default") {
		out.Add("", "default").Append(defaultConfig("").form())
		return out, nil
	}
	if !c.Is(nsPubSubOwn, "configure") {
		return nil, translate.Fail(translate.FeatureNotImplemented, "")
	}
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		cfg, found, err := readNode(hubstore.Querier(v), q.account, c.Attr("node"))
		if err == nil && !found {
			err = translate.Fail(translate.ItemNotFound, "")
		}
		out.Add("", "configure").SetAttr("node", c.Attr("node")).Append(cfg.form())
		return err
	})
	return out, err
}

// pepOwnerSet configures, deletes and empties nodes.
//
// spec: XEP-0060 §8
func (q *question) pepOwnerSet() (answer, error) {
	c := q.payload.First()
	node := c.Attr("node")
	do := map[string]func(tx hub.Tx, cfg nodeConfig) error{
		"configure": func(tx hub.Tx, cfg nodeConfig) error {
			f, ok := readForm(c.Child(nsData, "x"), nodeConfigNS)
			if !ok {
				return nil // cancelled
			}
			cfg, err := cfg.with(f)
			if err != nil {
				return err
			}
			return writeNode(hubstore.Tx(tx), q.account, node, cfg)
		},
		"delete": func(tx hub.Tx, cfg nodeConfig) error {
			if err := deleteNode(hubstore.Tx(tx), q.account, node); err != nil {
				return err
			}
			return q.announce(tx, &pepEvent{Account: q.account, Node: node, Whole: "delete", Access: cfg.Access})
		},
		"purge": func(tx hub.Tx, cfg nodeConfig) error {
			if err := deleteItems(hubstore.Tx(tx), q.account, node); err != nil {
				return err
			}
			return q.announce(tx, &pepEvent{Account: q.account, Node: node, Whole: "purge", Access: cfg.Access})
		},
	}
	f := do[c.Name.Local]
	if f == nil {
		return nil, translate.Fail(translate.FeatureNotImplemented, "")
	}
	return nil, q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		cfg, found, err := readNode(hubstore.Tx(tx), q.account, node)
		if err == nil && !found {
			err = translate.Fail(translate.ItemNotFound, "")
		}
		if err != nil {
			return err
		}
		return f(tx, cfg)
	})
}

// stored reads items without those that the server makes up.
func stored(v hub.View, account core.Address, node string, most int) ([]pepItem, error) {
	var q store.Querier = hubstore.Querier(v)
	return readItems(q, account, node, most)
}
