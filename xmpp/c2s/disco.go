package c2s

import (
	"crypto/sha1" //nolint:gosec // the hash that entity capabilities are made with
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"parley/xmpp/adhoc"
	"parley/xmpp/element"
	"parley/xmpp/translate"
	"parley/xmpp/vcard"
)

// serverFeatures are what a domain of ours offers, in the order of their bytes.
var serverFeatures = sorted(adhoc.Namespace, nsDiscoInfo, nsDiscoItems, nsPing, nsRegister, nsVersion, nsTime, nsRoster, nsVCard, nsPrivate, nsBlocking, nsReporting, nsExtDisco,
	translate.NSCarbons, "urn:xmpp:carbons:rules:0", "msgoffline", nsPubSub+"#publish")

// accountFeatures are what the server offers on behalf of an account.
var accountFeatures = sorted(adhoc.Namespace, nsDiscoInfo, nsDiscoItems, nsVCard, translate.NSMAM, translate.NSMAM+"#extended", translate.NSSID,
	translate.NSRetract+"#tombstone", nsBlocking, "urn:xmpp:bookmarks:1#compat", "urn:xmpp:bookmarks:1#compat-pep", "urn:xmpp:bookmarks-conversion:0",
	vcard.NS4, nsAssist, "urn:xmpp:pep-vcard-conversion:0",
	nsPush, nsPubSub+"#publish", nsPubSub+"#access-presence", nsPubSub+"#access-open", nsPubSub+"#access-whitelist", nsPubSub+"#auto-create",
	nsPubSub+"#auto-subscribe", nsPubSub+"#filtered-notifications", nsPubSub+"#last-published", nsPubSub+"#persistent-items",
	nsPubSub+"#publish-options", nsPubSub+"#retrieve-items", nsPubSub+"#retract-items", nsPubSub+"#item-ids", nsPubSub+"#multi-items",
	nsPubSub+"#delete-nodes", nsPubSub+"#purge-nodes", nsPubSub+"#config-node", nsPubSub+"#config-node-max", nsPubSub+"#create-nodes",
	nsPubSub+"#create-and-configure", nsPubSub+"#presence-notifications",
	nsPubSub+"#access-authorize", nsPubSub+"#access-roster", nsPubSub+"#instant-nodes",
	nsPubSub+"#manage-subscriptions", nsPubSub+"#member-affiliation", nsPubSub+"#meta-data", nsPubSub+"#modify-affiliations",
	nsPubSub+"#outcast-affiliation", nsPubSub+"#publisher-affiliation", nsPubSub+"#publish-only-affiliation",
	nsPubSub+"#retrieve-affiliations", nsPubSub+"#retrieve-default", nsPubSub+"#retrieve-subscriptions", nsPubSub+"#rsm",
	nsPubSub+"#subscribe", nsPubSub+"#subscription-notifications")

func sorted(s ...string) []string {
	slices.Sort(s)
	return s
}

func discoInfo(node string, identities [][3]string, features []string) *element.Element {
	q := element.New(nsDiscoInfo, "query")
	if node != "" {
		q.SetAttr("node", node)
	}
	for _, i := range identities {
		id := q.Add("", "identity").SetAttr("category", i[0]).SetAttr("type", i[1])
		if i[2] != "" {
			id.SetAttr("name", i[2])
		}
	}
	for _, f := range features {
		q.Add("", "feature").SetAttr("var", f)
	}
	return q
}

var serverIdentities = [][3]string{{"server", "im", "Parley"}}

// serverInfo describes a domain.
//
// spec: XEP-0030 §3.1
func (q *question) serverInfo() (answer, error) {
	if info, ok, err := q.commandInfo(); ok {
		return info, err
	}
	node := q.payload.Attr("node")
	if node != "" && node != capsNode+"#"+q.srv.serverVer() {
		return nil, translate.Fail(translate.ItemNotFound, "")
	}
	return discoInfo(node, serverIdentities, serverFeatures).Append(q.srv.contactForm()), nil
}

// serverItems lists the services of a domain.
//
// spec: XEP-0030 §4.1
func (q *question) serverItems() (answer, error) {
	if items, ok := q.commandItems(); ok {
		return items, nil
	}
	items := element.New(nsDiscoItems, "query")
	labels := []string{uploadLabel}
	for l := range q.srv.services {
		labels = append(labels, l)
	}
	slices.Sort(labels)
	for _, l := range labels {
		items.Add("", "item").SetAttr("jid", l+"."+q.to.Domain)
	}
	if q.srv.Below != nil {
		for _, d := range q.srv.Below(q.to.Domain) {
			items.Add("", "item").SetAttr("jid", d)
		}
	}
	return items, nil
}

// accountInfo describes an account: to those who may see its presence. Others cannot tell whether there is one.
//
// spec: XEP-0030 §8
func (q *question) accountInfo() (answer, error) {
	if abroad(q.account) {
		return q.personInfo()
	}
	if info, ok, err := q.commandInfo(); ok {
		return info, err
	}
	if node := q.payload.Attr("node"); node != "" {
		return q.nodeInfo(node)
	}
	ids := [][3]string{{"account", "registered", ""}, {"pubsub", "pep", ""}}
	if q.own() {
		return discoInfo("", ids, accountFeatures), nil
	}
	if seen, err := q.mayBeSeen(); err != nil || !seen {
		return nil, errNobody
	}
	return discoInfo("", ids, slices.DeleteFunc(slices.Clone(accountFeatures), func(f string) bool {
		return strings.HasPrefix(f, translate.NSMAM) || f == nsBlocking || f == nsAssist
	})), nil
}

// accountItems lists the account's nodes that the asker may read.
//
// spec: XEP-0060 §5.5
func (q *question) accountItems() (answer, error) {
	if items, ok := q.commandItems(); ok {
		return items, nil
	}
	if node := q.payload.Attr("node"); node != "" {
		return q.nodeItemNames(node)
	}
	nodes, err := q.readableNodes()
	if err != nil {
		return nil, err
	}
	items := element.New(nsDiscoItems, "query")
	for _, n := range sortedNames(nodes) {
		item := items.Add("", "item").SetAttr("jid", q.to.String()).SetAttr("node", n)
		if t := nodes[n].Title; t != "" {
			item.SetAttr("name", t)
		}
	}
	return items, nil
}

// mayBeSeen says whether the account has consented that the asker sees it.
func (q *question) mayBeSeen() (bool, error) {
	if q.own() {
		return true, nil
	}
	return q.srv.sees(q.ctx, q.account, q.who)
}

// spec: XEP-0092 §2
func (q *question) version() (answer, error) {
	v := element.New(nsVersion, "query")
	v.Append(element.NewText(nsVersion, "name", "Parley"), element.NewText(nsVersion, "version", q.srv.Version))
	return v, nil
}

// spec: XEP-0202 §2
func (q *question) time() (answer, error) {
	t := element.New(nsTime, "time")
	t.Append(element.NewText(nsTime, "tzo", "Z"), element.NewText(nsTime, "utc", time.Now().UTC().Format("2006-01-02T15:04:05Z")))
	return t, nil
}

// capsNode names this software in entity capabilities.
const capsNode = "https://parley.example/caps"

// serverVer is the verification string of every domain here.
func (srv *Server) serverVer() string {
	return verification(serverIdentities, serverFeatures, srv.contactForm())
}

// verification hashes a description as entity capabilities do.
//
// spec: XEP-0115 §5.1
func verification(identities [][3]string, features []string, form *element.Element) string {
	var b strings.Builder
	var ids []string
	for _, i := range identities {
		ids = append(ids, i[0]+"/"+i[1]+"//"+i[2]+"<")
	}
	slices.Sort(ids)
	b.WriteString(strings.Join(ids, ""))
	for _, f := range features {
		b.WriteString(f + "<")
	}
	b.WriteString(formVerification(form))
	sum := sha1.Sum([]byte(b.String())) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// capsOf is the stream feature that says what a domain offers.
//
// spec: XEP-0115 §6.3
func (srv *Server) capsOf(string) *element.Element {
	return element.New(nsCaps, "c").SetAttr("hash", "sha-1").SetAttr("node", capsNode).SetAttr("ver", srv.serverVer())
}
