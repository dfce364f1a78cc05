package pep

import (
	"errors"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/translate"
)

// Affiliations with a node. The account itself is an owner always.
//
// spec: XEP-0060 §4.1
const (
	Owner       = "owner"
	Publisher   = "publisher"
	PublishOnly = "publish-only"
	Member      = "member"
	None        = "none"
	Outcast     = "outcast"
)

// States of a subscription.
//
// spec: XEP-0060 §4.2
const (
	Subscribed   = "subscribed"
	Pending      = "pending"
	Unsubscribed = "none"
)

// Subscription is one that was asked for, other than those that come with presence.
type Subscription struct {
	Node  string
	JID   translate.JID
	State string
}

// Affiliated is an affiliation of somebody with a node.
type Affiliated struct {
	Node string
	Who  translate.JID // bare
	As   string
}

// Affiliation is that of one entity.
func Affiliation(v hub.View, account core.Address, node string, who translate.JID) (as string, err error) {
	err = hubstore.Querier(v).QueryRow(`SELECT affiliation FROM xmpp_pep_affiliations WHERE account = $1 AND node = $2 AND who = $3`,
		account.String(), node, who.Bare().String()).Scan(&as)
	if store.NotFound(err) {
		return None, nil
	}
	return as, err
}

// Affiliations are those with a node, of somebody, or with every node; what is empty is no bound.
func Affiliations(v hub.View, account core.Address, node string, who translate.JID) ([]Affiliated, error) {
	return store.List(hubstore.Querier(v), func(row store.Scanner) (a Affiliated, err error) {
		var jid string
		if err := row.Scan(&a.Node, &jid, &a.As); err != nil {
			return a, err
		}
		a.Who, err = translate.ParseJID(jid)
		return a, err
	}, `SELECT node, who, affiliation FROM xmpp_pep_affiliations WHERE account = $1
		AND ($2 = '' OR node = $2) AND ($3 = '' OR who = $3) ORDER BY node, who`, account.String(), node, who.Bare().String())
}

// SetAffiliation changes an affiliation.
//
// spec: XEP-0060 §8.9.2
func SetAffiliation(tx hub.Tx, account core.Address, a Affiliated) error {
	if !slices.Contains([]string{Owner, Publisher, PublishOnly, Member, None, Outcast}, a.As) {
		return translate.Fail(translate.BadRequest, "there is no such affiliation")
	}
	sql := hubstore.Tx(tx)
	if a.As == None {
		_, err := sql.Exec(`DELETE FROM xmpp_pep_affiliations WHERE account = $1 AND node = $2 AND who = $3`,
			account.String(), a.Node, a.Who.Bare().String())
		return err
	}
	if err := room(tx, "xmpp_pep_affiliations", account, a.Node); err != nil {
		return err
	}
	_, err := sql.Exec(`INSERT INTO xmpp_pep_affiliations (account, node, who, affiliation) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, node, who) DO UPDATE SET affiliation = excluded.affiliation`,
		account.String(), a.Node, a.Who.Bare().String(), a.As)
	return err
}

// room refuses more than a node may have.
func room(tx hub.Tx, table string, account core.Address, node string) error {
	var n int64
	err := hubstore.Tx(tx).QueryRow(`SELECT COUNT(*) FROM `+table+` WHERE account = $1 AND node = $2`, account.String(), node).Scan(&n)
	if err == nil && n >= MaxMembers {
		err = Fail(translate.PolicyViolation, "too-many-subscriptions")
	}
	return err
}

// Subscriptions are those to a node, or, with an empty one, to every node.
func Subscriptions(v hub.View, account core.Address, node string) ([]Subscription, error) {
	return store.List(hubstore.Querier(v), func(row store.Scanner) (s Subscription, err error) {
		var jid string
		if err := row.Scan(&s.Node, &jid, &s.State); err != nil {
			return s, err
		}
		s.JID, err = translate.ParseJID(jid)
		return s, err
	}, `SELECT node, jid, state FROM xmpp_pep_subscriptions WHERE account = $1
		AND ($2 = '' OR node = $2) ORDER BY node, jid`, account.String(), node)
}

// SubscriptionsOf are those of one person, to a node or to every node.
func SubscriptionsOf(v hub.View, account core.Address, node string, who translate.JID) ([]Subscription, error) {
	all, err := Subscriptions(v, account, node)
	return slices.DeleteFunc(all, func(s Subscription) bool { return s.JID.Bare() != who.Bare() }), err
}

// SetSubscription changes a subscription, or ends it.
func SetSubscription(tx hub.Tx, account core.Address, s Subscription) error {
	sql := hubstore.Tx(tx)
	if s.State == Unsubscribed {
		_, err := sql.Exec(`DELETE FROM xmpp_pep_subscriptions WHERE account = $1 AND node = $2 AND jid = $3`,
			account.String(), s.Node, s.JID.String())
		return err
	}
	if s.State != Subscribed && s.State != Pending {
		return translate.Fail(translate.BadRequest, "there is no such state of a subscription")
	}
	if err := room(tx, "xmpp_pep_subscriptions", account, s.Node); err != nil {
		return err
	}
	_, err := sql.Exec(`INSERT INTO xmpp_pep_subscriptions (account, node, jid, state) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, node, jid) DO UPDATE SET state = excluded.state`, account.String(), s.Node, s.JID.String(), s.State)
	return err
}

// Asker is one who wants something of a node.
type Asker struct {
	Who core.Address
	JID translate.JID
}

// owns says whether the asker is the account itself.
func (a Asker) owns(account core.Address) bool { return a.Who == account }

// MayRead refuses those who may not read a node.
//
// spec: XEP-0060 §4.5
// spec: XEP-0060 §6.5.9
func MayRead(v hub.View, account core.Address, node string, c Config, a Asker) error {
	if a.owns(account) {
		return nil
	}
	as, err := Affiliation(v, account, node, a.JID)
	if err != nil {
		return err
	}
	switch as {
	case Outcast, PublishOnly:
		return translate.Fail(translate.ForbiddenError, "")
	case Owner, Publisher, Member:
		return nil
	}
	switch c.Access {
	case Open:
		return nil
	case Presence, Roster:
		return seesIn(v, account, c, a)
	case Authorize:
		subs, err := SubscriptionsOf(v, account, node, a.JID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(subs, func(s Subscription) bool { return s.State == Subscribed }) {
			return nil
		}
		return Fail(translate.NotAuthorizedError, "not-subscribed")
	}
	return Fail(translate.NotAllowed, "closed-node")
}

// seesIn refuses those who do not see the account, or are in none of the groups.
func seesIn(v hub.View, account core.Address, c Config, a Asker) error {
	contact, err := v.Contact(account, a.Who)
	if err != nil && !errors.Is(err, hub.ErrNone) {
		return err
	}
	switch {
	case c.Access == Presence && (err != nil || !contact.Sees):
		return Fail(translate.NotAuthorizedError, "presence-subscription-required")
	case c.Access == Roster && (err != nil || !contact.Sees || !inGroups(contact, c.Groups)):
		return Fail(translate.NotAuthorizedError, "not-in-roster-group")
	}
	return nil
}

func inGroups(c core.Contact, groups []string) bool {
	return slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(groups, g) })
}

// MayPublish refuses those who may not publish.
//
// spec: XEP-0060 §7.1.3.1
func MayPublish(v hub.View, account core.Address, node string, c Config, a Asker) error {
	if a.owns(account) {
		return nil
	}
	as, err := Affiliation(v, account, node, a.JID)
	if err != nil {
		return err
	}
	switch {
	case as == Owner || as == Publisher || as == PublishOnly:
		return nil
	case as == Outcast:
	case c.PublishModel() == ByAll:
		return MayRead(v, account, node, c, a)
	case c.PublishModel() == BySubscribers:
		subs, err := SubscriptionsOf(v, account, node, a.JID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(subs, func(s Subscription) bool { return s.State == Subscribed }) {
			return nil
		}
	}
	return translate.Fail(translate.ForbiddenError, "")
}

// MayOwn refuses those who may not configure a node.
//
// spec: XEP-0060 §8
func MayOwn(v hub.View, account core.Address, node string, a Asker) error {
	if a.owns(account) {
		return nil
	}
	as, err := Affiliation(v, account, node, a.JID)
	if err == nil && as != Owner {
		err = translate.Fail(translate.ForbiddenError, "")
	}
	return err
}

// Node reads the configuration of a node that must be there.
func Node(v hub.View, account core.Address, node string) (Config, error) {
	c, found, err := ReadNode(v, account, node)
	if err == nil && !found {
		err = errNoNode
	}
	return c, err
}

// Audience are the contacts who hear of a node because they see the account's presence, and the expressed subscriptions of those who
// may read it.
//
// spec: XEP-0163 §4.3
func Audience(v hub.View, names translate.Names, account core.Address, node string, c Config) (contacts []core.Address, subs []Subscription, err error) {
	all, err := v.Contacts(account)
	if err != nil {
		return nil, nil, err
	}
	refused := func(err error) bool { _, ok := errors.AsType[*translate.Error](err); return ok }
	for _, contact := range all {
		if !contact.Sees {
			continue
		}
		err := MayRead(v, account, node, c, Asker{contact.Address, names.JID(contact.Address)})
		if err == nil {
			contacts = append(contacts, contact.Address)
		} else if !refused(err) {
			return nil, nil, err
		}
	}
	asked, err := Subscriptions(v, account, node)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range asked {
		if s.State != Subscribed {
			continue
		}
		who, err := names.Address(s.JID.Bare())
		if err != nil {
			continue
		}
		if err := MayRead(v, account, node, c, Asker{who, s.JID}); err == nil {
			subs = append(subs, s)
		} else if !refused(err) {
			return nil, nil, err
		}
	}
	return contacts, subs, nil
}
