package joining

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// partial is a room whose members are not all known.
type partial struct {
	eventID, origin string
	servers         []string
}

// partialOf reads what is known of such a room; nil if it is none.
func partialOf(q store.Querier, conv core.ConvID) (*partial, error) {
	var p partial
	var servers []byte
	err := q.QueryRow(`SELECT event_id, origin, servers FROM joining_partial WHERE conv = $1`, string(conv)).Scan(&p.eventID, &p.origin, &servers)
	if store.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &p, json.Unmarshal(servers, &p.servers)
}

// resume goes on with all rooms whose members are not all known.
func (j *Joining) resume(ctx context.Context) error {
	var convs []string
	err := j.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		convs, err = store.List(hubstore.Querier(v), store.Column[string], `SELECT conv FROM joining_partial ORDER BY conv`)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading which Matrix rooms are not whole: %w", err)
	}
	for _, id := range convs {
		j.fill(core.ConvID(id), &found{})
	}
	return nil
}

// fill gets a room's members, and goes on trying until it has them. first is what
// is there already.
func (j *Joining) fill(conv core.ConvID, first *found) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ctx == nil || j.filling[conv] {
		return
	}
	j.filling[conv] = true
	j.wg.Add(1)
	go func(ctx context.Context) {
		defer j.wg.Done()
		defer func() {
			j.mu.Lock()
			delete(j.filling, conv)
			j.mu.Unlock()
		}()
		j.filler(ctx, conv, first)
	}(j.ctx)
}

func (j *Joining) filler(ctx context.Context, conv core.ConvID, first *found) {
	wait := j.cfg.FirstRetry
	for {
		err := j.fillOnce(ctx, conv, first)
		if err == nil || ctx.Err() != nil {
			return
		}
		j.count("members", "failed")
		j.cfg.Log.Info("the members of a room are not all known yet", "conversation", conv, "err", err)
		if !pause(ctx, wait*3/4+rand.N(wait/2+1)) {
			return
		}
		first, wait = &found{}, min(2*wait, j.cfg.MaxRetry)
	}
}

// fillOnce asks every server that is known for the room's state once. It returns
// nil when there is nothing more to do.
func (j *Joining) fillOnce(ctx context.Context, conv core.ConvID, first *found) error {
	select {
	case j.fills <- struct{}{}:
		defer func() { <-j.fills }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var p *partial
	var roomID string
	var version *wire.Version
	err := j.cfg.Hub.Read(ctx, func(v hub.View) error {
		var err error
		if p, err = partialOf(hubstore.Querier(v), conv); err != nil || p == nil {
			return err
		}
		c, err := v.Conversation(conv)
		if err != nil {
			return err
		}
		s, err := v.State(conv)
		if err != nil {
			return err
		}
		known := likely(c, s, core.Address{})
		p.servers = candidates(j.ours, p.servers, known)
		roomID = c.Native[core.Matrix]
		version, err = wire.VersionOf(s.Creation.Version)
		return err
	})
	if err != nil || p == nil {
		return err
	}
	if len(first.all) > 0 {
		return j.complete(ctx, conv, p, first)
	}
	last := fmt.Errorf("there is no server to ask")
	for _, server := range p.servers {
		f, err := j.fetchState(ctx, server, roomID, version, p)
		if err == nil {
			err = j.complete(ctx, conv, p, f)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		last = fmt.Errorf("%s: %w", server, err)
	}
	return last
}

// fetchState asks a server for the state before our join.
//
// spec: MX 1.19 SS §9
func (j *Joining) fetchState(ctx context.Context, server, roomID string, v *wire.Version, p *partial) (*found, error) {
	body, err := j.cfg.Client.Open(ctx, federation.Call{
		Origin: p.origin, Destination: server, Method: http.MethodGet,
		URI:       federation.URI(url.Values{"event_id": {p.eventID}}, "_matrix", "federation", "v1", "state", roomID),
		MaxAnswer: j.cfg.MaxAnswer, Timeout: j.cfg.Timeout,
	})
	if err != nil {
		return nil, err
	}
	var state, auth []*wire.PDU
	in := &intake{version: v, left: j.cfg.MaxEvents}
	err = readObject(body, map[string]func(*json.Decoder) error{"pdus": in.into(&state), "auth_chain": in.into(&auth)})
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	return j.check(ctx, j.cfg.Patience, roomID, v, state, auth)
}

// maxAtOnce is how many events are kept in one turn.
const maxAtOnce = 500

// complete gives a room the members that it has not, some at a time, so that
// others get their turn.
//
// spec: MX 1.19 SS §10
func (j *Joining) complete(ctx context.Context, conv core.ConvID, p *partial, f *found) error {
	batches := slices.Collect(slices.Chunk(f.all, maxAtOnce))
	for i, batch := range batches {
		over := false
		err := j.cfg.Rooms.Turn(ctx, func(t *shared.Turn) (err error) {
			over, err = j.completeSome(t, conv, p, f, batch, i == len(batches)-1)
			return err
		})
		if err != nil || over {
			return err
		}
	}
	j.count("members", "done")
	return nil
}

// completeSome is one turn of it. over says that there is nothing more to do.
func (j *Joining) completeSome(t *shared.Turn, conv core.ConvID, p *partial, f *found, batch []*wire.PDU, last bool) (over bool, err error) {
	sql := hubstore.Tx(t.Tx())
	now, err := partialOf(sql, conv)
	if err != nil || now == nil {
		return true, err
	}
	if now.eventID != p.eventID {
		return false, fmt.Errorf("the room was entered anew meanwhile")
	}
	inside, err := t.Inside(conv)
	if err != nil {
		return false, err
	}
	if last || !inside {
		if _, err := sql.Exec(`DELETE FROM joining_partial WHERE conv = $1`, string(conv)); err != nil {
			return false, err
		}
	}
	if !inside {
		return true, nil // who enters it again is told its state again
	}
	var all, members []shared.Incoming
	for _, pdu := range batch {
		all = append(all, incoming(pdu))
		if f.state[pdu.EventID] && pdu.Type == wire.TypeMember {
			members = append(members, incoming(pdu))
		}
	}
	if err := t.Cite(conv, all...); err != nil {
		return false, err
	}
	if err := t.Complete(conv, members, last); err != nil || !last {
		return false, err
	}
	return true, j.settle(t, conv)
}

// settle makes those servers the room's that are in it by its members, and not
// those that were said to be.
func (j *Joining) settle(t *shared.Turn, conv core.ConvID) error {
	said, err := j.cfg.Outbox.Servers(t.Tx(), conv)
	if err != nil {
		return err
	}
	in, err := t.Servers(conv)
	if err != nil {
		return err
	}
	missing := func(from []string) func(string) bool {
		return func(s string) bool { return slices.Contains(from, s) }
	}
	parted := slices.DeleteFunc(slices.Clone(said), missing(in))
	joined := slices.DeleteFunc(slices.Clone(in), missing(said))
	if len(parted)+len(joined) == 0 {
		return nil
	}
	feed, err := t.Tx().LastFeed()
	if err != nil {
		return err
	}
	return j.cfg.Outbox.Peers(t.Tx(), conv, joined, parted, feed)
}
