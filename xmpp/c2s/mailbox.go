package c2s

import (
	"sync"

	"parley/xmpp/element"
)

// mailbox holds the stanzas that other goroutines have for a session. Unlike a channel it takes no room while it is empty.
type mailbox struct {
	mu    sync.Mutex
	queue []*element.Element
	ready chan struct{} // holds one token while there is something
}

// maxMail is how many stanzas of other sessions may wait for one, and requests of other goroutines.
const maxMail = 256

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// put adds a stanza; false if too many are waiting.
func (m *mailbox) put(st *element.Element) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) >= maxMail {
		return false
	}
	m.queue = append(m.queue, st)
	m.wake()
	return true
}

// take returns the stanza that has waited longest, nil if there is none. Call it for each token of ready.
func (m *mailbox) take() *element.Element {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		return nil
	}
	st := m.queue[0]
	m.queue[0] = nil
	if m.queue = m.queue[1:]; len(m.queue) == 0 {
		m.queue = nil
	} else {
		m.wake()
	}
	return st
}

func (m *mailbox) wake() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}
