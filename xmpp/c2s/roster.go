package c2s

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// Limits on one entry of the roster, in bytes.
const (
	maxRosterName  = 1023
	maxRosterGroup = 1023
)

// roster returns the contact list.
//
// spec: RFC 6121 §2.1.3
func (q *question) roster() (answer, error) {
	if q.s == nil {
		return nil, errNobody
	}
	q.s.interest = true
	items, err := q.srv.rosterItems(q.ctx, q.who)
	if err != nil {
		return nil, err
	}
	list := element.New(nsRoster, "query")
	// spec: XEP-0237 §2
	given, versions := q.payload.LookupAttr("", "ver")
	if q.s.versions = versions; versions {
		ver := rosterVersion(items)
		if given == ver {
			return nil, nil // spec: RFC 6121 §2.6.3
		}
		list.SetAttr("ver", ver)
	}
	return list.Append(items...), nil
}

func (srv *Server) rosterItems(ctx context.Context, account core.Address) ([]*element.Element, error) {
	contacts, _, err := srv.Hub.Contacts(ctx, account)
	if err != nil {
		return nil, err
	}
	var items []*element.Element
	for _, c := range contacts {
		if c.Listed {
			items = append(items, srv.rosterItem(c))
		}
	}
	return items, nil
}

// rosterItem is one entry.
//
// spec: RFC 6121 §2.1.2
func (srv *Server) rosterItem(c core.Contact) *element.Element {
	item := element.New(nsRoster, "item").SetAttr("jid", srv.names.JID(c.Address).String())
	if c.Name != "" {
		item.SetAttr("name", c.Name)
	}
	sub := "none"
	switch {
	case c.Sees && c.Seen:
		sub = "both"
	case c.Sees:
		sub = "from"
	case c.Seen:
		sub = "to"
	}
	item.SetAttr("subscription", sub)
	if c.Asked {
		item.SetAttr("ask", "subscribe")
	}
	if c.Approved {
		item.SetAttr("approved", "true")
	}
	for _, g := range c.Groups {
		item.Append(element.NewText(nsRoster, "group", g))
	}
	return item
}

// rosterVersion names a state of the roster by its content.
func rosterVersion(items []*element.Element) string {
	lines := make([]string, len(items))
	for i, it := range items {
		lines[i] = it.String()
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:12])
}

// rosterSet adds, changes or removes one entry.
//
// spec: RFC 6121 §2.3
// spec: RFC 6121 §2.5
func (q *question) rosterSet() (answer, error) {
	items := q.payload.ChildrenNamed("", "item")
	if len(items) != 1 {
		return nil, translate.Fail(translate.BadRequest, "a roster set has one item")
	}
	j, err := translate.ParseJID(items[0].Attr("jid"))
	if err != nil || j.Resource != "" {
		return nil, translate.Fail(translate.BadRequest, "an item has a bare JID")
	}
	a, err := q.srv.names.Address(j)
	if err != nil || a == q.who {
		return nil, translate.Fail(translate.NotAllowed, "this cannot be a contact")
	}
	if items[0].Attr("subscription") == "remove" {
		err := q.srv.Hub.RemoveContact(q.ctx, q.who, a)
		return nil, err
	}
	name := items[0].Attr("name")
	var groups []string
	for _, g := range items[0].ChildrenNamed("", "group") {
		t := g.Text()
		if t == "" || len(t) > maxRosterGroup {
			return nil, translate.Fail(translate.NotAcceptable, "a group has a name of at most 1023 bytes")
		}
		if slices.Contains(groups, t) {
			return nil, translate.Fail(translate.BadRequest, "a group is named twice")
		}
		groups = append(groups, t)
	}
	if len(name) > maxRosterName {
		return nil, translate.Fail(translate.NotAcceptable, "a contact has a name of at most 1023 bytes")
	}
	if len(groups) > q.srv.MaxGroups {
		return nil, q.srv.Guard.Over(guard.RosterGroups, translate.NotAcceptable, "a contact is in at most %d groups", q.srv.MaxGroups)
	}
	return nil, q.srv.Hub.SetContact(q.ctx, q.who, a, name, groups)
}

// contactNews pushes a changed entry, and tells the client what the contact did.
//
// spec: RFC 6121 §2.1.6
func (s *Session) contactNews(ctx context.Context, n hub.ContactNews) error {
	if n.Notice != nil && s.Available() {
		s.tellNotice(*n.Notice)
	}
	if !s.interest {
		return nil
	}
	item := s.srv.rosterItem(n.Contact)
	if n.Removed {
		if n.Notice != nil {
			return nil // a request of one who is not on the list changes nothing there
		}
		item = element.New(nsRoster, "item").SetAttr("jid", item.Attr("jid")).SetAttr("subscription", "remove")
	}
	q := element.New(nsRoster, "query").Append(item)
	if s.versions {
		items, err := s.srv.rosterItems(ctx, s.account)
		if err != nil {
			return err
		}
		q.SetAttr("ver", rosterVersion(items))
	}
	push := element.New(translate.NSClient, "iq").SetAttr("type", "set").SetAttr("id", core.NewToken()[:16]).SetAttr("to", s.jid.String())
	s.Send(push.Append(q))
	return nil
}

// tellNotice shows the client a step of consent.
func (s *Session) tellNotice(n hub.ContactNotice) {
	s.Send(translate.Notice(s.srv.names, n).SetAttr("to", s.jid.Bare().String()))
}

// sees says whether account has consented that who sees it.
func (srv *Server) sees(ctx context.Context, account, who core.Address) (bool, error) {
	var c core.Contact
	err := srv.Hub.Read(ctx, func(v hub.View) (err error) {
		c, err = v.Contact(account, who)
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		return false, nil
	}
	return c.Sees, err
}
