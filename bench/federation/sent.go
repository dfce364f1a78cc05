package federation

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"

	"parley/bench/matrixclient"
	"parley/bench/meter"
)

// Sent is what it is when the server's own people speak in rooms of other servers. An
// event counts when it has arrived there.
type Sent struct {
	Throughput
	Said         int64 // that were answered to clients in the measured time
	Transactions int64 // of the whole run
	Lost         int64 // that were answered and have not arrived in the end
}

// sent measures events to other servers.
func (s *Site) sent(ctx context.Context, w *world) (*Sent, error) {
	r := &Sent{}
	w.watcher.paused.Store(true) // what clients are shown is measured where events are received
	defer w.watcher.paused.Store(false)
	var said atomic.Int64
	arrived, news := s.peer.arrived.Load(), s.peer.news.Load()
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(w.users))
	var wg sync.WaitGroup
	for i, c := range w.users {
		wg.Go(func() { errs <- speak(running, c, w.rooms[i%len(w.rooms)].ID, &said) })
	}
	err := s.measure(ctx, w, &r.Throughput, s.peer.arrived.Load, &said, &r.Said)
	r.Transactions = s.peer.news.Load() - news
	cancel()
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return nil, err
	}
	left := func() int64 { return said.Load() - (s.peer.arrived.Load() - arrived) }
	meter.WaitFor(ctx, drainTimeout, func() bool { return left() <= 0 })
	r.Lost = max(left(), 0)
	return r, nil
}

// speak says one message after the other until ctx ends.
//
// spec: MX 1.19 CS §7.8
func speak(ctx context.Context, c *matrixclient.Client, roomID string, said *atomic.Int64) error {
	path := "/rooms/" + url.PathEscape(roomID) + "/send/m.room.message/"
	for i := 0; ctx.Err() == nil; i++ {
		body := map[string]any{"msgtype": "m.text", "body": "hello from here"}
		// One that has begun is waited for, or nobody knew whether it was said.
		if _, err := c.Raw(context.WithoutCancel(ctx), http.MethodPut, path+"t"+strconv.Itoa(i), body); err != nil {
			return err
		}
		said.Add(1)
	}
	return nil
}
