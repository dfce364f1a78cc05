package sending

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/store/hubstore"
)

// taken notes that a server has answered: it has all that was in the
// transaction, or refuses single events, which are not tried again.
//
// spec: MX 1.19 SS §4
func (s *Sender) taken(ctx context.Context, p *peer, t *transaction, answer []byte) error {
	var results struct {
		PDUs map[string]struct {
			Error *string `json:"error"`
		} `json:"pdus"`
	}
	if err := json.Unmarshal(answer, &results); err != nil {
		s.cfg.Log.Debug("the answer to a transaction is no list of results", "dest", p.dest, "err", err)
		results.PDUs = nil
	}
	s.cfg.Count.Count("matrix_transactions", "taken")
	// The senders hear of it before it is written down: in between it would
	// be lost, and twice is as good as once.
	for _, e := range t.pdus {
		outcome, stage, reason := "taken", core.StageThere, ""
		if r := results.PDUs[e.id]; r.Error != nil {
			outcome, stage, reason = "refused", core.StageFailed, shorten(*r.Error)
			s.cfg.Log.Info("a Matrix server refuses an event", "dest", p.dest, "event", e.id, "reason", reason)
		}
		s.cfg.Count.Count("matrix_sent", "event", outcome)
		if err := s.report(ctx, p.dest, e, stage, reason); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(p, t)
	if p.limit *= 2; p.limit >= MaxPDUs {
		p.limit = 0
	}
	p.outage, p.until = outage{}, time.Time{}
	if p.behind && !p.more {
		p.behind = false
		s.news.silent[p.route] = nil
		s.stir()
	}
	return nil
}

// settle notes that a transaction need not go out again. Call it with mu held.
func (s *Sender) settle(p *peer, t *transaction) {
	p.last = nil
	for _, e := range t.events {
		s.news.acks[ackKey{p.route, e.conv}] = e.feed
		s.news.touched[e.conv] = true
	}
	if n := len(t.singles); n > 0 {
		p.singlesDone = t.singles[n-1].row
		s.news.singles[p.route] = p.singlesDone
	}
	if n := len(t.edus); n > 0 {
		p.edusDone = t.edus[n-1].row
		s.news.edus[p.route] = p.edusDone
	}
	if t.size() > len(t.said) {
		s.stir()
	}
}

// failed notes that a transaction was not taken, and when it is tried again.
func (s *Sender) failed(ctx context.Context, p *peer, t *transaction, err error) error {
	s.cfg.Log.Debug("a transaction was not taken", "dest", p.dest, "err", err)
	now := time.Now()
	s.mu.Lock()
	untried, isUntried := errors.AsType[*federation.BackoffError](err)
	refusal, isRefusal := errors.AsType[*federation.Error](err)
	outcome := "failed"
	if p.behind = true; p.outage.since.IsZero() {
		p.outage.since = now
	}
	s.takeBack(p, t, !isRefusal || !final(refusal.Status))
	switch {
	case isUntried:
		outcome = "untried"
		p.until = untried.Until
	case isRefusal && final(refusal.Status) && s.shrink(p, t):
		outcome = "refused"
		s.mu.Unlock()
		s.cfg.Count.Count("matrix_transactions", outcome)
		return s.refused(ctx, p, t, refusal)
	default:
		p.outage.tries++
		p.outage.last = now
		p.until = now.Add(s.backoff(p.outage.tries))
		if isRefusal {
			p.until = later(p.until, now.Add(min(refusal.RetryAfter, s.cfg.MaxRetry)))
		}
	}
	p.outage.next = p.until
	owed := p.owed()
	switch {
	case owed:
		o := p.outage
		s.news.silent[p.route] = &o
		s.stir()
	case p.outage.tries >= patience:
		for len(p.order) > 0 {
			s.unsay(p, p.order[0])
			s.cfg.Count.Count("matrix_sent", "said", "dropped")
		}
	}
	gone := owed && now.Sub(p.outage.since) >= s.cfg.Hub.Config().GiveUp
	s.mu.Unlock()
	s.cfg.Count.Count("matrix_transactions", outcome)
	if gone {
		return s.giveUp(ctx, p)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// takeBack keeps of a transaction that was not taken what is owed, and (again)
// puts back what was said, if nothing newer was.
func (s *Sender) takeBack(p *peer, t *transaction, again bool) {
	for _, e := range t.said {
		if !again || !s.say(p, e.key, e.EDU, false) {
			s.cfg.Count.Count("matrix_sent", "said", "dropped")
		}
	}
	if t.said, t.pdus = nil, []signed{}; t.size() == 0 {
		p.last = nil
	}
}

// final says whether an answer is about what was sent, and not about how the
// server is at the moment or what it thinks of us.
func final(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

// shrink halves the transactions after one that was refused as a whole, so that
// one thing that a server cannot bear does not hold up all others. It is true
// where the transaction was of one thing.
func (s *Sender) shrink(p *peer, t *transaction) bool {
	n := t.size()
	if n == 1 && p.limit == 1 {
		return true
	}
	p.limit = max(n/2, 1)
	p.behindAgain()
	return false
}

// behindAgain has everything that is owed read from the store.
func (p *peer) behindAgain() {
	p.last, p.queue = nil, nil
	p.more, p.singles, p.edus = true, true, true
}

// refused gives up one thing that a server refuses to take.
func (s *Sender) refused(ctx context.Context, p *peer, t *transaction, why *federation.Error) error {
	var ids []string
	for _, e := range t.events {
		ids = append(ids, e.id)
	}
	for _, e := range t.singles {
		ids = append(ids, e.id)
	}
	found, err := s.pdus(ctx, ids)
	if err != nil {
		return err
	}
	for _, e := range found {
		s.cfg.Count.Count("matrix_sent", "event", "refused")
		if err := s.report(ctx, p.dest, e, core.StageFailed, shorten(why.Error())); err != nil {
			return err
		}
	}
	s.cfg.Log.Info("a Matrix server refuses a transaction", "dest", p.dest, "events", ids, "edus", len(t.edus), "err", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(p, t)
	p.until = time.Time{}
	return nil
}

const maxReason = 200 // runes

// shorten makes a reason of another server's fit to be shown.
func shorten(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, reason)
	if rs := []rune(reason); len(rs) > maxReason {
		reason = string(rs[:maxReason]) + "…"
	}
	if reason = strings.TrimSpace(reason); reason == "" {
		reason = "refused"
	}
	return reason
}

// report tells the hub what became of an event at a server. In a conversation
// of two the sender hears of everything, elsewhere of failures, and once.
func (s *Sender) report(ctx context.Context, dest string, e signed, stage core.Stage, reason string) error {
	if !s.ours(domainOf(e.sender)) || e.state && stage == core.StageThere {
		return nil
	}
	to, err := s.addressees(ctx, dest, e.conv)
	if err != nil || len(to) == 0 {
		return err
	}
	if to[0].Name == "" {
		if stage != core.StageFailed {
			return nil
		}
		s.reports.Lock()
		defer s.reports.Unlock()
	}
	var known []hub.Report
	if err := s.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		known, err = v.ReportsOn(e.core)
		return err
	}); err != nil {
		return err
	}
	for _, a := range to {
		if slices.ContainsFunc(known, func(r hub.Report) bool { return superfluous(r, a, stage) }) {
			continue
		}
		err := s.cfg.Hub.Report(ctx, hub.Report{Event: e.core, To: a, Stage: stage, Reason: reason})
		if err != nil && hub.CodeOf(err) == "" {
			return err
		}
	}
	return nil
}

// addressees are about whom a sender hears: the people at a server with whom she
// talks, or of a room the server itself.
func (s *Sender) addressees(ctx context.Context, dest string, conv core.ConvID) (to []core.Address, err error) {
	err = s.cfg.Hub.Read(ctx, func(v hub.View) error {
		c, err := v.Conversation(conv)
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Shape != core.Direct {
			to = []core.Address{{Network: core.Matrix, Domain: dest}}
			return nil
		}
		state, err := v.State(conv)
		if err != nil {
			return err
		}
		for a := range state.Members {
			if a.Network == core.Matrix && a.Domain == dest {
				to = append(to, a)
			}
		}
		return nil
	})
	return to, err
}

// superfluous says whether a report says what the sender knows: of one person
// that she has it, or of a room that some server has not.
func superfluous(known hub.Report, to core.Address, stage core.Stage) bool {
	if to.Name == "" {
		return known.To.Network == core.Matrix && known.To.Name == "" && known.Stage == core.StageFailed
	}
	return known.To == to && (known.Stage == stage || known.Stage == core.StageDelivered || known.Stage == core.StageDisplayed)
}

// perPass is how many events are given up in one turn.
const perPass = 200

// giveUp tells the senders of what a server has not taken for too long. The
// newest events stay owed, so that a server that comes back hears of the room.
//
// In a room with a server that is gone for good not everything that is said is
// reported for ever, but only what was said before it was given up.
func (s *Sender) giveUp(ctx context.Context, p *peer) error {
	patience := s.cfg.Hub.Config().GiveUp
	cutoff := time.Now().Add(-patience)
	reason := "gave up after " + patience.String() + ": the other server could not be reached"
	s.mu.Lock()
	p.behindAgain()
	begin := p.outage.since
	s.mu.Unlock()
	if err := s.flush(ctx, false); err != nil {
		return err
	}
	for {
		var late []*event
		err := s.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
			late, err = readOwed(hubstore.Querier(v), ` AND e.since < $3 AND (a.told IS NULL OR e.feed > a.told) ORDER BY e.feed LIMIT $4`,
				p.dest, p.origin, cutoff.UnixMilli(), int64(perPass))
			return err
		})
		if err != nil {
			return err
		}
		if len(late) == 0 {
			break
		}
		if err := s.tellLate(ctx, p, late, begin.Add(patience), reason); err != nil {
			return err
		}
	}
	return s.giveUpOthers(ctx, p, cutoff, reason)
}

// giveUpOthers gives up what is owed to one server alone: events like all
// others, ephemeral data much later.
func (s *Sender) giveUpOthers(ctx context.Context, p *peer, cutoff time.Time, reason string) error {
	var lost []single
	if err := s.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		lost, err = p.readSingles(hubstore.Querier(v), perPass)
		return err
	}); err != nil {
		return err
	}
	lost = slices.DeleteFunc(lost, func(o single) bool { return o.since.After(cutoff) })
	for _, o := range lost {
		if err := s.reportLate(ctx, p, o.id, reason, true); err != nil {
			return err
		}
	}
	return s.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		for _, o := range lost {
			if err := exec(`DELETE FROM sending_singles WHERE id = $1`, o.row)(hubstore.Tx(tx)); err != nil {
				return err
			}
		}
		return exec(`DELETE FROM sending_edus WHERE dest = $1 AND origin = $2 AND since < $3`,
			p.dest, p.origin, time.Now().Add(-s.cfg.KeepEDUs).UnixMilli())(hubstore.Tx(tx))
	})
}

// tellLate reports events and writes down that it has.
func (s *Sender) tellLate(ctx context.Context, p *peer, late []*event, given time.Time, reason string) error {
	told := map[core.ConvID]core.Feed{}
	for _, e := range late {
		if err := s.reportLate(ctx, p, e.id, reason, e.since.Before(given)); err != nil {
			return err
		}
		told[e.conv] = e.feed
	}
	return s.cfg.Hub.Write(ctx, func(tx hub.Tx) error {
		for conv, feed := range told {
			if err := exec(`INSERT INTO sending_acks (dest, origin, conv, acked, told) VALUES ($1, $2, $3, 0, $4)
				ON CONFLICT (dest, origin, conv) DO UPDATE SET told = excluded.told`, p.dest, p.origin, string(conv), int64(feed))(hubstore.Tx(tx)); err != nil {
				return err
			}
			if err := s.prune(tx, conv); err != nil {
				return err
			}
		}
		return nil
	})
}

// reportLate reports that an event did not arrive; one of a room only if rooms
// is set.
func (s *Sender) reportLate(ctx context.Context, p *peer, id, reason string, rooms bool) error {
	found, err := s.pdus(ctx, []string{id})
	if err != nil || len(found) == 0 {
		return err
	}
	s.cfg.Count.Count("matrix_sent", "event", "late")
	if !rooms {
		to, err := s.addressees(ctx, p.dest, found[0].conv)
		if err != nil || len(to) == 0 || to[0].Name == "" {
			return err
		}
	}
	return s.report(ctx, p.dest, found[0], core.StageFailed, reason)
}
