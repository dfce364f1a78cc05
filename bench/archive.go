package bench

import (
	"context"
	"errors"
	"fmt"
	"parley/bench/meter"
	"strconv"
	"strings"
	"time"
)

// fill is how many messages are under way while an archive is filled.
const fill = 50

// fillTimeout bounds the filling of an archive: the more a conversation has in it, the
// longer takes another message where an archive is kept in Mnesia.
const fillTimeout = 2 * time.Minute

// pageSize is how many messages a page has.
const pageSize = 50

// pagingTimeout bounds the reading of an archive; what was read by then counts.
const pagingTimeout = time.Minute

// Paging is how fast an archive is read.
type Paging struct {
	meter.Usage
	Messages, Pages int
	Filled          int // messages that the archive was filled with
}

// Rate is pages per second.
func (p *Paging) Rate() float64 { return float64(p.Pages) / p.Time.Seconds() }

// PerPage is the server's processor time for a page.
func (p *Paging) PerPage() time.Duration { return p.CPU / time.Duration(max(p.Pages, 1)) }

// Archive fills the archive of an account and reads it from its beginning to its end, a
// page after the other.
func (s *Site) Archive(ctx context.Context, size Size) (*Paging, error) {
	if err := s.need(ctx, size.Sessions+2); err != nil {
		return nil, err
	}
	p, err := s.pair(ctx, size.Sessions, size.Sessions+1) // who took no part in the chats
	if err != nil {
		return nil, err
	}
	defer p.close()
	for limit := time.Now().Add(fillTimeout); p.next < size.Archive && time.Now().Before(limit); {
		if err := p.send(fill); err != nil {
			return nil, err
		}
		for range fill {
			if _, err := p.arrival(ctx); err != nil {
				return nil, err
			}
		}
	}
	r := &Paging{Filled: p.next}
	r.Usage, err = meter.Watch(ctx, s.PID(), func() error { return p.readAll(ctx, r) })
	if err == nil && r.Messages == 0 {
		err = errors.New("bench: the archive is empty")
	}
	return r, err
}

// readAll pages through the archive of the one who is written to.
//
// spec: XEP-0313 §4.1
func (p *pair) readAll(ctx context.Context, r *Paging) error {
	limit := time.Now().Add(pagingTimeout)
	after := ""
	for time.Now().Before(limit) {
		id := "page" + strconv.Itoa(r.Pages)
		err := p.to.Send("<iq type='set' id='" + id + "'><query xmlns='urn:xmpp:mam:2' queryid='" + id +
			"'><set xmlns='http://jabber.org/protocol/rsm'><max>" + strconv.Itoa(pageSize) + "</max>" + after + "</set></query></iq>")
		if err != nil {
			return err
		}
		answer, err := p.answer(ctx, id)
		if err != nil {
			return err
		}
		r.Pages++
		r.Messages += p.listed // written before the answer was handed over
		p.listed = 0
		last := between([]byte(answer), "<last>", "</last>")
		if strings.Contains(answer, "complete='true'") || strings.Contains(answer, `complete="true"`) || len(last) == 0 {
			return nil
		}
		after = "<after>" + string(last) + "</after>"
	}
	return nil
}

// answer waits for the answer to a request of the one who is written to.
func (p *pair) answer(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for {
		select {
		case st := <-p.queries:
			if string(attr([]byte(st), "id")) != id {
				continue
			}
			if string(attr([]byte(st), "type")) != "result" {
				return "", fmt.Errorf("bench: the archive answers %.300s", st)
			}
			return st, nil
		case <-p.to.done:
			return "", p.to.failed()
		case <-ctx.Done():
			return "", fmt.Errorf("bench: no answer from the archive: %w", ctx.Err())
		}
	}
}
