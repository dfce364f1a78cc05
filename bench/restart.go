package bench

import (
	"context"
	"parley/bench/meter"
	"time"
)

// Restart is how long a server was of no use.
type Restart struct {
	Login time.Duration // from its start to two logins
	First time.Duration // from its start to the first message that arrived
}

// restartTimeout bounds how long a server may take to stop, and to be of use again.
const restartTimeout = 2 * time.Minute

// Restart stops the server, as asked or as a crash would, and measures from its next start
// until a message has gone from one client to another.
func (s *Site) Restart(ctx context.Context, crash bool) (*Restart, error) {
	if err := s.need(ctx, 2); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	if crash {
		s.Kill()
	} else if err := s.Stop(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	started := make(chan error, 1)
	go func() { started <- s.Start(ctx) }()
	pair, err := s.patientPair(ctx)
	if err != nil {
		return nil, err
	}
	defer pair.close()
	r := &Restart{Login: time.Since(start)}
	if _, err := pair.ping(ctx); err != nil {
		return nil, err
	}
	r.First = time.Since(start)
	return r, <-started
}

// patientPair logs in again and again until the server lets it.
func (s *Site) patientPair(ctx context.Context) (*pair, error) {
	for {
		p, err := s.pair(ctx, 0, 1)
		if err == nil {
			return p, nil
		}
		if meter.Sleep(ctx, 10*time.Millisecond) != nil {
			return nil, err
		}
	}
}
