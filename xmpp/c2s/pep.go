package c2s

import (
	"errors"
	"slices"
	"strconv"

	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

const publishNS = nsPubSub + "#publish-options"

// reader is who wants something of the account's nodes.
func (q *question) reader() pep.Asker { return pep.Asker{Who: q.who, JID: q.from} }

// pepTable is what can be asked and done in each namespace of publishing and subscribing.
var pepTable map[what]func(*question, *element.Element) (answer, error)

func init() {
	pepTable = map[what]func(*question, *element.Element) (answer, error){
		{nsPubSub, "items", "get"}:            (*question).pepItems,
		{nsPubSub, "subscriptions", "get"}:    (*question).mySubscriptions,
		{nsPubSub, "affiliations", "get"}:     (*question).myAffiliations,
		{nsPubSub, "options", "get"}:          (*question).subscriptionOptions,
		{nsPubSub, "options", "set"}:          (*question).subscriptionOptions,
		{nsPubSub, "publish", "set"}:          (*question).publish,
		{nsPubSub, "retract", "set"}:          (*question).retract,
		{nsPubSub, "create", "set"}:           (*question).create,
		{nsPubSub, "subscribe", "set"}:        (*question).subscribe,
		{nsPubSub, "unsubscribe", "set"}:      (*question).unsubscribe,
		{nsPubSubOwn, "default", "get"}:       (*question).defaultForm,
		{nsPubSubOwn, "configure", "get"}:     (*question).configForm,
		{nsPubSubOwn, "affiliations", "get"}:  (*question).nodeAffiliations,
		{nsPubSubOwn, "subscriptions", "get"}: (*question).nodeSubscriptions,
		{nsPubSubOwn, "configure", "set"}:     (*question).configure,
		{nsPubSubOwn, "delete", "set"}:        (*question).deleteNode,
		{nsPubSubOwn, "purge", "set"}:         (*question).purge,
		{nsPubSubOwn, "affiliations", "set"}:  (*question).setAffiliations,
		{nsPubSubOwn, "subscriptions", "set"}: (*question).setSubscriptions,
	}
}

// pep finds what is asked of an account's nodes.
func (q *question) pep() (answer, error) {
	switch {
	case abroad(q.account):
		return q.personItems()
	case !q.account.IsLocal():
		return nil, errNobody
	}
	for _, c := range q.payload.Elements() {
		if h := pepTable[what{q.payload.Name.Space, c.Name.Local, q.iq.Attr("type")}]; h != nil && c.Name.Space == q.payload.Name.Space {
			return h(q, c)
		}
	}
	return nil, pep.Unsupported(unsupportedFeature(q.payload.First()))
}

// named is the node that a request names.
func named(c *element.Element) (string, error) {
	node := c.Attr("node")
	switch {
	case node == "":
		return "", pep.Fail(translate.BadRequest, "nodeid-required")
	case len(node) > pep.MaxNodeName:
		return "", translate.Fail(translate.NotAcceptable, "a node has a name of at most 1023 bytes")
	}
	return node, nil
}

// node reads the configuration of one of the account's nodes; those that the server makes up exist always. One who does not see the
// account cannot tell from what is not there whether there is such an account.
func (q *question) node(v hub.View, node string) (pep.Config, error) {
	c, found, err := pep.ReadNode(v, q.account, node)
	if err != nil || found {
		return c, err
	}
	if !q.own() {
		contact, err := v.Contact(q.account, q.who)
		if errors.Is(err, hub.ErrNone) || err == nil && !contact.Sees {
			return c, errNobody
		} else if err != nil {
			return c, err
		}
	}
	if made, ok := madeNodes[node]; ok {
		return made.config, nil
	}
	return c, translate.Fail(translate.ItemNotFound, "there is no such node")
}

// owned is node for those who may configure it.
func (q *question) owned(v hub.View, node string) (pep.Config, error) {
	c, err := q.node(v, node)
	if err == nil {
		err = pep.MayOwn(v, q.account, node, q.reader())
	}
	return c, err
}

// maxAnswer bounds the bytes of the items in one answer; RSM gets at the rest.
const maxAnswer = 1 << 20

// pepItems answers requests for items, of anybody who has access.
//
// spec: XEP-0060 §6.5
func (q *question) pepItems(asked *element.Element) (answer, error) {
	node, err := named(asked)
	if err != nil {
		return nil, err
	}
	page, err := readPage(q.payload.Child(nsRSM, "set"), asked.Attr("max_items"))
	if err != nil {
		return nil, err
	}
	var found []pep.Item
	err = q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		c, err := q.node(v, node)
		if err == nil {
			err = pep.MayRead(v, q.account, node, c, q.reader())
		}
		if err == nil {
			found, err = q.srv.nodeItems(q.ctx, v, q.account, node, pep.MaxItems)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if node == nsStorage && q.own() {
		q.s.shownBookmarks(found)
	}
	if wanted := asked.ChildrenNamed("", "item"); len(wanted) > 0 {
		found = slices.DeleteFunc(found, func(it pep.Item) bool {
			return !slices.ContainsFunc(wanted, func(w *element.Element) bool { return w.Attr("id") == it.ID })
		})
	}
	items, set, err := page.of(found)
	if err != nil {
		return nil, err
	}
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "items").SetAttr("node", node)
	for _, it := range items {
		list.Append(itemElement(nsPubSub, it, q.own(), false))
	}
	return out.Append(set), nil
}

// itemsPage is which part of a node's items is wanted.
type itemsPage struct {
	max           int // below zero: no bound
	after, before *string
	most          int  // the latest so many; zero is all
	set           bool // by RSM
}

// readPage reads what RSM and max_items ask for.
//
// spec: XEP-0059 §2
// spec: XEP-0060 §6.5.4
func readPage(set *element.Element, most string) (p itemsPage, err error) {
	p.max = -1
	if most != "" {
		if p.most, err = strconv.Atoi(most); err != nil || p.most < 1 {
			return p, translate.Fail(translate.BadRequest, "max_items is a number from 1")
		}
	}
	if set == nil {
		return p, nil
	}
	p.set = true
	if m := set.Child("", "max"); m != nil {
		if p.max, err = strconv.Atoi(m.Text()); err != nil || p.max < 0 {
			return p, translate.Fail(translate.BadRequest, "max is a number")
		}
	}
	for name, to := range map[string]**string{"after": &p.after, "before": &p.before} {
		if el := set.Child("", name); el != nil {
			text := el.Text()
			*to = &text
		}
	}
	return p, nil
}

// of cuts the page out of all items, which are oldest first; set is nil where the answer is whole and RSM was not asked for.
func (p itemsPage) of(all []pep.Item) (items []pep.Item, set *element.Element, err error) {
	if p.most > 0 && len(all) > p.most {
		all = all[len(all)-p.most:]
	}
	lo, hi := 0, len(all)
	at := func(id string) int { return slices.IndexFunc(all, func(it pep.Item) bool { return it.ID == id }) }
	backwards := p.before != nil
	if p.after != nil {
		i := at(*p.after)
		if i < 0 {
			return nil, nil, translate.Fail(translate.ItemNotFound, "there is no such item")
		}
		lo = i + 1
	}
	if p.before != nil && *p.before != "" {
		if hi = at(*p.before); hi < 0 {
			return nil, nil, translate.Fail(translate.ItemNotFound, "there is no such item")
		}
	}
	backwards = backwards || !p.set // what is left out are the oldest
	size, n := 0, 0
	for ; lo+n < hi && (p.max < 0 || n < p.max); n++ {
		i := lo + n
		if backwards {
			i = hi - 1 - n
		}
		size += len(element.Marshal(all[i].Payload))
		if size > maxAnswer && n > 0 {
			break
		}
	}
	first := lo
	if backwards {
		first = max(lo, hi-n)
	}
	items = all[first : first+n]
	if !p.set && n == len(all) {
		return items, nil, nil
	}
	set = element.New(nsRSM, "set")
	if n > 0 {
		set.Append(element.NewText(nsRSM, "first", items[0].ID).SetAttr("index", strconv.Itoa(first)), element.NewText(nsRSM, "last", items[n-1].ID))
	}
	return items, set.Append(element.NewText(nsRSM, "count", strconv.Itoa(len(all)))), nil
}

func itemElement(ns string, it pep.Item, publisher, bare bool) *element.Element {
	el := element.New(ns, "item").SetAttr("id", it.ID)
	if publisher && it.Publisher != "" {
		el.SetAttr("publisher", it.Publisher)
	}
	if bare {
		return el
	}
	return el.Append(it.Payload)
}

// readableNodes lists the nodes that the asker may read.
func (q *question) readableNodes() (map[string]pep.Config, error) {
	var all map[string]pep.Config
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		if all, err = pep.ReadNodes(v, q.account); err != nil {
			return err
		}
		for node, c := range all {
			if err := pep.MayRead(v, q.account, node, c, q.reader()); isStanzaError(err) {
				delete(all, node)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// nodeInfo describes a node to those who may read it.
//
// spec: XEP-0060 §5.4
func (q *question) nodeInfo(node string) (answer, error) {
	var c pep.Config
	var owners []pep.Affiliated
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		if c, err = q.node(v, node); err != nil {
			return err
		}
		if err = pep.MayRead(v, q.account, node, c, q.reader()); err != nil {
			return err
		}
		owners, err = pep.Affiliations(v, q.account, node, translate.JID{})
		return err
	})
	if err != nil {
		return nil, err
	}
	info := discoInfo(node, [][3]string{{"pubsub", "leaf", c.Title}}, []string{nsPubSub})
	x := newForm("result", nsPubSub+"#meta-data")
	jids := []string{q.srv.names.JID(q.account).String()}
	for _, a := range owners {
		if a.As == pep.Owner {
			jids = append(jids, a.Who.String())
		}
	}
	addField(x, "pubsub#owner", "jid-multi", jids...)
	for _, f := range c.Fields() {
		switch f.Name {
		case "pubsub#title", "pubsub#description", "pubsub#type", "pubsub#access_model", "pubsub#publish_model", "pubsub#max_items":
			if len(f.Values) > 0 && f.Values[0] != "" {
				addField(x, f.Name, f.Type, f.Values...)
			}
		}
	}
	return info.Append(x), nil
}

// nodeItemNames lists the items of a node.
//
// spec: XEP-0060 §5.5
func (q *question) nodeItemNames(node string) (answer, error) {
	out := element.New(nsDiscoItems, "query").SetAttr("node", node)
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		c, err := q.node(v, node)
		if err == nil {
			err = pep.MayRead(v, q.account, node, c, q.reader())
		}
		if err != nil {
			return err
		}
		items, err := q.srv.nodeItems(q.ctx, v, q.account, node, pep.MaxItems)
		for _, it := range items {
			out.Add("", "item").SetAttr("jid", q.to.String()).SetAttr("name", it.ID)
		}
		return err
	})
	return out, err
}

// mySubscriptions lists what the asker has subscribed to.
//
// spec: XEP-0060 §5.6
func (q *question) mySubscriptions(c *element.Element) (answer, error) {
	var subs []pep.Subscription
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		subs, err = pep.SubscriptionsOf(v, q.account, c.Attr("node"), q.from)
		return err
	})
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "subscriptions")
	for _, s := range subs {
		list.Append(subscriptionElement(nsPubSub, s))
	}
	return out, err
}

func subscriptionElement(ns string, s pep.Subscription) *element.Element {
	return element.New(ns, "subscription").SetAttr("node", s.Node).SetAttr("jid", s.JID.String()).SetAttr("subscription", s.State)
}

// myAffiliations lists what the asker is to the account's nodes.
//
// spec: XEP-0060 §5.7
func (q *question) myAffiliations(c *element.Element) (answer, error) {
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "affiliations")
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) error {
		all, err := pep.Affiliations(v, q.account, c.Attr("node"), q.from)
		if err != nil {
			return err
		}
		for _, a := range all {
			list.Add("", "affiliation").SetAttr("node", a.Node).SetAttr("affiliation", a.As)
		}
		if !q.own() {
			return nil
		}
		nodes, err := pep.ReadNodes(v, q.account)
		for _, n := range sortedNames(nodes) {
			list.Add("", "affiliation").SetAttr("node", n).SetAttr("affiliation", pep.Owner)
		}
		return err
	})
	return out, err
}

func sortedNames[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// subscriptionOptions says that subscriptions have none.
//
// spec: XEP-0060 §6.3.4
func (q *question) subscriptionOptions(*element.Element) (answer, error) {
	return nil, pep.Unsupported("subscription-options")
}

// unsupportedFeature is the feature that a request asks for which nothing answers.
func unsupportedFeature(c *element.Element) string {
	if c == nil {
		return "retrieve-items"
	}
	return c.Name.Local
}
