package s2s

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// batch is what goes from one of our domains in one delivery.
type batch struct {
	pair    stream.Pair
	stanzas []*element.Element
	parcels []int // whose they are
}

// Deliver implements [hub.Carrier]. A parcel is accepted when the other server has taken all that belongs to it: see the package's
// doc. An error that the other server sends in answer to a message before that is the message's outcome.
func (c *Carrier) Deliver(ctx context.Context, dest string, parcels []hub.Delivery) []hub.Result {
	if conv, ok := elsewhere(dest); ok {
		return c.foreign.Deliver(ctx, conv, parcels)
	}
	results := make([]hub.Result, len(parcels))
	batches := map[string]*batch{}
	var sent []flight
	for i := range parcels {
		p := &parcels[i]
		var stanzas []*element.Element
		var losses []core.Loss
		err := c.keep.Do(func() (err error) {
			stanzas, losses, err = c.write(ctx, p)
			return err
		})
		results[i].Losses = losses
		if err != nil && !certain(err) && !contain.Contained(err) {
			c.log.Error("writing for another server", "remote", dest, "err", err)
			results = results[:i] // the rest is tried again
			break
		} else if err != nil {
			results[i] = hub.Result{Outcome: hub.Failed, Reason: err.Error(), Losses: losses}
			continue
		}
		for _, el := range stanzas {
			from, err := translate.ParseJID(el.Attr("from"))
			if err != nil {
				results[i] = hub.Result{Outcome: hub.Failed, Reason: "jid-malformed"}
				break
			}
			b := batches[from.Domain]
			if b == nil {
				b = &batch{pair: stream.Pair{Local: from.Domain, Remote: dest}}
				batches[from.Domain] = b
			}
			b.stanzas, b.parcels = append(b.stanzas, el), append(b.parcels, i)
			if f, ok := newFlight(el, i); ok && p.Room.Shape == core.Direct {
				sent = append(sent, f)
			}
		}
	}
	c.flights.add(sent)
	defer c.flights.remove(sent)
	var wg sync.WaitGroup
	errs := make(chan func(), len(batches))
	for _, b := range batches {
		wg.Go(func() {
			if err := c.hand(ctx, b.pair, b.stanzas); err != nil {
				errs <- func() {
					for _, i := range b.parcels {
						results[i] = c.verdict(err, &parcels[i], results[i].Losses)
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for note := range errs {
		note()
	}
	for _, f := range sent {
		if e := c.flights.outcome(f); e != nil && results[f.parcel].Outcome == hub.Accepted {
			results[f.parcel].Outcome, results[f.parcel].Reason = hub.Failed, e.Reason()
		}
	}
	return results
}

// certain says whether trying again cannot help: the hub has decided, and did not fail.
func certain(err error) bool { return hub.CodeOf(err) != "" || errors.Is(err, hub.ErrNone) }

// verdict says what an error means for what is owed. That there is no such server is certain only after a while, because name
// servers have bad moments too; all else, an untrusted certificate among it, somebody may mend.
func (c *Carrier) verdict(err error, p *hub.Delivery, losses []core.Loss) hub.Result {
	r := hub.Result{Outcome: hub.Retry, Reason: explain(err).Reason(), Losses: losses}
	if missing(err) && time.Since(p.Created) >= c.cfg.Missing || errors.Is(err, errRefused) {
		r.Outcome = hub.Failed
	}
	return r
}

// write makes the stanzas of one parcel.
func (c *Carrier) write(ctx context.Context, p *hub.Delivery) (out []*element.Element, losses []core.Loss, err error) {
	for _, to := range p.To {
		var stanzas []*element.Element
		var lost []core.Loss
		switch {
		case p.Notice != nil:
			stanzas, err = c.notices(ctx, *p.Notice)
		case p.Receipt != nil:
			if stanzas = c.receipt(p, to); len(stanzas) > 0 {
				as, talk, err := c.toOccupant(p.Parcel.From, to)
				if err != nil {
					return nil, nil, err
				}
				if talk {
					inRoom(stanzas, as)
				}
			}
		case p.Room.Shape == core.Group:
			stanzas, lost, _, err = c.rooms.Deliver(ctx, *p, to) // who has left meanwhile is owed nothing
		default:
			stanzas, lost, err = c.private(ctx, p, to)
		}
		if err != nil {
			return nil, losses, err
		}
		out, losses = append(out, stanzas...), append(losses, lost...)
	}
	return out, losses, nil
}

// notices writes a step of consent. Behind consent goes the presence that it is to: what the hub whispered of it before the other
// server knew of the consent was not for it yet.
//
// spec: RFC 6121 §3.1.5
func (c *Carrier) notices(ctx context.Context, n hub.ContactNotice) ([]*element.Element, error) {
	out := []*element.Element{translate.Notice(c.names, n)}
	if n.Kind != hub.Approve {
		return out, nil
	}
	shown, err := c.hub.PresenceOf(ctx, n.From, n.From)
	for _, p := range shown {
		out = append(out, translate.Presence(c.names, n.From, p).SetAttr("to", c.names.JID(n.To).String()))
	}
	return out, err
}

// receipt tells the author of a message how far it has come, if her client asked.
//
// spec: XEP-0184 §7
// spec: XEP-0333 §4.1
func (c *Carrier) receipt(p *hub.Delivery, to core.Address) []*element.Element {
	n := p.Content.Native
	if n == nil || n.Network != core.XMPP {
		return nil
	}
	m, err := element.Parse(n.Data, element.DefaultLimits)
	if err != nil {
		return nil
	}
	asked := m.Child(translate.NSReceipts, "request")
	if p.Receipt.Stage == core.StageDisplayed {
		asked = m.Child(translate.NSMarkers, "markable")
	}
	if asked == nil {
		return nil
	}
	from, addressee := c.names.JID(p.Parcel.From).String(), c.names.JID(to).String()
	return []*element.Element{translate.ReceiptFor(&p.Content, p.Receipt.Stage, false, from, addressee)}
}

// private writes what was said to one person. It goes to her bare JID, so that all her clients get it, from the sender's client if
// that is one of XMPP. The stanza-id is of the sender's archive here: it makes a message that comes twice recognisable even where the
// client gave it no id that is unique.
//
// spec: XEP-0359 §2.2
func (c *Carrier) private(ctx context.Context, p *hub.Delivery, to core.Address) (out []*element.Element, losses []core.Loss, err error) {
	e := &p.Content
	if e.Retracted != "" {
		return nil, nil, nil // taken back before it was sent
	}
	from := c.names.JID(e.Sender).String()
	as, talk, err := c.toOccupant(e.Sender, to)
	if err != nil {
		return nil, nil, err
	}
	w := translate.Writing{
		Names: c.names, From: from, To: c.names.JID(to).String(), Ask: true,
		StanzaIDs: []translate.StanzaID{{By: from, ID: string(e.ID)}},
	}
	err = c.hub.Read(ctx, func(v hub.View) error {
		if err := lookup.Writing(v, e, c.cfg.Base, &w); err != nil {
			return err
		}
		var el *element.Element
		if el, losses = translate.Out(e, w); el != nil {
			out = []*element.Element{el}
		}
		return nil
	})
	if talk {
		inRoom(out, as)
	}
	return out, losses, err
}

// inRoom makes messages to the occupant of a room of another server ones from our occupant there.
//
// spec: XEP-0045 §7.5
func inRoom(messages []*element.Element, as translate.JID) {
	for _, el := range messages {
		el.SetAttr("from", as.String()).SetAttr("type", "chat")
		el.RemoveChildren(func(c *element.Element) bool { return c.Is(translate.NSSID, "stanza-id") })
		if el.Child(translate.NSMUCUser, "x") == nil {
			el.Add(translate.NSMUCUser, "x")
		}
	}
}

// flights are the messages that were sent and whose outcome is not known yet.
type flights struct {
	mu sync.Mutex
	m  map[flightKey]*translate.Error
}

type flightKey struct {
	from, to translate.JID // bare
	id       string
}

type flight struct {
	flightKey
	parcel int
}

func newFlight(el *element.Element, parcel int) (flight, bool) {
	from, err1 := translate.ParseJID(el.Attr("from"))
	to, err2 := translate.ParseJID(el.Attr("to"))
	ok := err1 == nil && err2 == nil && el.Name.Local == "message" && el.Attr("id") != ""
	return flight{flightKey{from.Bare(), to.Bare(), el.Attr("id")}, parcel}, ok
}

func (f *flights) add(all []flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[flightKey]*translate.Error{}
	}
	for _, x := range all {
		f.m[x.flightKey] = nil
	}
}

func (f *flights) remove(all []flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range all {
		delete(f.m, x.flightKey)
	}
}

func (f *flights) outcome(x flight) *translate.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[x.flightKey]
}

// fail notes an error for a message, if it is on its way.
func (f *flights) fail(k flightKey, e *translate.Error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, on := f.m[k]; !on {
		return false
	}
	f.m[k] = e
	return true
}
