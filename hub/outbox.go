package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"parley/core"
)

// outbox delivers what is owed: one worker for each destination for which
// something is, in order. What it owes is in the store; the workers can be
// thrown away at any time.
type outbox struct {
	h       *Hub
	mu      sync.Mutex
	workers map[Destination]chan bool // to wake them; true: even while backing off
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// The outbox's measures.
const (
	outboxBatch    = 50
	firstBackoff   = 5 * time.Second
	deliverTimeout = 2 * time.Minute
)

func newOutbox(h *Hub) *outbox {
	return &outbox{h: h, workers: map[Destination]chan bool{}}
}

func (o *outbox) start(ctx context.Context) error {
	o.mu.Lock()
	o.ctx, o.cancel = context.WithCancel(context.WithoutCancel(ctx))
	o.mu.Unlock()
	var owed []Destination
	err := o.h.Read(ctx, func(v View) (err error) {
		owed, err = v.Destinations()
		return err
	})
	for _, d := range owed {
		o.wake(d, false)
	}
	return err
}

func (o *outbox) stop() {
	o.mu.Lock()
	if o.cancel != nil {
		o.cancel()
	}
	o.ctx = nil
	o.mu.Unlock()
	o.wg.Wait()
}

// during runs f, which stop waits for; not after stop.
func (o *outbox) during(f func()) {
	o.mu.Lock()
	if o.ctx == nil {
		o.mu.Unlock()
		return
	}
	o.wg.Add(1)
	o.mu.Unlock()
	defer o.wg.Done()
	f()
}

// wake makes a worker look, and makes the worker first if there is none.
func (o *outbox) wake(d Destination, now bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx == nil || o.h.carriers[d.Network] == nil {
		return // Start finds it in the store
	}
	w := o.workers[d]
	if w == nil {
		w = make(chan bool, 2)
		o.workers[d] = w
		o.wg.Add(1)
		go o.work(o.ctx, d, w)
	}
	select {
	case w <- now:
	default:
	}
}

// Reachable makes the outbox try a destination now: it was heard of again.
func (h *Hub) Reachable(d Destination) {
	h.outbox.mu.Lock()
	_, owed := h.outbox.workers[d]
	h.outbox.mu.Unlock()
	if owed {
		h.outbox.wake(d, true)
	}
}

// idleWorker is how long a worker with nothing to do stays.
const idleWorker = time.Minute

func (o *outbox) work(ctx context.Context, d Destination, wake chan bool) {
	defer o.wg.Done()
	wait := time.NewTimer(idleWorker)
	defer wait.Stop()
	for {
		next, err := o.deliver(ctx, d)
		if err != nil && ctx.Err() == nil {
			o.h.log.Error("delivering", "network", d.Network, "destination", d.Dest, "err", err)
			next = firstBackoff
		}
		idle := next == 0
		if idle {
			next = idleWorker
		}
		wait.Reset(next)
		timed, ok := rest(ctx, wait.C, wake, idle)
		if !ok || idle && timed && o.retire(d, wake) {
			return
		}
	}
}

// rest waits until there may be something to do: a wake or the timer when
// idle, and when backing off the timer or word that the destination is back.
// timed says that it was the timer.
func rest(ctx context.Context, timer <-chan time.Time, wake <-chan bool, idle bool) (timed, ok bool) {
	for {
		select {
		case <-ctx.Done():
			return false, false
		case <-timer:
			return true, true
		case now := <-wake:
			if idle || now {
				return false, true
			}
		}
	}
}

// retire ends a worker for which nothing came.
func (o *outbox) retire(d Destination, wake chan bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(wake) > 0 {
		return false
	}
	delete(o.workers, d)
	return true
}

// deliver hands over all that is due. It returns how long to wait before there
// is more to do, zero if nothing is owed.
func (o *outbox) deliver(ctx context.Context, d Destination) (time.Duration, error) {
	for {
		batch, err := o.load(ctx, d)
		if err != nil || len(batch) == 0 {
			return 0, err
		}
		wait, err := o.settle(ctx, batch, o.hand(ctx, d, batch))
		if err != nil || wait > 0 {
			return wait, err
		}
	}
}

// hand gives a batch to the carrier, as far as the network can carry it at all;
// what it cannot has its result without the carrier.
func (o *outbox) hand(ctx context.Context, d Destination, batch []Delivery) []Result {
	carrier := o.h.carriers[d.Network]
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	var out []Result
	for len(out) < len(batch) {
		if !batch[len(out)].carry(carrier) {
			out = append(out, Result{Outcome: Accepted, Losses: batch[len(out)].losses})
			continue
		}
		n := 1
		rest := batch[len(out):]
		for n < len(rest) && rest[n].carry(carrier) {
			n++
		}
		results := carrier.Deliver(ctx, d.Dest, rest[:n])
		for i := range results[:min(n, len(results))] {
			results[i].Losses = append(rest[i].losses, results[i].Losses...)
			out = append(out, results[i])
		}
		if len(results) < n {
			return out
		}
	}
	return out
}

// carry reduces what is to be delivered to what its addressees' network can
// show. It is false where nothing is left.
func (d *Delivery) carry(c Carrier) bool {
	if d.Event == "" || d.Receipt != nil || d.losses != nil {
		return d.Event == "" || d.Content.Content != nil
	}
	content, losses := core.Carry(d.Content.Content, d.Target, c.Capabilities(d.To[0]))
	if d.Content.Content = content; len(losses) > 0 {
		d.losses, d.Content.Native = losses, nil // the native form is what cannot be carried
	}
	return content != nil
}

// load reads the first parcels with what it takes to write them.
func (o *outbox) load(ctx context.Context, d Destination) ([]Delivery, error) {
	var batch []Delivery
	err := o.h.Read(ctx, func(v View) error {
		parcels, err := v.Parcels(d, outboxBatch)
		if err != nil {
			return err
		}
		for _, p := range parcels {
			del, err := load(v, p)
			if err != nil {
				return err
			}
			batch = append(batch, del)
		}
		return nil
	})
	return batch, err
}

func load(v View, p Parcel) (d Delivery, err error) {
	d.Parcel = p
	if p.Event == "" {
		return d, nil
	}
	if d.Content, err = v.Event(p.Event); err != nil {
		return d, err
	}
	if d.Room, err = v.Conversation(p.Conv); err != nil {
		return d, err
	}
	if d.State, err = v.State(p.Conv); err != nil {
		return d, err
	}
	if d.Links, err = v.Links(p.Event); err != nil {
		return d, err
	}
	id := core.Target(d.Content.Content)
	if b, ok := core.BodyOf(d.Content.Content); ok && id == "" {
		id = b.ReplyTo
	}
	if id == "" {
		return d, nil
	}
	target, err := v.Event(id)
	if errors.Is(err, ErrNone) {
		return d, nil
	} else if err != nil {
		return d, err
	}
	d.Target = &target
	// A reaction, or one taken back, goes out as the whole set that stands.
	if r, ok := target.Content.(core.Reaction); ok {
		id = r.Target
	}
	d.Reacted, err = Reactions(v, d.Content.Sender, id)
	return d, err
}

// settle writes down what became of a batch and tells the senders. It returns
// how long to wait if the destination could not take everything.
func (o *outbox) settle(ctx context.Context, batch []Delivery, results []Result) (time.Duration, error) {
	var wait time.Duration
	var inform []func()
	err := o.h.turn(ctx, func(t *turn) error {
		wait, inform = 0, nil
		for i, d := range batch {
			r := Result{Outcome: Retry, Reason: "the other server did not answer"}
			if i < len(results) {
				r = results[i]
			}
			if r.Outcome == Retry {
				if t.now.Before(d.Expires) {
					wait = backoff(batch[i].Attempts, o.h.cfg.RetryMax)
					return t.tx.PostponeParcel(d.ID, d.Attempts+1, t.now.Add(wait))
				}
				r = Result{Outcome: Failed, Reason: "gave up after " + o.h.cfg.GiveUp.String() + ": " + r.Reason}
			}
			more, err := t.settled(d, r)
			if err != nil {
				return err
			}
			inform = append(inform, more...)
		}
		return nil
	})
	if err == nil {
		for _, f := range inform {
			f()
		}
	}
	return wait, err
}

// settled records the end of one parcel.
func (t *turn) settled(d Delivery, r Result) (inform []func(), err error) {
	if err := t.tx.DeleteParcel(d.ID); err != nil {
		return nil, err
	}
	outcome := map[Outcome]string{Accepted: "accepted", Failed: "failed"}[r.Outcome]
	t.h.count.Count("delivered", string(d.Network), outcome)
	if d.Event == "" || d.Receipt != nil {
		return nil, nil
	}
	stage := core.StageThere
	if r.Outcome == Failed {
		stage = core.StageFailed
	}
	if stage == core.StageThere && len(r.Losses) == 0 && d.Room.Shape != core.Direct {
		return nil, nil
	}
	for _, to := range d.To {
		f, err := t.report(Report{Event: d.Event, To: to, Stage: stage, Reason: r.Reason, Losses: r.Losses})
		if err != nil {
			return nil, err
		}
		if f != nil {
			inform = append(inform, f)
		}
	}
	return inform, nil
}

// backoff doubles from one attempt to the next, up to most, with some chance in it so that
// servers which failed together do not come back together.
func backoff(attempts int, most time.Duration) time.Duration {
	d := most
	if attempts < 16 {
		d = min(firstBackoff<<attempts, most)
	}
	return d*3/4 + rand.N(d/2)
}
