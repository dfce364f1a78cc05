package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"parley/bench/meter"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// joinTimeout bounds the entering of one occupant into a room, which the server tells to
// everybody who is there.
const joinTimeout = 2 * time.Minute

// occupant is a client in a room.
type occupant struct {
	*Client
	run    *roomRun
	seen   atomic.Int64  // occupants who were announced, with oneself
	joined chan struct{} // closed with the occupant's own presence
	made   chan struct{} // closed if the room is a new one, before joined
	errors chan string   // an answer to entering that refuses
	opened chan struct{} // closed when the room that was made is open
	inside bool          // of the reading goroutine
}

// roomRun is what the occupants share.
type roomRun struct {
	room, prefix         string
	occupants            []*occupant
	under                []atomic.Int64 // by speaker: how many have the message under way
	next, sent, received atomic.Int64
	stop                 atomic.Bool
}

// openID is the id of the request that opens the room, which is made once.
const openID = "open-the-room"

// spoken marks the body of a message of a measurement; the speaker's number follows.
const spoken = "<body>#"

// on sees that an occupant is in, and counts messages; the one who gets the last copy of a
// message has its speaker send another.
//
// spec: XEP-0045 §7.2
func (o *occupant) on(st []byte) {
	if bytes.HasPrefix(st, []byte("<presence")) {
		o.enter(st)
		return
	}
	if bytes.HasPrefix(st, []byte("<iq")) && string(attr(st, "id")) == openID {
		close(o.opened)
		return
	}
	speaker, err := strconv.Atoi(string(between(st, spoken, "#")))
	if err != nil || !bytes.HasPrefix(st, []byte("<message")) {
		return
	}
	o.run.received.Add(1)
	if o.run.under[speaker].Add(1) == int64(len(o.run.occupants)) && !o.run.stop.Load() {
		_ = o.run.say(speaker) // a speaker that is gone is found by its own reader
	}
}

func (o *occupant) enter(st []byte) {
	if !bytes.HasPrefix(attr(st, "from"), []byte(o.run.room)) {
		return
	}
	if string(attr(st, "type")) == "error" {
		select {
		case o.errors <- string(st):
		default: // one is enough
		}
		return
	}
	o.seen.Add(1)
	if o.inside {
		return
	}
	if bytes.Contains(st, []byte("'201'")) || bytes.Contains(st, []byte(`"201"`)) {
		close(o.made)
	}
	if bytes.Contains(st, []byte("'110'")) || bytes.Contains(st, []byte(`"110"`)) {
		o.inside = true
		close(o.joined)
	}
}

// join enters the room and, if that made it, opens it as it is.
//
// spec: XEP-0045 §10.1.2
func (o *occupant) join(ctx context.Context, nick string) error {
	err := o.Send("<presence to='" + o.run.room + "/" + nick +
		"'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	select {
	case <-o.joined:
	case text := <-o.errors:
		return fmt.Errorf("bench: entering %s: %.300s", o.run.room, text)
	case <-o.done:
		return o.failed()
	case <-ctx.Done():
		return fmt.Errorf("bench: entering %s: %w", o.run.room, ctx.Err())
	}
	select {
	case <-o.made:
	default:
		return nil
	}
	err = o.Send("<iq type='set' id='" + openID + "' to='" + o.run.room + "'><query xmlns='http://jabber.org/protocol/muc#owner'>" +
		"<x xmlns='jabber:x:data' type='submit'/></query></iq>")
	if err != nil {
		return err
	}
	select {
	case <-o.opened:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("bench: opening %s: %w", o.run.room, ctx.Err())
	}
}

// say has a speaker send a message to the room.
func (r *roomRun) say(speaker int) error {
	r.under[speaker].Store(0)
	r.sent.Add(1)
	id := r.prefix + strconv.FormatInt(r.next.Add(1), 10)
	return r.occupants[speaker].Send("<message type='groupchat' to='" + r.room + "' id='" + id + "'>" + spoken +
		strconv.Itoa(speaker) + "# " + text + "</body><origin-id xmlns='urn:xmpp:sid:0' id='" + id +
		"'/></message><r xmlns='urn:xmpp:sm:3'/>")
}

// Room measures messages to a room: some occupants speak, each with one message under way;
// a message is complete when every occupant has it.
func (s *Site) Room(ctx context.Context, size Size) (*Throughput, error) {
	if err := s.need(ctx, size.Occupants); err != nil {
		return nil, err
	}
	sessions := make([]session, size.Occupants)
	for i := range sessions {
		sessions[i] = session{local: user(i), resource: "room"}
	}
	prefix := runID()
	run := &roomRun{room: "r" + prefix + "0@" + s.Rooms, prefix: prefix, under: make([]atomic.Int64, size.Speakers)}
	for range sessions {
		run.occupants = append(run.occupants, &occupant{
			run: run, joined: make(chan struct{}), made: make(chan struct{}), errors: make(chan string, 1), opened: make(chan struct{}),
		})
	}
	clients, err := s.loginAll(ctx, sessions, func(i int, c *Client) {
		run.occupants[i].Client = c
		c.listen(run.occupants[i].on, nil)
	})
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	start := time.Now()
	if err := run.enterAll(ctx); err != nil {
		return nil, errors.Join(err, firstFailure(clients))
	}
	entered := time.Since(start)
	for speaker := range size.Speakers {
		if err := run.say(speaker); err != nil {
			return nil, err
		}
	}
	acked := func() int64 { return 0 } // presence and requests are among what is acknowledged
	t, err := s.measure(ctx, size, &run.sent, &run.received, acked)
	run.stop.Store(true)
	if err != nil {
		return nil, errors.Join(err, firstFailure(clients))
	}
	expected := func() int64 { return run.sent.Load() * int64(size.Occupants) }
	meter.WaitFor(ctx, drainTimeout, func() bool { return run.received.Load() >= expected() })
	t.Enter = entered
	t.Lost = max(0, expected()-run.received.Load())
	t.Again = max(0, run.received.Load()-expected())
	return t, firstFailure(clients)
}

// enterAll has the first occupant make the room and the others come in, and waits until
// everybody has been told of everybody.
func (r *roomRun) enterAll(ctx context.Context) error {
	if err := r.occupants[0].join(ctx, "n0"); err != nil {
		return err
	}
	errs := make([]error, len(r.occupants))
	next := make(chan int)
	var wg sync.WaitGroup
	for range logins {
		wg.Go(func() {
			for i := range next {
				errs[i] = r.occupants[i].join(ctx, "n"+strconv.Itoa(i))
			}
		})
	}
	for i := 1; i < len(r.occupants); i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil { // the others are of the same kind
			return err
		}
	}
	all := int64(len(r.occupants))
	for _, o := range r.occupants {
		if !meter.WaitFor(ctx, joinTimeout, func() bool { return o.seen.Load() >= all }) {
			return fmt.Errorf("bench: %s was told of %d of %d occupants", o.JID, o.seen.Load(), all)
		}
	}
	return nil
}
