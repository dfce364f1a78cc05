package ephemeral

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"parley/core"
	"parley/hub"
)

// typingFor is how long another's user is said to write without her server
// saying so again.
const typingFor = time.Minute

var (
	errOther  = errors.New("the user is of another server")
	errRoom   = errors.New("no such room is shared")
	errKept   = errors.New("the room's access list keeps the server out")
	errTooFar = errors.New("too much at once")
)

// theirs is the address of a user, if she is of the server that speaks of her.
func (e *Ephemeral) theirs(v hub.View, origin, userID string) (core.Address, error) {
	a, err := e.cfg.Mirror.Names(v).Address(userID)
	switch {
	case err != nil:
		return a, err
	case a.Network != core.Matrix || a.Domain != origin:
		return a, fmt.Errorf("%w: %.80q", errOther, userID)
	}
	return a, nil
}

// open finds a room that a server may speak of.
//
// spec: MX 1.19 SS §26
func (e *Ephemeral) open(v hub.View, origin, room string) (core.ConvID, error) {
	conv, err := v.ConversationNative(core.Matrix, room)
	if err == nil {
		var c core.Conversation
		if c, err = v.Conversation(conv); err == nil && c.Authority != core.Graph {
			err = hub.ErrNone
		}
	}
	if errors.Is(err, hub.ErrNone) {
		return "", fmt.Errorf("%w: %.80q", errRoom, room)
	}
	if err != nil {
		return "", err
	}
	allowed, err := e.cfg.Gate.Allows(v, conv, origin)
	if err == nil && !allowed {
		err = fmt.Errorf("%w: %.80q", errKept, room)
	}
	return conv, err
}

// typingIn takes that somebody writes. The hub holds her to be in the room.
//
// spec: MX 1.19 SS §17
func (e *Ephemeral) typingIn(ctx context.Context, origin string, content json.RawMessage) error {
	var c typingContent
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	if !e.allows(origin) {
		return errTooFar
	}
	var conv core.ConvID
	var who core.Address
	err := e.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		if who, err = e.theirs(v, origin, c.User); err != nil {
			return err
		}
		conv, err = e.open(v, origin, c.Room)
		return err
	})
	if err != nil {
		return err
	}
	var until time.Time
	if c.Typing {
		until = time.Now().Add(typingFor)
	}
	return e.cfg.Hub.Typing(ctx, conv, who, until, "")
}

// maxReceipts is how many receipts of one EDU are looked at.
const maxReceipts = 200

// receiptsIn takes how far users have read, in any number of rooms. What is
// wrong with one does not spoil the others.
//
// spec: MX 1.19 SS §19
func (e *Ephemeral) receiptsIn(ctx context.Context, origin string, content json.RawMessage) error {
	var byRoom map[string]map[string]json.RawMessage
	if err := json.Unmarshal(content, &byRoom); err != nil {
		return err
	}
	var marks []hub.ReadingRequest
	var wrong []error
	err := e.cfg.Hub.Read(ctx, func(v hub.View) error {
		marks, wrong = nil, nil
		left := maxReceipts
		for room, sorts := range byRoom {
			var users map[string]json.RawMessage
			if sorts[read] == nil { // other sorts are for ourselves
				continue
			}
			if err := json.Unmarshal(sorts[read], &users); err != nil {
				wrong = append(wrong, err)
				continue
			}
			if left--; left < 0 {
				wrong = append(wrong, errTooFar)
				return nil
			}
			conv, err := e.open(v, origin, room)
			if err != nil {
				wrong = append(wrong, err)
				continue
			}
			for user, raw := range users {
				if left--; left < 0 || !e.allows(origin) {
					wrong = append(wrong, errTooFar)
					return nil
				}
				mark, err := e.mark(v, origin, conv, user, raw)
				if err != nil {
					wrong = append(wrong, err)
					continue
				}
				marks = append(marks, mark)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range marks {
		if err := e.cfg.Hub.MarkDisplayed(ctx, m); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// mark reads one receipt.
func (e *Ephemeral) mark(v hub.View, origin string, conv core.ConvID, user string, raw json.RawMessage) (m hub.ReadingRequest, err error) {
	var r struct {
		EventIDs []string `json:"event_ids"`
		Data     struct {
			Thread *string `json:"thread_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return m, err
	}
	if len(r.EventIDs) != 1 {
		return m, fmt.Errorf("a receipt for %d events", len(r.EventIDs))
	}
	m.Conv = conv
	if m.Who, err = e.theirs(v, origin, user); err != nil {
		return m, err
	}
	if m.Event, err = e.cfg.Mirror.CoreID(v, r.EventIDs[0]); err != nil || r.Data.Thread == nil {
		return m, err
	}
	if m.Thread = *r.Data.Thread; m.Thread == mainThread {
		return m, nil
	}
	root, err := e.cfg.Mirror.CoreID(v, m.Thread)
	m.Thread = string(root)
	return m, err
}
