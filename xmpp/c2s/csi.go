package c2s

import (
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// maxHeld is how many stanzas an inactive client is kept waiting for.
const maxHeld = 200

// clientState takes what the client says about whether somebody looks at it.
//
// spec: XEP-0352 §4.2
func (s *Session) clientState(el *element.Element) bool {
	if el.Name.Space != nsCSI {
		return false
	}
	switch el.Name.Local {
	case "inactive":
		s.inactive = true
		s.noteAway()
	case "active":
		s.release()
		s.inactive = false
		s.noteAway()
	default:
		return false
	}
	return true
}

// noteAway tells others whether the client is to be called when something happens.
func (s *Session) noteAway() { s.state.away.Store(s.inactive || s.link == nil) }

// hold keeps a stanza back from a client that is inactive or waits for resumption. Newer presence takes the place of older.
func (s *Session) hold(el *element.Element) bool {
	if !s.inactive && s.link != nil || el.Name.Local == "iq" || el.Name.Local == "message" && !onlyState(el) {
		return false
	}
	if el.Name.Local == "presence" {
		for i, h := range s.held {
			if h.Name.Local == "presence" && h.Attr("from") == el.Attr("from") {
				s.held = append(s.held[:i], s.held[i+1:]...)
				break
			}
		}
	}
	if s.held = append(s.held, el); len(s.held) > maxHeld {
		s.release()
	}
	return true
}

// release sends what was held back, before something that cannot wait.
func (s *Session) release() {
	held := s.held
	s.held = nil
	for _, el := range held {
		s.emit(el, 0)
	}
}

// onlyState says whether a message does nothing but tell that somebody writes or does not.
func onlyState(m *element.Element) bool {
	state := false
	for _, c := range m.Elements() {
		switch c.Name.Space {
		case translate.NSChatStates:
			state = true
		case translate.NSHints:
		default:
			return false
		}
	}
	return state
}
