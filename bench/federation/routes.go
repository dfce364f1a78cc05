package federation

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"parley/matrix/federation"
	"parley/matrix/wire"
)

// routes are what the peer answers besides its keys.
func (p *Peer) routes() []federation.Route {
	const v1, v2 = "/_matrix/federation/v1/", "/_matrix/federation/v2/"
	return []federation.Route{
		{Method: "PUT", Path: v1 + "send/{txnId}", Handler: p.send},
		{Method: "GET", Path: v1 + "make_join/{roomId}/{userId}", Handler: p.inRoom(p.makeJoin)},
		{Method: "PUT", Path: v2 + "send_join/{roomId}/{eventId}", Handler: p.inRoom(p.sendJoin)},
		{Method: "GET", Path: v1 + "state/{roomId}", Handler: p.inRoom(p.state)},
		{Method: "GET", Path: v1 + "state_ids/{roomId}", Handler: p.inRoom(p.stateIDs)},
		{Method: "GET", Path: v1 + "event_auth/{roomId}/{eventId}", Handler: p.inRoom(p.eventAuth)},
		{Method: "GET", Path: v1 + "backfill/{roomId}", Handler: p.inRoom(p.backfill)},
		{Method: "POST", Path: v1 + "get_missing_events/{roomId}", Handler: p.inRoom(p.missing)},
		{Method: "GET", Path: v1 + "event/{eventId}", Handler: p.event},
		{Method: "GET", Path: v1 + "user/devices/{userId}", Handler: p.devices},
		{Method: "POST", Path: v1 + "user/keys/query", Handler: p.noKeys},
	}
}

// inRoom finds the room of a request.
func (p *Peer) inRoom(f func(*federation.Request, *room) (any, error)) federation.Handler {
	return func(r *federation.Request) (any, error) {
		rm := p.find(r.Var("roomId"))
		if rm == nil {
			return nil, notFound()
		}
		return f(r, rm)
	}
}

func notFound() error {
	return federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "That is not here.")
}

// send takes a transaction.
//
// spec: MX 1.19 SS §4
func (p *Peer) send(req *federation.Request) (any, error) {
	var t struct {
		PDUs []json.RawMessage `json:"pdus"`
	}
	if err := json.Unmarshal(req.Body, &t); err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "%v", err)
	}
	results := map[string]any{}
	for _, raw := range t.PDUs {
		var e struct {
			RoomID string `json:"room_id"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			continue
		}
		rm := p.find(e.RoomID)
		if rm == nil {
			continue
		}
		fresh, id, err := rm.take(raw)
		if err != nil {
			continue
		}
		if results[id] = struct{}{}; fresh {
			p.arrived.Add(1)
		}
	}
	p.news.Add(1)
	return map[string]any{"pdus": results}, nil
}

func (p *Peer) makeJoin(req *federation.Request, rm *room) (any, error) {
	if !slices.Contains(req.HTTP.URL.Query()["ver"], rm.Version.ID) {
		return nil, federation.Errorf(http.StatusBadRequest, "M_INCOMPATIBLE_ROOM_VERSION", "The room has version %s.", rm.Version.ID)
	}
	return rm.template(req.Var("userId")), nil
}

func (p *Peer) sendJoin(req *federation.Request, rm *room) (any, error) {
	answer, err := rm.welcome(req.Body, req.HTTP.URL.Query().Get("omit_members") == "true")
	if err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "%v", err)
	}
	return answer, nil
}

// state is the state before an event.
//
// spec: MX 1.19 SS §9
func (p *Peer) state(req *federation.Request, rm *room) (any, error) {
	state, ok := rm.stateBefore(req.HTTP.URL.Query().Get("event_id"))
	if !ok {
		return nil, notFound()
	}
	return map[string]any{"pdus": texts(state), "auth_chain": texts(rm.chain(state))}, nil
}

func (p *Peer) stateIDs(req *federation.Request, rm *room) (any, error) {
	state, ok := rm.stateBefore(req.HTTP.URL.Query().Get("event_id"))
	if !ok {
		return nil, notFound()
	}
	return map[string]any{"pdu_ids": ids(state), "auth_chain_ids": ids(rm.chain(state))}, nil
}

// chain is what events cite.
func (r *room) chain(of []*wire.PDU) []*wire.PDU {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Chain(of...)
}

func (p *Peer) eventAuth(req *federation.Request, rm *room) (any, error) {
	rm.mu.Lock()
	e := rm.Events[req.Var("eventId")]
	rm.mu.Unlock()
	if e == nil {
		return nil, notFound()
	}
	return map[string]any{"auth_chain": texts(rm.chain([]*wire.PDU{e}))}, nil
}

// maxHistory is how many events of the past are told at once.
const maxHistory = 100

// history is an answer with events of a room.
func history(rm *room, of []string, limit int) any {
	set := map[string]bool{}
	for _, id := range of {
		set[id] = true
	}
	return map[string]any{
		"origin": rm.home, "origin_server_ts": time.Now().UnixMilli(), "pdus": texts(rm.before(set, min(limit, maxHistory))),
	}
}

func (p *Peer) backfill(req *federation.Request, rm *room) (any, error) {
	q := req.HTTP.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "limit is no number")
	}
	return history(rm, q["v"], limit), nil
}

// missing tells what lies between events, oldest first.
//
// spec: MX 1.19 SS §8
func (p *Peer) missing(req *federation.Request, rm *room) (any, error) {
	var q struct {
		Latest   []string `json:"latest_events"`
		Earliest []string `json:"earliest_events"`
		Limit    int      `json:"limit"`
	}
	if err := json.Unmarshal(req.Body, &q); err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "%v", err)
	}
	set := map[string]bool{}
	for _, id := range q.Latest {
		set[id] = true
	}
	var out []*wire.PDU
	for _, e := range rm.before(set, maxHistory) {
		if slices.Contains(q.Earliest, e.EventID) || len(out) >= q.Limit {
			break
		}
		if !set[e.EventID] {
			out = append(out, e)
		}
	}
	slices.Reverse(out)
	return map[string]any{"events": texts(out)}, nil
}

func (p *Peer) event(req *federation.Request) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rm := range p.rooms {
		rm.mu.Lock()
		e := rm.Events[req.Var("eventId")]
		rm.mu.Unlock()
		if e != nil {
			return map[string]any{"origin": rm.home, "origin_server_ts": time.Now().UnixMilli(), "pdus": []json.RawMessage{e.JSON}}, nil
		}
	}
	return nil, notFound()
}

// devices says that somebody has none.
//
// spec: MX 1.19 SS §20
func (p *Peer) devices(req *federation.Request) (any, error) {
	return map[string]any{"user_id": req.Var("userId"), "stream_id": 1, "devices": []any{}}, nil
}

func (p *Peer) noKeys(*federation.Request) (any, error) {
	return map[string]any{"device_keys": map[string]any{}}, nil
}
