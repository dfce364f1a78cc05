package shared

import (
	"errors"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/mirror"
	"parley/matrix/translate"
	"parley/matrix/wire"
	"parley/store"
)

// show applies an accepted event to the conversation, and what else the state
// that comes of it changes. It returns the feed number of the event.
func (t *Turn) show(rm *room, pdu *wire.PDU, e *graph.Event, before, next graph.State) (core.Feed, error) {
	// One that was known as somebody's state is not kept again: where it comes
	// to stand now is a correction.
	_, err := t.r.mirror.CoreID(t.tx, pdu.EventID)
	known := err == nil
	if err != nil && !errors.Is(err, hub.ErrNone) {
		return 0, err
	}
	aside := e.StateKey != nil && next.Get(e.Type, *e.StateKey) != e
	shown, err := t.apply(rm, pdu, e, before, hub.Draft{Aside: aside})
	if err != nil {
		return 0, err
	}
	feed := shown.Feed
	if known {
		if _, feed, err = t.tx.Edge(rm.conv); err != nil {
			return 0, err
		}
	}
	var pieces []mirror.Piece
	rm.current.Diff(next, func(was, is *graph.Event) {
		if is != e || known {
			pieces = append(pieces, piece(was, is))
		}
	})
	return feed, t.correct(rm, pieces, rm.current)
}

func piece(was, is *graph.Event) mirror.Piece {
	if is == nil {
		return mirror.Piece{StateKey: was.Key()}
	}
	return mirror.Piece{StateKey: is.Key(), EventID: is.ID}
}

// showBelow applies history.
func (t *Turn) showBelow(rm *room, pdu *wire.PDU, e *graph.Event) error {
	id, err := t.r.mirror.CoreID(t.tx, pdu.EventID)
	if err == nil { // it was known as state
		pos, err := t.Hub.Lower(id)
		if err != nil {
			return err
		}
		return t.r.mirror.Move(t.tx, pdu.EventID, pos)
	}
	if !errors.Is(err, hub.ErrNone) {
		return err
	}
	_, err = t.apply(rm, pdu, e, graph.StateOf(e.Auth...), hub.Draft{Below: true, Aside: true})
	return err
}

// apply has the hub keep an event, as the draft says, unless it has it.
func (t *Turn) apply(rm *room, pdu *wire.PDU, e *graph.Event, before graph.View, d hub.Draft) (core.Event, error) {
	by, err := t.redactedBefore(rm, pdu, before)
	if err != nil {
		return core.Event{}, err
	}
	if by != "" {
		if pdu, err = pdu.Redact(); err != nil {
			return core.Event{}, err
		}
	}
	content, err := t.content(rm, pdu, e, before)
	if err != nil {
		return core.Event{}, err
	}
	content.Aside, content.Below, content.Found = d.Aside, d.Below, d.Found
	if id, err := t.r.mirror.CoreID(t.tx, pdu.EventID); err == nil {
		return t.tx.Event(id)
	} else if !errors.Is(err, hub.ErrNone) {
		return core.Event{}, err
	}
	t.r.mirror.Adopt(t.tx, mirror.Adopted{PDU: pdu, Aside: d.Aside, Found: d.Found, RedactedBy: by})
	return t.Hub.Apply(content)
}

// correct makes the hub's state what the graph's is in some pieces. was is the
// state in which they were others.
func (t *Turn) correct(rm *room, pieces []mirror.Piece, was graph.State) error {
	if len(pieces) == 0 {
		return nil
	}
	list, err := t.corrections(rm, pieces, was)
	if err != nil {
		return err
	}
	t.r.mirror.Correcting(t.tx, rm.conv, pieces)
	_, err = t.Hub.Correct(rm.conv, list)
	return err
}

// corrections are pieces in the words of the core. The events that set them are
// kept first, where they were not to be seen so far.
func (t *Turn) corrections(rm *room, pieces []mirror.Piece, was graph.State) ([]core.Correction, error) {
	var list []core.Correction
	for _, p := range pieces {
		var c core.Correction
		var wasKey core.StateKey
		if old := was.Get(p.Type, p.Key); old != nil {
			e, err := t.ensure(rm, old.ID, hub.Draft{Aside: true})
			if err != nil {
				return nil, err
			}
			wasKey, _ = core.StateKeyOf(e.Content)
			c.Kind, c.Key, c.Was = wasKey.Kind, wasKey.Key, e.ID
		}
		if p.EventID != "" {
			e, err := t.ensure(rm, p.EventID, hub.Draft{Aside: true})
			if err != nil {
				return nil, err
			}
			k, _ := core.StateKeyOf(e.Content)
			if c.Was != "" && k != wasKey { // one of them says nothing that the core understands
				list = append(list, c)
				c = core.Correction{}
			}
			c.Kind, c.Key, c.Is = k.Kind, k.Key, e.ID
		}
		list = append(list, c)
	}
	return list, nil
}

// ensure has the hub know a state event that was cited, or not accepted, when
// it came.
func (t *Turn) ensure(rm *room, eventID string, d hub.Draft) (core.Event, error) {
	id, err := t.r.mirror.CoreID(t.tx, eventID)
	if err == nil {
		return t.tx.Event(id)
	}
	if !errors.Is(err, hub.ErrNone) {
		return core.Event{}, err
	}
	got, err := read(t.sql, rm.version, []string{eventID})
	if err != nil {
		return core.Event{}, err
	}
	k, ok := got[eventID]
	if !ok || rm.events[eventID] == nil {
		return core.Event{}, hub.ErrNone
	}
	e, err := t.apply(rm, k.pdu, rm.events[eventID], rm.current, d)
	if err == nil {
		_, err = t.sql.Exec(`UPDATE shared_events SET json = NULL WHERE event_id = $1`, eventID)
	}
	return e, err
}

// redactedBefore finds the redaction of an event that came before it, if there
// was one and it is carried out.
//
// spec: MX 1.19 RV v3
func (t *Turn) redactedBefore(rm *room, pdu *wire.PDU, before graph.View) (string, error) {
	var by string
	err := t.sql.QueryRow(`SELECT event_id FROM shared_redactions WHERE target = $1`, pdu.EventID).Scan(&by)
	if store.NotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	redaction, err := t.event(rm, by)
	if err != nil || redaction == nil {
		return "", err
	}
	target, err := t.link(rm, pdu, false)
	if err != nil || !graph.MayRedact(redaction, target, rm.current) {
		return "", err
	}
	return by, nil
}

// event is any event that is known, linked; nil if it is not.
func (t *Turn) event(rm *room, id string) (*graph.Event, error) {
	if e := rm.events[id]; e != nil {
		return e, nil
	}
	got, err := read(t.sql, rm.version, []string{id})
	if err != nil || got[id].pdu == nil {
		return nil, err
	}
	return t.link(rm, got[id].pdu, got[id].viaSigned)
}

// content is an event as the hub is to know it. What does not fit the core's
// meanings, because it is malformed or about something that is not there, is an
// extension that clients of Matrix understand.
func (t *Turn) content(rm *room, pdu *wire.PDU, e *graph.Event, before graph.View) (hub.Draft, error) {
	res := t.r.mirror.ResolverFor(t.tx, rm.version)
	d := hub.Draft{
		Conv: rm.conv, Origin: time.UnixMilli(pdu.Time).UTC(),
		Aliases: []core.Alias{{Network: core.Matrix, Kind: "event", Key: pdu.EventID}},
	}
	var err error
	if d.Sender, err = res.Address(pdu.Sender); err != nil {
		name, domain, _ := wire.ParseUserID(pdu.Sender)
		d.Sender = core.Address{Network: core.Matrix, Name: name, Domain: domain}
	}
	in := translate.Event{Type: pdu.Type, StateKey: pdu.StateKey, Sender: pdu.Sender, Content: pdu.Content, Redacts: pdu.Redacts}
	if d.Native, err = translate.Native(in); err != nil {
		return d, err
	}
	var losses []core.Loss
	if d.Content, losses, err = translate.In(res, in); err != nil {
		d.Content, losses = t.lesser(res, in), nil
	}
	for _, l := range losses {
		t.r.count("losses", string(l.Feature), string(core.Matrix))
	}
	fits, err := t.fits(rm, d, pdu, e, before)
	if err == nil && !fits {
		d.Content = extension(in)
	}
	return d, err
}

// lesser is what can be made of an event that translates to nothing better: a
// message without the relation to one that is not known, or an extension.
func (t *Turn) lesser(res translate.Resolver, in translate.Event) core.Content {
	if in.StateKey == nil {
		if o, err := wire.ParseObject(in.Content); err == nil && o.Get("m.relates_to") != nil {
			alone := in
			alone.Content = o.Without("m.relates_to", "m.new_content").JSON()
			if c, _, err := translate.In(res, alone); err == nil {
				return c
			}
		}
	}
	return extension(in)
}

func extension(in translate.Event) core.Content {
	return core.Extension{Type: in.Type, StateKey: in.StateKey, Data: in.Content}
}

// fits says whether what an event is about allows it to be that. A redaction
// that comes before its target is noted.
func (t *Turn) fits(rm *room, d hub.Draft, pdu *wire.PDU, e *graph.Event, before graph.View) (bool, error) {
	if e.Type == wire.TypeRedaction {
		if id := redacts(pdu); id != "" {
			if c, ok := d.Content.(core.Retract); ok {
				return t.mayRetract(rm, c, e, id, before)
			}
			_, err := t.sql.Exec(`INSERT INTO shared_redactions (target, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, e.ID)
			return false, err
		}
	}
	id := core.Target(d.Content)
	if id == "" {
		return true, nil
	}
	target, err := t.tx.Event(id)
	if errors.Is(err, hub.ErrNone) {
		return false, nil
	}
	if err != nil || target.Conv != rm.conv {
		return false, err
	}
	switch c := d.Content.(type) {
	case core.Edit:
		return target.Sender == d.Sender && core.KindOf(target.Content) == core.KindMessage, nil
	case core.Reaction:
		mine, err := hub.Reactions(t.tx, d.Sender, id)
		for _, key := range mine {
			if key == c.Key {
				return false, err
			}
		}
		return c.Key != "" && len(c.Key) <= 1024, err
	}
	return true, nil
}

// redacts is the event that a redaction is about.
func redacts(pdu *wire.PDU) string {
	id := pdu.Redacts
	if pdu.Version.RedactsInContent {
		o, err := wire.ParseObject(pdu.Content)
		if err != nil {
			return ""
		}
		id, _ = o.String("redacts")
	}
	if wire.CheckEventID(id) != nil {
		return ""
	}
	return id
}

// mayRetract says whether a redaction is carried out.
//
// spec: MX 1.19 RV v3
func (t *Turn) mayRetract(rm *room, c core.Retract, e *graph.Event, eventID string, before graph.View) (bool, error) {
	if said, err := t.tx.Event(c.Target); err != nil || said.Conv != rm.conv {
		return false, err
	}
	target, err := t.event(rm, eventID)
	if err != nil || target == nil {
		return false, err
	}
	return graph.MayRedact(e, target, before), nil
}
