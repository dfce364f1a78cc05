package hub

import (
	"context"

	"parley/core"
)

// ReadingRequest says how far somebody has received or read.
type ReadingRequest struct {
	Conv    core.ConvID
	Who     core.Address
	Event   core.EventID
	Thread  string // as in [core.Receipt]
	Private bool
	From    string
	With    func(tx Tx) error
}

// MarkDisplayed moves a member's displayed position up to an event. It never
// moves back: an older one changes nothing and is no error.
func (h *Hub) MarkDisplayed(ctx context.Context, r ReadingRequest) error {
	return h.mark(ctx, r, core.StageDisplayed)
}

// MarkDelivered says that everything up to an event is on one of a member's
// devices. It is kept for directs only: elsewhere nobody asks.
func (h *Hub) MarkDelivered(ctx context.Context, r ReadingRequest) error {
	return h.mark(ctx, r, core.StageDelivered)
}

func (h *Hub) mark(ctx context.Context, r ReadingRequest, stage core.Stage) error {
	return h.turn(ctx, func(t *turn) error {
		if r.With != nil {
			if err := r.With(t.tx); err != nil {
				return err
			}
		}
		p, err := t.place(r.Conv)
		if err != nil {
			return err
		}
		if !t.h.hears(p.c, p.s.Members[r.Who]) {
			return Refuse(NotMember, "you are not in this room")
		}
		e, err := t.tx.Event(r.Event)
		if err != nil {
			return refuseNone(err, "there is no such message")
		}
		if e.Conv != r.Conv {
			return Refuse(NotFound, "that message is in another conversation")
		}
		if stage == core.StageDelivered && p.c.Shape != core.Direct {
			return nil
		}
		for _, private := range []bool{false, true} {
			old, found, err := none(t.tx.Reading(r.Conv, r.Who, stage, r.Thread, private))
			if err != nil {
				return err
			}
			if found && old.At >= e.Position && (private == r.Private || !private) {
				return nil
			}
		}
		reading := Reading{
			Conv: r.Conv, Who: r.Who, Stage: stage, Thread: r.Thread, Private: r.Private,
			Event: e.ID, At: e.Position, Time: t.now, Feed: t.tx.NextFeed(),
		}
		if err := t.tx.PutReading(reading); err != nil {
			return err
		}
		return t.tellReading(p, reading, &e, r.From)
	})
}

// tellReading tells the account's own sessions, and for a public one the
// other members; the author of the message also on another network.
func (t *turn) tellReading(p place, r Reading, e *core.Event, from string) error {
	if t.h.ours(r.Who) {
		t.tell(ReadingNews{r, true, from}, r.Who)
	}
	if r.Private {
		return nil
	}
	for _, m := range p.s.Members {
		if m.Address == r.Who || !t.h.hears(p.c, m) {
			continue
		}
		if t.h.ours(m.Address) {
			t.tell(ReadingNews{r, false, from}, m.Address)
		}
	}
	if p.c.Shape != core.Direct {
		t.whisperReading(p, r)
		return nil
	}
	author := e.Sender
	if author.IsLocal() || author == r.Who || t.h.carriers[author.Network] == nil {
		return nil
	}
	blocked, err := t.h.blocks.has(t.tx, r.Who, author)
	if err != nil || blocked {
		return err
	}
	return t.parcel(Parcel{
		Network: author.Network, Dest: author.Domain, To: []core.Address{author}, From: r.Who, Conv: r.Conv, Event: e.ID,
		Receipt: &core.Receipt{Target: e.ID, Stage: r.Stage, Thread: r.Thread},
	})
}

// whisperReading tells the members of a room who live elsewhere what has been
// displayed, as far as anybody is there to hear of it.
func (t *turn) whisperReading(p place, r Reading) {
	if r.Stage != core.StageDisplayed {
		return
	}
	whisper := func(to core.Address) {
		if c := t.h.carriers[to.Network]; c != nil {
			t.after = append(t.after, func() {
				c.Whisper(Whisper{From: r.Who, To: to, Conv: r.Conv, Displayed: r.Event, Thread: r.Thread})
			})
		}
	}
	if p.c.Authority == core.Elsewhere {
		if t.h.ours(r.Who) {
			whisper(p.c.Address)
		}
		return
	}
	for _, m := range p.s.Members {
		if m.Standing == core.Joined && m.Address != r.Who {
			whisper(m.Address)
		}
	}
}

// Report records what became of a message for one addressee and tells the
// sender: an error that came back, a loss on the way.
func (h *Hub) Report(ctx context.Context, r Report) error {
	var inform func()
	err := h.turn(ctx, func(t *turn) (err error) {
		inform, err = t.report(r)
		return err
	})
	if err == nil && inform != nil {
		inform()
	}
	return err
}

// report returns what is to be done, once the turn is over, to inform a sender
// whose client has no error of its own for a late failure.
func (t *turn) report(r Report) (inform func(), err error) {
	e, err := t.tx.Event(r.Event)
	if err != nil {
		return nil, refuseNone(err, "there is no such message")
	}
	for _, l := range r.Losses {
		t.h.count.Count("losses", string(l.Feature), string(r.To.Network))
	}
	t.h.count.Count("reports", string(r.Stage), string(r.To.Network))
	r.Feed = t.tx.NextFeed()
	if err := t.tx.PutReport(r); err != nil {
		return nil, err
	}
	if !t.h.ours(e.Sender) {
		return nil, nil
	}
	n := ReportNews{r, e}
	t.tell(n, e.Sender)
	if r.Stage != core.StageFailed || e.Native == nil {
		return nil, nil
	}
	i := t.h.informers[e.Native.Network]
	if i == nil {
		return nil, nil
	}
	return func() {
		ctx, cancel := timeoutContext()
		defer cancel()
		i.Inform(ctx, n)
	}, nil
}
