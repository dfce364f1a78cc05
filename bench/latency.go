package bench

import (
	"bytes"
	"context"
	"parley/bench/meter"
	"slices"
	"strconv"
	"time"
)

// Latency is how long single messages took through a server that did nothing else.
type Latency struct {
	Median, P99 time.Duration
	Count       int
}

// pause is between two messages of a measurement of latency.
const pause = 5 * time.Millisecond

func summarise(times []time.Duration) *Latency {
	slices.Sort(times)
	n := len(times)
	return &Latency{Median: times[n/2], P99: times[min(n-1, n*99/100)], Count: n}
}

// repeat measures n times, after some that do not count.
func repeat(ctx context.Context, n int, once func() (time.Duration, error)) (*Latency, error) {
	var times []time.Duration
	warm := max(n/10, 1)
	for i := range n + warm {
		d, err := once()
		if err != nil {
			return nil, err
		}
		if i >= warm {
			times = append(times, d)
		}
		if err := meter.Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
	return summarise(times), nil
}

// Latency measures from one XMPP client's write to another's read.
func (s *Site) Latency(ctx context.Context, size Size) (*Latency, error) {
	if err := s.need(ctx, 2); err != nil {
		return nil, err
	}
	p, err := s.pair(ctx, 0, 1)
	if err != nil {
		return nil, err
	}
	defer p.close()
	return repeat(ctx, size.Pings, func() (time.Duration, error) { return p.ping(ctx) })
}

// Across is the latency between a Matrix and an XMPP client of one server.
type Across struct {
	ToXMPP   *Latency // from the request to send to the stanza
	ToMatrix *Latency // from the stanza to the answer to /sync
}

// Across measures both ways between the networks. Only Parley has both.
func (s *Site) Across(ctx context.Context, size Size) (*Across, error) {
	if err := s.need(ctx, 4); err != nil {
		return nil, err
	}
	x, err := s.login(ctx, session{local: user(2), resource: "across"})
	if err != nil {
		return nil, err
	}
	defer x.Close()
	prefix, arrived := runID(), make(chan time.Time, fill)
	x.listen(func(st []byte) {
		if isMessage(st) && bytes.Contains(st, []byte(prefix)) {
			arrived <- time.Now()
		}
	}, nil)
	m, err := s.matrixLogin(ctx, user(3))
	if err != nil {
		return nil, err
	}
	defer m.Close()

	n := 0
	toMatrix := func() (time.Duration, error) {
		n++
		mark := prefix + strconv.Itoa(n) + "."
		start := time.Now()
		err := x.Send("<message type='chat' to='" + user(3) + "@" + s.Domain() + "' id='" + mark + "'><body>" + mark + " " + text + "</body></message>")
		if err != nil {
			return 0, err
		}
		err = m.syncUntil(ctx, mark)
		return time.Since(start), err
	}
	if _, err := toMatrix(); err != nil { // makes the conversation
		return nil, err
	}
	r := &Across{}
	if r.ToMatrix, err = repeat(ctx, size.Pings, toMatrix); err != nil {
		return nil, err
	}
	r.ToXMPP, err = repeat(ctx, size.Pings, func() (time.Duration, error) {
		n++
		start := time.Now()
		if err := m.say(ctx, prefix+strconv.Itoa(n), prefix+text); err != nil {
			return 0, err
		}
		at, err := arrival(ctx, x, arrived)
		return at.Sub(start), err
	})
	return r, err
}
