// Package guardtest helps tests of what is limited: guards with a few limits, and what they have counted.
package guardtest

import (
	"strings"
	"sync"

	"parley/xmpp/guard"
)

// Counts is a hub.Counter of a test. The zero value is ready.
type Counts struct {
	mu sync.Mutex
	m  map[string]int
}

// Count implements hub.Counter.
func (c *Counts) Count(name string, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]int{}
	}
	c.m[strings.Join(append([]string{name}, labels...), " ")]++
}

// Limited is how often a limit has held somebody.
func (c *Counts) Limited(l guard.Limit) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m["limited "+string(l)]
}

// New makes a guard that holds these limits and no others, and what it counts.
func New(rates map[guard.Limit]guard.Rate) (*guard.Guard, *Counts) {
	c := &Counts{}
	return guard.New(guard.Config{Rates: rates, Count: c, Contact: "mailto:abuse@example.org"}), c
}
