package muc

import (
	"context"
	"strconv"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// question is one request to a room.
type question struct {
	Visit
	to   translate.JID
	iq   *element.Element
	body *element.Element // its payload
	conv core.Conversation
	st   *core.State
	// inside says that the asking session is in the room.
	inside bool
}

// The requests that a room answers, by type, namespace and name.
var roomTable = map[string]func(*Service, context.Context, *question) (*element.Element, error){
	"get " + nsDisco + " query":                 (*Service).roomInfo,
	"get " + nsItems + " query":                 (*Service).roomItems,
	"get " + nsPing + " ping":                   (*Service).pong,
	"get " + nsAdmin + " query":                 (*Service).list,
	"set " + nsAdmin + " query":                 (*Service).administer,
	"get " + nsOwner + " query":                 (*Service).config,
	"set " + nsOwner + " query":                 (*Service).configure,
	"set " + translate.NSMAM + " query":         (*Service).archive,
	"get " + translate.NSMAM + " query":         (*Service).archiveForm,
	"get " + translate.NSMAM + " metadata":      (*Service).archiveEnds,
	"set " + translate.NSModerate + " moderate": (*Service).moderate,
}

func (s *Service) roomIQ(ctx context.Context, v Visit, to translate.JID, iq *element.Element) error {
	q := &question{Visit: v, to: to, iq: iq, body: iq.First()}
	if q.body == nil {
		return translate.Fail(translate.BadRequest, "an iq needs a payload")
	}
	if to.Resource != "" {
		return s.occupantIQ(ctx, q)
	}
	answer := roomTable[iq.Attr("type")+" "+q.body.Name.Space+" "+q.body.Name.Local]
	if answer == nil {
		return translate.Fail(translate.ServiceUnavailable, "")
	}
	var err error
	if q.conv, q.st, err = s.open(ctx, to); err != nil {
		return err
	}
	q.inside = s.session(q.conv.ID, v.From) != nil
	result, err := answer(s, ctx, q)
	if err != nil {
		return err
	}
	s.reply(v, iq, result)
	return nil
}

// reply answers an iq; a nil payload makes an empty result.
func (s *Service) reply(v Visit, iq, payload *element.Element) {
	r := element.New(translate.NSClient, "iq")
	r.SetAttr("type", "result")
	r.SetAttr("id", iq.Attr("id"))
	r.SetAttr("from", iq.Attr("to"))
	r.Append(payload)
	s.tell(v, r)
}

// occupantIQ answers a self-ping. All else asked of an occupant would have to
// go to one of several sessions, or to none: it is refused.
//
// spec: XEP-0410 §3
func (s *Service) occupantIQ(ctx context.Context, q *question) error {
	c, st, err := s.open(ctx, q.to)
	if e, ok := err.(*translate.Error); ok && e.Condition == translate.ItemNotFound { //nolint:errorlint // find returns it bare
		return translate.Fail(translate.NotAcceptable, "you are not in this room")
	}
	if err != nil {
		return err
	}
	if s.session(c.ID, q.From) == nil {
		return translate.Fail(translate.NotAcceptable, "you are not in this room")
	}
	holder, taken := called(st, q.to.Resource)
	if !taken {
		return translate.Fail(translate.ItemNotFound, "nobody here is called "+q.to.Resource)
	}
	if holder == q.Who && q.body.Is(nsPing, "ping") {
		s.reply(q.Visit, q.iq, nil)
		return nil
	}
	return translate.Fail(translate.ServiceUnavailable, "")
}

func (s *Service) pong(context.Context, *question) (*element.Element, error) { return nil, nil }

// serviceIQ answers what is asked of rooms.DOMAIN itself.
func (s *Service) serviceIQ(ctx context.Context, v Visit, to translate.JID, iq *element.Element) error {
	body := iq.First()
	if iq.Attr("type") != "get" || body == nil {
		return translate.Fail(translate.ServiceUnavailable, "")
	}
	switch {
	case body.Is(nsDisco, "query") && body.Attr("node") == "":
		q := element.New(nsDisco, "query")
		identity(q, "conference", "text", "Rooms")
		features(q, nsDisco, nsItems, nsPing, translate.NSMUC, translate.NSOccupantID, "urn:xmpp:mam:2", nsRSM)
		s.reply(v, iq, q)
	case body.Is(nsItems, "query"):
		q, err := s.roomList(ctx, to.Domain, body)
		if err != nil {
			return err
		}
		s.reply(v, iq, q)
	case body.Is(nsPing, "ping"):
		s.reply(v, iq, nil)
	default:
		return translate.Fail(translate.ServiceUnavailable, "")
	}
	return nil
}

// roomList is the list of public rooms of one domain.
//
// spec: XEP-0045 §6.3
//
// spec: XEP-0059 §2
func (s *Service) roomList(ctx context.Context, service string, asked *element.Element) (*element.Element, error) {
	domain, _ := s.Names.RoomsOf(service)
	list := pageOf(asked, s.MaxItems)
	err := s.Hub.Read(ctx, func(v hub.View) error {
		ids, err := v.PublicRooms()
		if err != nil {
			return err
		}
		for _, id := range ids {
			c, err := v.Conversation(id)
			if err != nil {
				return err
			}
			if c.Address.Domain != domain || c.Shape != core.Group {
				continue
			}
			st, err := v.State(id)
			if err != nil {
				return err
			}
			list.add(s.Names.RoomJID(c.Address).String(), roomName(c, st))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list.answer()
}

func roomName(c core.Conversation, st *core.State) string {
	if st.Name != "" {
		return st.Name
	}
	return c.Address.Name
}

func identity(q *element.Element, category, typ, name string) {
	id := q.Add("", "identity")
	id.SetAttr("category", category)
	id.SetAttr("type", typ)
	id.SetAttr("name", name)
}

func features(q *element.Element, names ...string) {
	for _, n := range names {
		q.Add("", "feature").SetAttr("var", n)
	}
}

// roomFeatures are those of every room.
var roomFeatures = []string{
	nsDisco, nsItems, nsPing, translate.NSMUC, translate.NSSID, translate.NSOccupantID,
	translate.NSMAM, translate.NSMAM + "#extended", nsRSM, translate.NSReactions, translate.NSModerate, nsSelf,
	"muc_nonanonymous", "muc_unsecured",
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// roomInfo says what a room is like.
//
// spec: XEP-0045 §6.4
func (s *Service) roomInfo(ctx context.Context, q *question) (*element.Element, error) {
	if q.body.Attr("node") != "" {
		return nil, translate.Fail(translate.ItemNotFound, "")
	}
	open := q.st.JoinRule == core.JoinPublic
	public, err := s.isPublic(ctx, q.conv.ID)
	if err != nil {
		return nil, err
	}
	out := element.New(nsDisco, "query")
	identity(out, "conference", "text", roomName(q.conv, q.st))
	features(out, roomFeatures...)
	features(out,
		either(open, "muc_open", "muc_membersonly"),
		either(q.conv.Temporary, "muc_temporary", "muc_persistent"),
		either(public, "muc_public", "muc_hidden"),
		either(moderated(q.st), "muc_moderated", "muc_unmoderated"))
	f := newForm(out, "result", nsInfo)
	f.field("muc#roominfo_description", "text-single", "Description", q.st.Topic)
	f.field("muc#roominfo_subject", "text-single", "Subject", q.st.Topic)
	f.field("muc#roominfo_occupants", "text-single", "Occupants", strconv.Itoa(len(q.st.Joined())))
	f.field("muc#roomconfig_roomname", "text-single", "Name", q.st.Name)
	return out, nil
}

func (s *Service) isPublic(ctx context.Context, id core.ConvID) (public bool, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		ids, err := v.PublicRooms()
		for _, p := range ids {
			public = public || p == id
		}
		return err
	})
	return public, err
}

// moderated reports whether not everybody may speak.
func moderated(st *core.State) bool { return st.Needs("message", false) > st.Levels.Default }

// roomItems lists occupants, to those who are among them.
//
// spec: XEP-0045 §6.5
func (s *Service) roomItems(_ context.Context, q *question) (*element.Element, error) {
	if !q.inside {
		return element.New(nsItems, "query"), nil
	}
	list := pageOf(q.body, s.MaxItems)
	cr := s.crowdOf(q.conv.ID)
	for _, m := range q.st.Joined() {
		if cr.has(m) {
			list.add(s.Names.RoomJID(q.conv.Address).With(m.Nick).String(), "")
		}
	}
	return list.answer()
}

// moderate retracts what another said.
//
// spec: XEP-0425 §3.1
func (s *Service) moderate(ctx context.Context, q *question) (*element.Element, error) {
	id := q.body.Attr("id")
	if id == "" || q.body.Child(translate.NSRetract, "retract") == nil {
		return nil, translate.Fail(translate.BadRequest, "moderation needs an id and a retract")
	}
	_, err := s.Hub.Submit(ctx, hub.Draft{
		Conv: q.conv.ID, Sender: q.Who, With: q.With,
		Content: core.Retract{Target: core.EventID(id), Reason: q.body.ChildText("", "reason")},
	})
	return nil, err
}
