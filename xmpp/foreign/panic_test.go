package foreign

import (
	"context"
	"log/slog"
	"testing"

	"parley/internal/contain"
)

// A panic in one piece of work is the error of that piece; the occupancy goes on.
func TestPanic(t *testing.T) {
	s := &Service{Config: Config{Log: slog.New(slog.DiscardHandler)}}
	o := &occupancy{s: s, work: make(chan func(), 1), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	s.wg.Add(1)
	go o.run(ctx)
	if err := o.do(t.Context(), func(func(error)) { panic("a mistake") }); !contain.Contained(err) {
		t.Errorf("got %v", err)
	}
	o.later(func() { panic("another mistake") })
	if err := o.do(t.Context(), func(then func(error)) { then(nil) }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	cancel()
	s.wg.Wait()
}
