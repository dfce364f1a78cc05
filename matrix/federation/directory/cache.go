package directory

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"parley/matrix/client"
)

// maxAsking is how many questions of a kind are under way at a time.
const maxAsking = 32

// cache remembers answers for a short while, errors too, and has one question
// asked where several would be.
type cache[V any] struct {
	d           *Directory
	most, bytes int
	flights     singleflight.Group
	slots       chan struct{}

	mu   sync.Mutex
	m    map[string]entry[V]
	held int // bytes
}

// entry is an answer, or why there is none.
type entry[V any] struct {
	value V
	err   error
	size  int // bytes
	until time.Time
}

func newCache[V any](d *Directory, most, bytes int) *cache[V] {
	return &cache[V]{d: d, most: most, bytes: bytes, slots: make(chan struct{}, maxAsking), m: map[string]entry[V]{}}
}

// get returns what is remembered, or asks. fresh, if it is not nil, is called
// before and may refuse that. find returns the value, its size in bytes, and for
// how long it is good.
func (c *cache[V]) get(ctx context.Context, key string, fresh func() error, find func(context.Context) (V, int, time.Duration, error)) (V, error) {
	if e, ok := c.look(key); ok {
		return e.value, e.err
	}
	var none V
	if fresh != nil {
		if err := fresh(); err != nil {
			return none, err
		}
	}
	done := c.flights.DoChan(key, func() (any, error) {
		e, ok := c.look(key)
		if !ok { // else another flight has just landed
			e = c.find(key, find)
		}
		return e, nil
	})
	select {
	case res := <-done:
		e := res.Val.(entry[V])
		return e.value, e.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (c *cache[V]) look(key string) (entry[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[key]
	return e, ok && c.d.cfg.Now().Before(e.until)
}

// find asks, and remembers. It does not end with who asked first: others wait
// for it too.
func (c *cache[V]) find(key string, find func(context.Context) (V, int, time.Duration, error)) (e entry[V]) {
	busy := client.Errorf(http.StatusServiceUnavailable, client.Unknown, "Too many questions are being asked of other servers; try again.")
	done, ok := c.d.begin()
	if !ok {
		return entry[V]{err: busy}
	}
	defer done()
	defer func() {
		if p := recover(); p != nil {
			c.d.cfg.Log.Error("panic while another server's answer was read", "panic", p, "stack", string(debug.Stack()))
			e = entry[V]{err: fmt.Errorf("reading an answer: %v", p)}
		}
	}()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	default:
		return entry[V]{err: busy}
	}
	var life time.Duration
	e.value, e.size, life, e.err = find(c.d.ctx)
	e.until = c.d.cfg.Now().Add(life)
	c.put(key, e)
	return e
}

func (c *cache[V]) put(key string, e entry[V]) {
	e.size += len(key) + 100
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held += e.size - c.m[key].size
	c.m[key] = e
	c.drop(func(old entry[V]) bool { return !c.d.cfg.Now().Before(old.until) })
	c.drop(func(entry[V]) bool { return true })
}

// drop drops what may go, as long as there is too much.
func (c *cache[V]) drop(may func(entry[V]) bool) {
	for key, old := range c.m {
		if len(c.m) <= c.most && c.held <= c.bytes {
			return
		}
		if may(old) {
			c.held -= old.size
			delete(c.m, key)
		}
	}
}
