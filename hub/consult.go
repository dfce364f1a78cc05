package hub

import (
	"context"
	"errors"

	"parley/core"
)

// Consult is the error of a [Judge] that has to ask somebody on the network
// first, which is done outside of the turn. When Ask has returned nil, the turn
// is run again; its error is that of the command.
type Consult struct {
	Ask func(ctx context.Context) error
}

func (*Consult) Error() string { return "others have to be asked first" }

// maxConsults is how often one turn asks.
const maxConsults = 50

// consulting runs a turn, and again when somebody was asked.
func consulting(ctx context.Context, turn func() error) error {
	for range maxConsults {
		err := turn()
		c, ok := errors.AsType[*Consult](err)
		if !ok {
			return err
		}
		if err := c.Ask(ctx); err != nil {
			return err
		}
	}
	return Refuse(TooMany, "this is too much at once to ask others about")
}

// Settler is a [Judge] that may have to correct the state once an event that it
// has judged is kept.
type Settler interface {
	Settle(g *GraphTurn, conv core.ConvID) error
}

// settle lets the judge do so.
func (t *turn) settle(c *core.Conversation) error {
	if s, ok := t.h.judges[c.Authority].(Settler); ok {
		return s.Settle(&GraphTurn{t}, c.ID)
	}
	return nil
}
