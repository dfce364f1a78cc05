package sync

import (
	"sync"

	"parley/core"
)

// memories hold which membership events lazily loading devices have been told
// of, so that they are not told again. A memory counts once the client comes
// back with the token of the answer that was remembered: an answer that got
// lost was not told. Forgetting costs a repetition and nothing more.
//
// spec: MX 1.19 CS §6.1
type memories struct {
	mu sync.Mutex
	m  map[memoryKey]*memory
}

type memoryKey struct {
	deviceKey
	filter string
}

// members maps, by conversation, user IDs to the ID of the membership event.
type members map[core.ConvID]map[string]string

type memory struct {
	token string // as of which known is what the client knows
	known members
	// next is what it will also know when it comes back with nextToken.
	nextToken string
	next      members
}

const (
	maxMemories = 5_000  // devices
	maxMemory   = 20_000 // members of one device
)

func newMemories() *memories { return &memories{m: map[memoryKey]*memory{}} }

// recall returns what a client that comes with a token knows. It is not to be
// changed.
func (ms *memories) recall(k memoryKey, token string) members {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.m[k]
	switch {
	case m == nil:
		return nil
	case token != "" && token == m.nextToken:
		known := members{}
		size := 0
		for _, from := range []members{m.known, m.next} {
			for conv, users := range from {
				if known[conv] == nil {
					known[conv] = map[string]string{}
				}
				for user, id := range users {
					known[conv][user] = id
				}
			}
		}
		for _, users := range known {
			size += len(users)
		}
		if size > maxMemory {
			delete(ms.m, k)
			return nil
		}
		m.token, m.known, m.nextToken, m.next = token, known, "", nil
		return known
	case token != "" && token == m.token:
		return m.known
	}
	delete(ms.m, k)
	return nil
}

// note remembers what an answer tells, on top of what was known at its since.
func (ms *memories) note(k memoryKey, since, next string, told members) {
	if len(told) == 0 && since == next {
		return
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.m[k]
	if m == nil || m.token != since {
		if len(ms.m) >= maxMemories {
			for old := range ms.m { // any one
				delete(ms.m, old)
				break
			}
		}
		m = &memory{token: since}
		ms.m[k] = m
	}
	m.nextToken, m.next = next, told
}
