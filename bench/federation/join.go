package federation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/bench/meter"
)

// Join is what it is to enter a large room.
type Join struct {
	meter.Usage // until all members are known
	// From the client's request: until it is answered, until a message that is sent
	// then is shown, and until all members are known.
	Answered, First, Whole time.Duration
	// Resident memory in bytes: at most, and after.
	Peak, Rest int64
	Profile    []byte // of another such room, of a server that has profiles
}

// joinTimeout bounds entering a room.
const joinTimeout = 20 * time.Minute

// join measures entering a large room.
func (s *Site) join(ctx context.Context, w *world) (*Join, error) {
	r := &Join{}
	var err error
	if err := meter.ResetPeak(s.PID()); err != nil {
		return nil, err
	}
	if err := s.enter(ctx, w, r); err != nil {
		return nil, err
	}
	if r.Peak, err = meter.Peak(s.PID()); err != nil {
		return nil, err
	}
	if r.Rest, err = s.settled(ctx, w.size); err != nil || !s.profiles {
		return r, err
	}
	type taken struct {
		data []byte
		err  error
	}
	profile := make(chan taken, 1)
	go func() {
		data, err := meter.Profile(ctx, s.Host(), meter.CPUProfile(r.Whole))
		profile <- taken{data, err}
	}()
	err = s.enter(ctx, w, &Join{})
	p := <-profile
	r.Profile = p.data
	return r, errors.Join(err, p.err)
}

// enter has the watcher enter a new room.
func (s *Site) enter(ctx context.Context, w *world, r *Join) (err error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	rm, err := s.peer.newRoom(w.size.Version, 0, w.size.JoinMembers, w.size.JoinServers)
	if err != nil {
		return err
	}
	r.Usage, err = meter.Watch(ctx, s.PID(), func() error {
		began := time.Now()
		if err := join(ctx, w.watcher.Client, rm); err != nil {
			return fmt.Errorf("bench: after %v: %w", time.Since(began).Round(time.Second), err)
		}
		r.Answered = time.Since(began)
		if err := s.speakUntilShown(ctx, rm); err != nil {
			return err
		}
		r.First = time.Since(began)
		for {
			asked := time.Now()
			n, err := members(ctx, w.watcher.Client, rm)
			if err != nil {
				return err
			}
			if n > w.size.JoinMembers {
				r.Whole = time.Since(began)
				return nil
			}
			// Asking is not to be what takes the time.
			if err := meter.Sleep(ctx, max(4*time.Since(asked), 100*time.Millisecond)); err != nil {
				return fmt.Errorf("bench: %d of %d members are known: %w", n, w.size.JoinMembers+1, err)
			}
		}
	})
	return err
}

// speakAgain is after how long somebody speaks again in a room of which the user has been
// shown nothing.
const speakAgain = 10 * time.Second

// speakUntilShown has a member say something, now and again, until the user is shown it.
func (s *Site) speakUntilShown(ctx context.Context, rm *room) error {
	for ctx.Err() == nil {
		pdus, err := rm.say(1, 1)
		if err != nil {
			return err
		}
		if _, err := s.peer.transact(ctx, rm.home, pdus); err != nil {
			return err
		}
		if meter.WaitFor(ctx, speakAgain, func() bool { _, seen := rm.counts(); return seen > 0 }) {
			return nil
		}
	}
	return fmt.Errorf("bench: nothing that was said after the room was entered is shown: %w", ctx.Err())
}
