package s2s

import (
	"context"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// AttachForeign tells the carrier who is in the rooms of other servers for local accounts. It is called once, before anything else.
func (c *Carrier) AttachForeign(f *foreign.Service) { c.foreign = f }

// elsewhere is the conversation for which a destination stands, if it is a room of another server.
func elsewhere(dest string) (core.ConvID, bool) {
	_, conv, ok := strings.Cut(dest, "/")
	return core.ConvID(conv), ok
}

// doubt has those looked after who are in rooms of servers of which a stream broke.
func (c *Carrier) doubt(heard map[stream.Pair]time.Time) {
	if c.foreign == nil {
		return
	}
	for pair := range heard {
		c.foreign.Doubt(pair.Remote)
	}
}

// occupant takes what a room of another server sends to one of our occupants.
func (c *Carrier) occupant(st *element.Element, from, to translate.JID) bool {
	if c.foreign == nil || to.Resource == "" {
		return false
	}
	account, err := c.names.Address(to.Bare())
	return err == nil && c.foreign.Take(st, from, to, account)
}

// invited takes an invitation into a room of another server, from the room or from a person; false if a message is none.
func (c *Carrier) invited(ctx context.Context, v visit, account core.Address) (taken bool, err error) {
	if c.foreign == nil || v.st.Attr("type") == "groupchat" {
		return false, nil
	}
	inv, by := translate.Invitation{}, v.who
	x, direct := v.st.Child(translate.NSMUCUser, "x"), v.st.Child(translate.NSConference, "x")
	switch {
	case x.Child("", "invite") != nil:
		i := x.Child("", "invite")
		inv = translate.Invitation{Room: v.from.Bare(), Reason: i.ChildText("", "reason"), Password: x.ChildText("", "password")}
		by = c.inviter(i.Attr("from"), v.from)
	case direct != nil:
		room, err := translate.ParseJID(direct.Attr("jid"))
		if err != nil || c.ours(room.Domain) {
			return false, nil //nolint:nilerr // then it is no invitation of this kind
		}
		inv = translate.Invitation{Room: room.Bare(), Reason: direct.Attr("reason"), Password: direct.Attr("password")}
	default:
		return false, nil
	}
	if err := c.stranger(ctx, v, account); err != nil {
		return true, err
	}
	if blocked, err := c.hub.Blocks(ctx, account, by); err != nil || blocked {
		return true, err
	}
	return true, c.foreign.Invited(ctx, account, by, inv)
}

// inviter is who a room says has invited: an occupant, or somebody by her address; the room where it does not say.
func (c *Carrier) inviter(from string, room translate.JID) core.Address {
	at := core.Address{Network: core.XMPP, Name: room.Local, Domain: room.Domain}
	j, err := translate.ParseJID(from)
	if err != nil {
		return at
	}
	if j.Bare() == room.Bare() && j.Resource != "" {
		return core.OccupantAddress(at, j.Resource)
	}
	a, err := c.names.Address(j.Bare())
	if err != nil || a.Name == "" {
		return at
	}
	return a
}

// toOccupant says as whom an account speaks to the occupant of a room of another server; talk is false for anybody else.
func (c *Carrier) toOccupant(account, to core.Address) (from translate.JID, talk bool, err error) {
	if _, _, talk = to.Occupant(); !talk || c.foreign == nil {
		return translate.JID{}, false, nil
	}
	from, in := c.foreign.AsOccupant(account, to)
	if !in {
		err = hub.Refuse(hub.NotMember, "you are not in the room of %s", to.Bare())
	}
	return from, true, err
}
