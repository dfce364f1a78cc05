package interop

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// Result is what came of a feature.
type Result string

// Results from best to worst.
const (
	Works    Result = "works"
	Fallback Result = "fallback"
	No       Result = "no"
)

// Outcome is a feature's result, with what the fallback was or why it does not work.
type Outcome struct {
	Result Result `json:"result"`
	Note   string `json:"note,omitempty"`
}

func works() (Outcome, error) { return Outcome{Result: Works}, nil }

func fallback(format string, args ...any) (Outcome, error) {
	return Outcome{Fallback, fmt.Sprintf(format, args...)}, nil
}

// Seat is one side of a session: a client on its server.
type Seat struct {
	Driver *Driver
	Site   *Site
}

func (s Seat) String() string { return s.Driver.Name + "@" + s.Site.Name }

// Session runs the features for one ordered pair: what A does, B should see. Each has a
// fresh account. A room's host is the one of the two on Parley, A if both are; of a room abroad
// the other.
type Session struct {
	World *World
	SeatA Seat
	SeatB Seat

	A, B *Client
	room RoomAddress // once it is made
	// abroad says that the room is on the other server than Parley.
	abroad bool
	// made and met say what came of making the room and of becoming contacts: what the
	// features of rooms and of talks need first.
	made, met error
}

// Cell is one feature's outcome in one session.
type Cell struct {
	Feature string `json:"feature"`
	A       string `json:"a"` // client@server
	B       string `json:"b"`
	Outcome
}

// Run logs both in and runs the features that apply, in order. The error is of the
// session itself; what features do not work is in their cells.
func (s *Session) Run(ctx context.Context, features []*Feature, done func(Cell)) error {
	if err := s.login(ctx); err != nil {
		for _, f := range features {
			if f.applies(s) {
				done(s.cell(f, Outcome{No, err.Error()}))
			}
		}
		return nil
	}
	defer func() { s.A.Close(); s.B.Close() }()
	for _, f := range features {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.applies(s) {
			done(s.cell(f, s.try(ctx, f)))
		}
	}
	return nil
}

func (s *Session) login(ctx context.Context) (err error) {
	a, err := s.World.NewAccount(ctx, s.SeatA.Site, "alice")
	if err != nil {
		return err
	}
	b, err := s.World.NewAccount(ctx, s.SeatB.Site, "bob")
	if err != nil {
		return err
	}
	if s.A, err = s.World.Login(ctx, s.SeatA.Driver, s.SeatA.Site, a); err != nil {
		return err
	}
	if s.B, err = s.World.Login(ctx, s.SeatB.Driver, s.SeatB.Site, b); err != nil {
		s.A.Close()
		return err
	}
	return nil
}

func (s *Session) cell(f *Feature, o Outcome) Cell {
	return Cell{Feature: f.Name, A: s.SeatA.String(), B: s.SeatB.String(), Outcome: o}
}

func (s *Session) try(ctx context.Context, f *Feature) Outcome {
	var err error
	switch f.needs {
	case aContact:
		err = s.met
	case aRoom, aForeignRoom:
		err = s.made
	}
	if err != nil {
		return Outcome{No, err.Error()}
	}
	outcome, err := f.run(ctx, s)
	if err != nil {
		return Outcome{No, err.Error()}
	}
	return outcome
}

// place is where messages are exchanged: in a talk of the two or in the room.
type place struct {
	s      *Session
	inRoom bool
}

// args returns an op's arguments with the place, as c names it.
func (p place) args(c *Client, args Args) Args {
	if args == nil {
		args = make(Args)
	}
	if p.inRoom {
		args["room"] = p.s.room
	} else {
		args["to"] = p.s.other(c).Address
	}
	return args
}

// do does an op in the place.
func (p place) do(ctx context.Context, c *Client, op string, args Args) (Answer, error) {
	return c.Do(ctx, op, p.args(c, args))
}

// here says whether an event is of the place, said by c.
func (p place) here(e *Event, c *Client) bool {
	if p.inRoom {
		return e.Room == p.s.room.Local && p.s.names(e.From, e.Nick, c)
	}
	return e.Room == "" && e.From == c.Address.String()
}

// names says whether a client means c by what it calls a person in the room: by her address, as an
// occupant of a room that does not show it, or by her nick.
func (s *Session) names(address, nick string, c *Client) bool {
	if rest, ok := strings.CutPrefix(address, s.room.Local+"/"); ok {
		occupant, _ := strings.CutSuffix(rest, "@"+s.room.Service)
		return strings.Contains(occupant, c.Address.Local)
	}
	return address == c.Address.String() || address == "" && strings.Contains(nick, c.Address.Local)
}

func (s *Session) other(c *Client) *Client {
	if c.Address == s.A.Address {
		return s.B
	}
	return s.A
}

// host is the client whose server the session's room is on.
func (s *Session) host() *Client {
	aHosts := s.World.Parley == nil || s.SeatA.Site == s.World.Parley
	if aHosts != s.abroad {
		return s.A
	}
	return s.B
}

func (s *Session) site(c *Client) *Site {
	if c.Address == s.A.Address {
		return s.SeatA.Site
	}
	return s.SeatB.Site
}

// token returns a word that occurs nowhere else, to know a message by.
func token() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return "w" + hex.EncodeToString(b[:])
}
