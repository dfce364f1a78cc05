package interop

import (
	"context"
	"fmt"
	"strings"
)

// upgrade has A, at a Matrix client, put another version of the room in the place of the
// first. B is told, goes there, and the two talk.
func upgrade(ctx context.Context, s *Session) (Outcome, error) {
	outside := s.room
	defer func() { s.room = outside }()
	old, err := s.newRoom(ctx, "annex", Args{"public": true})
	if err != nil {
		return Outcome{}, err
	}
	s.room = old
	if err := s.join(ctx, s.B, old, old); err != nil {
		return Outcome{}, err
	}
	watchA, watchB := s.A.Watch(), s.B.Watch()
	made, err := s.A.Do(ctx, "upgrade_room", Args{"room": old, "version": s.World.roomVersion()})
	if err != nil {
		return Outcome{}, err
	}
	s.room = RoomAddress{Local: old.Local + "-upgraded", Domain: old.Domain, Service: old.Service}
	s.A.enter(s.room, made.Room)
	moved, err := watchB.For(ctx, "that the room goes on elsewhere", func(e *Event) bool {
		return e.Event == "moved" && e.Room == old.Local
	})
	if err != nil {
		return Outcome{}, err
	}
	if moved.Into == "" {
		return Outcome{}, fmt.Errorf("%s was not told where the room goes on: %s", s.B.Driver.Name, moved.raw)
	}
	args := Args{"room": moved.Into}
	if strings.HasPrefix(moved.Into, "!") { // which does not say where the room is
		args["via"] = []string{old.Domain}
	}
	joined, err := s.B.Do(ctx, "join", args)
	if err != nil {
		return Outcome{}, fmt.Errorf("following: %w", err)
	}
	s.B.enter(s.room, joined.Room)
	if err := memberChange(ctx, watchA, s.room, s.B, "join"); err != nil {
		return Outcome{}, err
	}
	for _, from := range []*Client{s.A, s.B} {
		if _, _, err := (place{s, true}).say(ctx, from, s.other(from), nil); err != nil {
			return Outcome{}, fmt.Errorf("in the new room: %w", err)
		}
	}
	return works()
}

// threeNetworks has somebody on Prosody come into the session's room, which is on Parley.
// What each of the three says the others hear from her, and each finds all three among the
// members.
func threeNetworks(ctx context.Context, s *Session) (Outcome, error) {
	driver, err := DriverByName("slixmpp")
	if err != nil {
		return Outcome{}, err
	}
	name, err := s.World.NewAccount(ctx, s.World.Prosody, "carol")
	if err != nil {
		return Outcome{}, err
	}
	carol, err := s.World.Login(ctx, driver, s.World.Prosody, name)
	if err != nil {
		return Outcome{}, err
	}
	defer carol.Close()
	three := []*Client{s.A, s.B, carol}
	watches := []*Watch{s.A.Watch(), s.B.Watch()}
	joined, err := carol.Do(ctx, "join", Args{"room": s.room})
	if err != nil {
		return Outcome{}, err
	}
	carol.enter(s.room, joined.Room)
	for _, watch := range watches {
		if err := memberChange(ctx, watch, s.room, carol, "join"); err != nil {
			return Outcome{}, err
		}
	}
	for _, from := range three {
		if err := s.sayToAll(ctx, from, three); err != nil {
			return Outcome{}, err
		}
	}
	for _, c := range three {
		if err := s.findsAll(ctx, c, three); err != nil {
			return Outcome{}, err
		}
	}
	return works()
}

// sayToAll has one say something in the room and waits until all others have heard it from her.
func (s *Session) sayToAll(ctx context.Context, from *Client, all []*Client) error {
	body := "Hello all " + token()
	watches := make(map[*Client]*Watch)
	for _, c := range all {
		if c != from {
			watches[c] = c.Watch()
		}
	}
	if _, err := from.Do(ctx, "send", Args{"room": s.room, "body": body}); err != nil {
		return err
	}
	for c, watch := range watches {
		seen, err := watch.For(ctx, "what "+from.String()+" said", func(e *Event) bool {
			return e.Event == "message" && e.Body == body
		})
		if err != nil {
			return err
		}
		if seen.Room != s.room.Local || !s.names(seen.From, seen.Nick, from) {
			return fmt.Errorf("%s saw it elsewhere or from another than %s: %s", c, from, seen.raw)
		}
	}
	return nil
}

// findsAll says whether a client has all among the room's members.
func (s *Session) findsAll(ctx context.Context, c *Client, all []*Client) error {
	found, err := c.Do(ctx, "members", Args{"room": s.room})
	if err != nil {
		return err
	}
	for _, member := range all {
		has := false
		for i := range found.Members {
			has = has || s.names(found.Members[i].User, found.Members[i].Nick, member)
		}
		if !has {
			return fmt.Errorf("%s does not find %s among the %d members of the room", c, member, len(found.Members))
		}
	}
	return nil
}
