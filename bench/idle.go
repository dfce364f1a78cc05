package bench

import (
	"context"
	"parley/bench/meter"
	"strconv"
	"time"
)

// Idle is what sessions that do nothing cost.
type Idle struct {
	Sessions int
	RSS, PSS int64         // more bytes than without the sessions, of all of them
	Base     int64         // resident bytes without them
	Login    time.Duration // processor time of the server for each login
	Parts    []Part        // what RSS is made of, of a server that has profiles
	Profile  []byte        // of its heap
}

// Part is a part of the memory that the sessions have taken, in bytes.
type Part struct {
	What string
	Size int64
}

// parts are the parts of Go's memory, with their names in runtime.MemStats.
var parts = []struct {
	what  string
	names []string
}{
	{"objects on the heap", []string{"HeapAlloc"}},
	{"stacks of goroutines", []string{"Stack"}},
	{"the runtime's own records", []string{"MSpan", "MCache", "BuckHashSys", "GCSys", "OtherSys"}},
}

// divide tells the growth of the memory into its parts.
func divide(rss int64, before, after map[string]int64) []Part {
	var all []Part
	rest := rss
	for _, p := range parts {
		var size int64
		for _, name := range p.names {
			size += after[name] - before[name]
		}
		all = append(all, Part{p.what, size})
		rest -= size
	}
	return append(all, Part{"gaps between objects, and pages not given back", rest})
}

// Idle measures the memory of sessions that are logged in, available and silent.
func (s *Site) Idle(ctx context.Context, size Size) (*Idle, error) {
	accounts := (size.Idle + size.PerUser - 1) / size.PerUser
	if err := s.need(ctx, accounts); err != nil {
		return nil, err
	}
	if err := meter.Sleep(ctx, size.Settle); err != nil {
		return nil, err
	}
	r := &Idle{Sessions: size.Idle}
	var before map[string]int64
	var err error
	if s.Profiles {
		if before, err = s.heapStats(ctx); err != nil {
			return nil, err
		}
	}
	rss, pss, err := meter.Memory(s.PID())
	if err != nil {
		return nil, err
	}
	r.Base = rss
	started, err := meter.CPUTime(s.PID())
	if err != nil {
		return nil, err
	}
	sessions := make([]session, size.Idle)
	for i := range sessions {
		sessions[i] = session{local: user(i % accounts), resource: "idle" + strconv.Itoa(i/accounts)}
	}
	clients, err := s.loginAll(ctx, sessions, func(_ int, c *Client) { c.listen(nil, nil) })
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	ended, err := meter.CPUTime(s.PID())
	if err != nil {
		return nil, err
	}
	r.Login = (ended - started) / time.Duration(size.Idle)
	if err := meter.Sleep(ctx, size.Settle); err != nil {
		return nil, err
	}
	if r.RSS, r.PSS, err = meter.Memory(s.PID()); err != nil {
		return nil, err
	}
	r.RSS, r.PSS = r.RSS-rss, r.PSS-pss
	if s.Profiles {
		if err := s.look(ctx, r, before); err != nil {
			return nil, err
		}
	}
	return r, firstFailure(clients)
}

// look finds out what the memory of the sessions is made of.
func (s *Site) look(ctx context.Context, r *Idle, before map[string]int64) error {
	after, err := s.heapStats(ctx)
	if err != nil {
		return err
	}
	r.Parts = divide(r.RSS, before, after)
	r.Profile, err = s.heapProfile(ctx)
	return err
}
