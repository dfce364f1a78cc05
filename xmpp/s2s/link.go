package s2s

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// Why something is not sent.
var (
	errFull    = errors.New("too much waits for this server")
	errNotOpen = errors.New("there is no stream to this server")
	errOurs    = errors.New("this domain is served here")
	errClosing = errors.New("this server is stopping")
)

// The measures of links.
const (
	maxQueue    = 512              // what may wait for one link
	dialTimeout = 60 * time.Second // until a stream is open
	failFast    = 10 * time.Second // after a failure, for what is not owed
)

// cargo is stanzas that go on one stream, one behind the other, or do not go.
type cargo struct {
	stanzas []*element.Element
	// lazy is what is sent only if a stream is open; owed, what opens one even if that failed just now.
	lazy, owed bool
	// report is called once: with the stream on which all of it was queued, or with why not. It does not block.
	report func(*line, error)
}

// link is the way from one of our domains to another server's.
type link struct {
	c    *Carrier
	pair stream.Pair
	wake chan struct{}

	mu    sync.Mutex
	queue []cargo
	over  bool // nothing more is taken

	// Of its own goroutine:
	line    *line
	failed  time.Time
	failure error
}

// send puts cargo into its link, which is made if there is none.
func (c *Carrier) send(item cargo) {
	from, err1 := translate.ParseJID(item.stanzas[0].Attr("from"))
	to, err2 := translate.ParseJID(item.stanzas[0].Attr("to"))
	if err := errors.Join(err1, err2); err != nil {
		item.report(nil, err)
		return
	}
	pair := stream.Pair{Local: from.Domain, Remote: to.Domain}
	switch {
	case c.component(to.Domain):
		pair.Local = "" // there is one stream for all
	case c.ours(to.Domain) || !c.serves(from.Domain):
		item.report(nil, errOurs)
		return
	}
	for {
		l, err := c.link(pair, !item.lazy)
		if err != nil {
			item.report(nil, err)
			return
		}
		if taken, err := l.put(item); err != nil {
			item.report(nil, err)
			return
		} else if taken {
			return
		}
	}
}

func (c *Carrier) link(pair stream.Pair, open bool) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.links[pair]; l != nil {
		return l, nil
	}
	switch {
	case c.closed:
		return nil, errClosing
	case c.cfg.Guard.Refuses(pair.Remote) != nil:
		return nil, errRefused
	case !open:
		return nil, errNotOpen
	case len(c.links) >= maxLinks:
		return nil, errFull
	}
	l := &link{c: c, pair: pair, wake: make(chan struct{}, 1)}
	c.links[pair] = l
	c.wg.Go(l.run)
	return l, nil
}

// put takes cargo, unless the link is over, where another has to be made.
func (l *link) put(item cargo) (taken bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false, nil
	}
	if len(l.queue) >= maxQueue {
		return false, errFull
	}
	l.queue = append(l.queue, item)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true, nil
}

func (l *link) next() (item cargo, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.queue = nil
		return cargo{}, false
	}
	item, l.queue = l.queue[0], l.queue[1:]
	return item, true
}

// retire ends the link if nothing waits, or in any case.
func (l *link) retire(anyway bool) bool {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) > 0 && !anyway {
		return false
	}
	l.over = true
	delete(l.c.links, l.pair)
	return true
}

func (l *link) run() {
	idle := time.NewTimer(l.c.cfg.Idle)
	defer idle.Stop()
	for {
		select {
		case <-l.wake:
			for item, ok := l.next(); ok; item, ok = l.next() {
				l.carry(item)
			}
			idle.Reset(l.c.cfg.Idle)
		case <-idle.C:
			if l.retire(false) {
				l.end()
				return
			}
		case <-l.c.ctx.Done():
			l.retire(true)
			for item, ok := l.next(); ok; item, ok = l.next() {
				l.carry(item)
			}
			l.end()
			return
		}
	}
}

func (l *link) end() {
	if l.line != nil && !l.line.shared {
		l.line.Close(nil)
	}
}

// carry sends one piece of cargo, if need be on a new stream.
func (l *link) carry(item cargo) {
	ln, err := l.open(item)
	for _, el := range item.stanzas {
		if err == nil {
			err = ln.send(el)
		}
	}
	item.report(ln, err)
}

// open returns the stream, which is opened if there is none or if it has ended.
func (l *link) open(item cargo) (*line, error) {
	if l.line != nil && l.line.up() {
		return l.line, nil
	}
	if l.line = l.c.returning(l.pair); l.line != nil {
		return l.line, nil
	}
	switch {
	case l.c.ctx.Err() != nil:
		return nil, errClosing
	case l.c.component(l.pair.Remote):
		ln, err := l.c.attached(l.pair.Remote)
		l.line = ln
		return ln, err
	case item.lazy:
		return nil, errNotOpen
	case !item.owed && time.Since(l.failed) < failFast:
		return nil, l.failure
	}
	ln, err := l.c.dial(l.pair)
	if err != nil {
		l.failed, l.failure = time.Now(), err
		l.c.log.Info("cannot open a stream to another server", "local", l.pair.Local, "remote", l.pair.Remote, "err", err)
		return nil, err
	}
	l.failed, l.line = time.Time{}, ln
	return ln, nil
}

// line is an open stream with a goroutine that learns of its end.
type line struct {
	*stream.Conn
	ended chan struct{}
	why   error           // once ended is closed
	gone  <-chan struct{} // closed when the stream is no longer one to that domain; nil if it always is
	// shared lines are streams of the other side's, which are not closed when nothing is sent.
	shared bool
}

// dial opens a stream.
func (c *Carrier) dial(pair stream.Pair) (*line, error) {
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	defer cancel()
	select {
	case c.dials <- struct{}{}:
		defer func() { <-c.dials }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, err := c.cfg.Federation.Dial(ctx, pair.Local, pair.Remote)
	if err != nil {
		return nil, err
	}
	conn.SetIdleTimeout(0) // how long it stays is the link's to say
	ln := &line{Conn: conn, ended: make(chan struct{})}
	c.wg.Go(func() { ln.watch(c) })
	c.log.Debug("opened a stream to another server", "local", pair.Local, "remote", pair.Remote, "mechanism", conn.Mechanism())
	return ln, nil
}

// watch reads what comes back on the stream, until it ends.
func (ln *line) watch(c *Carrier) {
	err := c.read(context.Background(), ln.Conn, nil)
	ln.why = err
	close(ln.ended)
	ln.Close(err)
	c.log.Debug("a stream to another server has ended", "local", ln.LocalDomain(), "remote", ln.RemoteDomain(), "err", err)
}

func (ln *line) up() bool {
	select {
	case <-ln.ended:
		return false
	case <-ln.gone: // it will have ended in a moment
		return false
	case <-ln.Done():
		return false
	default:
		return true
	}
}

// send queues a stanza on the stream; to a peer that reads slowly, when there is room.
func (ln *line) send(el *element.Element) error {
	err := ln.Send(el)
	if errors.Is(err, stream.ErrQueueFull) {
		if err = ln.Flush(); err == nil {
			err = ln.Send(el)
		}
	}
	return err
}
