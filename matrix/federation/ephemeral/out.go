package ephemeral

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/sending"
)

// errPrivate says that a conversation is not shared with other Matrix servers.
var errPrivate = hub.Refuse(hub.NotFound, "no Matrix server shares this conversation")

// shared is a room that other servers are in.
type shared struct {
	room, user string // Matrix IDs: the room's, and of whom it is said
	servers    []string
}

func (e *Ephemeral) shared(v hub.View, conv core.ConvID, who core.Address) (s shared, err error) {
	c, err := v.Conversation(conv)
	if err != nil {
		return s, err
	}
	if s.room = c.Native[core.Matrix]; c.Authority != core.Graph || s.room == "" {
		return s, errPrivate
	}
	s.user, _ = e.cfg.Mirror.Names(v).UserID(who)
	s.servers, err = e.cfg.Post.Servers(v, conv)
	return s, err
}

// say says something to all servers of a room. What is about the same room, user
// and thread takes the place of what was said before and is not sent yet.
func (e *Ephemeral) say(s shared, sort, thread string, content any) error {
	raw, err := json.Marshal(content)
	if err != nil {
		return err
	}
	key := sort + " " + s.room + " " + s.user + " " + thread
	for _, dest := range s.servers {
		e.cfg.Post.Say(domainOf(s.user), dest, key, sending.EDU{Type: sort, Content: raw})
	}
	return nil
}

// typingContent is the content of m.typing.
//
// spec: MX 1.19 SS §17
type typingContent struct {
	Room   string `json:"room_id"`
	User   string `json:"user_id"`
	Typing bool   `json:"typing"`
}

// sayTyping says that somebody writes, or no longer does.
//
// spec: MX 1.19 SS §17
func (e *Ephemeral) sayTyping(ctx context.Context, t topic, w hub.Whisper) error {
	var s shared
	err := e.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		s, err = e.shared(v, t.conv, t.from)
		return err
	})
	if err != nil {
		return err
	}
	on := w.Typing.Until.After(time.Now())
	e.mu.Lock()
	if delete(e.writing, t); on && len(e.writing) < maxWriting {
		e.writing[t] = w
	}
	e.mu.Unlock()
	return e.say(s, "m.typing", "", typingContent{s.room, s.user, on})
}

// renewTyping says again who still writes: the hub speaks of it only when it
// begins and ends.
func (e *Ephemeral) renewTyping(context.Context) error {
	e.mu.Lock()
	all := make(map[topic]hub.Whisper, len(e.writing))
	for t, w := range e.writing {
		all[t] = w
	}
	e.mu.Unlock()
	for t, w := range all {
		until := time.Time{}
		who, _ := e.cfg.Hub.TypingIn(t.conv)
		for _, a := range who {
			if a == t.from {
				until = time.Now().Add(2 * e.cfg.Renew)
			}
		}
		w.Typing = &core.Typing{Until: until}
		e.gather(t, w)
	}
	return nil
}

// receiptContent is the content of m.receipt: by room, sort and user.
//
// spec: MX 1.19 SS §19
type receiptContent map[string]map[string]map[string]receiptOf

type receiptOf struct {
	EventIDs []string    `json:"event_ids"`
	Data     receiptData `json:"data"`
}

type receiptData struct {
	TS     int64  `json:"ts"`
	Thread string `json:"thread_id,omitempty"`
}

const read = "m.read"

// mainThread is the thread of what is in no thread.
const mainThread = "main"

// receiptFor writes the receipt of one user for one event, [hub.ErrNone] if the
// event has no name in Matrix. A receipt for one's own event is empty: it is
// understood.
//
// spec: MX 1.19 SS §19
func (e *Ephemeral) receiptFor(v hub.View, s shared, who core.Address, id core.EventID, thread string) (receiptContent, error) {
	names := []core.EventID{id}
	inThread := thread != "" && thread != mainThread
	if inThread {
		names = append(names, core.EventID(thread))
	}
	events, err := e.cfg.Mirror.ByCore(v, names...)
	if err != nil {
		return nil, err
	}
	named := map[core.EventID]string{}
	for _, ev := range events {
		if named[ev.ID] = ev.EventID; ev.ID == id && ev.Sender == s.user {
			return nil, nil
		}
	}
	data := receiptData{TS: time.Now().UnixMilli(), Thread: thread}
	if inThread {
		data.Thread = named[core.EventID(thread)]
	}
	if named[id] == "" || inThread && data.Thread == "" {
		return nil, hub.ErrNone
	}
	return receiptContent{s.room: {read: {s.user: {[]string{named[id]}, data}}}}, nil
}

// sayReceipt says how far somebody has read in a room.
func (e *Ephemeral) sayReceipt(ctx context.Context, t topic, w hub.Whisper) error {
	var s shared
	var content receiptContent
	err := e.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		if s, err = e.shared(v, t.conv, t.from); err != nil {
			return err
		}
		content, err = e.receiptFor(v, s, t.from, w.Displayed, t.thread)
		return err
	})
	if err != nil || content == nil {
		return err
	}
	return e.say(s, "m.receipt", t.thread, content)
}

// Receipt is the part of [hub.Carrier] that delivers receipts of conversations
// of two: that something was displayed is owed to the other server. That it was
// delivered Matrix has no word for.
//
// spec: MX 1.19 SS §19
func (e *Ephemeral) Receipt(ctx context.Context, d hub.Delivery) hub.Result {
	r := d.Receipt
	lost := func(f core.Feature) hub.Result {
		return hub.Result{Outcome: hub.Accepted, Losses: []core.Loss{{Feature: f}}}
	}
	switch {
	case r == nil:
		return hub.Result{Outcome: hub.Failed, Reason: "no receipt"}
	case r.Stage == core.StageDelivered:
		return lost(core.FeatureDelivered)
	case r.Stage != core.StageDisplayed:
		return hub.Result{Outcome: hub.Failed, Reason: "a receipt of an unknown sort"}
	}
	err := e.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		s, err := e.shared(tx, d.Conv, d.From)
		if err != nil {
			return err
		}
		content, err := e.receiptFor(tx, s, d.From, r.Target, r.Thread)
		if err != nil || content == nil {
			return err
		}
		raw, err := json.Marshal(content)
		if err != nil {
			return err
		}
		return e.cfg.Post.OweEDU(tx, domainOf(s.user), d.Dest, sending.EDU{Type: "m.receipt", Content: raw})
	})
	switch {
	case errors.Is(err, hub.ErrNone) || hub.CodeOf(err) != "":
		return lost(core.FeatureDisplayed)
	case err != nil:
		e.cfg.Log.Error("owing a receipt to a Matrix server", "dest", d.Dest, "err", err)
		return hub.Result{Outcome: hub.Retry, Reason: "internal error"}
	}
	return hub.Result{Outcome: hub.Accepted}
}
