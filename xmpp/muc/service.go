package muc

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// The namespaces of the service's own.
const (
	nsAdmin  = "http://jabber.org/protocol/muc#admin"
	nsOwner  = "http://jabber.org/protocol/muc#owner"
	nsConfig = "http://jabber.org/protocol/muc#roomconfig"
	nsInfo   = "http://jabber.org/protocol/muc#roominfo"
	nsSelf   = "http://jabber.org/protocol/muc#self-ping-optimization"
	nsDisco  = "http://jabber.org/protocol/disco#info"
	nsItems  = "http://jabber.org/protocol/disco#items"
	nsPing   = "urn:xmpp:ping"
	nsForm   = "jabber:x:data"
	nsRSM    = "http://jabber.org/protocol/rsm"
)

// Config is what a Service needs.
type Config struct {
	Hub *hub.Hub
	// Count gets "panics"; it may be nil.
	Count hub.Counter
	Names translate.Names
	// Base is "https://" and the host under which stored files have links.
	Base string
	// Secret makes occupant IDs; it must stay the same over restarts.
	Secret []byte
	// Route sends a stanza to a session here or to another server, by its
	// `to`. It does not block.
	Route func(*element.Element)
	// Grace is how long a visitor of another server stays a member after her
	// last session has left: she has more often lost a connection than
	// interest. Zero is six hours.
	Grace time.Duration
	// MaxOccupants bounds the sessions in one room; zero is 5000. MaxShown is how many members one who enters is shown, those first who
	// were active last; the others are shown when they say something. Zero is 1000.
	MaxOccupants, MaxShown int
	// MaxStanza bounds what is said in a room, in bytes as XML: 64 KiB. MaxHistory is how many messages one gets on entering: 500.
	// MaxPage is how many messages a page of an archive has: 200. MaxItems is how many rooms, or occupants, a list has at a time: 200.
	MaxStanza, MaxHistory, MaxPage, MaxItems int
	// Guard holds what is a rate; nil for none.
	Guard *guard.Guard
	Log   *slog.Logger
}

// Service is the room service. Its methods may be called by any goroutine.
type Service struct {
	Config
	mu    sync.Mutex
	rooms map[core.ConvID]*room
	// in says which rooms a session is in.
	in      map[translate.JID]map[core.ConvID]bool
	written written
	// abroad are as many as visitors wait for other servers at a time.
	abroad chan struct{}
}

// New makes the service.
func New(c Config) *Service {
	if c.MaxOccupants == 0 {
		c.MaxOccupants = 5000
	}
	c.MaxStanza, c.MaxHistory = cmp.Or(c.MaxStanza, 64<<10), cmp.Or(c.MaxHistory, 500)
	c.MaxPage, c.MaxItems = cmp.Or(c.MaxPage, 200), cmp.Or(c.MaxItems, 200)
	if c.Grace == 0 {
		c.Grace = 6 * time.Hour
	}
	c.MaxShown = cmp.Or(c.MaxShown, 1000)
	return &Service{
		Config: c, rooms: map[core.ConvID]*room{}, in: map[translate.JID]map[core.ConvID]bool{}, abroad: make(chan struct{}, maxAbroad),
	}
}

// room holds who is in a room now. Its lock is held while somebody enters, so
// that nobody misses or doubles what happens meanwhile. It is taken before a
// snapshot of the store and never within one.
type room struct {
	mu       sync.Mutex
	sessions map[translate.JID]*session
}

// session is one session in a room.
type session struct {
	jid translate.JID
	who core.Address
	// since is the feed number up to which it was told everything on entering.
	since core.Feed
	// extra is what its presence says besides: show, status, capabilities.
	extra []*element.Element
	// known are those whom it was shown; nil if that is everybody. The room's lock guards it.
	known map[core.Address]bool
}

// Visit is one stanza to the service.
type Visit struct {
	// From is the full JID that sent it, Who whose it is; both authenticated.
	From translate.JID
	Who  core.Address
	// Send sends to that JID; nil is by Route.
	Send func(*element.Element)
	// With is committed with what the stanza does: see [hub.Draft].
	With func(tx hub.Tx, e *core.Event) error
	// Room is how many stanzas the session can take now; zero is any number.
	Room int
	// admitted says that the rates that hold who enters have let her pass.
	admitted bool
}

// room returns the registry's entry, which it makes if asked to.
func (s *Service) room(id core.ConvID, create bool) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[id]
	if r == nil && create {
		r = &room{sessions: map[translate.JID]*session{}}
		s.rooms[id] = r
	}
	return r
}

// enter notes a session in a room. The caller holds r.mu.
func (s *Service) enter(id core.ConvID, r *room, o *session) {
	r.sessions[o.jid] = o
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in[o.jid] == nil {
		s.in[o.jid] = map[core.ConvID]bool{}
	}
	s.in[o.jid][id] = true
	s.rooms[id] = r // it may have been dropped as empty meanwhile
}

// exit takes a session out of a room. The caller holds r.mu.
func (s *Service) exit(id core.ConvID, r *room, jid translate.JID) {
	delete(r.sessions, jid)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.in[jid], id)
	if len(s.in[jid]) == 0 {
		delete(s.in, jid)
	}
	if len(r.sessions) == 0 && s.rooms[id] == r {
		delete(s.rooms, id)
	}
}

// session returns a session that is in the room.
func (s *Service) session(id core.ConvID, jid translate.JID) *session {
	r := s.room(id, false)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[jid]
}

// sessionsOf returns one person's sessions in a room, by JID.
func (s *Service) sessionsOf(id core.ConvID, who core.Address) []*session {
	r := s.room(id, false)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*session
	for _, o := range r.sessions {
		if o.who == who {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *session) int { return strings.Compare(a.jid.String(), b.jid.String()) })
	return out
}

// Gone takes a session that has ended out of every room.
func (s *Service) Gone(ctx context.Context, jid translate.JID) {
	s.mu.Lock()
	var ids []core.ConvID
	for id := range s.in[jid] {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		if err := s.leave(ctx, id, Visit{From: jid}, nil); err != nil {
			s.Log.Warn("taking a session out of a room", "err", err)
		}
	}
}

// Handle takes one stanza to the service or to one of its rooms. What there is
// to answer goes through Route.
func (s *Service) Handle(ctx context.Context, v Visit, el *element.Element) {
	if el.Attr("type") == "error" && el.Name.Local != "presence" || el.Attr("type") == "result" {
		s.bounced(ctx, v, el)
		return
	}
	if s.goesAbroad(ctx, v, el) {
		return
	}
	s.answer(ctx, v, el, s.handle)
}

// answer does something with a stanza and tells its sender if it could not be done.
func (s *Service) answer(ctx context.Context, v Visit, el *element.Element, f func(context.Context, Visit, *element.Element) error) {
	keep := contain.Keeper{Where: "muc", Log: s.Log, Count: s.Count}
	err := keep.Do(func() error { return f(ctx, v, el) })
	if err == nil || el.Attr("type") == "error" {
		return
	}
	if hub.CodeOf(err) == "" {
		var stanza *translate.Error
		if !errors.As(err, &stanza) {
			s.Log.Error("in a room", "stanza", el.Name.Local, "err", err)
		}
	}
	s.tell(v, translate.Bounce(el, err))
}

// tell sends a stanza to the one who visits.
func (s *Service) tell(v Visit, el *element.Element) {
	el.SetAttr("to", v.From.String())
	if v.Send != nil {
		v.Send(el)
	} else {
		s.Route(el)
	}
}

func (s *Service) handle(ctx context.Context, v Visit, el *element.Element) error {
	to, err := translate.ParseJID(el.Attr("to"))
	if err != nil {
		return translate.Fail(translate.JIDMalformed, "")
	}
	if to.Local == "" {
		if el.Name.Local == "iq" {
			return s.serviceIQ(ctx, v, to, el)
		}
		return translate.Fail(translate.ServiceUnavailable, "")
	}
	switch el.Name.Local {
	case "presence":
		return s.presence(ctx, v, to, el)
	case "message":
		return s.message(ctx, v, to, el)
	case "iq":
		return s.roomIQ(ctx, v, to, el)
	}
	return nil
}

// bounced takes an occupant whose server answers with an error out of the
// room: it is not there any more.
//
// spec: XEP-0045 §18.1.2
func (s *Service) bounced(ctx context.Context, v Visit, el *element.Element) {
	to, err := translate.ParseJID(el.Attr("to"))
	if err != nil || el.Name.Local != "message" {
		return
	}
	e := translate.ReadError(el)
	switch e.Name {
	case "gone", "item-not-found", "recipient-unavailable", "redirect", "remote-server-not-found", "remote-server-timeout", "service-unavailable":
	default:
		return
	}
	conv, err := s.find(ctx, to)
	if err != nil {
		return
	}
	if err := s.leave(ctx, conv.ID, v, nil); err != nil {
		s.Log.Warn("taking an unreachable occupant out of a room", "err", err)
	}
}

// find returns the conversation of a room's JID.
func (s *Service) find(ctx context.Context, j translate.JID) (core.Conversation, error) {
	var c core.Conversation
	a, err := s.Names.RoomAddress(j)
	if err != nil {
		return c, translate.Fail(translate.JIDMalformed, "")
	}
	err = s.Hub.Read(ctx, func(v hub.View) error {
		id, err := v.ConversationAt(a)
		if err != nil {
			return err
		}
		c, err = v.Conversation(id)
		return err
	})
	if errors.Is(err, hub.ErrNone) {
		return c, translate.Fail(translate.ItemNotFound, "there is no such room")
	}
	if err == nil && c.Address != a {
		return c, s.movedTo(c.Address, "this room is at another address")
	}
	return c, err
}

// open finds a room with its state.
func (s *Service) open(ctx context.Context, j translate.JID) (core.Conversation, *core.State, error) {
	c, err := s.find(ctx, j)
	if err != nil {
		return c, nil, err
	}
	var st *core.State
	err = s.Hub.Read(ctx, func(v hub.View) (err error) {
		st, err = v.State(c.ID)
		return err
	})
	return c, st, err
}

// occupantID is stable for a person in a room, and says nothing outside of it.
//
// spec: XEP-0421 §3
func (s *Service) occupantID(conv core.ConvID, who core.Address) string {
	m := hmac.New(sha256.New, s.Secret)
	m.Write([]byte(string(conv) + "\x00" + who.String()))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// crowd is who has sessions in a room at one moment.
type crowd struct {
	present map[core.Address]bool
	// extra is what one of a person's sessions shows besides being there.
	extra map[core.Address][]*element.Element
}

// crowd counts heads. The caller holds r.mu.
func (r *room) crowd() crowd {
	c := crowd{map[core.Address]bool{}, map[core.Address][]*element.Element{}}
	for _, o := range r.sessions {
		c.present[o.who] = true
		if len(o.extra) > 0 {
			c.extra[o.who] = o.extra
		}
	}
	return c
}

func (s *Service) crowdOf(id core.ConvID) crowd {
	r := s.room(id, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.crowd()
}

// has reports whether a member is shown as an occupant: local members are as
// long as they are members, whatever client they use; foreign XMPP users while
// they have a session in the room.
func (c crowd) has(m core.Member) bool {
	return m.Standing == core.Joined && (m.Address.Network != core.XMPP || c.present[m.Address])
}

// writing prepares what translate.Out must know to write an event of a room.
func (s *Service) writing(v hub.View, c *core.Conversation, st *core.State, e *core.Event) (translate.Writing, error) {
	room := s.Names.RoomJID(c.Address)
	w := translate.Writing{
		Names: s.Names, From: room.With(st.Members[e.Sender].Nick).String(), Type: "groupchat", Ask: true,
		StanzaIDs:  []translate.StanzaID{{By: room.String(), ID: string(e.ID)}},
		OccupantID: s.occupantID(c.ID, e.Sender),
		Occupant: func(a core.Address) string {
			if m, ok := st.Members[a]; ok && m.Nick != "" {
				return room.With(m.Nick).String()
			}
			return ""
		},
	}
	err := lookup.Writing(v, e, s.Base, &w)
	if c, ok := e.Content.(core.Retract); ok && err == nil && w.Messages[c.Target].Sender != e.Sender {
		w.From = room.String() // clients believe that of nobody but the room. spec: XEP-0425 §3.1
	}
	return w, err
}
