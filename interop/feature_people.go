package interop

import (
	"context"
	"fmt"
	"strings"
)

// contacts has A ask B to be its contact, B approve, and both see that they are.
func contacts(ctx context.Context, s *Session) (Outcome, error) {
	if err := befriend(ctx, s.A, s.B); err != nil {
		s.met = fmt.Errorf("they are no contacts: %w", err)
		return Outcome{}, err
	}
	return works()
}

func befriend(ctx context.Context, a, b *Client) error {
	watchA, watchB := a.Watch(), b.Watch()
	if _, err := a.Do(ctx, "add_contact", Args{"user": b.Address}); err != nil {
		return err
	}
	if _, err := watchB.For(ctx, "a contact request", func(e *Event) bool {
		return e.Event == "contact_request" && e.From == a.Address.String()
	}); err != nil {
		return err
	}
	if _, err := b.Do(ctx, "approve_contact", Args{"user": a.Address}); err != nil {
		return err
	}
	for watch, other := range map[*Watch]*Client{watchA: b, watchB: a} {
		if _, err := watch.For(ctx, "a contact both ways", func(e *Event) bool {
			return e.Event == "contact" && e.State == "both" && e.User == other.Address.String()
		}); err != nil {
			return err
		}
	}
	return nil
}

func presence(ctx context.Context, s *Session) (Outcome, error) {
	status := "Having tea " + token()
	withoutStatus := false
	for _, show := range []string{"away", "online"} {
		watch := s.B.Watch()
		if _, err := s.A.Do(ctx, "presence", Args{"show": show, "status": status}); err != nil {
			return Outcome{}, err
		}
		seen, err := watch.For(ctx, "presence "+show, func(e *Event) bool {
			return e.Event == "presence" && e.From == s.A.Address.String() && e.Show == show
		})
		if err != nil {
			return Outcome{}, err
		}
		withoutStatus = withoutStatus || seen.Status != status
	}
	if withoutStatus {
		return fallback("without the words")
	}
	return works()
}

// secondDevice has A log in once more: the other device shows what A says on this one,
// and what B says.
func secondDevice(ctx context.Context, s *Session) (Outcome, error) {
	other, err := s.World.Login(ctx, s.SeatA.Driver, s.SeatA.Site, s.A.Address)
	if err != nil {
		return Outcome{}, err
	}
	defer other.Close()
	p := place{s, false}
	watch := other.Watch()
	for _, from := range []*Client{s.A, s.B} {
		said, _, err := p.say(ctx, from, s.other(from), nil)
		if err != nil {
			return Outcome{}, err
		}
		seen, err := watch.For(ctx, "on the second device what "+from.Driver.Name+" said", func(e *Event) bool {
			return e.Event == "message" && e.Body == said.body
		})
		if err != nil {
			return Outcome{}, err
		}
		if seen.Own != (from == s.A) {
			return Outcome{}, fmt.Errorf("the second device shows who said it wrongly: %s", seen.raw)
		}
	}
	return works()
}

// catchUp has B away while A writes, and find it when back on a new device.
func catchUp(ctx context.Context, s *Session) (Outcome, error) {
	s.B.Close()
	p := place{s, false}
	body := "While you were away " + token()
	if _, err := p.do(ctx, s.A, "send", Args{"body": body}); err != nil {
		return Outcome{}, err
	}
	b, err := s.World.Login(ctx, s.SeatB.Driver, s.SeatB.Site, s.B.Address)
	if err != nil {
		return Outcome{}, err
	}
	s.B = b
	found := func(e *Event) bool { return e.Event == "message" && strings.Contains(e.Body, body) }
	past, err := p.do(ctx, s.B, "history", Args{"limit": 20})
	if err != nil {
		return Outcome{}, err
	}
	for i := range past.Events {
		if found(&past.Events[i]) {
			return works()
		}
	}
	if _, err := (&Watch{client: b}).For(ctx, "what was said while it was away", found); err != nil {
		return Outcome{}, err
	}
	return works()
}

// blocking has B block A, and see what A says only after lifting the block. A friend of
// B's on A's server says something in between: when that has come, what A said before it
// would have come too, so no time needs to pass to know that it does not.
func blocking(ctx context.Context, s *Session) (Outcome, error) {
	name, err := s.World.NewAccount(ctx, s.SeatA.Site, "friend")
	if err != nil {
		return Outcome{}, err
	}
	friend, err := s.World.Login(ctx, s.SeatA.Driver, s.SeatA.Site, name)
	if err != nil {
		return Outcome{}, err
	}
	defer friend.Close()
	if err := befriend(ctx, friend, s.B); err != nil {
		return Outcome{}, fmt.Errorf("making another friend: %w", err)
	}
	watch := s.B.Watch()
	if _, err := s.B.Do(ctx, "block", Args{"user": s.A.Address}); err != nil {
		return Outcome{}, err
	}
	p := place{s, false}
	blocked, heard := "Blocked "+token(), "Not blocked "+token()
	_, _ = p.do(ctx, s.A, "send", Args{"body": blocked}) // that it is not heard, A may be told at once
	// What A's server answers after the message, it answers when the message is on its
	// way: the friend's cannot overtake it then.
	if _, err := p.do(ctx, s.A, "history", Args{"limit": 1}); err != nil {
		return Outcome{}, err
	}
	if _, err := friend.Do(ctx, "send", Args{"to": s.B.Address, "body": heard}); err != nil {
		return Outcome{}, err
	}
	if _, err := watch.For(ctx, "what the friend said", func(e *Event) bool { return e.Body == heard }); err != nil {
		return Outcome{}, err
	}
	if _, err := s.B.Do(ctx, "unblock", Args{"user": s.A.Address}); err != nil {
		return Outcome{}, err
	}
	if _, _, err := p.say(ctx, s.A, s.B, nil); err != nil {
		return Outcome{}, fmt.Errorf("after the block: %w", err)
	}
	if watch.Saw(func(e *Event) bool { return e.Event == "message" && e.Body == blocked }) {
		return Outcome{}, fmt.Errorf("%s saw the message of one whom it blocked", s.B.Driver.Name)
	}
	return works()
}
