package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/translate"
)

// eventRoutes send events and read the state.
//
// spec: MX 1.19 CS §7.8
func (s *Rooms) eventRoutes() []client.Route {
	const room = v3 + "/rooms/{roomId}"
	get, put := http.MethodGet, http.MethodPut
	return []client.Route{
		{Method: put, Path: room + "/send/{eventType}/{txnId}", Limit: client.Messages, Handler: s.send},
		{Method: put, Path: room + "/redact/{eventId}/{txnId}", Limit: client.Messages, Handler: s.redact},
		{Method: put, Path: room + "/state/{eventType}", Limit: client.Writes, Handler: s.setState},
		{Method: put, Path: room + "/state/{eventType}/{stateKey}", Limit: client.Writes, Handler: s.setState},
		{Method: get, Path: room + "/state", Handler: s.allState},
		{Method: get, Path: room + "/state/{eventType}", Handler: s.oneState},
		{Method: get, Path: room + "/state/{eventType}/{stateKey}", Handler: s.oneState},
		{Method: get, Path: room + "/event/{eventId}", Handler: s.event},
	}
}

// send sends an event that is not state. The same transaction ID again is the
// same event.
//
// spec: MX 1.19 CS §7.8
func (s *Rooms) send(r *client.Request) (any, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	e := translate.Event{Type: r.Var("eventType"), Content: body}
	if e.Type == typeRedaction {
		var c struct {
			Redacts string `json:"redacts"`
		}
		if err := client.DecodeJSON(body, &c); err != nil {
			return nil, err
		}
		e.Redacts = c.Redacts
	}
	return s.submit(r, e)
}

const typeRedaction = "m.room.redaction"

// redact takes an event's content away.
//
// spec: MX 1.19 CS §7.9.2
func (s *Rooms) redact(r *client.Request) (any, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	return s.submit(r, translate.Event{Type: typeRedaction, Content: body, Redacts: r.Var("eventId")})
}

// submit sends an event with the request's transaction ID.
func (s *Rooms) submit(r *client.Request, e translate.Event) (any, error) {
	path := r.HTTP.URL.EscapedPath()
	txn := mirror.TxnAlias(r.Account, r.Device, strings.TrimSuffix(path[:strings.LastIndexByte(path, '/')], "/"), r.Var("txnId"), e.Content)
	var d hub.Draft
	var again string
	err := s.inRoom(r, func(v hub.View, rm *room) error {
		// A repetition is answered before its content is looked at, because
		// what it is about may have gone since.
		id, _, err := v.EventBy(txn)
		if err == nil {
			before, err := v.Event(id)
			again = EventID(&before)
			return err
		}
		if !errors.Is(err, hub.ErrNone) {
			return err
		}
		if e.Type == typeRedaction {
			if _, err := coreID(v, rm, e.Redacts); err != nil {
				return notFoundEvent(err)
			}
		}
		d, err = s.draft(v, rm, e)
		return err
	})
	if err != nil || again != "" {
		return object{"event_id": again}, err
	}
	d.Aliases, d.From = []core.Alias{txn}, r.Device
	sent, err := s.hub.Submit(r.Context(), d)
	if _, reaction := d.Content.(core.Reaction); reaction && hub.CodeOf(err) == hub.Conflict {
		// spec: MX 1.19 CS §10.40.4.1
		return nil, client.Errorf(http.StatusBadRequest, client.DuplicateNote, "You have reacted with that already.")
	}
	if err != nil {
		return nil, err
	}
	return object{"event_id": EventID(&sent)}, nil
}

func notFoundEvent(err error) error {
	if errors.Is(err, hub.ErrNone) {
		return notFound("There is no such event in this room.")
	}
	return err
}

// setState sets one piece of the state. Setting it to what it is changes
// nothing.
//
// spec: MX 1.19 CS §7.8
func (s *Rooms) setState(r *client.Request) (any, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	key := r.Var("stateKey")
	var d hub.Draft
	var same string
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		rm, err := find(v, r.Var("roomId"), r.Account)
		if errors.Is(err, hub.ErrNone) {
			return errOutside()
		}
		if err != nil {
			return err
		}
		e := translate.Event{Type: r.Var("eventType"), StateKey: &key, Content: body}
		if d, err = s.draft(v, rm, e); err != nil {
			return err
		}
		if same, err = s.sameState(v, rm, e.Type, key, d.Native); err != nil || same != "" {
			return err
		}
		return s.checkState(v, rm, d.Content)
	})
	if err != nil || same != "" {
		return object{"event_id": same}, err
	}
	d.From = r.Device
	sent, err := s.putState(r, d)
	if err != nil {
		return nil, err
	}
	return object{"event_id": EventID(&sent)}, nil
}

// putState submits a state event; one's own joining goes the way on which the
// hub finds what lets one in.
func (s *Rooms) putState(r *client.Request, d hub.Draft) (core.Event, error) {
	c, ok := d.Content.(core.Membership)
	if !ok || c.Standing != core.Joined || c.Target != d.Sender {
		return s.hub.Submit(r.Context(), d)
	}
	var in bool
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		state, err := v.State(d.Conv)
		in = err == nil && state.Standing(d.Sender) == core.Joined
		return err
	})
	if err != nil {
		return core.Event{}, err
	}
	if in {
		return s.hub.Submit(r.Context(), d)
	}
	return s.hub.Accept(r.Context(), hub.JoinRequest{
		Conv: d.Conv, Who: d.Sender, Name: c.Name, Reason: c.Reason, Native: d.Native, From: d.From,
	})
}

// sameState returns the event that set this piece of the state to the same
// content, if the same person set it.
func (s *Rooms) sameState(v hub.View, rm *room, typ, key string, native *core.Native) (string, error) {
	now, err := s.mirror.StateEvent(v, rm.conv.ID, typ, key)
	if errors.Is(err, hub.ErrNone) {
		return "", nil
	}
	if err != nil || now.Sender != s.userID(v, rm.who) || !bytes.Equal(now.Content, native.Data) {
		return "", err
	}
	return now.EventID, nil
}

// checkState holds what only the server can check about a piece of state:
// aliases that a room names must lead to it.
//
// spec: MX 1.19 CS §8.3
func (s *Rooms) checkState(v hub.View, rm *room, c core.Content) error {
	change, ok := c.(core.Change)
	if !ok || change.Aspect != core.AspectAddresses {
		return nil
	}
	for _, a := range append([]core.Address{change.Main}, change.Others...) {
		if a.IsZero() || a == rm.state.Main {
			continue
		}
		id, err := v.ConversationAt(a)
		if err != nil && !errors.Is(err, hub.ErrNone) {
			return err
		}
		if err != nil || id != rm.conv.ID {
			return client.Errorf(http.StatusBadRequest, badAlias, "The alias %s does not lead to this room.", s.mirror.Names(v).Alias(a))
		}
	}
	return nil
}

const badAlias client.Errcode = "M_BAD_ALIAS"

// stateUpTo is the state now, or after the event at a position.
func (s *Rooms) stateUpTo(v hub.View, rm *room, end last) ([]mirror.Event, error) {
	if end == nil {
		return s.mirror.State(v, rm.conv.ID)
	}
	return s.mirror.StateAt(v, rm.conv.ID, *end)
}

// allState is the whole state.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) allState(r *client.Request) (any, error) {
	var out []json.RawMessage
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, end, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		events, err := s.stateUpTo(v, rm, end)
		if err != nil {
			return err
		}
		out, err = s.show(v, r, events)
		return err
	})
	return out, err
}

// oneState is one piece of the state: its content, or the event whole.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) oneState(r *client.Request) (any, error) {
	var out json.RawMessage
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, end, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		typ, key := r.Var("eventType"), r.Var("stateKey")
		var e mirror.Event
		if end == nil {
			e, err = s.mirror.StateEvent(v, rm.conv.ID, typ, key)
		} else {
			e, err = s.mirror.StateEventAt(v, rm.conv.ID, typ, key, *end)
		}
		if errors.Is(err, hub.ErrNone) {
			return notFound("There is no such piece of state.")
		}
		if err != nil {
			return err
		}
		if out = e.Content; r.Query("format") == "event" {
			var all []json.RawMessage
			if all, err = s.show(v, r, []mirror.Event{e}); err == nil {
				out = all[0]
			}
		}
		return err
	})
	return out, err
}

// event is one event.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) event(r *client.Request) (any, error) {
	var out []json.RawMessage
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		e, _, err := s.visible(v, r, r.Var("eventId"))
		if err != nil {
			return err
		}
		events, err := s.mirror.ByCore(v, e.ID)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return notFoundEvent(hub.ErrNone)
		}
		out, err = s.show(v, r, events)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// visible finds an event of the request's room that its user may read. What
// she may not read is not there.
func (s *Rooms) visible(v hub.View, r *client.Request, eventID string) (core.Event, *room, error) {
	rm, err := find(v, r.Var("roomId"), r.Account)
	if err != nil {
		return core.Event{}, nil, notFoundEvent(err)
	}
	id, err := coreID(v, rm, eventID)
	if err != nil {
		return core.Event{}, nil, notFoundEvent(err)
	}
	e, err := v.Event(id)
	if err != nil {
		return core.Event{}, nil, err
	}
	ok, err := s.hub.MayRead(v, r.Account, &e)
	if err == nil && !ok {
		err = notFoundEvent(hub.ErrNone)
	}
	return e, rm, err
}
