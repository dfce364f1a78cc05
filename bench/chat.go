package bench

import (
	"context"
	"errors"
	"fmt"
	"parley/bench/meter"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Size says how large the scenarios are.
type Size struct {
	Sessions  int           // of chats, in pairs
	Window    int           // messages that each of them has under way
	Occupants int           // of the room
	Speakers  int           // of them, each with one message under way
	Idle      int           // sessions that do nothing
	PerUser   int           // of them, of one account
	Archive   int           // messages of the archive that is paged
	Pings     int           // messages of each measurement of latency
	Warm      time.Duration // before a throughput is measured
	For       time.Duration // while it is measured
	Settle    time.Duration // before memory is measured
}

// Full is the size of the report.
var Full = Size{
	Sessions: 1000, Window: 2, Occupants: 500, Speakers: 20, Idle: 5000, PerUser: 5, Archive: 10_000, Pings: 500,
	Warm: 5 * time.Second, For: 20 * time.Second, Settle: 15 * time.Second,
}

// text is the body of every message.
var text = strings.Repeat("All work and no play makes Jack a dull boy. ", 3)

// openings is how many messages of each session, on average, arrive before the warming up begins.
const openings = 4

// drainTimeout is how long a server may take to deliver what is under way when a
// measurement ends.
const drainTimeout = 2 * time.Minute

// Throughput is the result of a scenario that sends as fast as the server takes it.
type Throughput struct {
	meter.Usage
	Sent, Delivered int64         // messages in the measured time; copies that arrived
	Acked           int64         // messages that the server acknowledged in the measured time
	Lost            int64         // messages of the whole run that did not arrive
	Again           int64         // messages of the whole run that arrived more than once
	Enter           time.Duration // how long it took all occupants to enter the room
	Profile         []byte        // taken after the measured time, of a server that has profiles
}

// Rate is deliveries per second.
func (t *Throughput) Rate() float64 { return float64(t.Delivered) / t.Time.Seconds() }

// PerMessage is the server's processor time for each delivery.
func (t *Throughput) PerMessage() time.Duration {
	return t.CPU / time.Duration(max(t.Delivered, 1))
}

// chatter is one of a pair.
type chatter struct {
	*Client
	peer  *chatter
	run   *chatRun
	fresh int64 // arrived since idle was last called; of the reading goroutine
}

// chatRun is what the sessions of a chat scenario share.
type chatRun struct {
	prefix               string
	ready                chan struct{} // closed when all are logged in
	next, sent, received atomic.Int64
	stop                 atomic.Bool
}

// say sends n messages to the peer, in one write, and asks for an acknowledgement.
//
// spec: XEP-0359 §3.2
func (c *chatter) say(n int64) error {
	var b strings.Builder
	for range n {
		id := c.run.prefix + strconv.FormatInt(c.run.next.Add(1), 10)
		b.WriteString("<message type='chat' to='" + c.peer.Bare + "' id='" + id + "'><body>" + text +
			"</body><origin-id xmlns='urn:xmpp:sid:0' id='" + id + "'/></message>")
	}
	b.WriteString("<r xmlns='urn:xmpp:sm:3'/>")
	c.run.sent.Add(n)
	return c.Send(b.String())
}

func (c *chatter) on(st []byte) {
	if isMessage(st) {
		c.fresh++
	}
}

// idle lets the peer send as many as have arrived.
func (c *chatter) idle() {
	n := c.fresh
	c.fresh = 0
	if n == 0 {
		return
	}
	c.run.received.Add(n)
	<-c.run.ready
	if !c.run.stop.Load() {
		_ = c.peer.say(n) // a peer that is gone is found by its own reader
	}
}

// Chat measures private messages: pairs of accounts, each of both with a window of messages
// under way; a message is complete when its addressee has it.
func (s *Site) Chat(ctx context.Context, size Size) (*Throughput, error) {
	if err := s.need(ctx, size.Sessions); err != nil {
		return nil, err
	}
	sessions := make([]session, size.Sessions)
	for i := range sessions {
		sessions[i] = session{local: user(i), resource: "chat"}
	}
	run := &chatRun{prefix: runID(), ready: make(chan struct{})}
	all := make([]*chatter, len(sessions))
	for i := range all {
		all[i] = &chatter{run: run}
	}
	clients, err := s.loginAll(ctx, sessions, func(i int, c *Client) {
		all[i].Client, all[i].peer = c, all[i^1]
		c.listen(all[i].on, all[i].idle)
	})
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	close(run.ready)
	for _, c := range all {
		if err := c.say(int64(size.Window)); err != nil {
			return nil, err
		}
	}
	// The first messages of a pair open its conversation, which takes longer than all that follow.
	opened := int64(openings * size.Sessions)
	if !meter.WaitFor(ctx, drainTimeout, func() bool { return run.received.Load() >= opened }) {
		return nil, errors.Join(fmt.Errorf("bench: %d of the first %d messages arrived in %v", run.received.Load(), opened, drainTimeout), firstFailure(clients))
	}
	acked := func() (n int64) {
		for _, c := range clients {
			n += int64(c.acked.Load())
		}
		return n
	}
	t, err := s.measure(ctx, size, &run.sent, &run.received, acked)
	run.stop.Store(true)
	if err != nil {
		return nil, errors.Join(err, firstFailure(clients))
	}
	meter.WaitFor(ctx, drainTimeout, func() bool { return run.received.Load() >= run.sent.Load() })
	t.Lost = max(0, run.sent.Load()-run.received.Load())
	t.Again = max(0, run.received.Load()-run.sent.Load())
	return t, firstFailure(clients)
}

// measure lets the load run warm and then watches it.
func (s *Site) measure(ctx context.Context, size Size, sent, received *atomic.Int64, acked func() int64) (*Throughput, error) {
	if err := meter.Sleep(ctx, size.Warm); err != nil {
		return nil, err
	}
	t := &Throughput{}
	var err error
	t.Usage, err = meter.Watch(ctx, s.PID(), func() error {
		t.Sent, t.Delivered, t.Acked = -sent.Load(), -received.Load(), -acked()
		err := meter.Sleep(ctx, size.For)
		t.Sent, t.Delivered, t.Acked = t.Sent+sent.Load(), t.Delivered+received.Load(), t.Acked+acked()
		return err
	})
	if err == nil && t.Delivered == 0 {
		err = fmt.Errorf("bench: %s delivered nothing\n%s", s.Name, s.Log())
	}
	if err == nil && s.Profiles {
		t.Profile, err = s.cpuProfile(ctx, size.For)
	}
	return t, err
}

func firstFailure(clients []*Client) error {
	for _, c := range clients {
		if err := c.failed(); err != nil {
			return err
		}
	}
	return nil
}

// Divide is the size with fewer of everything.
func (s Size) Divide(by int) Size {
	d := func(n int) int { return max(2, n/by) }
	s.Sessions, s.Occupants, s.Speakers = d(s.Sessions)&^1, d(s.Occupants), d(s.Speakers)
	s.Idle, s.Archive, s.Pings = d(s.Idle), d(s.Archive), d(s.Pings)
	s.Warm, s.For, s.Settle = s.Warm/time.Duration(by), s.For/time.Duration(by), s.Settle/time.Duration(by)
	return s
}
