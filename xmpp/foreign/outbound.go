package foreign

import (
	"context"
	"errors"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// flight is a message of ours that the room has not reflected yet.
type flight struct {
	id    string
	event core.EventID
	body  string
	sent  time.Time
	then  func(error)
}

// Deliver hands what an account has said to the room that a conversation projects: see [hub.Carrier]. A message is accepted when the
// room has reflected it.
func (s *Service) Deliver(ctx context.Context, conv core.ConvID, parcels []hub.Delivery) []hub.Result {
	o := s.in(conv)
	if o == nil {
		results := make([]hub.Result, len(parcels))
		for i := range results {
			results[i] = hub.Result{Outcome: hub.Failed, Reason: "not-acceptable (you are not in this room any more)"}
		}
		return results
	}
	type outcome struct {
		i      int
		losses []core.Loss
		err    error
	}
	outcomes := make(chan outcome, len(parcels))
	for i := range parcels {
		o.later(func() {
			var losses []core.Loss
			losses = o.say(&parcels[i], func(err error) { outcomes <- outcome{i, losses, err} })
		})
	}
	results := make([]hub.Result, len(parcels))
	for i := range results {
		results[i] = hub.Result{Outcome: hub.Retry, Reason: "the room did not answer"}
	}
	for range parcels {
		select {
		case r := <-outcomes:
			results[r.i] = verdict(r.err, r.losses)
		case <-o.done:
			return results
		case <-ctx.Done():
			return results
		}
	}
	return results
}

// verdict says what a room's answer means for what is owed.
func verdict(err error, losses []core.Loss) hub.Result {
	var e *translate.Error
	switch {
	case err == nil:
		return hub.Result{Outcome: hub.Accepted, Losses: losses}
	case errors.As(err, &e) && e.Permanent():
		return hub.Result{Outcome: hub.Failed, Reason: e.Reason(), Losses: losses}
	}
	return hub.Result{Outcome: hub.Retry, Reason: err.Error(), Losses: losses}
}

// say sends one message to the room; then hears when the room has taken it, or that it has not.
func (o *occupancy) say(p *hub.Delivery, then func(error)) []core.Loss {
	e := &p.Content
	if now, ok := o.event(e.ID); ok { // the archive may have told since that the room has it
		e.Aliases, e.Retracted = now.Aliases, now.Retracted
	}
	if wasTaken(e) || e.Retracted != "" && core.KindOf(e.Content) != core.KindReaction {
		then(nil) // the room has it already, as the archive told; or it was taken back before it was sent
		return nil
	}
	if o.phase != inside {
		then(errLost)
		return nil
	}
	el, losses, err := o.write(e)
	if err != nil || el == nil {
		then(err)
		return losses
	}
	f := &flight{id: el.Attr("id"), event: e.ID, body: el.ChildText("", "body"), sent: time.Now(), then: then}
	if old := o.flights[f.id]; old != nil {
		old.then(errLost)
	}
	o.flights[f.id] = f
	o.after(o.s.Answer, func() {
		if o.flights[f.id] == f {
			delete(o.flights, f.id)
			f.then(translate.Fail(translate.RemoteServerTimeout, "the room does not answer"))
			o.heard()
		}
	})
	o.send(el, "")
	return losses
}

// aliasTaken is the kind of the alias of a message of ours that the room has taken without giving it a name.
const aliasTaken = "muc-reflection"

// wasTaken says whether the room has taken a message of ours.
func wasTaken(e *core.Event) bool {
	scope := translate.RoomScope(e.Conv)
	return e.AliasIn(core.XMPP, translate.AliasStanza, scope) != "" || e.AliasIn(core.XMPP, aliasTaken, scope) != ""
}

// write makes the stanza of an event of ours.
func (o *occupancy) write(e *core.Event) (el *element.Element, losses []core.Loss, err error) {
	ctx, cancel := o.timeout()
	defer cancel()
	w := translate.Writing{
		Names: o.s.Names, Type: "groupchat", Elsewhere: true,
		Occupant: func(a core.Address) string { return o.jidOf(a) },
	}
	err = o.s.Hub.Read(ctx, func(v hub.View) error {
		if err := lookup.Writing(v, e, o.s.Base, &w); err != nil {
			return err
		}
		el, losses = translate.Out(e, w)
		return nil
	})
	if el != nil {
		el.RemoveChildren(func(c *element.Element) bool { return c.Is(translate.NSSID, "stanza-id") })
		if el.Child(translate.NSSID, "origin-id") == nil {
			el.Add(translate.NSSID, "origin-id").SetAttr("id", el.Attr("id"))
		}
	}
	return el, losses, err
}

// jidOf is a member's JID in the room, "" for one who is not there.
func (o *occupancy) jidOf(a core.Address) string {
	for _, c := range o.occupants {
		if c.address == a {
			return o.room.With(c.nick).String()
		}
	}
	return ""
}

// Whisper writes to the room that an account writes or has read something.
func (s *Service) Whisper(w hub.Whisper) {
	o := s.in(w.Conv)
	if o == nil {
		return
	}
	o.later(func() {
		if o.phase != inside || w.From != o.account {
			return
		}
		switch {
		case w.Typing != nil:
			o.send(translate.ChatState(w.Typing.Until.After(time.Now()), "", "", "groupchat"), "")
		case w.Displayed != "":
			ctx, cancel := o.timeout()
			defer cancel()
			var e core.Event
			err := s.Hub.Read(ctx, func(v hub.View) (err error) {
				e, err = v.Event(w.Displayed)
				return err
			})
			if err == nil && core.KindOf(e.Content) == core.KindMessage {
				o.send(translate.ReceiptElsewhere(&e, core.StageDisplayed, "", ""), "")
			}
		}
	})
}

// AsOccupant is as whom an account speaks to the occupant of a room elsewhere; false if it is not in that room.
func (s *Service) AsOccupant(account, occupant core.Address) (translate.JID, bool) {
	room, _, ok := occupant.Occupant()
	if !ok {
		return translate.JID{}, false
	}
	o := s.of(account, s.Names.JID(room))
	if o == nil {
		return translate.JID{}, false
	}
	in := false
	err := o.do(o.ctx, func(then func(error)) {
		in = o.phase == inside
		then(nil)
	})
	return o.me, err == nil && in
}

// Network implements [hub.Remote].
func (s *Service) Network() core.Network { return core.XMPP }

// Enter implements [hub.Remote]. Where a room wants a password, the reason of the request is one.
func (s *Service) Enter(ctx context.Context, room core.Address, r hub.JoinRequest) (core.ConvID, error) {
	e := entry{nick: r.Nick}
	if e.nick == "" {
		e.nick = s.nickOf(ctx, r)
	}
	conv, err := s.enter(ctx, place{r.Who, s.Names.JID(room)}, e)
	if te, ok := err.(*translate.Error); ok && te.Name == "not-authorized" && r.Reason != "" { //nolint:errorlint // it is returned bare
		e.password = r.Reason
		conv, err = s.enter(ctx, place{r.Who, s.Names.JID(room)}, e)
	}
	return conv, refusal(err)
}

// nickOf is the nick of one who asked for none.
func (s *Service) nickOf(ctx context.Context, r hub.JoinRequest) string {
	if r.Name != "" {
		return r.Name
	}
	if p, err := s.Hub.Profile(ctx, r.Who); err == nil && p.Name != "" {
		return p.Name
	}
	return r.Who.Name
}

// enter makes an account an occupant and waits until it is one.
func (s *Service) enter(ctx context.Context, p place, e entry) (core.ConvID, error) {
	if p.room.Local == "" || strings.ContainsRune(e.nick, '/') && len(e.nick) > 1000 {
		return "", translate.Fail(translate.JIDMalformed, "")
	}
	for range 2 {
		o, err := s.open(ctx, p)
		if err != nil {
			return "", err
		}
		err = o.do(ctx, func(then func(error)) { o.enter(e, then) })
		if err == nil {
			return o.conv, nil
		}
		if !errors.Is(err, errGone) { // it ended while this waited
			return "", err
		}
	}
	return "", errGone
}

// rowOf is the row of one who was in the room before, or a new one.
func (s *Service) rowOf(ctx context.Context, p place) (row, error) {
	rows, err := s.load(ctx, "account = $1 AND room = $2", p.account.String(), p.room.String())
	if err != nil || len(rows) == 0 {
		return row{place: p}, err
	}
	return rows[0], nil
}

// follow enters the room to which another has moved, which may be one of ours.
func (s *Service) follow(account, room core.Address, e entry) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*s.Answer)
		defer cancel()
		err := s.followTo(ctx, account, room, e)
		if err != nil {
			s.Log.Info("a room that has moved cannot be entered", "room", room.Bare(), "err", err)
		}
	}()
}

func (s *Service) followTo(ctx context.Context, account, room core.Address, e entry) error {
	if !room.IsLocal() {
		_, err := s.enter(ctx, place{account, s.Names.RoomJID(room)}, e)
		return err
	}
	var conv core.ConvID
	err := s.Hub.Read(ctx, func(v hub.View) (err error) {
		conv, err = v.ConversationAt(room)
		return err
	})
	if err == nil {
		_, err = s.Hub.Join(ctx, hub.JoinRequest{Conv: conv, Who: account, Nick: e.nick})
	}
	return err
}

// Older implements [hub.Remote].
func (s *Service) Older(ctx context.Context, c core.Conversation, limit int) (found bool, err error) {
	o := s.in(c.ID)
	if o == nil {
		return false, nil
	}
	err = o.do(ctx, func(then func(error)) {
		o.older(limit, func(some bool) {
			found = some
			then(nil)
		})
	})
	return found, err
}

// Leave ends an account's being in a room, if it is in it.
func (s *Service) Leave(ctx context.Context, account core.Address, room translate.JID, reason string) error {
	o := s.of(account, room)
	if o == nil {
		return nil
	}
	return o.do(ctx, func(then func(error)) {
		o.leave(reason)
		then(nil)
	})
}
