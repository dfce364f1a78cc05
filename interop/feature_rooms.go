package interop

import (
	"context"
	"errors"
	"fmt"
)

// newRoom has the host make a room.
func (s *Session) newRoom(ctx context.Context, name string, args Args) (RoomAddress, error) {
	host := s.host()
	site := s.site(host)
	room := RoomAddress{Local: name + "-" + token(), Domain: site.Domain(), Service: site.Service}
	args["name"] = "The " + name
	if host.Driver.Network == Matrix {
		args["alias"] = room.Local
	} else {
		args["room"] = room
	}
	made, err := host.Do(ctx, "create_room", args)
	if err != nil {
		return room, err
	}
	host.enter(room, made.Room)
	return room, nil
}

// join has c join a room, under the name that it knows it by, and waits until the other
// sees that.
func (s *Session) join(ctx context.Context, c *Client, room RoomAddress, name any) error {
	watch := s.other(c).Watch()
	joined, err := c.Do(ctx, "join", Args{"room": name})
	if err != nil {
		return err
	}
	c.enter(room, joined.Room)
	return memberChange(ctx, watch, room, c, "join")
}

// memberChange waits until somebody is seen to come or go.
func memberChange(ctx context.Context, watch *Watch, room RoomAddress, who *Client, changes ...string) error {
	_, err := watch.For(ctx, fmt.Sprintf("%v of %s", changes, who.Address), func(e *Event) bool {
		if e.Event != "member" || e.Room != room.Local {
			return false
		}
		is := e.User == who.Address.String() || e.User == "" && e.Nick == who.Address.Local || room.holds(e.User, who)
		for _, change := range changes {
			if is && e.Change == change {
				return true
			}
		}
		return false
	})
	return err
}

// joinRoom makes the room that the room features are tested in.
func joinRoom(ctx context.Context, s *Session) (outcome Outcome, err error) {
	defer func() {
		if err != nil {
			s.made = fmt.Errorf("they are in no room together: %w", err)
		}
	}()
	if s.room, err = s.newRoom(ctx, "garden", Args{"public": true}); err != nil {
		return Outcome{}, err
	}
	if err := s.join(ctx, s.other(s.host()), s.room, s.room); err != nil {
		return Outcome{}, err
	}
	return works()
}

// holds says whether an address is that of an occupant of the room who is called as c is.
func (r RoomAddress) holds(address string, c *Client) bool {
	return address == r.Local+"/"+c.Address.Local+"@"+r.Service
}

// joinAbroad has the client on the other server make a room there, and the one on Parley join it. It
// is the session's room from now on.
func joinAbroad(ctx context.Context, s *Session) (Outcome, error) {
	s.abroad, s.made = true, nil
	return joinRoom(ctx, s)
}

func topic(ctx context.Context, s *Session) (Outcome, error) {
	topic := "Roses and " + token()
	watch := s.B.Watch()
	if _, err := s.A.Do(ctx, "set_topic", Args{"room": s.room, "topic": topic}); err != nil {
		return Outcome{}, err
	}
	_, err := watch.For(ctx, "the topic", func(e *Event) bool {
		return e.Event == "topic" && e.Room == s.room.Local && e.Topic == topic
	})
	if err != nil {
		return Outcome{}, err
	}
	return works()
}

// kick has A put B out, and B come back.
func kick(ctx context.Context, s *Session) (Outcome, error) {
	watch := s.B.Watch()
	args := Args{"room": s.room, "user": s.B.Address, "reason": "Mind the roses"}
	if _, err := s.A.Do(ctx, "kick", args); err != nil {
		return Outcome{}, err
	}
	if err := memberChange(ctx, watch, s.room, s.B, "kick"); err != nil {
		return Outcome{}, err
	}
	if err := s.join(ctx, s.B, s.room, s.publicName(s.B)); err != nil {
		return Outcome{}, fmt.Errorf("coming back: %w", err)
	}
	return works()
}

// ban has A ban B, B fail to come back, and come back when the ban is lifted.
func ban(ctx context.Context, s *Session) (Outcome, error) {
	watch := s.B.Watch()
	if _, err := s.A.Do(ctx, "ban", Args{"room": s.room, "user": s.B.Address, "reason": "The roses!"}); err != nil {
		return Outcome{}, err
	}
	if err := memberChange(ctx, watch, s.room, s.B, "ban"); err != nil {
		return Outcome{}, err
	}
	switch _, err := s.B.Do(ctx, "join", Args{"room": s.publicName(s.B)}); {
	case err == nil:
		return Outcome{}, fmt.Errorf("%s could join a room that it is banned from", s.B.Driver.Name)
	case errors.Is(err, context.DeadlineExceeded):
		return Outcome{}, fmt.Errorf("%s was not told that it may not join: %w", s.B.Driver.Name, err)
	}
	if _, err := s.A.Do(ctx, "unban", Args{"room": s.room, "user": s.B.Address}); err != nil {
		return Outcome{}, err
	}
	if err := s.join(ctx, s.B, s.room, s.publicName(s.B)); err != nil {
		return Outcome{}, fmt.Errorf("coming back: %w", err)
	}
	return works()
}

// publicName is the room's address, spelled: by which it is joined, not known from inside.
func (s *Session) publicName(c *Client) string {
	return s.room.Spell(c.Driver.Network, c.Address.Domain)
}

func leave(ctx context.Context, s *Session) (Outcome, error) {
	watch := s.B.Watch()
	if _, err := s.A.Do(ctx, "leave", Args{"room": s.room}); err != nil {
		return Outcome{}, err
	}
	if err := memberChange(ctx, watch, s.room, s.A, "leave"); err != nil {
		return Outcome{}, err
	}
	return works()
}

// invitation has A make a room that only the invited may join, and invite B.
func invitation(ctx context.Context, s *Session) (Outcome, error) {
	room, err := s.newRoom(ctx, "shed", Args{"public": false})
	if err != nil {
		return Outcome{}, err
	}
	watch := s.B.Watch()
	if _, err := s.A.Do(ctx, "invite", Args{"room": room, "user": s.B.Address}); err != nil {
		return Outcome{}, err
	}
	invited, err := watch.For(ctx, "the invitation", func(e *Event) bool {
		by := e.From == s.A.Address.String() || e.From == "" && e.Nick == s.A.Address.Local || room.holds(e.From, s.A)
		return e.Event == "invite" && by
	})
	if err != nil {
		return Outcome{}, err
	}
	if err := s.join(ctx, s.B, room, invited.Room); err != nil {
		return Outcome{}, err
	}
	return works()
}

// encrypted has two Matrix clients talk in a room that the server cannot read.
func encrypted(ctx context.Context, s *Session) (Outcome, error) {
	outside := s.room
	defer func() { s.room = outside }()
	room, err := s.newRoom(ctx, "cellar", Args{"public": true, "encrypted": true})
	if err != nil {
		return Outcome{}, err
	}
	s.room = room
	if err := s.join(ctx, s.other(s.host()), room, room); err != nil {
		return Outcome{}, err
	}
	for _, from := range []*Client{s.A, s.B} {
		_, seen, err := place{s, true}.say(ctx, from, s.other(from), nil)
		if err != nil {
			return Outcome{}, err
		}
		if !seen.Encrypted {
			return Outcome{}, fmt.Errorf("%s saw it, but not encrypted", s.other(from).Driver.Name)
		}
	}
	return works()
}
