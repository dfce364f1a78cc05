package s2s

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/guard"
	"parley/xmpp/muc"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// Config is what a Carrier is made of.
type Config struct {
	Hub *hub.Hub
	// Federation opens and accepts streams. New sets its Hosted and Handle; all else is the caller's.
	Federation *stream.Federation
	// Base is "https://" and the host of links to files.
	Base string
	Log  *slog.Logger
	// Count may be nil. See [Carrier] for what is counted.
	Count hub.Counter
	// Idle is for how long a stream stays open on which nothing is sent: 5 minutes.
	Idle time.Duration
	// Answer is how long the other server may take to answer a ping: 30 seconds.
	Answer time.Duration
	// Missing is how old something owed must be to be given up because its domain does not exist or has no XMPP server: 10 minutes.
	// All other trouble is for the hub to be patient with.
	Missing time.Duration
	// Guard says what other servers may send, and with which nothing is exchanged; nil for no limits.
	Guard *guard.Guard
	// Components may be nil. They are trusted: the guard is not asked about them.
	Components Components
}

// Carrier reaches other XMPP servers. Its methods may be called by any goroutine.
//
// It counts "s2s_unconfirmed" (accepted without the other server's word),
// "s2s_dropped" (by what: presence, typing, stanza, malformed, loop, error, errand) and "panics".
type Carrier struct {
	cfg   Config
	hub   *hub.Hub
	names translate.Names
	log   *slog.Logger

	sessions *c2s.Server
	rooms    *muc.Service
	foreign  *foreign.Service

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	keep    contain.Keeper
	errands chan func(context.Context)
	dials   chan struct{} // as many as may be opened at a time

	mu     sync.Mutex
	links  map[stream.Pair]*link
	back   returns
	closed bool

	pings   pings
	asked   questions
	silence silence
	flights flights
	friends familiar
}

// The bounds of what other servers may cost.
const (
	maxLinks   = 10_000
	maxDials   = 100
	maxErrands = 4096
)

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// New makes a carrier. Since the services of an XMPP server need each other, they are put together in this order:
//
//	carrier := s2s.New(s2s.Config{…})
//	sessions := c2s.New(c2s.Config{Router: carrier, …})
//	rooms := muc.New(muc.Config{Route: carrier.Route, …})
//	sessions.AddService("rooms", muc.Local{Service: rooms})
//	carrier.Attach(sessions, rooms)
//	hub.AddCarrier(carrier)
//
// and all that before the hub starts. At the end the hub stops first, then come the sessions, then [Carrier.Close].
func New(cfg Config) *Carrier {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&cfg.Idle, 5*time.Minute)
	set(&cfg.Answer, 30*time.Second)
	set(&cfg.Missing, 10*time.Minute)
	if cfg.Count == nil {
		cfg.Count = noCounter{}
	}
	c := &Carrier{
		cfg: cfg, hub: cfg.Hub, log: cfg.Log,
		names:   translate.Names{Home: cfg.Hub.Home(), Hosts: cfg.Hub.Hosts},
		keep:    contain.Keeper{Where: "s2s", Log: cfg.Log, Count: cfg.Count},
		errands: make(chan func(context.Context), maxErrands),
		dials:   make(chan struct{}, maxDials),
		links:   map[stream.Pair]*link{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	cfg.Federation.Hosted = c.serves
	cfg.Federation.Handle = c.handle
	c.wg.Go(c.runErrands)
	return c
}

// Attach tells the carrier who is behind it: the sessions of local clients, and the rooms. It is called once, before anything else.
func (c *Carrier) Attach(sessions *c2s.Server, rooms *muc.Service) {
	c.sessions, c.rooms = sessions, rooms
}

// Serve accepts streams of other servers that begin in the clear, until ctx ends; it closes ln.
func (c *Carrier) Serve(ctx context.Context, ln net.Listener) error {
	return c.cfg.Federation.Serve(ctx, ln)
}

// ServeTLS accepts streams within TLS.
//
// spec: XEP-0368 §3
func (c *Carrier) ServeTLS(ctx context.Context, ln net.Listener) error {
	return c.cfg.Federation.ServeTLS(ctx, ln)
}

// Close sends what waits on open streams, closes all in good order, and returns when that is done or ctx ends. What is owed is in the
// hub's outbox and not lost.
func (c *Carrier) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ours says whether a domain is served here, for accounts or for rooms.
func (c *Carrier) ours(domain string) bool {
	if c.hub.Hosts(domain) {
		return true
	}
	_, rooms := c.names.RoomsOf(domain)
	return rooms
}

// Network implements [hub.Carrier].
func (c *Carrier) Network() core.Network { return core.XMPP }

// Capabilities implements [hub.Carrier]. What a client of XMPP has encrypted, or said in its own way, goes whole to others; where that
// came from another network, it is translate.Out that says what became of it.
func (c *Carrier) Capabilities(core.Address) core.Capabilities {
	caps := translate.Capabilities()
	for _, f := range []core.Feature{core.FeatureEncrypted, core.FeatureExtension, core.FeatureExpiry, core.FeatureFormatting} {
		caps.Grades[f] = core.Whole
	}
	return caps
}

// errand has something done soon that its caller must not wait for.
func (c *Carrier) errand(f func(context.Context)) {
	select {
	case c.errands <- f:
	default:
		c.cfg.Count.Count("s2s_dropped", "errand")
	}
}

func (c *Carrier) runErrands() {
	for {
		select {
		case f := <-c.errands:
			ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
			_ = c.keep.Do(func() error { f(ctx); return nil })
			cancel()
		case <-c.ctx.Done():
			return
		}
	}
}

// Route takes a stanza of a local client or room to where its `to` says: to a client here, or to another server. It does not block.
// What cannot be sent comes back to its sender as an error.
func (c *Carrier) Route(el *element.Element) {
	to, err := translate.ParseJID(el.Attr("to"))
	if err != nil {
		c.cfg.Count.Count("s2s_dropped", "malformed")
		return
	}
	if c.hub.Hosts(to.Domain) {
		if from, err := translate.ParseJID(el.Attr("from")); err != nil || !c.occupant(el, from, to) {
			c.sessions.Deliver(c.ctx, el)
		}
		return
	}
	c.send(cargo{stanzas: []*element.Element{el}, report: func(_ *line, err error) {
		if err != nil {
			c.errand(func(ctx context.Context) { c.undeliverable(ctx, el, err) })
		}
	}})
}

// undeliverable tells the sender of a stanza that it could not be sent, where a sender is told.
//
// spec: RFC 6120 §10.4
func (c *Carrier) undeliverable(ctx context.Context, el *element.Element, err error) {
	c.cfg.Count.Count("s2s_dropped", "stanza")
	if t := el.Attr("type"); t == "error" || t == "result" || el.Name.Local == "presence" && t == "unavailable" {
		return
	}
	bounce := translate.Bounce(el, explain(err))
	from, err := translate.ParseJID(bounce.Attr("from"))
	if err != nil {
		return
	}
	to, err := translate.ParseJID(bounce.Attr("to"))
	if err != nil {
		return
	}
	if !c.ours(to.Domain) { // it came from another server or a component
		c.send(cargo{stanzas: []*element.Element{bounce}, report: func(_ *line, err error) {
			if err != nil {
				c.cfg.Count.Count("s2s_dropped", "stanza")
			}
		}})
		return
	}
	if c.occupant(bounce, from, to) {
		return
	}
	if _, rooms := c.names.RoomsOf(to.Domain); !rooms {
		c.sessions.Deliver(ctx, bounce)
		return
	}
	if who, err := c.names.Address(from.Bare()); err == nil {
		c.rooms.Handle(ctx, muc.Visit{From: from, Who: who}, bounce)
	}
}

// Whisper implements [hub.Carrier].
func (c *Carrier) Whisper(w hub.Whisper) {
	to := c.names.JID(w.To)
	if w.ToSession != "" {
		to.Resource = w.ToSession
	}
	dropped := func(what string) func(*line, error) {
		return func(_ *line, err error) {
			if err != nil {
				c.cfg.Count.Count("s2s_dropped", what)
			}
		}
	}
	switch {
	case w.Presence != nil || w.Probe:
		if _, _, nicked := w.To.Occupant(); nicked {
			return // whom she shows herself to is for the room to know
		}
	}
	switch {
	case w.Presence != nil:
		el := translate.Presence(c.names, w.From, *w.Presence).SetAttr("to", to.String())
		c.send(cargo{stanzas: []*element.Element{el}, report: dropped("presence")})
	case w.Probe: // spec: RFC 6121 §4.3
		el := element.New(translate.NSClient, "presence").SetAttr("type", "probe")
		el.SetAttr("from", c.names.JID(w.From).String()).SetAttr("to", to.Bare().String())
		c.send(cargo{stanzas: []*element.Element{el}, report: dropped("presence")})
	case w.Typing != nil, w.Displayed != "":
		c.errand(func(ctx context.Context) {
			stanzas, err := c.typing(ctx, w, to)
			if err != nil {
				c.log.Warn("writing a chat state or marker", "err", err)
			}
			for _, el := range stanzas {
				c.send(cargo{stanzas: []*element.Element{el}, lazy: true, report: dropped("typing")})
			}
		})
	}
}

// typing writes that somebody writes, for one person or for one visitor of a room.
//
// spec: XEP-0085 §5
func (c *Carrier) typing(ctx context.Context, w hub.Whisper, to translate.JID) ([]*element.Element, error) {
	var conv core.Conversation
	err := c.hub.Read(ctx, func(v hub.View) (err error) {
		conv, err = v.Conversation(w.Conv)
		return err
	})
	if err != nil {
		return nil, err
	}
	switch {
	case conv.Authority == core.Elsewhere:
		c.foreign.Whisper(w)
		return nil, nil
	case conv.Shape != core.Direct:
		return c.rooms.Whisper(ctx, w)
	}
	from := c.names.JID(w.From)
	if as, talk, err := c.toOccupant(w.From, w.To); err != nil {
		return nil, nil //nolint:nilerr // what is not owed is not sent
	} else if talk {
		from = as
	}
	on := w.Typing.Until.After(time.Now())
	return []*element.Element{translate.ChatState(on, from.String(), to.String(), "chat")}, nil
}

// explain says in terms of stanza errors, for whoever wanted to reach a server, why that could not be. It tells nothing of our network.
func explain(err error) *translate.Error {
	say := func(c translate.Condition, text string) *translate.Error {
		return &translate.Error{Condition: c, Text: text}
	}
	var refused *stream.DialbackError
	switch {
	case errors.Is(err, errRefused):
		return say(translate.NotAllowed, errRefused.Error())
	case errors.Is(err, errAway):
		return say(translate.RemoteServerTimeout, "the service of that domain is not connected to this server at the moment")
	case missing(err):
		return say(translate.RemoteServerNotFound, "that domain has no XMPP server")
	case errors.Is(err, stream.ErrUntrusted):
		return say(translate.RemoteServerTimeout, "that server's certificate cannot be trusted")
	case errors.Is(err, stream.ErrNoTLS):
		return say(translate.RemoteServerTimeout, "that server offers no encryption")
	case errors.As(err, &refused):
		return say(translate.RemoteServerTimeout, "that server does not take this one for what it says it is")
	case errors.Is(err, errFull):
		return say(translate.ResourceConstraint, "too much waits to be sent to that server")
	case errors.Is(err, errNoAnswer):
		return say(translate.RemoteServerTimeout, "that server does not answer")
	}
	return say(translate.RemoteServerTimeout, "that server cannot be reached")
}

// missing says whether an error means that there is no such server, and not that it is away: all that was tried says so.
//
// spec: RFC 6120 §3.2.1
func missing(err error) bool {
	switch e := err.(type) { //nolint:errorlint // it walks the tree of errors itself
	case *net.DNSError:
		return e.IsNotFound
	case *stream.Error:
		return e.FromPeer && (e.Condition == stream.HostUnknown || e.Condition == stream.HostGone)
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !missing(err) })
	case interface{ Unwrap() error }:
		return missing(e.Unwrap())
	}
	return err == stream.ErrNoService || err == errAway //nolint:errorlint // a leaf
}
