package devices

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
)

// Bounds of asking other servers.
const (
	maxCalls      = 64       // that clients wait for, at a time
	callsEach     = 16       // of them, of one request
	usersPerCall  = 250      // in one query
	claimsPerCall = 1000     // devices in one claim
	listsEach     = 10       // lists of one server that are fetched one by one for one request
	queryAnswer   = 16 << 20 // bytes
	listAnswer    = 4 << 20  // bytes
	claimAnswer   = 8 << 20  // bytes
	listTime      = 30 * time.Second
	keepTime      = 30 * time.Second
)

// What a client is told of a server that did not answer as it should. More is in
// the log: it may say what our network looks like.
var (
	errNoAnswer    = errors.New("the server could not be reached")
	errLate        = errors.New("the server did not answer in time")
	errUnusable    = errors.New("the server answered with something that is of no use")
	errNotNow      = errors.New("the server could not be reached a short while ago")
	errOurs        = errors.New("what the server said could not be kept")
	errNoExchange  = errors.New("nothing is exchanged with this server")
	errUnsharedNow = errors.New("no room is shared any longer")
)

// shown is what a client is told of an error.
func (d *Devices) shown(server string, err error) error {
	d.cfg.Log.Debug("asking a Matrix server about devices failed", "server", server, "err", err)
	if e, ok := errors.AsType[*federation.Error](err); ok {
		return fmt.Errorf("the server answered with status %d", e.Status)
	}
	_, paused := errors.AsType[*federation.BackoffError](err)
	switch {
	case paused:
		return errNotNow
	case errors.Is(err, errAnswer):
		return errUnusable
	case errors.Is(err, errOurs), errors.Is(err, errUnsharedNow):
		return err
	case errors.Is(err, federation.ErrRefused):
		return errNoExchange
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errLate
	}
	return errNoAnswer
}

// atOnce runs f for each server, so many at a time as may be. A server for which
// there is no turn before ctx ends has failed.
func atOnce[V any](ctx context.Context, d *Devices, servers map[string]V, f func(server string, v V) error) map[string]error {
	var mu sync.Mutex
	failed := map[string]error{}
	each := make(chan struct{}, callsEach)
	var wg sync.WaitGroup
	for server, v := range servers {
		if !take(ctx, each) {
			mu.Lock()
			failed[server] = errLate
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			defer func() { <-each }()
			err := d.keep.Do(func() error {
				if !take(ctx, d.slots) {
					return ctx.Err()
				}
				defer func() { <-d.slots }()
				return f(server, v)
			})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[server] = d.shown(server, err)
			}
		})
	}
	wg.Wait()
	return failed
}

func take(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// call asks a server and returns the JSON of its answer.
func (d *Devices) call(ctx context.Context, origin, server, method, uri string, body any, most int64) ([]byte, error) {
	c := federation.Call{Origin: origin, Destination: server, Method: method, URI: uri, MaxAnswer: most}
	if body != nil {
		var err error
		if c.Body, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	if end, ok := ctx.Deadline(); ok {
		if c.Timeout = time.Until(end); c.Timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	return d.cfg.Client.Do(ctx, c)
}

// asking is what one request asks of one server.
type asking struct {
	lists []core.Address                   // to be fetched one by one
	keep  []core.Address                   // to be asked for whole, and kept
	pass  map[core.Address][]string        // to be asked for and not kept
	known map[core.Address]client.UserKeys // what is known of lists, though stale
	convs map[core.Address]core.ConvID     // the anchors of those that are to be kept
	want  map[core.Address][]string        // the devices that are asked for
}

// Query implements [client.Others].
//
// spec: MX 1.19 SS §22
// spec: MX 1.19 SS §23
func (d *Devices) Query(ctx context.Context, viewer core.Address, users map[core.Address][]string) (map[core.Address]client.UserKeys, map[string]error) {
	out, servers, err := d.plan(ctx, viewer, users)
	if err != nil {
		failed := map[string]error{}
		for who := range users {
			failed[who.Domain] = d.shown(who.Domain, err)
		}
		return nil, failed
	}
	var mu sync.Mutex
	answer := func(a *asking, who core.Address, k client.UserKeys) {
		mu.Lock()
		defer mu.Unlock()
		out[who] = only(k, a.want[who])
	}
	failed := atOnce(ctx, d, servers, func(server string, a *asking) error {
		// What failed for one list is said, and the others are asked for.
		var errs error
		for _, who := range a.lists {
			k, err := d.wait(ctx, who)
			if err != nil {
				errs = errors.Join(errs, err)
				k = a.known[who]
			}
			if k.Devices != nil {
				answer(a, who, k)
			}
		}
		return errors.Join(errs, d.askFor(ctx, viewer.Domain, server, a, func(who core.Address, k client.UserKeys) { answer(a, who, k) }))
	})
	return out, failed
}

// only are the keys of some devices, or of all where none are named.
func only(k client.UserKeys, devices []string) client.UserKeys {
	if len(devices) == 0 {
		return k
	}
	all := k.Devices
	k.Devices = map[string]client.DeviceKeys{}
	for _, id := range devices {
		if dev, ok := all[id]; ok {
			k.Devices[id] = dev
		}
	}
	return k
}

// plan answers what is known, and says what to ask of which servers.
func (d *Devices) plan(ctx context.Context, viewer core.Address, users map[core.Address][]string) (out map[core.Address]client.UserKeys, servers map[string]*asking, err error) {
	out, servers = map[core.Address]client.UserKeys{}, map[string]*asking{}
	err = d.hub.Read(ctx, func(v hub.View) error {
		rooms, err := circleOf(v, viewer)
		if err != nil {
			return err
		}
		for who, want := range users {
			l, found, err := load(v, who)
			if err != nil {
				return err
			}
			if found && l.state == fresh {
				out[who] = only(l.keys, want)
				continue
			}
			a := servers[who.Domain]
			if a == nil {
				a = &asking{pass: map[core.Address][]string{}, known: map[core.Address]client.UserKeys{}, convs: map[core.Address]core.ConvID{}, want: users}
				servers[who.Domain] = a
			}
			conv, shared := rooms.anchor(who)
			switch {
			case found && l.state == stale && len(a.lists) < listsEach:
				a.known[who] = l.keys
				a.lists = append(a.lists, who)
			case shared:
				a.keep, a.convs[who] = append(a.keep, who), conv
			default:
				a.pass[who] = want
			}
		}
		return nil
	})
	return out, servers, err
}

// askFor asks a server for the keys of many users.
//
// spec: MX 1.19 SS §23
func (d *Devices) askFor(ctx context.Context, origin, server string, a *asking, answer func(core.Address, client.UserKeys)) error {
	all := slices.Clone(a.keep)
	for who := range a.pass {
		all = append(all, who)
	}
	for part := range slices.Chunk(all, usersPerCall) {
		q := d.watching.begin(part...)
		err := d.askPart(ctx, origin, server, a, part, q, answer)
		q.end()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Devices) askPart(ctx context.Context, origin, server string, a *asking, part []core.Address, q *watch, answer func(core.Address, client.UserKeys)) error {
	body := map[string][]string{}
	for _, who := range part {
		body[d.userID(who)] = append([]string{}, a.pass[who]...)
	}
	raw, err := d.call(ctx, origin, server, http.MethodPost, "/_matrix/federation/v1/user/keys/query",
		map[string]any{"device_keys": body}, queryAnswer)
	if err != nil {
		return err
	}
	var said userAnswers
	if err := json.Unmarshal(raw, &said); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	learnt := map[core.Address]list{}
	got := map[core.Address]client.UserKeys{}
	for _, who := range part {
		k, ok := said.of(d.userID(who))
		if !ok {
			continue
		}
		got[who] = k
		if conv := a.convs[who]; conv != "" {
			learnt[who] = list{conv: conv, asked: now().UnixMilli(), keys: k}
		}
	}
	// Given is what is kept, where something is: whoever was given it hears of
	// changes.
	kept, err := d.learn(ctx, learnt, q)
	if err != nil {
		return err
	}
	for who, k := range got {
		if as, ok := kept[who]; ok {
			k = as
		}
		answer(who, k)
	}
	return nil
}

// learn keeps lists whose users are still in their anchors with an account here,
// and returns what is kept now. If anything was learnt since they were asked for,
// they are stale at once.
func (d *Devices) learn(ctx context.Context, lists map[core.Address]list, q *watch) (kept map[core.Address]client.UserKeys, err error) {
	if len(lists) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	err = d.hub.Write(ctx, func(tx hub.Tx) error {
		kept = map[core.Address]client.UserKeys{}
		anchors := map[core.ConvID]*core.State{}
		for who, l := range lists {
			s, known := anchors[l.conv]
			if !known {
				if s, err = anchorState(tx, l.conv); err != nil {
					return err
				}
				anchors[l.conv] = s
			}
			if s == nil || s.Standing(who) != core.Joined {
				continue
			}
			if kept[who], err = d.keepList(tx, who, l, q.was(who)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		d.cfg.Log.Error("keeping lists of devices", "err", err)
		return nil, errOurs
	}
	return kept, nil
}

// keepList keeps one list, unless there is one by now that is kept up.
func (d *Devices) keepList(tx hub.Tx, who core.Address, l list, touched bool) (client.UserKeys, error) {
	there, found, err := load(tx, who)
	if err != nil || found && there.state == fresh && len(l.seen) == 0 {
		return there.keys, err
	}
	if touched {
		l.state = stale
		tx.OnCommit(func() { d.refetch.add(who, l.asked) })
	}
	return l.keys, d.put(tx, who, l)
}

// anchorState is the state of a shared room, nil if no account here is in it.
func anchorState(v hub.View, conv core.ConvID) (*core.State, error) {
	s, err := v.State(conv)
	if err != nil {
		return nil, err
	}
	for a, m := range s.Members {
		if a.IsLocal() && m.Standing == core.Joined {
			return s, nil
		}
	}
	return nil, nil
}
