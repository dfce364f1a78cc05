package c2s

import (
	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// maxBlock is how many JIDs may be blocked at a time.
const maxBlock = 200

// nsReporting is that of reports, which go with blocking, and nsAbuse the one reason for them that is worse than spam.
const (
	nsReporting = "urn:xmpp:reporting:1"
	nsAbuse     = "urn:xmpp:reporting:abuse"
)

// blocklist returns the one block list of the account.
//
// spec: XEP-0191 §3.2
func (q *question) blocklist() (answer, error) {
	if q.s == nil {
		return nil, errNobody
	}
	var all []core.Address
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		all, err = v.Blocks(q.who)
		return err
	})
	list := element.New(nsBlocking, "blocklist")
	for _, a := range all {
		list.Add("", "item").SetAttr("jid", q.srv.names.JID(a).String())
	}
	return list, err
}

// block puts JIDs on the list; a domain is a whole server.
//
// spec: XEP-0191 §3.3
func (q *question) block() (answer, error) {
	who, err := q.blocked()
	if err != nil {
		return nil, err
	}
	if len(who) == 0 {
		return nil, translate.Fail(translate.BadRequest, "whom?")
	}
	if err := q.srv.Hub.Block(q.ctx, q.who, who...); err != nil {
		return nil, err
	}
	for i, it := range q.payload.ChildrenNamed("", "item") {
		q.blame(who[i], it)
	}
	return nil, nil
}

// blame spoils the name of the foreign server of somebody who is blocked or, worse, reported.
//
// spec: XEP-0377 §6
func (q *question) blame(who core.Address, item *element.Element) {
	if who.Network != core.XMPP {
		return
	}
	points := guard.ScoreBlocked
	if r := item.Child(nsReporting, "report"); r != nil {
		points = guard.ScoreReported
		q.srv.Log.Info("an account reports somebody on another server", "account", q.who.Bare(), "reported", who.Bare(),
			"abuse", r.Attr("reason") == nsAbuse)
	}
	q.srv.Guard.Blame(q.who.String(), who.Domain, points)
}

// unblock takes JIDs off the list, or all of them.
//
// spec: XEP-0191 §3.4
// spec: XEP-0191 §3.5
func (q *question) unblock() (answer, error) {
	who, err := q.blocked()
	if err != nil {
		return nil, err
	}
	if len(who) == 0 {
		err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
			who, err = v.Blocks(q.who)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return nil, q.srv.Hub.Unblock(q.ctx, q.who, who...)
}

func (q *question) blocked() ([]core.Address, error) {
	var out []core.Address
	items := q.payload.ChildrenNamed("", "item")
	if len(items) > maxBlock {
		return nil, translate.Fail(translate.ResourceConstraint, "too many at a time")
	}
	for _, it := range items {
		j, err := translate.ParseJID(it.Attr("jid"))
		if err != nil {
			return nil, translate.Fail(translate.JIDMalformed, "")
		}
		a, err := q.srv.names.Address(j.Bare())
		if err != nil {
			return nil, translate.Fail(translate.ItemNotFound, "")
		}
		out = append(out, a)
	}
	return out, nil
}

// blockNews pushes a change of the list to the client.
//
// spec: XEP-0191 §3.3
func (s *Session) blockNews(n hub.BlockNews) {
	name := "unblock"
	if n.Blocked {
		name = "block"
	}
	push := element.New(translate.NSClient, "iq").SetAttr("type", "set").SetAttr("id", core.NewToken()[:16]).SetAttr("to", s.jid.String())
	push.Add(nsBlocking, name).Add("", "item").SetAttr("jid", s.srv.names.JID(n.Who).String())
	s.Send(push)
}
