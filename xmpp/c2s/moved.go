package c2s

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// Enquirer asks other servers on behalf of accounts. A [Router] that is one has requests of people who moved looked into.
type Enquirer interface {
	// Ask sends an iq with addresses and returns the answer, which may be an error stanza.
	Ask(ctx context.Context, iq *element.Element) (*element.Element, error)
}

// The measures of looking into moves.
const (
	maxMoves    = 32 // at a time; what is beyond is a request like any other
	moveTimeout = 30 * time.Second
)

// Requested takes a request for consent that may say that its sender has moved. Another server is asked whether that is true while the
// caller goes on: until it has answered the request is not on disk, and the sender has to make it again if this server crashes meanwhile.
//
// spec: XEP-0283 §4.4
func (srv *Server) Requested(ctx context.Context, st *element.Element, n hub.ContactNotice) error {
	old, ok := translate.MovedFrom(st)
	if !ok || n.Kind != hub.Ask {
		return srv.Hub.Consent(ctx, n)
	}
	moved, err := srv.names.Address(old)
	if err != nil {
		return srv.Hub.Consent(ctx, n)
	}
	n.Moved = moved
	if !srv.Hub.Hosts(srv.names.JID(n.To).Domain) {
		return srv.Hub.Consent(ctx, n) // it is for another server to find out
	}
	if sees, err := srv.sees(ctx, n.To, n.Moved); err != nil || !sees {
		if err == nil {
			err = srv.Hub.Consent(ctx, n)
		}
		return err
	}
	if srv.Hub.Hosts(old.Domain) {
		return srv.moved(ctx, n, srv.statementHere)
	}
	enquirer, ok := srv.Router.(Enquirer)
	if !ok || !srv.joins(&srv.errands) {
		return srv.Hub.Consent(ctx, n)
	}
	select {
	case srv.moves <- struct{}{}:
	default:
		srv.errands.Done()
		return srv.Hub.Consent(ctx, n)
	}
	go func() {
		defer srv.errands.Done()
		defer func() { <-srv.moves }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveTimeout)
		defer cancel()
		go func() {
			select {
			case <-srv.stopping:
				cancel() // then it is a request like any other
			case <-ctx.Done():
			}
		}()
		err := srv.keep.Do(func() error {
			return srv.moved(ctx, n, func(ctx context.Context, n hub.ContactNotice) (translate.JID, bool, error) {
				return srv.statementThere(ctx, enquirer, n)
			})
		})
		if err != nil {
			srv.Log.Warn("a request of one who says to have moved was not taken", "from", n.From.Domain, "err", err)
		}
	}()
	return nil
}

// moved takes the request with what the old address says about where its owner is now.
func (srv *Server) moved(ctx context.Context, n hub.ContactNotice, statement func(context.Context, hub.ContactNotice) (translate.JID, bool, error)) error {
	at, stated, err := statement(ctx, n)
	if err != nil {
		srv.Log.Debug("no statement of one who says to have moved", "old", n.Moved.Domain, "err", err)
	}
	if err != nil || !stated || at != srv.names.JID(n.From).Bare() {
		return srv.Hub.Consent(context.WithoutCancel(ctx), n)
	}
	return srv.Hub.ConsentMoved(context.WithoutCancel(ctx), n)
}

// moveQuestion makes the question for the statement of the old address.
//
// spec: XEP-0283 §4.3
func (srv *Server) moveQuestion(n hub.ContactNotice) *element.Element {
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "get").SetAttr("id", core.NewToken())
	iq.SetAttr("from", srv.names.JID(n.To).String()).SetAttr("to", srv.names.JID(n.Moved).String())
	iq.Add(pep.NS, "pubsub").Add(pep.NS, "items").SetAttr("node", translate.NSMoved).Add(pep.NS, "item").SetAttr("id", "current")
	return iq
}

// statementThere asks another server.
func (srv *Server) statementThere(ctx context.Context, e Enquirer, n hub.ContactNotice) (translate.JID, bool, error) {
	answer, err := e.Ask(ctx, srv.moveQuestion(n))
	if err != nil {
		return translate.JID{}, false, err
	}
	at, ok := translate.MovedTo(answer)
	return at, ok, nil
}

// statementHere reads what an account here has published, as the one who is asked would read it.
func (srv *Server) statementHere(ctx context.Context, n hub.ContactNotice) (at translate.JID, ok bool, err error) {
	err = srv.Hub.Read(ctx, func(v hub.View) error {
		c, err := pep.Node(v, n.Moved, translate.NSMoved)
		if err != nil {
			return err
		}
		if err := pep.MayRead(v, n.Moved, translate.NSMoved, c, pep.Asker{Who: n.To, JID: srv.names.JID(n.To)}); err != nil {
			return err
		}
		it, found, err := pep.ReadItem(v, n.Moved, translate.NSMoved, "current")
		if err != nil || !found {
			return err
		}
		answer := element.New(translate.NSClient, "iq").SetAttr("type", "result")
		answer.Add(pep.NS, "pubsub").Add(pep.NS, "items").Append(itemElement(pep.NS, it, false, false))
		at, ok = translate.MovedTo(answer)
		return nil
	})
	return at, ok, err
}
