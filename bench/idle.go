package bench

import (
	"context"
	"strconv"
	"time"
)

// Idle is what sessions that do nothing cost.
type Idle struct {
	Sessions int
	RSS, PSS int64         // more bytes than without the sessions, of all of them
	Base     int64         // resident bytes without them
	Login    time.Duration // processor time of the server for each login
}

// Idle measures the memory of sessions that are logged in, available and silent.
func (s *Site) Idle(ctx context.Context, size Size) (*Idle, error) {
	accounts := (size.Idle + size.PerUser - 1) / size.PerUser
	if err := s.need(ctx, accounts); err != nil {
		return nil, err
	}
	if err := sleep(ctx, size.Settle); err != nil {
		return nil, err
	}
	r := &Idle{Sessions: size.Idle}
	rss, pss, err := memory(s.PID())
	if err != nil {
		return nil, err
	}
	r.Base = rss
	before, err := cpuTime(s.PID())
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
	after, err := cpuTime(s.PID())
	if err != nil {
		return nil, err
	}
	r.Login = (after - before) / time.Duration(size.Idle)
	if err := sleep(ctx, size.Settle); err != nil {
		return nil, err
	}
	if r.RSS, r.PSS, err = memory(s.PID()); err != nil {
		return nil, err
	}
	r.RSS, r.PSS = r.RSS-rss, r.PSS-pss
	return r, firstFailure(clients)
}
