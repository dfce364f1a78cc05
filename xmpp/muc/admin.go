package muc

import (
	"context"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// list shows who has an affiliation or a role.
//
// spec: XEP-0045 §9.5
func (s *Service) list(ctx context.Context, q *question) (*element.Element, error) {
	item := q.body.Child("", "item")
	affiliation, role := hub.Affiliation(item.Attr("affiliation")), item.Attr("role")
	if mine := affiliationOf(q.st, q.Who); mine != hub.Owner && mine != hub.Admin && roleOf(q.st, q.Who) != moderator {
		return nil, translate.Fail(translate.ForbiddenError, "only moderators see these lists")
	}
	kept := map[core.Address]bool{}
	err := s.Hub.Read(ctx, func(v hub.View) error {
		all, err := v.Affiliated(q.conv.ID)
		for _, a := range all {
			kept[a] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := element.New(nsAdmin, "query")
	add := func(a core.Address) {
		m := q.st.Members[a]
		have := hub.AffiliationOf(q.st, a, kept[a])
		if affiliation != "" && have != affiliation || role != "" && roleOf(q.st, a) != role {
			return
		}
		it := out.Add("", "item")
		it.SetAttr("affiliation", string(have))
		it.SetAttr("jid", s.Names.JID(a).String())
		if m.Standing == core.Joined {
			it.SetAttr("nick", m.Nick)
			it.SetAttr("role", roleOf(q.st, a))
		}
	}
	seen := map[core.Address]bool{}
	for _, m := range q.st.With(core.Joined, core.Invited, core.Banned, core.Left) {
		seen[m.Address] = true
		add(m.Address)
	}
	for a := range kept {
		if !seen[a] {
			add(a)
		}
	}
	slices.SortFunc(out.Children, func(a, b element.Node) int {
		return strings.Compare(a.(*element.Element).Attr("jid"), b.(*element.Element).Attr("jid"))
	})
	return out, nil
}

// administer changes roles and affiliations.
//
// spec: XEP-0045 §8.2
// spec: XEP-0045 §9.1
func (s *Service) administer(ctx context.Context, q *question) (*element.Element, error) {
	items := q.body.ChildrenNamed("", "item")
	if len(items) == 0 || len(items) > 100 {
		return nil, translate.Fail(translate.BadRequest, "between one and a hundred items, please")
	}
	for _, item := range items {
		who, err := s.named(q, item)
		if err != nil {
			return nil, err
		}
		reason := item.ChildText("", "reason")
		if a := item.Attr("affiliation"); a != "" {
			err = s.affiliate(ctx, q, who, hub.Affiliation(a), reason)
		} else {
			err = s.setRole(ctx, q, who, item.Attr("role"), reason)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// named finds whom an item means: by nick, or by address.
func (s *Service) named(q *question, item *element.Element) (core.Address, error) {
	if nick := item.Attr("nick"); nick != "" {
		if who, here := called(q.st, nick); here {
			return who, nil
		}
		return core.Address{}, translate.Fail(translate.ItemNotFound, "nobody here is called "+nick)
	}
	j, err := translate.ParseJID(item.Attr("jid"))
	if err != nil {
		return core.Address{}, translate.Fail(translate.JIDMalformed, "")
	}
	a, err := s.Names.Address(j.Bare())
	if err != nil {
		return a, translate.Fail(translate.ItemNotFound, "nobody has that address")
	}
	return a, nil
}

func (s *Service) affiliate(ctx context.Context, q *question, who core.Address, to hub.Affiliation, reason string) error {
	switch to {
	case hub.Owner, hub.Admin, hub.AsMember, hub.Unaffiliated, hub.Outcasts:
		return s.Hub.Affiliate(ctx, q.conv.ID, q.Who, who, to, reason)
	}
	return translate.Fail(translate.BadRequest, "there is no such affiliation")
}

// setRole kicks, or sets whether one may speak or moderate: a role is a level
// here, and so lasts as long as the membership.
//
// spec: XEP-0045 §8.2
// spec: XEP-0045 §8.3
func (s *Service) setRole(ctx context.Context, q *question, who core.Address, role, reason string) error {
	if role == noRole {
		_, err := s.Hub.Submit(ctx, hub.Draft{
			Conv: q.conv.ID, Sender: q.Who, With: q.With,
			Content: core.Membership{Target: who, Standing: core.Left, Reason: reason},
		})
		return err
	}
	speak := q.st.Needs("message", false)
	level, ok := map[string]int64{
		moderator: max(50, q.st.Levels.Kick), participant: max(speak, q.st.Levels.Default), visitor: speak - 1,
	}[role]
	if !ok {
		return translate.Fail(translate.BadRequest, "there is no such role")
	}
	return s.Hub.ChangeLevels(ctx, q.conv.ID, q.Who, func(_ *core.State, l *core.Levels) {
		if l.Users[who] = level; level == l.Default {
			delete(l.Users, who)
		}
	})
}
