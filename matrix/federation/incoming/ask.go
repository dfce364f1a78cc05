package incoming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"parley/matrix/federation"
)

// Bounds of answers, in bytes, and of what is asked for.
const (
	maxEventAnswer   = 256 << 10
	maxMissingAnswer = 4 << 20
	maxPageAnswer    = 8 << 20
	maxAuthAnswer    = 16 << 20
	maxIDsAnswer     = 16 << 20
	maxStateAnswer   = 128 << 20
	// missingLimit is for how many events between others one asks.
	missingLimit = 20
	// maxTold is how many events one answer has at most.
	maxTold = 1000
	// maxState is how many pieces a state has at most, and causes of them.
	maxState = 500_000
	// maxAtOnce is how many events are asked for one by one at a time.
	maxAtOnce = 8
)

const v1 = "/_matrix/federation/v1"

// asker asks other servers about one room, in the name of one of our domains.
type asker struct {
	n      *Incoming
	p      *place
	origin string
	mu     sync.Mutex
	calls  int // that may still be made
}

var errBudget = errors.New("enough has been asked about this room for now")

// call makes one call.
func (a *asker) call(ctx context.Context, c federation.Call) ([]byte, error) {
	a.mu.Lock()
	a.calls--
	left := a.calls
	a.mu.Unlock()
	if left < 0 {
		return nil, errBudget
	}
	c.Origin, c.Timeout = a.origin, a.n.cfg.Timeout
	return a.n.cfg.Client.Do(ctx, c)
}

func (a *asker) get(ctx context.Context, server string, maxAnswer int64, query url.Values, segments ...string) ([]byte, error) {
	return a.call(ctx, federation.Call{
		Destination: server, Method: http.MethodGet, URI: v1 + federation.URI(query, segments...), MaxAnswer: maxAnswer,
	})
}

// pdus reads a list of events out of an answer.
func pdus(raw []byte, key string, most int) ([]json.RawMessage, error) {
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(answer[key], &list); err != nil {
		return nil, fmt.Errorf("%s is no list of events: %w", key, err)
	}
	if len(list) > most {
		return nil, fmt.Errorf("%d events were told, and at most %d were asked for", len(list), most)
	}
	return list, nil
}

// between asks for the events that lead from earliest to latest.
//
// spec: MX 1.19 SS §8.2
func (a *asker) between(ctx context.Context, server string, earliest, latest []string) ([]json.RawMessage, error) {
	body, err := json.Marshal(map[string]any{"earliest_events": earliest, "latest_events": latest, "limit": missingLimit, "min_depth": 0})
	if err != nil {
		return nil, err
	}
	raw, err := a.call(ctx, federation.Call{
		Destination: server, Method: http.MethodPost, Body: body, MaxAnswer: maxMissingAnswer,
		URI: v1 + federation.URI(nil, "get_missing_events", a.p.roomID),
	})
	if err != nil {
		return nil, err
	}
	return pdus(raw, "events", maxTold)
}

// event asks for one event.
//
// spec: MX 1.19 SS §9.1
func (a *asker) event(ctx context.Context, server, id string) (json.RawMessage, error) {
	raw, err := a.get(ctx, server, maxEventAnswer, nil, "event", id)
	if err != nil {
		return nil, err
	}
	list, err := pdus(raw, "pdus", maxTold)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%s answers with %d events where one was asked for", server, len(list))
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// chain asks for all that an event cites.
//
// spec: MX 1.19 SS §5.1.5
func (a *asker) chain(ctx context.Context, server, id string) ([]json.RawMessage, error) {
	raw, err := a.get(ctx, server, maxAuthAnswer, nil, "event_auth", a.p.roomID, id)
	if err != nil {
		return nil, err
	}
	return pdus(raw, "auth_chain", maxState)
}

// stateIDs asks for the state before an event, and what its events cite.
//
// spec: MX 1.19 SS §9.3
func (a *asker) stateIDs(ctx context.Context, server, id string) (state, auth []string, err error) {
	raw, err := a.get(ctx, server, maxIDsAnswer, url.Values{"event_id": {id}}, "state_ids", a.p.roomID)
	if err != nil {
		return nil, nil, err
	}
	var answer struct {
		State []string `json:"pdu_ids"`
		Auth  []string `json:"auth_chain_ids"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, nil, err
	}
	if len(answer.State) == 0 || len(answer.State)+len(answer.Auth) > maxState {
		return nil, nil, fmt.Errorf("%s tells a state of %d events", server, len(answer.State))
	}
	return answer.State, answer.Auth, nil
}

// state asks for the same in full.
//
// spec: MX 1.19 SS §9.2
func (a *asker) state(ctx context.Context, server, id string) ([]json.RawMessage, error) {
	select { // it may be large
	case a.n.bulk <- struct{}{}:
		defer func() { <-a.n.bulk }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	raw, err := a.get(ctx, server, maxStateAnswer, url.Values{"event_id": {id}}, "state", a.p.roomID)
	if err != nil {
		return nil, err
	}
	state, err := pdus(raw, "pdus", maxState)
	if err != nil {
		return nil, err
	}
	auth, err := pdus(raw, "auth_chain", maxState)
	return append(state, auth...), err
}

// page asks for events up to some, and those.
//
// spec: MX 1.19 SS §8.1
func (a *asker) page(ctx context.Context, server string, from []string, limit int) ([]json.RawMessage, error) {
	raw, err := a.get(ctx, server, maxPageAnswer, url.Values{"v": from, "limit": {strconv.Itoa(limit)}}, "backfill", a.p.roomID)
	if err != nil {
		return nil, err
	}
	return pdus(raw, "pdus", maxTold)
}

// each asks for events one by one, several at a time; those that nobody has are
// left out.
func (a *asker) each(ctx context.Context, servers, ids []string) []json.RawMessage {
	out := make([]json.RawMessage, len(ids))
	slots := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, s := range servers {
				if raw, err := a.event(ctx, s, id); err == nil {
					out[i] = raw
					return
				}
			}
		})
	}
	wg.Wait()
	var got []json.RawMessage
	for _, raw := range out {
		if raw != nil {
			got = append(got, raw)
		}
	}
	return got
}
