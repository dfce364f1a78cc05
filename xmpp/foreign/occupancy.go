package foreign

import (
	"context"
	"math/rand/v2"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// phase is how far an occupancy is into the room.
type phase int

const (
	outside  phase = iota
	entering       // we have asked to be let in, and hear who is there
	filling        // we are in; what was missed is being fetched, and what the room says meanwhile is held
	inside
)

// occupancy is one account in one room of another server. All of it belongs to its own goroutine, but for what is set before that
// begins and for the queue.
type occupancy struct {
	row
	s    *Service
	me   translate.JID // full: as which the room knows us
	addr core.Address  // of the room
	ctx  context.Context
	work chan func()
	done chan struct{}

	phase     phase
	over      bool
	tries     int         // to enter, since we were last in
	deadline  *time.Timer // of entering
	retry     *time.Timer
	quiet     *time.Timer // until the room is asked whether we are still in it
	waiters   []func(error)
	create    bool // a room that is not there may be made
	exact     bool // the nick is a client's choice, and no other will do
	created   bool // by our entering
	about     about
	self      string // our nick, while we are in
	occupants map[string]*occupant
	before    map[string]*occupant    // who was there when we lost the room
	ids       map[string]core.Address // by occupant-id
	away      map[core.Address]time.Time
	jids      map[core.Address]translate.JID // bare, of those whom the room has shown us by them
	subject   *element.Element
	held      []*element.Element
	overflow  bool                 // more was said than could be held; it is in the archive
	settled   func()               // waits for the subject, which ends the history of a room without archive
	dug       string               // the room's name of the oldest message that was fetched
	ownID     string               // our occupant-id
	people    map[core.Address]int // under how many nicks somebody is there
	unheard   core.EventID         // for which we entered again, because the room said that we were not there
	renames   []func(error)
	idled     int         // sweeps since anybody wanted anything
	batch     []hub.Draft // said, and not yet applied

	asked    map[string]*request    // our own requests to the room
	relayed  map[string]relay       // requests of clients
	fills    map[string]*fill       // by queryid
	flights  map[string]*flight     // messages that the room has not reflected yet
	subjects map[string]func(error) // what is asked by a message, by its id
	topics   map[string]string      // the subjects among them
	visitors map[translate.JID]*visitor
	orphans  map[string][]*element.Element // about messages that are older than what is known, by the room's name
	orphaned int
	deep     *fill // fetches what is older, if somebody asked for it
	digging  bool  // what is said now goes below what is known
	oldest   bool  // there is nothing older in the room's archive
}

// maxQueue bounds what waits for an occupancy; who brings more waits too, and so does the stream it comes from.
const maxQueue = 256

func newOccupancy(s *Service, r row) *occupancy {
	o := &occupancy{
		row: r, s: s, ctx: s.ctx, work: make(chan func(), maxQueue), done: make(chan struct{}),
		me:        s.Names.JID(r.account).With(s.resource(r.place)),
		addr:      core.Address{Network: core.XMPP, Name: r.room.Local, Domain: r.room.Domain},
		occupants: map[string]*occupant{}, people: map[core.Address]int{}, away: map[core.Address]time.Time{}, jids: map[core.Address]translate.JID{},
		asked: map[string]*request{}, relayed: map[string]relay{}, fills: map[string]*fill{},
		orphans: map[string][]*element.Element{},
		flights: map[string]*flight{}, subjects: map[string]func(error){}, topics: map[string]string{}, visitors: map[translate.JID]*visitor{},
	}
	return o
}

// run is the occupancy's goroutine.
func (o *occupancy) run(ctx context.Context) {
	defer o.s.wg.Done()
	defer o.end()
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for !o.over {
		select {
		case f := <-o.work:
			_ = o.s.keep().Do(func() error {
				f()
				if len(o.work) == 0 || len(o.batch) >= maxBatch {
					o.flush()
				}
				return nil
			})
		case <-sweep.C:
			_ = o.s.keep().Do(func() error { o.sweep(); return nil })
		case <-ctx.Done():
			o.flush()
			return // the room keeps us until it notices, and we come back under the same name
		}
	}
	o.flush()
}

// end is the end of the goroutine. What waits in the queue finds that the occupancy is over.
func (o *occupancy) end() {
	if o.over {
		o.s.drop(o)
	}
	close(o.done)
	for {
		select {
		case f := <-o.work:
			f()
		default:
			return
		}
	}
}

// later has f done by the occupancy's goroutine. It waits while too much waits already; it does nothing once the occupancy is over.
func (o *occupancy) later(f func()) {
	select {
	case o.work <- f:
	case <-o.done:
	}
}

// do is [occupancy.later] that waits until f has called back.
func (o *occupancy) do(ctx context.Context, f func(then func(error))) error {
	reply := make(chan error, 1)
	o.later(func() {
		err := o.s.keep().Do(func() error { f(func(err error) { reply <- err }); return nil })
		if err != nil && len(reply) == 0 {
			reply <- err
		}
	})
	select {
	case err := <-reply:
		return err
	case <-o.done:
		select {
		case err := <-reply:
			return err
		default:
			return errGone
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errGone = hub.Refuse(hub.NotMember, "you are not in this room any more")

// after has f done some time later.
func (o *occupancy) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { o.later(f) })
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// send sends a stanza to the room, or with a nick to an occupant, as our occupant.
func (o *occupancy) send(st *element.Element, nick string) {
	st.SetAttr("from", o.me.String()).SetAttr("to", o.room.With(nick).String())
	o.s.Route(st)
}

// entry is how somebody wants to enter.
type entry struct {
	nick, password string
	// exact says that no other nick will do, create that a room that is not there is made.
	exact, create bool
}

// enter enters the room, unless we are in it; then hears when that is done or has failed.
func (o *occupancy) enter(e entry, then func(error)) {
	switch {
	case o.over:
		then(errGone)
		return
	case o.phase == inside:
		then(nil)
		return
	}
	o.waiters = append(o.waiters, then)
	if o.phase != outside {
		return
	}
	if e.nick != "" {
		o.nick = e.nick
	}
	if e.password != "" {
		o.password = e.password
	}
	o.exact, o.create = e.exact, e.create
	o.reenter()
}

// reenter begins to enter: it asks first what the room is like.
func (o *occupancy) reenter() {
	if o.phase != outside || o.over {
		return
	}
	stop(o.retry)
	o.phase, o.created = entering, false
	o.deadline = o.after(3*o.s.Answer, func() { o.failed(translate.Fail(translate.RemoteServerTimeout, "the room does not answer")) })
	o.describe(func(err error) {
		e, _ := err.(*translate.Error) //nolint:errorlint // it is returned bare
		switch {
		case o.phase != entering:
		case e != nil && (e.Name == "remote-server-not-found" || e.Name == "remote-server-timeout" || e.Name == "gone"):
			o.failed(e)
		case e != nil && e.Name == "item-not-found" && !o.create && o.conv == "":
			o.failed(e)
		default: // what is forbidden to know, one may yet be let into
			o.knock()
		}
	})
}

// knock asks to be let in. What was said before comes from the archive where there is one.
//
// spec: XEP-0045 §7.2
func (o *occupancy) knock() {
	if o.before == nil {
		o.before = o.occupants
	}
	o.occupants, o.people = map[string]*occupant{}, map[core.Address]int{}
	p := element.New(translate.NSClient, "presence")
	x := p.Add(translate.NSMUC, "x")
	h := x.Add("", "history")
	if o.about.archive {
		h.SetAttr("maxstanzas", "0")
	} else {
		h.SetAttr("maxstanzas", "100")
	}
	if o.password != "" {
		x.Append(element.NewText(translate.NSMUC, "password", o.password))
	}
	o.send(p, o.nick)
}

// maxNicks is how many nicks are tried where ours is taken.
const maxNicks = 5

// refused is a room's no to our entering.
//
// spec: XEP-0045 §7.2.8
func (o *occupancy) refused(p *element.Element) {
	e := translate.ReadError(p)
	if o.phase != entering { // to another nick, or another status
		if len(o.renames) > 0 {
			o.renamed(e)
		} else {
			o.show(p)
		}
		return
	}
	if e.Name == "conflict" && !o.exact && o.tries < maxNicks {
		o.tries++
		o.nick += "_"
		o.knock()
		return
	}
	o.failed(e)
}

// final says whether there is no use in trying to enter again.
func final(err error) bool {
	switch e, _ := err.(*translate.Error); { //nolint:errorlint // it is returned bare
	case e == nil:
		return false
	default:
		switch e.Name {
		case "forbidden", "registration-required", "not-authorized", "item-not-found", "gone", "not-allowed", "jid-malformed":
			return true
		}
	}
	return false
}

// failed ends an attempt to enter. One that was in before tries again, unless the room has said no for good.
func (o *occupancy) failed(err error) {
	o.s.Count.Count("foreign_entered", "failed")
	o.leaveRoom()
	o.answer(err)
	switch {
	case o.conv == "":
		o.over = len(o.visitors) == 0
	case !o.wanted:
	case final(err):
		standing := core.Left
		if e, ok := err.(*translate.Error); ok && e.Name == "forbidden" { //nolint:errorlint // it is returned bare
			standing = core.Banned
		}
		o.allOut()
		o.expelled(standing, o.addr, "could not return: "+err.Error())
	default:
		o.again()
	}
}

// again tries to enter after a while: sooner at first.
func (o *occupancy) again() {
	wait := min(5*time.Second<<min(o.tries, 9), 30*time.Minute)
	o.tries++
	o.retry = o.after(wait*3/4+rand.N(wait/2), o.reenter)
}

// answer tells all who wait what became of entering.
func (o *occupancy) answer(err error) {
	waiters := o.waiters
	o.waiters = nil
	for _, f := range waiters {
		f(err)
	}
}

// leaveRoom puts down what belongs to being in the room.
func (o *occupancy) leaveRoom() {
	stop(o.deadline)
	stop(o.quiet)
	o.flush()
	o.phase, o.held, o.settled, o.overflow = outside, nil, nil, false
	o.renamed(errLost)
	for id, f := range o.flights {
		delete(o.flights, id)
		f.then(errLost)
	}
	for id, f := range o.subjects {
		delete(o.subjects, id)
		f(errLost)
	}
	for id, r := range o.asked {
		delete(o.asked, id)
		r.end(nil, errLost)
	}
}

// errLost says that the room was lost before it answered.
var errLost error = &translate.Error{Condition: translate.RemoteServerTimeout, Text: "the connection to the room was lost"}

// lost is what to do when we are in the room no longer, for no fault of ours.
func (o *occupancy) lost() {
	if o.phase == outside {
		return
	}
	o.leaveRoom()
	o.again()
	o.s.Doubt(o.room.Domain) // what has forgotten one may have forgotten all
}

// entered is our own presence, which ends the telling of who is there.
//
// spec: XEP-0045 §7.2.2
func (o *occupancy) entered(nick string, created bool) {
	stop(o.deadline)
	o.s.Count.Count("foreign_entered", "entered")
	o.phase, o.self, o.tries, o.created = filling, nick, 0, created
	o.nick, o.wanted = nick, true
	if created && !o.exact {
		o.instant()
	}
	o.exact = false // when we come back, any nick is better than none
	if err := o.project(); err != nil {
		o.s.Log.Error("showing a room elsewhere", "room", o.room.String(), "err", err)
		o.failed(translate.Fail(translate.InternalServerError, ""))
		return
	}
	o.greet()
	o.catchUp(func() {
		if o.phase == filling {
			o.arrive()
		}
	})
}

// arrive ends the entering, once all is known that was said before.
func (o *occupancy) arrive() {
	if o.overflow {
		o.overflow, o.held = false, nil
		last, when := o.lastKnown()
		o.since(last, when, 0, func() {
			if o.phase == filling {
				o.arrive()
			}
		})
		return
	}
	o.phase = inside
	held := o.held
	o.held = nil
	for _, st := range held {
		o.said(st, false)
	}
	o.flush()
	o.heard()
	o.answer(nil)
	o.s.Hub.Reachable(hub.Destination{Network: core.XMPP, Dest: o.destination()})
}

// maxHeld is how many messages are held while a gap is filled. Where there are more, the archive is asked for them.
const maxHeld = 200

// hold keeps what is said while a gap is being filled.
func (o *occupancy) hold(st *element.Element) {
	switch {
	case len(o.held) < maxHeld && !o.overflow:
		o.held = append(o.held, st)
	case o.about.archive:
		o.overflow = true
	default:
		o.s.Count.Count("foreign_dropped", "flood")
	}
}

// settle ends the history that a room without archive sends.
func (o *occupancy) settle() {
	if then := o.settled; then != nil {
		o.settled = nil
		then()
	}
}

func (o *occupancy) destination() string {
	return hub.DestinationOf(&core.Conversation{ID: o.conv, Address: o.addr})
}

// instant unlocks a room that our entering has made, with its defaults.
//
// spec: XEP-0045 §10.1.2
func (o *occupancy) instant() {
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "set")
	iq.Add(nsOwner, "query").Add(nsForm, "x").SetAttr("type", "submit")
	o.request(iq, "", func(*element.Element, error) {})
}

// heard notes that the room is there; when it has been quiet for long we ask.
//
// spec: XEP-0410 §3.1
func (o *occupancy) heard() {
	stop(o.quiet)
	o.quiet = o.after(o.s.Ping, o.doubt)
}

// doubt asks whether we are still in the room.
//
// spec: XEP-0410 §3.1
func (o *occupancy) doubt() {
	if o.phase != inside {
		return
	}
	stop(o.quiet)
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "get")
	iq.Add(nsPing, "ping")
	o.request(iq, o.self, func(_ *element.Element, err error) {
		if o.phase != inside {
			return
		}
		e, _ := err.(*translate.Error) //nolint:errorlint // it is returned bare
		if e == nil || e.Name == "service-unavailable" || e.Name == "feature-not-implemented" || e.Name == "item-not-found" {
			o.heard()
			return
		}
		o.lost()
	})
}

// leave leaves the room for good.
//
// spec: XEP-0045 §7.14
func (o *occupancy) leave(reason string) {
	if o.phase != outside {
		p := element.New(translate.NSClient, "presence").SetAttr("type", "unavailable")
		if reason != "" {
			p.Append(element.NewText(translate.NSClient, "status", reason))
		}
		o.send(p, o.nick)
	}
	o.allOut()
	o.expelled(core.Left, o.account, reason)
}

// allOut tells the clients that they are in the room no more.
func (o *occupancy) allOut() {
	for jid := range o.visitors {
		o.bye(jid, true)
	}
}

// rename asks for another nick; then hears whether we have it.
//
// spec: XEP-0045 §7.6
func (o *occupancy) rename(nick string, then func(error)) {
	if o.phase != inside {
		then(errLost)
		return
	}
	o.renames = append(o.renames, then)
	o.after(o.s.Answer, func() { o.renamed(translate.Fail(translate.RemoteServerTimeout, "the room does not answer")) })
	o.send(element.New(translate.NSClient, "presence"), nick)
}

// renamed tells those who asked for another nick what has become of it.
func (o *occupancy) renamed(err error) {
	waiting := o.renames
	o.renames = nil
	for _, then := range waiting {
		then(err)
	}
}

// expelled ends the membership: by ourselves, by a moderator, or because the room is no more.
func (o *occupancy) expelled(to core.Standing, by core.Address, reason string) {
	stop(o.retry)
	o.leaveRoom()
	o.answer(errGone)
	o.dispersed()
	o.wanted, o.over = false, true
	if o.conv == "" {
		return
	}
	o.apply(hub.Draft{
		Conv: o.conv, Sender: by, Content: core.Membership{Target: o.account, Standing: to, Reason: reason, Nick: o.nick},
		With: func(tx hub.Tx, _ *core.Event) error { return o.row.keep(tx) },
	})
}
