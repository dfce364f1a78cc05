package federationtest

import (
	"errors"
	"fmt"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
)

// Conv is the conversation of a room; it fails the test if there is none.
func (s *Server) Conv(roomID string) core.ConvID {
	s.T.Helper()
	var id core.ConvID
	s.must(s.Hub.Read(background(), func(v hub.View) (err error) {
		id, err = v.ConversationNative(core.Matrix, roomID)
		return err
	}))
	return id
}

// Standing is what a room here says of somebody, "none" where there is no room.
func (s *Server) Standing(roomID, userID string) core.Standing {
	s.T.Helper()
	var out core.Standing
	s.must(s.Hub.Read(background(), func(v hub.View) error {
		id, err := v.ConversationNative(core.Matrix, roomID)
		if errors.Is(err, hub.ErrNone) {
			out = "none"
			return nil
		}
		if err != nil {
			return err
		}
		st, err := v.State(id)
		if err != nil {
			return err
		}
		a, err := s.Mirror.Names(v).Address(userID)
		out = st.Standing(a)
		return err
	}))
	return out
}

// State is what is in force in a room, by "type|state key" the event ID.
func (s *Server) State(roomID string) map[string]string {
	s.T.Helper()
	out := map[string]string{}
	conv := s.Conv(roomID)
	s.must(s.Hub.Read(background(), func(v hub.View) error {
		events, err := s.Mirror.State(v, conv)
		for _, e := range events {
			out[e.Type+"|"+*e.StateKey] = e.EventID
		}
		return err
	}))
	return out
}

// Event is an event that clients see, by its ID.
func (s *Server) Event(eventID string) (mirror.Event, bool) {
	s.T.Helper()
	var out []mirror.Event
	s.must(s.Hub.Read(background(), func(v hub.View) (err error) {
		out, err = s.Mirror.ByEventID(v, eventID)
		return err
	}))
	if len(out) == 0 {
		return mirror.Event{}, false
	}
	return out[0], true
}

// Same fails the test unless all servers have the same state of a room, which
// they get some time for.
func (w *World) Same(roomID string, domains ...string) {
	w.T.Helper()
	Eventually(w.T, fmt.Sprintf("one state of %s at %v", roomID, domains), func() bool {
		first := w.Server(domains[0]).State(roomID)
		for _, d := range domains[1:] {
			other := w.Server(d).State(roomID)
			if len(other) != len(first) {
				return false
			}
			for k, id := range first {
				if other[k] != id {
					return false
				}
			}
		}
		return true
	})
}
