package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
)

// commandTimeout bounds a batch on a database across a network, and opening
// and closing. SQLite batches are not bounded.
const commandTimeout = time.Minute

// States of an op. The writer and the waiting caller race for it once.
const (
	opQueued int32 = iota
	opTaken
	opCancelled
)

// op is one queued Write.
type op struct {
	f     func(tx *Tx) error
	state atomic.Int32
	tx    *Tx
	err   error         // valid once done is closed
	done  chan struct{} // closed when the outcome is known
}

// Write runs f as one operation of the writer's current batch, and returns
// once the batch is committed and synced and its OnCommit hooks have run, or
// with the error of f or of the commit. If ctx ends while f is still queued, f
// is not run; once it runs, Write waits for the outcome.
func (db *DB) Write(ctx context.Context, f func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-db.closing:
		return ErrClosed
	default:
	}
	o := &op{f: f, done: make(chan struct{})}
	select {
	case db.queue <- o:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.stopped:
		return ErrClosed
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		if o.state.CompareAndSwap(opQueued, opCancelled) {
			return ctx.Err()
		}
	case <-db.stopped:
		if o.state.CompareAndSwap(opQueued, opCancelled) {
			return ErrClosed
		}
	}
	<-o.done
	return o.err
}

// writer is the goroutine that writes. Its fields belong to that goroutine.
type writer struct {
	db        *DB
	sess      session // nil when the connection has to be opened anew
	feed      int64   // last number handed out
	feedSaved int64   // last number that a committed batch has saved
	lost      error   // once set, nothing is written any more

	// The batch in work, for abandon.
	batch   []*op
	settled int   // how many of batch have their outcome
	waiting []*op // taken, successful so far, not yet committed
	running *op   // its closure is on the stack
}

func (w *writer) run() {
	finished := false
	defer func() {
		if !finished {
			// A closure ended the goroutine (runtime.Goexit, as t.FailNow does).
			w.abandon(errors.New("store: operation ended the writer's goroutine"))
			go w.run()
		}
	}()
	var tick <-chan time.Time
	if every := w.db.backend.idleEvery(); every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	for open := true; open; {
		var first *op
		select {
		case first = <-w.db.queue:
		case <-tick:
			w.idle()
			continue
		case <-w.db.closing:
			open = false
		}
		w.collect(first)
		for w.settled < len(w.batch) {
			w.commitSome()
		}
		// What was queued before closing is still done, batch by batch.
		open = open || len(w.batch) > 0
	}
	if w.sess != nil {
		ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
		if err := w.db.backend.close(ctx, w.sess); err != nil {
			w.db.log.Warn("closing the database", "error", err)
		}
		cancel()
	}
	finished = true
	close(w.db.stopped)
}

// collect makes a batch of first, if any, and what else is queued.
func (w *writer) collect(first *op) {
	w.batch, w.settled = w.batch[:0], 0
	if first != nil {
		w.batch = append(w.batch, first)
		// Who is about to queue something comes first: what is under way
		// shares one commit, and a writer that is woken by the first of many
		// does not commit it alone.
		runtime.Gosched()
	}
	for len(w.batch) < w.db.opts.BatchMax {
		select {
		case o := <-w.db.queue:
			w.batch = append(w.batch, o)
			continue
		default:
		}
		return
	}
}

// idle keeps the lease while nothing is written.
func (w *writer) idle() {
	if w.lost != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	err := w.connect(ctx)
	if err == nil {
		err = w.db.backend.idle(ctx, w.sess)
	}
	if err != nil {
		w.failed(err)
		w.disconnect()
		w.db.log.Warn("renewing the database lease", "error", err)
	}
}

func (w *writer) connect(ctx context.Context) error {
	if w.sess != nil {
		return nil
	}
	s, err := w.db.backend.openWriter(ctx)
	if err != nil {
		return fmt.Errorf("store: connecting: %w", err)
	}
	w.sess = s
	return nil
}

func (w *writer) disconnect() {
	if w.sess != nil {
		w.sess.discard()
		w.sess = nil
	}
}

// failed notes a lost lease.
func (w *writer) failed(err error) {
	if errors.Is(err, ErrLeaseLost) && w.lost == nil {
		w.lost = err
		close(w.db.lost)
	}
}

// commitSome runs and commits the rest of the batch, or as far as it can: when
// an operation takes the whole transaction down, the operations after it get
// another one.
func (w *writer) commitSome() {
	ctx, cancel := context.Background(), func() {}
	if w.db.backend.idleEvery() > 0 { // a database across a network
		ctx, cancel = context.WithTimeout(ctx, commandTimeout)
	}
	defer cancel()
	if err := w.begin(ctx); err != nil {
		w.failed(err)
		for ; w.settled < len(w.batch); w.settled++ {
			if o := w.batch[w.settled]; o.state.CompareAndSwap(opQueued, opTaken) {
				o.settle(err)
			}
		}
		return
	}
	w.waiting = w.waiting[:0]
	for w.settled < len(w.batch) {
		o := w.batch[w.settled]
		w.settled++
		if !o.state.CompareAndSwap(opQueued, opTaken) {
			continue // its caller has gone
		}
		err, broken := w.operate(ctx, o)
		switch {
		case broken:
			w.rollback(append(w.waiting, o), err)
			return
		case err != nil:
			w.runHooksReversed(o.tx.onRollback)
			o.settle(err)
		default:
			w.waiting = append(w.waiting, o)
		}
	}
	w.commit(ctx)
}

// begin starts the transaction of a batch. Nothing has been done yet, so a
// connection that turns out broken is replaced once.
func (w *writer) begin(ctx context.Context) error {
	if w.lost != nil {
		return w.lost
	}
	for attempt := 0; ; attempt++ {
		err := w.connect(ctx)
		if err == nil {
			err = w.sess.command(ctx, w.db.backend.beginWrite())
		}
		if err == nil {
			err = w.db.backend.fence(ctx, w.sess)
		}
		if err == nil {
			return nil
		}
		w.disconnect()
		if attempt > 0 || errors.Is(err, ErrLeaseLost) {
			return fmt.Errorf("store: starting a transaction: %w", err)
		}
	}
}

// operate runs one operation in its savepoint. broken means that the whole
// transaction is gone.
func (w *writer) operate(ctx context.Context, o *op) (err error, broken bool) {
	o.tx = &Tx{scope: scope{ctx: ctx, s: w.sess}, w: w}
	if err := w.sess.command(ctx, "SAVEPOINT op"); err != nil {
		return fmt.Errorf("store: savepoint: %w", err), true
	}
	w.running = o
	err = call(o.f, o.tx)
	w.running = nil
	if p, ok := err.(*PanicError); ok { //nolint:errorlint // call returns it bare
		w.db.log.Error("store: an operation panicked", "panic", fmt.Sprint(p.Value), "stack", string(p.Stack))
	}
	o.tx.finish()
	if err == nil && o.tx.err != nil {
		err = fmt.Errorf("store: a failed statement spoiled the operation: %w", o.tx.err)
	}
	if err != nil {
		if rerr := w.sess.command(ctx, "ROLLBACK TO op"); rerr != nil {
			return fmt.Errorf("%w (and the transaction is gone: %w)", err, rerr), true
		}
	}
	if rerr := w.sess.command(ctx, "RELEASE op"); rerr != nil {
		return errors.Join(err, fmt.Errorf("store: release: %w", rerr)), true
	}
	return err, false
}

// call runs f and turns a panic into an error.
func call(f func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f(tx)
}

// commit makes the waiting operations durable and tells their callers.
func (w *writer) commit(ctx context.Context) {
	if len(w.waiting) == 0 {
		// Nothing of theirs is in it, but maybe a renewal of the lease.
		if err := w.sess.command(ctx, "COMMIT"); err != nil {
			w.disconnect()
		}
		return
	}
	if w.feed != w.feedSaved {
		if _, err := w.sess.exec(ctx, `UPDATE parley_feed SET last = $1 WHERE id = 1`, []any{w.feed}); err != nil {
			w.rollback(w.waiting, fmt.Errorf("store: saving the feed position: %w", err))
			return
		}
	}
	if err := w.sess.command(ctx, "COMMIT"); err != nil {
		w.rollback(w.waiting, fmt.Errorf("%w: %w", ErrInDoubt, err))
		return
	}
	w.feedSaved = w.feed
	w.db.feed.Store(w.feed)
	for _, o := range w.waiting {
		for _, hook := range o.tx.onCommit {
			w.runHook(hook)
		}
	}
	for _, o := range w.waiting {
		o.settle(nil)
	}
	clear(w.waiting)
	w.waiting = w.waiting[:0]
}

// rollback ends the transaction without effect and fails ops, which are all
// those that ran in it, with err. The connection is not trusted any more.
func (w *writer) rollback(ops []*op, err error) {
	w.disconnect()
	w.failed(err)
	for _, o := range slices.Backward(ops) {
		w.runHooksReversed(o.tx.onRollback)
	}
	for i, o := range ops {
		if i < len(ops)-1 {
			o.settle(fmt.Errorf("store: the batch failed: %w", err))
		} else {
			o.settle(err)
		}
	}
	w.waiting = w.waiting[:0]
}

// abandon fails what is in work after a closure ended the goroutine.
func (w *writer) abandon(err error) {
	ops := w.waiting
	if w.running != nil {
		w.running.tx.finish()
		ops = append(ops, w.running)
		w.running = nil
	}
	w.rollback(ops, err)
	for ; w.settled < len(w.batch); w.settled++ {
		if o := w.batch[w.settled]; o.state.CompareAndSwap(opQueued, opTaken) {
			o.settle(err)
		}
	}
}

// settle tells the caller of Write the outcome.
func (o *op) settle(err error) {
	o.err = err
	close(o.done)
}

func (w *writer) nextFeed() int64 {
	w.feed++
	return w.feed
}

// runHook runs a hook; a panic in it is a bug that must not undo what is
// already durable, nor stop the writer.
func (w *writer) runHook(f func()) {
	defer func() {
		if v := recover(); v != nil {
			w.db.log.Error("store hook panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f()
}

func (w *writer) runHooksReversed(hooks []func()) {
	for _, f := range slices.Backward(hooks) {
		w.runHook(f)
	}
}
