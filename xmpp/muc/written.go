package muc

import (
	"context"
	"sync"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// keptWritten is how many messages are kept as they were written last: those that are on their way to the occupants of a few rooms.
const keptWritten = 16

// written keeps the messages of rooms that were written last, so that one is read and translated once and not for each of its
// readers. What it keeps is shared: nobody changes it.
type written struct {
	mu   sync.Mutex
	kept [keptWritten]*message // oldest at next
	next int
}

// message is one message without `to`.
type message struct {
	event core.EventID
	feed  core.Feed
	// state is the room's when it was sent: the same value for all who are told at the same time, and another for who reads it later,
	// by when names may have changed.
	state     *core.State
	retracted bool

	mu     sync.Mutex // held while it is written
	done   bool
	el     *element.Element // nil if there is nothing to be said of it
	losses []core.Loss
}

// of is what is kept of a message, or room for it.
func (w *written) of(st *core.State, e *core.Event) *message {
	w.mu.Lock()
	defer w.mu.Unlock()
	retracted := e.Retracted != ""
	for _, m := range w.kept {
		if m != nil && m.state == st && m.event == e.ID && m.feed == e.Feed && m.retracted == retracted {
			return m
		}
	}
	m := &message{event: e.ID, feed: e.Feed, state: st, retracted: retracted}
	w.kept[w.next] = m
	w.next = (w.next + 1) % keptWritten
	return m
}

// said writes one message, without `to`. The element is the caller's own.
func (s *Service) said(ctx context.Context, c core.Conversation, st *core.State, e *core.Event) (*element.Element, []core.Loss, error) {
	m := s.written.of(st, e)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return m.el.Copy(), m.losses, nil
	}
	err := s.Hub.Read(ctx, func(v hub.View) error {
		w, err := s.writing(v, &c, st, e)
		if err == nil {
			m.el, m.losses = translate.Out(e, w)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	m.done = true
	return m.el.Copy(), m.losses, nil
}
