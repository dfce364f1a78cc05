// Package contain keeps a mistake of ours where it was made: a panic while one stanza, one request or one delivery is dealt with ends
// that, not the server.
//
// It belongs where one piece of work begins, below which nothing is locked or half done that outlives it: locks are given back by
// defer, and what is on disk changes in turns, which the store rolls back by itself.
package contain

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"parley/store"
)

// Panic is the error that was made of a panic.
type Panic struct {
	// Value is what panic was called with. It may hold what a user said, and is for the log.
	Value any
}

func (*Panic) Error() string { return "internal error" }

// Counter counts for the operator: [parley/hub.Counter].
type Counter interface {
	Count(name string, labels ...string)
}

// Keeper contains the panics of one part of the server.
type Keeper struct {
	// Where is the part's name in the log and the metrics.
	Where string
	Log   *slog.Logger
	// Count gets "panics" with Where; it may be nil.
	Count Counter
}

// Do runs f and returns its error. A panic becomes a *[Panic], is logged with its stack, and counted; one within a turn of the store,
// which has logged it and returns it as an error, is counted too.
func (k Keeper) Do(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			k.Log.Error("panic", "where", k.Where, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			k.count()
			err = &Panic{Value: v}
		}
	}()
	err = f()
	if _, ok := errors.AsType[*store.PanicError](err); ok {
		k.count()
	}
	return err
}

func (k Keeper) count() {
	if k.Count != nil {
		k.Count.Count("panics", k.Where)
	}
}

// Contained says whether an error is a panic that was caught, here or in the store.
func Contained(err error) bool {
	_, here := errors.AsType[*Panic](err)
	_, turn := errors.AsType[*store.PanicError](err)
	return here || turn
}
