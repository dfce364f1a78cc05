package foreign_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store/storetest"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/translate"
	"parley/xmpp/xmpptest"
)

const (
	nsDisco = "http://jabber.org/protocol/disco#info"
	nsAdmin = "http://jabber.org/protocol/muc#admin"
	nsOwner = "http://jabber.org/protocol/muc#owner"
	nsForm  = "jabber:x:data"
	nsRSM   = "http://jabber.org/protocol/rsm"
	nsPing  = "urn:xmpp:ping"
)

// world is a Parley with clients, and a server of rooms that does what the test wants.
type world struct {
	*xmpptest.Server
	t      testing.TB
	config foreign.Config
	svc    *foreign.Service
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	rooms map[string]*room
	stray []*element.Element // to other addresses than rooms'
}

// Route takes what leaves the server under test, and what the rooms' service says to clients.
func (w *world) Route(st *element.Element) {
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil {
		w.t.Errorf("a stanza to nobody: %v", st)
		return
	}
	if w.Hub.Hosts(to.Domain) {
		w.C2S.Deliver(context.Background(), st)
		return
	}
	w.mu.Lock()
	r := w.rooms[to.Bare().String()]
	if r == nil {
		w.stray = append(w.stray, st)
	}
	w.mu.Unlock()
	if r != nil {
		r.queue <- st.Copy()
		return
	}
	if t := st.Attr("type"); st.Name.Local == "iq" && (t == "get" || t == "set") || st.Name.Local == "presence" && t == "" {
		go w.take(translate.Bounce(st, translate.Fail(translate.RemoteServerNotFound, "")))
	}
}

// take brings a stanza from outside to the server under test.
func (w *world) take(st *element.Element) {
	from, err1 := translate.ParseJID(st.Attr("from"))
	to, err2 := translate.ParseJID(st.Attr("to"))
	if err1 != nil || err2 != nil {
		w.t.Errorf("a stanza from or to nobody: %v", st)
		return
	}
	account, err := w.C2S.Names().Address(to.Bare())
	if err != nil || !w.svc.Take(st, from, to, account) {
		w.C2S.Deliver(context.Background(), st)
	}
}

// Carrier for the hub: only rooms elsewhere.

func (w *world) Network() core.Network                       { return core.XMPP }
func (w *world) Capabilities(core.Address) core.Capabilities { return translate.Capabilities() }
func (w *world) Whisper(wh hub.Whisper)                      { w.svc.Whisper(wh) }
func (w *world) Deliver(ctx context.Context, dest string, parcels []hub.Delivery) []hub.Result {
	if conv := parcels[0].Conv; dest == hub.DestinationOf(&core.Conversation{ID: conv, Address: parcels[0].Room.Address}) {
		return w.svc.Deliver(ctx, conv, parcels)
	}
	out := make([]hub.Result, len(parcels))
	for i := range out {
		out[i] = hub.Result{Outcome: hub.Accepted}
	}
	return out
}

func newWorld(t testing.TB, change ...func(*foreign.Config)) *world {
	w := &world{t: t, rooms: map[string]*room{}}
	for _, f := range change {
		f(&w.config)
	}
	w.Server = xmpptest.New(t, xmpptest.With(func(c *c2s.Config) { c.Router = w }), xmpptest.Setup(func(s *xmpptest.Server) {
		if err := foreign.Migrate(t.Context(), s.DB); err != nil {
			t.Fatal(err)
		}
		c := w.config
		c.Hub, c.Names, c.Base, c.Secret, c.Route, c.Log = s.Hub, s.C2S.Names(), "https://example.org", []byte("secret"), w.Route, storetest.Log(t)
		w.svc = foreign.New(c)
		s.C2S.AttachElsewhere(w.svc)
		s.Hub.AddRemote(w.svc)
		s.Hub.AddCarrier(w)
	}))
	w.run()
	t.Cleanup(w.halt)
	return w
}

// run begins to keep the accounts in their rooms; halt ends that.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.ended = cancel, make(chan struct{})
	svc, ended := w.svc, w.ended
	ready := make(chan struct{})
	go func() {
		defer close(ended)
		close(ready)
		if err := svc.Run(ctx); err != nil {
			w.t.Errorf("running the service: %v", err)
		}
	}()
	<-ready
	w.until("the service runs", func() bool {
		_, err := w.svc.Look(w.t.Context(), core.LocalAddress("nobody", "example.org"), core.Address{Network: core.XMPP, Name: "no", Domain: "no.test"})
		return hub.CodeOf(err) != hub.TooMany
	})
}

func (w *world) halt() {
	w.cancel()
	<-w.ended
}

func (w *world) restart() {
	w.halt()
	w.Restart()
	w.run()
}

// until waits for what must come.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	end := time.Now().Add(60 * time.Second)
	for !is() {
		if time.Now().After(end) {
			w.t.Fatalf("%s: that has not come about", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// conv is the conversation that shows an account a room.
func (w *world) conv(who string, r *room) (c core.Conversation, st *core.State, ok bool) {
	w.t.Helper()
	err := w.Hub.Read(w.t.Context(), func(v hub.View) error {
		id, err := hub.RoomFor(v, core.LocalAddress(who, "example.org"), r.address())
		if err != nil {
			return nil
		}
		ok = true
		if c, err = v.Conversation(id); err != nil {
			return err
		}
		st, err = v.State(id)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c, st, ok
}

// events are what is known of a room, in the order of the timeline.
func (w *world) events(who string, r *room, kinds ...core.Kind) (out []core.Event) {
	w.t.Helper()
	c, _, ok := w.conv(who, r)
	if !ok {
		return nil
	}
	err := w.Hub.Read(w.t.Context(), func(v hub.View) (err error) {
		out, err = v.Page(hub.Query{Conv: c.ID, Kinds: kinds, Limit: 10_000, Aliases: true})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// texts are the messages' texts.
func (w *world) texts(who string, r *room) (out []string) {
	for _, e := range w.events(who, r, core.KindMessage) {
		if m, ok := e.Content.(core.Message); ok {
			out = append(out, m.Body.Plain())
		}
	}
	return out
}

// guest is somebody in a room.
type guest struct {
	nick, jid, affiliation, role, id string
	more                             string // XML that her presence holds besides
	ours                             bool   // is an occupant of the server under test
}

type said struct {
	id string
	el *element.Element
	at time.Time
}

// room is a room that keeps the rules, except where a test takes them into its hands.
type room struct {
	w     *world
	jid   string
	queue chan *element.Element

	mu       sync.Mutex
	guests   []*guest
	banned   map[string]bool
	features []string
	password string
	subject  string
	archive  []said
	n        int
	page     int
	down     bool                        // hears nothing
	hook     func(*element.Element) bool // what the test answers
	heard    []*element.Element
	onlyFor  map[string]bool // who may enter; nil for all
	shows    bool            // real addresses
}

func (w *world) room(jid string, features ...string) *room {
	if features == nil {
		features = []string{translate.NSMUC, translate.NSMAM, translate.NSSID, translate.NSOccupantID, translate.NSModerate, "muc_semianonymous"}
	}
	r := &room{w: w, jid: jid, queue: make(chan *element.Element, 10_000), banned: map[string]bool{}, features: features, page: 100}
	w.mu.Lock()
	w.rooms[jid] = r
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case st := <-r.queue:
				r.handle(st)
			case <-done:
				return
			}
		}
	}()
	w.t.Cleanup(func() { close(done) })
	return r
}

func (r *room) address() core.Address {
	j, _ := translate.ParseJID(r.jid)
	return core.Address{Network: core.XMPP, Name: j.Local, Domain: j.Domain}
}

func (r *room) has(feature string) bool { return slices.Contains(r.features, feature) }

func (r *room) at(nick string) *guest {
	for _, g := range r.guests {
		if g.nick == nick {
			return g
		}
	}
	return nil
}

func (r *room) by(jid string) *guest {
	for _, g := range r.guests {
		if g.jid == jid {
			return g
		}
	}
	return nil
}

func xml(t testing.TB, format string, args ...any) *element.Element {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	el, err := element.Parse([]byte("<all xmlns='jabber:client'>"+text+"</all>"), element.DefaultLimits)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return el.First()
}

// presence is what an occupant is shown of another.
func (r *room) presence(g, to *guest, typ, codes, inner string) *element.Element {
	item := fmt.Sprintf("affiliation='%s' role='%s'", g.affiliation, g.role)
	if r.shows || to.role == "moderator" || g == to {
		item += fmt.Sprintf(" jid='%s'", g.jid)
	}
	if g == to {
		codes = "110 " + codes
		if r.shows {
			codes += " 100"
		}
	}
	status := ""
	for c := range splitted(codes) {
		status += "<status code='" + c + "'/>"
	}
	id := ""
	if r.has(translate.NSOccupantID) {
		id = "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='" + element.Escape(g.id) + "'/>"
	}
	return xml(r.w.t, `<presence from='%s' to='%s'%s>%s%s<x xmlns='http://jabber.org/protocol/muc#user'><item %s>%s</item>%s</x></presence>`,
		element.Escape(r.jid+"/"+g.nick), to.jid, typ, g.more, id, item, inner, status)
}

func splitted(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := 0; i+3 <= len(s); {
			if s[i] == ' ' {
				i++
				continue
			}
			if !yield(s[i : i+3]) {
				return
			}
			i += 3
		}
	}
}

// all sends what f makes to each occupant of the server under test.
func (r *room) all(f func(to *guest) *element.Element) {
	for _, g := range r.guests {
		if g.ours {
			r.w.take(f(g))
		}
	}
}

// enter brings somebody in who is of another server.
func (r *room) enter(g guest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(&g)
	r.all(func(to *guest) *element.Element { return r.presence(&g, to, "", "", "") })
}

func (r *room) put(g *guest) {
	if g.jid == "" {
		g.jid = g.nick + "@far.test/c"
	}
	if g.role == "" {
		g.role = "participant"
	}
	if g.affiliation == "" {
		g.affiliation = "none"
	}
	if g.id == "" {
		g.id = "id-of-" + g.jid
	}
	r.guests = append(r.guests, g)
}

// goes takes an occupant out, with codes, and what is within the item.
func (r *room) goes(nick, codes, inner string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.at(nick)
	was := *g
	g.role = "none"
	r.all(func(to *guest) *element.Element { return r.presence(g, to, " type='unavailable'", codes, inner) })
	*g = was
	r.guests = slices.DeleteFunc(r.guests, func(o *guest) bool { return o == g })
}

// becomes changes what an occupant is.
func (r *room) becomes(nick, affiliation, role string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.at(nick)
	g.affiliation, g.role = affiliation, role
	r.all(func(to *guest) *element.Element { return r.presence(g, to, "", "", "") })
}

// calls gives an occupant another nick.
func (r *room) calls(nick, other string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rename(r.at(nick), other)
}

func (r *room) rename(g *guest, other string) {
	r.all(func(to *guest) *element.Element {
		p := r.presence(g, to, " type='unavailable'", "303", "")
		p.Child(translate.NSMUCUser, "x").Child("", "item").SetAttr("nick", other)
		return p
	})
	g.nick = other
	r.all(func(to *guest) *element.Element { return r.presence(g, to, "", "", "") })
}

// say has an occupant say something; it returns the room's name of it.
func (r *room) say(nick, inner string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reflect(nick, xml(r.w.t, `<message type='groupchat' id='%s'>%s</message>`, core.NewToken(), inner))
}

// quietly is say that nobody hears who is not reading the archive.
func (r *room) quietly(nick, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.down
	r.down = true
	r.reflect(nick, xml(r.w.t, `<message type='groupchat' id='%s'><body>%s</body></message>`, core.NewToken(), element.Escape(text)))
	r.down = was
}

func (r *room) reflect(nick string, m *element.Element) string {
	from := r.jid
	if nick != "" {
		from += "/" + nick
	}
	m = m.Copy().SetAttr("from", from)
	r.n++
	id := ""
	if r.has(translate.NSSID) {
		id = "sid-" + strconv.Itoa(r.n)
		m.RemoveChildren(func(e *element.Element) bool { return e.Is(translate.NSSID, "stanza-id") && e.Attr("by") == r.jid })
		m.Add(translate.NSSID, "stanza-id").SetAttr("by", r.jid).SetAttr("id", id)
	}
	if g := r.at(nick); g != nil && r.has(translate.NSOccupantID) {
		m.RemoveChildren(func(e *element.Element) bool { return e.Name.Space == translate.NSOccupantID })
		m.Add(translate.NSOccupantID, "occupant-id").SetAttr("id", g.id)
	}
	r.archive = append(r.archive, said{id, m, time.Now().UTC()})
	if !r.down {
		r.all(func(to *guest) *element.Element { return m.Copy().SetAttr("to", to.jid) })
	}
	return id
}

// raw sends our occupants a stanza that no honest room would.
func (r *room) raw(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all(func(to *guest) *element.Element {
		el := xml(r.w.t, format, args...)
		return el.SetAttr("to", to.jid)
	})
}

// hears makes the room there again, or not.
func (r *room) hears(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = !yes
}

// count says how many stanzas have come that are so.
func (r *room) count(is func(*element.Element) bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.heard {
		if is(st) {
			n++
		}
	}
	return n
}

// inRoom is the occupant of an account.
func (r *room) ours(nick string) *guest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.at(nick); g != nil && g.ours {
		c := *g
		return &c
	}
	return nil
}
