package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/bench/matrixclient"
	"parley/bench/meter"
)

// password is that of every account.
const password = "correct-horse"

// user is the local part of the n-th account; the first watches.
func user(n int) string { return fmt.Sprintf("u%d", n) }

// watcher is a client that syncs all the time, as people's clients do.
type watcher struct {
	*matrixclient.Client
	peer *Peer

	stop   context.CancelFunc
	done   chan struct{}
	paused atomic.Bool // it does not ask meanwhile
	mu     sync.Mutex
	err    error
}

// filter is what a client asks for that does not want to know all members, nor who is
// there.
//
// spec: MX 1.19 CS §6.1
const filter = `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":100,"lazy_load_members":true}},"presence":{"types":[]}}`

// syncWait is how long a /sync without news takes.
const syncWait = 10 * time.Second

// watch logs the first account in and has it sync.
func watch(ctx context.Context, s matrixclient.Server, p *Peer) (*watcher, error) {
	c, err := s.Login(ctx, user(0), password)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{Client: c, peer: p, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		since := ""
		for ctx.Err() == nil {
			if w.paused.Load() {
				_ = meter.Sleep(ctx, aWhile) // the loop sees that it ended
				continue
			}
			next, err := w.sync(ctx, since)
			if err != nil {
				w.mu.Lock()
				w.err = err
				w.mu.Unlock()
				_ = meter.Sleep(ctx, time.Second) // the loop sees that it ended
				continue
			}
			since = next
		}
	}()
	return w, nil
}

// failed is why the last /sync that failed did; nil if none has.
func (w *watcher) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *watcher) close() {
	w.stop()
	<-w.done
	w.Close()
}

// synced is what is looked at of an answer to /sync.
type synced struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join map[string]struct {
			Timeline struct {
				Events []struct {
					Content struct {
						Body string `json:"body"`
					} `json:"content"`
				} `json:"events"`
			} `json:"timeline"`
		} `json:"join"`
	} `json:"rooms"`
}

// sync tells the rooms of the peer what their user sees.
//
// spec: MX 1.19 CS §6.5
func (w *watcher) sync(ctx context.Context, since string) (next string, err error) {
	q := url.Values{"timeout": {fmt.Sprint(syncWait.Milliseconds())}, "filter": {filter}}
	if since != "" {
		q.Set("since", since)
	}
	data, err := w.Raw(ctx, http.MethodGet, "/sync?"+q.Encode(), nil)
	if err != nil {
		return "", err
	}
	var got synced
	if err := json.Unmarshal(data, &got); err != nil {
		return "", fmt.Errorf("bench: /sync: %w", err)
	}
	for id, joined := range got.Rooms.Join {
		rm := w.peer.find(id)
		if rm == nil {
			continue
		}
		for _, e := range joined.Timeline.Events {
			rm.note(e.Content.Body)
		}
	}
	return got.Next, nil
}

// join enters a room by a server. One that answers that it goes on with that (Dendrite,
// after 20 seconds) has let the user in when it counts the room among hers.
//
// spec: MX 1.19 CS §7.4.2
func join(ctx context.Context, c *matrixclient.Client, rm *room) error {
	q := url.Values{"server_name": {rm.home}, "via": {rm.home}}
	_, err := c.Raw(ctx, http.MethodPost, "/join/"+url.PathEscape(rm.ID)+"?"+q.Encode(), map[string]any{})
	if e, ok := errors.AsType[*matrixclient.StatusError](err); !ok || e.Status != http.StatusAccepted {
		return err
	}
	for {
		var got struct {
			Rooms []string `json:"joined_rooms"`
		}
		err := c.Do(ctx, http.MethodGet, "/joined_rooms", nil, &got) // it may fail while its database is locked
		if err == nil && slices.Contains(got.Rooms, rm.ID) {
			return nil
		}
		if slept := meter.Sleep(ctx, time.Second); slept != nil {
			return fmt.Errorf("bench: the room is not entered: %w", errors.Join(slept, err))
		}
	}
}

// members is how many joined members of a room are known.
//
// spec: MX 1.19 CS §7.5
func members(ctx context.Context, c *matrixclient.Client, rm *room) (int, error) {
	var got struct {
		Joined map[string]json.RawMessage `json:"joined"`
	}
	err := c.Do(ctx, http.MethodGet, "/rooms/"+url.PathEscape(rm.ID)+"/joined_members", nil, &got)
	return len(got.Joined), err
}
