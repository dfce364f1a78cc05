package rooms

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

// readingRoutes are about how far one has read, and what one is doing now.
func (s *Rooms) readingRoutes() []client.Route {
	const room = v3 + "/rooms/{roomId}"
	post, put := http.MethodPost, http.MethodPut
	return []client.Route{
		{Method: post, Path: room + "/receipt/{receiptType}/{eventId}", Limit: client.Writes, Handler: s.receipt},
		{Method: post, Path: room + "/read_markers", Limit: client.Writes, Handler: s.readMarkers},
		{Method: put, Path: room + "/typing/{userId}", Limit: client.Writes, Handler: s.typing},
		{Method: post, Path: room + "/report", Limit: client.Writes, Handler: s.reportRoom},
		{Method: post, Path: room + "/report/{eventId}", Limit: client.Writes, Handler: s.reportEvent},
	}
}

// The sorts of receipts. The last is not one: it is account data.
//
// spec: MX 1.19 CS §10.6
const (
	receiptRead    = "m.read"
	receiptPrivate = "m.read.private"
	fullyRead      = "m.fully_read"
)

// MainThread is the thread of what is in no thread.
const MainThread = "main"

// receipt notes how far one has read.
//
// spec: MX 1.19 CS §10.6.2
func (s *Rooms) receipt(r *client.Request) (any, error) {
	var body struct {
		Thread *string `json:"thread_id"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	sort := r.Var("receiptType")
	if sort == fullyRead && body.Thread != nil {
		return nil, badParam("A marker of what is fully read is not about one thread.")
	}
	if body.Thread != nil && *body.Thread == "" {
		return nil, badParam("thread_id must not be empty.")
	}
	thread := ""
	if body.Thread != nil {
		thread = *body.Thread
	}
	return nil, s.read(r, sort, r.Var("eventId"), thread)
}

// readMarkers moves several markers at once.
//
// spec: MX 1.19 CS §10.7.1.2
func (s *Rooms) readMarkers(r *client.Request) (any, error) {
	var body map[string]string
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	for _, sort := range []string{fullyRead, receiptRead, receiptPrivate} {
		if id := body[sort]; id != "" {
			if err := s.read(r, sort, id, ""); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func (s *Rooms) read(r *client.Request, sort, eventID, thread string) error {
	if sort != receiptRead && sort != receiptPrivate && sort != fullyRead {
		return badParam("There is no receipt of the type %.40q.", sort)
	}
	req := hub.ReadingRequest{Who: r.Account, Private: sort == receiptPrivate, From: r.Device, Thread: thread}
	known := true
	err := s.inRoom(r, func(v hub.View, rm *room) (err error) {
		req.Conv = rm.conv.ID
		if req.Event, err = coreID(v, rm, eventID); errors.Is(err, hub.ErrNone) {
			known = false // not here yet, or not for us: nothing to mark
			return nil
		}
		if err != nil || thread == "" || thread == MainThread {
			return err
		}
		root, err := coreID(v, rm, thread)
		req.Thread = string(root)
		return notFoundEvent(err)
	})
	if err != nil || !known && sort != fullyRead {
		return err
	}
	if sort != fullyRead {
		return s.hub.MarkDisplayed(r.Context(), req)
	}
	data, err := json.Marshal(object{"event_id": eventID})
	if err != nil {
		return err
	}
	return s.hub.PutDatum(r.Context(), hub.Datum{Account: r.Account, Conv: req.Conv, Type: fullyRead, Data: data}, r.Device)
}

// typing says that one is writing, for at most two minutes.
//
// spec: MX 1.19 CS §10.5
func (s *Rooms) typing(r *client.Request) (any, error) {
	var body struct {
		Typing  bool  `json:"typing"`
		Timeout int64 `json:"timeout"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if r.Var("userId") != r.UserID {
		return nil, forbidden("Nobody says for another that she is writing.")
	}
	var conv core.ConvID
	err := s.inRoom(r, func(_ hub.View, rm *room) error {
		conv = rm.conv.ID
		return nil
	})
	if err != nil {
		return nil, err
	}
	var until time.Time
	if body.Typing {
		const usual, most = 30_000, 120_000
		if body.Timeout <= 0 {
			body.Timeout = usual
		}
		until = time.Now().Add(time.Duration(min(body.Timeout, most)) * time.Millisecond)
	}
	return nil, s.hub.Typing(r.Context(), conv, r.Account, until, r.Device)
}

// maxReason bounds what is written into the operator's log.
const maxReason = 1000

// reportEvent tells the operator of an event.
//
// spec: MX 1.19 CS §10.29.2
func (s *Rooms) reportEvent(r *client.Request) (any, error) {
	err := s.inRoom(r, func(v hub.View, rm *room) error {
		_, _, err := s.visible(v, r, r.Var("eventId"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return nil, s.report(r, r.Var("eventId"))
}

// reportRoom tells the operator of a room.
//
// spec: MX 1.19 CS §10.29.2
func (s *Rooms) reportRoom(r *client.Request) (any, error) {
	if _, err := s.locate(r.Context(), r.Var("roomId"), r.Account); err != nil {
		return nil, err
	}
	return nil, s.report(r, "")
}

// report puts it where the operator reads: at the level of warnings.
func (s *Rooms) report(r *client.Request, eventID string) error {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := r.JSON(&body); err != nil {
		return err
	}
	if rs := []rune(body.Reason); len(rs) > maxReason {
		body.Reason = string(rs[:maxReason])
	}
	s.log.WarnContext(r.Context(), "a user reports", "by", r.UserID, "room", r.Var("roomId"), "event", eventID, "reason", body.Reason)
	return nil
}
