package federation

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"parley/bench/meter"
)

// Throughput is what the server took while events passed as fast as it could.
type Throughput struct {
	meter.Usage
	Events  int64  // that counted, in the measured time
	Profile []byte // taken after the measured time, of a server that has profiles
}

// Rate is events a second.
func (t *Throughput) Rate() float64 { return float64(t.Events) / t.Time.Seconds() }

// PerEvent is the server's processor time for each event.
func (t *Throughput) PerEvent() time.Duration {
	return (t.CPU / time.Duration(max(t.Events, 1))).Round(time.Microsecond)
}

// PerSecond is how many events a second of processor time is enough for: the rate on a core
// that nobody else uses and that never waits.
func (t *Throughput) PerSecond() float64 { return float64(time.Second) / float64(max(t.PerEvent(), 1)) }

// PeerBusy is how much of its core the peer had, in percent.
func (t *Throughput) PeerBusy() float64 { return 100 * t.Mine.Seconds() / t.Time.Seconds() }

// Received is what it is to be sent events. They count when a user is shown them by
// /sync: a server may acknowledge a transaction before it has looked into it.
type Received struct {
	Throughput
	Acked int64 // events of transactions that were answered in the measured time
	Drain time.Duration
	// Median and P99 are of the time from sending one event until it is shown, on a
	// server that does nothing else.
	Median, P99 time.Duration
}

// drainTimeout is how long a server may take to show what is under way.
const drainTimeout = 5 * time.Minute

// received measures events from other servers.
func (s *Site) received(ctx context.Context, w *world) (*Received, error) {
	r := &Received{}
	if err := s.pings(ctx, w, r); err != nil {
		return nil, err
	}
	var acked atomic.Int64
	stop := s.peer.streams(ctx, w.rooms, w.size, &acked)
	err := s.measure(ctx, w, &r.Throughput, func() int64 { return shown(w) }, &acked, &r.Acked)
	began := time.Now()
	if err = errors.Join(err, stop()); err != nil {
		return nil, err
	}
	if !meter.WaitFor(ctx, drainTimeout, func() bool { return pending(w) == 0 }) {
		return nil, errors.New("bench: events were acknowledged and never shown")
	}
	r.Drain = time.Since(began)
	return r, nil
}

// measure warms up, watches the server for a while, and takes a profile after it. other is
// counted beside what counts.
func (s *Site) measure(ctx context.Context, w *world, t *Throughput, count func() int64, other *atomic.Int64, others *int64) error {
	if err := meter.Sleep(ctx, w.size.Warm); err != nil {
		return err
	}
	var err error
	t.Usage, err = meter.Watch(ctx, s.PID(), func() error {
		before, also := count(), other.Load()
		err := meter.Sleep(ctx, w.size.For)
		t.Events, *others = count()-before, other.Load()-also
		return err
	})
	if err == nil && s.profiles {
		t.Profile, err = meter.Profile(ctx, s.Host(), meter.CPUProfile(w.size.For/2))
	}
	return err
}

// shown is how many messages of the peer the watcher has been shown, in all rooms.
func shown(w *world) (n int64) {
	for _, rm := range w.rooms {
		_, seen := rm.counts()
		n += seen
	}
	return n
}

// pending is how many it has not.
func pending(w *world) (n int64) {
	for _, rm := range w.rooms {
		said, seen := rm.counts()
		n += said - seen
	}
	return n
}

// pingTimeout bounds one measurement of latency.
const pingTimeout = 30 * time.Second

// pings measures latency.
func (s *Site) pings(ctx context.Context, w *world, r *Received) error {
	var all []time.Duration
	for i := range w.size.Pings {
		took, err := s.ping(ctx, w.rooms[i%len(w.rooms)], w.size.Senders)
		if err != nil {
			return err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	r.Median, r.P99 = all[len(all)/2], all[len(all)*99/100]
	return nil
}

// ping sends one event and waits until it is shown.
func (s *Site) ping(ctx context.Context, rm *room, senders int) (time.Duration, error) {
	pdus, err := rm.say(1, senders)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := s.peer.transact(ctx, rm.home, pdus); err != nil {
		return 0, err
	}
	for time.Since(began) < pingTimeout {
		if said, seen := rm.counts(); said == seen {
			return time.Since(began), nil
		}
		if err := meter.Sleep(ctx, 200*time.Microsecond); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("bench: an event was acknowledged and never shown")
}
