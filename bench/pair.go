package bench

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// arrivalTimeout bounds the way of one message through a server.
const arrivalTimeout = time.Minute

// pair is two clients, one of whom writes to the other.
type pair struct {
	from, to *Client
	prefix   string
	next     int
	arrived  chan time.Time // with each message for to, in order
	queries  chan string    // the answers to requests of to
	listed   int            // archived messages that came since the last answer; of to's reader
}

// pair logs two accounts in.
func (s *Site) pair(ctx context.Context, from, to int) (*pair, error) {
	p := &pair{prefix: runID(), arrived: make(chan time.Time, fill), queries: make(chan string, 16)}
	clients, err := s.loginAll(ctx, []session{{local: user(from), resource: "pair"}, {local: user(to), resource: "pair"}},
		func(i int, c *Client) { c.listen([]func([]byte){nil, p.on}[i], nil) })
	if err != nil {
		return nil, err
	}
	p.from, p.to = clients[0], clients[1]
	// Who has been written to may hold back the first messages of strangers; not so who
	// has written.
	return p, p.to.Send("<message type='chat' to='" + p.from.Bare + "' id='" + p.prefix + "hello'><body>hello</body></message>")
}

func (p *pair) on(st []byte) {
	switch {
	case bytes.Contains(st, []byte("<result")):
		p.listed++
	case bytes.HasPrefix(st, []byte("<iq")):
		select {
		case p.queries <- string(st):
		default: // nobody asked
		}
	case isMessage(st) && bytes.Contains(st, []byte(p.prefix)):
		p.arrived <- time.Now()
	}
}

func (p *pair) close() {
	p.from.Close()
	p.to.Close()
}

// send writes n messages at once.
func (p *pair) send(n int) error {
	var b strings.Builder
	for range n {
		p.next++
		id := p.prefix + strconv.Itoa(p.next)
		b.WriteString("<message type='chat' to='" + p.to.Bare + "' id='" + id + "'><body>" + text +
			"</body><origin-id xmlns='urn:xmpp:sid:0' id='" + id + "'/></message>")
	}
	return p.from.Send(b.String())
}

// ping sends one message and returns how long it took to arrive.
func (p *pair) ping(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if err := p.send(1); err != nil {
		return 0, err
	}
	at, err := p.arrival(ctx)
	return at.Sub(start), err
}

// arrival waits for the next message.
func (p *pair) arrival(ctx context.Context) (time.Time, error) { return arrival(ctx, p.to, p.arrived) }

// arrival waits for what a client's reader puts into a channel.
func arrival(ctx context.Context, c *Client, arrived <-chan time.Time) (time.Time, error) {
	t := time.NewTimer(arrivalTimeout)
	defer t.Stop()
	select {
	case at := <-arrived:
		return at, nil
	case <-c.done:
		return time.Time{}, c.failed()
	case <-t.C:
		return time.Time{}, fmt.Errorf("bench: a message to %s did not arrive in %v", c.Bare, arrivalTimeout)
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}
