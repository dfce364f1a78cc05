package s2s

import (
	"context"
	"errors"
	"io"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/muc"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// The measures of what comes in.
const (
	dealTimeout = 30 * time.Second // for one stanza
	hearAgain   = 30 * time.Second // between two words to the outbox that a server is there
)

// handle reads one inbound stream: [stream.Federation.Handle].
func (c *Carrier) handle(ctx context.Context, conn *stream.Conn) {
	ln := &line{Conn: conn, ended: make(chan struct{}), shared: true}
	err := c.read(ctx, conn, func(pair stream.Pair) {
		if conn.Returns(pair) {
			c.offer(pair, ln)
		}
	})
	c.withdraw(ln)
	ln.why = err
	close(ln.ended)
	conn.Close(err)
}

// read reads stanzas until the stream ends, and returns why. Each is dealt with before the next one is read. met, which may be nil, is
// told now and then between whom there are stanzas.
func (c *Carrier) read(ctx context.Context, conn *stream.Conn, met func(stream.Pair)) error {
	heard := map[stream.Pair]time.Time{}
	for {
		st, err := conn.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = stream.Errorf(stream.SystemShutdown, "")
			} else if !errors.Is(err, io.EOF) {
				c.log.Debug("a stream of another server has ended", "remote", conn.RemoteDomain(), "err", err)
				c.doubt(heard)
			}
			return err
		}
		if st.Name.Space != translate.NSClient {
			return stream.Errorf(stream.UnsupportedStanzaType, "")
		}
		from, err1 := translate.ParseJID(st.Attr("from"))
		to, err2 := translate.ParseJID(st.Attr("to"))
		if err1 != nil || err2 != nil {
			c.cfg.Count.Count("s2s_dropped", "malformed")
			continue
		}
		if pair := (stream.Pair{Local: to.Domain, Remote: from.Domain}); time.Since(heard[pair]) > hearAgain {
			if heard[pair] = time.Now(); met != nil {
				met(pair)
			}
			c.hub.Reachable(hub.Destination{Network: core.XMPP, Dest: from.Domain})
		}
		if err := c.cfg.Guard.Refuses(from.Domain); err != nil {
			return stream.Errorf(stream.PolicyViolation, "%s", err.(*translate.Error).Text) //nolint:errorlint // it has no other
		}
		if c.cfg.Guard.Wait(ctx, guard.ServerStanzas, guard.Organisation(from.Domain)) != nil {
			continue // ctx has ended: what was read last was not answered
		}
		c.receive(ctx, st, from, to)
	}
}

// visit is a stanza of another server's with its addresses read.
type visit struct {
	st       *element.Element
	from, to translate.JID
	who      core.Address // who sent it
}

// kinds says what becomes of a stanza to an account or domain.
var kinds = map[string]func(*Carrier, context.Context, visit) error{
	"message":  (*Carrier).message,
	"presence": (*Carrier).presence,
	"iq":       (*Carrier).iq,
}

// receive deals with one stanza. It is not cut short by the end of the server.
func (c *Carrier) receive(ctx context.Context, st *element.Element, from, to translate.JID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dealTimeout)
	defer cancel()
	if c.ours(from.Domain) { // the stream lets none through
		c.cfg.Count.Count("s2s_dropped", "loop")
		return
	}
	if c.pings.answer(st, from, to) || c.asked.answer(st, from, to) {
		return
	}
	who, err := c.names.Address(from.Bare())
	v := visit{st: st, from: from, to: to, who: who}
	if err == nil {
		err = c.keep.Do(func() error { return c.deal(ctx, v) })
	}
	if err == nil {
		return
	}
	if _, ours := errors.AsType[*translate.Error](err); !ours && hub.CodeOf(err) == "" {
		c.log.Error("dealing with a stanza of another server", "kind", st.Name.Local, "remote", from.Domain, "err", err)
	}
	if wantsError(st) {
		c.Route(translate.Bounce(st, err))
	}
}

// deal does what a stanza asks for, according to whom it is addressed to.
func (c *Carrier) deal(ctx context.Context, v visit) error {
	if err := c.mayAsk(v); err != nil {
		return err
	}
	switch _, rooms := c.names.RoomsOf(v.to.Domain); {
	case c.occupant(v.st, v.from, v.to):
	case c.component(v.to.Domain):
		c.Route(v.st)
	case rooms:
		return c.room(ctx, v)
	default:
		return kinds[v.st.Name.Local](c, ctx, v)
	}
	return nil
}

// wantsError says whether an error may be sent in answer. Presence that only tells gets none.
//
// spec: RFC 6120 §8.3.1
func wantsError(st *element.Element) bool {
	switch st.Attr("type") {
	case "error", "result", "unavailable", "probe":
		return false
	case "":
		return st.Name.Local != "presence"
	}
	return true
}

var errUnavailable = translate.Fail(translate.ServiceUnavailable, "")

// room takes what is for a room or for the service of rooms.
func (c *Carrier) room(ctx context.Context, v visit) error {
	if v.st.Name.Local == "presence" && v.st.Attr("type") == "" && v.from.Resource == "" {
		return translate.Fail(translate.JIDMalformed, "one enters a room as a client, with a resource")
	}
	c.rooms.Handle(ctx, muc.Visit{From: v.from, Who: v.who}, v.st)
	return nil
}

// account returns the local account that a stanza is for, if it is one that the sender may reach. That there is none, that it is
// disabled and that it blocks the sender all look alike.
//
// spec: XEP-0191 §3.3
// spec: RFC 6121 §8.5.1
func (c *Carrier) account(ctx context.Context, v visit) (core.Address, error) {
	a, err := c.names.Address(v.to.Bare())
	if err != nil || !a.IsLocal() || a.Name == "" {
		return a, errUnavailable
	}
	acc, err := c.hub.Account(ctx, a)
	if errors.Is(err, hub.ErrNone) || acc.Disabled {
		return a, errUnavailable
	} else if err != nil {
		return a, err
	}
	blocked, err := c.hub.Blocks(ctx, a, v.who)
	if err == nil && blocked {
		err = errUnavailable
	}
	return a, err
}

// iq goes to the client that it names, or to the sessions' server, which answers for its domains and on behalf of accounts.
//
// spec: RFC 6121 §8.5
func (c *Carrier) iq(ctx context.Context, v visit) error {
	switch v.st.Attr("type") {
	case "get", "set":
		if v.to.Local != "" {
			if _, err := c.account(ctx, v); err != nil {
				return err
			}
		}
	case "result", "error":
	default:
		return translate.Fail(translate.BadRequest, "an iq has one of four types")
	}
	c.sessions.Deliver(ctx, v.st)
	return nil
}

// pass brings a stanza to the clients of an account as it is, but for what only we may say.
//
// spec: XEP-0280 §11
// spec: XEP-0359 §3
func (c *Carrier) pass(ctx context.Context, st *element.Element) {
	c.sessions.Deliver(ctx, st.Copy().RemoveChildren(func(e *element.Element) bool {
		switch e.Name.Space {
		case translate.NSCarbons:
			return e.Name.Local != "private"
		case translate.NSMAM:
			return true
		case translate.NSSID:
			by, err := translate.ParseJID(e.Attr("by"))
			return e.Name.Local == "stanza-id" && (err != nil || c.ours(by.Domain))
		}
		return false
	}))
}
