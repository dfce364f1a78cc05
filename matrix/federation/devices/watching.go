package devices

import (
	"sync"

	"parley/core"
)

// watching knows whose lists are being asked for at the moment, so that what is
// learnt of one in the meantime makes the answer one that may be out of date.
type watching struct {
	mu sync.Mutex
	of map[core.Address]map[*watch]bool
}

// watch is one such question.
type watch struct {
	in      *watching
	touched map[core.Address]bool
}

// begin watches over users until [watch.end].
func (w *watching) begin(users ...core.Address) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[core.Address]map[*watch]bool{}
	}
	q := &watch{in: w, touched: map[core.Address]bool{}}
	for _, who := range users {
		q.touched[who] = false
		if w.of[who] == nil {
			w.of[who] = map[*watch]bool{}
		}
		w.of[who][q] = true
	}
	return q
}

func (q *watch) end() {
	q.in.mu.Lock()
	defer q.in.mu.Unlock()
	for who := range q.touched {
		delete(q.in.of[who], q)
		if len(q.in.of[who]) == 0 {
			delete(q.in.of, who)
		}
	}
}

// was reports whether anything was learnt of a user since the question began.
func (q *watch) was(who core.Address) bool {
	q.in.mu.Lock()
	defer q.in.mu.Unlock()
	return q.touched[who]
}

// touch notes that something was learnt of a user, and reports whether she is
// being asked for. Call it before the turn in which that is kept.
func (w *watching) touch(who core.Address) (asked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for q := range w.of[who] {
		q.touched[who] = true
	}
	return len(w.of[who]) > 0
}

// touchAll is touch for everybody.
func (w *watching) touchAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for who, all := range w.of {
		for q := range all {
			q.touched[who] = true
		}
	}
}
