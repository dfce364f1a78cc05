package devices

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/store/hubstore"
)

// wait fetches a list, or waits for who does that already, until ctx ends.
func (d *Devices) wait(ctx context.Context, who core.Address) (client.UserKeys, error) {
	done := d.fetches.DoChan(who.String(), func() (any, error) {
		if !d.enter() {
			return nil, context.Canceled
		}
		defer d.work.Done()
		var k client.UserKeys
		err := d.keep.Do(func() (err error) {
			k, err = d.fetch(d.ctx, who)
			return err
		})
		return k, err
	})
	select {
	case r := <-done:
		k, _ := r.Val.(client.UserKeys)
		return k, r.Err
	case <-ctx.Done():
		return client.UserKeys{}, ctx.Err()
	}
}

// fetch fetches a list from its server and keeps it.
//
// spec: MX 1.19 SS §22
func (d *Devices) fetch(ctx context.Context, who core.Address) (client.UserKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	var conv core.ConvID
	var domain string
	err := d.hub.Read(ctx, func(v hub.View) (err error) {
		conv, domain, err = anchorOf(v, who)
		return err
	})
	if err != nil {
		return client.UserKeys{}, err
	}
	if conv == "" {
		err := d.hub.Write(ctx, func(tx hub.Tx) error { return d.forget(tx, who) })
		return client.UserKeys{}, errors.Join(errUnsharedNow, err)
	}
	q := d.watching.begin(who)
	defer q.end()
	user := d.userID(who)
	k, at, err := d.ask(ctx, domain, who, user)
	if err != nil {
		d.cfg.Count.Count("matrix_device_lists", "failed")
		return client.UserKeys{}, err
	}
	l := list{conv: conv, seen: []int64{at}, asked: now().UnixMilli(), keys: k}
	kept, err := d.learn(ctx, map[core.Address]list{who: l}, q)
	if err != nil {
		return client.UserKeys{}, err
	}
	if _, ok := kept[who]; !ok {
		return client.UserKeys{}, errUnsharedNow
	}
	d.cfg.Count.Count("matrix_device_lists", "fetched")
	return kept[who], nil
}

// ask asks a server for a list.
func (d *Devices) ask(ctx context.Context, origin string, who core.Address, user string) (client.UserKeys, int64, error) {
	raw, err := d.call(ctx, origin, who.Domain, http.MethodGet,
		federation.URI(nil, "_matrix", "federation", "v1", "user", "devices", user), nil, listAnswer)
	if err != nil {
		return client.UserKeys{}, 0, err
	}
	return readList(user, raw)
}

// forget drops the list of one with whom no room is shared; it is for the turn to
// see that.
func (d *Devices) forget(tx hub.Tx, who core.Address) error {
	conv, _, err := anchorOf(tx, who)
	if err != nil || conv != "" {
		return err
	}
	return deleteList(tx, who)
}

// Bounds of fetching lists that nobody waits for.
const (
	maxFetches       = 8
	maxFetchesServer = 2
	maxQueued        = 10_000
	maxQueuedServer  = 1000
	// sweepEvery is how often the store is looked through: for lists that had
	// no room in the queue, and those of people with whom no room is shared.
	sweepEvery = time.Hour
	sweepBatch = 200
)

// refetcher fetches stale lists in the background.
type refetcher struct {
	d    *Devices
	wake chan struct{}

	mu      sync.Mutex
	queue   map[core.Address]*pending
	queued  map[string]int // of a server
	running map[string]int
	total   int
}

// pending is a list that is to be fetched.
type pending struct {
	due     time.Time
	tries   int
	running bool
	// again says that it became stale once more while it was fetched.
	again bool
}

func newRefetcher(d *Devices) *refetcher {
	return &refetcher{
		d: d, wake: make(chan struct{}, 1), queue: map[core.Address]*pending{}, queued: map[string]int{}, running: map[string]int{},
	}
}

// add has a list fetched that was fetched last at a moment. What has no room is
// found by the next sweep, or when a client asks.
func (r *refetcher) add(who core.Address, asked int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.queue[who]; p != nil {
		// Her server is there: that is worth a try.
		p.again = true
		if soon := time.Now().Add(r.d.cfg.FirstRetry); p.tries > 0 && p.due.After(soon) {
			p.due = soon
			r.stir()
		}
		return
	}
	if len(r.queue) >= maxQueued || r.queued[who.Domain] >= maxQueuedServer {
		return
	}
	r.queue[who] = &pending{due: time.UnixMilli(asked).Add(r.d.cfg.Pause)}
	r.queued[who.Domain]++
	r.stir()
}

func (r *refetcher) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// load puts what is stale in the store into the queue.
func (r *refetcher) load(ctx context.Context) error {
	type found struct {
		who   core.Address
		asked int64
	}
	var list []found
	err := r.d.hub.Read(ctx, func(v hub.View) error {
		return hubstore.Rows(v, func(scan func(...any) error) error {
			var text string
			var f found
			if err := scan(&text, &f.asked); err != nil {
				return err
			}
			var err error
			f.who, err = core.ParseAddress(text)
			list = append(list, f)
			return err
		}, `SELECT address, asked FROM mxd_lists WHERE state = $1 ORDER BY address LIMIT $2`, int64(stale), maxQueued)
	})
	for _, f := range list {
		r.add(f.who, f.asked)
	}
	return err
}

// run works until Stop.
func (r *refetcher) run() {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	r.d.work.Go(r.sweep)
	for {
		wait := r.begin(time.Now())
		timer := time.NewTimer(wait)
		select {
		case <-r.d.ctx.Done():
			timer.Stop()
			return
		case <-r.wake:
		case <-timer.C:
		case <-sweep.C:
			r.d.work.Go(r.sweep)
		}
		timer.Stop()
	}
}

// begin begins to fetch what is due and may be, and says when to look again.
func (r *refetcher) begin(at time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := sweepEvery
	for who, p := range r.queue {
		if r.total >= maxFetches {
			return wait // the end of one wakes
		}
		if p.running || r.running[who.Domain] >= maxFetchesServer {
			continue
		}
		if left := p.due.Sub(at); left > 0 {
			wait = min(wait, left)
			continue
		}
		p.running, p.again = true, false
		r.running[who.Domain]++
		r.total++
		r.d.work.Go(func() {
			r.done(who, r.fetch(who))
		})
	}
	return wait
}

// fetch fetches a list if it is still stale.
func (r *refetcher) fetch(who core.Address) error {
	var l list
	err := r.d.hub.Read(r.d.ctx, func(v hub.View) (err error) {
		l, _, err = head(v, who)
		return err
	})
	if err != nil || l.state != stale {
		return err
	}
	_, err = r.d.wait(r.d.ctx, who)
	return err
}

// done notes what became of fetching a list.
func (r *refetcher) done(who core.Address, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	if r.running[who.Domain]--; r.running[who.Domain] == 0 {
		delete(r.running, who.Domain)
	}
	p := r.queue[who]
	p.running = false
	if unshared := errors.Is(err, errUnsharedNow); err == nil && !p.again || unshared {
		delete(r.queue, who)
		if r.queued[who.Domain]--; r.queued[who.Domain] == 0 {
			delete(r.queued, who.Domain)
		}
	} else if err == nil {
		p.due, p.tries = time.Now().Add(r.d.cfg.Pause), 0
	} else {
		p.due = time.Now().Add(min(r.d.cfg.FirstRetry<<min(p.tries, 20), r.d.cfg.MaxRetry))
		p.tries++
		if paused, ok := errors.AsType[*federation.BackoffError](err); ok && paused.Until.After(p.due) {
			p.due = paused.Until
		}
	}
	r.stir()
}

// sweep looks through the store, a batch at a time.
func (r *refetcher) sweep() {
	err := r.d.keep.Do(func() error {
		if err := r.load(r.d.ctx); err != nil {
			return err
		}
		after, more := "", true
		for more {
			err := r.d.hub.Write(r.d.ctx, func(tx hub.Tx) (err error) {
				after, more, err = r.d.forgetUnshared(tx, after)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && r.d.ctx.Err() == nil {
		r.d.cfg.Log.Error("looking through the lists of devices elsewhere", "err", err)
	}
}

// forgetUnshared drops those of a batch of lists that are adrift whose users
// share no room with anybody here.
func (d *Devices) forgetUnshared(tx hub.Tx, after string) (last string, more bool, err error) {
	var list []core.Address
	last = after
	err = hubstore.Rows(tx, func(scan func(...any) error) error {
		if err := scan(&last); err != nil {
			return err
		}
		who, err := core.ParseAddress(last)
		list = append(list, who)
		return err
	}, `SELECT address FROM mxd_lists WHERE state = $1 AND address > $2 ORDER BY address LIMIT $3`, int64(adrift), after, sweepBatch)
	if err != nil {
		return last, false, err
	}
	for _, who := range list {
		if err := d.forget(tx, who); err != nil {
			return last, false, err
		}
	}
	return last, len(list) == sweepBatch, nil
}
