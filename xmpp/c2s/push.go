package c2s

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// The namespaces of push notifications.
const (
	nsPush           = "urn:xmpp:push:0"
	formPushSummary  = "urn:xmpp:push:summary"
	formPublishOpts  = nsPubSub + "#publish-options"
	maxPushPerClient = 20      // services that one account has enabled
	maxPushOptions   = 8 << 10 // bytes of the form to publish with
)

// PushSummary says how much push services, which others run, are told of messages.
type PushSummary string

// The amounts: how many messages wait; also whose the last is; also what it says, unless it is encrypted.
const (
	PushCount  PushSummary = "count"
	PushSender PushSummary = "sender"
	PushBody   PushSummary = "body"
)

// pushTarget is one service that a client has enabled.
type pushTarget struct {
	account       core.Address
	service, node string
	resource      string
	options       *element.Element // nil for none
	failures      int
}

// pushKey names a target among all.
type pushKey struct {
	account       core.Address
	service, node string
}

func (t *pushTarget) key() pushKey { return pushKey{t.account, t.service, t.node} }

// pushEnable has a service told of what happens while the client is not there. Enabled again, its options are the latest.
//
// spec: XEP-0357 §5
func (q *question) pushEnable() (answer, error) {
	service, err := translate.ParseJID(q.payload.Attr("jid"))
	node := q.payload.Attr("node")
	if err != nil || len(node) > pep.MaxNodeName || service.String() == q.s.jid.Bare().String() {
		return nil, translate.Fail(translate.BadRequest, "the JID of a push service is missing, or the node's name is too long")
	}
	t := pushTarget{account: q.account, service: service.String(), node: node, resource: q.s.jid.Resource}
	if x := q.payload.Child(nsData, "x"); x != nil {
		if _, ok := readForm(x, formPublishOpts); !ok {
			return nil, translate.Fail(translate.BadRequest, "this is no submitted form of publish-options")
		}
		if len(element.Marshal(x)) > maxPushOptions {
			return nil, translate.Fail(translate.NotAcceptable, "these options are too long")
		}
		t.options = x.Copy()
	}
	err = q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		if err := putPush(hubstore.Tx(tx), &t); err != nil {
			return err
		}
		return q.s.Counted(tx)
	})
	if err == nil {
		q.srv.push.enabled(t.key())
	}
	return nil, err
}

// pushDisable has a service, or one node of it, told no more.
//
// spec: XEP-0357 §6
func (q *question) pushDisable() (answer, error) {
	service, err := translate.ParseJID(q.payload.Attr("jid"))
	if err != nil {
		return nil, translate.Fail(translate.BadRequest, "the JID of a push service is missing")
	}
	node, one := q.payload.LookupAttr("", "node")
	if one {
		return nil, q.srv.push.remove(q.ctx, pushKey{q.account, service.String(), node})
	}
	targets, err := q.srv.push.targets(q.ctx, q.account)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		if t.service == service.String() {
			if err := q.srv.push.remove(q.ctx, t.key()); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func putPush(tx *store.Tx, t *pushTarget) error {
	var n int64
	err := tx.QueryRow(`SELECT COUNT(*) FROM xmpp_push WHERE account = $1 AND NOT (service = $2 AND node = $3)`,
		t.account.String(), t.service, t.node).Scan(&n)
	if err != nil {
		return err
	}
	if n >= maxPushPerClient {
		return translate.Fail(translate.ResourceConstraint, "this account has enabled too many push services")
	}
	options := []byte{}
	if t.options != nil {
		options = element.Marshal(t.options)
	}
	_, err = tx.Exec(`INSERT INTO xmpp_push (account, service, node, resource, options, failures, changed)
		VALUES ($1, $2, $3, $4, $5, 0, $6) ON CONFLICT (account, service, node) DO UPDATE SET
		resource = excluded.resource, options = excluded.options, failures = 0, changed = excluded.changed`,
		t.account.String(), t.service, t.node, t.resource, options, time.Now().UnixMilli())
	return err
}

// targets are what an account has enabled.
func (p *pusher) targets(ctx context.Context, account core.Address) (all []pushTarget, err error) {
	scan := func(row store.Scanner) (pushTarget, error) {
		t := pushTarget{account: account}
		var options []byte
		err := row.Scan(&t.service, &t.node, &t.resource, &options, &t.failures)
		if err == nil && len(options) > 0 {
			t.options, err = element.Parse(options, pep.StoredLimits)
		}
		return t, err
	}
	err = p.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		all, err = store.List(hubstore.Querier(v), scan, `SELECT service, node, resource, options, failures FROM xmpp_push
			WHERE account = $1 ORDER BY service, node`, account.String())
		return err
	})
	return all, err
}

// accounts are those that have enabled anything.
func (p *pusher) accounts(ctx context.Context) (all []string, err error) {
	err = p.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		all, err = store.List(hubstore.Querier(v), store.Column[string], `SELECT DISTINCT account FROM xmpp_push`)
		return err
	})
	return all, err
}

// remove disables a target for good.
func (p *pusher) remove(ctx context.Context, k pushKey) error {
	return p.srv.Hub.Write(ctx, func(tx hub.Tx) error {
		_, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_push WHERE account = $1 AND service = $2 AND node = $3`,
			k.account.String(), k.service, k.node)
		return err
	})
}

// setFailures keeps how often in a row a target could not be told.
func (p *pusher) setFailures(ctx context.Context, k pushKey, n int) error {
	return p.srv.Hub.Write(ctx, func(tx hub.Tx) error {
		_, err := hubstore.Tx(tx).Exec(`UPDATE xmpp_push SET failures = $1 WHERE account = $2 AND service = $3 AND node = $4`,
			int64(n), k.account.String(), k.service, k.node)
		return err
	})
}
