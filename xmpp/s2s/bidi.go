package s2s

import (
	"parley/xmpp/stream"
)

// returns are the streams that other servers opened and on which they take stanzas, too.
//
// spec: XEP-0288 §2.2
type returns map[stream.Pair]*line

// returning is the stream of a pair that the other server opened, if there is one; else nil.
func (c *Carrier) returning(pair stream.Pair) *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ln := c.back[pair]; ln != nil && ln.up() {
		return ln
	}
	return nil
}

// offer notes that stanzas of a pair may be sent on a stream that the other server opened.
func (c *Carrier) offer(pair stream.Pair, ln *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.back == nil {
		c.back = returns{}
	}
	if old := c.back[pair]; old == nil || !old.up() {
		c.back[pair] = ln
	}
}

// withdraw forgets a stream that has ended.
func (c *Carrier) withdraw(ln *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pair, is := range c.back {
		if is == ln {
			delete(c.back, pair)
		}
	}
}
